//! What the user said: the file and the environment, key by key, checked against the table of keys.
//!
//! Promise: every wrong key is reported, not only the first; a message never holds a value that may be secret.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use tracing_subscriber::EnvFilter;

use super::keys::{self, Kind, PROPERTIES};

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The key with its section.
    pub(crate) path: String,
    /// What was found there and what would be right.
    pub(crate) message: String,
    /// Where it was said.
    pub(crate) origin: Origin,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => write!(f, "{}: {}", self.path, self.message),
            origin => write!(f, "{} ({origin}): {}", self.path, self.message),
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File,
    /// The variable's name.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File => f.write_str("file"),
            Origin::Environment(name) => f.write_str(name),
        }
    }
}

/// A checked value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
}

/// All values that were said, by path; what is not here has its default.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    pub(crate) values: BTreeMap<&'static str, (Value, Origin)>,
    /// librdkafka's own.
    pub(crate) properties: BTreeMap<String, (String, Origin)>,
    /// What the environment says about S3 in the names that its clients share; for keys of `[archive]` that are not set.
    pub(crate) s3: BTreeMap<&'static str, String>,
    pub(crate) problems: Vec<Problem>,
}

/// The environment variables that are settings begin with this and have two underscores after the section.
const PREFIX: &str = "AUDITSTREAM_";
/// The names that the SDKs and tools for S3 share.
const S3_VARIABLES: [&str; 5] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"];
/// The collector for all signals, by OpenTelemetry's specification of exporters.
const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

impl Raw {
    /// Reads the file's text (`None`: no file) and then the environment, which overrides it.
    pub(crate) fn read(file: Option<&str>, environment: impl Iterator<Item = (String, String)>) -> Raw {
        let mut raw = Raw::default();
        if let Some(text) = file {
            match text.parse::<toml::Table>() {
                Ok(table) => raw.section("", &table),
                Err(error) => {
                    raw.problem("the file", format!("is not TOML: {}", error.to_string().trim()), Origin::File)
                }
            }
        }
        let (mut variables, others): (Vec<_>, Vec<_>) = environment.partition(|(name, _)| name.starts_with(PREFIX));
        raw.standard_variables(&others);
        variables.sort();
        for (name, value) in variables {
            raw.variable(&name, &value);
        }
        raw
    }

    /// What OpenTelemetry calls by a name of its own; ours, more exact, comes after it and wins. Those for S3 are set on many machines for other
    /// programs, so they are only kept: nothing is wrong with them before an archive needs them.
    fn standard_variables(&mut self, variables: &[(String, String)]) {
        for name in S3_VARIABLES {
            if let Some((_, value)) = variables.iter().find(|(said, value)| said == name && !value.trim().is_empty()) {
                self.s3.insert(name, value.clone());
            }
        }
        let endpoint = variables.iter().find(|(name, value)| name == OTLP_ENDPOINT && !value.is_empty());
        if let (Some((name, value)), Some(key)) = (endpoint, keys::find("telemetry.otlp_endpoint")) {
            self.keep(key, Ok(Value::Text(value.clone())), Origin::Environment(name.clone()));
        }
    }

    fn problem(&mut self, path: &str, message: String, origin: Origin) {
        self.problems.push(Problem { path: path.to_owned(), message, origin });
    }

