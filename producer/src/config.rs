//! The producer's settings, and what they mean to librdkafka.
//!
//! Promise: what carries the contract (acknowledgement by all in-sync replicas, idempotence, the partitioner, the one
//! bound) can't be switched off, whatever stands in `properties`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use auditstream_schemas::Framing;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use crate::budget::{self, Lanes};
use crate::error::ProducerError;
use crate::security;

/// Settings of a [`Producer`](crate::Producer). Only `bootstrap_servers` has no usable default.
#[derive(Clone)]
pub struct Config {
    /// Brokers to begin with, `host:port` separated by commas.
    pub bootstrap_servers: String,
    /// The topic of the events. Default `audit.events`.
    pub topic: String,
    /// How the schema is named in front of each record. Default: Avro single-object encoding.
    pub framing: Framing,
    /// Most events on their way, 1 to 8,388,607. Default 65,536.
    pub queue_events: usize,
    /// Most bytes on their way, in memory, 64 KiB or more. Default 64 MiB.
    pub queue_bytes: usize,
    /// How much of the queue each priority may fill. Default: STANDARD 90 %, BEST_EFFORT 50 %, CRITICAL all.
    pub lanes: Lanes,
    /// Where events go while Kafka is away or the queue is full. Default: nowhere; then they are given back, or fail after `delivery_timeout`. With a spill that
    /// time-out has no use: [`SpillConfig::after`](crate::spill::SpillConfig::after) decides.
    #[cfg(feature = "spill")]
    pub spill: Option<crate::spill::SpillConfig>,
    /// What [`record_critical`](crate::Producer::record_critical) does when neither Kafka nor the disk takes the event. Default: it fails.
    pub critical: Critical,
    /// How long `record_critical` waits, 1 ms to 1 h. Default 5 s.
    pub critical_deadline: Duration,
    /// How long a second event with the same idempotency key is refused; 0: never. Default 10 minutes.
    pub idempotency_window: Duration,
    /// Most keys that are remembered, about 100 bytes each; the oldest is forgotten first. Default 100,000.
    pub idempotency_keys: usize,
    /// The tenant of the producer's own `audit.loss` events; `None`: it writes none. Default `auditstream`.
    pub loss_tenant: Option<String>,
    /// How batches are compressed. Default zstd.
    pub compression: Compression,
    /// Whether each record has the six CloudEvents headers. What they say is in the event too: they are for routers and consumers that don't read Avro.
    /// Without them librdkafka takes half the CPU time. `traceparent` is a header either way. Default: true.
    pub cloud_events: bool,
    /// How long a batch waits for more events, 0 to 900 s. Default 5 ms.
    pub linger: Duration,
    /// How long an event may take to be acknowledged, retries included, 1 ms to 24 days. Default 120 s. While more than 16,384 events are on their way, the
    /// next ones wait for their turn first, at most as long again.
    pub delivery_timeout: Duration,
    /// Largest message with key and headers, in bytes, 1,000 to 1,000,000,000; at most the topic's
    /// `max.message.bytes`. Default 1,000,000.
    pub message_max_bytes: usize,
    /// Shown in the brokers' logs and quotas. Default `auditstream`.
    pub client_id: String,
    /// Written into each event with an epoch and a sequence number, so that gaps can be proven. Default: the host's name.
    pub producer_id: Option<String>,
    /// How long dropping the last handle without [`shutdown`](crate::Producer::shutdown) may wait for
    /// acknowledgements. Default 5 s.
    pub drop_deadline: Duration,
    /// With the property `sasl.mechanism=OAUTHBEARER` only, and then needed: the file that holds the token (a JWT), read anew at each refresh.
    pub oauth_token_file: Option<PathBuf>,
    /// Rules by which values are taken out of each event before it is encoded, on the sender thread. Default: none.
    #[cfg(feature = "redaction")]
    pub redaction: Option<std::sync::Arc<crate::redaction::Redaction>>,
    /// Further librdkafka properties, such as `security.protocol`. Those that carry the producer's promises are refused.
    pub properties: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            bootstrap_servers: String::new(),
            topic: "audit.events".to_owned(),
            framing: Framing::SingleObject,
            queue_events: 65_536,
            queue_bytes: 64 * 1024 * 1024,
            lanes: Lanes::default(),
            #[cfg(feature = "spill")]
            spill: None,
            critical: Critical::default(),
            critical_deadline: Duration::from_secs(5),
            idempotency_window: Duration::from_secs(600),
            idempotency_keys: 100_000,
            loss_tenant: Some("auditstream".to_owned()),
            compression: Compression::Zstd,
            cloud_events: true,
            linger: Duration::from_millis(5),
            delivery_timeout: Duration::from_secs(120),
            message_max_bytes: 1_000_000,
            client_id: "auditstream".to_owned(),
            producer_id: None,
            drop_deadline: Duration::from_secs(5),
            oauth_token_file: None,
            #[cfg(feature = "redaction")]
            redaction: None,
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for Config {
    /// Values of `properties` may be secrets and are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Config");
        #[cfg(feature = "spill")]
        shown.field("spill", &self.spill);
        shown
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("topic", &self.topic)
            .field("framing", &self.framing)
            .field("queue_events", &self.queue_events)
            .field("queue_bytes", &self.queue_bytes)
            .field("lanes", &self.lanes)
            .field("critical", &self.critical)
            .field("critical_deadline", &self.critical_deadline)
            .field("idempotency_window", &self.idempotency_window)
            .field("idempotency_keys", &self.idempotency_keys)
            .field("loss_tenant", &self.loss_tenant)
            .field("compression", &self.compression)
            .field("cloud_events", &self.cloud_events)
            .field("linger", &self.linger)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("message_max_bytes", &self.message_max_bytes)
            .field("client_id", &self.client_id)
            .field("producer_id", &self.producer_id)
            .field("drop_deadline", &self.drop_deadline)
            .field("oauth_token_file", &self.oauth_token_file)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// What [`record_critical`](crate::Producer::record_critical) answers when neither Kafka nor the disk takes the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Critical {
    /// An error: the caller does not do what can't be audited.
    #[default]
    FailClosed,
    /// [`Durable::NotYet`](crate::Durable::NotYet): the caller goes on, and the gap is counted, logged and told by an `audit.loss` event.
    FailOpen,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Smallest.
    #[default]
    Zstd,
    /// Least CPU time.
    Lz4,
    /// Not at all.
    None,
}

impl Compression {
    /// The name that Kafka's settings use.
    pub fn as_str(self) -> &'static str {
        match self {
            Compression::Zstd => "zstd",
            Compression::Lz4 => "lz4",
            Compression::None => "none",
        }
    }
}

