//! The one loop: polls Kafka, decodes, asks the core, carries its actions out.
//!
//! It runs on a thread of its own because librdkafka's poll blocks; inserts and deliveries run as tasks of the runtime and answer through a channel.
//! A turn of the loop: completions, time, actions, records, signals. All state is owned here, no lock is held across a turn.

mod act;
mod complete;
mod group;
mod read;
mod unknown_schemas;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use auditstream_schemas::BatchDecoder;
use auditstream_store::DeadLetterRow;
use tokio::runtime::Handle;

use crate::core::{Action, BatchId, Epoch, Input, Now, StopReason, Worker};
use crate::dead_letters::DeadLetter;
use crate::fetch::Fetched;
use crate::http::Health;
use crate::kafka::Reader;
use crate::metrics::Metrics;
use crate::quiet::Quiet;
use crate::sink::{Completion, Rows, Sink};
use crate::telemetry::{BatchTrace, Traces};
use crate::time_lag::TimeLag;
use crate::topic_id::TopicId;
use crate::{Summary, WorkerError};

pub(crate) use unknown_schemas::{LookedUp, UnknownSchemas};

/// Longest wait in one poll when nothing is under way.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// Longest wait in one poll while a task may answer, whose answer waits at most this long, or while a batch is open: no record for so long means
/// that all have been read.
const BUSY_POLL: Duration = Duration::from_millis(3);
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
    /// 0 while there is no row.
    oldest_ms: i64,
    /// Of a sampled batch.
    trace: Option<Box<BatchTrace>>,
}

pub(crate) struct Loop {
    pub(crate) core: Worker,
    /// Before the reader: what was fetched goes before the client that fetched it.
    pub(crate) fetched: Fetched,
    pub(crate) reader: Reader,
    pub(crate) decoder: BatchDecoder,
    pub(crate) unknown: UnknownSchemas,
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
    time_lag: TimeLag,
    /// Offsets of the commit under way.
    committing: Vec<(i32, i64)>,
    traces: Option<Traces>,
    summary: Summary,
    stop: Option<StopReason>,
    /// An operator has paused the group.
    suspended: bool,
    /// What the brokers said last, to be looked at.
    topic_id: Option<TopicId>,
    /// Which topic the spans of an assignment are of. Batches may outlive the assignment that they were read under.
    topics: BTreeMap<Epoch, TopicId>,
}

impl LoopState {
    pub(crate) fn new(time_lag: TimeLag, mut traces: Option<Traces>) -> Self {
        Self {
            started: Instant::now(),
            actions: Vec::new(),
            filling: Held { trace: traces.as_mut().and_then(Traces::next_batch), ..Held::default() },
            held: HashMap::new(),
            running_tasks: 0,
            quiet: Quiet::default(),
            time_lag,
            committing: Vec::new(),
            traces,
            summary: Summary::default(),
            stop: None,
            suspended: false,
            topic_id: None,
            topics: BTreeMap::new(),
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
        // Spans of batches that are not done end here.
        self.state.held.clear();
        let flush = self.state.traces.take().map(Traces::flush);
        drop(self.fetched);
        if !self.reader.close(CLOSE_BOUND) {
            tracing::warn!("the kafka client did not close in time; the group notices by the session timeout");
        }
        if let Some(flush) = flush {
            flush.wait();
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
        if let Some(id) = self.state.topic_id.take() {
            self.topic_is(&id)?;
        }
        let now = self.now();
        if self.core.next_wake().is_some_and(|due| due <= now) {
            self.input(Input::Tick);
        }
        self.act()?;
        if self.state.stop.is_some() {
            return Ok(());
        }
        self.tend_unknown_schemas()?;
        if self.core.wants_records() || self.core.is_paused() {
            self.read()?;
            self.signals()?;
        } else {
            self.wait_for_room();
        }
        let is_full = self.core.is_paused() && !self.core.wants_records();
        self.metrics.paused.set(i64::from(is_full));
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
}
