//! The state machine itself; see the module's documentation for what it promises.

mod revoke;
mod seal;

use std::collections::BTreeMap;

use self::revoke::Revoking;
use super::batch::{Batch, Step};
use super::governor::{Decision, Governor, Overload};
use super::ledger::PartitionLedger;
use super::{Action, BatchId, Epoch, Failure, Input, Limits, Now, SealReason, StopReason, Verdict};

/// All decisions of one worker process.
#[derive(Debug)]
pub struct Worker {
    limits: Limits,
    partitions: BTreeMap<i32, PartitionLedger>,
    last_epoch: u64,
    next_batch: u64,
    governor: Governor,
    filling: Option<Batch>,
    sealed: BTreeMap<BatchId, Batch>,
    /// Wire bytes in `filling` and `sealed`.
    held_bytes: usize,
    revoking: Vec<Revoking>,
    commit: CommitState,
    last_seal: Option<Now>,
    full_since: Option<Now>,
    paused: bool,
    /// An operator wants nothing to be read.
    suspended: bool,
    phase: Phase,
    /// Only a test leaves the check of epochs out, to show that it would be missed.
    #[cfg(test)]
    pub(super) ignore_epochs: bool,
}

/// At most one commit is under way, so completions need no matching and offsets never go backwards.
#[derive(Debug, Default)]
struct CommitState {
    running: Option<Vec<(i32, Epoch, i64)>>,
    attempt: u32,
    not_before: Now,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Draining { deadline: Now },
    Stopped,
}

