//! The one bound of the producer: how many events, and how many bytes, are on their way.
//!
//! Events, bytes and "closed" live in one atomic word, so that taking room is one compare-and-swap on the caller's
//! thread, and so that nothing can be taken after [`Budget::close`]: whoever took room before is still counted, and the
//! background thread stays until the count is back at zero.
//!
//! Three lanes share it: BEST_EFFORT events find room up to a half, STANDARD ones up to nine tenths, CRITICAL ones up to the whole (see [`Lanes`]).
//!
//! Promise: the two limits are never exceeded, not even for a moment; room that was taken is given back exactly once, by
//! dropping the [`Permit`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use auditstream_schemas::Priority;

const CLOSED: u64 = 1 << 63;
const BYTE_BITS: u32 = 40;
const BYTE_MASK: u64 = (1 << BYTE_BITS) - 1;

/// The highest event limit that fits the word: 8,388,607.
pub(crate) const MAX_EVENTS: usize = (1 << (63 - BYTE_BITS)) - 1;
/// The highest byte limit that fits the word: 1 TiB less one.
pub(crate) const MAX_BYTES: usize = BYTE_MASK as usize;

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// One of the limits is reached; what is on its way now.
    Full { events: usize, bytes: usize },
    /// [`Budget::close`] was called.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Budget {
    word: AtomicU64,
    /// Events and bytes up to which each lane finds room, by [`lane`].
    limits: [(u64, u64); 3],
}

/// How much of the queue each priority may fill, in percent; CRITICAL may fill it all. What is left above a lane's share is room
/// that only the lanes above can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// STANDARD events, 1 to 100. Default 90.
    pub standard: u8,
    /// BEST_EFFORT events, 1 to `standard`. Default 50.
    pub best_effort: u8,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { standard: 90, best_effort: 50 }
    }
}

fn lane(priority: Priority) -> usize {
    match priority {
        Priority::Critical => 0,
        Priority::Standard => 1,
        Priority::BestEffort => 2,
    }
}

impl Budget {
    /// Limits above [`MAX_EVENTS`] and [`MAX_BYTES`] are lowered to these; the configuration refuses them earlier.
    pub(crate) fn new(max_events: usize, max_bytes: usize, lanes: Lanes) -> Arc<Budget> {
        let (events, bytes) = (max_events.min(MAX_EVENTS) as u64, max_bytes.min(MAX_BYTES) as u64);
        // At least one event, however small the share.
        let share = |percent: u8| ((events * u64::from(percent)).div_ceil(100), bytes / 100 * u64::from(percent));
        Arc::new(Budget {
            word: AtomicU64::new(0),
            limits: [(events, bytes), share(lanes.standard), share(lanes.best_effort)],
        })
    }

    /// Three quarters of what STANDARD events may have are taken.
    #[cfg(feature = "spill")]
    pub(crate) fn is_nearly_full(&self) -> bool {
        let (events, bytes) = parts(self.word.load(Ordering::Relaxed));
        let (most_events, most_bytes) = self.limits[lane(Priority::Standard)];
        events >= most_events - most_events / 4 || bytes >= most_bytes - most_bytes / 4
    }

    /// Takes room for one event of `bytes`.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize, priority: Priority) -> Result<Permit, NoRoom> {
        let (max_events, max_bytes) = self.limits[lane(priority)];
        let wanted = (bytes as u64).min(BYTE_MASK);
        let taken = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let (events, held) = parts(word);
            let fits = word & CLOSED == 0 && events < max_events && held + wanted <= max_bytes;
            fits.then(|| word + (1 << BYTE_BITS) + wanted)
        });
        match taken {
            Ok(_) => Ok(Permit { budget: Arc::clone(self), bytes: wanted }),
            Err(word) if word & CLOSED != 0 => Err(NoRoom::Closed),
            Err(word) => {
                let (events, bytes) = parts(word);
                Err(NoRoom::Full { events: events as usize, bytes: bytes as usize })
            }
        }
    }

    /// From now on nothing can be taken.
    pub(crate) fn close(&self) {
        self.word.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Events that were taken and not yet decided.
    pub(crate) fn events(&self) -> usize {
        parts(self.word.load(Ordering::Acquire)).0 as usize
    }

    /// Bytes of these events.
    pub(crate) fn bytes(&self) -> usize {
        parts(self.word.load(Ordering::Acquire)).1 as usize
    }
}

fn parts(word: u64) -> (u64, u64) {
    ((word & !CLOSED) >> BYTE_BITS, word & BYTE_MASK)
}

/// Room for one event; dropping it gives the room back.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.word.fetch_sub((1 << BYTE_BITS) + self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn all(events: usize, bytes: usize) -> Arc<Budget> {
        Budget::new(events, bytes, Lanes { standard: 100, best_effort: 100 })
    }

    #[test]
    fn each_lane_leaves_room_for_those_above() {
        let budget = Budget::new(10, 1_000, Lanes::default());
        let mut held = Vec::new();
        for (priority, most) in [(Priority::BestEffort, 5), (Priority::Standard, 9), (Priority::Critical, 10)] {
            while let Ok(permit) = budget.take(1, priority) {
                held.push(permit);
            }
            assert_eq!(held.len(), most, "{priority:?}");
        }
        held.clear();
        for (priority, most) in [(Priority::BestEffort, 500), (Priority::Standard, 900), (Priority::Critical, 1_000)] {
            assert!(budget.take(most + 1, priority).is_err() && budget.take(most, priority).is_ok(), "{priority:?}");
        }
        // A small queue has room for one of each kind.
        assert!(Budget::new(1, 1_000, Lanes::default()).take(1, Priority::BestEffort).is_ok());
    }

    #[test]
    fn both_limits_hold_and_come_back() {
        let budget = all(3, 100);
        let first = budget.take(60, Priority::Standard).unwrap();
        assert_eq!(budget.take(41, Priority::Standard).unwrap_err(), NoRoom::Full { events: 1, bytes: 60 });
        let second = budget.take(40, Priority::Standard).unwrap();
        let third = budget.take(0, Priority::Standard).unwrap();
        assert_eq!(budget.take(0, Priority::Standard).unwrap_err(), NoRoom::Full { events: 3, bytes: 100 });
        drop(second);
        assert_eq!((budget.events(), budget.bytes()), (2, 60));
        drop((first, third));
        assert_eq!((budget.events(), budget.bytes()), (0, 0));
    }

    #[test]
    fn nothing_is_taken_after_close_but_what_was_taken_stays_counted() {
        let budget = all(3, 100);
        let held = budget.take(10, Priority::Standard).unwrap();
        budget.close();
        assert_eq!(budget.take(1, Priority::Standard).unwrap_err(), NoRoom::Closed);
        assert_eq!(budget.events(), 1);
        drop(held);
        assert_eq!((budget.events(), budget.bytes()), (0, 0));
        assert_eq!(budget.take(1, Priority::Standard).unwrap_err(), NoRoom::Closed);
    }

    #[test]
    fn limits_hold_under_contention() {
        let budget = all(50, 5_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..20_000 {
                        let permit = budget.take(100 + round % 7, Priority::Standard);
                        assert!(budget.events() <= 50 && budget.bytes() <= 5_000);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!((budget.events(), budget.bytes()), (0, 0));
    }
}
