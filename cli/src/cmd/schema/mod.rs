//! `auditstream schema`: what must hold before an Avro schema is released, and help to make its next version.

mod check;
mod custom_view;
mod files;
mod new_version;

use clap::Subcommand;

use crate::config::{ConfigError, Loaded};

/// Check, extend and query Avro schemas.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    NewVersion(new_version::Args),
    CustomView(custom_view::Args),
}

pub(crate) fn run(args: &Args, load: impl FnOnce() -> Result<Loaded, ConfigError>) -> anyhow::Result<u8> {
    match &args.command {
        // Without a registry nothing of the configuration is needed: a build machine has none.
        Command::Check(args) if args.offline() => check::run(args, None),
        Command::Check(args) => check::run(args, Some(&load()?.settings)),
        Command::NewVersion(args) => new_version::run(args),
        Command::CustomView(args) => custom_view::run(args, &load()?.settings),
    }
}
