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
//! With a spill, the thread also writes events to disk and sends them from there: see `spill`.
//!
//! Promise: events reach librdkafka in the order in which they entered the queue; each is decided exactly once; the
//! thread ends only after a close, when everything taken is decided or the deadline has passed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use auditstream_schemas::{AuditEvent, Framing, Priority, ProducerStamp, encode};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer};

use crate::budget::Permit;
use crate::delivery::{Ack, Answer, Context, InFlight, Outcome, Shared, failure, shut_down};
use crate::error::{DeliveryFailure, FailReason};
use crate::headers::{HeaderWriter, TraceParent};
use crate::loss::LossReporter;
use crate::prepare::Prepare;
use crate::size::Size;
use crate::stats::Report;
use crate::{ForEvent, Spill};

/// How long the thread sleeps when the queue is empty but was not a moment ago.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without an event before the thread waits on the queue.
const IDLE_TICKS: u32 = 100;
/// How long it sleeps then if something else than the queue has to be looked at.
const WATCH_TICK: Duration = Duration::from_millis(20);
/// Events between two looks at the clock.
const BURST: usize = 1024;
/// Events that librdkafka holds at most; what comes meanwhile waits here, as it was handed in. Each takes some ten pieces of memory there, and beyond
/// the processor's cache they cost it half as much again. Enough for 300,000 events a second at 50 ms to the brokers and back.
const HELD: usize = 16_384;
/// How long librdkafka's callbacks are awaited after a purge.
const PURGE_GRACE: Duration = Duration::from_secs(1);

/// What comes through the queue.
pub(crate) enum Message {
    /// Boxed: the channel makes its memory for thirty-one messages at once, and an event as large as ours made one call in thirty-one wait for that.
    Event(Box<Queued>),
    Flush(Wait),
    Close(Wait),
}

/// An event that is to be taken, or was.
pub(crate) struct Queued {
    pub(crate) event: AuditEvent,
    pub(crate) context: Option<ForEvent>,
    pub(crate) traceparent: Option<TraceParent>,
    pub(crate) ack: Option<Arc<Ack>>,
    /// There is one once the event was taken.
    pub(crate) permit: Option<Permit>,
}

impl Queued {
    /// Into its place at once: an event is nearly a kibibyte, and each call that it is handed on by moves it once more.
    #[inline]
    pub(crate) fn new(event: AuditEvent, ack: Option<Arc<Ack>>) -> Box<Self> {
        Box::new(Self { event, context: None, traceparent: None, ack, permit: None })
    }
}

/// A finished record on its way to the spill.
#[cfg_attr(not(feature = "spill"), expect(dead_code, reason = "only a spill reads it"))]
pub(crate) struct Encoded<'a> {
    pub(crate) priority: Priority,
    pub(crate) key: &'a str,
    pub(crate) source: &'a str,
    pub(crate) time: &'a str,
    pub(crate) traceparent: Option<String>,
    pub(crate) payload: &'a [u8],
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
    pub(crate) cloud_events: bool,
    /// How long an event may wait for librdkafka's room; with a spill for ever.
    pub(crate) delivery_timeout: Option<Duration>,
    pub(crate) framing: Framing,
    /// Written into events that have no stamp; `seq` is the next one.
    pub(crate) stamp: ProducerStamp,
    pub(crate) prepare: Prepare,
    /// The place of the next event in the order of all.
    pub(crate) number: i64,
    pub(crate) spill: Option<Spill>,
    pub(crate) losses: LossReporter,
    /// What the producer's own events name as their service.
    pub(crate) service: String,
}

/// What the loop keeps.
#[derive(Default)]
struct State {
    /// Who waits with a deadline of its own, in the order in which they came.
    waiting: VecDeque<Arc<Ack>>,
    generation: Arc<()>,
    flushes: VecDeque<Flush>,
    closes: Vec<Wait>,
    payload: Vec<u8>,
    key: String,
    headers: HeaderWriter,
    /// What waits until librdkafka holds less, in order.
    backlog: VecDeque<Waiting>,
}

/// An event that librdkafka has no room for yet.
struct Waiting {
    queued: Box<Queued>,
    generation: Arc<()>,
    since: Instant,
}

