//! The background thread: takes events from the queue, stamps and encodes them, and hands them to librdkafka in order.
//!
//! ```text
//! record() --queue--> this thread --rd_kafka_produce--> librdkafka --callback--> InFlight::decide
//! ```
//!
//! It also keeps the time for `flush` and `shutdown`, so that these work in any executor. While events come it looks
//! every [`TICK`] instead of waiting on the queue: a caller's push then needs no wake-up. After [`IDLE_TICKS`] without
//! an event it waits on the queue and costs nothing.
//!
//! Promise: events reach librdkafka in the order in which they entered the queue; each is decided exactly once; the
//! thread ends only after a close, when everything taken is decided or the deadline has passed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use auditstream_schemas::{AuditEvent, Framing, ProducerStamp, encode};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer};

use crate::ForEvent;
use crate::budget::Permit;
use crate::delivery::{Ack, Context, InFlight, Shared, failure, shut_down};
use crate::headers::{HeaderWriter, TraceParent};
use crate::prepare::Prepare;
use crate::stats::Report;

/// How long the thread sleeps when the queue is empty but was not a moment ago.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without an event before the thread waits on the queue.
const IDLE_TICKS: u32 = 100;
/// Events between two looks at the clock.
const BURST: usize = 1024;
/// How long librdkafka's callbacks are awaited after a purge.
const PURGE_GRACE: Duration = Duration::from_secs(1);

/// What comes through the queue.
#[expect(clippy::large_enum_variant, reason = "nearly every message is an event; a box would cost each an allocation")]
pub(crate) enum Message {
    Event(Queued),
    Flush(Wait),
    Close(Wait),
}

/// An event that was taken.
pub(crate) struct Queued {
    pub(crate) event: AuditEvent,
    pub(crate) context: Option<ForEvent>,
    pub(crate) traceparent: Option<TraceParent>,
    pub(crate) ack: Option<Ack>,
    pub(crate) permit: Permit,
}

/// Somebody waits for a report until the deadline.
pub(crate) struct Wait {
    pub(crate) deadline: Instant,
    pub(crate) reply: Box<dyn FnOnce(Report) + Send>,
}

/// A flush: complete when nobody but this holds its generation, nor an earlier one.
struct Flush {
    generation: Arc<()>,
    deadline: Instant,
    /// Taken when the deadline has passed; the generation is still waited for on behalf of later flushes.
    reply: Option<Box<dyn FnOnce(Report) + Send>>,
}

pub(crate) struct Sender {
    pub(crate) queue: Receiver<Message>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) client: ThreadedProducer<Context>,
    pub(crate) client_config: ClientConfig,
    pub(crate) topic: String,
    pub(crate) framing: Framing,
    /// Written into events that have no stamp; `seq` is the next one.
    pub(crate) stamp: ProducerStamp,
    pub(crate) prepare: Prepare,
}

/// What the loop keeps.
#[derive(Default)]
struct State {
    generation: Arc<()>,
    flushes: VecDeque<Flush>,
    closes: Vec<Wait>,
    payload: Vec<u8>,
    headers: HeaderWriter,
}

