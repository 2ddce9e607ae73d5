//! `cargo xtask bench report`: bench/RESULTS.md and bench/plots from bench/results. The writing is `auditstream-demo report`.

use anyhow::Result;

use crate::child::{cargo, command, succeed, workspace};
use crate::demo::target_folder;

pub(crate) fn run() -> Result<()> {
    auditstream_stack::ensure_installed(crate::progress::shown().as_ref())?;
    succeed("cargo build", &mut cargo(&["build", "--release", "--workspace", "--bins"])?)?;
    let mut report = command(target_folder().join("release/auditstream-demo"))?;
    succeed("the report", report.args(["report", "--folder"]).arg(workspace().join("bench")))
}
