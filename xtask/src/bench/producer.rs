//! `cargo xtask bench producer`: a stack of its own, and `auditstream-demo producer` (`bench/`) on it.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use auditstream_stack::{Options, Stack};

use crate::child::{cargo, command, succeed};
use crate::demo::target_folder;

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
    /// Handed on to `auditstream-demo producer`, such as `--only path --compression zstd`; see its --help.
    #[arg(last = true)]
    more: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(path) = &args.json {
        // Rather now than after some minutes.
        let file = File::options().append(true).create(true).open(path);
        file.with_context(|| format!("{} can't be written", path.display()))?;
    }
    let progress = crate::progress::shown();
    auditstream_stack::ensure_installed(progress.as_ref())?;
    auditstream_stack::ensure_databases(progress.as_ref())?;
    succeed("cargo build", &mut cargo(&["build", "--release", "--bin", "auditstream", "--bin", "auditstream-demo"])?)?;
    let name = format!("bench-{}", std::process::id());
    let stack = Stack::start_shown(Options { throughput: true, ..Options::named(&name) }, progress.as_ref())?;
    let mut bench = command(target_folder().join("release/auditstream-demo"))?;
    bench.args(["producer", "--stack", &name]);
    bench.args(["--events", &args.events.to_string(), "--runs", &args.runs.to_string()]);
    if let Some(json) = &args.json {
        bench.arg("--json").arg(json);
    }
    let measured = succeed("the benchmark", bench.args(&args.more));
    drop(stack);
    measured
}
