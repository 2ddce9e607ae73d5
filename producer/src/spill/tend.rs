//! The sender thread's work on the spill: between two looks into the queue it writes what has gathered, sends what the file holds, and changes the mode.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use auditstream_schemas::Priority;
use rdkafka::producer::{BaseRecord, Producer as _, PurgeConfig};

use super::entry::{Parts, Record};
use super::file::Chunk;
use super::state::{Draining, Gathered};
use super::{Drain, Spill, SpillConfig, SpillError};
use crate::delivery::{InFlight, Outcome, Returned};
use crate::error::{DeliveryFailure, FailReason, chain};
use crate::headers::{CloudEvent, headers, id_buffer, id_text};
use crate::sender::{Encoded, Sender};

/// Most bytes of one transaction.
const WRITE: usize = 8 << 20;
/// Bytes that are read out of the file at a time, and how many such reads may be on their way to Kafka.
const READ: usize = 2 << 20;
const READS: usize = 2;
/// How long the callbacks of a purge are awaited before the sender looks after the queue again.
const PURGE: Duration = Duration::from_secs(1);

impl Sender {
    /// Opens the spill; events that an earlier process left are sent first.
    pub(crate) fn open_spill(&mut self, config: SpillConfig) -> Result<(), SpillError> {
        let (spill, salvaged) = Spill::open(config)?;
        self.shared.counters.damaged(salvaged.damaged);
        self.shared.counters.spill(spill.held());
        self.number = spill.next_number();
        if spill.on {
            tracing::info!(
                events = spill.held().0,
                "the spill holds events of an earlier process: they are sent first"
            );
        }
        self.spill = Some(spill);
        Ok(())
    }

    /// Whether the next event goes to the file.
    pub(crate) fn is_spilling(&self) -> bool {
        self.spill.as_ref().is_some_and(|spill| spill.on)
    }

    /// Nothing is in the file or on its way there.
    pub(crate) fn is_drained(&self) -> bool {
        self.spill.as_ref().is_none_or(|spill| spill.file.events() == 0 && spill.gathered.is_empty())
    }

    /// Puts an event behind all others that go to the file.
    pub(crate) fn spill_event(&mut self, in_flight: Box<InFlight>, encoded: &Encoded<'_>) {
        let Some(spill) = &mut self.spill else { return };
        if encoded.priority == Priority::BestEffort && !spill.has_room_to_spare() {
            let detail = "the spill is half full, which is all that BEST_EFFORT events get".to_owned();
            let failure = DeliveryFailure { reason: FailReason::Dropped, detail };
            return in_flight.decide(Outcome::Failed(failure), &self.shared);
        }
        let parts = Parts {
            number: in_flight.number,
            id: in_flight.event_id,
            key: encoded.key.as_bytes(),
            source: encoded.source.as_bytes(),
            time: encoded.time.as_bytes(),
            traceparent: encoded.traceparent.as_deref().unwrap_or_default().as_bytes(),
            payload: encoded.payload,
        };
        spill.gather(parts, in_flight);
    }

    /// One look at everything. Cheap while events go straight to Kafka.
    pub(crate) fn tend(&mut self) {
        let Some(mut spill) = self.spill.take() else { return };
        let now = Instant::now();
        let direct = self.shared.direct.0.load(Ordering::Acquire);
        let stuck = spill.is_stuck(self.shared.counters.acknowledged(), direct > 0, now);
        let returned = self.shared.has_returned();
        if !spill.on {
            spill.on = stuck || returned || self.shared.budget.is_nearly_full();
            if spill.on && self.shared.spill_log_ready() {
                let why = if stuck || returned { "Kafka acknowledges nothing" } else { "the queue is nearly full" };
                tracing::warn!(events = direct, "{why}: events go to disk");
                spill.told = true;
            }
        }
        if spill.on {
            if stuck || returned {
                self.recall(&mut spill);
            }
            self.write(&mut spill, now);
            self.drain(&mut spill, now);
            let idle = spill.file.events() == 0 && spill.gathered.is_empty() && spill.draining.is_empty();
            if idle && self.shared.direct.0.load(Ordering::Acquire) == 0 && !self.shared.has_returned() {
                if std::mem::take(&mut spill.told) {
                    tracing::info!("the spill is drained: events go to Kafka directly");
                }
                spill.on = false;
            }
        }
        self.shared.counters.spill(spill.held());
        self.spill = Some(spill);
    }