const PROMISE: &str = "the producer's delivery promise rests on it";
const OWN_FIELD: &str = "it has its own field in the configuration";
const CERTIFICATES: &str = "who speaks TLS checks the broker's certificate and its host name";
const ONE_BOUND: &str = "queue_events and queue_bytes are the one bound";

/// Properties that are not the user's, with librdkafka's second names for them.
const RESERVED: &[(&str, &str)] = &[
    ("acks", PROMISE),
    ("request.required.acks", PROMISE),
    ("enable.idempotence", PROMISE),
    ("partitioner", PROMISE),
    ("delivery.report.only.error", PROMISE),
    ("transactional.id", PROMISE),
    ("retries", PROMISE),
    ("message.send.max.retries", PROMISE),
    ("max.in.flight", PROMISE),
    ("max.in.flight.requests.per.connection", PROMISE),
    ("queue.buffering.max.messages", ONE_BOUND),
    ("queue.buffering.max.kbytes", ONE_BOUND),
    ("bootstrap.servers", OWN_FIELD),
    ("metadata.broker.list", OWN_FIELD),
    ("client.id", OWN_FIELD),
    ("linger.ms", OWN_FIELD),
    ("queue.buffering.max.ms", OWN_FIELD),
    ("compression.codec", OWN_FIELD),
    ("compression.type", OWN_FIELD),
    ("delivery.timeout.ms", OWN_FIELD),
    ("message.timeout.ms", OWN_FIELD),
    ("message.max.bytes", OWN_FIELD),
    (security::FIXED[0], CERTIFICATES),
    (security::FIXED[1], CERTIFICATES),
];

