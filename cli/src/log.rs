//! Logs go to standard error, as text or as JSON lines.

use std::io::{self, IsTerminal};

use anyhow::{Context, anyhow};
use tracing_subscriber::EnvFilter;

use crate::config::Settings;

/// Turns logging on for the whole process.
pub(crate) fn init(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log.level).context("log.level")?;
    // A standard error that can't be written must not end the worker, so the subscriber does not report that either.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let done = if settings.log.json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(io::stderr().is_terminal()).try_init()
    };
    done.map_err(|error| anyhow!("logging could not be set up: {error}"))
}
