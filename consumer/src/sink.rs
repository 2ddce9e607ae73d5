//! The tasks that store a batch: encode and insert, deliver dead letters, write the ledger.
//!
//! A task takes what it works on and gives it back with its [`Completion`], so that the loop owns everything between two attempts and a retry
//! sends the same bytes under the same token.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use auditstream_schemas::Decoded;
use auditstream_store::faults::{Point, crash_point, strikes};
use auditstream_store::{
    DeadLetterRow, ErrorClass, EventBody, InsertError, LedgerRow, Pause, ShapeError, Store, event_body,
};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::core::{BatchId, Failure, Overload, Span};
use crate::dead_letters::{DeadLetter, DeadLetterSender, Delivered, VERSION, WholeInserts, now_ms};
use crate::refetch::{RefetchError, Refetcher};
use crate::topic_id::TopicId;
use crate::worker::LookedUp;

/// What a task answers with.
#[derive(Debug)]
pub(crate) enum Completion {
    Inserted {
        batch: BatchId,
        body: Option<Arc<EventBody>>,
        took: Duration,
        /// The rows that ClickHouse refused, as the records that they came from.
        result: Result<Vec<DeadLetter>, StepError>,
    },
    Delivered {
        batch: BatchId,
        delivered: Vec<(DeadLetter, Delivered)>,
        failed: Vec<DeadLetter>,
        result: Result<(), StepError>,
    },
    LedgerWritten {
        batch: BatchId,
        result: Result<(), StepError>,
    },
    /// The broker has answered a commit.
    Committed(Result<(), KafkaError>),
    /// Parts of the fullest partition of the events table. Nobody's task: the watch over the table says so from time to time.
    Parts(u64),
    /// The topic's id, as it is now.
    TopicIs(TopicId),
    /// Whether an operator has paused the group, as ClickHouse says now.
    Pause(Option<Pause>),
    /// A schema registry was asked. Comes more than once while it fails.
    SchemaLookedUp {
        id: u32,
        outcome: LookedUp,
    },
    /// The service is asked to stop.
    Shutdown,
}

impl Completion {
    /// Whether it ends no task that the loop has started for the core.
    pub(crate) fn is_unasked(&self) -> bool {
        matches!(
            self,
            Self::Shutdown | Self::Parts(_) | Self::Pause(_) | Self::TopicIs(_) | Self::SchemaLookedUp { .. }
        )
    }
}

/// A failed attempt: what the core does about it, and what people are told.
#[derive(Debug)]
pub(crate) struct StepError {
    pub(crate) failure: Failure,
    pub(crate) class: &'static str,
    pub(crate) message: String,
}

impl StepError {
    fn halt(message: String) -> Self {
        Self { failure: Failure::Halt(message.clone()), class: "halt", message }
    }

    fn retry(message: String) -> Self {
        Self { failure: Failure::Retry, class: "retry", message }
    }
}

impl From<ShapeError> for StepError {
    fn from(error: ShapeError) -> Self {
        if error.is_passing() { Self::retry(error.to_string()) } else { Self::halt(error.to_string()) }
    }
}

impl From<InsertError> for StepError {
    fn from(error: InsertError) -> Self {
        let message = error.to_string();
        match error.class {
            ErrorClass::Retry => {
                let overload = error.code.and_then(overload_of);
                Self { failure: overload.map_or(Failure::Retry, Failure::Overload), ..Self::retry(message) }
            }
            ErrorClass::Halt => Self::halt(message),
            // Every record was checked against its schema and the column's range before it came here, so a refusal of the data is a fault of
            // this program or of the table: nothing is skipped on a guess.
            ErrorClass::Bisect => Self {
                class: "bisect",
                ..Self::halt(format!("clickhouse refused rows that passed every check: {message}"))
            },
        }
    }
}

/// What a ClickHouse that answers with this code is short of, when fewer or smaller inserts help.
fn overload_of(code: u32) -> Option<Overload> {
    match code {
        // TOO_MANY_PARTS
        252 => Some(Overload::Parts),
        // MEMORY_LIMIT_EXCEEDED
        241 => Some(Overload::Memory),
        _ => None,
    }
}

