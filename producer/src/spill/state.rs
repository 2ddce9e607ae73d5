//! What the sender thread keeps of the spill: the open file, what gathers for the next transaction, and what is being drained.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::file::{Chunk, Removed, Salvaged, SpillFile};
use super::{SpillConfig, SpillError, entry};
use crate::delivery::{Delivery, InFlight};
use crate::error::DeliveryFailure;

/// A chunk this long is full. Small, so that what a damaged page costs is small, and large enough that rows cost little.
const CHUNK: usize = 64 << 10;
/// First wait after the disk or Kafka refused; it doubles up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// See the module.
#[derive(Debug)]
pub(crate) struct Spill {
    pub(super) file: SpillFile,
    pub(super) config: SpillConfig,
    /// Events go to the file.
    pub(super) on: bool,
    /// Not yet in the file; the last one is being filled.
    pub(super) gathered: VecDeque<Gathered>,
    pub(super) gathered_bytes: usize,
    pub(super) draining: VecDeque<Draining>,
    /// The last number that was handed to librdkafka out of the file.
    pub(super) read_to: i64,
    /// Up to here damaged entries were counted and kept aside: chunks may be read more than once.
    pub(super) checked_to: i64,
    /// The log says that events go to disk, and not yet that they no longer do.
    pub(super) told: bool,
    pub(super) disk: Backoff,
    pub(super) kafka: Backoff,
    /// Acknowledgements at the last look that found more of them, and when that was.
    progress: (u64, Instant),
}

/// A chunk with the events that wait for it to be on disk.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) chunk: Chunk,
    #[expect(
        clippy::vec_box,
        reason = "some come boxed out of librdkafka; to unbox them here would move each once more"
    )]
    pub(super) held: Vec<Box<InFlight>>,
}

/// Chunks on their way from the file to Kafka.
#[derive(Debug)]
pub(super) struct Draining {
    pub(super) state: Arc<Drain>,
    pub(super) chunks: Vec<Removed>,
}

/// Shared with the delivery callbacks.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    /// Handed to librdkafka and not decided.
    open: AtomicUsize,
    is_broken: AtomicBool,
    failure: Mutex<Option<DeliveryFailure>>,
}

impl Drain {
    pub(super) fn sent(&self) {
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn acked(&self, _: Delivery) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    /// Kafka will never take it; it is counted as failed and leaves the file with the others.
    pub(crate) fn refused(&self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    /// Not now; it stays in the file.
    pub(crate) fn failed(&self, failure: DeliveryFailure) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        self.is_broken.store(true, Ordering::Release);
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn is_done(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    pub(super) fn failure(&self) -> Option<DeliveryFailure> {
        if !self.is_broken.load(Ordering::Acquire) {
            return None;
        }
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Waits that double.
#[derive(Debug)]
pub(super) struct Backoff {
    wait: Duration,
    until: Option<Instant>,
}

impl Backoff {
    fn new() -> Self {
        Self { wait: BACKOFF.0, until: None }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.until = Some(now + self.wait);
        self.wait = (self.wait * 2).min(BACKOFF.1);
    }

    pub(super) fn worked(&mut self) {
        *self = Self::new();
    }
}

impl Spill {
    /// Opens the file; it is on from the start if that holds anything.
    pub(crate) fn open(config: SpillConfig) -> Result<(Self, Salvaged), SpillError> {
        let (file, salvaged) = SpillFile::open(&config.folder)?;
        let spill = Self {
            on: file.events() > 0,
            told: file.events() > 0,
            file,
            config,
            gathered: VecDeque::new(),
            gathered_bytes: 0,
            draining: VecDeque::new(),
            read_to: 0,
            checked_to: 0,
            disk: Backoff::new(),
            kafka: Backoff::new(),
            progress: (0, Instant::now()),
        };
        Ok((spill, salvaged))
    }

    /// The first number that no event in the file has.
    pub(crate) fn next_number(&self) -> i64 {
        self.file.next_number()
    }

    /// Events in the file, and their bytes.
    pub(crate) fn held(&self) -> (u64, u64) {
        (self.file.events(), self.file.bytes())
    }

    /// Whether an event of the lowest priority still has room.
    pub(super) fn has_room_to_spare(&self) -> bool {
        self.file.bytes() + (self.gathered_bytes as u64) < self.config.max_bytes / 2
    }

    /// Adds an event behind all others.
    pub(super) fn gather(&mut self, parts: entry::Parts<'_>, in_flight: Box<InFlight>) {
        if self.gathered.back().is_none_or(|last| last.chunk.body.len() >= CHUNK) {
            let chunk = Chunk { number: parts.number, ..Chunk::default() };
            self.gathered.push_back(Gathered { chunk, held: Vec::new() });
        }
        let Some(last) = self.gathered.back_mut() else { return };
        let before = last.chunk.body.len();
        entry::append(&mut last.chunk.body, parts);
        self.gathered_bytes += last.chunk.body.len() - before;
        last.chunk.last = parts.number;
        last.chunk.events += 1;
        last.held.push(in_flight);
    }

    /// Nothing was acknowledged for too long, although something waits.
    pub(super) fn is_stuck(&mut self, acked: u64, waiting: bool, now: Instant) -> bool {
        if acked != self.progress.0 || !waiting {
            self.progress = (acked, now);
        }
        now.duration_since(self.progress.1) >= self.config.after
    }
}
