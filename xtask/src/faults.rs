//! `cargo xtask faults`: only the tests that make faults, and what became of the events.

use std::path::PathBuf;

use anyhow::Result;

use crate::child::{cargo, succeed};
use crate::report::Report;
use crate::test::{Programs, target};

/// The modules whose tests make faults.
const MODULES: [&str; 6] = ["faults::", "crashes::", "outage::", "outbox::", "poison::", "registry::"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The long form, of half an hour: 10 million events across 300 kills, ten minutes without ClickHouse.
    #[arg(long)]
    long: bool,
    /// Write the records as a JSON array: fault, runs, events, lost, double, `recovered_ms`, passed, and where a test measures more `figures`.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only tests whose name contains this, such as `kills` or `group::`.
    filter: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let programs = Programs::build(crate::progress::shown().as_ref())?;
    let report = Report::new(&target()?)?;
    let mut test = cargo(&["test", "--release", "--workspace", "--test", "real", "--"])?;
    match &args.filter {
        Some(filter) => test.arg(filter),
        None => test.args(MODULES),
    };
    programs.hand_to(&mut test);
    test.env("AUDITSTREAM_FAULTS_REPORT", report.file());
    if args.long {
        test.env("AUDITSTREAM_FAULTS_LONG", "1").arg("--nocapture");
    }
    let tested = succeed("cargo test", &mut test);
    report.finish(args.json.as_deref())?;
    tested
}
