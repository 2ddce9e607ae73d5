//! What the configuration means: typed values, checked together, ready for the parts that use them.
//!
//! Promise: whoever holds [`Settings`] has a configuration in which every key was right; secrets are read and redacted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use auditstream_consumer::{CLASSIC_ONLY, GroupProtocol, Telemetry};
use auditstream_producer::Compression;
use auditstream_producer::spill::SpillConfig;
use auditstream_schemas::registry::{Registry, RegistryConfig};
use auditstream_schemas::{AUDIT_EVENT_V1, Framing, WriterId};
use auditstream_store::{Secret, Tls};

use super::archive;
use super::keys::{self, Default as KeyDefault, PROPERTIES};
use super::outbox;
use super::properties;
use super::raw::{Origin, Problem, Raw, Value};
use super::registry;
use super::retention;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) kafka: Kafka,
    pub(crate) clickhouse: ClickHouse,
    pub(crate) framing: Framing,
    /// The framing is the registry's, and it has to say the schema's id.
    pub(crate) asks_for_id: bool,
    /// Records of this Confluent id are understood whatever `framing` says.
    pub(crate) confluent_schema_id: Option<u32>,
    /// Who is asked for schemas that are not known.
    pub(crate) registry: Option<RegistryConfig>,
    pub(crate) producer: Producer,
    pub(crate) outbox: outbox::Outbox,
    pub(crate) consumer: Consumer,
    pub(crate) retention: auditstream_store::Retention,
    pub(crate) archive: archive::Archive,
    /// `[telemetry]`; `None` when no endpoint is set.
    pub(crate) telemetry: Option<Telemetry>,
    pub(crate) log: Log,
}

/// `[kafka]`
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Kafka {
    pub(crate) bootstrap_servers: String,
    pub(crate) topic: String,
    pub(crate) dead_letter_topic: String,
    /// librdkafka's settings for every client but `bootstrap.servers`: security, and what the user passes through.
    pub(crate) properties: BTreeMap<String, String>,
    /// For `OAUTHBEARER` only.
    pub(crate) oauth_token_file: Option<PathBuf>,
}

impl std::fmt::Debug for Kafka {
    /// Values of properties may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("topic", &self.topic)
            .field("dead_letter_topic", &self.dead_letter_topic)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("oauth_token_file", &self.oauth_token_file)
            .finish()
    }
}

/// `[clickhouse]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClickHouse {
    pub(crate) url: String,
    pub(crate) tls: Tls,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) insert_timeout: Duration,
    pub(crate) query_timeout: Duration,
}

/// `[producer]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) queue_events: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) compression: Compression,
    pub(crate) cloud_events: bool,
    pub(crate) linger: Duration,
    pub(crate) delivery_timeout: Duration,
    /// `None` when no folder is set.
    pub(crate) spill: Option<SpillConfig>,
}

/// `[consumer]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) group_id: String,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) group_protocol: GroupProtocol,
    pub(crate) worker_id: Option<String>,
    pub(crate) batch_min_rows: usize,
    pub(crate) batch_max_rows: usize,
    pub(crate) batch_max_bytes: usize,
    pub(crate) batch_max_age: Duration,
    pub(crate) freshness_target: Duration,
    pub(crate) max_parts: u64,
    pub(crate) in_flight_bytes: usize,
    pub(crate) drain_deadline: Duration,
    pub(crate) http_listen: Option<SocketAddr>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) json: bool,
    pub(crate) level: String,
}

