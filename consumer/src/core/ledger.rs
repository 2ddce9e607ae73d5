//! What became of every offset of one partition under one assignment.
//!
//! Offsets enter in order, as parts of spans that belong to batches, and leave from the front once their batch is stored. The committable offset
//! is what this structure computes; nothing else can move it.

use std::collections::VecDeque;

use super::{BatchId, Epoch};

/// The offsets of one partition that were read and are not yet known to be stored, oldest first.
#[derive(Debug)]
pub struct PartitionLedger {
    epoch: Epoch,
    /// Records below this offset are not taken (again).
    next: i64,
    spans: VecDeque<OpenSpan>,
    /// Everything below is stored; `None` until the first span is.
    committable: Option<i64>,
    committed: Option<i64>,
    /// Where the log begins and ends, as last heard.
    log: Option<(i64, i64)>,
}

#[derive(Debug)]
struct OpenSpan {
    batch: BatchId,
    last: i64,
    done: bool,
}

impl PartitionLedger {
    /// An empty ledger for an assignment that reads from `start`; `None` reads from wherever the log begins.
    #[must_use]
    pub fn new(epoch: Epoch, start: Option<i64>) -> Self {
        Self { epoch, next: start.unwrap_or(0), spans: VecDeque::new(), committable: None, committed: None, log: None }
    }

    /// The assignment this ledger belongs to.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The log begins at the offset `low` and the next record that is written to it gets the offset `high`.
    pub fn log(&mut self, low: i64, high: i64) {
        self.log = Some((low, high));
    }

    /// Records that are in the log and not taken yet, as far as was heard; gaps count as records.
    #[must_use]
    pub fn unread(&self) -> u64 {
        let unread = self.log.map_or(0, |(low, high)| high.saturating_sub(self.next.max(low)));
        u64::try_from(unread).unwrap_or(0)
    }

    /// Everything below `offset` turned out to be stored before anything was read.
    pub fn landed(&mut self, offset: i64) {
        if self.spans.is_empty() && offset > self.next {
            self.next = offset;
            self.committable = Some(offset);
        }
    }

    /// Whether `offset` is new: offsets only grow within an assignment, gaps left by compaction and transactions included.
    #[must_use]
    pub fn is_new(&self, offset: i64) -> bool {
        offset >= self.next
    }

    /// Takes an offset for which [`Self::is_new`] holds as a part of `batch`.
    pub fn take(&mut self, offset: i64, batch: BatchId) {
        debug_assert!(self.is_new(offset), "offset {offset} taken twice");
        self.next = offset.saturating_add(1);
        match self.spans.back_mut() {
            Some(span) if span.batch == batch => span.last = offset,
            _ => self.spans.push_back(OpenSpan { batch, last: offset, done: false }),
        }
    }

    /// Marks the offsets of `batch` as stored.
    pub fn complete(&mut self, batch: BatchId) {
        if let Some(span) = self.spans.iter_mut().find(|span| span.batch == batch) {
            span.done = true;
        }
        while let Some(span) = self.spans.front().filter(|span| span.done) {
            self.committable = Some(span.last.saturating_add(1));
            self.spans.pop_front();
        }
    }

    /// The offset to commit, when it is beyond what is committed: the highest below which everything is stored.
    #[must_use]
    pub fn to_commit(&self) -> Option<i64> {
        self.committable.filter(|&offset| self.committed.is_none_or(|committed| committed < offset))
    }

    /// The broker stored `offset`.
    pub fn committed(&mut self, offset: i64) {
        self.committed = self.committed.max(Some(offset));
    }

    /// Whether everything that was read is stored; the commit may still be outstanding.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.spans.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> PartitionLedger {
        PartitionLedger::new(Epoch(1), Some(10))
    }

    #[test]
    fn commits_only_past_the_longest_stored_prefix() {
        let mut ledger = ledger();
        for (offset, batch) in [(10, 1), (11, 1), (12, 2), (20, 3)] {
            ledger.take(offset, BatchId(batch));
        }
        ledger.complete(BatchId(2));
        assert_eq!(ledger.to_commit(), None);
        ledger.complete(BatchId(1));
        assert_eq!(ledger.to_commit(), Some(13));
        ledger.committed(13);
        assert_eq!(ledger.to_commit(), None);
        assert!(!ledger.is_settled());
        ledger.complete(BatchId(3));
        assert_eq!(ledger.to_commit(), Some(21));
        assert!(ledger.is_settled());
    }

    #[test]
    fn an_offset_is_taken_once() {
        let mut ledger = ledger();
        assert!(!ledger.is_new(9));
        ledger.take(10, BatchId(1));
        assert!(!ledger.is_new(10));
        assert!(ledger.is_new(14));
    }

    #[test]
    fn what_landed_before_is_committed_and_not_taken_again() {
        let mut ledger = ledger();
        ledger.landed(9);
        assert_eq!(ledger.to_commit(), None, "that is behind");
        ledger.landed(15);
        assert_eq!(ledger.to_commit(), Some(15));
        assert!(!ledger.is_new(14) && ledger.is_new(15));
        ledger.take(15, BatchId(1));
        ledger.landed(30);
        assert!(ledger.is_new(16), "too late: reading has begun");
    }

    #[test]
    fn what_is_unread_shrinks_with_each_record_and_begins_where_the_log_does() {
        let mut ledger = ledger();
        assert_eq!(ledger.unread(), 0, "nothing was heard");
        ledger.log(0, 25);
        assert_eq!(ledger.unread(), 15);
        ledger.take(19, BatchId(1));
        assert_eq!(ledger.unread(), 5);
        ledger.take(30, BatchId(1));
        assert_eq!(ledger.unread(), 0, "what was heard is old");
        let mut from_the_start = PartitionLedger::new(Epoch(1), None);
        from_the_start.log(1_000, 1_003);
        assert_eq!(from_the_start.unread(), 3);
    }

    #[test]
    fn an_unknown_batch_changes_nothing() {
        let mut ledger = ledger();
        ledger.take(10, BatchId(1));
        ledger.complete(BatchId(9));
        assert_eq!(ledger.to_commit(), None);
        assert!(!ledger.is_settled());
    }
}
