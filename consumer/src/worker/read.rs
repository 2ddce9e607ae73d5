//! Reading: polls records, decodes them into the batch being filled, and keeps what can't be decoded as dead letters.

use std::time::{Duration, Instant};

use auditstream_schemas::{BatchDecoder, Poison, Position};
use rdkafka::Message;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;

use super::{Held, Loop, LoopQuiet};
use crate::WorkerError;
use crate::core::{Input, Verdict};
use crate::dead_letters::DeadLetter;
use crate::kafka::Reader;

/// Records taken in one turn: bounds how late completions and time are looked at.
const RECORDS_PER_TURN: usize = 2_000;

impl Loop {
    pub(super) fn read(&mut self) -> Result<(), WorkerError> {
        let now = self.now();
        let mut timeout = self.patience();
        let (mut records, mut bytes, mut stale) = (0u64, 0u64, 0u64);
        let mut caught_up = false;
        for _ in 0..RECORDS_PER_TURN {
            let record = match self.reader.poll(timeout) {
                None => {
                    caught_up = true;
                    break;
                }
                Some(Ok(record)) => record,
                Some(Err(error)) => {
                    kafka_error(&error, &self.reader, &self.group, &mut self.state.quiet)?;
                    break;
                }
            };
            timeout = Duration::ZERO;
            let (partition, offset) = (record.partition(), record.offset());
            if !self.core.admit(partition, offset) {
                stale += 1;
                continue;
            }
            let length = record.payload_len() + record.key_len();
            records += 1;
            bytes += length as u64;
            let verdict = decode(&mut self.decoder, &record, &mut self.state.filling);
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

/// Decodes one record into the batch being filled, or keeps it as a dead letter with the reason.
fn decode(decoder: &mut BatchDecoder, record: &BorrowedMessage<'_>, filling: &mut Held) -> Verdict {
    let timestamp_ms = record.timestamp().to_millis().unwrap_or(0);
    let at = Position { partition: record.partition(), offset: record.offset(), timestamp_ms };
    let result = record.payload().map_or_else(|| Err(Poison::null_value()), |value| decoder.push(value, at));
    match result {
        Ok(()) => {
            filling.newest_ms = filling.newest_ms.max(timestamp_ms);
            Verdict::Row
        }
        Err(poison) => {
            filling.letters.push(DeadLetter::new(record, poison.into()));
            Verdict::DeadLetter
        }
    }
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
