//! `auditstream-demo report`: the report from the results that are there.

use std::path::PathBuf;

use anyhow::Result;

use crate::screen::Screen;

/// Writes RESULTS.md and the plots from results/*.json (`cargo xtask bench report`).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder that holds `results`.
    #[arg(long, default_value = "bench", value_name = "FOLDER")]
    folder: PathBuf,
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<()> {
    for path in auditstream_bench::report::write(&args.folder)? {
        screen.say(&format!("  {}", path.display()));
    }
    Ok(())
}