    /// The deadline has passed: whatever is in memory goes to disk.
    pub(crate) fn spill_the_rest(&mut self) {
        let Some(mut spill) = self.spill.take() else { return };
        spill.on = true;
        self.recall(&mut spill);
        spill.disk.worked();
        while !spill.gathered.is_empty() && self.write(&mut spill, Instant::now()) {}
        self.shared.counters.spill(spill.held());
        self.spill = Some(spill);
    }

    /// Takes back everything that librdkafka holds, and puts it in front of what has gathered since. What was on its way to a broker may have arrived; it
    /// is sent again, which is the same row.
    fn recall(&mut self, spill: &mut Spill) {
        self.client.context().renew();
        self.client.purge(PurgeConfig::default().queue().inflight());
        let until = Instant::now() + PURGE;
        while self.shared.direct.0.load(Ordering::Acquire) > 0 && Instant::now() < until {
            thread::park_timeout(Duration::from_millis(1));
        }
        if self.shared.direct.0.load(Ordering::Acquire) > 0 {
            // In order or not at all: the next look finds the rest.
            return;
        }
        let mut returned = self.shared.take_returned();
        returned.sort_unstable_by_key(|returned| returned.in_flight.number);
        let later = std::mem::take(&mut spill.gathered);
        for Returned { in_flight, key, payload, source, time, traceparent } in returned {
            let parts = Parts {
                number: in_flight.number,
                id: in_flight.event_id,
                key: &key,
                source: &source,
                time: &time,
                traceparent: &traceparent,
                payload: &payload,
            };
            spill.gather(parts, in_flight);
        }
        spill.gathered.extend(later);
        // What was being drained was purged too: it is read again.
        for draining in spill.draining.drain(..) {
            spill.read_to = spill.read_to.min(draining.chunks.first().map_or(i64::MAX, |chunk| chunk.number - 1));
        }
        spill.kafka.failed(Instant::now());
        self.new_client();
    }

    /// Writes what has gathered, as far as there is room; answers whether anything was written.
    fn write(&mut self, spill: &mut Spill, now: Instant) -> bool {
        let mut room = spill.config.max_bytes.saturating_sub(spill.file.bytes());
        let (mut size, mut count) = (0, 0);
        for gathered in &spill.gathered {
            let bytes = gathered.chunk.body.len();
            if bytes as u64 > room || size >= WRITE {
                break;
            }
            room -= bytes as u64;
            size += bytes;
            count += 1;
        }
        if count == 0 || !spill.disk.is_over(now) {
            if count == 0 && !spill.gathered.is_empty() && self.shared.spill_log_ready() {
                tracing::error!(max_bytes = spill.config.max_bytes, "the spill is full: events wait in memory");
            }
            return false;
        }
        let (chunks, held): (Vec<Chunk>, Vec<Vec<Box<InFlight>>>) =
            spill.gathered.drain(..count).map(|Gathered { chunk, held }| (chunk, held)).unzip();
        match spill.file.append(&chunks) {
            Ok(()) => {
                spill.gathered_bytes -= size;
                spill.disk.worked();
                // Before the events are decided: whoever sees the queue empty must see them here.
                self.shared.counters.spill(spill.held());
                for in_flight in held.into_iter().flatten() {
                    in_flight.decide(Outcome::Spilled, &self.shared);
                }
                true
            }
            Err(error) => {
                for (chunk, held) in chunks.into_iter().zip(held).rev() {
                    spill.gathered.push_front(Gathered { chunk, held });
                }
                self.trouble(spill, &error, now);
                false
            }
        }
    }