impl Worker {
    /// A worker without partitions.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            governor: Governor::new(limits.targets.clone()),
            limits,
            partitions: BTreeMap::new(),
            last_epoch: 0,
            next_batch: 1,
            filling: None,
            sealed: BTreeMap::new(),
            held_bytes: 0,
            revoking: Vec::new(),
            commit: CommitState::default(),
            last_seal: None,
            full_since: None,
            paused: false,
            suspended: false,
            phase: Phase::Running,
            #[cfg(test)]
            ignore_epochs: false,
        }
    }

    /// Whether a record of this partition and offset is to be decoded. Ask before decoding; everything else is left over from an older
    /// assignment or a seek, or comes too late.
    #[must_use]
    pub fn admit(&self, partition: i32, offset: i64) -> bool {
        self.phase == Phase::Running
            && !self.is_revoking(partition)
            && self.partitions.get(&partition).is_some_and(|ledger| ledger.is_new(offset))
    }

    /// Whether there is room for more records. While there is not, the caller does not poll for them.
    #[must_use]
    pub fn wants_records(&self) -> bool {
        self.phase == Phase::Running && self.held_bytes < self.limits.in_flight_bytes
    }

    /// Whether [`Action::Pause`] holds: fetching is off, so that polling serves the group without bringing records.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Wire bytes held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether records wait in an open batch.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        self.filling.is_some()
    }

    /// Partitions that this worker owns now.
    pub fn assigned(&self) -> impl Iterator<Item = i32> + '_ {
        self.partitions.keys().copied()
    }

    /// The assignment under which this worker owns `partition` now.
    #[must_use]
    pub fn epoch(&self, partition: i32) -> Option<Epoch> {
        self.partitions.get(&partition).map(PartitionLedger::epoch)
    }

    /// Whether the group waits for partitions to be given back.
    #[must_use]
    pub fn is_revoking_any(&self) -> bool {
        !self.revoking.is_empty()
    }

    /// When `Input::Tick` is needed next, if nothing else happens before.
    #[must_use]
    pub fn next_wake(&self) -> Option<Now> {
        let age = self.filling.as_ref().filter(|_| self.has_free_insert()).map(|batch| batch.opened + self.age());
        let retries = self.sealed.values().flat_map(Batch::steps).filter_map(|step| match step {
            Step::Waiting { due, .. } => Some(due),
            _ => None,
        });
        let pause = self.full_since.filter(|_| !self.paused).map(|since| since + self.limits.pause_after);
        let commit = (self.commit.running.is_none() && self.commit.attempt > 0).then_some(self.commit.not_before);
        let drain = match self.phase {
            Phase::Draining { deadline } => Some(deadline),
            _ => None,
        };
        let revokes = self.revoking.iter().map(|revoking| revoking.deadline);
        retries.chain(revokes).chain([age, pause, commit, drain].into_iter().flatten()).min()
    }

    /// Takes in what happened at `now` and appends what is to be done. `now` never goes backwards.
    pub fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        if self.phase == Phase::Stopped {
            return;
        }
        match input {
            Input::Record { partition, offset, bytes, verdict } => {
                // The hot path: most records change nothing but the batch being filled.
                if !self.record(partition, offset, bytes, verdict, now) {
                    return;
                }
            }
            Input::Assigned(partitions) => self.assigned_now(partitions, actions),
            Input::Landed(partitions) => {
                for (partition, offset) in partitions {
                    self.partitions.entry(partition).and_modify(|ledger| ledger.landed(offset));
                }
            }
            Input::Revoked(partitions) => {
                self.revoking.push(Revoking { partitions, deadline: now + self.limits.revoke_deadline });
            }
            Input::Lost(partitions) => self.release(partitions, actions),
            Input::Refused(batch, rows) => {
                if let Some(batch) = self.sealed.get_mut(&batch) {
                    rows.into_iter().for_each(|(partition, rows)| batch.refuse(partition, rows));
                }
            }
            Input::Inserted(batch) => {
                if let Some(batch) = self.sealed.get_mut(&batch) {
                    batch.insert = Step::Done;
                    let took = now.saturating_sub(batch.insert_started);
                    tuned(self.governor.inserted(took), actions);
                }
            }
            Input::InsertFailed(batch, failure) => {
                self.step_failed(batch, failure, now, actions, |batch| &mut batch.insert)
            }
            Input::DeadLettersDelivered(batch) => {
                if let Some(batch) = self.sealed.get_mut(&batch) {
                    batch.delivered();
                }
            }
            Input::DeadLettersFailed(batch, failure) => {
                self.step_failed(batch, failure, now, actions, |batch| &mut batch.delivery);
            }
            Input::LedgerWritten(batch) => self.stored(batch, actions),
            Input::LedgerFailed(batch, failure) => {
                self.step_failed(batch, failure, now, actions, |batch| &mut batch.ledger)
            }
            Input::Committed => self.committed(),
            Input::CommitFailed => {
                let delay = self.limits.backoff.delay(u64::MAX, self.commit.attempt);
                self.commit = CommitState {
                    running: None,
                    attempt: self.commit.attempt.saturating_add(1),
                    not_before: now + delay,
                };
            }
            Input::Logs(logs) => {
                for (partition, low, high) in logs {
                    self.partitions.entry(partition).and_modify(|ledger| ledger.log(low, high));
                }
                tuned(self.governor.backlog(self.unread()), actions);
            }
            Input::Parts(parts) => tuned(self.governor.parts(parts), actions),
            Input::CaughtUp => {
                if let Some(batch) = &mut self.filling {
                    batch.is_behind = false;
                }
                if self.is_worth_an_insert(now) {
                    self.seal(SealReason::CaughtUp, now, actions);
                }
            }
            Input::Tick => {}
            Input::Suspended(suspended) => self.suspended = suspended,
            Input::Drain => {
                if self.phase == Phase::Running {
                    self.phase = Phase::Draining { deadline: now + self.limits.drain_deadline };
                }
            }
        }
        self.advance(now, actions);
    }

    /// Adds a record; answers whether the batch is now full.
    fn record(&mut self, partition: i32, offset: i64, bytes: usize, verdict: Verdict, now: Now) -> bool {
        if !self.admit(partition, offset) {
            debug_assert!(false, "record {partition}/{offset} was not admitted");
            return false;
        }
        let Some(ledger) = self.partitions.get_mut(&partition) else {
            return false;
        };
        let batch = self.filling.get_or_insert_with(|| {
            let id = BatchId(self.next_batch);
            self.next_batch += 1;
            Batch::new(id, now)
        });
        ledger.take(offset, batch.id);
        batch.add(partition, ledger.epoch(), offset, bytes, verdict == Verdict::Row);
        self.held_bytes += bytes;
        batch.len() >= self.governor.rows()
            || batch.bytes >= self.limits.batch_max_bytes
            || self.held_bytes >= self.limits.in_flight_bytes
    }

    fn assigned_now(&mut self, partitions: Vec<(i32, Option<i64>)>, actions: &mut Vec<Action>) {
        let mut fresh = Vec::with_capacity(partitions.len());
        for (partition, start) in partitions {
            self.last_epoch += 1;
            self.partitions.insert(partition, PartitionLedger::new(Epoch(self.last_epoch), start));
            fresh.push(partition);
        }
        if self.paused && !fresh.is_empty() {
            actions.push(Action::Pause(fresh));
        }
    }

    fn step_failed(
        &mut self,
        id: BatchId,
        failure: Failure,
        now: Now,
        actions: &mut Vec<Action>,
        step: impl Fn(&mut Batch) -> &mut Step,
    ) {
        let Some(batch) = self.sealed.get_mut(&id) else {
            return;
        };
        if let Failure::Overload(overload) = failure {
            // What one insert held is what did not fit.
            let rows = batch.rows / usize::try_from(batch.pieces).unwrap_or(1).max(1);
            if overload == Overload::Memory {
                batch.divide();
            }
            tuned(self.governor.overloaded(overload, rows), actions);
        }
        match failure {
            Failure::Retry | Failure::Overload(_) => {
                let step = step(batch);
                let attempt = step.attempt();
                let due = now + self.limits.backoff.delay(id.0, attempt);
                *step = Step::Waiting { attempt: attempt.saturating_add(1), due };
            }
            Failure::Halt(reason) => {
                self.start_commit(actions);
                self.stop(StopReason::Halted(reason), actions);
            }
        }
    }

    /// The batch's rows, dead letters and ledger rows are all acknowledged: its offsets may be committed.
    fn stored(&mut self, id: BatchId, actions: &mut Vec<Action>) {
        let Some(batch) = self.sealed.remove(&id) else {
            return;
        };
        for span in &batch.spans {
            if let Some(ledger) = self.ledger_of(span.partition, span.epoch) {
                ledger.complete(id);
            }
        }
        self.forget(&batch, actions);
    }

    /// The ledger of a partition, if it is that of the assignment `epoch`.
    fn ledger_of(&mut self, partition: i32, epoch: Epoch) -> Option<&mut PartitionLedger> {
        #[cfg(test)]
        if self.ignore_epochs {
            return self.partitions.get_mut(&partition);
        }
        self.partitions.get_mut(&partition).filter(|ledger| ledger.epoch() == epoch)
    }

    fn forget(&mut self, batch: &Batch, actions: &mut Vec<Action>) {
        self.held_bytes -= batch.bytes;
        actions.push(Action::Forget(batch.id));
    }

    fn committed(&mut self) {
        for (partition, epoch, offset) in self.commit.running.take().unwrap_or_default() {
            if let Some(ledger) = self.ledger_of(partition, epoch) {
                ledger.committed(offset);
            }
        }
        self.commit = CommitState::default();
    }

    /// Everything that follows from the state and the time, in an order in which one pass is enough.
    fn advance(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.phase == Phase::Stopped {
            return;
        }
        if let Some(reason) = self.seal_reason(now) {
            self.seal(reason, now, actions);
        }
        self.drop_stale(actions);
        self.start_steps(now, actions);
        if self.commit.running.is_none() && self.commit.not_before <= now {
            self.start_commit(actions);
        }
        self.release_settled(now, actions);
        self.pause_or_resume(now, actions);
        self.stop_when_drained(now, actions);
    }

    /// Lets go of sealed batches of which nothing can be committed any more and that nobody works on: whoever owns their partitions
    /// now reads them again.
    fn drop_stale(&mut self, actions: &mut Vec<Action>) {
        let is_current = |partition: i32, epoch: Epoch| {
            self.partitions.get(&partition).is_some_and(|ledger| ledger.epoch() == epoch)
        };
        let stale: Vec<BatchId> = self
            .sealed
            .values()
            .filter(|batch| {
                !batch.is_running() && !batch.spans.iter().any(|span| is_current(span.partition, span.epoch))
            })
            .map(|batch| batch.id)
            .collect();
        for id in stale {
            if let Some(batch) = self.sealed.remove(&id) {
                self.forget(&batch, actions);
            }
        }
    }

    fn running_inserts(&self) -> usize {
        self.sealed.values().filter(|batch| matches!(batch.insert, Step::Running { .. })).count()
    }

    /// Whether a batch sealed now could be inserted at once.
    fn has_free_insert(&self) -> bool {
        let waiting = self.sealed.values().filter(|batch| batch.insert != Step::Done).count();
        waiting < self.limits.max_inserts
    }

    fn start_steps(&mut self, now: Now, actions: &mut Vec<Action>) {
        let mut free = self.limits.max_inserts.saturating_sub(self.running_inserts());
        for (&id, batch) in &mut self.sealed {
            if let Some(attempt) = batch.insert.startable(now).filter(|_| free > 0) {
                free -= 1;
                batch.insert = Step::Running { attempt };
                batch.insert_started = now;
                let (spans, pieces) = (batch.spans.clone(), batch.pieces);
                actions.push(Action::Insert { batch: id, spans, attempt, pieces });
            }
            if let Some(attempt) = batch.delivery.startable(now) {
                batch.delivery = Step::Running { attempt };
                actions.push(Action::SendDeadLetters { batch: id, attempt });
            }
            if let Some(attempt) = batch.ledger.startable(now).filter(|_| batch.is_stored()) {
                batch.ledger = Step::Running { attempt };
                actions.push(Action::WriteLedger { batch: id, spans: batch.spans.clone(), attempt });
            }
        }
    }

    fn start_commit(&mut self, actions: &mut Vec<Action>) {
        let offsets: Vec<(i32, Epoch, i64)> = self
            .partitions
            .iter()
            .filter_map(|(&partition, ledger)| ledger.to_commit().map(|offset| (partition, ledger.epoch(), offset)))
            .collect();
        if !offsets.is_empty() {
            actions.push(Action::Commit(offsets.iter().map(|&(partition, _, offset)| (partition, offset)).collect()));
            self.commit.running = Some(offsets);
        }
    }

    fn pause_or_resume(&mut self, now: Now, actions: &mut Vec<Action>) {
        let draining = self.phase != Phase::Running;
        let at_once = draining || self.suspended;
        if self.held_bytes < self.limits.in_flight_bytes && !at_once {
            self.full_since = None;
            if std::mem::take(&mut self.paused) {
                actions.push(Action::Resume(self.assigned().collect()));
            }
            return;
        }
        let since = *self.full_since.get_or_insert(now);
        if !self.paused && (at_once || since + self.limits.pause_after <= now) {
            self.paused = true;
            actions.push(Action::Pause(self.assigned().collect()));
        }
    }

    fn stop_when_drained(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Phase::Draining { deadline } = self.phase else {
            return;
        };
        let done = self.sealed.is_empty()
            && self.filling.is_none()
            && self.commit.running.is_none()
            && self.partitions.values().all(|ledger| ledger.to_commit().is_none());
        if done {
            self.stop(StopReason::Drained, actions);
        } else if deadline <= now {
            self.stop(StopReason::DrainDeadline, actions);
        }
    }

    fn stop(&mut self, reason: StopReason, actions: &mut Vec<Action>) {
        self.phase = Phase::Stopped;
        actions.push(Action::Stop(reason));
    }
}

fn tuned(decision: Option<Decision>, actions: &mut Vec<Action>) {
    actions.extend(decision.map(Action::Tuned));
}
