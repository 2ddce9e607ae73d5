//! Dead letters as operators see them: which are open, what was done about the others, and the record of doing it.
//!
//! Nothing here holds what a record contains but its headers; the record itself is on the dead-letter topic.

use std::fmt::Write as _;

use clickhouse::Row;
use serde::Deserialize;

use crate::client::{Store, quoted};
use crate::errors::CallError;

/// Header of a record that was sent again: how often.
pub const RETRIES_HEADER: &str = "auditstream.retries";

/// A dead letter, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct DeadLetter {
    /// Topic of the source record.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Bytes of its key.
    pub key_bytes: u64,
    /// Bytes of its value.
    pub value_bytes: u64,
    /// Its headers in order; what is no UTF-8 is replaced.
    pub headers: Vec<(String, String)>,
    /// `decode` or `refused`.
    pub error_class: String,
    /// Stable code of the reason.
    pub error_code: String,
    /// The reason for people.
    pub error_message: String,
    /// The column or field at fault; empty where it is not known.
    pub column_name: String,
    /// The writer schema that the record names, where it names one.
    pub schema: String,
    /// Decodes or inserts that were tried.
    pub attempts: u32,
    /// When it failed first, milliseconds since 1970 by the worker's clock.
    pub first_failed_at_ms: i64,
    /// When it failed last.
    pub last_failed_at_ms: i64,
    /// The worker that refused it.
    pub worker: String,
    /// The dead-letter topic.
    pub dlq_topic: String,
    /// Partition of the dead letter there.
    pub dlq_partition: i32,
    /// Offset of the dead letter there.
    pub dlq_offset: i64,
    /// How often the record had been sent again before it became this dead letter.
    pub retries: u32,
    /// What was done last: `retry`, `discard`, or nothing.
    pub action: String,
    /// When, milliseconds since 1970.
    pub action_at_ms: i64,
    /// By whom.
    pub actor: String,
}

impl DeadLetter {
    /// Whether nothing was done about it yet.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.action.is_empty()
    }

    /// `TOPIC/PARTITION/OFFSET` of the source record.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// Which dead letters. By default all.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterFilter {
    /// Only of this source topic.
    pub topic: Option<String>,
    /// Only with this error code.
    pub code: Option<String>,
    /// Only those that failed at this time or later, milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only this partition and offset of the source.
    pub place: Option<(i32, i64)>,
    /// Only those about which nothing was done.
    pub is_open: bool,
    /// At most so many, newest first.
    pub limit: u32,
}

impl DeadLetterFilter {
    fn condition(&self) -> String {
        let mut sql = "1".to_owned();
        // Writing to a String can't fail.
        if let Some(topic) = &self.topic {
            let _ = write!(sql, " AND topic = {}", quoted(topic));
        }
        if let Some(code) = &self.code {
            let _ = write!(sql, " AND error_code = {}", quoted(code));
        }
        if let Some(since) = self.since_ms {
            // Rows of old versions have no time of failing.
            let _ = write!(sql, " AND toUnixTimestamp64Milli(greatest(timestamp, last_failed_at)) >= {since}");
        }
        if let Some((partition, offset)) = self.place {
            let _ = write!(sql, " AND partition = {partition} AND offset = {offset}");
        }
        sql
    }
}

/// What was done about a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The record was sent to its topic again, for the `retries`th time, and every in-sync replica has it there.
    Retry {
        /// How often by now.
        retries: u32,
        /// Partition that it was sent to.
        partition: i32,
        /// Its offset there.
        offset: i64,
    },
    /// Nobody will send it again.
    Discard,
}

