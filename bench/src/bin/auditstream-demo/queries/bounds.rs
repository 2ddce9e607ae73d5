//! What bounds a question, by measurement: an answer of no work, the choice of what to read, and the same reading without counting copies once.

use anyhow::Result;
use auditstream_bench::clickhouse::quoted;
use auditstream_bench::table::thousands;

use super::{measure, percentile};
use crate::server::Server;

/// The columns by which FINAL tells copies apart, and the one by which it chooses among them.
const IDENTITY: &str = "tenant_id, entity_type, entity_id, occurred_at, event_id, content_hash, version";
/// How often each is measured.
const RUNS: u32 = 10;

/// Of one question, in milliseconds, each a median.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Bounds {
    /// `SELECT 1`, connection included.
    pub(super) nothing_ms: f64,
    /// `EXPLAIN PIPELINE`: parsing, planning, and choosing parts and granules by the sorting key and the indexes.
    pub(super) choosing_ms: f64,
    /// The question without FINAL, where it asks the table; views count each event once whoever asks.
    pub(super) plain_ms: Option<f64>,
}

impl Bounds {
    /// Asks as an analyst, but for the plain reading, which only an administrator gets.
    pub(super) fn measure(admin: &Server, analyst: &Server, sql: &str) -> Result<Self> {
        let median = |server: &Server, sql: &str| Ok::<_, anyhow::Error>(measure(server, sql, RUNS)?.p50_ms);
        let is_of_table = sql.contains("FROM audit.events\n");
        Ok(Self {
            nothing_ms: median(analyst, "SELECT 1")?,
            choosing_ms: median(analyst, &format!("EXPLAIN PIPELINE {sql}"))?,
            plain_ms: is_of_table.then(|| median(admin, sql)).transpose()?,
        })
    }

    /// As the report says it.
    pub(super) fn text(&self, rows: u64, bytes: u64) -> String {
        let Self { nothing_ms, choosing_ms, plain_ms } = self;
        let plain = plain_ms.map_or(String::new(), |ms| format!("; without counting each event once it takes {ms:.1}"));
        format!(
            "`SELECT 1` takes {nothing_ms:.1} ms, planning and choosing what to read {choosing_ms:.1}, and {} rows ({:.1} MB) are read{plain}",
            thousands(rows),
            bytes as f64 / 1e6
        )
    }
}

/// What FINAL has to read where a partition is not one part.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Unmerged {
    /// Rows in partitions of more than one part.
    pub(super) rows: u64,
    /// Reading the identity of those rows, and nothing else done with it.
    pub(super) reading_ms: f64,
}

impl Unmerged {
    pub(super) fn measure(admin: &Server) -> Result<Self> {
        let partitions = admin.text(
            "SELECT partition_id FROM system.parts WHERE active AND database = currentDatabase() AND table = 'events' GROUP BY partition_id HAVING count() > 1",
        )?;
        if partitions.is_empty() {
            return Ok(Self::default());
        }
        let partitions: Vec<_> = partitions.lines().map(quoted).collect();
        let of_them = format!("FROM events WHERE _partition_id IN ({})", partitions.join(", "));
        let mut took = Vec::new();
        for _ in 0..=RUNS {
            let read = admin.ask(&format!("SELECT count() {of_them} AND NOT ignore({IDENTITY})"), "")?;
            took.push(read.took.as_secs_f64() * 1e3);
        }
        // The first one warms up.
        Ok(Self { rows: admin.number(&format!("SELECT count() {of_them}"))?, reading_ms: percentile(&took[1..], 0.5) })
    }

    /// As the report says it, beside what the plain scan takes.
    pub(super) fn text(&self, plain_ms: f64) -> String {
        format!(
            "{} rows lie in partitions of several parts: FINAL reads and merges their sorting key and version, and reading these alone takes {:.0} ms, \
             the plain scan of everything {plain_ms:.0}",
            thousands(self.rows),
            self.reading_ms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_say_what_was_measured() {
        let bounds = Bounds { nothing_ms: 1.0, choosing_ms: 4.25, plain_ms: Some(12.0) };
        assert_eq!(
            bounds.text(32_766, 3_500_000),
            "`SELECT 1` takes 1.0 ms, planning and choosing what to read 4.2, and 32,766 rows (3.5 MB) are read; without counting each event once it takes 12.0"
        );
        assert!(!Bounds { plain_ms: None, ..bounds }.text(1, 1).contains("without"));
        assert!(Unmerged { rows: 5_000_000, reading_ms: 170.4 }.text(66.0).contains("5,000,000 rows"));
    }
}
