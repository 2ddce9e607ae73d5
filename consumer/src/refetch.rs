//! Reads single records again, from their partition and offset: what ClickHouse refuses must go to the dead-letter topic as it came.
//!
//! Keeping every record's bytes until its row is stored would double the memory of the worker for a case that hardly ever happens.

use std::time::{Duration, Instant};

use auditstream_producer::oauth::{TokenContext, TokenFile};
use auditstream_store::RefusedRow;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::dead_letters::{DeadLetter, Reason, WholeInserts};

/// How long one record may take to come.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a record could not be read again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefetchError {
    #[error("kafka")]
    Kafka(#[source] KafkaError),
    #[error(
        "record {partition}/{offset} was refused by clickhouse and is no longer in topic {topic}: its retention is too short"
    )]
    Gone { topic: String, partition: i32, offset: i64 },
}

/// Makes a reader outside the group when one is needed.
#[derive(Clone)]
pub(crate) struct Refetcher {
    pub(crate) properties: ClientConfig,
    pub(crate) tokens: Option<TokenFile>,
    pub(crate) topic: String,
}

impl Refetcher {
    /// The records of `rows`, each with the reason of its row, refused after inserts that held the `whole` batch. Blocks.
    pub(crate) fn dead_letters(
        &self,
        rows: Vec<RefusedRow>,
        whole: WholeInserts,
    ) -> Result<Vec<DeadLetter>, RefetchError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut properties = self.properties.clone();
        // One record at a time: no prefetch. Assigning by hand does not join the group.
        properties
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "1024")
            .set("fetch.wait.max.ms", "10");
        // The member's name is the worker's alone.
        properties.remove("group.instance.id");
        let context = TokenContext::new(self.tokens.clone());
        let consumer: BaseConsumer<_> = properties.create_with_context(context).map_err(RefetchError::Kafka)?;
        rows.into_iter().map(|row| self.dead_letter(&consumer, row, whole)).collect()
    }

    fn dead_letter(
        &self,
        consumer: &BaseConsumer<TokenContext>,
        row: RefusedRow,
        whole: WholeInserts,
    ) -> Result<DeadLetter, RefetchError> {
        let mut at = TopicPartitionList::new();
        at.add_partition_offset(&self.topic, row.partition, Offset::Offset(row.offset)).map_err(RefetchError::Kafka)?;
        consumer.assign(&at).map_err(RefetchError::Kafka)?;
        let gone = || RefetchError::Gone { topic: self.topic.clone(), partition: row.partition, offset: row.offset };
        let deadline = Instant::now() + RECORD_TIMEOUT;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match consumer.poll(left) {
                Some(Ok(record)) if record.partition() != row.partition || record.offset() < row.offset => {}
                Some(Ok(record)) if record.offset() == row.offset => {
                    return Ok(DeadLetter::new(&record, Reason::refused(row, whole)));
                }
                Some(Ok(_)) => return Err(gone()),
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
                ))) => {
                    return Err(gone());
                }
                // Brokers come and go; the deadline bounds it.
                Some(Err(_)) | None => {}
            }
        }
        Err(RefetchError::Kafka(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)))
    }
}
