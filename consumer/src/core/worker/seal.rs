//! When a batch is closed.

use std::time::Duration;

use super::{Phase, Worker, tuned};
use crate::core::ledger::PartitionLedger;
use crate::core::{Action, Now, SealReason};

impl Worker {
    /// Records that are known to wait in the topic, of all partitions.
    pub(super) fn unread(&self) -> u64 {
        self.partitions.values().map(PartitionLedger::unread).sum()
    }

    /// The age that closes the batch being filled.
    pub(super) fn age(&self) -> Duration {
        self.governor.age(self.will_be_full())
    }

    /// Whether what waits in the topic fills the open batch: nothing to read just now only means that fetching takes a moment.
    pub(super) fn will_be_full(&self) -> bool {
        let Some(batch) = &self.filling else {
            return false;
        };
        let held = batch.len() as u64;
        let unread = self.unread();
        let bytes = unread.saturating_mul(batch.bytes as u64 / held.max(1));
        held + unread >= self.governor.rows() as u64 || batch.bytes as u64 + bytes >= self.limits.batch_max_bytes as u64
    }

    pub(super) fn seal_reason(&self, now: Now) -> Option<SealReason> {
        let batch = self.filling.as_ref()?;
        // What just began when there was no more room goes on growing as soon as there is again.
        let is_stuck = self.held_bytes >= self.limits.in_flight_bytes && batch.bytes >= self.limits.batch_max_bytes / 4;
        if batch.len() >= self.governor.rows() {
            Some(SealReason::Rows)
        } else if batch.bytes >= self.limits.batch_max_bytes || is_stuck {
            Some(SealReason::Bytes)
        } else if matches!(self.phase, Phase::Draining { .. }) {
            Some(SealReason::Drain)
        } else if batch.spans.iter().any(|span| self.is_revoking(span.partition)) {
            Some(SealReason::Revoke)
        } else if batch.opened + self.age() <= now && self.has_free_insert() {
            Some(SealReason::Age)
        } else {
            None
        }
    }

    /// Whether the batch should not wait for more when there is no more: a small one only as often as age alone would have it.
    pub(super) fn is_worth_an_insert(&self, now: Now) -> bool {
        let is_large = self.filling.as_ref().is_some_and(|batch| batch.rows >= self.limits.targets.floor_rows);
        let is_rare = self.last_seal.is_none_or(|last| last + self.age() <= now);
        (is_large || is_rare) && !self.will_be_full() && self.has_free_insert()
    }

    pub(super) fn seal(&mut self, reason: SealReason, now: Now, actions: &mut Vec<Action>) {
        if let Some(mut batch) = self.filling.take() {
            self.last_seal = Some(now);
            batch.skip_what_is_empty();
            let is_behind = batch.is_behind || self.unread() >= self.governor.rows() as u64;
            tuned(self.governor.sealed(reason, batch.len(), is_behind), actions);
            actions.push(Action::Seal { batch: batch.id, reason });
            self.sealed.insert(batch.id, batch);
        }
    }
}
