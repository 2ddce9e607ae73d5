//! `--watch`: the same again and again, redrawn on a terminal, a line each otherwise.

use std::io::{self, IsTerminal};
use std::time::Duration;

use crate::{exit, output};

/// Clears the screen and goes to its upper left corner.
const REDRAW: &str = "\x1b[H\x1b[2J";

/// How often, if at all.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Watch {
    /// Show it again and again, until interrupted: redrawn on a terminal, one line each otherwise.
    #[arg(long)]
    pub(super) watch: bool,

    /// Seconds from one look to the next.
    #[arg(long, requires = "watch", default_value_t = 2, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    interval: u64,
}

/// What one look has seen.
pub(super) struct Look {
    /// For a person at a terminal.
    pub(super) full: String,
    /// The same in one line.
    pub(super) line: String,
    /// The exit code.
    pub(super) code: u8,
}

impl Watch {
    /// Looks once, or until nobody reads any more.
    pub(super) fn run(self, is_json: bool, mut look: impl FnMut() -> anyhow::Result<Look>) -> anyhow::Result<u8> {
        if !self.watch {
            let seen = look()?;
            if !seen.full.is_empty() {
                output::line(seen.full.trim_matches('\n'))?;
            }
            return Ok(seen.code);
        }
        let is_drawn = io::stdout().is_terminal() && !is_json;
        loop {
            let seen = look()?;
            let text = match (is_drawn, is_json) {
                (true, _) => format!("{REDRAW}{}", seen.full.trim_matches('\n')),
                (false, true) => seen.full,
                (false, false) => seen.line,
            };
            if !output::is_read(&text)? {
                return Ok(exit::OK);
            }
            std::thread::sleep(Duration::from_secs(self.interval));
        }
    }
}
