//! What was answered: found for good, missing for a short time, nothing else. Both are bounded, the oldest goes first.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use super::RegistryError;

type Answer<V> = Result<V, RegistryError>;

#[derive(Debug)]
pub(super) struct Cache<K, V> {
    capacity: usize,
    missing_for: Duration,
    state: Mutex<State<K, V>>,
}

#[derive(Debug)]
struct State<K, V> {
    found: Bounded<K, V>,
    missing: Bounded<K, (RegistryError, Instant)>,
    /// Requests under way; the callers hold them, so that one that all gave up leaves nothing.
    asking: HashMap<K, Weak<OnceCell<Answer<V>>>>,
}

impl<K: Clone + Eq + Hash + Debug, V: Clone> Cache<K, V> {
    pub(super) fn new(capacity: usize, missing_for: Duration) -> Self {
        let state = State { found: Bounded::new(), missing: Bounded::new(), asking: HashMap::new() };
        Self { capacity: capacity.max(1), missing_for, state: Mutex::new(state) }
    }

    /// What is kept under `key`, or what `ask` answers; of callers at the same time one asks for all.
    pub(super) async fn get(&self, key: K, ask: impl Future<Output = Answer<V>>) -> Answer<V> {
        let cell = {
            let mut state = self.lock();
            if let Some(found) = state.found.map.get(&key) {
                return Ok(found.clone());
            }
            if let Some((error, until)) = state.missing.map.get(&key)
                && Instant::now() < *until
            {
                return Err(error.clone());
            }
            match state.asking.get(&key).and_then(Weak::upgrade) {
                Some(cell) => cell,
                None => {
                    state.asking.retain(|_, cell| cell.strong_count() > 0);
                    let cell = Arc::new(OnceCell::new());
                    state.asking.insert(key.clone(), Arc::downgrade(&cell));
                    cell
                }
            }
        };
        // When the one who asks gives up, the next one takes over.
        let answer = cell.get_or_init(|| async {
            let answer = ask.await;
            self.keep(&key, &answer);
            answer
        });
        answer.await.clone()
    }

    fn keep(&self, key: &K, answer: &Answer<V>) {
        let mut state = self.lock();
        state.asking.remove(key);
        match answer {
            Ok(found) => state.found.insert(key.clone(), found.clone(), self.capacity),
            Err(error @ RegistryError::NotFound { .. }) => {
                let until = Instant::now() + self.missing_for;
                state.missing.insert(key.clone(), (error.clone(), until), self.capacity);
            }
            Err(_) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Bounded<K, V> {
    map: HashMap<K, V>,
    /// Keys of `map`, the oldest first.
    order: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    fn new() -> Self {
        Self { map: HashMap::new(), order: VecDeque::new() }
    }

    fn insert(&mut self, key: K, value: V, capacity: usize) {
        if self.map.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > capacity {
            if let Some(oldest) = self.order.pop_front() {
                self.map.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn the_oldest_goes_when_it_is_full_and_absences_push_out_no_schema() {
        let cache = Cache::new(2, Duration::from_secs(60));
        let asked = AtomicUsize::new(0);
        let asked = &asked;
        let get = |key: u32| {
            let cache = &cache;
            async move {
                cache
                    .get(key, async move {
                        asked.fetch_add(1, Ordering::Relaxed);
                        let missing = RegistryError::NotFound { what: String::new(), code: 40403 };
                        if key < 100 { Ok(key) } else { Err(missing) }
                    })
                    .await
            }
        };
        for key in [1, 2, 1, 2] {
            assert_eq!(get(key).await, Ok(key));
        }
        for key in 100..200 {
            assert!(get(key).await.is_err());
        }
        assert_eq!(asked.swap(0, Ordering::Relaxed), 102);
        for key in [1, 2, 199] {
            let _ = get(key).await;
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0, "they are still there");
        let _ = (get(3).await, get(2).await);
        assert_eq!(asked.load(Ordering::Relaxed), 1, "only 3 was asked for");
        let _ = get(1).await;
        assert_eq!(asked.load(Ordering::Relaxed), 2, "1 had to go for 3");
        let state = cache.lock();
        assert_eq!((state.found.map.len(), state.missing.map.len(), state.asking.len()), (2, 2, 0));
    }
}
