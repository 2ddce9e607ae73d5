//! `cargo xtask bench order-service`: a stack, the service three times, and a load that each gets in turns. The measuring is `auditstream-demo orders`.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use auditstream_stack::{Options, Stack};

use crate::child::{command, status};
use crate::demo::{build, target_folder};

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
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(path) = &args.json {
        // Rather now than after some minutes.
        File::options()
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("{} can't be written", path.display()))?;
    }
    let progress = crate::progress::shown();
    progress.step("servers and what the build needs");
    auditstream_stack::ensure_installed(progress.as_ref())?;
    if args.postgres {
        auditstream_stack::ensure_databases(progress.as_ref())?;
    }
    progress.step("build (release)");
    build()?;
    progress.step("start a Kafka and a ClickHouse, for this alone");
    let name = format!("bench-{}", std::process::id());
    let stack = Stack::start_shown(Options { throughput: true, ..Options::named(&name) }, progress.as_ref())?;
    let mut bench = command(target_folder().join("release/auditstream-demo"))?;
    bench.args(["orders", "--stack", &name]);
    bench.args(["--rounds", &args.rounds.to_string(), "--per-second", &args.per_second.to_string()]);
    if args.postgres {
        bench.arg("--postgres");
    }
    if let Some(json) = &args.json {
        bench.arg("--json").arg(json);
    }
    let ended = status(&mut bench)?;
    drop(stack);
    if !ended.success() {
        bail!("the comparison failed ({ended}); what went wrong stands above");
    }
    Ok(())
}
