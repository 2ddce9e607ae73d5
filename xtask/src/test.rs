//! `cargo xtask test`: everything from a clean clone to a verdict.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use auditstream_stack::Installed;

use crate::child::{cargo, command, succeed};

/// An Avro implementation that shares no code with ours reads our golden files.
const FASTAVRO: &str = "fastavro==1.13.1";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed to `cargo test --release --workspace`: a filter, `-p CRATE`, or `-- --nocapture`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let progress = crate::progress::shown();
    progress.step("[1/4] packages and servers");
    let installed = auditstream_stack::ensure_installed(progress.as_ref())?;
    progress.step("[2/4] Python with fastavro");
    let python = python(&installed)?;
    progress.step("[3/4] build the programs the tests start (release)");
    succeed("cargo build", &mut cargo(&["build", "--release", "--workspace", "--bins"])?)?;
    let stack_exe = std::env::current_exe().context("find this executable")?;
    progress.step(&format!("[4/4] cargo test --release --workspace {}", args.cargo.join(" ")));
    let mut test = cargo(&["test", "--release", "--workspace"])?;
    // target/debug/xtask, and beside it what step 3 built.
    let bin = stack_exe.ancestors().nth(2).context("find target")?.join("release/auditstream");
    test.args(&args.cargo).env("AUDITSTREAM_PYTHON", python).env("AUDITSTREAM_BIN", bin);
    test.env("AUDITSTREAM_STACK_EXE", stack_exe);
    succeed("cargo test", &mut test)
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