/// The rows of a batch: as decoded until the first insert, as the bytes to send from then on.
#[derive(Debug)]
pub(crate) enum Rows {
    Decoded(Vec<Decoded>),
    Body(Arc<EventBody>),
}

/// Where and under which names the tasks store.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) store: Store,
    pub(crate) sender: DeadLetterSender,
    pub(crate) refetcher: Refetcher,
    pub(crate) topic: Arc<str>,
    pub(crate) dead_letter_topic: Arc<str>,
    pub(crate) worker_id: Arc<str>,
    /// Seconds since 1970.
    pub(crate) table_altered_at: u64,
    pub(crate) completions: Sender<Completion>,
}

impl Sink {
    /// Inserts the rows; encodes them first if that was not done yet.
    pub(crate) async fn insert(self, batch: BatchId, rows: Rows, spans: Vec<Span>, attempt: u32, pieces: u32) {
        let started = Instant::now();
        let body = match rows {
            Rows::Body(body) => Ok(body),
            Rows::Decoded(decoded) => self.encode(decoded).await,
        };
        let (body, result) = match body {
            Ok(body) => {
                let token = self.token(&spans, &body.hash);
                crash_point(Point::BeforeInsert);
                let result = self.store_rows(&body, &token, attempt, pieces).await;
                (Some(body), result)
            }
            Err(error) => (None, Err(error)),
        };
        self.answer(Completion::Inserted { batch, body, took: started.elapsed(), result });
    }

