//! Rows of the small tables, as they are inserted. Field order and types are those of the migrations.

use clickhouse::Row;
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

/// A span of a partition that is stored: every offset from first to last is a row, a dead letter, or was never a record (compaction, transactions).
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct LedgerRow {
    /// Topic of the records.
    pub topic: String,
    /// Their partition.
    pub partition: i32,
    /// Offset of the first record.
    pub first_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Records of the span that are rows of `events`.
    pub rows: u64,
    /// Records of the span that are dead letters.
    pub dead_letters: u64,
    /// Hash of the body that held the rows.
    pub hash: [u8; 16],
    /// Deduplication token of that insert.
    pub token: String,
    /// The worker that stored it.
    pub worker: String,
    /// When ClickHouse had acknowledged the rows: milliseconds since 1970 by the worker's clock.
    #[serde(rename = "inserted_at")]
    pub inserted_at_ms: i64,
    /// Id of the topic, which another topic of the same name has not; empty when the brokers have none.
    pub topic_id: String,
}

/// A record that could not be stored as an event, and where the dead-letter topic holds it.
#[derive(Clone, PartialEq, Eq, Row, Serialize)]
pub struct DeadLetterRow {
    /// Topic of the source record.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, milliseconds since 1970.
    #[serde(rename = "timestamp")]
    pub timestamp_ms: i64,
    /// Its key; empty when it had none.
    #[serde(serialize_with = "bytes")]
    pub key: Vec<u8>,
    /// Its value; empty when it had none.
    #[serde(serialize_with = "bytes")]
    pub value: Vec<u8>,
    /// Its headers, in order.
    #[serde(serialize_with = "headers")]
    pub headers: Vec<(String, Vec<u8>)>,
    /// Where it failed: `decode`, ….
    pub error_class: String,
    /// Stable code of the reason.
    pub error_code: String,
    /// The reason for people.
    pub error_message: String,
    /// The writer schema that the record names, where it names one.
    pub schema: String,
    /// The worker that refused it.
    pub worker: String,
    /// The dead-letter topic.
    pub dlq_topic: String,
    /// Partition of the dead letter there.
    pub dlq_partition: i32,
    /// Offset of the dead letter there.
    pub dlq_offset: i64,
    /// The column or field at fault; empty where it is not known.
    pub column_name: String,
    /// How many decodes or inserts of the record were tried; 1 or more.
    pub attempts: u32,
    /// When it failed first, milliseconds since 1970 by the worker's clock.
    #[serde(rename = "first_failed_at")]
    pub first_failed_at_ms: i64,
    /// When it failed last: its decode, its last insert, or a delivery of the dead letter.
    #[serde(rename = "last_failed_at")]
    pub last_failed_at_ms: i64,
    /// W3C trace context of the record; empty where it has no valid one.
    pub traceparent: String,
    /// Version of the worker that refused it.
    pub worker_version: String,
}

impl std::fmt::Debug for DeadLetterRow {
    /// Position and reason only: the record is what people did.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetterRow")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("error_code", &self.error_code)
            .finish_non_exhaustive()
    }
}

/// A `String` column holds any bytes; as a sequence of numbers they would be written one by one.
fn bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

fn headers<S: Serializer>(headers: &[(String, Vec<u8>)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut sequence = serializer.serialize_seq(Some(headers.len()))?;
    for (name, value) in headers {
        sequence.serialize_element(&(name, Bytes(value)))?;
    }
    sequence.end()
}
