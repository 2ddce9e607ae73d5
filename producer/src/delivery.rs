//! What happens to an event after librdkafka has it: exactly one outcome, told to everyone who asked.
//!
//! An [`InFlight`] travels with each message and comes back in the delivery callback. [`InFlight::decide`] is the only
//! place where an event's fate is counted, and dropping it gives the room in the queue back.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::budget::{Budget, Permit};
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

/// Called once for each event that was taken, with its id and its fate, from a background thread. It must be quick
/// and must not panic: deliveries wait behind it.
pub type Observer = dyn Fn(Uuid, Result<Delivery, &DeliveryFailure>) + Send + Sync;

/// How [`record_acked`](crate::Producer::record_acked) hears.
pub(crate) type Ack = oneshot::Sender<Result<Delivery, DeliveryFailure>>;

/// What the caller's threads, the background thread and the callbacks share.
pub(crate) struct Shared {
    pub(crate) budget: Arc<Budget>,
    pub(crate) counters: Counters,
    observer: Option<Box<Observer>>,
    tokens: Option<TokenFile>,
    failure_log: EveryTenSeconds,
    error_log: EveryTenSeconds,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("budget", &self.budget).field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(budget: Arc<Budget>, observer: Option<Box<Observer>>, tokens: Option<TokenFile>) -> Shared {
        Shared {
            budget,
            counters: Counters::default(),
            observer,
            tokens,
            failure_log: EveryTenSeconds::new(),
            error_log: EveryTenSeconds::new(),
        }
    }
}

/// One event between being taken and being decided.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) event_id: Uuid,
    pub(crate) ack: Option<Ack>,
    /// Held while any event that came before a flush is undecided.
    pub(crate) generation: Arc<()>,
    pub(crate) permit: Permit,
}

impl InFlight {
    /// Counts and tells the outcome, then gives the room back.
    pub(crate) fn decide(self, outcome: Result<Delivery, DeliveryFailure>, shared: &Shared) {
        match &outcome {
            Ok(_) => shared.counters.acked(),
            Err(failure) => {
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
            observer(self.event_id, outcome.as_ref().copied());
        }
        let InFlight { ack, permit, generation, .. } = self;
        // The room first: whoever hears of the outcome may hand in the next event at once.
        drop(permit);
        if let Some(ack) = ack {
            // The caller may have stopped waiting; the outcome is counted all the same.
            let _ = ack.send(outcome);
        }
        drop(generation);
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
        let outcome = match result {
            Ok(message) => Ok(Delivery { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => {
                let mut failure = failure(error);
                if failure.reason == FailReason::ShutDown && self.renewed.load(Ordering::Acquire) {
                    failure.reason = FailReason::Fatal;
                }
                Err(failure)
            }
        };
        in_flight.decide(outcome, &self.shared);
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
