//! How the program ends: the exit codes, and errors on standard error as a chain of causes.

use std::process::ExitCode;

use crate::config::ConfigError;
use crate::output;

/// Everything was done.
pub(crate) const OK: u8 = 0;
/// Something could not be done; standard error says what.
pub(crate) const FAILURE: u8 = 1;
/// The command line or the configuration is wrong; nothing was begun.
pub(crate) const USAGE: u8 = 2;
/// The worker stopped because a human is needed; nothing is lost.
pub(crate) const HALTED: u8 = 3;
/// The worker was asked to stop and its deadline passed first; what was not committed will be read again.
pub(crate) const NOT_DRAINED: u8 = 4;

/// For `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0        everything was done
  1        something could not be done; standard error says what; doctor found
           something wrong; who was asked did not agree
  2        the command line or the configuration is wrong; nothing was begun
  3        consume, relay: halted, a human is needed; nothing is lost or skipped
  4        consume, relay: the drain deadline passed first; what was not
           committed will be read or sent again, nothing is lost
  130 143  interrupted by SIGINT or SIGTERM: publish before its input's end,
           any command by a second signal";

/// Prints what went wrong, and answers the exit code.
pub(crate) fn report(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            chain(&error);
            ExitCode::from(if error.is::<ConfigError>() { USAGE } else { FAILURE })
        }
    }
}

/// The error and its causes on standard error.
pub(crate) fn chain(error: &anyhow::Error) {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some libraries' errors repeat their source in their own words.
        if !text.ends_with(&cause) {
            text.push_str("\n  caused by: ");
            text.push_str(&cause);
        }
    }
    output::complain(&text);
}
