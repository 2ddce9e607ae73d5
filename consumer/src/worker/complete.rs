//! Tasks that have ended: what they give back, and what the core is told.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::error::KafkaError;

use super::Loop;
use crate::core::{BatchId, Failure, Input};
use crate::dead_letters::DeadLetter;
use crate::metrics::{DeadLetterLabel, FailureLabel};
use crate::sink::{Completion, Rows, StepError};

impl Loop {
    pub(super) fn complete(&mut self, completion: Completion) {
        if !matches!(completion, Completion::Shutdown | Completion::SchemaLookedUp { .. }) {
            self.state.running_tasks = self.state.running_tasks.saturating_sub(1);
        }
        match completion {
            Completion::Inserted { batch, body, took, result } => {
                self.metrics.insert_seconds.observe(took.as_secs_f64());
                if let (Some(held), Some(body)) = (self.state.held.get_mut(&batch), body) {
                    held.hash = body.hash;
                    // An acknowledged body is not needed again.
                    held.rows = result.is_err().then_some(Rows::Body(body));
                }
                match result {
                    Ok(refused) => {
                        self.refused(batch, refused);
                        self.inserted(batch);
                        self.input(Input::Inserted(batch));
                    }
                    Err(error) => {
                        let failure = self.step_failed("insert", batch, error);
                        self.input(Input::InsertFailed(batch, failure));
                    }
                }
            }
            Completion::Delivered { batch, delivered, failed, result } => {
                for (letter, at) in delivered {
                    self.metrics
                        .dead_letters
                        .get_or_create(&DeadLetterLabel { reason: letter.reason.code.clone() })
                        .inc();
                    self.state.summary.dead_letters += 1;
                    let row = self.sink.dead_letter_row(letter, at);
                    self.state.held.entry(batch).or_default().delivered.push(row);
                }
                self.state.held.entry(batch).or_default().letters.extend(failed);
                match result {
                    Ok(()) => self.input(Input::DeadLettersDelivered(batch)),
                    Err(error) => {
                        let failure = self.step_failed("dead_letters", batch, error);
                        self.input(Input::DeadLettersFailed(batch, failure));
                    }
                }
            }
            Completion::LedgerWritten { batch, result } => match result {
                Ok(()) => {
                    self.state.summary.batches += 1;
                    self.input(Input::LedgerWritten(batch));
                }
                Err(error) => {
                    let failure = self.step_failed("ledger", batch, error);
                    self.input(Input::LedgerFailed(batch, failure));
                }
            },
            Completion::Committed(Ok(())) => {
                self.metrics.commits.inc();
                self.input(Input::Committed);
            }
            Completion::Committed(Err(error)) => self.commit_failed(&error),
            Completion::SchemaLookedUp { id, outcome } => self.schema_looked_up(id, outcome),
            Completion::Shutdown => {
                tracing::info!("stopping: finishing what was read");
                self.health.stopping();
                self.input(Input::Drain);
            }
        }
    }

    /// Rows that ClickHouse refuses join the batch's dead letters.
    pub(super) fn refused(&mut self, batch: BatchId, letters: Vec<DeadLetter>) {
        let Some(held) = self.state.held.get_mut(&batch).filter(|_| !letters.is_empty()) else {
            return;
        };
        let mut rows = BTreeMap::new();
        for letter in &letters {
            *rows.entry(letter.partition).or_default() += 1;
        }
        held.row_count = held.row_count.saturating_sub(letters.len() as u64);
        held.letters.extend(letters);
        self.input(Input::Refused(batch, rows.into_iter().collect()));
    }

    pub(super) fn inserted(&mut self, batch: BatchId) {
        let Some(held) = self.state.held.get(&batch) else {
            return;
        };
        self.state.summary.rows += held.row_count;
        self.metrics.rows.inc_by(held.row_count);
        if held.newest_ms > 0 {
            self.metrics.newest_queryable.set(held.newest_ms as f64 / 1000.0);
        }
    }

    pub(super) fn commit_failed(&mut self, error: &KafkaError) {
        self.metrics.commit_failures.inc();
        tracing::warn!(%error, "offset commit failed; it is tried again while the partitions are ours");
        self.input(Input::CommitFailed);
    }

    pub(super) fn step_failed(&mut self, step: &'static str, batch: BatchId, error: StepError) -> Failure {
        self.metrics.failures.get_or_create(&FailureLabel { step, class: error.class }).inc();
        if let Some(left_out) = self.state.quiet.allows((step, error.class), Instant::now()) {
            tracing::warn!(
                step,
                class = error.class,
                batch = batch.0,
                reason = error.message,
                left_out,
                "attempt failed"
            );
        }
        error.failure
    }
}
