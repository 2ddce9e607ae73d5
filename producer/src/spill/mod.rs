//! The spill: events go to a file of the service's own disk while Kafka is away or memory is full, and from there to Kafka, in order.
//!
//! ```text
//!            ┌── direct: librdkafka ───────────────────────────────► Kafka
//! queue ─► sender                                                      ▲
//!            └── spilling: chunk ─► transaction, fsync ─► file ─► drain┘
//! ```
//!
//! The sender thread is in one of two modes. It begins to spill when nothing was acknowledged for [`SpillConfig::after`] although something waits
//! (then what librdkafka holds is called back and written first), when the queue is three quarters full, or when the file holds events at the start. While it
//! spills, every event goes through the file: a later event of an entity can't overtake an earlier one. When the file is empty it sends directly again.
//!
//! What is promised:
//! - An event that was told as [`Fate::Spilled`](crate::Fate::Spilled) is on disk (fsync), and is sent by this process or by the next one that opens the folder, at least
//!   once; a repeated one is the same bytes under the same id, which is one row under FINAL.
//! - The events of an entity reach Kafka in the order in which they were recorded, as far as first copies go; see
//!   the relay's reasoning in `outbox/relay.rs`, which is the same here.
//! - A damaged file costs only what is damaged. Entries carry checksums; a file that SQLite can't read is searched page by page. Damaged bytes are
//!   kept aside in the folder (`damaged-*`) and counted ([`Stats::damaged`](crate::Stats::damaged)).
//! - The file never holds more than [`SpillConfig::max_bytes`]; then events wait in memory, and `record` gives them back when that is full.
//!
//! Rules of redaction apply before: nothing that they take out is ever on disk.

mod entry;
mod file;
mod inspect;
mod raw;
mod state;
mod tend;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use inspect::{Inspection, inspect, read};
pub(crate) use state::{Drain, Spill};

/// Where and when events are spilled. There is no default for the folder: it must be on a disk that outlives the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpillConfig {
    /// The folder of the spill, made if need be, readable by the owner only. One producer at a time.
    pub folder: PathBuf,
    /// Most bytes of events in the file, 1 MiB to 1 TiB. BEST_EFFORT events are dropped when it is half full. Default 1 GiB.
    pub max_bytes: u64,
    /// How long Kafka may acknowledge nothing, although something waits, before events go to disk; 10 ms to 1 h. Default 2 s.
    pub after: Duration,
}

impl SpillConfig {
    /// The defaults, in this folder.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), max_bytes: 1 << 30, after: Duration::from_secs(2) }
    }

    /// What is wrong with it: the setting and the problem.
    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        if self.folder.as_os_str().is_empty() {
            return Some(("spill.folder", "is empty; name a folder on a disk that outlives the process".to_owned()));
        }
        if !((1 << 20)..=(1 << 40)).contains(&self.max_bytes) {
            let problem =
                format!("{} bytes is outside of {} (1 MiB) to {} (1 TiB)", self.max_bytes, 1 << 20, 1_u64 << 40);
            return Some(("spill.max_bytes", problem));
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(3_600)).contains(&self.after) {
            let problem = format!("{} ms is outside of 10 to 3600000", self.after.as_millis());
            return Some(("spill.after", problem));
        }
        None
    }
}

/// The spill can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpillError {
    /// Another producer, or another process, has it open.
    #[error("the spill in {} is in use by another producer; give each one a folder of its own", .0.display())]
    InUse(PathBuf),
    /// The file system refused.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("{what}")]
    Database {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: sqlx::Error,
    },
}

impl SpillError {
    fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    fn database(what: &'static str, source: sqlx::Error) -> Self {
        Self::Database { what, source }
    }

    /// SQLite can't make sense of the file: `SQLITE_CORRUPT`, or `SQLITE_NOTADB` (<https://www.sqlite.org/rescode.html>). A short read is a file cut off.
    fn is_damage(&self) -> bool {
        const CORRUPT: i32 = 11;
        const NOT_A_DATABASE: i32 = 26;
        const SHORT_READ: i32 = 522;
        let Self::Database { source: sqlx::Error::Database(error), .. } = self else {
            // A value of another type than the table's, or a row that is not there.
            return matches!(
                self,
                Self::Database { source: sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound, .. }
            );
        };
        let code = error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(0);
        code == SHORT_READ || matches!(code & 0xff, CORRUPT | NOT_A_DATABASE)
    }
}
