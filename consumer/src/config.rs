//! What a worker needs to know. The CLI builds it from the configuration file; services may build it themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auditstream_producer::oauth::TokenFile;
use auditstream_producer::security;
use auditstream_schemas::Schemas;
use auditstream_schemas::registry::Registry;
use rdkafka::ClientConfig;

use crate::certificates::CertificateFile;
use crate::core::{Backoff, Limits, Targets};
use crate::telemetry::Telemetry;

/// At most so many inserts run at once: one that the server works on and one that is on its way there.
const MAX_INSERTS: usize = 2;
/// Reading held back for longer than this pauses the partitions, so that polling can go on serving the group.
const PAUSE_AFTER: Duration = Duration::from_secs(2);
/// Work of revoked partitions is finished or dropped within this time; the group waits for it.
const REVOKE_DEADLINE: Duration = Duration::from_secs(15);
/// Longest wait before the second attempt.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Longest wait at all: a server that returns is used again within this time.
const BACKOFF_CAP: Duration = Duration::from_secs(3);

/// Settings of one worker.
#[derive(Clone, Debug)]
pub struct Config {
    /// librdkafka settings that all clients share: `bootstrap.servers`, `security.*`, `sasl.*`, `ssl.*`, and what the user passes through.
    pub kafka_properties: BTreeMap<String, String>,
    /// The file that holds the token (a JWT), read anew at each refresh; needed with `sasl.mechanism=OAUTHBEARER`, without effect otherwise.
    pub oauth_token_file: Option<PathBuf>,
    /// The topic that the events come from.
    pub topic: String,
    /// The topic that takes what can't be stored.
    pub dead_letter_topic: String,
    /// The consumer group that the workers form.
    pub group_id: String,
    /// Static membership (KIP-345): a worker that comes back under this name within the session timeout finds its partitions as it left them, and
    /// nobody else notices. Each worker needs its own. The other side: the partitions of one that does not come back rest until the timeout.
    pub group_instance_id: Option<String>,
    /// Who shares the partitions out, and how.
    pub group_protocol: GroupProtocol,
    /// Names this worker in the ledger and in dead letters.
    pub worker_id: String,
    /// Rows that one insert should have, when there are as many: the cost of a part is spread over them. The floor of the adaptive batch size.
    pub batch_min_rows: usize,
    /// Rows of one insert, at most. The ceiling of the adaptive batch size.
    pub batch_max_rows: usize,
    /// Wire bytes of the records of one insert, at most (plus one record).
    pub batch_max_bytes: usize,
    /// How long a record waits for others before it is inserted; shorter when inserts take long, longer while ClickHouse has too many parts.
    pub batch_max_age: Duration,
    /// From the arrival of a record in Kafka to its being queryable, at low traffic: what the waiting is fitted to.
    pub freshness_target: Duration,
    /// Parts of one partition of the events table above which inserts become fewer.
    pub max_parts: u64,
    /// Wire bytes of the records held at once, at most (plus one record). Memory is about three times this, plus the prefetch.
    pub in_flight_bytes: usize,
    /// A worker that is asked to stop finishes within this time.
    pub drain_deadline: Duration,
    /// Where `/livez`, `/readyz` and `/metrics` are served; `None` serves nothing.
    pub http_listen: Option<SocketAddr>,
    /// Files whose certificates' ends are metrics.
    pub certificates: Vec<CertificateFile>,
    /// Where traces go; `None` makes none.
    pub telemetry: Option<Telemetry>,
    /// The writer schemas that are understood.
    pub schemas: Arc<Schemas>,
    /// Asked for the writer schemas that `schemas` does not have. Without one, their records are dead letters. One attempt a request is enough: the worker
    /// repeats it.
    pub registry: Option<Registry>,
}

/// How the members of a consumer group come to their partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The members agree among themselves (cooperative-sticky); works with every broker.
    #[default]
    Classic,
    /// The broker decides (KIP-848, `group.remote.assignor=uniform`); Kafka 4.0 or later. Session and heartbeat times are the broker's too.
    Consumer,
}

