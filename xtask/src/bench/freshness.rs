//! `cargo xtask bench freshness`: a stack of its own, and `auditstream-demo freshness` (`bench/`) on it.

use anyhow::Result;

use super::own_stack::Benchmark;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds, each with every rate.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Length of each run that counts, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Write the figures into bench/results, for `cargo xtask bench report`.
    #[arg(long)]
    results: bool,
    /// Handed on to `auditstream-demo freshness`, such as `--rates 50000`; see its --help.
    #[arg(last = true)]
    more: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let benchmark =
        Benchmark { subcommand: "freshness", results: args.results.then_some("freshness"), ..Benchmark::default() };
    benchmark.run(|bench| {
        bench.args(["--rounds", &args.rounds.to_string(), "--seconds", &args.seconds.to_string()]).args(&args.more);
    })
}
