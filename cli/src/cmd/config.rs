//! `auditstream config check`: what the configuration means, or everything that is wrong with it.

use clap::Subcommand;

use crate::config::{ConfigError, Loaded};
use crate::{exit, output};

/// Look at the configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the effective configuration with where each value comes from, secrets redacted; or name every wrong key.
    ///
    /// Exit code 0 when it is right, 1 when it is not. Nothing connects.
    Check,
}

pub(crate) fn run(args: &Args, loaded: Result<Loaded, ConfigError>) -> anyhow::Result<u8> {
    let Command::Check = args.command;
    match loaded {
        Ok(loaded) => {
            output::line(loaded.show().trim_end())?;
            Ok(exit::OK)
        }
        Err(error) => {
            output::complain(&format!("error: {error}"));
            Ok(exit::FAILURE)
        }
    }
}
