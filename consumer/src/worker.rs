//! The one loop: polls Kafka, decodes, asks the core, carries its actions out.
//!
//! It runs on a thread of its own because librdkafka's poll blocks; inserts and deliveries run as tasks of the runtime and answer through a channel.
//! A turn of the loop: completions, time, actions, records, signals. All state is owned here, no lock is held across a turn.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use auditstream_schemas::{BatchDecoder, Poison, Position};
use auditstream_store::DeadLetterRow;
use rdkafka::Message;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use tokio::runtime::Handle;

use crate::core::{Action, BatchId, Input, Now, SealReason, StopReason, Verdict, Worker};
use crate::dead_letters::DeadLetter;
use crate::http::Health;
use crate::kafka::{Reader, Signal, needs_a_human};
use crate::metrics::{DeadLetterLabel, FailureLabel, Metrics, PartitionLabel, ReasonLabel};
use crate::quiet::Quiet;
use crate::sink::{Completion, Rows, Sink, StepError};
use crate::{Summary, WorkerError};

/// Longest wait in one poll when nothing is under way.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// Longest wait in one poll while a task may answer, whose answer waits at most this long, or while a batch is open: no record for so long means
/// that all have been read.
const BUSY_POLL: Duration = Duration::from_millis(3);
/// Records taken in one turn: bounds how late completions and time are looked at.
const RECORDS_PER_TURN: usize = 2_000;
/// How often the committed offsets are asked for before the worker ends.
const COMMITTED_LOOKUPS: usize = 3;
/// Closing may take this long; after that the process ends without it.
const CLOSE_BOUND: Duration = Duration::from_secs(5);

/// Failed attempts by step and class.
type LoopQuiet = Quiet<(&'static str, &'static str)>;

/// What the loop keeps of a batch between two attempts.
#[derive(Default)]
struct Held {
    rows: Option<Rows>,
    hash: [u8; 16],
    letters: Vec<DeadLetter>,
    delivered: Vec<DeadLetterRow>,
    row_count: u64,
    newest_ms: i64,
}

pub(crate) struct Loop {
    pub(crate) core: Worker,
    pub(crate) reader: Reader,
    pub(crate) decoder: BatchDecoder,
    pub(crate) sink: Sink,
    pub(crate) completions: Receiver<Completion>,
    pub(crate) runtime: Handle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) group: String,
    pub(crate) state: LoopState,
}

/// The loop's own state, apart from what it talks to.
pub(crate) struct LoopState {
    started: Instant,
    actions: Vec<Action>,
    /// Dead letters and newest record time of the batch being filled.
    filling: Held,
    held: HashMap<BatchId, Held>,
    running_tasks: usize,
    quiet: LoopQuiet,
    summary: Summary,
    stop: Option<StopReason>,
}

impl LoopState {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            actions: Vec::new(),
            filling: Held::default(),
            held: HashMap::new(),
            running_tasks: 0,
            quiet: Quiet::default(),
            summary: Summary::default(),
            stop: None,
        }
    }
}

impl Loop {
    /// Runs until the core stops.
    pub(crate) fn run(mut self) -> Result<Summary, WorkerError> {
        let result = loop {
            if let Err(error) = self.turn() {
                break Err(error);
            }
            if let Some(reason) = self.state.stop.take() {
                break match reason {
                    StopReason::Drained => Ok(true),
                    StopReason::DrainDeadline => Ok(false),
                    StopReason::Halted(why) => Err(WorkerError::Halted(why)),
                };
            }
        };
        self.health.stopping();
        if !self.reader.close(CLOSE_BOUND) {
            tracing::warn!("the kafka client did not close in time; the group notices by the session timeout");
        }
        result.map(|drained| Summary { drained, ..self.state.summary })
    }

    fn now(&self) -> Now {
        self.state.started.elapsed()
    }

    fn turn(&mut self) -> Result<(), WorkerError> {
        self.health.turn();
        while let Ok(completion) = self.completions.try_recv() {
            self.complete(completion);
        }
        let now = self.now();
        if self.core.next_wake().is_some_and(|due| due <= now) {
            self.input(Input::Tick);
        }
        self.act()?;
        if self.state.stop.is_some() {
            return Ok(());
        }
        if self.core.wants_records() || self.core.is_paused() {
            self.read()?;
            self.signals()?;
        } else {
            self.wait_for_room();
        }
        self.metrics.held_bytes.set(i64::try_from(self.core.held_bytes()).unwrap_or(i64::MAX));
        self.act()
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        self.core.handle(input, now, &mut self.state.actions);
    }

