//! `cargo xtask bench queries`: a stack of its own, and `auditstream-demo queries` (`bench/`) on it.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use auditstream_stack::{Options, Stack};

use crate::child::{cargo, command, succeed, workspace};
use crate::demo::target_folder;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Events in the table; fifty million take some minutes to make, and 5 GB of disk.
    #[arg(long, default_value_t = 50_000_000, value_parser = clap::value_parser!(u64).range(100_000..=1_000_000_000))]
    rows: u64,
    /// Write the figures to this file, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write this run's times into docs/queries.md.
    #[arg(long)]
    write_page: bool,
    /// Handed on to `auditstream-demo queries`, such as `--newest 1000000`; see its --help.
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
    succeed("cargo build", &mut cargo(&["build", "--release", "--workspace", "--bins"])?)?;
    let name = format!("bench-{}", std::process::id());
    let stack = Stack::start_shown(Options { throughput: true, ..Options::named(&name) }, progress.as_ref())?;
    let mut bench = command(target_folder().join("release/auditstream-demo"))?;
    bench.args(["queries", "--stack", &name, "--rows", &args.rows.to_string()]);
    if let Some(json) = &args.json {
        bench.arg("--json").arg(json);
    }
    if args.write_page {
        bench.arg("--page").arg(workspace().join("docs/queries.md"));
    }
    let measured = succeed("the benchmark", bench.args(&args.more));
    drop(stack);
    measured
}
