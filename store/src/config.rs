//! How to reach ClickHouse: given by people, checked as a whole before anything connects.

use std::fmt;
use std::time::Duration;

use clickhouse::{Client, Compression};

use crate::tls::{self, Tls};

/// Where ClickHouse is, as whom to speak to it, and how long to wait.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://HOST:PORT` or `https://HOST:PORT`, nothing behind it.
    pub url: String,
    /// How `https` is spoken: whom to trust, which certificate to show.
    pub tls: Tls,
    /// The database that holds the tables: a letter, then letters, digits and `_`.
    pub database: String,
    /// User name.
    pub user: String,
    /// Password; may be empty.
    pub password: Secret,
    /// Longest wait for an insert, from its first byte sent to the answer. At least 1 s.
    pub insert_timeout: Duration,
    /// Longest wait for any other statement. At least 1 s.
    pub query_timeout: Duration,
}

/// A password. Never printed: `Debug` says `[redacted]`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `secret`.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The password itself; for the request only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        Self(secret.to_owned())
    }
}

/// What is wrong with a [`Config`]: every field, not only the first. Never holds the password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("clickhouse configuration: {}", .problems.join("; "))]
pub struct ConfigError {
    /// One sentence a field, each opening with the field's name.
    pub problems: Vec<String>,
}

const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

impl Config {
    /// Checks every field.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        problems.extend(url_problem(&self.url).map(|problem| format!("url: {problem}")));
        if self.is_https() {
            problems.extend(tls::client_config(&self.tls).err());
        } else if self.tls != Tls::default() {
            problems.push("url: must start with https:// when certificates are named".to_owned());
        }
        if !is_plain_name(&self.database) {
            problems.push("database: must be a letter, then at most 63 letters, digits or `_`".to_owned());
        }
        if self.user.is_empty() {
            problems.push("user: must not be empty".to_owned());
        }
        for (name, value) in [("user", &*self.user), ("password", self.password.expose())] {
            // Both travel in HTTP headers.
            if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                problems.push(format!("{name}: must be printable ASCII, because it travels in an HTTP header"));
            }
        }
        for (name, timeout) in [("insert_timeout", self.insert_timeout), ("query_timeout", self.query_timeout)] {
            if !(SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&timeout) {
                problems.push(format!("{name}: {timeout:?} is outside 1 s to 1 h"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// A client for this configuration, without a default database and without compression: bodies are sent once, over a short way.
    ///
    /// # Errors
    /// A file of certificates can't be used.
    pub(crate) fn client(&self) -> Result<Client, ConfigError> {
        let client = if self.is_https() {
            tls::client(&self.tls).map_err(|problem| ConfigError { problems: vec![problem] })?
        } else {
            Client::default()
        };
        Ok(client
            .with_url(&self.url)
            .with_user(&self.user)
            .with_password(self.password.expose())
            .with_compression(Compression::None)
            .with_product_info("auditstream", env!("CARGO_PKG_VERSION")))
    }

    fn is_https(&self) -> bool {
        self.url.starts_with("https://")
    }
}

/// Whether `name` may stand in SQL as it is.
fn is_plain_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn url_problem(url: &str) -> Option<&'static str> {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return Some("must start with http:// or https://");
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.is_empty() {
        return Some("has no host");
    }
    if authority.contains('@') {
        return Some("must not hold a user or password; they have their own fields");
    }
    if authority.contains(['/', '?', '#', ' ']) {
        return Some("must end after the port");
    }
    match authority.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') && port.parse::<u16>().is_err() => {
            Some("has a port that is no number up to 65535")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn good() -> Config {
        Config {
            url: "http://127.0.0.1:8123".into(),
            tls: Tls::default(),
            database: "audit".into(),
            user: "audit_ingest".into(),
            password: "hunter2".into(),
            insert_timeout: Duration::from_secs(60),
            query_timeout: Duration::from_secs(10),
        }
    }

    #[test]
    fn a_good_configuration_passes() {
        good().validate().unwrap();
        for url in ["http://clickhouse", "http://clickhouse:8123/", "http://[::1]:8123", "http://[::1]"] {
            Config { url: url.into(), ..good() }.validate().unwrap();
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let wrong = Config {
            url: "ftp://x".into(),
            tls: Tls { ca_location: Some("/nowhere".into()), ..Tls::default() },
            database: "au dit".into(),
            user: String::new(),
            password: "a\nb".into(),
            insert_timeout: Duration::ZERO,
            query_timeout: Duration::from_secs(4000),
        };
        let error = wrong.validate().unwrap_err();
        let fields: Vec<_> =
            error.problems.iter().map(|problem| problem.split(':').next().unwrap().to_owned()).collect();
        assert_eq!(fields, ["url", "url", "database", "user", "password", "insert_timeout", "query_timeout"]);
    }

    #[test]
    fn urls_that_would_be_misread_are_refused() {
        for url in [
            "",
            "http://",
            "https://",
            "https://x/path",
            "http://u:p@x",
            "http://x/path",
            "http://x?database=y",
            "http://x:99999",
            "127.0.0.1:8123",
        ] {
            assert!(Config { url: url.into(), ..good() }.validate().is_err(), "{url}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        assert!(!format!("{:?}", good()).contains("hunter2"));
    }
}