impl Sender {
    /// Runs until closed.
    pub(crate) fn run(mut self) {
        let mut state = State::default();
        state.headers.cloud_events = self.cloud_events;
        let mut idle = 0;
        loop {
            self.send_backlog(&mut state);
            let mut taken = 0;
            while taken < BURST {
                match self.queue.try_recv() {
                    Ok(message) => self.handle(message, &mut state),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
                taken += 1;
            }
            self.tend();
            answer_late(&mut state.waiting);
            self.tell_losses(&mut state);
            self.serve_flushes(&mut state);
            if self.closed(&mut state) {
                return;
            }
            if taken == BURST {
                continue;
            }
            idle = if taken > 0 { 0 } else { idle + 1 };
            let waiting = !state.flushes.is_empty()
                || !state.closes.is_empty()
                || !state.waiting.is_empty()
                || !state.backlog.is_empty();
            // With a spill somebody has to see that Kafka is silent, or back.
            let watching = self.spill.is_some() && (self.is_spilling() || self.shared.budget.events() > 0);
            if idle < IDLE_TICKS || waiting {
                thread::park_timeout(TICK);
                continue;
            }
            if watching || self.losses.is_pending() {
                thread::park_timeout(WATCH_TICK);
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
            Message::Event(queued) => {
                if let Some(ack) = queued.ack.as_ref().filter(|ack| ack.until.is_some()) {
                    state.waiting.push_back(Arc::clone(ack));
                }
                let generation = Arc::clone(&state.generation);
                if state.backlog.is_empty() && self.has_room() {
                    self.send(queued, generation, state);
                } else {
                    state.backlog.push_back(Waiting { queued, generation, since: Instant::now() });
                }
            }
            Message::Flush(wait) => {
                let generation = std::mem::take(&mut state.generation);
                state.flushes.push_back(Flush { generation, deadline: wait.deadline, reply: Some(wait.reply) });
            }
            Message::Close(wait) => state.closes.push(wait),
        }
    }

    /// Whether the next event may go on.
    fn has_room(&self) -> bool {
        self.is_spilling() || self.shared.direct.0.load(Ordering::Acquire) < HELD
    }

    /// Sends what librdkafka has room for, and fails what has waited too long.
    fn send_backlog(&mut self, state: &mut State) {
        while self.has_room()
            && let Some(Waiting { queued, generation, .. }) = state.backlog.pop_front()
        {
            self.send(queued, generation, state);
        }
        let Some(timeout) = self.delivery_timeout.filter(|_| !state.backlog.is_empty()) else { return };
        let now = Instant::now();
        let is_late = |waiting: &Waiting| now.duration_since(waiting.since) > timeout;
        while state.backlog.front().is_some_and(is_late)
            && let Some(late) = state.backlog.pop_front()
        {
            let detail = "librdkafka had no room for it in all that time".to_owned();
            self.fail(late, DeliveryFailure { reason: FailReason::TimedOut, detail });
        }
    }

    fn send(&mut self, mut queued: Box<Queued>, generation: Arc<()>, state: &mut State) {
        let (ack, permit, traceparent) = (queued.ack.take(), queued.permit.take(), queued.traceparent);
        let event = &mut queued.event;
        self.prepare.apply(event, queued.context.as_ref());
        state.payload.clear();
        // An event that already carries a stamp is passed on by a relay and keeps it; the others are lent ours.
        let is_ours = event.producer.id.is_empty();
        if is_ours {
            std::mem::swap(&mut event.producer, &mut self.stamp);
        }
        encode(event, self.framing, &mut state.payload);
        if is_ours {
            std::mem::swap(&mut event.producer, &mut self.stamp);
            self.stamp.seq += 1;
        }
        let mut key = std::mem::take(&mut state.key);
        key.clear();
        event.push_key(&mut key);
        let in_flight = Box::new(InFlight {
            event_id: event.event_id,
            number: self.number,
            ack,
            generation: Some(generation),
            permit,
            is_direct: false,
            drain: None,
        });
        self.number += 1;
        if !self.is_spilling() {
            self.produce(in_flight, event, &key, traceparent.as_ref(), state);
            state.key = key;
            return;
        }
        let (source, time) = state.headers.texts(event);
        let traceparent = traceparent.as_ref().map(TraceParent::to_string);
        let encoded =
            Encoded { priority: event.priority, key: &key, source, time, traceparent, payload: &state.payload };
        self.spill_event(in_flight, &encoded);
    }

    fn produce(
        &mut self,
        mut in_flight: Box<InFlight>,
        event: &AuditEvent,
        key: &str,
        traceparent: Option<&TraceParent>,
        state: &mut State,
    ) {
        in_flight.is_direct = true;
        self.shared.direct.0.fetch_add(1, Ordering::AcqRel);
        let topic = std::mem::take(&mut self.topic);
        let mut record = BaseRecord::with_opaque_to(&topic, in_flight).key(key).payload(state.payload.as_slice());
        if let Some(headers) = state.headers.headers(event, traceparent) {
            record = record.headers(headers);
        }
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
        if let Some((error, in_flight)) = refused {
            in_flight.decide(Outcome::Failed(failure(&error)), &self.shared);
        }
    }

    /// A fatal error ends an idempotent producer's session for good: replace the client. What the old one held is
    /// decided as failed before the new one sends anything, so the order of a key is kept.
    fn renew_client(&mut self, error: &KafkaError) -> bool {
        tracing::error!("the idempotent producer's session broke, a new one begins: {error}");
        self.client.context().renew();
        self.client.purge(PurgeConfig::default().queue().inflight());
        self.new_client()
    }

    /// Replaces the client; answers whether that could be done.
    pub(crate) fn new_client(&mut self) -> bool {
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
    fn closed(&mut self, state: &mut State) -> bool {
        if state.closes.is_empty() {
            return false;
        }
        // What is on disk is safe, but nobody may open this disk again: send what can be sent.
        let drained = self.shared.budget.events() == 0 && self.is_drained();
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
        // Closed before anybody hears of it: the next producer may open it at once.
        self.spill = None;
        for wait in state.closes.drain(..) {
            (wait.reply)(self.report(drained));
        }
        true
    }

    /// The deadline has passed: everything undecided fails.
    fn give_up(&mut self, state: &mut State) {
        if self.spill.is_some() {
            while let Ok(message) = self.queue.try_recv() {
                self.handle(message, state);
            }
            while let Some(Waiting { queued, generation, .. }) = state.backlog.pop_front() {
                self.send(queued, generation, state);
            }
            self.spill_the_rest();
        }
        self.client.purge(PurgeConfig::default().queue().inflight());
        for waiting in state.backlog.drain(..) {
            self.fail(waiting, shut_down());
        }
        let until = Instant::now() + PURGE_GRACE;
        while self.shared.budget.events() > 0 && Instant::now() < until {
            match self.queue.try_recv() {
                Ok(Message::Event(queued)) => {
                    let generation = Arc::clone(&state.generation);
                    self.fail(Waiting { queued, generation, since: Instant::now() }, shut_down());
                }
                Ok(Message::Flush(wait) | Message::Close(wait)) => state.closes.push(wait),
                Err(_) => thread::park_timeout(TICK),
            }
        }
    }

    fn fail(&self, waiting: Waiting, why: DeliveryFailure) {
        let Queued { event, ack, permit, .. } = *waiting.queued;
        let in_flight = InFlight {
            event_id: event.event_id,
            number: 0,
            ack,
            generation: Some(waiting.generation),
            permit,
            is_direct: false,
            drain: None,
        };
        in_flight.decide(Outcome::Failed(why), &self.shared);
    }

    /// Events were lost and others get through again: that is an event, too.
    fn tell_losses(&mut self, state: &mut State) {
        let counters = &self.shared.counters;
        let (losses, acked, now) = (counters.losses(), counters.acknowledged(), Instant::now());
        let Some(due) = self.losses.due(losses, acked, now) else { return };
        let event = self.losses.event(&due, &self.stamp.id, &self.service, now);
        let Some(event) = event else { return self.losses.told(due) };
        let size = Size::of(&event, self.stamp.id.len());
        // No room now: later.
        let Ok(permit) = self.shared.budget.take(size.memory, event.priority) else { return };
        tracing::warn!(events = losses.total(), "events were lost; an audit.loss event says which way");
        self.losses.told(due);
        self.shared.counters.submitted();
        let mut queued = Queued::new(event, None);
        queued.permit = Some(permit);
        self.handle(Message::Event(queued), state);
    }

    fn report(&self, complete: bool) -> Report {
        self.shared.counters.report(&self.shared.budget, complete)
    }
}

/// Whoever waits no longer than until now hears so.
fn answer_late(waiting: &mut VecDeque<Arc<Ack>>) {
    if waiting.is_empty() {
        return;
    }
    let now = Instant::now();
    waiting.retain(|ack| {
        if !ack.is_answered() && ack.until.is_some_and(|until| until <= now) {
            ack.answer(Answer::Late);
        }
        !ack.is_answered()
    });
}

fn past(closes: &[Wait]) -> bool {
    let now = Instant::now();
    closes.iter().any(|close| close.deadline <= now)
}
