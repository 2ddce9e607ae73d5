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
    /// Write the figures into bench/results, for `cargo xtask bench report`.
    #[arg(long)]
    results: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    auditstream_stack::ensure_installed(crate::progress::shown().as_ref())?;
    // The whole workspace: with another selection of packages cargo would build librdkafka once more.
    let build = ["build", "--release", "--workspace", "--bins", "--example", "decode_figures"];
    succeed("cargo build", &mut cargo(&build)?)?;
    let given = args.json.as_ref().map(std::path::absolute).transpose().context("find the folder of --json")?;
    // Between the measurement and what puts it into the report's form.
    let between = target_folder().join("decode-figures.json");
    let file = given.or_else(|| args.results.then_some(between));
    let mut figures = command(target_folder().join("release/examples/decode_figures"))?;
    figures.args(&file);
    succeed("the measurement", &mut figures)?;
    if let (true, Some(file)) = (args.results, file) {
        let mut results = command(target_folder().join("release/auditstream-demo"))?;
        results.arg("decode-results").arg("--figures").arg(file);
        succeed("the results", results.arg("--results").arg(super::results_file("decode")))?;
    }
    Ok(())
}
