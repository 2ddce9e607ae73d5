//! What operators ask: how much is stored, is any offset missing, is anything refused, how fresh is it.
//!
//! Every role may ask all of it; none of the answers holds a row's values. Where duplicates would count, FINAL is written out, so that the answer is
//! right for every user; partitions are not merged with each other, because rows of one identity have one `occurred_at` and so one partition.

use clickhouse::Row;
use serde::Deserialize;

use crate::client::{Store, quoted};
use crate::errors::CallError;

/// Above this many rows [`StoreStats::conflicts`] is not counted: it needs memory for each event id.
const MAX_ROWS_FOR_CONFLICTS: u64 = 10_000_000;

/// Figures of all tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Rows of `events` on disk, duplicates that were not merged yet among them.
    pub rows: u64,
    /// Events: rows under FINAL.
    pub rows_final: u64,
    /// Event ids under which more than one content is stored. `None` above ten million rows.
    pub conflicts: Option<u64>,
    /// Dead letters by error code, most first.
    pub dead_letters: Vec<(String, u64)>,
    /// Batches in the ledger.
    pub batches: u64,
    /// Spans in the ledger: one for each partition of a batch.
    pub spans: u64,
    /// Ranges of offsets that no span covers.
    pub gaps: u64,
    /// Timestamp of the newest record that is stored, milliseconds since 1970. `None` when there is none.
    pub newest_received_at_ms: Option<i64>,
    /// Active parts of `events`.
    pub parts: u64,
    /// Their size, bytes on disk.
    pub bytes_on_disk: u64,
}

/// Offsets of a partition that lie between spans of the ledger and in none of them.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct Gap {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// First offset that is missing.
    pub first_offset: i64,
    /// Last offset that is missing.
    pub last_offset: i64,
}

/// What the ledger says of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct PartitionTotals {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Spans.
    pub spans: u64,
    /// Lowest offset of any span.
    pub first_offset: i64,
    /// Highest offset of any span.
    pub last_offset: i64,
    /// Sum of the spans' rows; more than the events when a batch was stored again.
    pub rows: u64,
    /// Sum of the spans' dead letters.
    pub dead_letters: u64,
}

/// More spans than this beyond a committed offset mean that nobody commits; then reading again is no longer the problem.
const MAX_LANDED_SPANS: usize = 10_000;

/// How far `spans`, in order of their first offsets, cover everything from `start` on.
fn covered(start: i64, spans: &[(i64, i64)]) -> i64 {
    let mut reached = start;
    for &(first, last) in spans {
        if first > reached {
            break;
        }
        reached = reached.max(last.saturating_add(1));
    }
    reached
}

#[derive(Row, Deserialize)]
struct Parts {
    parts: u64,
    rows: u64,
    bytes_on_disk: u64,
}

#[derive(Row, Deserialize)]
struct Batches {
    batches: u64,
    spans: u64,
}

