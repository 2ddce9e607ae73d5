//! `cargo xtask bench order-service`: a stack, the service three times, and a load that each gets in turns. The measuring is `auditstream-demo orders`.

use std::path::PathBuf;

use anyhow::Result;

use super::own_stack::Benchmark;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds that count, each a turn of a few seconds for each way of auditing.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Requests a second.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    per_second: u32,
    /// The service's database is a PostgreSQL server made for this, instead of SQLite.
    #[arg(long)]
    postgres: bool,
    /// Write the figures to this file, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the figures into bench/results, for `cargo xtask bench report`.
    #[arg(long)]
    results: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let name = if args.postgres { "order-service-postgres" } else { "order-service" };
    let benchmark = Benchmark {
        subcommand: "orders",
        json: args.json.as_deref(),
        results: args.results.then_some(name),
        with_databases: args.postgres,
        ..Benchmark::default()
    };
    benchmark.run(|bench| {
        bench.args(["--rounds", &args.rounds.to_string(), "--per-second", &args.per_second.to_string()]);
        if args.postgres {
            bench.arg("--postgres");
        }
    })
}