    /// How long the loop may sleep: until the core wants to be woken, and not long while a task may answer or records wait for company.
    fn patience(&self) -> Duration {
        let is_busy = self.state.running_tasks > 0 || self.core.is_filling();
        let longest = if is_busy { BUSY_POLL } else { IDLE_POLL };
        let now = self.now();
        self.core.next_wake().map_or(longest, |due| due.saturating_sub(now).clamp(Duration::from_millis(1), longest))
    }

    /// As much is held as may be: only a completion makes room. The core pauses fetching if this takes long.
    fn wait_for_room(&mut self) {
        let longest = Duration::from_millis(50);
        let now = self.now();
        let timeout = self
            .core
            .next_wake()
            .map_or(longest, |due| due.saturating_sub(now).clamp(Duration::from_millis(1), longest));
        match self.completions.recv_timeout(timeout) {
            Ok(completion) => self.complete(completion),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }

    fn read(&mut self) -> Result<(), WorkerError> {
        let now = self.now();
        let mut timeout = self.patience();
        let (mut records, mut bytes, mut stale) = (0u64, 0u64, 0u64);
        let mut caught_up = false;
        for _ in 0..RECORDS_PER_TURN {
            let record = match self.reader.poll(timeout) {
                None => {
                    caught_up = true;
                    break;
                }
                Some(Ok(record)) => record,
                Some(Err(error)) => {
                    kafka_error(&error, &self.sink.topic, &self.group, &mut self.state.quiet)?;
                    break;
                }
            };
            timeout = Duration::ZERO;
            let (partition, offset) = (record.partition(), record.offset());
            if !self.core.admit(partition, offset) {
                stale += 1;
                continue;
            }
            let length = record.payload_len() + record.key_len();
            records += 1;
            bytes += length as u64;
            let verdict = decode(&mut self.decoder, &record, &mut self.state.filling);
            let input = Input::Record { partition, offset, bytes: length, verdict };
            self.core.handle(input, now, &mut self.state.actions);
            if !self.state.actions.is_empty() || !self.core.wants_records() {
                break;
            }
        }
        // Only a poll that has waited says that nothing is there; one that did not wait may just have been early.
        if caught_up && records == 0 {
            self.input(Input::CaughtUp);
        }
        self.state.summary.records += records;
        self.metrics.records.inc_by(records);
        self.metrics.record_bytes.inc_by(bytes);
        self.metrics.stale_records.inc_by(stale);
        Ok(())
    }

    fn signals(&mut self) -> Result<(), WorkerError> {
        while let Some(signal) = self.reader.signal() {
            match signal {
                Signal::Assign(partitions) => self.assigned(&partitions)?,
                Signal::Revoke(partitions) => {
                    let lost = self.reader.is_assignment_lost();
                    tracing::info!(?partitions, lost, "partitions revoked");
                    let reason = if lost { "lost" } else { "revoked" };
                    self.metrics.rebalances.get_or_create(&ReasonLabel { reason }).inc();
                    self.input(if lost { Input::Lost(partitions) } else { Input::Revoked(partitions) });
                }
                Signal::Lag(lags) => {
                    for (partition, lag) in lags {
                        self.metrics.lag.get_or_create(&PartitionLabel { partition }).set(lag);
                    }
                }
            }
        }
        Ok(())
    }

    fn assigned(&mut self, partitions: &[i32]) -> Result<(), WorkerError> {
        self.health.is_member();
        self.metrics.rebalances.get_or_create(&ReasonLabel { reason: "assigned" }).inc();
        let starts = self.committed(partitions)?;
        self.reader.assign(&starts).map_err(WorkerError::Kafka)?;
        tracing::info!(?starts, "partitions assigned");
        self.input(Input::Assigned(starts));
        self.assignment_changed();
        Ok(())
    }

    /// Where to start. The coordinator may be moving just now, so a failed look-up gets a second and a third chance before the process gives up;
    /// guessing an offset is never an option.
    fn committed(&self, partitions: &[i32]) -> Result<Vec<(i32, Option<i64>)>, WorkerError> {
        let mut result = self.reader.committed(partitions);
        for _ in 1..COMMITTED_LOOKUPS {
            let Err(error) = &result else { break };
            tracing::warn!(%error, "the committed offsets could not be read");
            self.health.turn();
            result = self.reader.committed(partitions);
        }
        result.map_err(WorkerError::Kafka)
    }

    fn assignment_changed(&self) {
        self.metrics.assigned_partitions.set(i64::try_from(self.core.assigned().count()).unwrap_or(i64::MAX));
    }

    fn commit_failed(&mut self, error: &KafkaError) {
        self.metrics.commit_failures.inc();
        tracing::warn!(%error, "offset commit failed; it is tried again while the partitions are ours");
        self.input(Input::CommitFailed);
    }

    fn act(&mut self) -> Result<(), WorkerError> {
        // Carrying an action out can make the core answer at once with more.
        while !self.state.actions.is_empty() {
            for action in std::mem::take(&mut self.state.actions) {
                self.carry_out(action)?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, action: Action) -> Result<(), WorkerError> {
        match action {
            Action::Seal { batch, reason } => self.seal(batch, reason)?,
            Action::Insert { batch, spans, attempt: _ } => {
                let Some(rows) = self.state.held.get_mut(&batch).and_then(|held| held.rows.take()) else {
                    return Err(WorkerError::Halted(format!(
                        "the rows of batch {} are gone before they were stored",
                        batch.0
                    )));
                };
                let task = self.sink.clone().insert(batch, rows, spans);
                self.spawn(task);
            }
            Action::SendDeadLetters { batch, attempt } => {
                let letters =
                    self.state.held.get_mut(&batch).map(|held| std::mem::take(&mut held.letters)).unwrap_or_default();
                let task = self.sink.clone().deliver(batch, letters, attempt);
                self.spawn(task);
            }
            Action::WriteLedger { batch, spans, attempt: _ } => {
                let held = self.state.held.get(&batch);
                let (letters, hash) = held.map(|held| (held.delivered.clone(), held.hash)).unwrap_or_default();
                let task = self.sink.clone().write_ledger(batch, spans, letters, hash);
                self.spawn(task);
            }
            Action::Forget(batch) => {
                self.state.held.remove(&batch);
            }
            Action::Commit(offsets) => match self.reader.committer(&offsets) {
                Ok(committer) => {
                    let task = self.sink.clone().commit(committer);
                    self.spawn(task);
                }
                Err(error) => self.commit_failed(&error),
            },
            Action::Release(partitions) => {
                self.reader.release(&partitions).map_err(WorkerError::Kafka)?;
                for &partition in &partitions {
                    self.metrics.lag.remove(&PartitionLabel { partition });
                }
                self.assignment_changed();
            }
            Action::Pause(partitions) => {
                tracing::info!(held_bytes = self.core.held_bytes(), "fetching is off");
                self.metrics.paused.set(1);
                self.reader.pause(&partitions).map_err(WorkerError::Kafka)?;
            }
            Action::Resume(partitions) => {
                tracing::info!("fetching is on again");
                self.metrics.paused.set(0);
                self.reader.resume(&partitions).map_err(WorkerError::Kafka)?;
            }
            Action::Stop(reason) => self.state.stop = Some(reason),
        }
        Ok(())
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.state.running_tasks += 1;
        self.runtime.spawn(task);
    }

    fn seal(&mut self, batch: BatchId, reason: SealReason) -> Result<(), WorkerError> {
        let decoded = self
            .decoder
            .finish()
            .map_err(|fault| WorkerError::Halted(format!("a batch could not be decoded: {fault}")))?;
        let rows: usize = decoded.iter().map(|decoded| decoded.positions.len()).sum();
        let mut held = std::mem::take(&mut self.state.filling);
        held.row_count = rows as u64;
        held.rows = (rows > 0).then_some(Rows::Decoded(decoded));
        self.metrics.batches.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
        self.metrics.batch_rows.observe(rows as f64);
        self.state.held.insert(batch, held);
        Ok(())
    }

    fn complete(&mut self, completion: Completion) {
        if !matches!(completion, Completion::Shutdown) {
            self.state.running_tasks = self.state.running_tasks.saturating_sub(1);
        }
        match completion {
            Completion::Inserted { batch, body, took, result } => {
                self.metrics.insert_seconds.observe(took.as_secs_f64());
                if let (Some(held), Some(body)) = (self.state.held.get_mut(&batch), body) {
                    held.hash = body.hash;
                    // An acknowledged body is not needed again.
                    held.rows = result.is_err().then_some(Rows::Body(body));
                }
                match result {
                    Ok(refused) => {
                        self.refused(batch, refused);
                        self.inserted(batch);
                        self.input(Input::Inserted(batch));
                    }
                    Err(error) => {
                        let failure = self.step_failed("insert", batch, error);
                        self.input(Input::InsertFailed(batch, failure));
                    }
                }
            }
            Completion::Delivered { batch, delivered, failed, result } => {
                for (letter, at) in delivered {
                    self.metrics
                        .dead_letters
                        .get_or_create(&DeadLetterLabel { reason: letter.reason.code.clone() })
                        .inc();
                    self.state.summary.dead_letters += 1;
                    let row = self.sink.dead_letter_row(letter, at);
                    self.state.held.entry(batch).or_default().delivered.push(row);
                }
                self.state.held.entry(batch).or_default().letters.extend(failed);
                match result {
                    Ok(()) => self.input(Input::DeadLettersDelivered(batch)),
                    Err(error) => {
                        let failure = self.step_failed("dead_letters", batch, error);
                        self.input(Input::DeadLettersFailed(batch, failure));
                    }
                }
            }
            Completion::LedgerWritten { batch, result } => match result {
                Ok(()) => {
                    self.state.summary.batches += 1;
                    self.input(Input::LedgerWritten(batch));
                }
                Err(error) => {
                    let failure = self.step_failed("ledger", batch, error);
                    self.input(Input::LedgerFailed(batch, failure));
                }
            },
            Completion::Committed(Ok(())) => {
                self.metrics.commits.inc();
                self.input(Input::Committed);
            }
            Completion::Committed(Err(error)) => self.commit_failed(&error),
            Completion::Shutdown => {
                tracing::info!("stopping: finishing what was read");
                self.health.stopping();
                self.input(Input::Drain);
            }
        }
    }

    /// Rows that ClickHouse refuses join the batch's dead letters.
    fn refused(&mut self, batch: BatchId, letters: Vec<DeadLetter>) {
        let Some(held) = self.state.held.get_mut(&batch).filter(|_| !letters.is_empty()) else {
            return;
        };
        let mut rows = BTreeMap::new();
        for letter in &letters {
            *rows.entry(letter.partition).or_default() += 1;
        }
        held.row_count = held.row_count.saturating_sub(letters.len() as u64);
        held.letters.extend(letters);
        self.input(Input::Refused(batch, rows.into_iter().collect()));
    }

    fn inserted(&mut self, batch: BatchId) {
        let Some(held) = self.state.held.get(&batch) else {
            return;
        };
        self.state.summary.rows += held.row_count;
        self.metrics.rows.inc_by(held.row_count);
        if held.newest_ms > 0 {
            self.metrics.newest_queryable.set(held.newest_ms as f64 / 1000.0);
        }
    }

    fn step_failed(&mut self, step: &'static str, batch: BatchId, error: StepError) -> crate::core::Failure {
        self.metrics.failures.get_or_create(&FailureLabel { step, class: error.class }).inc();
        if let Some(left_out) = self.state.quiet.allows((step, error.class), Instant::now()) {
            tracing::warn!(
                step,
                class = error.class,
                batch = batch.0,
                reason = error.message,
                left_out,
                "attempt failed"
            );
        }
        error.failure
    }
}

/// Decodes one record into the batch being filled, or keeps it as a dead letter with the reason.
fn decode(decoder: &mut BatchDecoder, record: &BorrowedMessage<'_>, filling: &mut Held) -> Verdict {
    let timestamp_ms = record.timestamp().to_millis().unwrap_or(0);
    let at = Position { partition: record.partition(), offset: record.offset(), timestamp_ms };
    let result = record.payload().map_or_else(|| Err(Poison::null_value()), |value| decoder.push(value, at));
    match result {
        Ok(()) => {
            filling.newest_ms = filling.newest_ms.max(timestamp_ms);
            Verdict::Row
        }
        Err(poison) => {
            filling.letters.push(DeadLetter::new(record, poison.into()));
            Verdict::DeadLetter
        }
    }
}

fn kafka_error(error: &KafkaError, topic: &str, group: &str, quiet: &mut LoopQuiet) -> Result<(), WorkerError> {
    if let Some(why) = needs_a_human(error, topic, group) {
        return Err(WorkerError::Halted(why));
    }
    if let Some(left_out) = quiet.allows(("read", "retry"), Instant::now()) {
        tracing::warn!(%error, left_out, "reading from kafka failed; librdkafka goes on trying");
    }
    Ok(())
}