impl GroupProtocol {
    /// `classic` or `consumer`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }
}

/// Properties that a client may not have under [`GroupProtocol::Consumer`]: they are the broker's.
pub const CLASSIC_ONLY: [&str; 4] =
    ["partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type"];

/// Prefetch and group settings of librdkafka, name and value, each overridable by the user.
pub const CONSUMER_DEFAULTS: [(&str, &str); 12] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "2000"),
    // librdkafka's default of one second leaves a fast consumer idle most of the time.
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.wait.max.ms", "100"),
    ("queued.min.messages", "200000"),
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.message.max.bytes", "1048576"),
    // A response is unpacked as a whole: compressed bytes times four or more are in memory at once.
    ("fetch.max.bytes", "4194304"),
    ("isolation.level", "read_committed"),
    // So long events may wait in a partition that was added; librdkafka's default is five minutes.
    ("topic.metadata.refresh.interval.ms", "10000"),
    // The lag of each partition comes from here, and with it how large batches should be.
    ("statistics.interval.ms", "1000"),
];

/// What the delivery guarantee rests on; a user's setting of these is overruled by the CLI's check and by this list.
const CONSUMER_FIXED: [(&str, &str); 5] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // An offset that is gone is a loss that a human must see, never a silent jump.
    ("auto.offset.reset", "error"),
    ("allow.auto.create.topics", "false"),
    ("enable.partition.eof", "false"),
];

const PRODUCER_FIXED: [(&str, &str); 5] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("partitioner", "murmur2_random"),
    ("linger.ms", "5"),
    ("message.timeout.ms", "30000"),
];

impl Config {
    pub(crate) fn consumer_properties(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        let is_ours = |key: &str| self.group_protocol == GroupProtocol::Classic || !CLASSIC_ONLY.contains(&key);
        for (key, value) in CONSUMER_DEFAULTS.into_iter().filter(|(key, _)| is_ours(key)) {
            config.set(key, value);
        }
        for (key, value) in &self.kafka_properties {
            config.set(key, value);
        }
        for (key, value) in CONSUMER_FIXED {
            config.set(key, value);
        }
        config.set("group.id", &self.group_id).set("client.id", &self.worker_id);
        config.set("group.protocol", self.group_protocol.as_str());
        if self.group_protocol == GroupProtocol::Consumer {
            config.set("group.remote.assignor", "uniform");
        }
        if let Some(instance) = &self.group_instance_id {
            config.set("group.instance.id", instance);
        }
        security::check_certificates(&mut config);
        config
    }

    /// Where the clients find their token.
    pub(crate) fn tokens(&self) -> Option<TokenFile> {
        self.oauth_token_file.as_ref().map(TokenFile::new)
    }

    pub(crate) fn dead_letter_properties(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in self.kafka_properties.iter().filter(|(key, _)| is_client_property(key)) {
            config.set(key, value);
        }
        for (key, value) in PRODUCER_FIXED {
            config.set(key, value);
        }
        // A dead letter is its source record plus headers: the broker's limit decides, not the client's.
        config.set("message.max.bytes", "16777216").set("client.id", format!("{}-dlq", self.worker_id));
        security::check_certificates(&mut config);
        config
    }

    pub(crate) fn limits(&self, seed: u64) -> Limits {
        Limits {
            targets: Targets {
                floor_rows: self.batch_min_rows.min(self.batch_max_rows),
                ceiling_rows: self.batch_max_rows,
                max_age: self.batch_max_age,
                freshness: self.freshness_target,
                max_parts: self.max_parts,
            },
            batch_max_bytes: self.batch_max_bytes,
            in_flight_bytes: self.in_flight_bytes,
            max_inserts: MAX_INSERTS,
            pause_after: PAUSE_AFTER,
            revoke_deadline: REVOKE_DEADLINE,
            drain_deadline: self.drain_deadline,
            backoff: Backoff { base: BACKOFF_BASE, cap: BACKOFF_CAP, seed },
        }
    }
}

