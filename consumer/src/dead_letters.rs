//! Dead letters: records that can't be stored, kept whole, delivered with the reason, and done only when the broker has acknowledged them.
//!
//! A dead letter has its source record's key, value, headers and timestamp unchanged, plus the headers of [`headers`].

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use auditstream_producer::oauth::{self, TokenFile};
use auditstream_schemas::Poison;
use auditstream_store::RefusedRow;
use auditstream_store::faults::Guard;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::quiet::Quiet;
use crate::telemetry::traceparent::{self, TRACEPARENT};

/// Names of the headers that a dead letter adds; all values are text.
pub mod headers {
    /// Topic of the source record.
    pub const TOPIC: &str = "auditstream.source.topic";
    /// Partition of the source record.
    pub const PARTITION: &str = "auditstream.source.partition";
    /// Offset of the source record.
    pub const OFFSET: &str = "auditstream.source.offset";
    /// Timestamp of the source record, milliseconds since 1970.
    pub const TIMESTAMP: &str = "auditstream.source.timestamp";
    /// `decode`: the record could not be decoded; `refused`: ClickHouse refuses its row.
    pub const ERROR_CLASS: &str = "auditstream.error.class";
    /// Stable code: [`auditstream_schemas::PoisonCode::as_str`], or ClickHouse's number as `clickhouse-469`.
    pub const ERROR_CODE: &str = "auditstream.error.code";
    /// A sentence for people, without any of the record's content.
    pub const ERROR_MESSAGE: &str = "auditstream.error.message";
    /// The column or field at fault: an Avro field such as `actor.kind`, or the columns of `events` that ClickHouse blames; empty where it is not known.
    pub const ERROR_COLUMN: &str = "auditstream.error.column";
    /// The writer schema that the record names, where it names one.
    pub const SCHEMA: &str = "auditstream.schema";
    /// How many decodes or inserts of the record were tried: 1 for a record that can't be decoded; otherwise as many inserts of this worker as held its row.
    pub const ATTEMPTS: &str = "auditstream.attempts";
    /// When the record failed first, milliseconds since 1970 by the worker's clock.
    pub const FIRST_FAILED_AT: &str = "auditstream.first_failed_at";
    /// When it failed last: its decode, its insert alone, or a delivery of this dead letter; milliseconds since 1970 by the worker's clock.
    pub const LAST_FAILED_AT: &str = "auditstream.last_failed_at";
    /// Which worker.
    pub const WORKER: &str = "auditstream.worker";
    /// Version of that worker.
    pub const WORKER_VERSION: &str = "auditstream.worker.version";
}

/// Version of this worker, as the header says it.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why a record can't be stored.
#[derive(Clone, Debug)]
pub(crate) struct Reason {
    /// `decode` or `refused`.
    pub(crate) class: &'static str,
    /// Stable code.
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
    /// The column or field at fault; empty where it is not known.
    pub(crate) column: String,
    /// Decodes or inserts that were tried.
    pub(crate) attempts: u32,
    /// When it failed first, milliseconds since 1970.
    pub(crate) first_failed_ms: i64,
    /// When it failed last.
    pub(crate) last_failed_ms: i64,
}

impl From<Poison> for Reason {
    fn from(poison: Poison) -> Self {
        let now = now_ms();
        Self {
            class: "decode",
            code: poison.code.as_str().to_owned(),
            message: poison.message,
            column: poison.field.map_or_else(String::new, Into::into),
            attempts: 1,
            first_failed_ms: now,
            last_failed_ms: now,
        }
    }
}

/// The inserts of a whole batch, before its refused rows were looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WholeInserts {
    /// How many.
    pub(crate) count: u32,
    /// When ClickHouse refused the batch for its data, milliseconds since 1970.
    pub(crate) refused_ms: i64,
}

impl Reason {
    /// Why `row` was refused, after inserts that held its whole batch.
    pub(crate) fn refused(row: RefusedRow, whole: WholeInserts) -> Self {
        Self {
            class: "refused",
            code: row.code.map_or_else(|| "clickhouse".to_owned(), |code| format!("clickhouse-{code}")),
            message: row.message,
            column: row.column.map_or_else(String::new, Into::into),
            attempts: whole.count.saturating_add(row.inserts),
            first_failed_ms: whole.refused_ms,
            last_failed_ms: row.refused_at_ms,
        }
    }
}