    fn section(&mut self, prefix: &str, table: &toml::Table) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match (value, keys::find(&path)) {
                (_, Some(key)) => self.file_value(key, value),
                (toml::Value::Table(inner), None) if path == PROPERTIES => self.properties("", inner),
                (toml::Value::Table(inner), None) if is_section(&path) => self.section(&path, inner),
                _ if is_section(&path) || path == PROPERTIES => {
                    let message = format!("found {}, expected a section, [{path}]", found(value));
                    self.problem(&path, message, Origin::File);
                }
                _ => self.unknown(&path, Origin::File),
            }
        }
    }

    /// `socket.timeout.ms = 1` without quotes is a table in a table for TOML; it is meant as one name.
    fn properties(&mut self, prefix: &str, table: &toml::Table) {
        for (name, value) in table {
            let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let text = match value {
                toml::Value::Table(inner) => {
                    self.properties(&name, inner);
                    continue;
                }
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                toml::Value::Float(number) => number.to_string(),
                other => {
                    let message = format!("found {}, expected text, a number or true/false", found(other));
                    self.problem(&format!("{PROPERTIES}.{name}"), message, Origin::File);
                    continue;
                }
            };
            self.properties.insert(name, (text, Origin::File));
        }
    }

    fn file_value(&mut self, key: &'static keys::Key, value: &toml::Value) {
        let checked = match (key.kind, value) {
            (Kind::Integer { .. }, toml::Value::Integer(number)) => check(key.kind, Value::Integer(*number)),
            (Kind::Integer { .. }, _) => Err(found(value)),
            (Kind::Ratio, toml::Value::Float(number)) => ratio(*number),
            (Kind::Ratio, toml::Value::Integer(number)) => ratio(*number as f64),
            (Kind::Ratio, _) => Err(found(value)),
            (_, toml::Value::String(text)) => check(key.kind, Value::Text(text.clone())),
            _ => Err(found(value)),
        };
        self.keep(key, checked, Origin::File);
    }

    fn variable(&mut self, name: &str, value: &str) {
        let Some((section, key)) = name[PREFIX.len()..].split_once("__") else {
            // Without the two underscores it is no setting: AUDITSTREAM_CONFIG, or another program's.
            return;
        };
        let origin = Origin::Environment(name.to_owned());
        let path = format!("{}.{}", section.to_lowercase(), key.to_lowercase());
        if let Some(property) = path.strip_prefix("kafka.properties__") {
            self.properties.insert(property.replace('_', "."), (value.to_owned(), origin));
            return;
        }
        match keys::find(&path) {
            None => self.unknown(&path, origin),
            Some(key) => {
                let typed = match key.kind {
                    Kind::Integer { .. } => {
                        value.trim().parse().map(Value::Integer).map_err(|_| "text that is no whole number".to_owned())
                    }
                    Kind::Ratio => {
                        value.trim().parse().map_err(|_| "text that is no number".to_owned()).and_then(ratio)
                    }
                    _ => Ok(Value::Text(value.to_owned())),
                };
                self.keep(key, typed.and_then(|value| check(key.kind, value)), origin);
            }
        }
    }

    fn keep(&mut self, key: &'static keys::Key, checked: Result<Value, String>, origin: Origin) {
        match checked {
            Ok(value) => {
                self.values.insert(key.path, (value, origin));
            }
            Err(found) => self.problem(key.path, format!("found {found}, expected {}", key.kind.expected()), origin),
        }
    }

    fn unknown(&mut self, path: &str, origin: Origin) {
        let message = match keys::nearest(path) {
            Some(near) => format!("there is no such key; did you mean {near}?"),
            None => "there is no such key".to_owned(),
        };
        self.problem(path, message, origin);
    }
}

fn is_section(path: &str) -> bool {
    keys::KEYS.iter().any(|key| key.path.split_once('.').is_some_and(|(section, _)| section == path))
}

/// The value in its canonical form, or what was found instead.
fn check(kind: Kind, value: Value) -> Result<Value, String> {
    match (kind, value) {
        (Kind::Integer { low, high }, Value::Integer(number)) if (low..=high).contains(&number) => {
            Ok(Value::Integer(number))
        }
        (_, Value::Integer(number)) => Err(format!("the number {number}")),
        (Kind::Text { may_be_empty: false }, Value::Text(text)) if text.trim().is_empty() => {
            Err("empty text".to_owned())
        }
        (Kind::Choice(words), Value::Text(text)) => match words.iter().find(|word| word.eq_ignore_ascii_case(&text)) {
            Some(word) => Ok(Value::Text((*word).to_owned())),
            None => Err("another word".to_owned()),
        },
        (Kind::Listen, Value::Text(text)) if text != "off" && text.parse::<SocketAddr>().is_err() => {
            Err("other text".to_owned())
        }
        (Kind::LogLevel, Value::Text(text)) if text.trim().is_empty() || EnvFilter::try_new(&text).is_err() => {
            Err("other text".to_owned())
        }
        (_, text) => Ok(text),
    }
}

/// The number as it would stand in the file.
fn ratio(number: f64) -> Result<Value, String> {
    if (0.0..=1.0).contains(&number) {
        Ok(Value::Text(format!("{number:?}")))
    } else {
        Err(format!("the number {number}"))
    }
}

