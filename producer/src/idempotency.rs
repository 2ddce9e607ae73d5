//! The id of an event that has an idempotency key: the same key gives the same id, in every process and in every language with UUIDv5.
//! And the window in which a producer refuses the second event of a key.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Longest idempotency key, in bytes.
const KEY_BYTES: usize = 255;

/// Whether a key is as it must be: 1 to 255 bytes without NUL.
pub(crate) fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= KEY_BYTES && !key.contains('\0')
}

/// The ids that were made of keys not long ago. Bounded: when it is full the oldest is forgotten; then a second event is a second record of the same id,
/// which the table makes one row.
#[derive(Debug)]
pub(crate) struct Window {
    seen: Mutex<Seen>,
    length: Duration,
    most: usize,
}

#[derive(Debug, Default)]
struct Seen {
    /// When each was taken.
    ids: HashMap<Uuid, Instant>,
    /// The same in order; one that was released is in here only.
    order: VecDeque<(Uuid, Instant)>,
}

impl Window {
    pub(crate) fn new(length: Duration, most: usize) -> Self {
        Self { seen: Mutex::new(Seen::default()), length, most }
    }

    /// Takes the id; `false` when it was taken within the window.
    pub(crate) fn take(&self, id: Uuid, now: Instant) -> bool {
        if self.length.is_zero() {
            return true;
        }
        let mut seen = self.lock();
        while let Some((oldest, at)) = seen.order.front().copied() {
            let is_old = now.saturating_duration_since(at) >= self.length;
            if !is_old && seen.order.len() < self.most {
                break;
            }
            seen.order.pop_front();
            seen.forget(oldest, at);
        }
        if seen.ids.contains_key(&id) {
            return false;
        }
        seen.ids.insert(id, now);
        seen.order.push_back((id, now));
        true
    }

    /// The event was not taken after all.
    pub(crate) fn release(&self, id: Uuid) {
        self.lock().ids.remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Each change leaves it whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Unless it was released and taken again since.
    fn forget(&mut self, id: Uuid, at: Instant) {
        if self.ids.get(&id) == Some(&at) {
            self.ids.remove(&id);
        }
    }
}

/// `6ba7b812-…`, RFC 9562's namespace for object identifiers, would be anybody's; this one is auditstream's own and never changes.
const NAMESPACE: Uuid = Uuid::from_u128(0x8f0e_63c1_52a4_4f6b_9d3e_a1d5_7e02_c94b);

/// UUIDv5 of the tenant and the key, with a zero byte between them (a tenant's id has none). Two tenants may use the same key.
#[must_use]
pub fn idempotent_event_id(tenant_id: &str, key: &str) -> Uuid {
    let mut name = Vec::with_capacity(tenant_id.len() + 1 + key.len());
    name.extend_from_slice(tenant_id.as_bytes());
    name.push(0);
    name.extend_from_slice(key.as_bytes());
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_once_a_window() {
        let window = Window::new(Duration::from_secs(10), 3);
        let (start, id) = (Instant::now(), Uuid::from_u128);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(window.take(id(1), at(0)));
        assert!(!window.take(id(1), at(9)));
        assert!(window.take(id(1), at(10)), "the window is over");
        // Released: taken again, and its first time does not count any more.
        assert!(window.take(id(2), at(11)));
        window.release(id(2));
        assert!(window.take(id(2), at(19)));
        assert!(!window.take(id(2), at(22)));
        // Full: the oldest goes.
        for number in 3..6 {
            assert!(window.take(id(number), at(23)));
        }
        assert!(window.take(id(2), at(23)) && !window.take(id(5), at(23)));
        assert!(window.lock().order.len() <= 3 && window.lock().ids.len() <= 3);
        assert!(Window::new(Duration::ZERO, 3).take(id(1), at(0)) && !is_key("") && !is_key("a\0") && is_key("a"));
    }

    #[test]
    fn one_key_one_id_and_tenants_apart() {
        let id = idempotent_event_id("acme", "payment-17");
        assert_eq!(id.get_version_num(), 5);
        // Written down: another value would let events of an older version in twice.
        assert_eq!(id.to_string(), "fbd2392c-8a4f-5327-b385-59443df1a42e");
        assert_eq!(id, idempotent_event_id("acme", "payment-17"));
        assert_ne!(id, idempotent_event_id("globex", "payment-17"));
        assert_ne!(idempotent_event_id("a", "bc"), idempotent_event_id("ab", "c"));
    }
}