/// A record on its way to the dead-letter topic.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) reason: Reason,
    pub(crate) schema: String,
}

impl DeadLetter {
    /// Keeps `record` with the reason why it can't be stored.
    pub(crate) fn new(record: &impl Message, reason: Reason) -> Self {
        let value = record.payload();
        Self {
            partition: record.partition(),
            offset: record.offset(),
            timestamp_ms: record.timestamp().to_millis().unwrap_or(0),
            key: record.key().map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: record.headers().map_or_else(Vec::new, |headers| {
                headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
            }),
            reason,
            schema: value
                .and_then(|value| auditstream_schemas::split(value).ok())
                .map_or_else(String::new, |(writer, _)| writer.to_string()),
        }
    }

    /// The record's trace context as text, where it has a valid one.
    pub(crate) fn traceparent(&self) -> String {
        let values = self.headers.iter().filter(|(name, _)| name == TRACEPARENT);
        let mut valid = values.filter_map(|(_, value)| {
            let value = value.as_deref()?;
            traceparent::parse(value).and_then(|_| String::from_utf8(value.to_vec()).ok())
        });
        valid.next().unwrap_or_default()
    }

    fn headers(&self, source_topic: &str, worker: &str) -> OwnedHeaders {
        let mut all = OwnedHeaders::new_with_capacity(self.headers.len() + 14);
        for (key, value) in &self.headers {
            all = all.insert(Header { key, value: value.as_deref() });
        }
        let added = [
            (headers::TOPIC, source_topic.to_owned()),
            (headers::PARTITION, self.partition.to_string()),
            (headers::OFFSET, self.offset.to_string()),
            (headers::TIMESTAMP, self.timestamp_ms.to_string()),
            (headers::ERROR_CLASS, self.reason.class.to_owned()),
            (headers::ERROR_CODE, self.reason.code.clone()),
            (headers::ERROR_MESSAGE, self.reason.message.clone()),
            (headers::ERROR_COLUMN, self.reason.column.clone()),
            (headers::SCHEMA, self.schema.clone()),
            (headers::ATTEMPTS, self.reason.attempts.to_string()),
            (headers::FIRST_FAILED_AT, self.reason.first_failed_ms.to_string()),
            (headers::LAST_FAILED_AT, self.reason.last_failed_ms.to_string()),
            (headers::WORKER, worker.to_owned()),
            (headers::WORKER_VERSION, VERSION.to_owned()),
        ];
        for (key, value) in &added {
            all = all.insert(Header { key, value: Some(value) });
        }
        all
    }
}

/// Where the broker put a dead letter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivered {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// Passes the client's words on to this process's log, and gives it its token.
#[derive(Default)]
pub(crate) struct Logging {
    tokens: Option<TokenFile>,
    /// Errors by code: the client reports each broker's each failed attempt.
    quiet: Mutex<Quiet<Option<i32>>>,
}

impl ClientContext for Logging {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        oauth::answer(self.tokens.as_ref())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left_out) = quiet.allows(error.rdkafka_error_code().map(|code| code as i32), Instant::now()) {
            tracing::warn!(%error, reason, left_out, "dead-letter producer error");
        }
    }
}

/// Delivers dead letters. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DeadLetterSender {
    producer: FutureProducer<Logging>,
    topic: String,
    source_topic: String,
    worker: String,
}

/// Dead letters of one batch: which were acknowledged, which were not, and why.
pub(crate) struct DeliveryOutcome {
    pub(crate) delivered: Vec<(DeadLetter, Delivered)>,
    pub(crate) failed: Vec<DeadLetter>,
    pub(crate) error: Option<KafkaError>,
}

impl DeadLetterSender {
    pub(crate) fn new(
        properties: &ClientConfig,
        topic: &str,
        source_topic: &str,
        worker: &str,
        tokens: Option<TokenFile>,
    ) -> KafkaResult<Self> {
        Ok(Self {
            producer: properties.create_with_context(Logging { tokens, ..Logging::default() })?,
            topic: topic.to_owned(),
            source_topic: source_topic.to_owned(),
            worker: worker.to_owned(),
        })
    }

