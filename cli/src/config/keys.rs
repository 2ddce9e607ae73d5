//! Every key of the configuration, in one table: its place, what it may hold, and its default.
//!
//! The file, the environment, `config check`, the messages about wrong keys and the example file's test all read this
//! table; a key that is not here does not exist.

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Section and name, such as `kafka.topic`.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// As it would stand in the file; `None` when nothing is set.
    pub(crate) default: Option<Default>,
    /// Never shown.
    pub(crate) secret: bool,
}

/// What a key may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Text that is not empty; with `true` it may be empty.
    Text { may_be_empty: bool },
    /// A whole number within bounds.
    Integer { low: i64, high: i64 },
    /// A number from 0 to 1, kept as text.
    Ratio,
    /// One of a few words, in any case.
    Choice(&'static [&'static str]),
    /// `HOST:PORT` with a numeric host, or `off`.
    Listen,
    /// What `EnvFilter` takes: `info`, or `info,auditstream_consumer=debug`.
    LogLevel,
}

/// A default value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Default {
    Text(&'static str),
    Integer(i64),
}

/// The table whose keys are librdkafka's and so are not in [`KEYS`].
pub(crate) const PROPERTIES: &str = "kafka.properties";

const TEXT: Kind = Kind::Text { may_be_empty: false };
const fn integer(low: i64, high: i64) -> Kind {
    Kind::Integer { low, high }
}
const fn text(path: &'static str, default: &'static str) -> Key {
    Key { path, kind: TEXT, default: Some(Default::Text(default)), secret: false }
}
const fn unset(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, default: None, secret: false }
}
const fn number(path: &'static str, kind: Kind, default: i64) -> Key {
    Key { path, kind, default: Some(Default::Integer(default)), secret: false }
}
const fn choice(path: &'static str, words: &'static [&'static str], default: &'static str) -> Key {
    Key { path, kind: Kind::Choice(words), default: Some(Default::Text(default)), secret: false }
}

const HOUR_MS: i64 = 3_600_000;
const MIB: i64 = 1024 * 1024;

/// In the order in which they are shown; the keys of a section stand together.
pub(crate) const KEYS: &[Key] = &[
    text("kafka.bootstrap_servers", "127.0.0.1:9092"),
    text("kafka.topic", "audit.events"),
    text("kafka.dead_letter_topic", "audit.events.dlq"),
    choice("kafka.security_protocol", &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"], "plaintext"),
    unset("kafka.sasl_mechanism", Kind::Choice(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])),
    unset("kafka.sasl_username", TEXT),
    Key { path: "kafka.sasl_password", kind: TEXT, default: None, secret: true },
    unset("kafka.sasl_password_file", TEXT),
    unset("kafka.sasl_oauth_token_file", TEXT),
    unset("kafka.ssl_ca_location", TEXT),
    unset("kafka.ssl_certificate_location", TEXT),
    unset("kafka.ssl_key_location", TEXT),
    Key { path: "kafka.ssl_key_password", kind: TEXT, default: None, secret: true },
    unset("kafka.ssl_key_password_file", TEXT),
    text("clickhouse.url", "http://127.0.0.1:8123"),
    unset("clickhouse.ca_location", TEXT),
    unset("clickhouse.certificate_location", TEXT),
    unset("clickhouse.key_location", TEXT),
    text("clickhouse.database", "audit"),
    text("clickhouse.user", "default"),
    Key { path: "clickhouse.password", kind: Kind::Text { may_be_empty: true }, default: None, secret: true },
    unset("clickhouse.password_file", TEXT),
    number("clickhouse.insert_timeout_ms", integer(1_000, HOUR_MS), 60_000),
    number("clickhouse.query_timeout_ms", integer(1_000, HOUR_MS), 30_000),
    choice("schema.framing", &["single-object", "confluent"], "single-object"),
    unset("schema.confluent_schema_id", integer(0, u32::MAX as i64)),
    choice("schema.register", &["off", "on"], "off"),
    unset("schema.registry_url", Kind::Text { may_be_empty: true }),
    unset("schema.registry_username", TEXT),
    Key { path: "schema.registry_password", kind: TEXT, default: None, secret: true },
    unset("schema.registry_password_file", TEXT),
    unset("schema.registry_token_file", TEXT),
    unset("schema.registry_ca_location", TEXT),
    number("schema.registry_timeout_ms", integer(10, 600_000), 5_000),
    number("producer.queue_events", integer(1, 8_388_607), 65_536),
    number("producer.queue_bytes", integer(64 * 1024, 1 << 39), 64 * MIB),
    choice("producer.compression", &["zstd", "lz4", "none"], "zstd"),
    choice("producer.cloud_events", &["on", "off"], "on"),
    number("producer.linger_ms", integer(0, 900_000), 5),
    number("producer.delivery_timeout_ms", integer(1_000, 24 * HOUR_MS), 120_000),
    unset("producer.spill_folder", Kind::Text { may_be_empty: true }),
    number("producer.spill_max_bytes", integer(MIB, 1 << 40), 1024 * MIB),
    number("producer.spill_after_ms", integer(10, HOUR_MS), 2_000),
    Key { path: "outbox.url", kind: TEXT, default: None, secret: true },
    unset("outbox.url_file", TEXT),
    text("outbox.table", "audit_outbox"),
    choice("outbox.mode", &["delete", "mark"], "delete"),
    number("outbox.retention_s", integer(0, 315_360_000), 86_400),
    number("outbox.batch_rows", integer(1, 100_000), 5_000),
    number("outbox.batch_bytes", integer(1024, 1024 * MIB), 16 * MIB),
    number("outbox.poll_interval_ms", integer(1, HOUR_MS), 200),
    number("outbox.lease_ms", integer(200, HOUR_MS), 10_000),
    number("outbox.max_tries", integer(1, 1_000), 3),
    number("outbox.retry_backoff_ms", integer(1, HOUR_MS), 1_000),
    number("outbox.drain_deadline_ms", integer(100, HOUR_MS), 25_000),
    Key {
        path: "outbox.http_listen",
        kind: Kind::Listen,
        default: Some(Default::Text("127.0.0.1:9465")),
        secret: false,
    },
    unset("outbox.relay_id", TEXT),
    text("consumer.group_id", "auditstream"),
    unset("consumer.group_instance_id", Kind::Text { may_be_empty: true }),
    choice("consumer.group_protocol", &["classic", "consumer"], "classic"),
    unset("consumer.worker_id", TEXT),
    number("consumer.batch_min_rows", integer(1, 10_000_000), 10_000),
    number("consumer.batch_max_rows", integer(1, 10_000_000), 500_000),
    number("consumer.batch_max_bytes", integer(64 * 1024, 1024 * MIB), 32 * MIB),
    number("consumer.batch_max_age_ms", integer(1, HOUR_MS), 500),
    number("consumer.freshness_target_ms", integer(10, HOUR_MS), 1_000),
    number("consumer.max_parts", integer(1, 100_000), 300),
    number("consumer.in_flight_bytes", integer(64 * 1024, 16 * 1024 * MIB), 56 * MIB),
    number("consumer.drain_deadline_ms", integer(100, HOUR_MS), 25_000),
    Key {
        path: "consumer.http_listen",
        kind: Kind::Listen,
        default: Some(Default::Text("127.0.0.1:9464")),
        secret: false,
    },
    number("retention.default_days", integer(0, auditstream_store::MOST_DAYS as i64), 0),
    Key {
        path: "retention.rules",
        kind: Kind::Text { may_be_empty: true },
        default: Some(Default::Text("")),
        secret: false,
    },
    number("retention.dead_letter_days", integer(0, auditstream_store::MOST_DAYS as i64), 0),
    unset("archive.s3_endpoint", TEXT),
    choice("archive.s3_plain_http", &["off", "on"], "off"),
    unset("archive.s3_region", TEXT),
    unset("archive.s3_access_key_id", TEXT),
    Key { path: "archive.s3_secret_access_key", kind: TEXT, default: None, secret: true },
    unset("archive.s3_secret_access_key_file", TEXT),
    Key { path: "archive.s3_session_token", kind: TEXT, default: None, secret: true },
    unset("archive.s3_session_token_file", TEXT),
    unset("archive.s3_ca_location", TEXT),
    number("archive.s3_timeout_ms", integer(1_000, HOUR_MS), 60_000),
    Key {
        path: "telemetry.otlp_endpoint",
        kind: Kind::Text { may_be_empty: true },
        default: Some(Default::Text("")),
        secret: false,
    },
    Key { path: "telemetry.sample_ratio", kind: Kind::Ratio, default: Some(Default::Text("0.1")), secret: false },
    choice("log.format", &["text", "json"], "text"),
    Key { path: "log.level", kind: Kind::LogLevel, default: Some(Default::Text("info")), secret: false },
];

/// The key at `path`.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The known path most like `wrong`, when one is near enough to be a slip of the finger.
pub(crate) fn nearest(wrong: &str) -> Option<&'static str> {
    let candidates = KEYS.iter().map(|key| key.path).chain([PROPERTIES]);
    let (distance, path) = candidates.map(|path| (edit_distance(wrong, path), path)).min()?;
    let same_name = || {
        let name = wrong.rsplit('.').next()?;
        KEYS.iter().map(|key| key.path).find(|path| path.rsplit('.').next() == Some(name))
    };
    if distance <= 2 + wrong.len() / 8 { Some(path) } else { same_name() }
}