impl Config {
    /// Checks everything that can be checked without a broker.
    ///
    /// # Errors
    /// The first setting that can't be used.
    pub fn validate(&self) -> Result<(), ProducerError> {
        let within = |name: &str, value: u128, low: u128, high: u128, unit: &str| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(setting(name, format!("{value} {unit} is outside of {low} to {high}")))
        };
        if self.bootstrap_servers.trim().is_empty() {
            return Err(setting("bootstrap_servers", "is empty; give at least one host:port".to_owned()));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.topic.is_empty() || self.topic.len() > 249 || !self.topic.chars().all(legal) {
            let problem = "must be 1 to 249 of the characters a-z A-Z 0-9 . _ -".to_owned();
            return Err(setting("topic", problem));
        }
        within("queue_events", self.queue_events as u128, 1, budget::MAX_EVENTS as u128, "events")?;
        within("queue_bytes", self.queue_bytes as u128, 64 * 1024, budget::MAX_BYTES as u128, "bytes")?;
        within("linger", self.linger.as_millis(), 0, 900_000, "ms")?;
        within("delivery_timeout", self.delivery_timeout.as_millis(), 1, 2_073_600_000, "ms")?;
        within("message_max_bytes", self.message_max_bytes as u128, 1_000, 1_000_000_000, "bytes")?;
        within("lanes.standard", u128::from(self.lanes.standard), 1, 100, "percent")?;
        within("lanes.best_effort", u128::from(self.lanes.best_effort), 1, u128::from(self.lanes.standard), "percent")?;
        within("critical_deadline", self.critical_deadline.as_millis(), 1, 3_600_000, "ms")?;
        within("idempotency_window", self.idempotency_window.as_millis(), 0, 86_400_000, "ms")?;
        within("idempotency_keys", self.idempotency_keys as u128, 1, 100_000_000, "keys")?;
        #[cfg(feature = "spill")]
        if let Some((name, problem)) = self.spill.as_ref().and_then(crate::spill::SpillConfig::problem) {
            return Err(setting(name, problem));
        }
        if self.delivery_timeout < self.linger {
            return Err(setting("delivery_timeout", "is shorter than linger".to_owned()));
        }
        for name in self.properties.keys() {
            if let Some((_, reason)) = RESERVED.iter().find(|(reserved, _)| reserved == name) {
                return Err(ProducerError::ReservedProperty { name: name.clone(), reason });
            }
        }
        match (security::uses_tokens(&self.to_client_config()), &self.oauth_token_file) {
            (true, None) => {
                let problem = "must name the token's file when sasl.mechanism is OAUTHBEARER".to_owned();
                return Err(setting("oauth_token_file", problem));
            }
            (false, Some(_)) => {
                return Err(setting("oauth_token_file", "has no use unless sasl.mechanism is OAUTHBEARER".to_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether there is a spill.
    pub(crate) fn spills(&self) -> bool {
        #[cfg(feature = "spill")]
        return self.spill.is_some();
        #[cfg(not(feature = "spill"))]
        false
    }

    /// Most bytes of the spill; 0 without one.
    #[cfg(feature = "metrics")]
    pub(crate) fn spill_bytes(&self) -> u64 {
        #[cfg(feature = "spill")]
        return self.spill.as_ref().map_or(0, |spill| spill.max_bytes);
        #[cfg(not(feature = "spill"))]
        0
    }

    /// The same as librdkafka's configuration.
    pub(crate) fn to_client_config(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        // Below the user's: what only suits. zstd at level 1 takes a fifth fewer instructions than at librdkafka's
        // default, 3, and was not larger: 9.7 against 11.1 MB for 300,000 events.
        client
            .set("compression.level", "1")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.keepalive.enable", "true");
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        client
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", &self.client_id)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("compression.codec", self.compression.as_str())
            .set("linger.ms", self.linger.as_millis().to_string())
            // With a spill no message ends by itself: what ends alone could be overtaken.
            .set("delivery.timeout.ms", if self.spills() { 0 } else { self.delivery_timeout.as_millis() }.to_string())
            .set("message.max.bytes", self.message_max_bytes.to_string())
            // librdkafka's own bounds are out of reach: 0 is unlimited, the other one is its maximum in KiB (2 TiB).
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", "2147483647")
            .set_log_level(RDKafkaLogLevel::Info);
        security::check_certificates(&mut client);
        client
    }
}

fn setting(name: &str, problem: String) -> ProducerError {
    ProducerError::Setting { name: name.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn good() -> Config {
        Config { bootstrap_servers: "127.0.0.1:9092".to_owned(), ..Config::default() }
    }

    #[test]
    fn the_default_needs_only_brokers() {
        good().validate().unwrap();
        let error = Config::default().validate().unwrap_err().to_string();
        assert!(error.contains("bootstrap_servers"), "{error}");
    }

    #[test]
    fn wrong_values_name_their_setting() {
        let cases = [
            (Config { topic: "a b".into(), ..good() }, "topic"),
            (Config { queue_events: 0, ..good() }, "queue_events"),
            (Config { queue_bytes: 10, ..good() }, "queue_bytes"),
            (Config { linger: Duration::from_secs(901), ..good() }, "linger"),
            (Config { delivery_timeout: Duration::ZERO, ..good() }, "delivery_timeout"),
            (Config { lanes: Lanes { standard: 101, best_effort: 1 }, ..good() }, "lanes.standard"),
            (Config { lanes: Lanes { standard: 60, best_effort: 61 }, ..good() }, "lanes.best_effort"),
            (Config { critical_deadline: Duration::ZERO, ..good() }, "critical_deadline"),
            (Config { idempotency_keys: 0, ..good() }, "idempotency_keys"),
            (Config { message_max_bytes: 5, ..good() }, "message_max_bytes"),
        ];
        for (config, name) in cases {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("setting `{name}`")), "{error}");
        }
    }

    #[test]
    fn what_carries_the_contract_can_not_be_overridden() {
        for (name, _) in RESERVED {
            let config = Config { properties: [((*name).to_owned(), "1".to_owned())].into(), ..good() };
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        let config = Config { properties: [("socket.timeout.ms".to_owned(), "1000".to_owned())].into(), ..good() };
        config.validate().unwrap();
        assert_eq!(config.to_client_config().get("socket.timeout.ms"), Some("1000"));
    }

    #[test]
    fn tls_checks_certificates_and_tokens_need_their_file() {
        let oauth = [("security.protocol", "sasl_ssl"), ("sasl.mechanism", "OAUTHBEARER")];
        let oauth: BTreeMap<_, _> = oauth.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let config = Config { properties: oauth, oauth_token_file: Some("/run/token".into()), ..good() };
        config.validate().unwrap();
        assert_eq!(config.to_client_config().get("ssl.endpoint.identification.algorithm"), Some("https"));
        let wrong =
            [Config { oauth_token_file: None, ..config.clone() }, Config { properties: BTreeMap::new(), ..config }];
        for config in wrong {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with("setting `oauth_token_file`: "), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let config = Config { properties: [("sasl.password".to_owned(), "hunter2".to_owned())].into(), ..good() };
        let shown = format!("{config:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }
}
