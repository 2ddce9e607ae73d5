//! Keeps an outage from filling the log: the first line of its kind at once, then one in ten seconds with how many were left out.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Lines of one kind are at least this far apart.
const INTERVAL: Duration = Duration::from_secs(10);

/// What was said last of each kind. Kinds are few and fixed.
#[derive(Debug)]
pub(crate) struct Quiet<K> {
    said: HashMap<K, (Instant, u64)>,
}

impl<K> Default for Quiet<K> {
    fn default() -> Self {
        Self { said: HashMap::new() }
    }
}

impl<K: Eq + Hash> Quiet<K> {
    /// Whether to say a line of this kind `now`, and how many of them were left out since the last one.
    pub(crate) fn allows(&mut self, kind: K, now: Instant) -> Option<u64> {
        match self.said.get_mut(&kind) {
            Some((last, left_out)) if now.duration_since(*last) < INTERVAL => {
                *left_out += 1;
                None
            }
            Some((last, left_out)) => {
                *last = now;
                Some(std::mem::take(left_out))
            }
            None => {
                self.said.insert(kind, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_at_once_then_one_an_interval_with_the_count() {
        let mut quiet = Quiet::default();
        let start = Instant::now();
        assert_eq!(quiet.allows("insert", start), Some(0));
        for second in 1..10 {
            assert_eq!(quiet.allows("insert", start + Duration::from_secs(second)), None);
        }
        assert_eq!(quiet.allows("ledger", start + Duration::from_secs(3)), Some(0), "another kind is not held back");
        assert_eq!(quiet.allows("insert", start + Duration::from_secs(10)), Some(9));
        assert_eq!(quiet.allows("insert", start + Duration::from_secs(11)), None);
    }
}
