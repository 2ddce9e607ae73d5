//! What can go wrong, one type per boundary: making a producer, handing in an event, delivering it.
//!
//! No message holds a value out of an event or a setting that may be secret.

use std::fmt;

use auditstream_schemas::{AuditEvent, EventError};

/// A producer could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProducerError {
    /// A setting has a value that can't be used.
    #[error("setting `{name}`: {problem}")]
    Setting {
        /// The field of [`Config`](crate::Config), or the librdkafka property.
        name: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A property that carries the producer's promises, or that has its own field, stands in `properties`.
    #[error("property `{name}` can't be set: {reason}")]
    ReservedProperty {
        /// The librdkafka property.
        name: String,
        /// Why it is not the user's.
        reason: &'static str,
    },
    /// The spill can't be opened.
    #[cfg(feature = "spill")]
    #[error("the spill can't be opened")]
    Spill(#[source] crate::spill::SpillError),
    /// The operating system gave no thread.
    #[error("the background thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// An event that was not taken, with the reason. The event is whole and unchanged.
#[derive(thiserror::Error)]
#[error("the event was not taken: {reason}")]
pub struct Rejected {
    /// The event, given back.
    pub event: Box<AuditEvent>,
    /// Why.
    pub reason: RejectReason,
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("event_id", &self.event.event_id).field("reason", &self.reason).finish()
    }
}

/// Why an event was not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The bound by count or by bytes is reached. Try again when Kafka has acknowledged some.
    #[error("the queue is full ({events} events, {bytes} bytes)")]
    QueueFull {
        /// Events on their way.
        events: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// [`Producer::shutdown`](crate::Producer::shutdown) was called.
    #[error("the producer is shut down")]
    ShutDown,
    /// A field of the event is not as it must be.
    #[error("the event is invalid: {0}")]
    Invalid(EventError),
    /// The event would not fit a Kafka message.
    #[error("the event is too large ({bytes} bytes, at most {limit})")]
    TooLarge {
        /// What it would take.
        bytes: usize,
        /// What a message may take: `message_max_bytes` less the headers.
        limit: usize,
    },
    /// The idempotency key is not as it must be.
    #[error("idempotency_key: found text of {bytes} bytes, expected 1 to 255 bytes without NUL")]
    IdempotencyKey {
        /// Its length.
        bytes: usize,
    },
    /// An event with this idempotency key was taken within the window.
    #[error("an event with this idempotency key was recorded before, as {event_id}")]
    Duplicate {
        /// The id that the key makes.
        event_id: uuid::Uuid,
    },
}

/// Why an event that was taken did not reach Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FailReason {
    /// The broker or librdkafka found it too large.
    TooLarge,
    /// `delivery_timeout` passed without an acknowledgement. A broker may still have it.
    TimedOut,
    /// The topic or partition does not exist.
    UnknownTopic,
    /// The broker refused access.
    NotAuthorized,
    /// The deadline of a shutdown passed first. A broker may still have it.
    ShutDown,
    /// The idempotent producer's session broke; the producer made a new one.
    Fatal,
    /// A BEST_EFFORT event, and the spill is half full.
    Dropped,
    /// Any other error of the broker or of the client; the code is in the log and in [`DeliveryFailure`].
    Other,
}

impl FailReason {
    /// Every reason, in the order of [`FailReason::index`].
    pub const ALL: [FailReason; 8] = [
        FailReason::TooLarge,
        FailReason::TimedOut,
        FailReason::UnknownTopic,
        FailReason::NotAuthorized,
        FailReason::ShutDown,
        FailReason::Fatal,
        FailReason::Dropped,
        FailReason::Other,
    ];

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// A stable name for labels and logs, such as `timed-out`.
    pub fn as_str(self) -> &'static str {
        match self {
            FailReason::TooLarge => "too-large",
            FailReason::TimedOut => "timed-out",
            FailReason::UnknownTopic => "unknown-topic",
            FailReason::NotAuthorized => "not-authorized",
            FailReason::ShutDown => "shut-down",
            FailReason::Fatal => "fatal",
            FailReason::Dropped => "dropped",
            FailReason::Other => "other",
        }
    }
}

impl fmt::Display for FailReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the delivery of one event failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not delivered ({reason}): {detail}")]
pub struct DeliveryFailure {
    /// The class.
    pub reason: FailReason,
    /// librdkafka's or the broker's words; never the event's.
    pub detail: String,
}

/// What [`Producer::record_acked`](crate::Producer::record_acked) answers when there is no acknowledgement.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The event was not taken.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The event was taken and Kafka did not acknowledge it.
    #[error(transparent)]
    Failed(#[from] DeliveryFailure),
    /// Kafka did not take the event; it is on disk, in the spill, and will be sent.
    #[error("Kafka has not acknowledged it; it is on disk and will be sent")]
    Spilled,
    /// [`record_critical`](crate::Producer::record_critical) only: the deadline passed, and neither Kafka nor the disk has it. It may reach them later.
    #[error("neither Kafka nor the disk had it when the deadline passed")]
    Late,
}

/// An error with its causes, for the log.
#[cfg(any(feature = "relay", feature = "spill"))]
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_index_and_name() {
        for (position, reason) in FailReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), position);
        }
        let mut names: Vec<_> = FailReason::ALL.iter().map(|reason| reason.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FailReason::ALL.len());
    }
}
