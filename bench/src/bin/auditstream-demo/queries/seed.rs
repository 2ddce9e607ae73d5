//! Fills the table: events made inside ClickHouse, in inserts as workers send them.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, anyhow};

use crate::screen::Screen;
use crate::server::Server;

/// The columns of an event as a function of its number.
const EVENTS: &str = include_str!("seed.sql");
/// As the worker's: see `store/src/ingest.rs`. One block an insert, by one thread.
pub(super) const INSERT: &str = "async_insert=0&insert_deduplicate=1&optimize_on_insert=0&max_partitions_per_insert_block=0\
    &max_insert_block_size=10000000&min_insert_block_size_rows=10000000&min_insert_block_size_bytes=10000000000\
    &max_block_size=10000000&max_insert_threads=1&max_threads=1";
/// Rows of one insert.
const BATCH: u64 = 250_000;
/// Inserts at once: two workers.
const WORKERS: usize = 2;

/// How many events, over which time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) total: u64,
    /// First moment, in microseconds since 1970.
    pub(super) start: i64,
    /// Length in microseconds.
    pub(super) span: i64,
}

impl Plan {
    /// `total` events over a hundred days until 2026-05-27.
    pub(super) fn new(total: u64) -> Self {
        Self { total, start: 1_771_200_000_000_000, span: 100 * 86_400_000_000 }
    }

    /// A SELECT of the events from number `first` on.
    pub(super) fn events(&self, first: u64, rows: u64) -> String {
        [("{first}", first.to_string()), ("{rows}", rows.to_string()), ("{total}", self.total.to_string())]
            .into_iter()
            .chain([("{start}", self.start.to_string()), ("{span}", self.span.to_string())])
            .fold(EVENTS.to_owned(), |sql, (placeholder, value)| sql.replace(placeholder, &value))
    }

    /// Inserts the events from number `first` to below `end`.
    pub(super) fn insert(&self, server: &Server, first: u64, end: u64) -> Result<()> {
        let next = AtomicU64::new(first);
        let work = || -> Result<()> {
            let screen = Screen::new();
            loop {
                let from = next.fetch_add(BATCH, Ordering::Relaxed);
                if from >= end {
                    return Ok(());
                }
                let rows = BATCH.min(end - from);
                server.ask(&format!("INSERT INTO events {}", self.events(from, rows)), INSERT)?;
                if (from / BATCH).is_multiple_of(20) {
                    screen.say(&format!("    {from} of {end} events"));
                }
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread ended badly"))?)
        })
    }

    /// The newest hour: `rows` events of the last hour in twenty inserts. One row in a hundred is a copy of one before, as a worker would send it that did
    /// not hear its insert's answer: the same event from another offset, a moment later. Returns how many rows are copies.
    pub(super) fn insert_newest_hour(&self, server: &Server, rows: u64) -> Result<u64> {
        let hour = Self { total: self.total + rows, start: self.start + self.span - 3_600_000_000, ..*self };
        let batch = rows / 20;
        for number in 0..20 {
            // The numbers go on behind the others', so that ids are new; the times are those of one hour.
            let first = self.total + number * batch;
            let sql = hour.events(first, batch).replace(
                &format!("intDiv(toInt128(number) * {}, {})", hour.span, hour.total),
                &format!("intDiv(toInt128(number - {}) * 3600000000, {rows})", self.total),
            );
            server.ask(&format!("INSERT INTO events {sql}"), INSERT)?;
            let copies = format!(
                "INSERT INTO events SELECT * REPLACE (version - 5 AS version, received_at + toIntervalMillisecond(5) AS received_at, _offset + 1000000000 AS _offset) \
                 FROM ({sql}) WHERE producer_seq % 100 = 7"
            );
            server.ask(&copies, INSERT)?;
        }
        let copies = server.number("SELECT count() FROM events WHERE _offset >= 1000000000")?;
        Ok(copies)
    }
}

/// Merges each partition to one part, as `min_age_to_force_merge_seconds` does a while after the last insert into it.
pub(super) fn settle(server: &Server) -> Result<()> {
    let unsettled = "SELECT partition_id FROM system.parts WHERE active AND database = currentDatabase() AND table = 'events' \
                     GROUP BY partition_id HAVING count() > 1 OR min(level) = 0 ORDER BY partition_id";
    for partition in server.text(unsettled)?.lines() {
        server.text(&format!("OPTIMIZE TABLE events PARTITION ID '{partition}' FINAL"))?;
    }
    Ok(())
}
