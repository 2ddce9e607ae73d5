//! The producer's counters, and the two views of them: [`Stats`] at any time, [`Report`] at the end of a flush.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::budget::Budget;
use crate::error::{FailReason, RejectReason};

/// Counted since the producer was made.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    submitted: AtomicU64,
    acked: AtomicU64,
    failed: [AtomicU64; FailReason::ALL.len()],
    queue_full: AtomicU64,
    shut_down: AtomicU64,
    invalid: AtomicU64,
    too_large: AtomicU64,
}

impl Counters {
    pub(crate) fn submitted(&self) {
        self.submitted.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one [`Counters::submitted`] back.
    pub(crate) fn not_submitted(&self) {
        self.submitted.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn acked(&self) {
        self.acked.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, reason: FailReason) {
        self.failed[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, reason: &RejectReason) {
        let counter = match reason {
            RejectReason::QueueFull { .. } => &self.queue_full,
            RejectReason::ShutDown => &self.shut_down,
            RejectReason::Invalid(_) => &self.invalid,
            RejectReason::TooLarge { .. } => &self.too_large,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn failures(&self) -> Failures {
        Failures(std::array::from_fn(|index| self.failed[index].load(Ordering::Relaxed)))
    }

    pub(crate) fn stats(&self, budget: &Budget) -> Stats {
        Stats {
            submitted: self.submitted.load(Ordering::Relaxed),
            acked: self.acked.load(Ordering::Relaxed),
            failed: self.failures(),
            rejected: Rejections {
                queue_full: self.queue_full.load(Ordering::Relaxed),
                shut_down: self.shut_down.load(Ordering::Relaxed),
                invalid: self.invalid.load(Ordering::Relaxed),
                too_large: self.too_large.load(Ordering::Relaxed),
            },
            queue_events: budget.events(),
            queue_bytes: budget.bytes(),
        }
    }

    pub(crate) fn report(&self, budget: &Budget, complete: bool) -> Report {
        Report {
            complete,
            submitted: self.submitted.load(Ordering::Relaxed),
            acked: self.acked.load(Ordering::Relaxed),
            failed: self.failures(),
            outstanding: budget.events() as u64,
        }
    }
}

/// The producer's counters now. Counts are since the producer was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Events taken.
    pub submitted: u64,
    /// Events that every in-sync replica has.
    pub acked: u64,
    /// Events taken that did not reach Kafka.
    pub failed: Failures,
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
    /// Each event that was taken before the call is decided: acknowledged or failed.
    pub complete: bool,
    /// Events taken.
    pub submitted: u64,
    /// Events that every in-sync replica has.
    pub acked: u64,
    /// Events taken that did not reach Kafka: lost, unless the caller sends them again.
    pub failed: Failures,
    /// Events still on their way; 0 after a shutdown.
    pub outstanding: u64,
}

impl Report {
    /// Whether everything that was ever taken is acknowledged.
    pub fn all_acked(&self) -> bool {
        self.complete && self.outstanding == 0 && self.failed.total() == 0
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
}

impl Rejections {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.queue_full + self.shut_down + self.invalid + self.too_large
    }
}