impl Settings {
    /// Checks the rest: what belongs together, and what the parts themselves refuse. Reads secrets out of their files.
    pub(crate) fn from_raw(raw: &Raw) -> Result<Settings, Vec<Problem>> {
        let mut check = Checker { raw, problems: raw.problems.clone() };
        let settings = Settings {
            kafka: check.kafka(),
            clickhouse: ClickHouse {
                url: check.text("clickhouse.url"),
                tls: Tls {
                    ca_location: check.path("clickhouse.ca_location"),
                    certificate_location: check.path("clickhouse.certificate_location"),
                    key_location: check.path("clickhouse.key_location"),
                },
                database: check.text("clickhouse.database"),
                user: check.text("clickhouse.user"),
                password: check.secret("clickhouse.password").unwrap_or_default(),
                insert_timeout: check.millis("clickhouse.insert_timeout_ms"),
                query_timeout: check.millis("clickhouse.query_timeout_ms"),
            },
            framing: check.framing(),
            asks_for_id: check.text("schema.framing") == "confluent" && check.schema_id().is_none(),
            confluent_schema_id: check.schema_id(),
            registry: registry::settings(&mut check),
            producer: Producer {
                queue_events: check.size("producer.queue_events"),
                queue_bytes: check.size("producer.queue_bytes"),
                compression: match check.text("producer.compression").as_str() {
                    "lz4" => Compression::Lz4,
                    "none" => Compression::None,
                    _ => Compression::Zstd,
                },
                cloud_events: check.text("producer.cloud_events") != "off",
                linger: check.millis("producer.linger_ms"),
                delivery_timeout: check.millis("producer.delivery_timeout_ms"),
                spill: check.path("producer.spill_folder").filter(|folder| !folder.as_os_str().is_empty()).map(
                    |folder| SpillConfig {
                        folder,
                        max_bytes: check.size("producer.spill_max_bytes") as u64,
                        after: check.millis("producer.spill_after_ms"),
                    },
                ),
            },
            outbox: outbox::settings(&mut check),
            consumer: Consumer {
                group_id: check.text("consumer.group_id"),
                group_instance_id: check.optional("consumer.group_instance_id").filter(|id| !id.is_empty()),
                group_protocol: check.group_protocol(),
                worker_id: check.optional("consumer.worker_id"),
                batch_min_rows: check.size("consumer.batch_min_rows"),
                batch_max_rows: check.size("consumer.batch_max_rows"),
                batch_max_bytes: check.size("consumer.batch_max_bytes"),
                batch_max_age: check.millis("consumer.batch_max_age_ms"),
                freshness_target: check.millis("consumer.freshness_target_ms"),
                max_parts: check.size("consumer.max_parts") as u64,
                in_flight_bytes: check.size("consumer.in_flight_bytes"),
                drain_deadline: check.millis("consumer.drain_deadline_ms"),
                // The key's kind has proven that it is an address or `off`.
                http_listen: check.text("consumer.http_listen").parse().ok(),
            },
            retention: retention::settings(&mut check),
            archive: archive::settings(&mut check),
            telemetry: check.telemetry(),
            log: Log { json: check.text("log.format") == "json", level: check.text("log.level") },
        };
        settings.together(&mut check);
        if check.problems.is_empty() { Ok(settings) } else { Err(check.problems) }
    }

    /// Rules over more than one key, and the parts' own checks.
    fn together(&self, check: &mut Checker<'_>) {
        if self.consumer.in_flight_bytes < self.consumer.batch_max_bytes {
            check.problem(
                "consumer.in_flight_bytes",
                "is below consumer.batch_max_bytes, so no batch could ever be full".to_owned(),
            );
        }
        if self.kafka.topic == self.kafka.dead_letter_topic {
            check.problem("kafka.dead_letter_topic", "is the same as kafka.topic".to_owned());
        }
        if let Err(error) = self.store().validate() {
            for problem in error.problems {
                let (field, message) = problem.split_once(": ").unwrap_or(("url", &problem));
                let path = keys::KEYS.iter().map(|key| key.path).find(|path| {
                    path.strip_prefix("clickhouse.").is_some_and(|name| name == field || name == format!("{field}_ms"))
                });
                check.problem(path.unwrap_or("clickhouse"), message.to_owned());
            }
        }
        if let Err(error) = self.producer().validate() {
            check.problem("producer", error.to_string());
        }
    }

    /// For the store.
    pub(crate) fn store(&self) -> auditstream_store::Config {
        auditstream_store::Config {
            url: self.clickhouse.url.clone(),
            tls: self.clickhouse.tls.clone(),
            database: self.clickhouse.database.clone(),
            user: self.clickhouse.user.clone(),
            password: self.clickhouse.password.clone(),
            insert_timeout: self.clickhouse.insert_timeout,
            query_timeout: self.clickhouse.query_timeout,
        }
    }

    /// For the producer.
    pub(crate) fn producer(&self) -> auditstream_producer::Config {
        auditstream_producer::Config {
            bootstrap_servers: self.kafka.bootstrap_servers.clone(),
            topic: self.kafka.topic.clone(),
            framing: self.framing,
            queue_events: self.producer.queue_events,
            queue_bytes: self.producer.queue_bytes,
            compression: self.producer.compression,
            cloud_events: self.producer.cloud_events,
            linger: self.producer.linger,
            delivery_timeout: self.producer.delivery_timeout,
            spill: self.producer.spill.clone(),
            client_id: "auditstream-publish".to_owned(),
            oauth_token_file: self.kafka.oauth_token_file.clone(),
            properties: self.kafka.properties.clone(),
            ..auditstream_producer::Config::default()
        }
    }