impl Store {
    /// Active parts of the partition of `events` that has most of them.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn fullest_partition(&self) -> Result<u64, CallError> {
        self.fetch_one(&format!(
            "SELECT max(parts) FROM (SELECT count() AS parts FROM system.parts WHERE active AND database = {} AND table = 'events' GROUP BY partition_id)",
            quoted(self.database())
        ))
        .await
    }

    /// Figures of all tables.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn stats(&self) -> Result<StoreStats, CallError> {
        let parts: Parts = self
            .fetch_one(&format!(
                "SELECT count() AS parts, sum(rows) AS rows, sum(bytes_on_disk) AS bytes_on_disk FROM system.parts \
                 WHERE active AND database = {} AND table = 'events'",
                quoted(self.database())
            ))
            .await?;
        let events = self.table("events");
        let rows_final: u64 = self
            .fetch_one(&format!(
                "SELECT count() FROM {events} FINAL SETTINGS do_not_merge_across_partitions_select_final = 1"
            ))
            .await?;
        // A duplicate is not newer than the row it doubles: without FINAL, which reads the whole sorting key.
        let newest: Option<i64> =
            self.fetch_one(&format!("SELECT maxOrNull(toUnixTimestamp64Milli(received_at)) FROM {events}")).await?;
        let conflicts = if rows_final <= MAX_ROWS_FOR_CONFLICTS { Some(self.conflicts().await?) } else { None };
        let dead_letters = self
            .fetch(&format!(
                "SELECT toString(error_code) AS code, count() AS records FROM {} FINAL GROUP BY code ORDER BY records DESC, code",
                self.table("dead_letters")
            ))
            .await?;
        let batches: Batches = self
            .fetch_one(&format!(
                "SELECT uniqExact(token) AS batches, count() AS spans FROM {} FINAL",
                self.table("ledger")
            ))
            .await?;
        Ok(StoreStats {
            rows: parts.rows,
            rows_final,
            conflicts,
            dead_letters,
            batches: batches.batches,
            spans: batches.spans,
            gaps: self.ledger_gaps(None).await?.len() as u64,
            newest_received_at_ms: newest,
            parts: parts.parts,
            bytes_on_disk: parts.bytes_on_disk,
        })
    }

    /// Copies of one event have one content hash, so this needs no FINAL.
    async fn conflicts(&self) -> Result<u64, CallError> {
        let sql = format!(
            "SELECT count() FROM (SELECT event_id FROM {} GROUP BY event_id HAVING min(content_hash) != max(content_hash))",
            self.table("events")
        );
        self.fetch_one(&sql).await
    }

    /// Ranges of offsets, by partition, that no span of the ledger covers although spans lie on both sides. Of one topic, or of all.
    ///
    /// Offsets that were never records (transaction markers, compaction) count when they lie between two batches.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn ledger_gaps(&self, topic: Option<&str>) -> Result<Vec<Gap>, CallError> {
        let sql = format!(
            "SELECT toString(topic) AS topic, partition, reached + 1 AS first_offset, first - 1 AS last_offset FROM (\
               SELECT topic, partition, first_offset AS first, row_number() OVER w AS position, \
                 max(last_offset) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached \
               FROM {} FINAL {} WINDOW w AS (PARTITION BY topic, topic_id, partition ORDER BY first_offset, last_offset)\
             ) WHERE position > 1 AND first > reached + 1 ORDER BY topic, partition, first",
            self.table("ledger"),
            of_topic(topic)
        );
        self.fetch(&sql).await
    }

    /// For each partition and offset of `starts`: the offset up to which the ledger covers everything from there on, when that is beyond it. Spans of
    /// another topic of the same name do not count. Where two spans leave offsets between them, the look ends: nobody knows whether those are records.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn landed(
        &self,
        topic: &str,
        topic_id: &str,
        starts: &[(i32, i64)],
    ) -> Result<Vec<(i32, i64)>, CallError> {
        let mut landed = Vec::new();
        for &(partition, start) in starts {
            let sql = format!(
                "SELECT first_offset, last_offset FROM {} WHERE topic = {} AND partition = {partition} AND topic_id = {} \
                 AND last_offset >= {start} ORDER BY first_offset, last_offset LIMIT {MAX_LANDED_SPANS}",
                self.table("ledger"),
                quoted(topic),
                quoted(topic_id)
            );
            let spans: Vec<(i64, i64)> = self.fetch(&sql).await?;
            let reached = covered(start, &spans);
            if reached > start {
                landed.push((partition, reached));
            }
        }
        Ok(landed)
    }

    /// What the ledger says of each partition, of one topic or of all.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn ledger_totals(&self, topic: Option<&str>) -> Result<Vec<PartitionTotals>, CallError> {
        let sql = format!(
            "SELECT toString(topic) AS topic, partition, count() AS spans, min(l.first_offset) AS first_offset, max(l.last_offset) AS last_offset, \
             sum(l.rows) AS rows, sum(l.dead_letters) AS dead_letters FROM {} AS l FINAL {} GROUP BY topic, partition ORDER BY topic, partition",
            self.table("ledger"),
            of_topic(topic)
        );
        self.fetch(&sql).await
    }

    fn table(&self, name: &str) -> String {
        format!("`{}`.`{name}`", self.database())
    }
}

fn of_topic(topic: Option<&str>) -> String {
    topic.map_or_else(String::new, |topic| format!("WHERE topic = {}", quoted(topic)))
}

#[cfg(test)]
mod tests {
    use super::covered;

    #[test]
    fn coverage_ends_at_the_first_gap() {
        assert_eq!(covered(10, &[]), 10);
        assert_eq!(covered(10, &[(11, 20)]), 10);
        assert_eq!(covered(10, &[(0, 9), (10, 14), (12, 30), (31, 40), (42, 50)]), 41);
        assert_eq!(covered(10, &[(0, 100), (5, 20)]), 101);
    }
}
