//! The one bound of the producer: how many events, and how many bytes, are on their way.
//!
//! Events, bytes and "closed" live in one atomic word, so that taking room is one compare-and-swap on the caller's
//! thread, and so that nothing can be taken after [`Budget::close`]: whoever took room before is still counted, and the
//! background thread stays until the count is back at zero.
//!
//! Room that is given back is gathered in a word of its own, on a cache line of its own, and comes off the first one only when somebody finds no room:
//! the threads that record and the one that hears the acknowledgements would otherwise take the line from each other for every event.
//!
//! Three lanes share it: BEST_EFFORT events find room up to a half, STANDARD ones up to nine tenths, CRITICAL ones up to the whole (see [`Lanes`]).
//!
//! Promise: the two limits are never exceeded, not even for a moment; room that was taken is given back exactly once, by
//! handing in the [`Permit`], which can't be copied.

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
    /// What was taken, less what was given back up to some moment.
    taken: OwnLine<AtomicU64>,
    /// What was given back since.
    freed: OwnLine<AtomicU64>,
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
            taken: OwnLine::default(),
            freed: OwnLine::default(),
            limits: [(events, bytes), share(lanes.standard), share(lanes.best_effort)],
        })
    }

    /// Three quarters of what STANDARD events may have are taken.
    #[cfg(feature = "spill")]
    pub(crate) fn is_nearly_full(&self) -> bool {
        let (events, bytes) = self.held();
        let (most_events, most_bytes) = self.limits[lane(Priority::Standard)];
        events >= most_events - most_events / 4 || bytes >= most_bytes - most_bytes / 4
    }

    /// Takes room for one event of `bytes`. While other threads find no room either, one may be refused although another has just made room.
    pub(crate) fn take(&self, bytes: usize, priority: Priority) -> Result<Permit, NoRoom> {
        let (max_events, max_bytes) = self.limits[lane(priority)];
        let wanted = (bytes as u64).min(BYTE_MASK);
        let mut word = self.taken.0.load(Ordering::Acquire);
        loop {
            if word & CLOSED != 0 {
                return Err(NoRoom::Closed);
            }
            let (events, held) = parts(word);
            if events < max_events && held + wanted <= max_bytes {
                let more = word + (1 << BYTE_BITS) + wanted;
                match self.taken.0.compare_exchange_weak(word, more, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return Ok(Permit { bytes: wanted }),
                    Err(now) => word = now,
                }
                continue;
            }
            let freed = self.freed.0.swap(0, Ordering::AcqRel);
            if freed == 0 {
                return Err(NoRoom::Full { events: events as usize, bytes: held as usize });
            }
            // Never below what is still held: whatever was given back was taken before.
            word = self.taken.0.fetch_sub(freed, Ordering::AcqRel) - freed;
        }
    }

    /// The event of this permit is decided.
    pub(crate) fn give_back(&self, permit: Permit) {
        self.freed.0.fetch_add((1 << BYTE_BITS) + permit.bytes, Ordering::AcqRel);
    }

    /// From now on nothing can be taken.
    pub(crate) fn close(&self) {
        self.taken.0.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Events that were taken and not yet decided; exact when nothing is taken meanwhile, as after [`Budget::close`].
    pub(crate) fn events(&self) -> usize {
        self.held().0 as usize
    }

    /// Bytes of these events.
    pub(crate) fn bytes(&self) -> usize {
        self.held().1 as usize
    }

    fn held(&self) -> (u64, u64) {
        // In this order: what is moved from one word to the other in between counts as held, and not twice as given back.
        let (taken, freed) = (parts(self.taken.0.load(Ordering::Acquire)), parts(self.freed.0.load(Ordering::Acquire)));
        // What is taken and given back in between is in the second word alone.
        (taken.0.saturating_sub(freed.0), taken.1.saturating_sub(freed.1))
    }
}

fn parts(word: u64) -> (u64, u64) {
    ((word & !CLOSED) >> BYTE_BITS, word & BYTE_MASK)
}

/// Room for one event, until it is handed to [`Budget::give_back`].
#[derive(Debug)]
#[must_use = "the room is lost unless it is given back"]
pub(crate) struct Permit {
    bytes: u64,
}

/// A value that shares its cache line, and the one that is fetched with it, with no other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct OwnLine<T>(pub(crate) T);

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
        held.drain(..).for_each(|permit| budget.give_back(permit));
        for (priority, most) in [(Priority::BestEffort, 500), (Priority::Standard, 900), (Priority::Critical, 1_000)] {
            assert!(budget.take(most + 1, priority).is_err(), "{priority:?}");
            budget.give_back(budget.take(most, priority).unwrap());
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
        budget.give_back(second);
        assert_eq!((budget.events(), budget.bytes()), (2, 60));
        budget.give_back(first);
        budget.give_back(third);
        assert_eq!((budget.events(), budget.bytes()), (0, 0));
    }

    #[test]
    fn nothing_is_taken_after_close_but_what_was_taken_stays_counted() {
        let budget = all(3, 100);
        let held = budget.take(10, Priority::Standard).unwrap();
        budget.close();
        assert_eq!(budget.take(1, Priority::Standard).unwrap_err(), NoRoom::Closed);
        assert_eq!(budget.events(), 1);
        budget.give_back(held);
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
                        if let Ok(permit) = permit {
                            budget.give_back(permit);
                        }
                    }
                });
            }
        });
        assert_eq!((budget.events(), budget.bytes()), (0, 0));
    }
}
