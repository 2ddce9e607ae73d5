//! Asking before something is done that can't be undone.

use std::io::{self, IsTerminal, Write};

use anyhow::bail;

use crate::output;

/// For every command that changes something for good.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Consent {
    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Don't ask; needed where no terminal is.
    #[arg(long)]
    pub(crate) yes: bool,
}

impl Consent {
    /// Whether the person at the terminal agrees to `what`, which is a question. Without a terminal only `--yes` is consent.
    ///
    /// # Errors
    /// There is nobody to ask.
    pub(crate) fn given(self, what: &str) -> anyhow::Result<bool> {
        if self.yes {
            return Ok(true);
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            bail!("nothing was done: there is no terminal to ask at; give --yes, or --dry-run to see what it would be");
        }
        let mut err = io::stderr().lock();
        // Who can't be asked answers nothing.
        let _ = write!(err, "{what} [y/N] ");
        let _ = err.flush();
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        let agrees = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
        if !agrees {
            output::complain("nothing was done");
        }
        Ok(agrees)
    }
}
