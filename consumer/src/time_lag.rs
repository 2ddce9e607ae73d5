//! How long the oldest record of each partition that is not committed has been there: what lag means in seconds.
//!
//! Only what this worker has read is known; what it has not read is younger, as far as a partition's timestamps grow. A record costs a comparison and a
//! store: of a run of records of one partition only the last offset is kept, and of a batch one entry a partition.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::metrics::Metrics;

/// Records of one batch and partition.
#[derive(Debug)]
struct Waiting {
    batch: u64,
    /// Timestamp of the first, milliseconds since 1970.
    first_ms: i64,
    last_offset: i64,
}

#[derive(Debug)]
struct Partition {
    id: i32,
    /// Not committed, oldest first.
    waiting: VecDeque<Waiting>,
}

/// Keeps [`Metrics::oldest_uncommitted`].
#[derive(Debug)]
pub(crate) struct TimeLag {
    metrics: Arc<Metrics>,
    partitions: Vec<Partition>,
    /// Index of the last record's partition, whose last entry is of this batch; beyond the end when there is none.
    current: usize,
    batch: u64,
}

const NONE: usize = usize::MAX;

impl TimeLag {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, partitions: Vec::new(), current: NONE, batch: 0 }
    }

    /// A record was taken into the batch being filled.
    #[inline]
    pub(crate) fn read(&mut self, partition: i32, offset: i64, timestamp_ms: i64) {
        if let Some(current) = self.partitions.get_mut(self.current).filter(|current| current.id == partition)
            && let Some(waiting) = current.waiting.back_mut()
        {
            waiting.last_offset = offset;
            return;
        }
        self.read_other(partition, offset, timestamp_ms);
    }

    fn read_other(&mut self, partition: i32, offset: i64, timestamp_ms: i64) {
        let Some(index) = self.partitions.iter().position(|known| known.id == partition) else { return };
        let waiting = &mut self.partitions[index].waiting;
        match waiting.back_mut() {
            Some(last) if last.batch == self.batch => last.last_offset = offset,
            _ => waiting.push_back(Waiting { batch: self.batch, first_ms: timestamp_ms, last_offset: offset }),
        }
        self.current = index;
        self.publish(index);
    }

    /// Further records are of another batch.
    pub(crate) fn sealed(&mut self) {
        self.batch += 1;
        self.current = NONE;
    }

    /// Everything below `offset` is committed.
    pub(crate) fn committed(&mut self, partition: i32, offset: i64) {
        let Some(index) = self.partitions.iter().position(|known| known.id == partition) else { return };
        let waiting = &mut self.partitions[index].waiting;
        while waiting.front().is_some_and(|front| front.last_offset < offset) {
            waiting.pop_front();
        }
        // The entry may be gone that the next record would extend.
        self.current = NONE;
        self.publish(index);
    }

    /// The partition is this worker's, and nothing of it is read.
    pub(crate) fn assigned(&mut self, partition: i32) {
        self.released(partition);
        self.partitions.push(Partition { id: partition, waiting: VecDeque::new() });
        self.publish(self.partitions.len() - 1);
    }

    /// The partition is somebody else's.
    pub(crate) fn released(&mut self, partition: i32) {
        self.partitions.retain(|known| known.id != partition);
        self.current = NONE;
        self.metrics.oldest_uncommitted.remove(partition);
    }

    fn publish(&self, index: usize) {
        if let Some(partition) = self.partitions.get(index) {
            self.metrics.oldest_uncommitted.set(partition.id, partition.waiting.front().map(|front| front.first_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oldest(lag: &TimeLag, partition: i32) -> Option<Option<i64>> {
        lag.metrics.oldest_uncommitted.get(partition)
    }

    #[test]
    fn the_oldest_record_that_is_not_committed_counts() {
        let mut lag = TimeLag::new(Arc::new(Metrics::new("w", Vec::new())));
        assert_eq!(oldest(&lag, 3), None, "not ours");
        [3, 5].into_iter().for_each(|partition| lag.assigned(partition));
        assert_eq!(oldest(&lag, 3), Some(None), "caught up");
        for (partition, offset) in [(3, 10), (3, 11), (5, 70), (3, 12)] {
            lag.read(partition, offset, 1_000 + offset);
        }
        lag.sealed();
        lag.read(3, 13, 2_000);
        lag.read(3, 14, 2_001);
        assert_eq!((oldest(&lag, 3), oldest(&lag, 5)), (Some(Some(1_010)), Some(Some(1_070))));
        lag.committed(3, 12);
        assert_eq!(oldest(&lag, 3), Some(Some(1_010)), "12 is not committed, and of its batch the first time is known");
        lag.committed(3, 13);
        assert_eq!(oldest(&lag, 3), Some(Some(2_000)));
        lag.committed(3, 15);
        lag.committed(5, 71);
        assert_eq!((oldest(&lag, 3), oldest(&lag, 5)), (Some(None), Some(None)));
        // The batch goes on after a commit of all that it holds so far.
        lag.read(3, 15, 3_000);
        lag.read(3, 16, 3_001);
        assert_eq!(oldest(&lag, 3), Some(Some(3_000)));
    }

    #[test]
    fn another_assignment_begins_anew() {
        let mut lag = TimeLag::new(Arc::new(Metrics::new("w", Vec::new())));
        lag.assigned(1);
        lag.read(1, 5, 500);
        lag.released(1);
        lag.read(1, 6, 600);
        assert_eq!(oldest(&lag, 1), None);
        lag.assigned(1);
        lag.read(1, 5, 700);
        assert_eq!(oldest(&lag, 1), Some(Some(700)));
    }
}
