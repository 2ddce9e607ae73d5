//! Reading: polls records, decodes them into the batch being filled, and keeps what can't be decoded as dead letters.

use std::time::{Duration, Instant};

use auditstream_schemas::{BatchDecoder, Poison, Position};
use rdkafka::Message;
use rdkafka::error::KafkaError;

use super::{Held, Loop, LoopQuiet, UnknownSchemas};
use crate::WorkerError;
use crate::core::{Input, Now, Verdict};
use crate::dead_letters::DeadLetter;
use crate::fetch::Record;
use crate::kafka::{Reader, is_out_of_range};

/// Records taken in one turn: bounds how late completions and time are looked at.
const RECORDS_PER_TURN: usize = 2_000;

impl Loop {
    pub(super) fn read(&mut self) -> Result<(), WorkerError> {
        let now = self.now();
        let mut timeout = self.patience();
        let (mut records, mut bytes, mut stale) = (0u64, 0u64, 0u64);
        let mut caught_up = false;
        while let Some(served) = self.reader.serve() {
            match served {
                Err(error) => kafka_error(&error, &self.reader, &self.group, &mut self.state.quiet)?,
                // Dropping it would skip it for good.
                Ok((partition, offset)) => {
                    return Err(WorkerError::Halted(format!(
                        "record {partition}/{offset} came before its partition was assigned"
                    )));
                }
            }
        }
        for _ in 0..RECORDS_PER_TURN {
            let record = match self.fetched.next(timeout) {
                None => {
                    caught_up = true;
                    break;
                }
                Some(Ok(record)) => record,
                Some(Err(error)) => {
                    if !(is_out_of_range(&error) && self.offset_is_of_another_topic()?) {
                        kafka_error(&error, &self.reader, &self.group, &mut self.state.quiet)?;
                    }
                    break;
                }
            };
            timeout = Duration::ZERO;
            let (partition, offset) = (record.partition(), record.offset());
            if !self.core.admit(partition, offset) {
                stale += 1;
                continue;
            }
            let timestamp_ms = record.timestamp_ms();
            self.state.time_lag.read(partition, offset, timestamp_ms);
            if self.unknown.passes_over(partition, offset) {
                self.unknown.passed_over(partition, record.payload(), &self.decoder, now);
                continue;
            }
            let at = Position { partition, offset, timestamp_ms };
            let Some(verdict) = decode(&mut self.decoder, &record, at, &mut self.state.filling, &mut self.unknown, now)
            else {
                continue;
            };
            let length = record.length();
            records += 1;
            bytes += length as u64;
            let input = Input::Record { partition, offset, bytes: length, verdict };
            self.core.handle(input, now, &mut self.state.actions);
            if !self.state.actions.is_empty() || !self.core.wants_records() {
                break;
            }
        }
        // Only a poll that has waited says that nothing is there; one that did not wait may just have been early.
        if caught_up && records == 0 {
            self.input(Input::CaughtUp);
        }
        self.state.summary.records += records;
        self.metrics.records.inc_by(records);
        self.metrics.record_bytes.inc_by(bytes);
        self.metrics.stale_records.inc_by(stale);
        Ok(())
    }
}

/// Decodes one record into the batch being filled, or keeps it as a dead letter with the reason. `None`: it waits for its schema.
fn decode(
    decoder: &mut BatchDecoder,
    record: &Record,
    at: Position,
    filling: &mut Held,
    unknown: &mut UnknownSchemas,
    now: Now,
) -> Option<Verdict> {
    let result = record.payload().map_or_else(|| Err(Poison::null_value()), |value| decoder.push(value, at));
    let verdict = match result {
        Ok(()) => {
            unknown.decoded(at.partition);
            filling.newest_ms = filling.newest_ms.max(at.timestamp_ms);
            if at.timestamp_ms < filling.oldest_ms || filling.oldest_ms == 0 {
                filling.oldest_ms = at.timestamp_ms;
            }
            Verdict::Row
        }
        Err(poison) => {
            let poison = unknown.judge((at.partition, at.offset), record.payload(), poison, now)?;
            filling.letters.push(DeadLetter::new(record, poison.into()));
            Verdict::DeadLetter
        }
    };
    if let Some(trace) = &mut filling.trace {
        trace.record(record);
    }
    Some(verdict)
}

fn kafka_error(error: &KafkaError, reader: &Reader, group: &str, quiet: &mut LoopQuiet) -> Result<(), WorkerError> {
    if let Some(why) = reader.needs_a_human(error, group) {
        return Err(WorkerError::Halted(why));
    }
    if let Some(left_out) = quiet.allows(("read", "retry"), Instant::now()) {
        tracing::warn!(%error, left_out, "reading from kafka failed; librdkafka goes on trying");
    }
    Ok(())
}