/// Whether a librdkafka setting speaks of the connection, so that it fits producers too.
fn is_client_property(key: &str) -> bool {
    const PREFIXES: [&str; 8] =
        ["bootstrap.", "metadata.", "security.", "sasl.", "ssl.", "socket.", "broker.", "enable.ssl."];
    PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config() -> Config {
        Config {
            kafka_properties: [
                ("bootstrap.servers", "127.0.0.1:1"),
                ("session.timeout.ms", "6000"),
                ("enable.auto.commit", "true"),
                ("auto.offset.reset", "latest"),
                ("acks", "0"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            oauth_token_file: None,
            topic: "events".into(),
            dead_letter_topic: "dead".into(),
            group_id: "group".into(),
            group_instance_id: None,
            group_protocol: GroupProtocol::Classic,
            worker_id: "w1".into(),
            batch_min_rows: 5,
            batch_max_rows: 10,
            batch_max_bytes: 1000,
            batch_max_age: Duration::from_millis(5),
            freshness_target: Duration::from_secs(1),
            max_parts: 300,
            in_flight_bytes: 2000,
            drain_deadline: Duration::from_secs(1),
            http_listen: None,
            certificates: Vec::new(),
            telemetry: None,
            schemas: Arc::new(Schemas::builtin().unwrap()),
            registry: None,
        }
    }

    #[test]
    fn users_tune_but_never_lift_the_guarantee() {
        let consumer = config().consumer_properties();
        assert_eq!(consumer.get("session.timeout.ms"), Some("6000"));
        assert_eq!(consumer.get("enable.auto.commit"), Some("false"));
        assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
        assert_eq!(consumer.get("group.id"), Some("group"));
    }

    #[test]
    fn dead_letters_take_the_connection_and_nothing_else() {
        let producer = config().dead_letter_properties();
        assert_eq!(producer.get("bootstrap.servers"), Some("127.0.0.1:1"));
        assert_eq!(producer.get("acks"), Some("all"));
        assert_eq!(producer.get("session.timeout.ms"), None, "a producer would refuse it");
        producer.create::<rdkafka::producer::BaseProducer>().unwrap();
    }

    #[test]
    fn the_client_knows_every_setting() {
        config().consumer_properties().create::<rdkafka::consumer::BaseConsumer>().unwrap();
    }

    #[test]
    fn the_brokers_settings_are_left_to_it_under_the_new_protocol() {
        let mut config = config();
        config.kafka_properties.remove("session.timeout.ms");
        config.group_protocol = GroupProtocol::Consumer;
        config.group_instance_id = Some("worker-0".to_owned());
        let consumer = config.consumer_properties();
        assert!(CLASSIC_ONLY.iter().all(|key| consumer.get(key).is_none()));
        assert_eq!(consumer.get("group.instance.id"), Some("worker-0"));
        assert_eq!(consumer.get("group.remote.assignor"), Some("uniform"));
        consumer.create::<rdkafka::consumer::BaseConsumer>().unwrap();
        config.kafka_properties.insert("session.timeout.ms".to_owned(), "6000".to_owned());
        assert!(config.consumer_properties().create::<rdkafka::consumer::BaseConsumer>().is_err());
    }

    #[test]
    fn both_clients_check_host_names_whatever_the_user_says() {
        let mut config = config();
        let tls = [("security.protocol", "ssl"), ("ssl.endpoint.identification.algorithm", "none")];
        config.kafka_properties.extend(tls.map(|(key, value)| (key.to_owned(), value.to_owned())));
        for client in [config.consumer_properties(), config.dead_letter_properties()] {
            assert_eq!(client.get("ssl.endpoint.identification.algorithm"), Some("https"));
            assert_eq!(client.get("enable.ssl.certificate.verification"), Some("true"));
        }
    }

    #[test]
    fn librdkafka_is_built_with_what_users_need() {
        let features = ClientConfig::new().create_native_config().unwrap().get("builtin.features").unwrap();
        for feature in ["ssl", "sasl_scram", "sasl_plain", "sasl_oauthbearer", "zstd", "lz4"] {
            assert!(features.split(',').any(|built| built == feature), "{feature} is not in {features}");
        }
    }
}
