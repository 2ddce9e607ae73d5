//! The spill's SQLite file: chunks of entries in order, appended and removed in transactions that are on disk before they count.
//!
//! A rollback journal and not a write-ahead log: what is committed stands in the one file, where a reader that knows only pages can find it
//! when SQLite can't. A commit is four fsyncs instead of one; it takes all that has gathered meanwhile, so the rate does not suffer.
//!
//! Row 0 is the mark. `upto` is the number of a chunk's last entry; in the mark, that of the last one that was sent. `total` is how many events had been
//! appended after this chunk; in the mark, removed, and its `body` is how many were appended, 8 bytes, little-endian. `appended - removed` is what a damaged
//! file should hold.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::TryStreamExt as _;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::runtime::Runtime;

use super::SpillError;
use super::entry::Entries;
use super::raw::{self, PAGE};

/// How long a `spill check` beside it may hold the file.
const BUSY: Duration = Duration::from_secs(10);
/// The file's name in the spill's folder.
const NAME: &str = "spill.db";

const CREATE: &str = "CREATE TABLE IF NOT EXISTS spill (number INTEGER PRIMARY KEY, events INTEGER NOT NULL, total INTEGER NOT NULL, \
                      upto INTEGER NOT NULL, body BLOB NOT NULL)";

/// Entries that are written, read and removed together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Chunk {
    /// Of its first entry.
    pub(crate) number: i64,
    /// Of its last entry. Numbers in between may be missing: of events that went another way.
    pub(crate) last: i64,
    pub(crate) events: u64,
    pub(crate) body: Vec<u8>,
}

/// What became of a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Salvaged {
    /// Events that were found whole and are in the new file.
    pub(crate) found: u64,
    /// Events that were in the old file by its own account and are not.
    pub(crate) damaged: u64,
}

/// How the file is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// By the one producer that owns it.
    Owner,
    /// By somebody who looks.
    Reader,
}

/// The open file. Its calls block; they are for a thread of one's own.
pub(crate) struct SpillFile {
    folder: PathBuf,
    runtime: Runtime,
    connection: Option<SqliteConnection>,
    access: Access,
    /// Held as long as this lives.
    _lock: Option<File>,
    events: u64,
    bytes: u64,
    /// The highest number in the file, and the events that were ever appended and removed.
    last: i64,
    appended: i64,
    removed: i64,
}

