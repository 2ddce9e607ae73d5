//! `cargo xtask bench queries-postgres`: a stack of its own, and `auditstream-demo queries-postgres` (`bench/`) on it, which starts a PostgreSQL.

use std::path::PathBuf;

use anyhow::Result;

use super::own_stack::Benchmark;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Events in each table; two million take some minutes to make, and 5 GB of disk.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    rows: u64,
    /// Write the figures to this file, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the figures into bench/results, for `cargo xtask bench report`.
    #[arg(long)]
    results: bool,
    /// Handed on to `auditstream-demo queries-postgres`, such as `--cold 5`; see its --help.
    #[arg(last = true)]
    more: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let benchmark = Benchmark {
        subcommand: "queries-postgres",
        json: args.json.as_deref(),
        results: args.results.then_some("queries-postgres"),
        with_databases: true,
        ..Benchmark::default()
    };
    benchmark.run(|bench| {
        bench.args(["--rows", &args.rows.to_string()]).args(&args.more);
    })
}
