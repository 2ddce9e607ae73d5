//! `cargo xtask bench decode`: what decoding records to columns costs. The measuring is an example of the schemas crate; no server takes part.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::child::{cargo, command, succeed};
use crate::demo::target_folder;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the figures to this file, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    auditstream_stack::ensure_installed(crate::progress::shown().as_ref())?;
    // The whole workspace: with another selection of packages cargo would build librdkafka once more.
    let build = ["build", "--release", "--workspace", "--example", "decode_figures"];
    succeed("cargo build", &mut cargo(&build)?)?;
    let mut figures = command(target_folder().join("release/examples/decode_figures"))?;
    if let Some(file) = &args.json {
        figures.arg(std::path::absolute(file).with_context(|| format!("find {}", file.display()))?);
    }
    succeed("the measurement", &mut figures)
}
