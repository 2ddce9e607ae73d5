//! The one bound of the producer: how many events, and how many bytes, are on their way.
//!
//! Events, bytes and "closed" live in one atomic word, so that taking room is one compare-and-swap on the caller's
//! thread, and so that nothing can be taken after [`Budget::close`]: whoever took room before is still counted, and the
//! background thread stays until the count is back at zero.
//!
//! Promise: the two limits are never exceeded, not even for a moment; room that was taken is given back exactly once, by
//! dropping the [`Permit`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    max_events: u64,
    max_bytes: u64,
}

impl Budget {
    /// Limits above [`MAX_EVENTS`] and [`MAX_BYTES`] are lowered to these; the configuration refuses them earlier.
    pub(crate) fn new(max_events: usize, max_bytes: usize) -> Arc<Budget> {
        Arc::new(Budget {
            word: AtomicU64::new(0),
            max_events: max_events.min(MAX_EVENTS) as u64,
            max_bytes: max_bytes.min(MAX_BYTES) as u64,
        })
    }

    /// Takes room for one event of `bytes`.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Permit, NoRoom> {
        let wanted = (bytes as u64).min(BYTE_MASK);
        let taken = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let (events, held) = parts(word);
            let fits = word & CLOSED == 0 && events < self.max_events && held + wanted <= self.max_bytes;
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

    #[test]
    fn both_limits_hold_and_come_back() {
        let budget = Budget::new(3, 100);
        let first = budget.take(60).unwrap();
        assert_eq!(budget.take(41).unwrap_err(), NoRoom::Full { events: 1, bytes: 60 });
        let second = budget.take(40).unwrap();
        let third = budget.take(0).unwrap();
        assert_eq!(budget.take(0).unwrap_err(), NoRoom::Full { events: 3, bytes: 100 });
        drop(second);
        assert_eq!((budget.events(), budget.bytes()), (2, 60));
        drop((first, third));
        assert_eq!((budget.events(), budget.bytes()), (0, 0));
    }

    #[test]
    fn nothing_is_taken_after_close_but_what_was_taken_stays_counted() {
        let budget = Budget::new(3, 100);
        let held = budget.take(10).unwrap();
        budget.close();
        assert_eq!(budget.take(1).unwrap_err(), NoRoom::Closed);
        assert_eq!(budget.events(), 1);
        drop(held);
        assert_eq!((budget.events(), budget.bytes()), (0, 0));
        assert_eq!(budget.take(1).unwrap_err(), NoRoom::Closed);
    }

    #[test]
    fn limits_hold_under_contention() {
        let budget = Budget::new(50, 5_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..20_000 {
                        let permit = budget.take(100 + round % 7);
                        assert!(budget.events() <= 50 && budget.bytes() <= 5_000);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!((budget.events(), budget.bytes()), (0, 0));
    }
}