impl std::fmt::Debug for SpillFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpillFile").field("events", &self.events).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl SpillFile {
    /// Opens the spill in `folder` and makes it if need be. A damaged one is set aside and what can be read of it taken over.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Salvaged), SpillError> {
        make_folder(folder)?;
        let path = folder.join("spill.lock");
        let lock = private().open(&path).map_err(|error| SpillError::io("can't make the lock file", &path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SpillError::InUse(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(SpillError::io("can't lock", &path, error)),
        }
        let mut file = Self::new(folder, Access::Owner, Some(lock))?;
        match file.connect() {
            Ok(()) => Ok((file, Salvaged::default())),
            Err(error) if error.is_damage() => {
                let salvaged = file.salvage()?;
                Ok((file, salvaged))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the spill in `folder` to look at it, also while its producer runs.
    pub(crate) fn open_to_read(folder: &Path) -> Result<Self, SpillError> {
        let path = folder.join(NAME);
        if !path.is_file() {
            return Err(SpillError::io("there is no spill here", &path, io::ErrorKind::NotFound.into()));
        }
        let mut file = Self::new(folder, Access::Reader, None)?;
        file.connect()?;
        Ok(file)
    }

    /// Where the file of a spill is.
    pub(crate) fn path(folder: &Path) -> PathBuf {
        folder.join(NAME)
    }

    fn new(folder: &Path, access: Access, lock: Option<File>) -> Result<Self, SpillError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| SpillError::io("no runtime for", folder, error))?;
        let folder = folder.to_owned();
        Ok(Self {
            folder,
            runtime,
            connection: None,
            access,
            _lock: lock,
            events: 0,
            bytes: 0,
            last: 0,
            appended: 0,
            removed: 0,
        })
    }

    fn connect(&mut self) -> Result<(), SpillError> {
        let path = self.folder.join(NAME);
        let owner = self.access == Access::Owner;
        if owner {
            // Made here, so that only its owner may read it; SQLite gives its journal the same rights.
            private().open(&path).map_err(|error| SpillError::io("can't make", &path, error))?;
        }
        let options = SqliteConnectOptions::new().filename(&path).busy_timeout(BUSY);
        let options = if owner {
            options
                .page_size(PAGE as u32)
                .auto_vacuum(SqliteAutoVacuum::Incremental)
                .journal_mode(SqliteJournalMode::Truncate)
                // Others may look between two transactions.
                .locking_mode(SqliteLockingMode::Normal)
                .synchronous(SqliteSynchronous::Full)
        } else {
            options
        };
        let options = options.disable_statement_logging();
        let connected = self.runtime.block_on(async {
            let mut connection = options.connect().await?;
            if owner {
                sqlx::query(CREATE).execute(&mut connection).await?;
                let mark = "INSERT OR IGNORE INTO spill (number, events, total, upto, body) VALUES (0, 0, 0, 0, x'')";
                sqlx::query(mark).execute(&mut connection).await?;
            }
            let sql = "SELECT COALESCE(SUM(events), 0), COALESCE(SUM(CASE WHEN number > 0 THEN LENGTH(body) END), 0), COALESCE(MAX(upto), 0), \
                       COALESCE(MAX(total), 0), COALESCE(MIN(CASE number WHEN 0 THEN total END), 0) FROM spill";
            let row = sqlx::query(sql).fetch_one(&mut connection).await?;
            let sums: [i64; 5] = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?];
            Ok::<_, sqlx::Error>((connection, sums))
        });
        let (connection, [events, bytes, last, appended, removed]) =
            connected.map_err(|error| SpillError::database("can't open the spill", error))?;
        self.connection = Some(connection);
        (self.events, self.bytes) = (events.max(0) as u64, bytes.max(0) as u64);
        (self.last, self.appended, self.removed) = (last, appended, removed);
        Ok(())
    }

    /// Events in the file.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Bytes of these, as they count against the limit.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// No entry has this number or a higher one.
    pub(crate) fn next_number(&self) -> i64 {
        self.last + 1
    }

    /// Writes the chunks in one transaction; on disk when this returns. May be repeated with the same chunks after an error.
    pub(crate) fn append(&mut self, chunks: &[Chunk]) -> Result<(), SpillError> {
        let (mut total, mut events, mut bytes, mut last) = (self.appended, 0, 0, self.last);
        let (runtime, connection) = self.parts()?;
        let written = runtime.block_on(async {
            sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
            for chunk in chunks {
                total += chunk.events as i64;
                events += chunk.events;
                bytes += chunk.body.len() as u64;
                last = last.max(chunk.last);
                sqlx::query("INSERT OR REPLACE INTO spill (number, events, total, upto, body) VALUES (?, ?, ?, ?, ?)")
                    .bind(chunk.number)
                    .bind(chunk.events as i64)
                    .bind(total)
                    .bind(chunk.last)
                    .bind(chunk.body.as_slice())
                    .execute(&mut *connection)
                    .await?;
            }
            // Once more, at the other end of the file: either may be what is damaged.
            let sql = "UPDATE spill SET body = ? WHERE number = 0";
            sqlx::query(sql).bind(total.to_le_bytes().as_slice()).execute(&mut *connection).await?;
            sqlx::query("COMMIT").execute(&mut *connection).await
        });
        self.settle(written.map(|_| ()), "can't write to the spill")?;
        (self.appended, self.last) = (total, last);
        self.events += events;
        self.bytes += bytes;
        Ok(())
    }

    /// Chunks in order, from the first one above `after`, until they take `bytes`; at least one if there is any.
    pub(crate) fn take(&mut self, after: i64, bytes: usize) -> Result<Vec<Chunk>, SpillError> {
        let (runtime, connection) = self.parts()?;
        let taken = runtime.block_on(async {
            let mut chunks = Vec::new();
            let mut taken = 0;
            let sql = "SELECT number, upto, events, body FROM spill WHERE number > ? ORDER BY number";
            let mut rows = sqlx::query(sql).bind(after.max(0)).fetch(&mut *connection);
            while taken < bytes
                && let Some(row) = rows.try_next().await?
            {
                let events: i64 = row.try_get(2)?;
                let chunk = Chunk {
                    number: row.try_get(0)?,
                    last: row.try_get(1)?,
                    events: events.max(0) as u64,
                    body: row.try_get(3)?,
                };
                taken += chunk.body.len();
                chunks.push(chunk);
            }
            Ok::<_, sqlx::Error>(chunks)
        });
        taken.map_err(|error| SpillError::database("can't read the spill", error))
    }

    /// Removes these chunks; they are sent.
    pub(crate) fn remove(&mut self, chunks: &[Removed]) -> Result<(), SpillError> {
        let Some(last) = chunks.last() else { return Ok(()) };
        let events: u64 = chunks.iter().map(|chunk| chunk.events).sum();
        let bytes: u64 = chunks.iter().map(|chunk| chunk.bytes).sum();
        let removed = self.removed + events as i64;
        let empty = events >= self.events;
        let (runtime, connection) = self.parts()?;
        let done = runtime.block_on(async {
            sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
            for chunk in chunks {
                sqlx::query("DELETE FROM spill WHERE number = ?").bind(chunk.number).execute(&mut *connection).await?;
            }
            let sql = "UPDATE spill SET total = ?, upto = ? WHERE number = 0";
            sqlx::query(sql).bind(removed).bind(last.last).execute(&mut *connection).await?;
            sqlx::query("COMMIT").execute(&mut *connection).await?;
            if empty {
                // The disk's room comes back; what was sent is not kept.
                sqlx::query("PRAGMA incremental_vacuum").execute(&mut *connection).await?;
            }
            Ok::<_, sqlx::Error>(())
        });
        self.settle(done, "can't remove what was sent from the spill")?;
        self.removed = removed;
        self.events = self.events.saturating_sub(events);
        self.bytes = self.bytes.saturating_sub(bytes);
        Ok(())
    }

    /// After an error inside a transaction the transaction is undone.
    fn settle(&mut self, result: Result<(), sqlx::Error>, what: &'static str) -> Result<(), SpillError> {
        result.map_err(|error| {
            if let Ok((runtime, connection)) = self.parts() {
                // It may have been undone already, which is the error of this statement.
                let _ = runtime.block_on(sqlx::query("ROLLBACK").execute(connection));
            }
            SpillError::database(what, error)
        })
    }

    fn parts(&mut self) -> Result<(&Runtime, &mut SqliteConnection), SpillError> {
        if self.connection.is_none() {
            self.connect()?;
        }
        match &mut self.connection {
            Some(connection) => Ok((&self.runtime, connection)),
            None => Err(SpillError::InUse(self.folder.clone())),
        }
    }

    fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Nothing is under way; what is committed is on disk.
            let _ = self.runtime.block_on(connection.close());
        }
    }

    /// Sets the file aside and begins a new one with every event that can be found whole in the old one's pages.
    pub(crate) fn salvage(&mut self) -> Result<Salvaged, SpillError> {
        self.close();
        let known = self.events;
        let aside = self.set_aside()?;
        (self.events, self.bytes, self.last, self.appended, self.removed) = (0, 0, 0, 0, 0);
        self.connect()?;
        let scan = raw::Scan::of(&aside)?;
        let mut found = 0;
        let mut batch: Vec<Chunk> = Vec::new();
        let mut size = 0;
        let account = scan.read(&mut |chunk| {
            found += chunk.events;
            size += chunk.body.len();
            batch.push(chunk);
            if size < 8 << 20 {
                return Ok(());
            }
            size = 0;
            self.append(&std::mem::take(&mut batch))
        })?;
        self.append(&batch)?;
        let damaged = account.max(known).saturating_sub(found);
        tracing::error!(
            found,
            damaged,
            aside = %aside.display(),
            "the spill was damaged: what could be read of it goes on, the old file is kept aside"
        );
        Ok(Salvaged { found, damaged })
    }

    /// Keeps the bytes of a chunk in which some entries are damaged.
    pub(crate) fn keep_aside(&self, chunk: &Chunk) -> Result<PathBuf, SpillError> {
        let path = self.folder.join(format!("damaged-{}-{}.chunk", millis(), chunk.number));
        let kept =
            private().open(&path).and_then(|mut file| file.write_all(&chunk.body).and_then(|()| file.sync_all()));
        kept.map_err(|error| SpillError::io("can't keep a damaged chunk", &path, error))?;
        Ok(path)
    }

    fn set_aside(&self) -> Result<PathBuf, SpillError> {
        let aside = self.folder.join(format!("damaged-{}.db", millis()));
        let path = self.folder.join(NAME);
        fs::rename(&path, &aside).map_err(|error| SpillError::io("can't set aside", &path, error))?;
        let journal = self.folder.join(format!("{NAME}-journal"));
        match fs::rename(&journal, aside.with_extension("db-journal")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SpillError::io("can't set aside", &journal, error))
            }
            _ => Ok(aside),
        }
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.close();
    }
}

/// A chunk that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) number: i64,
    pub(crate) last: i64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

impl Chunk {
    /// What [`SpillFile::remove`] needs of it.
    pub(crate) fn to_remove(&self) -> Removed {
        Removed { number: self.number, last: self.last, events: self.events, bytes: self.body.len() as u64 }
    }

    /// Its entries that are whole.
    pub(crate) fn entries(&self) -> Entries<'_> {
        Entries::of(&self.body)
    }
}

fn make_folder(folder: &Path) -> Result<(), SpillError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| SpillError::io("can't make the spill's folder", folder, error))
}

/// Events hold personal data: only the owner reads them.
fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

fn millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}
