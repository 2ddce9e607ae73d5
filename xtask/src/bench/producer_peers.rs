//! `cargo xtask bench producer-peers`: a stack of its own, Kafka's performance tool, and `auditstream-demo producer-peers` (`bench/`) on it.

use std::path::PathBuf;

use anyhow::Result;
use auditstream_stack::{Installed, KAFKA_VERSION, Progress};

use super::own_stack::Benchmark;
use crate::others::{jars, made};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds that count, each with all ways in turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Events published in each run.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=20_000_000))]
    events: u64,
    /// Write the figures into bench/results, for `cargo xtask bench report`.
    #[arg(long)]
    results: bool,
    /// Handed on to `auditstream-demo producer-peers`, such as `--only call`; see its --help.
    #[arg(last = true)]
    more: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let progress = crate::progress::shown();
    let installed = auditstream_stack::ensure_installed(progress.as_ref())?;
    let tools = performance_tool(&installed, progress.as_ref())?;
    let benchmark = Benchmark {
        subcommand: "producer-peers",
        results: args.results.then_some("producer-peers"),
        with_databases: true,
        ..Benchmark::default()
    };
    benchmark.run(|bench| {
        bench.args(["--rounds", &args.rounds.to_string(), "--events", &args.events.to_string()]);
        bench.arg("--java").arg(&installed.servers.java);
        bench.arg("--class-path").arg(format!("{}/*:{}", tools.display(), installed.servers.kafka_class_path));
        bench.args(&args.more);
    })
}

/// The jar with Kafka's command-line tools; what they need the broker has.
fn performance_tool(installed: &Installed, progress: &dyn Progress) -> Result<PathBuf> {
    progress.step("Kafka's performance tool");
    let folder = made(&installed.cache, &format!("kafka-tools-{KAFKA_VERSION}"), |folder| {
        auditstream_stack::ensure_maven(progress)?;
        let artifact = format!(
            "<groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{KAFKA_VERSION}</version>"
        );
        jars(folder, &artifact, "-DincludeArtifactIds=kafka-tools,argparse4j")
    })?;
    Ok(folder.join("libs"))
}