impl Sender {
    /// Runs until closed.
    pub(crate) fn run(mut self) {
        let mut state = State::default();
        let mut idle = 0;
        loop {
            let mut taken = 0;
            while taken < BURST {
                match self.queue.try_recv() {
                    Ok(message) => self.handle(message, &mut state),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
                taken += 1;
            }
            self.serve_flushes(&mut state);
            if self.closed(&mut state) {
                return;
            }
            if taken == BURST {
                continue;
            }
            idle = if taken > 0 { 0 } else { idle + 1 };
            let waiting = !state.flushes.is_empty() || !state.closes.is_empty();
            if idle < IDLE_TICKS || waiting {
                thread::park_timeout(TICK);
                continue;
            }
            match self.queue.recv() {
                Ok(message) => self.handle(message, &mut state),
                // The last handle sends a close before it goes, so this is never reached with events undecided.
                Err(_) => return,
            }
            idle = 0;
        }
    }

    fn handle(&mut self, message: Message, state: &mut State) {
        match message {
            Message::Event(queued) => self.send(queued, state),
            Message::Flush(wait) => {
                let generation = std::mem::take(&mut state.generation);
                state.flushes.push_back(Flush { generation, deadline: wait.deadline, reply: Some(wait.reply) });
            }
            Message::Close(wait) => state.closes.push(wait),
        }
    }

    fn send(&mut self, queued: Queued, state: &mut State) {
        let Queued { mut event, context, traceparent, ack, permit } = queued;
        self.prepare.apply(&mut event, context.as_ref());
        // An event that already carries a stamp is passed on by a relay and keeps it.
        let stamped = event.producer.id.is_empty();
        if stamped {
            event.producer = self.stamp.clone();
        }
        state.payload.clear();
        encode(&event, self.framing, &mut state.payload);
        let key = event.key();
        let generation = Arc::clone(&state.generation);
        let in_flight = Box::new(InFlight { event_id: event.event_id, ack, generation, permit });
        let topic = std::mem::take(&mut self.topic);
        let mut record = BaseRecord::with_opaque_to(&topic, in_flight)
            .key(key.as_str())
            .payload(state.payload.as_slice())
            .headers(state.headers.headers(&event, traceparent.as_ref()));
        let refused = loop {
            match self.client.send(record) {
                Ok(()) => break None,
                Err((error, back)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) if !past(&state.closes) => {
                        record = back;
                        // Its bounds are out of reach, so this is memory pressure inside librdkafka: wait for callbacks.
                        thread::park_timeout(TICK);
                    }
                    Some(RDKafkaErrorCode::Fatal) if self.renew_client(&error) => record = back,
                    _ => break Some((error, back.delivery_opaque)),
                },
            }
        };
        self.topic = topic;
        match refused {
            Some((error, in_flight)) => in_flight.decide(Err(failure(&error)), &self.shared),
            None if stamped => self.stamp.seq += 1,
            None => {}
        }
    }

    /// A fatal error ends an idempotent producer's session for good: replace the client. What the old one held is
    /// decided as failed before the new one sends anything, so the order of a key is kept.
    fn renew_client(&mut self, error: &KafkaError) -> bool {
        tracing::error!("the idempotent producer's session broke, a new one begins: {error}");
        self.client.context().renew();
        self.client.purge(PurgeConfig::default().queue().inflight());
        let context = Context::new(Arc::clone(&self.shared));
        match ThreadedProducer::from_config_and_context(&self.client_config, context) {
            Ok(client) => {
                self.client = client;
                true
            }
            Err(error) => {
                tracing::error!("no new producer session: {error}");
                false
            }
        }
    }

    fn serve_flushes(&self, state: &mut State) {
        while let Some(front) = state.flushes.front_mut() {
            if Arc::strong_count(&front.generation) > 1 {
                break;
            }
            // The count is read without ordering; the counters that the deciding threads wrote before must be seen.
            fence(Ordering::Acquire);
            if let Some(reply) = front.reply.take() {
                reply(self.report(true));
            }
            state.flushes.pop_front();
        }
        let now = Instant::now();
        for flush in state.flushes.iter_mut().filter(|flush| flush.deadline <= now) {
            if let Some(reply) = flush.reply.take() {
                reply(self.report(false));
            }
        }
    }

    /// Answers whether the thread is done: closed, and everything decided.
    fn closed(&self, state: &mut State) -> bool {
        if state.closes.is_empty() {
            return false;
        }
        let drained = self.shared.budget.events() == 0;
        if !drained && !past(&state.closes) {
            return false;
        }
        if !drained {
            self.give_up(state);
        }
        self.serve_flushes(state);
        for flush in &mut state.flushes {
            if let Some(reply) = flush.reply.take() {
                reply(self.report(false));
            }
        }
        for wait in state.closes.drain(..) {
            (wait.reply)(self.report(drained));
        }
        true
    }

    /// The deadline has passed: everything undecided fails.
    fn give_up(&self, state: &mut State) {
        self.client.purge(PurgeConfig::default().queue().inflight());
        let until = Instant::now() + PURGE_GRACE;
        while self.shared.budget.events() > 0 && Instant::now() < until {
            match self.queue.try_recv() {
                Ok(Message::Event(Queued { event, ack, permit, .. })) => {
                    let generation = Arc::clone(&state.generation);
                    let in_flight = InFlight { event_id: event.event_id, ack, generation, permit };
                    in_flight.decide(Err(shut_down()), &self.shared);
                }
                Ok(Message::Flush(wait) | Message::Close(wait)) => state.closes.push(wait),
                Err(_) => thread::park_timeout(TICK),
            }
        }
    }

    fn report(&self, complete: bool) -> Report {
        self.shared.counters.report(&self.shared.budget, complete)
    }
}

fn past(closes: &[Wait]) -> bool {
    let now = Instant::now();
    closes.iter().any(|close| close.deadline <= now)
}
