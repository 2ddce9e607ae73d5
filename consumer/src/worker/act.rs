//! Carries out what the core decides.

use crate::WorkerError;
use crate::core::{Action, BatchId, SealReason};
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
            Action::Insert { batch, spans, attempt: _ } => {
                let Some(rows) = self.state.held.get_mut(&batch).and_then(|held| held.rows.take()) else {
                    return Err(WorkerError::Halted(format!(
                        "the rows of batch {} are gone before they were stored",
                        batch.0
                    )));
                };
                let task = self.sink.clone().insert(batch, rows, spans);
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
                // librdkafka keeps the pause of a partition that comes back.
                self.reader.resume(&self.unknown.released(&partitions)).map_err(WorkerError::Kafka)?;
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
            Action::Stop(reason) => self.state.stop = Some(reason),
        }
        Ok(())
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
