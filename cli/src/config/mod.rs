//! The configuration: one TOML file, overridden by environment variables, checked as a whole before anything connects.
//!
//! `keys` is the table of what exists, `raw` what the user said, `settings` what it means, `show` how it is printed.

mod archive;
mod certificates;
mod keys;
mod outbox;
mod properties;
mod raw;
mod registry;
mod retention;
mod settings;
mod show;

use std::fmt;
use std::path::{Path, PathBuf};

pub(crate) use archive::S3;
pub(crate) use settings::Settings;

use raw::{Problem, Raw};

/// Read when no file is named and it exists.
const DEFAULT_FILE: &str = "auditstream.toml";

/// The configuration with what it was made from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    raw: Raw,
}

/// Why there is no configuration: the file can't be read, or keys are wrong, all of them named.
#[derive(Debug)]
pub(crate) enum ConfigError {
    Unreadable { file: PathBuf, error: std::io::Error },
    Wrong { file: Option<PathBuf>, problems: Vec<Problem> },
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { file, error } => {
                write!(f, "can't read the configuration file {}: {error}", file.display())
            }
            ConfigError::Wrong { file, problems } => {
                let source = file.as_ref().map_or("environment".to_owned(), |file| file.display().to_string());
                let count = problems.len();
                write!(f, "the configuration ({source}) has {count} problem{}", if count == 1 { "" } else { "s" })?;
                for problem in problems {
                    write!(f, "\n  {problem}")?;
                }
                Ok(())
            }
        }
    }
}