/// How many letters must be put in, taken out or replaced (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Kind {
    /// What would be right, for messages.
    pub(crate) fn expected(self) -> String {
        match self {
            Kind::Text { may_be_empty: true } => "text".to_owned(),
            Kind::Text { may_be_empty: false } => "text that is not empty".to_owned(),
            Kind::Integer { low, high } => format!("a whole number from {low} to {high}"),
            Kind::Ratio => "a number from 0 to 1".to_owned(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Listen => "an address such as \"127.0.0.1:9464\", or \"off\"".to_owned(),
            Kind::LogLevel => {
                "a level (error, warn, info, debug, trace) or a filter such as \"info,auditstream_consumer=debug\""
                    .to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_keys_are_found() {
        assert_eq!(nearest("kafka.topik"), Some("kafka.topic"));
        assert_eq!(nearest("kafka.bootstrap.servers"), Some("kafka.bootstrap_servers"));
        assert_eq!(nearest("consumer.compression"), Some("producer.compression"));
        assert_eq!(nearest("clikhouse.url"), Some("clickhouse.url"));
        assert_eq!(nearest("colour"), None);
    }

    #[test]
    fn edit_distances() {
        for (a, b, distance) in
            [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("same", "same", 0)]
        {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn paths_are_unique_and_their_sections_together() {
        let mut sections: Vec<&str> = KEYS.iter().filter_map(|key| key.path.split('.').next()).collect();
        sections.dedup();
        assert_eq!(
            sections,
            [
                "kafka",
                "clickhouse",
                "schema",
                "producer",
                "outbox",
                "consumer",
                "retention",
                "archive",
                "telemetry",
                "log"
            ]
        );
        for key in KEYS {
            assert_eq!(KEYS.iter().filter(|other| other.path == key.path).count(), 1, "{}", key.path);
        }
    }
}
