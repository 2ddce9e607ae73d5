//! `cargo xtask bench queries`: a stack of its own, and `auditstream-demo queries` (`bench/`) on it.

use std::path::PathBuf;

use anyhow::Result;

use super::own_stack::Benchmark;
use crate::child::workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Events in the table; fifty million take some minutes to make, and 5 GB of disk.
    #[arg(long, default_value_t = 50_000_000, value_parser = clap::value_parser!(u64).range(100_000..=1_000_000_000))]
    rows: u64,
    /// Write the figures to this file, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the figures into bench/results, for `cargo xtask bench report`.
    #[arg(long)]
    results: bool,
    /// Write this run's times into docs/queries.md.
    #[arg(long)]
    write_page: bool,
    /// Handed on to `auditstream-demo queries`, such as `--newest 1000000`; see its --help.
    #[arg(last = true)]
    more: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let benchmark = Benchmark {
        subcommand: "queries",
        json: args.json.as_deref(),
        results: args.results.then_some("queries"),
        ..Benchmark::default()
    };
    benchmark.run(|bench| {
        bench.args(["--rows", &args.rows.to_string()]);
        if args.write_page {
            bench.arg("--page").arg(workspace().join("docs/queries.md"));
        }
        bench.args(&args.more);
    })
}