impl Loaded {
    /// Reads `file`, or `auditstream.toml` in the working folder if there is one, and then the environment.
    pub(crate) fn read(file: Option<&Path>) -> Result<Loaded, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let file = file.or_else(|| default.exists().then_some(default));
        let text = match file {
            None => None,
            Some(file) => {
                let unreadable = |error| ConfigError::Unreadable { file: file.to_owned(), error };
                Some(std::fs::read_to_string(file).map_err(unreadable)?)
            }
        };
        // A variable that is not UTF-8 can't be one of ours with a value that would be right.
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let raw = Raw::read(text.as_deref(), environment);
        match Settings::from_raw(&raw) {
            Ok(settings) => Ok(Loaded { settings, raw }),
            Err(problems) => Err(ConfigError::Wrong { file: file.map(Path::to_owned), problems }),
        }
    }

    /// The effective configuration as TOML, each value with its origin, secrets redacted.
    pub(crate) fn show(&self) -> String {
        show::effective(&self.raw)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test says so by failing")]
    use super::*;

    const EXAMPLE: &str = include_str!("../../auditstream.example.toml");

    fn settings(file: &str) -> Result<Settings, Vec<String>> {
        let raw = Raw::read(Some(file), std::iter::empty());
        Settings::from_raw(&raw).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_example_file_holds_every_key_with_its_default() {
        assert_eq!(settings(EXAMPLE).unwrap(), settings("").unwrap());
        let raw = Raw::read(Some(EXAMPLE), std::iter::empty());
        let mut section = String::new();
        let mut named = Vec::new();
        for line in EXAMPLE.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((name, _)) = line.trim_start_matches("# ").split_once(" = ") {
                named.push(format!("{section}.{name}"));
            }
        }
        for key in keys::KEYS {
            assert!(named.iter().any(|name| name == key.path), "{} is missing in the example", key.path);
            assert_eq!(raw.values.contains_key(key.path), key.default.is_some(), "{}", key.path);
        }
    }

    #[test]
    fn keys_that_belong_together_are_checked_together() {
        let cases = [
            ("[schema]\nframing = \"confluent\"", "schema.confluent_schema_id: must be set"),
            ("[schema]\nregistry_url = \"http://a, ftp://b\"", "schema.registry_url (file): number 2 has no scheme"),
            (
                "[schema]\nregistry_url = \"http://u:hunter2@a\"",
                "schema.registry_url (file): number 1 holds a user name",
            ),
            ("[schema]\nregistry_username = \"u\"", "schema.registry_username (file): has no use without"),
            (
                "[schema]\nregistry_url = \"http://a\"\nregistry_username = \"u\"",
                "schema.registry_password: must be set together with schema.registry_username",
            ),
            (
                "[schema]\nregistry_url = \"http://a\"\nregistry_username = \"u\"\nregistry_password = \"p\"\nregistry_token_file = \"/t\"",
                "schema.registry_token_file (file): is set together with schema.registry_username",
            ),
            (
                "[schema]\nregistry_url = \"https://a\"\nregistry_ca_location = \"/nowhere\"",
                "schema.registry_ca_location (file): can't use /nowhere",
            ),
            (
                "[schema]\nregistry_url = \"http://a\"\nregistry_token_file = \"/nowhere\"",
                "schema.registry_token_file (file): can't read /nowhere",
            ),
            ("[consumer]\nin_flight_bytes = 100000", "consumer.in_flight_bytes (file): is below"),
            ("[kafka]\nsecurity_protocol = \"sasl_ssl\"", "kafka.sasl_username: must be set"),
            ("[kafka]\nsasl_username = \"x\"", "kafka.sasl_username (file): has no use"),
            ("[kafka]\ndead_letter_topic = \"audit.events\"", "kafka.dead_letter_topic (file): is the same"),
            ("[kafka.properties]\nacks = 1", "kafka.properties.acks (file): is set by auditstream"),
            (
                "[kafka.properties]\n\"group.id\" = \"x\"",
                "kafka.properties.group.id (file): has its own key, consumer.group_id",
            ),
            ("[clickhouse]\nurl = \"ftp://x\"", "clickhouse.url (file): must start with http:// or https://"),
            (
                "[clickhouse]\nurl = \"https://x\"\nca_location = \"/nowhere\"",
                "clickhouse.ca_location (file): can't use /nowhere",
            ),
            (
                "[kafka]\nsecurity_protocol = \"sasl_ssl\"\nsasl_mechanism = \"OAUTHBEARER\"",
                "kafka.sasl_oauth_token_file: must be set when kafka.sasl_mechanism is \"OAUTHBEARER\"",
            ),
            (
                "[kafka]\nsecurity_protocol = \"sasl_ssl\"\nsasl_mechanism = \"OAUTHBEARER\"\nsasl_username = \"x\"",
                "kafka.sasl_username (file): has no use when kafka.sasl_mechanism is \"OAUTHBEARER\"",
            ),
            (
                "[kafka]\nssl_certificate_location = \"/x\"",
                "kafka.ssl_certificate_location (file): has no use when kafka.security_protocol is \"plaintext\"",
            ),
            (
                "[kafka]\nsecurity_protocol = \"ssl\"\nssl_certificate_location = \"/x\"",
                "kafka.ssl_key_location: must be set with kafka.ssl_certificate_location",
            ),
            (
                "[kafka.properties]\n\"ssl.endpoint.identification.algorithm\" = \"none\"",
                "kafka.properties.ssl.endpoint.identification.algorithm (file): can't be changed",
            ),
            (
                "[consumer]\ngroup_protocol = \"consumer\"\n[kafka.properties]\n\"session.timeout.ms\" = 6000",
                "kafka.properties.session.timeout.ms (file): has no use when consumer.group_protocol is \"consumer\"",
            ),
            (
                "[clickhouse]\npassword = \"a\"\npassword_file = \"/nowhere\"",
                "clickhouse.password_file (file): is set together",
            ),
            ("[telemetry]\notlp_endpoint = \"collector:4318\"", "telemetry.otlp_endpoint (file): is no URL such as"),
            (
                "[telemetry]\notlp_endpoint = \"http://user:pw@collector:4318\"",
                "telemetry.otlp_endpoint (file): holds a user name",
            ),
            ("[archive]\ns3_endpoint = \"http://s3\"", "archive.s3_endpoint (file): is not encrypted"),
            ("[archive]\ns3_access_key_id = \"x\"", "archive.s3_secret_access_key: must be set together with"),
            ("[archive]\ns3_session_token = \"x\"", "archive.s3_access_key_id: must be set together with"),
            ("[archive]\ns3_ca_location = \"/nowhere\"", "archive.s3_ca_location (file): can't use /nowhere"),
            ("[retention]\nrules = \"colour=x days=1\"", "retention.rules (file): rule 1: there is no field"),
            ("[clickhouse]\npassword_file = \"/nowhere\"", "clickhouse.password_file (file): can't read /nowhere"),
        ];
        for (file, expected) in cases {
            let problems = settings(file).unwrap_err();
            assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{file}: {problems:?}");
        }
    }

    #[test]
    fn security_settings_become_librdkafka_properties() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "hunter2\n").unwrap();
        let file = format!(
            "[kafka]\nsecurity_protocol = \"SASL_SSL\"\nsasl_mechanism = \"SCRAM-SHA-512\"\nsasl_username = \"u\"\nsasl_password_file = {secret:?}\nssl_ca_location = \"/ca.pem\"\nssl_certificate_location = \"/me.pem\"\nssl_key_location = \"/key.pem\"\nssl_key_password_file = {secret:?}\n[kafka.properties]\n\"socket.timeout.ms\" = 5000\n"
        );
        let settings = settings(&file).unwrap();
        let properties = settings.client_properties();
        let shown: Vec<_> = properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            shown,
            [
                "bootstrap.servers=127.0.0.1:9092",
                "sasl.mechanism=SCRAM-SHA-512",
                "sasl.password=hunter2",
                "sasl.username=u",
                "security.protocol=sasl_ssl",
                "socket.timeout.ms=5000",
                "ssl.ca.location=/ca.pem",
                "ssl.certificate.location=/me.pem",
                "ssl.key.location=/key.pem",
                "ssl.key.password=hunter2"
            ]
        );
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn the_registry_is_off_until_it_has_a_url() {
        assert_eq!(settings("[schema]\nregistry_url = \" \"").unwrap().registry, None);
        let file = "[schema]\nregistry_url = \"http://a:8081/apis/ccompat/v7, https://b\"\nregistry_username = \"u\"\nregistry_password = \"hunter2\"\nregistry_timeout_ms = 700\n";
        let settings = settings(file).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        let registry = settings.registry.unwrap();
        assert_eq!(registry.urls, ["http://a:8081/apis/ccompat/v7", "https://b"]);
        assert_eq!(registry.timeout.as_millis(), 700);
        let raw = Raw::read(Some(file), std::iter::empty());
        assert!(!show::effective(&raw).contains("hunter2"));
    }

    #[test]
    fn tokens_and_membership_reach_the_worker() {
        let file = "[kafka]\nsecurity_protocol = \"sasl_ssl\"\nsasl_mechanism = \"oauthbearer\"\nsasl_oauth_token_file = \"/run/token\"\n\
                    [consumer]\ngroup_instance_id = \"worker-0\"\ngroup_protocol = \"consumer\"\n";
        let ours = settings(file).unwrap();
        let worker = ours.worker().unwrap();
        assert_eq!(worker.kafka_properties["sasl.mechanism"], "OAUTHBEARER");
        assert_eq!(worker.oauth_token_file.as_deref(), Some(Path::new("/run/token")));
        assert_eq!(ours.producer().oauth_token_file, worker.oauth_token_file);
        assert_eq!(worker.group_instance_id.as_deref(), Some("worker-0"));
        assert_eq!(worker.group_protocol, auditstream_consumer::GroupProtocol::Consumer);
        let default = settings("[consumer]\ngroup_instance_id = \"\"").unwrap().worker().unwrap();
        assert_eq!((default.group_instance_id, default.group_protocol.as_str()), (None, "classic"));
    }

    #[test]
    fn what_is_shown_is_toml_again_and_holds_no_secret() {
        let file = "[clickhouse]\npassword = \"hunter2\"\n[kafka.properties]\n\"ssl.keystore.password\" = \"hunter3\"\n\"socket.timeout.ms\" = 7\n";
        let raw = Raw::read(Some(file), std::iter::empty());
        let shown = show::effective(&raw);
        assert!(!shown.contains("hunter"), "{shown}");
        let again = shown.parse::<toml::Table>().unwrap();
        assert_eq!(again["kafka"]["properties"]["socket.timeout.ms"].as_str(), Some("7"));
        assert_eq!(again["consumer"]["batch_max_rows"].as_integer(), Some(500_000));
        assert!(shown.contains("# worker_id is not set"), "{shown}");
        assert_eq!(again["telemetry"]["sample_ratio"].as_float(), Some(0.1));
    }
}
