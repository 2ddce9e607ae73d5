//! `auditstream-demo producer-peers`: the producer library beside what people use instead, in turns, on a stack that is up.
//!
//! First one call on a request's path: `record` beside bare channels, rdkafka with JSON, and an INSERT into PostgreSQL. Then publishing: the library
//! beside kcat and Kafka's own performance tool.

mod call;
mod json;
mod publish;
mod results;
mod tools;
mod ways;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use auditstream_bench::target::Target;
use auditstream_bench::topic;
use auditstream_producer::{Config, Producer};
use rdkafka::ClientConfig;
use tokio::runtime::Handle;

use super::{Events, path, wait_acknowledged};
use crate::screen::Screen;
use crate::{Common, setup};
use tools::Files;

/// Events of the run that does not count.
const WARM_UP: u64 = 500_000;
/// The library's.
const LINGER: Duration = Duration::from_millis(5);

/// Measures the producer library beside what people use instead.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Calls of each way and round, at a fixed rate and again as fast as it goes.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(2_000..=10_000_000))]
    calls: u64,
    /// Events published in each run.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=20_000_000))]
    events: u64,
    /// Rounds that count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Call, Part::Publish])]
    only: Vec<Part>,
    /// The Java launcher, for Kafka's performance tool; without it that is left out.
    #[arg(long, value_name = "FILE", requires = "class_path")]
    java: Option<PathBuf>,
    /// Jars of Kafka and its tools, separated by colons.
    #[arg(long, value_name = "JARS")]
    class_path: Option<String>,
    /// Write the figures here for the report.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What the caller waits.
    Call,
    /// Until all is acknowledged.
    Publish,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Call { "call" } else { "publish" })
    }
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Zstd,
    Lz4,
}

impl Codec {
    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }
}

/// What the comparisons share.
struct Peers<'a> {
    args: &'a Args,
    screen: &'a Screen,
    target: Target,
    events: Events,
    versions: BTreeMap<String, String>,
}

impl Peers<'_> {
    /// The library's defaults.
    fn config(&self) -> Config {
        Config {
            bootstrap_servers: self.target.bootstrap().to_owned(),
            topic: self.target.topic().to_owned(),
            linger: LINGER,
            ..Config::default()
        }
    }

    /// librdkafka with the same settings.
    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", self.target.bootstrap())
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("compression.codec", self.config().compression.as_str())
            .set("compression.level", "1")
            .set("linger.ms", LINGER.as_millis().to_string());
        client
    }

    /// How many records the topic holds: what a tool says it sent is not believed. Nothing is deleted, and no transaction leaves marks.
    fn records(&self) -> Result<u64> {
        Ok(topic::ends(self.target.bootstrap(), self.target.topic())?.into_iter().sum())
    }

    /// A connected producer: its first event is acknowledged.
    fn producer(&self, config: Config) -> Result<Producer> {
        let producer = Producer::new(config)?;
        producer.record(self.events.at(0)).context("the first event was refused")?;
        wait_acknowledged(&producer)?;
        Ok(producer)
    }
}

/// Runs the comparisons and writes the file. Blocks.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (screen, runtime) = (Screen::new(), Handle::current());
    let target = args.common.target()?;
    let topics = ["topics", "create"];
    runtime.block_on(setup::auditstream_with(&screen, &target, &args.common.program()?, &topics, &[]))?;
    let peers =
        Peers { args, screen: &screen, target, events: Events::new(args.common.seed), versions: versions(args)? };
    screen.say("\nA run that does not count, to warm Kafka up");
    let producer = peers.producer(peers.config())?;
    path::hand_in_all(&peers.events, &producer, WARM_UP, None)?;
    wait_acknowledged(&producer)?;
    drop(producer);

    let calls = args.only.contains(&Part::Call).then(|| call::compare(&peers)).transpose()?;
    let published = if args.only.contains(&Part::Publish) {
        let files = Files::write(&peers, &peers.target.state().dir)?;
        Some((publish::compare(&peers, &files)?, files))
    } else {
        None
    };
    let published = published.as_ref().map(|(all, files)| (all.as_slice(), files));
    let results = results::of(&peers, calls.as_deref(), published);
    for section in &results.sections {
        let table = auditstream_bench::table::Table { names: section.columns.clone(), rows: section.rows.clone() };
        screen.say(&format!("\n{}", table.render(2)));
    }
    if let Some(path) = &args.results {
        results.write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    Ok(())
}

/// Of the programs that take part, as they say.
fn versions(args: &Args) -> Result<BTreeMap<String, String>> {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let output = output.with_context(|| format!("{program} can't be started"))?;
        anyhow::Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let mut versions = BTreeMap::new();
    let kcat = said("kcat", &["-V"])?;
    let kcat = kcat.lines().find_map(|line| line.strip_prefix("Version ")).unwrap_or("unknown");
    // `1.7.1 (JSON, ..., librdkafka 2.0.2 builtin.features=...)`
    let library = kcat.split("librdkafka ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("unknown");
    let own = kcat.split(' ').next().unwrap_or("unknown");
    versions.insert("kcat".to_owned(), format!("{own} on librdkafka {library}"));
    if let Some(java) = &args.java {
        let java = said(&java.display().to_string(), &["-version"])?;
        let version = java.split('"').nth(1).unwrap_or("unknown");
        versions.insert("Java".to_owned(), version.to_owned());
    }
    Ok(versions)
}
