//! The producer's counters, and the two views of them: [`Stats`] at any time, [`Report`] at the end of a flush.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::budget::{Budget, OwnLine};
use crate::error::{FailReason, RejectReason};

/// Counted since the producer was made.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Counted by the threads that record.
    submitted: OwnLine<AtomicU64>,
    /// Counted by the thread that hears the acknowledgements.
    acked: OwnLine<AtomicU64>,
    spilled: AtomicU64,
    drained: AtomicU64,
    spill_events: AtomicU64,
    spill_bytes: AtomicU64,
    damaged: AtomicU64,
    failed: [AtomicU64; FailReason::ALL.len()],
    queue_full: AtomicU64,
    shut_down: AtomicU64,
    invalid: AtomicU64,
    too_large: AtomicU64,
    duplicate: AtomicU64,
    best_effort: AtomicU64,
}

impl Counters {
    pub(crate) fn submitted(&self) {
        self.submitted.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one [`Counters::submitted`] back.
    pub(crate) fn not_submitted(&self) {
        self.submitted.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn acked(&self) {
        self.acked.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Acknowledged so far, in whichever way they came.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acked.0.load(Ordering::Relaxed)
    }

    pub(crate) fn spilled(&self) {
        self.spilled.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn drained(&self) {
        self.drained.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "spill")]
    pub(crate) fn damaged(&self, events: u64) {
        self.damaged.fetch_add(events, Ordering::Relaxed);
    }

    /// Events and bytes that the spill holds now.
    #[cfg(feature = "spill")]
    pub(crate) fn spill(&self, (events, bytes): (u64, u64)) {
        self.spill_events.store(events, Ordering::Relaxed);
        self.spill_bytes.store(bytes, Ordering::Relaxed);
    }

    /// An event of the lowest priority found no room.
    pub(crate) fn best_effort_dropped(&self) {
        self.best_effort.fetch_add(1, Ordering::Relaxed);
    }

    /// What was lost so far, for good.
    pub(crate) fn losses(&self) -> Losses {
        Losses {
            failed: self.failures(),
            best_effort: self.best_effort.load(Ordering::Relaxed),
            damaged: self.damaged.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn failed(&self, reason: FailReason) {
        self.failed[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, reason: &RejectReason) {
        let counter = match reason {
            RejectReason::QueueFull { .. } => &self.queue_full,
            RejectReason::ShutDown => &self.shut_down,
            RejectReason::Invalid(_) | RejectReason::IdempotencyKey { .. } => &self.invalid,
            RejectReason::Duplicate { .. } => &self.duplicate,
            RejectReason::TooLarge { .. } => &self.too_large,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn failures(&self) -> Failures {
        Failures(std::array::from_fn(|index| self.failed[index].load(Ordering::Relaxed)))
    }

    pub(crate) fn stats(&self, budget: &Budget) -> Stats {
        Stats {
            submitted: self.submitted.0.load(Ordering::Relaxed),
            acked: self.acked.0.load(Ordering::Relaxed),
            spilled: self.spilled.load(Ordering::Relaxed),
            drained: self.drained.load(Ordering::Relaxed),
            spill_events: self.spill_events.load(Ordering::Relaxed),
            spill_bytes: self.spill_bytes.load(Ordering::Relaxed),
            damaged: self.damaged.load(Ordering::Relaxed),
            failed: self.failures(),
            rejected: Rejections {
                queue_full: self.queue_full.load(Ordering::Relaxed),
                shut_down: self.shut_down.load(Ordering::Relaxed),
                invalid: self.invalid.load(Ordering::Relaxed),
                too_large: self.too_large.load(Ordering::Relaxed),
                duplicate: self.duplicate.load(Ordering::Relaxed),
            },
            best_effort_dropped: self.best_effort.load(Ordering::Relaxed),
            queue_events: budget.events(),
            queue_bytes: budget.bytes(),
        }
    }

    pub(crate) fn report(&self, budget: &Budget, complete: bool) -> Report {
        Report {
            complete,
            submitted: self.submitted.0.load(Ordering::Relaxed),
            acked: self.acked.0.load(Ordering::Relaxed),
            spilled: self.spill_events.load(Ordering::Relaxed),
            failed: self.failures(),
            outstanding: budget.events() as u64,
        }
    }
}

/// Events that are lost for good, by how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Losses {
    pub(crate) failed: Failures,
    pub(crate) best_effort: u64,
    pub(crate) damaged: u64,
}

impl Losses {
    pub(crate) fn total(&self) -> u64 {
        self.failed.total() + self.best_effort + self.damaged
    }
}

/// The producer's counters now. Counts are since the producer was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Events taken.
    pub submitted: u64,
    /// Events that every in-sync replica has, those from the spill too.
    pub acked: u64,
    /// Events that went to the spill.
    pub spilled: u64,
    /// Events that came out of the spill and that every in-sync replica has. More than `spilled` when an earlier process left some.
    pub drained: u64,
    /// Events in the spill now.
    pub spill_events: u64,
    /// Their bytes, as the limit counts them.
    pub spill_bytes: u64,
    /// Events in the spill that could not be read again: lost, but for their bytes, which are kept aside.
    pub damaged: u64,
    /// Events taken that did not reach Kafka.
    pub failed: Failures,
    /// BEST_EFFORT events among those given back for a full queue.
    pub best_effort_dropped: u64,
    /// Events given back to the caller.
    pub rejected: Rejections,
    /// Events on their way.
    pub queue_events: usize,
    /// Their bytes, as the bound counts them.
    pub queue_bytes: usize,
}

/// What [`flush`](crate::Producer::flush) and [`shutdown`](crate::Producer::shutdown) answer. Counts are since the
/// producer was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Each event that was taken before the call is decided: acknowledged, spilled or failed.
    pub complete: bool,
    /// Events taken.
    pub submitted: u64,
    /// Events that every in-sync replica has, those from the spill too.
    pub acked: u64,
    /// Events that are in the spill, on disk: sent when Kafka takes them, by this process or by the next one.
    pub spilled: u64,
    /// Events taken that did not reach Kafka: lost, unless the caller sends them again.
    pub failed: Failures,
    /// Events still on their way; 0 after a shutdown.
    pub outstanding: u64,
}

impl Report {
    /// Whether everything that was ever taken is acknowledged.
    pub fn all_acked(&self) -> bool {
        self.complete && self.outstanding == 0 && self.spilled == 0 && self.failed.total() == 0
    }
}

/// Failed events by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failures([u64; FailReason::ALL.len()]);

impl Failures {
    /// Events that failed for `reason`.
    pub fn get(&self, reason: FailReason) -> u64 {
        self.0[reason.index()]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Those that came after `earlier`.
    pub(crate) fn since(&self, earlier: &Failures) -> Failures {
        Failures(std::array::from_fn(|index| self.0[index] - earlier.0[index]))
    }

    /// So many for one reason.
    #[cfg(test)]
    pub(crate) fn of(reason: FailReason, count: u64) -> Failures {
        let mut failures = Failures::default();
        failures.0[reason.index()] = count;
        failures
    }

    /// Each reason that occurred, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (FailReason, u64)> {
        FailReason::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

/// Events given back, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejections {
    /// A bound was reached.
    pub queue_full: u64,
    /// The producer was shut down.
    pub shut_down: u64,
    /// A field was not as it must be.
    pub invalid: u64,
    /// It would not fit a message.
    pub too_large: u64,
    /// Its idempotency key was seen not long ago.
    pub duplicate: u64,
}

impl Rejections {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.queue_full + self.shut_down + self.invalid + self.too_large + self.duplicate
    }
}
