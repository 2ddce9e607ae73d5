//! What a broker's refusal means: wait, or call a human and say what he should do.

use std::fmt;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Reader;

/// Why there is no connection that may be used, though a broker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The broker does not take us for who we say we are, or we have nothing to show.
    Authentication(String),
    /// No TLS connection: mostly a certificate that we do not trust.
    Tls(String),
}

impl Refusal {
    pub(super) fn new(code: RDKafkaErrorCode, reason: &str) -> Option<Self> {
        match code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                Some(Self::Authentication(reason.to_owned()))
            }
            RDKafkaErrorCode::SSL => Some(Self::Tls(reason.to_owned())),
            // With TLS 1.3 a broker refuses a client's certificate after the client's handshake is over: then it is a connection that broke.
            RDKafkaErrorCode::BrokerTransportFailure if reason.contains("SSL alert") => {
                Some(Self::Tls(reason.to_owned()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authentication(reason) => write!(f, "kafka refuses this worker: {reason}"),
            Self::Tls(reason) => write!(
                f,
                "no trusted connection to kafka: {reason}; an authority in kafka.ssl_ca_location must have signed the \
                 brokers' certificates, these must name the hosts in kafka.bootstrap_servers, and brokers that want a \
                 certificate must trust the one in kafka.ssl_certificate_location"
            ),
        }
    }
}

/// Whether a read failed because its offset is not in the topic.
pub(crate) fn is_out_of_range(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
    matches!(error, KafkaError::MessageConsumption(AutoOffsetReset | OffsetOutOfRange))
}

impl Reader {
    /// Whether a broker's answer to a read needs a human: `Some` says what to do.
    pub(crate) fn needs_a_human(&self, error: &KafkaError, group: &str) -> Option<String> {
        let code = error.rdkafka_error_code();
        let refusal = self.refusal().filter(|_| code.is_some_and(|code| Refusal::new(code, "").is_some()));
        // A token renews itself, a password does not.
        if refusal.is_some() && self.consumer.context().tokens.is_some() {
            return None;
        }
        // The error that is read says only that it is fatal.
        match self.consumer.client().fatal_error() {
            Some((RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::UnreleasedInstanceId, _)) => {
                Some(instance_in_use(group))
            }
            Some((code, reason)) => Some(format!("the kafka client gave up: {code}: {reason}")),
            None => {
                let why = needs_a_human(error, &self.topic, group)?;
                Some(refusal.map_or(why, |refusal| refusal.to_string()))
            }
        }
    }
}

/// The same, as far as the code alone tells.
fn needs_a_human(error: &KafkaError, topic: &str, group: &str) -> Option<String> {
    let KafkaError::MessageConsumption(code) = error else {
        return match error {
            KafkaError::MessageConsumptionFatal(code) => Some(format!("the kafka client gave up: {code}")),
            _ => None,
        };
    };
    match code {
        RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => Some(format!(
            "the committed offset of group {group} is not in topic {topic} any more: records were deleted before they were read; \
             decide where to go on and set the group's offset there"
        )),
        RDKafkaErrorCode::TopicAuthorizationFailed => Some(format!("this user may not read topic {topic}")),
        RDKafkaErrorCode::GroupAuthorizationFailed => Some(format!("this user may not use consumer group {group}")),
        RDKafkaErrorCode::InvalidSessionTimeout => Some(format!(
            "the brokers do not allow the session timeout of group {group}: set session.timeout.ms between their \
             group.min.session.timeout.ms and group.max.session.timeout.ms"
        )),
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
            Some("kafka refused the user name or password".to_owned())
        }
        _ => None,
    }
}

fn instance_in_use(group: &str) -> String {
    format!(
        "another member of group {group} has this worker's consumer.group_instance_id, or had it and died less than a session \
         timeout ago: give each worker its own"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_broker_that_is_away() {
        let heard = |code| Refusal::new(code, "because").map(|refusal| refusal.to_string());
        assert_eq!(heard(RDKafkaErrorCode::Authentication).as_deref(), Some("kafka refuses this worker: because"));
        assert!(
            heard(RDKafkaErrorCode::SSL)
                .is_some_and(|said| said.contains("because; an authority in kafka.ssl_ca_location"))
        );
        assert_eq!(heard(RDKafkaErrorCode::AllBrokersDown), None);
        assert_eq!(heard(RDKafkaErrorCode::BrokerTransportFailure), None);
        let alert = "Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42";
        assert!(matches!(Refusal::new(RDKafkaErrorCode::BrokerTransportFailure, alert), Some(Refusal::Tls(_))));
    }

    #[test]
    fn only_what_a_restart_cannot_mend_needs_a_human() {
        let asks = |error: KafkaError| needs_a_human(&error, "events", "workers");
        let gone = asks(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset));
        assert!(gone.is_some_and(|why| why.contains("workers") && why.contains("events")));
        assert!(asks(KafkaError::MessageConsumption(RDKafkaErrorCode::TopicAuthorizationFailed)).is_some());
        assert!(asks(KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId)).is_some());
        for passing in [
            RDKafkaErrorCode::AllBrokersDown,
            RDKafkaErrorCode::BrokerTransportFailure,
            RDKafkaErrorCode::UnknownTopicOrPartition,
        ] {
            assert_eq!(asks(KafkaError::MessageConsumption(passing)), None);
        }
    }
}