    /// For the worker.
    pub(crate) fn worker(&self) -> anyhow::Result<auditstream_consumer::Config> {
        let mut schemas = auditstream_store::faults::schemas()?;
        if let Some(id) = self.confluent_schema_id {
            schemas.add(WriterId::Confluent(id), AUDIT_EVENT_V1)?;
        }
        Ok(auditstream_consumer::Config {
            kafka_properties: self.client_properties(),
            oauth_token_file: self.kafka.oauth_token_file.clone(),
            topic: self.kafka.topic.clone(),
            dead_letter_topic: self.kafka.dead_letter_topic.clone(),
            group_id: self.consumer.group_id.clone(),
            group_instance_id: self.consumer.group_instance_id.clone(),
            group_protocol: self.consumer.group_protocol,
            worker_id: self.consumer.worker_id.clone().unwrap_or_else(default_worker_id),
            batch_min_rows: self.consumer.batch_min_rows,
            batch_max_rows: self.consumer.batch_max_rows,
            batch_max_bytes: self.consumer.batch_max_bytes,
            batch_max_age: self.consumer.batch_max_age,
            freshness_target: self.consumer.freshness_target,
            max_parts: self.consumer.max_parts,
            in_flight_bytes: self.consumer.in_flight_bytes,
            drain_deadline: self.consumer.drain_deadline,
            http_listen: self.consumer.http_listen,
            certificates: self.certificates(),
            telemetry: self.telemetry.clone(),
            schemas: Arc::new(schemas),
            registry: self.registry.as_ref().map(Registry::new).transpose()?,
        })
    }

    /// librdkafka's settings for any client.
    pub(crate) fn client_properties(&self) -> BTreeMap<String, String> {
        let mut all = self.kafka.properties.clone();
        all.insert("bootstrap.servers".to_owned(), self.kafka.bootstrap_servers.clone());
        all
    }
}

/// The machine's name (in Kubernetes the pod's) and the process id.
pub(super) fn default_worker_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "worker" } else { host };
    format!("{host}-{}", std::process::id())
}

