//! The watcher: which spans of offsets are stored, asked again and again.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use auditstream_bench::clickhouse::Asker;
use auditstream_schemas::Timestamp;

use super::seen::{Look, Row, Span, rank};

/// What it remembers between two questions.
pub(super) struct Watcher<'a> {
    asker: &'a Asker,
    /// Of each partition, the first offset that is not known to be stored: spans below are not asked for again.
    next: Vec<u64>,
    known: HashSet<Span>,
    pub(super) looks: Vec<Look>,
}

impl<'a> Watcher<'a> {
    /// Watches what comes behind `begins`, the ends of the partitions.
    pub(super) fn new(asker: &'a Asker, begins: &[u64]) -> Self {
        Self { asker, next: begins.to_vec(), known: HashSet::new(), looks: Vec::new() }
    }

    /// Asks once. Cheap for ClickHouse: the parts' own count of rows, and the ledger from where it is new.
    pub(super) async fn look(&mut self) -> Result<()> {
        let new = self.next.iter().enumerate().map(|(partition, next)| {
            format!("(topic = 'audit.events' AND partition = {partition} AND last_offset >= {next})")
        });
        let sql = format!(
            "SELECT toInt64(-1), toInt64(0), toInt64(sum(rows)), toInt64(0), toInt64(0) FROM system.parts WHERE database = currentDatabase() AND table = 'events' AND active \
             UNION ALL SELECT toInt64(partition), first_offset, last_offset, reinterpretAsInt64(hash), toInt64(rows) FROM ledger WHERE {}",
            new.collect::<Vec<_>>().join(" OR ")
        );
        let answer: Vec<[i64; 5]> = self.asker.integers(&sql).await?;
        let mut look = Look { at: Timestamp::now().as_micros(), ..Look::default() };
        for [partition, first, last, batch, rows] in answer {
            if partition < 0 {
                look.rows = u64::try_from(last)?;
                continue;
            }
            let [first, last, rows] = [u64::try_from(first)?, u64::try_from(last)?, u64::try_from(rows)?];
            let span = Span { partition: usize::try_from(partition)?, first, last, batch, rows };
            if self.known.insert(span) {
                look.spans.push(span);
            }
        }
        for partition in 0..self.next.len() {
            self.forget(partition);
        }
        self.looks.push(look);
        Ok(())
    }

    /// Moves a partition's mark over the spans that follow each other.
    fn forget(&mut self, partition: usize) {
        let next = &mut self.next[partition];
        let follows = |span: &&Span, next: u64| span.partition == partition && span.first <= next;
        while let Some(span) = self.known.iter().find(|span| follows(span, *next)).copied() {
            *next = (*next).max(span.last + 1);
            self.known.remove(&span);
        }
    }

    /// Records whose spans were seen, when no span is missing before one that was.
    pub(super) fn stored(&self, begins: &[u64]) -> u64 {
        self.next.iter().zip(begins).map(|(next, begin)| next - begin).sum()
    }
}

/// From one answer to the next: the middle, and what 99 of 100 don't exceed.
pub(super) fn pauses(looks: &[Look]) -> (Duration, Duration) {
    let pairs = looks.windows(2).map(|two| u64::try_from(two[1].at - two[0].at).unwrap_or(0));
    let mut pauses: Vec<Duration> = pairs.map(Duration::from_micros).collect();
    pauses.sort_unstable();
    (rank(&pauses, 500), rank(&pauses, 990))
}

/// The table's rows. Fails when an event has more than one.
pub(super) async fn rows(admin: &Asker) -> Result<Vec<Row>> {
    let counts = admin.row("SELECT count(), uniqExact(event_id) FROM events").await?.context("no count")?;
    if counts.first() != counts.last() {
        bail!("the table has {} rows of {} events", counts.first().map_or("", |c| c), counts.last().map_or("", |c| c));
    }
    let sql = "SELECT toInt64(_partition), _offset, toUnixTimestamp64Micro(occurred_at) FROM events";
    let rows: Vec<[i64; 3]> = admin.integers(sql).await?;
    let row = |[partition, offset, due]: [i64; 3]| {
        Ok(Row { partition: usize::try_from(partition)?, offset: u64::try_from(offset)?, due })
    };
    rows.into_iter().map(row).collect()
}