    /// Stores the body's rows; answers with those that ClickHouse refuses, as the records that they came from.
    async fn store_rows(
        &self,
        body: &EventBody,
        token: &str,
        attempt: u32,
        pieces: u32,
    ) -> Result<Vec<DeadLetter>, StepError> {
        match self.store.insert_in_pieces(body, token, pieces).await {
            Ok(()) => Ok(Vec::new()),
            Err(error) if error.class == ErrorClass::Bisect => {
                tracing::warn!(
                    reason = error.message,
                    rows = body.rows,
                    "clickhouse refuses a batch for its data; looking for the rows"
                );
                let whole = WholeInserts { count: attempt.saturating_add(1), refused_ms: now_ms() };
                let refused = self.store.insert_all_but_refused(body, token).await?;
                let refetcher = self.refetcher.clone();
                // Polls librdkafka, which blocks.
                let letters = tokio::task::spawn_blocking(move || refetcher.dead_letters(refused, whole)).await;
                match letters {
                    Ok(Ok(letters)) => Ok(letters),
                    Ok(Err(RefetchError::Kafka(error))) => {
                        Err(StepError::retry(format!("a refused record could not be read again: {error}")))
                    }
                    Ok(Err(error @ RefetchError::Gone { .. })) => Err(StepError::halt(error.to_string())),
                    Err(error) => Err(StepError::halt(format!("reading a refused record again ended: {error}"))),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn encode(&self, decoded: Vec<Decoded>) -> Result<Arc<EventBody>, StepError> {
        let topic = Arc::clone(&self.topic);
        // Tens of milliseconds of pure computation: not on a thread that drives sockets.
        match tokio::task::spawn_blocking(move || event_body(&decoded, &topic)).await {
            Ok(Ok(body)) => Ok(Arc::new(body)),
            Ok(Err(error)) => Err(StepError::halt(format!("a decoded batch could not be written as columns: {error}"))),
            Err(error) => Err(StepError::halt(format!("the encoder ended: {error}"))),
        }
    }

    /// Delivers the dead letters.
    pub(crate) async fn deliver(self, batch: BatchId, letters: Vec<DeadLetter>) {
        crash_point(Point::BeforeDeadLetters);
        let outcome = self.sender.deliver(letters).await;
        crash_point(Point::DeadLettersAcknowledged);
        let result = match (outcome.error, self.sender.fatal_error()) {
            (None, _) => Ok(()),
            (Some(_), Some(fatal)) => {
                Err(StepError::halt(format!("the dead-letter producer failed for good: {fatal}")))
            }
            (Some(error), None) => {
                Err(StepError::retry(format!("dead-letter topic {}: {error}", self.dead_letter_topic)))
            }
        };
        self.answer(Completion::Delivered { batch, delivered: outcome.delivered, failed: outcome.failed, result });
    }

    /// Writes the spans, and the dead letters as rows that people can query.
    pub(crate) async fn write_ledger(
        self,
        batch: BatchId,
        spans: Vec<(Span, Option<TopicId>)>,
        letters: Vec<DeadLetterRow>,
        hash: [u8; 16],
    ) {
        crash_point(Point::BeforeLedger);
        let token = self.token(spans.iter().map(|(span, _)| span), &hash);
        let rows: Vec<LedgerRow> = spans
            .iter()
            .map(|(span, topic_id)| LedgerRow {
                topic: self.topic.to_string(),
                partition: span.partition,
                first_offset: span.first,
                last_offset: span.last,
                rows: span.rows,
                dead_letters: span.dead_letters,
                hash,
                token: token.clone(),
                worker: self.worker_id.to_string(),
                inserted_at_ms: now_ms(),
                topic_id: topic_id.as_ref().map_or_else(String::new, |id| id.as_str().to_owned()),
            })
            .collect();
        let result = async {
            // A column that was narrowed takes changed values without a word. Nothing counts as stored unless the tables are still of the right
            // shape after the insert: what is read again then overwrites the changed rows.
            self.store.check_tables().await?;
            if !letters.is_empty() {
                self.store.insert_dead_letters(&letters, &token).await?;
            }
            Ok(self.store.insert_ledger(&rows, &token).await?)
        }
        .await;
        self.answer(Completion::LedgerWritten { batch, result });
    }

    /// Runs what [`crate::kafka::Reader::committer`] made, and passes the answer on.
    pub(crate) async fn commit(self, committer: impl FnOnce() -> Result<(), KafkaError> + Send + 'static) {
        crash_point(Point::BeforeCommit);
        let result = if strikes(Point::CommitRefused) {
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::RebalanceInProgress))
        } else {
            tokio::task::spawn_blocking(committer).await.unwrap_or(Err(KafkaError::Canceled))
        };
        crash_point(Point::Committed);
        self.answer(Completion::Committed(result));
    }

    /// Names exactly this body in the table as it is: the spans say where it comes from, the hash what it holds, so that the token can never stand for
    /// other data, nor for what an altered table made of it.
    fn token<'a>(&self, spans: impl IntoIterator<Item = &'a Span>, hash: &[u8; 16]) -> String {
        let mut token = self.topic.to_string();
        for span in spans {
            // Writing to a String can't fail.
            let _ = write!(token, ":{}/{}-{}", span.partition, span.first, span.last);
        }
        let _ = write!(token, "@{}#", self.table_altered_at);
        for byte in hash {
            let _ = write!(token, "{byte:02x}");
        }
        token
    }

    /// The row of a delivered dead letter.
    pub(crate) fn dead_letter_row(&self, letter: DeadLetter, at: Delivered) -> DeadLetterRow {
        DeadLetterRow {
            traceparent: letter.traceparent(),
            topic: self.topic.to_string(),
            partition: letter.partition,
            offset: letter.offset,
            timestamp_ms: letter.timestamp_ms,
            key: letter.key.unwrap_or_default(),
            value: letter.value.unwrap_or_default(),
            headers: letter.headers.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect(),
            error_class: letter.reason.class.to_owned(),
            error_code: letter.reason.code,
            error_message: letter.reason.message,
            schema: letter.schema,
            worker: self.worker_id.to_string(),
            dlq_topic: self.dead_letter_topic.to_string(),
            dlq_partition: at.partition,
            dlq_offset: at.offset,
            column_name: letter.reason.column,
            attempts: letter.reason.attempts,
            first_failed_at_ms: letter.reason.first_failed_ms,
            last_failed_at_ms: letter.reason.last_failed_ms,
            worker_version: VERSION.to_owned(),
        }
    }

    fn answer(&self, completion: Completion) {
        // The loop is gone only when the process ends; what it did not hear of will be read again.
        let _ = self.completions.send(completion);
    }
}
