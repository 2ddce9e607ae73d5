//! Tasks that have ended: what they give back, and what the core is told.

use std::collections::BTreeMap;
use std::time::Instant;

use auditstream_store::Pause;
use rdkafka::error::KafkaError;

use super::Loop;
use crate::core::{BatchId, Failure, Input};
use crate::dead_letters::{DeadLetter, Delivered, now_ms};
use crate::metrics::{DeadLetterLabel, FailureLabel};
use crate::sink::{Completion, Rows, StepError};
use crate::telemetry::Step;

impl Loop {
    pub(super) fn complete(&mut self, completion: Completion) {
        if !completion.is_unasked() {
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
                self.ended(batch, Step::Insert, result.as_ref().err());
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
                self.ended(batch, Step::DeadLetters, result.as_ref().err());
                self.tell_of(&delivered);
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
            Completion::LedgerWritten { batch, result } => {
                self.ended(batch, Step::Ledger, result.as_ref().err());
                match result {
                    Ok(()) => {
                        self.state.summary.batches += 1;
                        self.input(Input::LedgerWritten(batch));
                    }
                    Err(error) => {
                        let failure = self.step_failed("ledger", batch, error);
                        self.input(Input::LedgerFailed(batch, failure));
                    }
                }
            }
            Completion::Committed(Ok(())) => {
                self.metrics.commits.inc();
                for (partition, offset) in std::mem::take(&mut self.state.committing) {
                    self.state.time_lag.committed(partition, offset);
                }
                if let Some(traces) = &mut self.state.traces {
                    traces.commit_ended(None);
                }
                self.input(Input::Committed);
            }
            Completion::Committed(Err(error)) => self.commit_failed(&error),
            Completion::Parts(parts) => {
                self.metrics.table_parts.set(i64::try_from(parts).unwrap_or(i64::MAX));
                self.input(Input::Parts(parts));
            }
            Completion::Pause(pause) => self.pause_is(pause.as_ref()),
            Completion::TopicIs(id) => self.state.topic_id = Some(id),
            Completion::SchemaLookedUp { id, outcome } => self.schema_looked_up(id, outcome),
            Completion::Shutdown => {
                tracing::info!("stopping: finishing what was read");
                self.health.stopping();
                self.input(Input::Drain);
            }
        }
    }

    /// An operator has paused the group, or not. Who it was and why stand in ClickHouse, not in a log.
    fn pause_is(&mut self, pause: Option<&Pause>) {
        let is_paused = pause.is_some();
        if std::mem::replace(&mut self.state.suspended, is_paused) == is_paused {
            return;
        }
        match pause {
            Some(Pause { since_ms, .. }) => {
                tracing::warn!(since_ms, "the group is paused: nothing is read until `auditstream consumer resume`")
            }
            None => tracing::warn!("the pause has ended: reading goes on"),
        }
        self.metrics.suspended.set(i64::from(is_paused));
        self.health.is_suspended(is_paused);
        self.input(Input::Suspended(is_paused));
    }

    /// An attempt of a step has ended.
    fn ended(&mut self, batch: BatchId, step: Step, error: Option<&StepError>) {
        if let Some(trace) = self.trace(batch) {
            trace.ended(step, error.map(|error| &*error.message));
        }
    }

    /// Says that there are dead letters, where the newest is and why: once in a while, as a broken producer makes many.
    fn tell_of(&mut self, delivered: &[(DeadLetter, Delivered)]) {
        let Some((letter, at)) = delivered.last() else { return };
        if let Some(left_out) = self.state.quiet.allows(("dead_letters", "delivered"), Instant::now()) {
            tracing::warn!(
                partition = letter.partition,
                offset = letter.offset,
                code = letter.reason.code,
                reason = letter.reason.message,
                dlq_partition = at.partition,
                dlq_offset = at.offset,
                of_this_batch = delivered.len(),
                batches_left_out = left_out,
                "records that can't be stored are in the dead-letter topic"
            );
        }
    }

    /// Rows that ClickHouse refuses join the batch's dead letters.
    pub(super) fn refused(&mut self, batch: BatchId, letters: Vec<DeadLetter>) {
        let Some(held) = self.state.held.get_mut(&batch).filter(|_| !letters.is_empty()) else {
            return;
        };
        self.metrics.failures.get_or_create(&FailureLabel { step: "insert", class: "bisect" }).inc();
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
        if held.oldest_ms > 0 {
            self.metrics.freshness.observe(now_ms().saturating_sub(held.oldest_ms).max(0) as f64 / 1000.0);
        }
        tracing::debug!(batch = batch.0, rows = held.row_count, "rows are queryable");
    }

    pub(super) fn commit_failed(&mut self, error: &KafkaError) {
        self.metrics.commit_failures.inc();
        self.state.committing.clear();
        if let Some(traces) = &mut self.state.traces {
            traces.commit_ended(Some(error.to_string()));
        }
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
