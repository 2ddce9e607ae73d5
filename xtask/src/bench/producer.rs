//! `cargo xtask bench producer`: a stack of its own, and `auditstream-demo producer` (`bench/`) on it.

use std::path::PathBuf;

use anyhow::Result;

use super::own_stack::Benchmark;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Events in each run of the whole path.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    events: u64,
    /// Runs of each scenario; the figure is their median.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Write the figures to this file, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the figures into bench/results, for `cargo xtask bench report`.
    #[arg(long)]
    results: bool,
    /// Handed on to `auditstream-demo producer`, such as `--only path --compression zstd`; see its --help.
    #[arg(last = true)]
    more: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let benchmark = Benchmark {
        subcommand: "producer",
        json: args.json.as_deref(),
        results: args.results.then_some("producer"),
        with_databases: true,
        ..Benchmark::default()
    };
    benchmark.run(|bench| {
        bench.args(["--events", &args.events.to_string(), "--runs", &args.runs.to_string()]).args(&args.more);
    })
}
