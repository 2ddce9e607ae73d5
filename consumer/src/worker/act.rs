//! Carries out what the core decides.

use std::time::Instant;

use auditstream_store::faults::Guard;

use crate::WorkerError;
use crate::core::{Action, BatchId, Decision, SealReason, Span};
use crate::metrics::{PartitionLabel, ReasonLabel};
use crate::sink::Rows;

use super::Loop;

impl Loop {
    pub(super) fn act(&mut self) -> Result<(), WorkerError> {
        // Carrying an action out can make the core answer at once with more.
        while !self.state.actions.is_empty() {
            for action in std::mem::take(&mut self.state.actions) {
                self.carry_out(action)?;
            }
        }
        Ok(())
    }

    pub(super) fn carry_out(&mut self, action: Action) -> Result<(), WorkerError> {
        match action {
            Action::Seal { batch, reason } => self.seal(batch, reason)?,
            Action::Insert { batch, spans, attempt: _, pieces } => {
                let Some(rows) = self.state.held.get_mut(&batch).and_then(|held| held.rows.take()) else {
                    return Err(WorkerError::Halted(format!(
                        "the rows of batch {} are gone before they were stored",
                        batch.0
                    )));
                };
                if Guard::CommitAfterInsert.is_off() {
                    self.commit_first(&spans);
                }
                let task = self.sink.clone().insert(batch, rows, spans, pieces);
                self.spawn(task);
            }
            Action::SendDeadLetters { batch, attempt } => {
                let letters =
                    self.state.held.get_mut(&batch).map(|held| std::mem::take(&mut held.letters)).unwrap_or_default();
                let task = self.sink.clone().deliver(batch, letters, attempt);
                self.spawn(task);
            }
            Action::WriteLedger { batch, spans, attempt: _ } => {
                let held = self.state.held.get(&batch);
                let (letters, hash) = held.map(|held| (held.delivered.clone(), held.hash)).unwrap_or_default();
                let spans = spans.into_iter().map(|span| (self.state.topics.get(&span.epoch).cloned(), span));
                let spans = spans.map(|(topic, span)| (span, topic)).collect();
                let task = self.sink.clone().write_ledger(batch, spans, letters, hash);
                self.spawn(task);
            }
            Action::Forget(batch) => {
                self.state.held.remove(&batch);
            }
            Action::Commit(offsets) => match self.reader.committer(&offsets) {
                Ok(committer) => {
                    let task = self.sink.clone().commit(committer);
                    self.spawn(task);
                }
                Err(error) => self.commit_failed(&error),
            },
            Action::Release(partitions) => {
                self.fetched.forget(&partitions);
                self.reader.release(&partitions).map_err(WorkerError::Kafka)?;
                for &partition in &partitions {
                    self.metrics.lag.remove(&PartitionLabel { partition });
                }
                self.assignment_changed();
            }
            Action::Pause(partitions) => {
                tracing::info!(held_bytes = self.core.held_bytes(), "fetching is off");
                self.metrics.paused.set(1);
                self.reader.pause(&partitions).map_err(WorkerError::Kafka)?;
            }
            Action::Resume(partitions) => {
                tracing::info!("fetching is on again");
                self.metrics.paused.set(0);
                self.reader.resume(&partitions).map_err(WorkerError::Kafka)?;
            }
            Action::Tuned(decision) => self.tuned(decision),
            Action::Stop(reason) => self.state.stop = Some(reason),
        }
        Ok(())
    }

    fn tuned(&mut self, decision: Decision) {
        let Decision { rows, age, cause } = decision;
        let reason = cause.as_str();
        self.metrics.batch_target_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
        self.metrics.batch_target_age.set(age.as_secs_f64());
        self.metrics.batch_decisions.get_or_create(&ReasonLabel { reason }).inc();
        if let Some(left_out) = self.state.quiet.allows(("tuned", reason), Instant::now()) {
            let age_ms = age.as_secs_f64() * 1000.0;
            tracing::info!(rows, age_ms, reason, left_out, "batches are sized otherwise");
        }
    }

    /// What must never be done, so that a test can show that it would notice.
    fn commit_first(&self, spans: &[Span]) {
        let offsets: Vec<(i32, i64)> = spans.iter().map(|span| (span.partition, span.last + 1)).collect();
        // A test that wants the wrong thing may fail to get it.
        let _ = self.reader.committer(&offsets).map(|commit| commit());
    }

    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.state.running_tasks += 1;
        self.runtime.spawn(task);
    }

    pub(super) fn seal(&mut self, batch: BatchId, reason: SealReason) -> Result<(), WorkerError> {
        let decoded = self
            .decoder
            .finish()
            .map_err(|fault| WorkerError::Halted(format!("a batch could not be decoded: {fault}")))?;
        let rows: usize = decoded.iter().map(|decoded| decoded.positions.len()).sum();
        let mut held = std::mem::take(&mut self.state.filling);
        held.row_count = rows as u64;
        held.rows = (rows > 0).then_some(Rows::Decoded(decoded));
        self.metrics.batches.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
        self.metrics.batch_rows.observe(rows as f64);
        self.state.held.insert(batch, held);
        Ok(())
    }
}
