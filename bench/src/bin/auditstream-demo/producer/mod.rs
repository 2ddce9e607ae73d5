//! `auditstream-demo producer`: what the producer library costs and what it carries, on a stack that is up.
//!
//! All scenarios run in this one process, each several times; the figure is the median of its runs. The events are those of the load generator, about
//! 300 bytes encoded, made before the clock starts or on a clock of their own: what is measured is the library.

mod bare;
mod clock;
mod events;
mod memory;
mod path;
pub(crate) mod peers;
mod record;
mod relay;
mod report;
mod results;
mod spill;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use auditstream_bench::target::Target;
use auditstream_bench::worker::Worker;
use auditstream_producer::{Compression, Config, Producer};
use tokio::runtime::Handle;

use crate::screen::Screen;
use crate::{Common, setup};
pub(crate) use events::Events;
pub(crate) use memory::resume_kafka;
use report::{Figure, Report, Unit};

/// From the start of a scenario to the last acknowledgement.
const ACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Measures the producer library: the call, the whole path, the relay, memory in an outage.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Events in each run of the whole path.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    events: u64,
    /// Runs of each scenario; the figure is their median.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Only these scenarios.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Scenario::ALL)]
    only: Vec<Scenario>,
    /// How batches are compressed; default: what the library does.
    #[arg(long, value_enum)]
    compression: Option<Codec>,
    /// A librdkafka property, `name=value`; may be repeated.
    #[arg(long = "property", value_name = "NAME=VALUE")]
    properties: Vec<String>,
    /// How long a batch waits for more events, in milliseconds; default: what the library does.
    #[arg(long)]
    linger_ms: Option<u64>,
    /// Most events on their way; default: what the library does.
    #[arg(long)]
    queue_events: Option<usize>,
    /// Hand in no more than so many events a second on the whole path; default: as fast as it goes.
    #[arg(long, value_name = "EVENTS")]
    offered: Option<u32>,
    /// Rows in each run of the relay.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    rows: u64,
    /// How long Kafka is away while memory is watched, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    away: u64,
    /// Write the figures here, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the figures here for the report.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// `record` at 100,000 events a second, each call timed.
    Record,
    /// `record` from four threads until the queue is full.
    Burst,
    /// From `record` to Kafka's acknowledgement, as fast as it goes.
    Path,
    /// librdkafka alone with the same settings and ready records: what no producer on it can go below.
    Bare,
    /// To disk while Kafka is away, and from there to Kafka.
    Spill,
    /// An outbox in PostgreSQL, emptied by `auditstream relay`.
    Relay,
    /// Memory with a full queue while Kafka is away.
    Memory,
}

impl Scenario {
    const ALL: [Self; 7] = [Self::Record, Self::Burst, Self::Path, Self::Bare, Self::Spill, Self::Relay, Self::Memory];
}

impl std::fmt::Display for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Record => "record",
            Self::Burst => "burst",
            Self::Path => "path",
            Self::Bare => "bare",
            Self::Spill => "spill",
            Self::Relay => "relay",
            Self::Memory => "memory",
        })
    }
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Codec {
    Zstd,
    Lz4,
    None,
}

/// What the scenarios share.
struct Bench<'a> {
    args: &'a Args,
    screen: &'a Screen,
    target: Target,
    events: Events,
}

impl Bench<'_> {
    /// The library's defaults, and what the command line says otherwise.
    fn config(&self) -> Result<Config> {
        let mut config = Config {
            bootstrap_servers: self.target.bootstrap().to_owned(),
            topic: self.target.topic().to_owned(),
            ..Config::default()
        };
        match self.args.compression {
            Some(Codec::Zstd) => config.compression = Compression::Zstd,
            Some(Codec::Lz4) => config.compression = Compression::Lz4,
            Some(Codec::None) => config.compression = Compression::None,
            None => {}
        }
        if let Some(linger) = self.args.linger_ms {
            config.linger = Duration::from_millis(linger);
        }
        if let Some(events) = self.args.queue_events {
            config.queue_events = events;
        }
        for property in &self.args.properties {
            let (name, value) = property.split_once('=').context("--property takes NAME=VALUE")?;
            config.properties.insert(name.to_owned(), value.to_owned());
        }
        Ok(config)
    }

    /// A connected producer: its first event is acknowledged.
    fn producer(&self, config: Config) -> Result<Producer> {
        let producer = Producer::new(config)?;
        producer.record(self.events.at(0)).context("the first event was refused")?;
        wait_acknowledged(&producer)?;
        Ok(producer)
    }

    /// `run` as often as the command line says, with a line for each.
    fn repeat<T>(&self, what: &str, mut run: impl FnMut() -> Result<(T, String)>) -> Result<Vec<T>> {
        let runs = (1..=self.args.runs).map(|number| {
            let (measured, line) = run()?;
            self.screen.say(&format!("  {what} {number}: {line}"));
            Ok(measured)
        });
        runs.collect()
    }
}

/// Waits until everything handed in is acknowledged.
fn wait_acknowledged(producer: &Producer) -> Result<()> {
    let begun = Instant::now();
    loop {
        let stats = producer.stats();
        ensure!(stats.failed.total() == 0, "{} events were not delivered", stats.failed.total());
        if stats.queue_events == 0 {
            return Ok(());
        }
        ensure!(begun.elapsed() < ACKNOWLEDGED, "{} events are not acknowledged", stats.queue_events);
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Runs the scenarios, prints the table, writes the file. Blocks.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (screen, runtime) = (Screen::new(), Handle::current());
    let target = args.common.target()?;
    let topics = ["topics", "create"];
    runtime.block_on(setup::auditstream_with(&screen, &target, &args.common.program()?, &topics, &[]))?;
    let bench = Bench { args, screen: &screen, events: Events::new(args.common.seed), target };
    let mut report = Report::new(args.runs);
    let chosen = |scenario| args.only.contains(&scenario);
    path::warm_up(&bench)?;
    if chosen(Scenario::Record) {
        record::latency(&bench, &mut report)?;
    }
    if chosen(Scenario::Burst) {
        record::burst(&bench, &mut report)?;
    }
    if chosen(Scenario::Path) {
        path::acknowledged(&bench, &mut report)?;
    }
    if chosen(Scenario::Bare) {
        bare::librdkafka(&bench, &mut report)?;
    }
    if chosen(Scenario::Spill) {
        spill::in_and_out(&bench, &mut report)?;
    }
    if chosen(Scenario::Relay) {
        runtime.block_on(relay::from_postgres(&bench, &mut report))?;
    }
    if chosen(Scenario::Memory) {
        memory::kafka_away(&bench, &mut report)?;
    }
    screen.say("");
    screen.say(&report.table().render(2));
    if let Some(path) = &args.json {
        report.write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    if let Some(path) = &args.results {
        results::of(&report, args).write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    Ok(())
}
