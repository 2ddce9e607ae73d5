//! `cargo xtask test`: everything from a clean clone to a verdict.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use auditstream_stack::Progress;

use crate::child::{cargo, succeed};
use crate::others::Others;
use crate::report::Report;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write what became of the events under each fault as a JSON array; goes before what is passed on.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Passed to `cargo test --release --workspace`: a filter, `-p CRATE`, or `-- --nocapture`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo: Vec<String>,
}

/// What the tests start.
pub(crate) struct Programs {
    stack_exe: PathBuf,
    release: PathBuf,
}

impl Programs {
    /// Installs what they need and builds them.
    pub(crate) fn build(progress: &dyn Progress) -> Result<Self> {
        progress.step("packages and servers");
        auditstream_stack::ensure_installed(progress)?;
        auditstream_stack::ensure_databases(progress)?;
        auditstream_stack::ensure_registry(progress)?;
        progress.step("build the programs the tests start (release)");
        succeed("cargo build", &mut cargo(&["build", "--release", "--workspace", "--bins"])?)?;
        progress.step("build the worker with crash points (release)");
        // The whole workspace: with another selection of packages cargo would build librdkafka once more.
        let faults = ["--features", "auditstream/faults", "--bin", "auditstream-faults"];
        succeed("cargo build", cargo(&["build", "--release", "--workspace"])?.args(faults))?;
        let stack_exe = std::env::current_exe().context("find this executable")?;
        Ok(Self { stack_exe, release: target()?.join("release") })
    }

    /// Tells a test run where they are.
    pub(crate) fn hand_to(&self, test: &mut Command) {
        test.env("AUDITSTREAM_BIN", self.release.join("auditstream"));
        test.env("AUDITSTREAM_FAULTS_BIN", self.release.join("auditstream-faults"));
        test.env("AUDITSTREAM_STACK_EXE", &self.stack_exe);
    }
}

/// The target folder: this is target/debug/xtask.
pub(crate) fn target() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this executable")?;
    Ok(own.ancestors().nth(2).context("find target")?.to_owned())
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let progress = crate::progress::shown();
    let others = Others::ensure(progress.as_ref())?;
    let programs = Programs::build(progress.as_ref())?;
    progress.step(&format!("cargo test --release --workspace {}", args.cargo.join(" ")));
    let report = Report::new(&target()?)?;
    let mut test = cargo(&["test", "--release", "--workspace"])?;
    test.args(&args.cargo).env("AUDITSTREAM_FAULTS_REPORT", report.file());
    programs.hand_to(&mut test);
    others.hand_to(&mut test);
    let tested = succeed("cargo test", &mut test);
    report.finish(args.json.as_deref())?;
    tested
}
