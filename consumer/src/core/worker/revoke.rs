//! Giving partitions back: when their work is stored and committed, or at the deadline.

use std::collections::BTreeSet;

use super::Worker;
use crate::core::{Action, Now};

#[derive(Debug)]
pub(super) struct Revoking {
    pub(super) partitions: Vec<i32>,
    pub(super) deadline: Now,
}

impl Worker {
    pub(super) fn is_revoking(&self, partition: i32) -> bool {
        self.revoking.iter().any(|revoking| revoking.partitions.contains(&partition))
    }

    pub(super) fn is_settled_and_committed(&self, partition: i32) -> bool {
        self.partitions.get(&partition).is_none_or(|ledger| ledger.is_settled() && ledger.to_commit().is_none())
    }

    pub(super) fn release_settled(&mut self, now: Now, actions: &mut Vec<Action>) {
        let mut revoking = std::mem::take(&mut self.revoking);
        revoking.retain_mut(|entry| {
            let done = entry.partitions.iter().all(|&partition| self.is_settled_and_committed(partition));
            if !done && now < entry.deadline {
                return true;
            }
            let partitions = std::mem::take(&mut entry.partitions);
            self.release(partitions, actions);
            false
        });
        self.revoking = revoking;
    }

    pub(super) fn release(&mut self, partitions: Vec<i32>, actions: &mut Vec<Action>) {
        let gone: BTreeSet<i32> = partitions.iter().copied().collect();
        self.partitions.retain(|partition, _| !gone.contains(partition));
        for entry in &mut self.revoking {
            entry.partitions.retain(|partition| !gone.contains(partition));
        }
        self.revoking.retain(|entry| !entry.partitions.is_empty());
        actions.push(Action::Release(partitions));
    }
}