    /// Sends all `letters` and waits for each one's acknowledgement or failure. What failed has the time of it.
    pub(crate) async fn deliver(&self, letters: Vec<DeadLetter>) -> DeliveryOutcome {
        let mut outcome =
            DeliveryOutcome { delivered: Vec::with_capacity(letters.len()), failed: Vec::new(), error: None };
        let mut pending = Vec::with_capacity(letters.len());
        for letter in letters {
            let record = FutureRecord {
                topic: &self.topic,
                partition: None,
                payload: letter.value.as_deref(),
                key: letter.key.as_deref(),
                timestamp: Some(letter.timestamp_ms),
                headers: Some(letter.headers(&self.source_topic, &self.worker)),
            };
            // `send` would sleep on a full queue; `send_result` says so, and the back-off of the batch tries again.
            match self.producer.send_result(record) {
                Ok(acknowledgement) => pending.push((letter, acknowledgement)),
                Err((error, _)) => {
                    outcome.error = Some(error);
                    outcome.failed.push(letter);
                }
            }
        }
        for (letter, acknowledgement) in pending {
            if Guard::DeadLetterAck.is_off() {
                outcome.delivered.push((letter, Delivered { partition: -1, offset: -1 }));
                continue;
            }
            match acknowledgement.await {
                Ok(Ok(delivery)) => {
                    outcome
                        .delivered
                        .push((letter, Delivered { partition: delivery.partition, offset: delivery.offset }));
                }
                Ok(Err((error, _))) => {
                    outcome.error = Some(error);
                    outcome.failed.push(letter);
                }
                Err(_canceled) => {
                    outcome.error = Some(KafkaError::Canceled);
                    outcome.failed.push(letter);
                }
            }
        }
        let now = now_ms();
        outcome.failed.iter_mut().for_each(|letter| letter.reason.last_failed_ms = now);
        outcome
    }

    /// Whether the idempotent producer has failed for good, so that only a new process helps.
    pub(crate) fn fatal_error(&self) -> Option<String> {
        self.producer.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"))
    }
}

/// Milliseconds since 1970 on this machine's clock.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keeps_the_headers_and_adds_where_it_comes_from() {
        let letter = DeadLetter {
            partition: 3,
            offset: 41,
            timestamp_ms: 1_700_000_000_000,
            key: None,
            value: Some(vec![0xff]),
            headers: vec![
                ("ce_id".into(), Some(b"1".to_vec())),
                ("empty".into(), None),
                ("ce_id".into(), Some(b"2".to_vec())),
            ],
            reason: Reason {
                class: "decode",
                code: "wrong-magic".into(),
                message: "no known framing".into(),
                column: "actor.kind".into(),
                attempts: 2,
                first_failed_ms: 5,
                last_failed_ms: 7,
            },
            schema: String::new(),
        };
        let headers = letter.headers("events", "w1");
        let all: Vec<_> = headers.iter().map(|header| (header.key, header.value)).collect();
        assert_eq!(all[..3], [("ce_id", Some(&b"1"[..])), ("empty", None), ("ce_id", Some(&b"2"[..]))]);
        let added = |name| all.iter().find(|(key, _)| *key == name).and_then(|(_, value)| *value).unwrap();
        assert_eq!(added(headers::TOPIC), b"events");
        assert_eq!(added(headers::PARTITION), b"3");
        assert_eq!(added(headers::OFFSET), b"41");
        assert_eq!(added(headers::ERROR_CODE), b"wrong-magic");
        assert_eq!(added(headers::ERROR_COLUMN), b"actor.kind");
        assert_eq!(added(headers::ATTEMPTS), b"2");
        assert_eq!([added(headers::FIRST_FAILED_AT), added(headers::LAST_FAILED_AT)], [b"5", b"7"]);
        assert_eq!([added(headers::WORKER), added(headers::WORKER_VERSION)], [b"w1", VERSION.as_bytes()]);
    }
}