/// Takes values out of what the user said, and gathers what is wrong on the way. A wrong key reads as its default, so
/// that the rest can be checked all the same.
pub(super) struct Checker<'a> {
    pub(super) raw: &'a Raw,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    pub(super) fn problem(&mut self, path: &str, message: String) {
        let origin = self.raw.values.get(path).map_or(Origin::Default, |(_, origin)| origin.clone());
        self.problems.push(Problem { path: path.to_owned(), message, origin });
    }

    pub(super) fn optional(&self, path: &str) -> Option<String> {
        match self.raw.values.get(path) {
            Some((Value::Text(text), _)) => Some(text.clone()),
            _ => match keys::find(path)?.default? {
                KeyDefault::Text(text) => Some(text.to_owned()),
                KeyDefault::Integer(_) => None,
            },
        }
    }

    pub(super) fn path(&self, path: &str) -> Option<PathBuf> {
        self.optional(path).map(PathBuf::from)
    }

    pub(super) fn text(&self, path: &str) -> String {
        self.optional(path).unwrap_or_default()
    }

    fn integer(&self, path: &str) -> Option<i64> {
        match self.raw.values.get(path) {
            Some((Value::Integer(number), _)) => Some(*number),
            _ => match keys::find(path)?.default? {
                KeyDefault::Integer(number) => Some(number),
                KeyDefault::Text(_) => None,
            },
        }
    }

    pub(super) fn size(&self, path: &str) -> usize {
        self.integer(path).and_then(|number| usize::try_from(number).ok()).unwrap_or_default()
    }

    pub(super) fn millis(&self, path: &str) -> Duration {
        Duration::from_millis(self.integer(path).and_then(|number| u64::try_from(number).ok()).unwrap_or_default())
    }

    fn schema_id(&self) -> Option<u32> {
        self.integer("schema.confluent_schema_id").and_then(|id| u32::try_from(id).ok())
    }

    fn framing(&mut self) -> Framing {
        if self.text("schema.framing") != "confluent" {
            return Framing::SingleObject;
        }
        match self.schema_id() {
            Some(schema_id) => Framing::Confluent { schema_id },
            // The registry is asked when it comes to that: `Settings::framing`.
            None if self.optional("schema.registry_url").is_some_and(|url| !url.trim().is_empty()) => {
                Framing::SingleObject
            }
            None => {
                let message = "must be set, or schema.registry_url, when schema.framing is \"confluent\": the id that the registry gave the schema";
                self.problem("schema.confluent_schema_id", message.to_owned());
                Framing::SingleObject
            }
        }
    }

    fn telemetry(&mut self) -> Option<Telemetry> {
        let otlp_endpoint = self.optional("telemetry.otlp_endpoint").filter(|endpoint| !endpoint.is_empty())?;
        // The key's kind has proven that it is a number.
        let sample_ratio = self.text("telemetry.sample_ratio").parse().unwrap_or_default();
        let telemetry = Telemetry { otlp_endpoint, sample_ratio };
        if let Err(message) = telemetry.validate() {
            self.problem("telemetry.otlp_endpoint", message.to_owned());
        }
        Some(telemetry)
    }

    /// The value at `path`, or the content of the file at `path_file` without the line's end.
    pub(super) fn secret(&mut self, path: &str) -> Option<Secret> {
        let file_key = format!("{path}_file");
        let said = self.optional(path).map(Secret::new);
        let Some(file) = self.optional(&file_key) else {
            return said;
        };
        if said.is_some() {
            self.problem(&file_key, format!("is set together with {path}; keep one of them"));
        }
        match read_secret(Path::new(&file)) {
            Ok(secret) => Some(secret),
            Err(error) => {
                self.problem(&file_key, format!("{error:#}"));
                None
            }
        }
    }

    fn group_protocol(&mut self) -> GroupProtocol {
        if self.text("consumer.group_protocol") != "consumer" {
            return GroupProtocol::Classic;
        }
        for (name, (_, origin)) in &self.raw.properties {
            if CLASSIC_ONLY.contains(&name.as_str()) {
                self.problems.push(Problem {
                    path: format!("{PROPERTIES}.{name}"),
                    message: "has no use when consumer.group_protocol is \"consumer\": the brokers set it".to_owned(),
                    origin: origin.clone(),
                });
            }
        }
        GroupProtocol::Consumer
    }

    fn kafka(&mut self) -> Kafka {
        let mut properties = BTreeMap::new();
        for (name, (value, origin)) in &self.raw.properties {
            match properties::refusal(name) {
                None => {
                    properties.insert(name.clone(), value.clone());
                }
                Some(message) => {
                    self.problems.push(Problem {
                        path: format!("{PROPERTIES}.{name}"),
                        message,
                        origin: origin.clone(),
                    });
                }
            }
        }
        let protocol = self.text("kafka.security_protocol");
        let (sasl, tls) = (protocol.starts_with("sasl"), protocol.ends_with("ssl"));
        let password = self.secret("kafka.sasl_password");
        let mechanism = self.optional("kafka.sasl_mechanism");
        let username = self.optional("kafka.sasl_username");
        let oauth_token_file = self.path("kafka.sasl_oauth_token_file");
        let oauth = sasl && mechanism.as_deref() == Some("OAUTHBEARER");
        let by_protocol = format!("kafka.security_protocol is \"{protocol}\"");
        let by_mechanism = format!("kafka.sasl_mechanism is \"{}\"", mechanism.as_deref().unwrap_or_default());
        let because = if sasl && mechanism.is_some() { &by_mechanism } else { &by_protocol };
        self.belongs("kafka.sasl_mechanism", mechanism.is_some(), sasl, &by_protocol);
        self.belongs("kafka.sasl_username", username.is_some(), sasl && !oauth, because);
        self.belongs("kafka.sasl_password", password.is_some(), sasl && !oauth, because);
        self.belongs("kafka.sasl_oauth_token_file", oauth_token_file.is_some(), oauth, because);
        let ca = self.optional("kafka.ssl_ca_location");
        let certificate = self.optional("kafka.ssl_certificate_location");
        let key = self.optional("kafka.ssl_key_location");
        let key_password = self.secret("kafka.ssl_key_password");
        for (path, set) in [
            ("kafka.ssl_ca_location", ca.is_some()),
            ("kafka.ssl_certificate_location", certificate.is_some()),
            ("kafka.ssl_key_location", key.is_some()),
            ("kafka.ssl_key_password", key_password.is_some()),
        ] {
            // What TLS may have it need not have.
            self.belongs(path, set, tls && set, &by_protocol);
        }
        if tls && certificate.is_some() != key.is_some() {
            let (missing, other) = if key.is_none() { ("key", "certificate") } else { ("certificate", "key") };
            self.problem(
                &format!("kafka.ssl_{missing}_location"),
                format!("must be set with kafka.ssl_{other}_location"),
            );
        }
        let exposed = |secret: Option<Secret>| secret.map(|secret| secret.expose().to_owned());
        let named = [
            ("security.protocol", (protocol != "plaintext").then_some(protocol)),
            ("sasl.mechanism", mechanism),
            ("sasl.username", username),
            ("sasl.password", exposed(password)),
            ("ssl.ca.location", ca),
            ("ssl.certificate.location", certificate),
            ("ssl.key.location", key),
            ("ssl.key.password", exposed(key_password)),
        ];
        properties.extend(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        Kafka {
            bootstrap_servers: self.text("kafka.bootstrap_servers"),
            topic: self.text("kafka.topic"),
            dead_letter_topic: self.text("kafka.dead_letter_topic"),
            properties,
            oauth_token_file,
        }
    }

    /// Complains when a key is set that has no use, or is not set though it is needed, `because` of another one.
    fn belongs(&mut self, path: &str, set: bool, needed: bool, because: &str) {
        if needed && !set {
            self.problem(path, format!("must be set when {because}"));
        } else if set && !needed {
            self.problem(path, format!("has no use when {because}"));
        }
    }
}

fn read_secret(path: &Path) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Secret::new(text.strip_suffix('\r').unwrap_or(text)))
}