/// The kind of a value, in words.
fn found(value: &toml::Value) -> String {
    match value {
        toml::Value::String(_) => "text",
        toml::Value::Integer(_) => "a whole number",
        toml::Value::Float(_) => "a number with decimals",
        toml::Value::Boolean(_) => "true or false",
        toml::Value::Datetime(_) => "a date or time",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a section",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, environment: &[(&str, &str)]) -> Raw {
        Raw::read(Some(file), environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn every_wrong_key_is_reported() {
        let raw = read(
            "colour = 1\nlog = \"info\"\n[kafka]\ntopik = \"x\"\ntopic = 5\n[consumer]\nbatch_max_rows = \"many\"\nbatch_max_age_ms = 0\nhttp_listen = \"nine\"\n[producer]\ncompression = \"zip\"\n",
            &[
                ("AUDITSTREAM_KAFKA__TOPPIC", "x"),
                ("AUDITSTREAM_CLICKHOUSE__QUERY_TIMEOUT_MS", "soon"),
                ("AUDITSTREAM_CONFIG", "x"),
            ],
        );
        let mut problems: Vec<String> = raw.problems.iter().map(ToString::to_string).collect();
        problems.sort();
        assert_eq!(
            problems,
            [
                "clickhouse.query_timeout_ms (AUDITSTREAM_CLICKHOUSE__QUERY_TIMEOUT_MS): found text that is no whole number, expected a whole number from 1000 to 3600000",
                "colour (file): there is no such key",
                "consumer.batch_max_age_ms (file): found the number 0, expected a whole number from 1 to 3600000",
                "consumer.batch_max_rows (file): found text, expected a whole number from 1 to 10000000",
                "consumer.http_listen (file): found other text, expected an address such as \"127.0.0.1:9464\", or \"off\"",
                "kafka.topic (file): found a whole number, expected text that is not empty",
                "kafka.topik (file): there is no such key; did you mean kafka.topic?",
                "kafka.toppic (AUDITSTREAM_KAFKA__TOPPIC): there is no such key; did you mean kafka.topic?",
                "log (file): found text, expected a section, [log]",
                "producer.compression (file): found another word, expected one of zstd, lz4, none",
            ]
        );
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let raw = read(
            "[kafka]\ntopic = \"a\"\n[kafka.properties]\n\"socket.timeout.ms\" = 1000\nbroker.address.family = \"v4\"\n",
            &[("AUDITSTREAM_KAFKA__TOPIC", "b"), ("AUDITSTREAM_KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS", "2000")],
        );
        assert_eq!(raw.problems, []);
        assert_eq!(raw.values["kafka.topic"].0, Value::Text("b".to_owned()));
        assert_eq!(raw.properties["socket.timeout.ms"].0, "2000");
        assert_eq!(raw.properties["broker.address.family"], ("v4".to_owned(), Origin::File));
    }

    #[test]
    fn a_ratio_is_a_number_from_0_to_1() {
        let said = |file: &str, environment: &[(&str, &str)]| {
            let raw = read(&format!("[telemetry]\n{file}"), environment);
            let value = raw.values.get("telemetry.sample_ratio").map(|(value, _)| value.clone());
            (value, raw.problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>())
        };
        for (file, text) in [("sample_ratio = 0.25", "0.25"), ("sample_ratio = 1", "1.0"), ("sample_ratio = 0", "0.0")]
        {
            assert_eq!(said(file, &[]), (Some(Value::Text(text.to_owned())), vec![]));
        }
        let environment = [("AUDITSTREAM_TELEMETRY__SAMPLE_RATIO", "0.5")];
        assert_eq!(said("", &environment).0, Some(Value::Text("0.5".to_owned())));
        for (file, found) in [
            ("sample_ratio = 1.5", "the number 1.5"),
            ("sample_ratio = nan", "the number NaN"),
            ("sample_ratio = -1", "the number -1"),
            ("sample_ratio = \"0.1\"", "text"),
        ] {
            assert_eq!(said(file, &[]), (None, vec![format!("found {found}, expected a number from 0 to 1")]));
        }
    }

    #[test]
    fn the_standard_variable_is_between_the_file_and_ours() {
        let standard = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard:4318");
        let ours = ("AUDITSTREAM_TELEMETRY__OTLP_ENDPOINT", "http://ours:4318");
        let file = "[telemetry]\notlp_endpoint = \"http://file:4318\"\n";
        for (environment, expected) in [
            (vec![], "http://file:4318"),
            (vec![standard], "http://standard:4318"),
            (vec![ours, standard], "http://ours:4318"),
            (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "")], "http://file:4318"),
        ] {
            let raw = read(file, &environment);
            assert_eq!(raw.values["telemetry.otlp_endpoint"].0, Value::Text(expected.to_owned()));
        }
    }

    #[test]
    fn words_are_taken_in_any_case() {
        let raw = read("[kafka]\nsecurity_protocol = \"SASL_SSL\"\nsasl_mechanism = \"scram-sha-512\"\n", &[]);
        assert_eq!(raw.values["kafka.security_protocol"].0, Value::Text("sasl_ssl".to_owned()));
        assert_eq!(raw.values["kafka.sasl_mechanism"].0, Value::Text("SCRAM-SHA-512".to_owned()));
    }

    #[test]
    fn a_file_that_is_not_toml_is_one_problem() {
        let raw = read("[kafka\n", &[]);
        assert_eq!(raw.problems.len(), 1);
        assert!(raw.problems[0].message.starts_with("is not TOML"), "{}", raw.problems[0]);
    }
}
