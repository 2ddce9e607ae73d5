//! Dead letters: records that can't be stored, kept whole, delivered with the reason, and done only when the broker has acknowledged them.
//!
//! A dead letter has its source record's key, value, headers and timestamp unchanged, plus the headers of [`headers`].

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use auditstream_producer::oauth::{self, TokenFile};
use auditstream_schemas::Poison;
use auditstream_store::RefusedRow;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

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
    /// The writer schema that the record names, where it names one.
    pub const SCHEMA: &str = "auditstream.schema";
    /// How often delivery was tried before, 0 the first time.
    pub const ATTEMPTS: &str = "auditstream.attempts";
    /// Which worker, and its version.
    pub const WORKER: &str = "auditstream.worker";
    /// When the record failed, milliseconds since 1970.
    pub const FAILED_AT: &str = "auditstream.failed_at";
}

/// Why a record can't be stored.
#[derive(Clone, Debug)]
pub(crate) struct Reason {
    /// `decode` or `refused`.
    pub(crate) class: &'static str,
    /// Stable code.
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
}

impl From<Poison> for Reason {
    fn from(poison: Poison) -> Self {
        Self { class: "decode", code: poison.code.as_str().to_owned(), message: poison.message }
    }
}

impl From<RefusedRow> for Reason {
    fn from(row: RefusedRow) -> Self {
        let code = row.code.map_or_else(|| "clickhouse".to_owned(), |code| format!("clickhouse-{code}"));
        Self { class: "refused", code, message: row.message }
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
    pub(crate) failed_at_ms: i64,
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
            failed_at_ms: now_ms(),
        }
    }

    fn headers(&self, source_topic: &str, worker: &str, attempt: u32) -> OwnedHeaders {
        let mut all = OwnedHeaders::new_with_capacity(self.headers.len() + 11);
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
            (headers::SCHEMA, self.schema.clone()),
            (headers::ATTEMPTS, attempt.to_string()),
            (headers::WORKER, worker.to_owned()),
            (headers::FAILED_AT, self.failed_at_ms.to_string()),
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
pub(crate) struct Logging {
    tokens: Option<TokenFile>,
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
        tracing::warn!(%error, reason, "dead-letter producer error");
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
            producer: properties.create_with_context(Logging { tokens })?,
            topic: topic.to_owned(),
            source_topic: source_topic.to_owned(),
            worker: format!("{worker} auditstream/{}", env!("CARGO_PKG_VERSION")),
        })
    }

    /// Sends all `letters` and waits for each one's acknowledgement or failure.
    pub(crate) async fn deliver(&self, letters: Vec<DeadLetter>, attempt: u32) -> DeliveryOutcome {
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
                headers: Some(letter.headers(&self.source_topic, &self.worker, attempt)),
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
            reason: Reason { class: "decode", code: "wrong-magic".into(), message: "no known framing".into() },
            schema: String::new(),
            failed_at_ms: 5,
        };
        let headers = letter.headers("events", "w1", 2);
        let all: Vec<_> = headers.iter().map(|header| (header.key, header.value)).collect();
        assert_eq!(all[..3], [("ce_id", Some(&b"1"[..])), ("empty", None), ("ce_id", Some(&b"2"[..]))]);
        let added = |name| all.iter().find(|(key, _)| *key == name).and_then(|(_, value)| *value).unwrap();
        assert_eq!(added(headers::TOPIC), b"events");
        assert_eq!(added(headers::PARTITION), b"3");
        assert_eq!(added(headers::OFFSET), b"41");
        assert_eq!(added(headers::ERROR_CODE), b"wrong-magic");
        assert_eq!(added(headers::ATTEMPTS), b"2");
    }
}
