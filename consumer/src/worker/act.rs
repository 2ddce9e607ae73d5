//! Carries out what the core decides.

use std::time::Instant;

use auditstream_store::faults::Guard;

use crate::WorkerError;
use crate::core::{Action, BatchId, Decision, SealReason, Span};
use crate::metrics::{PartitionLabel, ReasonLabel, StepLabel};
use crate::sink::Rows;
use crate::telemetry::{BatchTrace, Step, Traces};

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
            Action::Insert { batch, spans, attempt, pieces } => {
                let Some(rows) = self.state.held.get_mut(&batch).and_then(|held| held.rows.take()) else {
                    return Err(WorkerError::Halted(format!(
                        "the rows of batch {} are gone before they were stored",
                        batch.0
                    )));
                };
                if Guard::CommitAfterInsert.is_off() {
                    self.commit_first(&spans);
                }
                self.begins(batch, Step::Insert, attempt);
                let task = self.sink.clone().insert(batch, rows, spans, attempt, pieces);
                self.spawn(task);
            }
            Action::SendDeadLetters { batch, attempt } => {
                let letters =
                    self.state.held.get_mut(&batch).map(|held| std::mem::take(&mut held.letters)).unwrap_or_default();
                self.begins(batch, Step::DeadLetters, attempt);
                let task = self.sink.clone().deliver(batch, letters);
                self.spawn(task);
            }
            Action::WriteLedger { batch, spans, attempt } => {
                self.begins(batch, Step::Ledger, attempt);
                let held = self.state.held.get(&batch);
                let (letters, hash) = held.map(|held| (held.delivered.clone(), held.hash)).unwrap_or_default();
                let spans = spans.into_iter().map(|span| (self.state.topics.get(&span.epoch).cloned(), span));
                let spans = spans.map(|(topic, span)| (span, topic)).collect();
                let task = self.sink.clone().write_ledger(batch, spans, letters, hash);
                self.spawn(task);
            }
            Action::Forget(batch) => {
                self.forget(batch);
            }
            Action::Commit(offsets) => match self.reader.committer(&offsets) {
                Ok(committer) => {
                    self.state.committing = offsets;
                    if let Some(traces) = &mut self.state.traces {
                        traces.commit_began();
                    }
                    let task = self.sink.clone().commit(committer);
                    self.spawn(task);
                }
                Err(error) => self.commit_failed(&error),
            },
            Action::Release(partitions) => {
                self.fetched.forget(&partitions);
                self.unknown.released(&partitions);
                // librdkafka keeps the pause of a partition that comes back: neither a wait for a schema nor a full worker may outlast the assignment.
                self.reader.resume(&partitions).map_err(WorkerError::Kafka)?;
                self.reader.release(&partitions).map_err(WorkerError::Kafka)?;
                for &partition in &partitions {
                    self.metrics.lag.remove(&PartitionLabel { partition });
                    self.state.time_lag.released(partition);
                }
                self.assignment_changed();
            }
            Action::Pause(partitions) => {
                tracing::info!(held_bytes = self.core.held_bytes(), "fetching is off");
                self.assignment_changed();
                self.reader.pause(&partitions).map_err(WorkerError::Kafka)?;
            }
            Action::Resume(partitions) => {
                tracing::info!("fetching is on again");
                self.assignment_changed();
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
        if let Some(trace) = &mut held.trace {
            trace.sealed(batch, (rows + held.letters.len()) as u64, reason.as_str());
        }
        self.state.held.insert(batch, held);
        self.state.time_lag.sealed();
        self.state.filling.trace = self.state.traces.as_mut().and_then(Traces::next_batch);
        Ok(())
    }

    /// Attempt `attempt`, from 0, of a step begins.
    fn begins(&mut self, batch: BatchId, step: Step, attempt: u32) {
        if attempt > 0 {
            self.metrics.retries.get_or_create(&StepLabel { step: step.as_str() }).inc();
        }
        if let Some(trace) = self.trace(batch) {
            trace.began(step);
        }
    }

    /// The trace of a batch that is sampled.
    pub(super) fn trace(&mut self, batch: BatchId) -> Option<&mut BatchTrace> {
        self.state.held.get_mut(&batch)?.trace.as_deref_mut()
    }

    fn forget(&mut self, batch: BatchId) {
        let Some(held) = self.state.held.remove(&batch) else { return };
        let stored = held.trace.and_then(|trace| trace.close(held.row_count, held.delivered.len() as u64));
        if let (Some(traces), Some(stored)) = (&mut self.state.traces, stored) {
            traces.batch_stored(stored);
        }
    }
}
