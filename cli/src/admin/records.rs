//! Single records: read whole from where they lie, and sent again.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use auditstream_producer::oauth::{self, TokenContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::{Admin, TIMEOUT};

/// Between two looks at the clock.
const POLL: Duration = Duration::from_millis(50);

/// What a producer of dead letters sets too: nothing counts before every in-sync replica has it, and a key keeps its partition.
const FIXED: [(&str, &str); 6] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("partitioner", "murmur2_random"),
    ("linger.ms", "0"),
    ("message.timeout.ms", "30000"),
    // The broker's limit decides, not the client's.
    ("message.max.bytes", "16777216"),
];

/// A record as it lies in a topic.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    fn new(message: &BorrowedMessage<'_>) -> Record {
        Record {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: message.headers().map_or_else(Vec::new, |headers| {
                headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
            }),
        }
    }

    /// The text of the last header called `name`, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.iter().rev().find(|(header, _)| header == name)?.1.as_deref()?;
        std::str::from_utf8(value).ok()
    }
}

/// Reads records and sends some.
pub(crate) struct Records {
    consumer: BaseConsumer<TokenContext>,
    producer: FutureProducer<TokenContext>,
}

impl Admin {
    pub(crate) fn records(&self) -> anyhow::Result<Records> {
        let mut config = self.config.clone();
        for (name, value) in FIXED {
            config.set(name, value);
        }
        let context = TokenContext::new(self.tokens.clone());
        let producer: FutureProducer<_> = config.create_with_context(context).context("the Kafka client's settings")?;
        if let Some(tokens) = &self.tokens {
            oauth::give_token(producer.client(), tokens)?;
        }
        // A client that reads needs the name of a group, even one that no one is in.
        Ok(Records { consumer: self.consumer("auditstream-admin")?, producer })
    }
}

impl Records {
    /// The record at an offset, whole. Blocks.
    pub(crate) fn read(&self, topic: &str, partition: i32, offset: i64) -> anyhow::Result<Record> {
        let gone = || anyhow!("{topic}/{partition}/{offset} is not on the topic any more, or not yet");
        match self.first_of_each(topic, &[(partition, offset)], TIMEOUT)?.pop() {
            Some(record) if record.offset == offset => Ok(record),
            _ => Err(gone()),
        }
    }

    /// The first record at or behind the offset of each partition, as far as it comes within `limit`. Blocks.
    pub(crate) fn first_of_each(
        &self,
        topic: &str,
        from: &[(i32, i64)],
        limit: Duration,
    ) -> anyhow::Result<Vec<Record>> {
        let mut list = TopicPartitionList::new();
        for &(partition, offset) in from {
            list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        }
        self.consumer.assign(&list)?;
        let until = Instant::now() + limit;
        let mut missing: Vec<i32> = from.iter().map(|(partition, _)| *partition).collect();
        let mut records = Vec::new();
        while !missing.is_empty() && Instant::now() < until {
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    if let Some(at) = missing.iter().position(|partition| *partition == message.partition()) {
                        missing.swap_remove(at);
                        records.push(Record::new(&message));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => missing.retain(|of| *of != partition),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    // The offset is outside the log: that partition has none, and the client does not say which it is.
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => break,
                    Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => {
                        bail!("this Kafka user may not read topic {topic}: {error}")
                    }
                    // The client goes on by itself.
                    _ => {}
                },
            }
        }
        self.consumer.unassign()?;
        Ok(records)
    }

    /// Sends `record` to `topic` with its key, value, headers and timestamp; answers partition and offset when every in-sync replica has it.
    pub(crate) async fn send(&self, topic: &str, record: &Record) -> anyhow::Result<(i32, i64)> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let new = FutureRecord {
            topic,
            partition: None,
            payload: record.value.as_deref(),
            key: record.key.as_deref(),
            timestamp: Some(record.timestamp_ms),
            headers: Some(headers),
        };
        let sent = self.producer.send_result(new).map_err(|(error, _)| error);
        let answer = sent.context("the record was not sent")?.await.context("the Kafka client ended")?;
        let delivery =
            answer.map_err(|(error, _)| error).with_context(|| format!("topic {topic} refuses the record"))?;
        Ok((delivery.partition, delivery.offset))
    }
}
