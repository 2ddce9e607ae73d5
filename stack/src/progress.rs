//! What a long step tells the person who waits: one line per step, and a sign of life every few seconds.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Receives what the installer does. Implementations must be quick; they are called several times a second.
pub trait Progress: Sync {
    /// A step begins, or a result is worth a line.
    fn step(&self, message: &str);
    /// The running step is still alive.
    fn alive(&self, life: &Life<'_>);
    /// The running step has ended, well or badly.
    fn ended(&self) {}
}

/// How far a running step is.
#[derive(Debug, Clone, Copy)]
pub struct Life<'a> {
    /// The step, as given to the person when it began.
    pub what: &'a str,
    /// Time since it began.
    pub elapsed: Duration,
    /// Bytes on disk so far, where the step is a download.
    pub bytes: Option<u64>,
    /// Bytes when it is done, where known (about right, not exact).
    pub total: Option<u64>,
    /// The last line the running command wrote.
    pub last_line: &'a str,
}

impl Life<'_> {
    /// The state in one line: `download ClickHouse: 12 s, 80 of 178 MB`.
    #[must_use]
    pub fn line(&self) -> String {
        let seconds = self.elapsed.as_secs();
        let mb = |bytes: u64| bytes / 1_000_000;
        match (self.bytes, self.total) {
            (Some(done), Some(total)) => {
                format!("{}: {seconds} s, {} of about {} MB", self.what, mb(done.min(total)), mb(total))
            }
            (Some(done), None) => format!("{}: {seconds} s, {} MB", self.what, mb(done)),
            _ => format!("{}: {seconds} s", self.what),
        }
    }
}

/// The plain form: lines on stderr, at most one sign of life every three seconds.
#[derive(Debug, Default)]
pub struct Lines {
    last: Mutex<Option<Instant>>,
}

impl Progress for Lines {
    fn step(&self, message: &str) {
        eprintln!("{message}");
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn alive(&self, life: &Life<'_>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|at| at.elapsed() >= Duration::from_secs(3)) {
            *last = Some(Instant::now());
            eprintln!("  {}", life.line());
        }
    }
}

/// Says nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _message: &str) {}
    fn alive(&self, _life: &Life<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_names_time_and_size() {
        let life = Life {
            what: "download",
            elapsed: Duration::from_secs(12),
            bytes: Some(80_000_000),
            total: Some(178_000_000),
            last_line: "",
        };
        assert_eq!(life.line(), "download: 12 s, 80 of about 178 MB");
        assert_eq!(Life { total: None, ..life }.line(), "download: 12 s, 80 MB");
        assert_eq!(Life { bytes: None, ..life }.line(), "download: 12 s");
    }
}