    /// Sends what the file holds, and removes what Kafka has.
    fn drain(&mut self, spill: &mut Spill, now: Instant) {
        while let Some(first) = spill.draining.front() {
            if !first.state.is_done() {
                break;
            }
            if let Some(failure) = first.state.failure() {
                if self.shared.spill_log_ready() {
                    tracing::warn!(
                        reason = failure.reason.as_str(),
                        detail = failure.detail,
                        "the spill can't be drained yet"
                    );
                }
                // Also what is behind it: nothing may overtake.
                self.recall(spill);
                return;
            }
            if !spill.disk.is_over(now) {
                return;
            }
            match spill.file.remove(&first.chunks) {
                Ok(()) => {
                    spill.kafka.worked();
                    spill.draining.pop_front();
                }
                Err(error) => return self.trouble(spill, &error, now),
            }
        }
        let may = spill.kafka.is_over(now) && spill.disk.is_over(now);
        // What librdkafka still has of its own came first.
        let in_order = self.shared.direct.0.load(Ordering::Acquire) == 0 && !self.shared.has_returned();
        if !may || !in_order || spill.draining.len() >= READS || spill.file.events() == 0 {
            return;
        }
        let chunks = match spill.file.take(spill.read_to, READ) {
            Ok(chunks) => chunks,
            Err(error) => return self.trouble(spill, &error, now),
        };
        let Some(last) = chunks.last() else { return };
        spill.read_to = last.last;
        let state = Arc::new(Drain::default());
        for chunk in &chunks {
            self.send_chunk(spill, chunk, &state);
        }
        let chunks = chunks.iter().map(Chunk::to_remove).collect();
        spill.draining.push_back(Draining { state, chunks });
    }

    fn send_chunk(&mut self, spill: &mut Spill, chunk: &Chunk, state: &Arc<Drain>) {
        let mut whole = 0;
        for record in chunk.entries() {
            whole += 1;
            self.send_record(&record, state);
        }
        let damaged = chunk.events.saturating_sub(whole);
        let is_new = chunk.number > spill.checked_to;
        spill.checked_to = spill.checked_to.max(chunk.number);
        if damaged > 0 && is_new {
            self.shared.counters.damaged(damaged);
            match spill.file.keep_aside(chunk) {
                Ok(path) => tracing::error!(damaged, aside = %path.display(), "events in the spill are damaged"),
                Err(error) => tracing::error!(damaged, error = chain(&error), "events in the spill are damaged"),
            }
        }
    }

    fn send_record(&mut self, record: &Record, state: &Arc<Drain>) {
        let in_flight = Box::new(InFlight::drained(record.id, Arc::clone(state)));
        state.sent();
        let mut buffer = id_buffer();
        let cloud_event =
            CloudEvent { id: id_text(&record.id, &mut buffer), source: &record.source, time: &record.time };
        // Who recorded it may have had no use for them; then they are not known.
        let is_wanted = self.cloud_events && !record.source.is_empty();
        let headers = headers(is_wanted.then_some(&cloud_event), record.traceparent.as_deref());
        let topic = std::mem::take(&mut self.topic);
        let mut message =
            BaseRecord::with_opaque_to(&topic, in_flight).key(record.key.as_bytes()).payload(record.payload.as_slice());
        if let Some(headers) = headers {
            message = message.headers(headers);
        }
        if let Err((error, back)) = self.client.send(message) {
            back.delivery_opaque.undelivered(&error, &self.shared);
        }
        self.topic = topic;
    }

    fn trouble(&mut self, spill: &mut Spill, error: &SpillError, now: Instant) {
        if error.is_damage() {
            match spill.file.salvage() {
                Ok(salvaged) => {
                    self.shared.counters.damaged(salvaged.damaged);
                    // What was on its way is in the new file again, if it was found.
                    spill.draining.clear();
                    spill.read_to = 0;
                    return;
                }
                Err(error) => tracing::error!(error = chain(&error), "the damaged spill can't be set aside"),
            }
        } else if self.shared.spill_log_ready() {
            tracing::error!(error = chain(error), "the spill can't be used; trying again");
        }
        spill.disk.failed(now);
    }
}
