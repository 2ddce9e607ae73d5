//! `cargo xtask test`: everything from a clean clone to a verdict.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use auditstream_stack::{Installed, Progress};

use crate::child::{cargo, command, succeed};
use crate::report::Report;

/// An Avro implementation that shares no code with ours reads our golden files.
const FASTAVRO: &str = "fastavro==1.13.1";

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
    let programs = Programs::build(progress.as_ref())?;
    progress.step("Python with fastavro");
    let python = python(&auditstream_stack::ensure_installed(progress.as_ref())?)?;
    progress.step("Avro for Java");
    let avro = auditstream_stack::ensure_avro(progress.as_ref())?;
    progress.step(&format!("cargo test --release --workspace {}", args.cargo.join(" ")));
    let report = Report::new(&target()?)?;
    let mut test = cargo(&["test", "--release", "--workspace"])?;
    test.args(&args.cargo).env("AUDITSTREAM_PYTHON", python).env("AUDITSTREAM_FAULTS_REPORT", report.file());
    test.env("AUDITSTREAM_AVRO_CLASS_PATH", avro);
    programs.hand_to(&mut test);
    let tested = succeed("cargo test", &mut test);
    report.finish(args.json.as_deref())?;
    tested
}

/// A Python with fastavro, made once in the cache. Complete when the marker is there.
fn python(installed: &Installed) -> Result<PathBuf> {
    let folder = installed.cache.join(format!("python-{}", FASTAVRO.replace("==", "-")));
    let (python, marker) = (folder.join("bin/python3"), folder.join("complete"));
    if marker.is_file() && python.exists() {
        return Ok(python);
    }
    // Two at once: the second waits and then finds it done.
    let turn =
        File::create(installed.cache.join("python.lock")).context("create the lock file of the Python folder")?;
    turn.lock().context("lock the Python folder")?;
    if marker.is_file() && python.exists() {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    succeed("python3 -m venv", command("python3")?.args(["-m", "venv"]).arg(&folder))?;
    succeed("pip install", command(&python)?.args(["-m", "pip", "install", "--quiet", FASTAVRO]))?;
    File::create(&marker).with_context(|| format!("create {}", marker.display()))?;
    Ok(python)
}