impl Store {
    /// Dead letters, newest failure first.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, CallError> {
        let database = self.database();
        let open = if filter.is_open { "WHERE action = ''" } else { "" };
        // The columns have other names inside, for a name that stands for two things confuses ClickHouse.
        let sql = format!(
            "SELECT toString(t) AS topic, p AS partition, o AS offset, toUnixTimestamp64Milli(ts) AS timestamp_ms, key_bytes, value_bytes, headers, \
             error_class, error_code, error_message, column_name, schema, attempts, first_failed_at_ms, last_failed_at_ms, worker, dlq_topic, \
             dlq_partition, dlq_offset, retries, toString(done) AS action, toUnixTimestamp64Milli(done_at) AS action_at_ms, done_by AS actor \
             FROM (SELECT topic AS t, partition AS p, offset AS o, timestamp AS ts, length(key) AS key_bytes, length(value) AS value_bytes, \
               arrayMap(h -> (toValidUTF8(h.1), toValidUTF8(h.2)), dead_letters.headers) AS headers, toString(dead_letters.error_class) AS error_class, \
               toString(dead_letters.error_code) AS error_code, toValidUTF8(dead_letters.error_message) AS error_message, \
               toString(dead_letters.column_name) AS column_name, toString(dead_letters.schema) AS schema, dead_letters.attempts AS attempts, \
               toUnixTimestamp64Milli(first_failed_at) AS first_failed_at_ms, toUnixTimestamp64Milli(last_failed_at) AS last_failed_at_ms, \
               toString(dead_letters.worker) AS worker, toString(dead_letters.dlq_topic) AS dlq_topic, dead_letters.dlq_partition AS dlq_partition, \
               dead_letters.dlq_offset AS dlq_offset, \
               toUInt32OrZero(arrayFirst(h -> h.1 = {}, dead_letters.headers).2) AS retries \
               FROM `{database}`.dead_letters FINAL WHERE {}) AS letters \
             LEFT JOIN (SELECT topic AS t, partition AS p, offset AS o, timestamp AS ts, argMax(dead_letter_actions.action, at) AS done, max(at) AS done_at, \
               argMax(dead_letter_actions.actor, at) AS done_by FROM `{database}`.dead_letter_actions GROUP BY t, p, o, ts) AS actions \
             USING (t, p, o, ts) {open} ORDER BY greatest(ts, fromUnixTimestamp64Milli(last_failed_at_ms, 'UTC')) DESC, topic, partition, offset DESC LIMIT {}",
            quoted(RETRIES_HEADER),
            filter.condition(),
            filter.limit,
        );
        self.fetch(&sql).await
    }

    /// Records that `actor` did this about a dead letter.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn record_action(&self, letter: &DeadLetter, action: Action, actor: &str) -> Result<(), CallError> {
        let (name, retries, partition, offset) = match action {
            Action::Retry { retries, partition, offset } => ("retry", retries, partition, offset),
            Action::Discard => ("discard", 0, -1, -1),
        };
        let sql = format!(
            "INSERT INTO `{}`.dead_letter_actions (topic, partition, offset, timestamp, at, action, actor, retries, retry_partition, retry_offset) \
             SETTINGS async_insert = 0, insert_deduplicate = 0 \
             SELECT {}, {}, {}, fromUnixTimestamp64Milli(toInt64({}), 'UTC'), now64(3, 'UTC'), '{name}', {}, {retries}, {partition}, {offset}",
            self.database(),
            quoted(&letter.topic),
            letter.partition,
            letter.offset,
            letter.timestamp_ms,
            quoted(actor),
        );
        self.execute(&sql).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_quoted() {
        let filter = DeadLetterFilter {
            topic: Some("a'b".to_owned()),
            code: Some("x".to_owned()),
            since_ms: Some(7),
            place: Some((1, 2)),
            ..DeadLetterFilter::default()
        };
        let condition = filter.condition();
        assert!(condition.starts_with(r"1 AND topic = 'a\'b' AND error_code = 'x' AND "), "{condition}");
        assert!(condition.ends_with(">= 7 AND partition = 1 AND offset = 2"), "{condition}");
        assert_eq!(DeadLetterFilter::default().condition(), "1");
    }
}
