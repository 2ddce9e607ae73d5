//! What happens to an event after librdkafka has it: exactly one outcome, told to everyone who asked.
//!
//! An [`InFlight`] travels with each message and comes back in the delivery callback. [`InFlight::decide`] is the only
//! place where an event's fate is counted, and dropping it gives the room in the queue back. With a spill, an event that Kafka did not
//! take and may take later is not decided: it comes back to the sender thread as [`Returned`].

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Headers, Message};
use rdkafka::producer::ProducerContext;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::Drain;
use crate::budget::{Budget, OwnLine, Permit};
use crate::error::{DeliveryFailure, FailReason};
use crate::oauth::{self, TokenFile};
use crate::stats::Counters;

/// Where an acknowledged event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// The partition of the topic.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// What became of an event.
#[derive(Debug, Clone, Copy)]
pub enum Fate<'a> {
    /// Every in-sync replica has it.
    Acked(Delivery),
    /// It is on disk, in the spill, and is sent when Kafka takes it: then its fate is told once more.
    Spilled,
    /// It is lost, unless the caller sends it again.
    Failed(&'a DeliveryFailure),
}

/// Called for each event that was taken, with its id and its fate, from a background thread. It must be quick
/// and must not panic: deliveries wait behind it.
pub type Observer = dyn Fn(Uuid, Fate<'_>) + Send + Sync;

/// [`Fate`] with what it needs.
#[derive(Debug)]
pub(crate) enum Outcome {
    Acked(Delivery),
    #[cfg_attr(not(feature = "spill"), expect(dead_code, reason = "only a spill decides so"))]
    Spilled,
    Failed(DeliveryFailure),
}

/// How one who waits for an event's fate hears of it: once, or that the time is over.
#[derive(Debug)]
pub(crate) struct Ack {
    reply: Mutex<Option<oneshot::Sender<Answer>>>,
    /// When the sender thread answers [`Answer::Late`].
    pub(crate) until: Option<Instant>,
}

/// What [`Ack`] hears.
#[derive(Debug)]
pub(crate) enum Answer {
    Decided(Outcome),
    Late,
}

impl Ack {
    /// And where the answer arrives.
    pub(crate) fn new(until: Option<Instant>) -> (Arc<Ack>, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        (Arc::new(Ack { reply: Mutex::new(Some(reply)), until }), answer)
    }

    pub(crate) fn answer(&self, answer: Answer) {
        let reply = self.reply.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reply) = reply {
            // The caller may have stopped waiting; the outcome is counted all the same.
            let _ = reply.send(answer);
        }
    }

    /// Whether the answer was given.
    pub(crate) fn is_answered(&self) -> bool {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// What the caller's threads, the background thread and the callbacks share.
pub(crate) struct Shared {
    pub(crate) budget: Arc<Budget>,
    pub(crate) counters: Counters,
    observer: Option<Box<Observer>>,
    tokens: Option<TokenFile>,
    failure_log: EveryTenSeconds,
    error_log: EveryTenSeconds,
    /// Not with the event's own loss: with the spill's troubles.
    #[cfg(feature = "spill")]
    spill_log: EveryTenSeconds,
    /// There is a spill: what Kafka may take later is returned instead of lost.
    has_spill: bool,
    returned: Mutex<Vec<Returned>>,
    /// Events that went to librdkafka straight from the queue and are neither decided nor returned.
    pub(crate) direct: OwnLine<AtomicUsize>,
}

/// An event that Kafka did not take, with everything that is needed to send it again.
#[derive(Debug)]
#[cfg_attr(not(feature = "spill"), expect(dead_code, reason = "only a spill reads it"))]
pub(crate) struct Returned {
    pub(crate) in_flight: Box<InFlight>,
    pub(crate) key: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) source: Vec<u8>,
    pub(crate) time: Vec<u8>,
    pub(crate) traceparent: Vec<u8>,
}

impl Returned {
    fn of(mut in_flight: Box<InFlight>, message: &BorrowedMessage<'_>) -> Self {
        in_flight.is_direct = false;
        let header = |name: &str| {
            let mut headers = message.headers()?.iter();
            headers.find(|header| header.key == name)?.value.map(<[u8]>::to_vec)
        };
        Self {
            in_flight,
            key: message.key().unwrap_or_default().to_vec(),
            payload: message.payload().unwrap_or_default().to_vec(),
            source: header("ce_source").unwrap_or_default(),
            time: header("ce_time").unwrap_or_default(),
            traceparent: header("traceparent").unwrap_or_default(),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("budget", &self.budget).field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        budget: Arc<Budget>,
        observer: Option<Box<Observer>>,
        tokens: Option<TokenFile>,
        has_spill: bool,
    ) -> Shared {
        Shared {
            budget,
            counters: Counters::default(),
            observer,
            tokens,
            failure_log: EveryTenSeconds::new(),
            error_log: EveryTenSeconds::new(),
            #[cfg(feature = "spill")]
            spill_log: EveryTenSeconds::new(),
            has_spill,
            returned: Mutex::new(Vec::new()),
            direct: OwnLine::default(),
        }
    }

    fn give_back(&self, returned: Returned) {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).push(returned);
        // Behind the push: whoever sees no direct event any more sees all that were returned.
        self.direct.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(feature = "spill")]
impl Shared {
    pub(crate) fn has_returned(&self) -> bool {
        !self.returned.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(crate) fn take_returned(&self) -> Vec<Returned> {
        std::mem::take(&mut *self.returned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the spill's troubles may be logged once more.
    pub(crate) fn spill_log_ready(&self) -> bool {
        self.spill_log.ready().is_some()
    }
}

/// One event between being taken and being decided.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) event_id: Uuid,
    /// Its place in the order of the queue.
    #[cfg_attr(not(feature = "spill"), expect(dead_code, reason = "only a spill puts events in order again"))]
    pub(crate) number: i64,
    pub(crate) ack: Option<Arc<Ack>>,
    /// Held while any event that came before a flush is undecided; `None` for one that comes out of the spill.
    pub(crate) generation: Option<Arc<()>>,
    pub(crate) permit: Option<Permit>,
    /// It is in librdkafka, straight from the queue.
    pub(crate) is_direct: bool,
    /// It comes out of the spill, with others.
    pub(crate) drain: Option<Arc<Drain>>,
}

impl InFlight {
    /// One that comes out of the spill, where it was decided already.
    #[cfg(feature = "spill")]
    pub(crate) fn drained(event_id: Uuid, drain: Arc<Drain>) -> Self {
        Self { event_id, number: 0, ack: None, generation: None, permit: None, is_direct: false, drain: Some(drain) }
    }

    /// Counts and tells the outcome, then gives the room back.
    pub(crate) fn decide(self, outcome: Outcome, shared: &Shared) {
        match &outcome {
            Outcome::Acked(_) => shared.counters.acked(),
            Outcome::Spilled => shared.counters.spilled(),
            Outcome::Failed(failure) => {
                shared.counters.failed(failure.reason);
                if let Some(unlogged) = shared.failure_log.ready() {
                    tracing::error!(
                        reason = failure.reason.as_str(),
                        detail = failure.detail,
                        events = unlogged,
                        "events were not delivered"
                    );
                }
            }
        }
        if let Some(observer) = &shared.observer {
            observer(
                self.event_id,
                match &outcome {
                    Outcome::Acked(delivery) => Fate::Acked(*delivery),
                    Outcome::Spilled => Fate::Spilled,
                    Outcome::Failed(failure) => Fate::Failed(failure),
                },
            );
        }
        let InFlight { ack, permit, generation, is_direct, drain, .. } = self;
        // The room first: whoever hears of the outcome may hand in the next event at once.
        if let Some(permit) = permit {
            shared.budget.give_back(permit);
        }
        if is_direct {
            shared.direct.0.fetch_sub(1, Ordering::AcqRel);
        }
        if let Some(drain) = drain {
            match &outcome {
                Outcome::Acked(delivery) => {
                    shared.counters.drained();
                    drain.acked(*delivery);
                }
                _ => drain.refused(),
            }
        }
        if let Some(ack) = ack {
            ack.answer(Answer::Decided(outcome));
        }
        drop(generation);
    }

    /// librdkafka did not take it.
    pub(crate) fn undelivered(self, error: &KafkaError, shared: &Shared) {
        let failure = failure(error);
        match self.drain.clone() {
            Some(drain) if !is_refusal(error) => drain.failed(failure),
            _ => self.decide(Outcome::Failed(failure), shared),
        }
    }
}

/// librdkafka's callbacks.
#[derive(Debug)]
pub(crate) struct Context {
    shared: Arc<Shared>,
    renewed: AtomicBool,
}

impl Context {
    pub(crate) fn new(shared: Arc<Shared>) -> Context {
        Context { shared, renewed: AtomicBool::new(false) }
    }

    /// From now on a purge means that the session broke, not that the producer is shut down.
    pub(crate) fn renew(&self) {
        self.renewed.store(true, Ordering::Release);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<InFlight>;

    fn delivery(&self, result: &DeliveryResult<'_>, in_flight: Box<InFlight>) {
        match result {
            Ok(message) => {
                let delivery = Delivery { partition: message.partition(), offset: message.offset() };
                in_flight.decide(Outcome::Acked(delivery), &self.shared);
            }
            Err((error, message)) if self.shared.has_spill && in_flight.is_direct && !is_refusal(error) => {
                self.shared.give_back(Returned::of(in_flight, message));
            }
            Err((error, _)) if in_flight.drain.is_some() => in_flight.undelivered(error, &self.shared),
            Err((error, _)) => {
                let mut failure = failure(error);
                if failure.reason == FailReason::ShutDown && self.renewed.load(Ordering::Acquire) {
                    failure.reason = FailReason::Fatal;
                }
                in_flight.decide(Outcome::Failed(failure), &self.shared);
            }
        }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        oauth::answer(self.shared.tokens.as_ref())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // librdkafka repeats itself while the brokers are away.
        if let Some(occurred) = self.shared.error_log.ready() {
            tracing::warn!(occurred, "kafka client: {error}: {reason}");
        }
    }
}

/// The event's own fault: Kafka will not take it later either, unless somebody changes a setting.
pub(crate) fn is_refusal(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::InvalidTimestamp
                | RDKafkaErrorCode::PolicyViolation
        )
    )
}

/// The class of a librdkafka error, with its words.
pub(crate) fn failure(error: &KafkaError) -> DeliveryFailure {
    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
    let reason = match code {
        RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize => FailReason::TooLarge,
        RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::RequestTimedOut => FailReason::TimedOut,
        RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownPartition
        | RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::InvalidTopic => FailReason::UnknownTopic,
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::Authentication
        | RDKafkaErrorCode::SaslAuthenticationFailed => FailReason::NotAuthorized,
        RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight => FailReason::ShutDown,
        RDKafkaErrorCode::Fatal
        | RDKafkaErrorCode::OutOfOrderSequenceNumber
        | RDKafkaErrorCode::UnknownProducerId
        | RDKafkaErrorCode::InvalidProducerEpoch => FailReason::Fatal,
        _ => FailReason::Other,
    };
    DeliveryFailure { reason, detail: code.to_string() }
}

/// The failure of an event that never reached librdkafka before the deadline of a shutdown.
pub(crate) fn shut_down() -> DeliveryFailure {
    let detail = "the deadline of the shutdown passed before it was sent".to_owned();
    DeliveryFailure { reason: FailReason::ShutDown, detail }
}

/// Lets one log line through in ten seconds, with the number of times since the last one.
#[derive(Debug)]
struct EveryTenSeconds {
    start: Instant,
    next_ms: AtomicU64,
    held_back: AtomicU64,
}

impl EveryTenSeconds {
    fn new() -> EveryTenSeconds {
        EveryTenSeconds { start: Instant::now(), next_ms: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    fn ready(&self) -> Option<u64> {
        self.ready_at(self.start.elapsed())
    }

    fn ready_at(&self, now: Duration) -> Option<u64> {
        self.held_back.fetch_add(1, Ordering::Relaxed);
        let now = now.as_millis() as u64;
        let next = self.next_ms.load(Ordering::Relaxed);
        let mine = now >= next
            && self.next_ms.compare_exchange(next, now + 10_000, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        mine.then(|| self.held_back.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_every_ten_seconds_with_the_count() {
        let log = EveryTenSeconds::new();
        let at = |seconds| log.ready_at(Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(9), at(10), at(11), at(25)], [Some(1), None, None, Some(3), None, Some(2)]);
    }

    #[test]
    fn errors_have_their_class() {
        let class = |code| failure(&KafkaError::MessageProduction(code)).reason;
        assert_eq!(class(RDKafkaErrorCode::MessageTimedOut), FailReason::TimedOut);
        assert_eq!(class(RDKafkaErrorCode::MessageSizeTooLarge), FailReason::TooLarge);
        assert_eq!(class(RDKafkaErrorCode::UnknownTopic), FailReason::UnknownTopic);
        assert_eq!(class(RDKafkaErrorCode::PurgeInflight), FailReason::ShutDown);
        assert_eq!(class(RDKafkaErrorCode::NotEnoughReplicas), FailReason::Other);
    }
}
