//! The relay's settings.

use std::net::SocketAddr;
use std::time::Duration;

use super::Table;
use super::relay::RelayError;
use crate::config::Config;

/// What happens to a row that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sent {
    /// It is removed, except with an idempotency key: then it stays, without its payload, until the retention is over.
    #[default]
    Delete,
    /// It stays, marked, until the retention is over.
    Mark,
}

/// Settings of a relay.
#[derive(Clone)]
pub struct RelayConfig {
    /// sqlx's URL of the database: `postgres://`, `mysql://` or `sqlite://`. May hold a password; never shown.
    pub url: String,
    /// The outbox's table.
    pub table: Table,
    /// Kafka: brokers, topic, compression, security. The bounds and the delivery time-out in it have no use here.
    pub kafka: Config,
    /// What happens to rows that were sent.
    pub sent: Sent,
    /// Most rows under way, 1 to 100,000. Default 5,000.
    pub batch_rows: usize,
    /// Most bytes under way, one row more at most. Default 16 MiB.
    pub batch_bytes: usize,
    /// Between two looks at an empty outbox. Default 200 ms.
    pub poll_interval: Duration,
    /// After a round that took all there was: before the next look. Larger, fewer rounds; on SQLite each takes the service's writers a turn.
    /// Default 0: as soon as possible.
    pub rest: Duration,
    /// How long the shards of a relay that died stay without one. Default 10 s.
    pub lease: Duration,
    /// How long sent rows stay that are kept. Default 24 h.
    pub retention: Duration,
    /// Tries of a row that is refused for itself. Default 3.
    pub max_tries: u32,
    /// Wait after the first of them; it doubles with each. Default 1 s.
    pub retry_backoff: Duration,
    /// After the shutdown: how long what is under way may take. Default 25 s.
    pub drain_deadline: Duration,
    /// Address of `/livez`, `/readyz` and `/metrics`; `None`: not served.
    pub http_listen: Option<SocketAddr>,
    /// Names this relay in the leases; no two living ones may share it. Letters, digits, `-`, `_` and `.`.
    pub relay_id: String,
}

impl RelayConfig {
    /// The defaults, for this database and this Kafka. `relay_id` is random.
    #[must_use]
    pub fn new(url: impl Into<String>, kafka: Config) -> Self {
        Self {
            url: url.into(),
            table: Table::default(),
            kafka,
            sent: Sent::default(),
            batch_rows: 5_000,
            batch_bytes: 16 * 1024 * 1024,
            poll_interval: Duration::from_millis(200),
            rest: Duration::ZERO,
            lease: Duration::from_secs(10),
            retention: Duration::from_secs(24 * 3_600),
            max_tries: 3,
            retry_backoff: Duration::from_secs(1),
            drain_deadline: Duration::from_secs(25),
            http_listen: None,
            relay_id: uuid::Uuid::now_v7().simple().to_string(),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), RelayError> {
        let wrong = |name: &'static str, problem: &'static str| Err(RelayError::Setting { name, problem });
        if !(1..=100_000).contains(&self.batch_rows) {
            return wrong("batch_rows", "is outside of 1 to 100,000");
        }
        if self.lease < Duration::from_millis(200) || self.lease > Duration::from_secs(3_600) {
            return wrong("lease", "is outside of 200 ms to an hour");
        }
        if self.max_tries == 0 {
            return wrong("max_tries", "is 0; a row needs one try at least");
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !(1..=100).contains(&self.relay_id.len()) || !self.relay_id.chars().all(legal) {
            return wrong("relay_id", "must be 1 to 100 letters, digits, `-`, `_` or `.`");
        }
        Ok(())
    }
}

impl std::fmt::Debug for RelayConfig {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayConfig")
            .field("table", &self.table)
            .field("kafka", &self.kafka)
            .field("sent", &self.sent)
            .field("relay_id", &self.relay_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_settings_are_named() {
        let good = || RelayConfig::new("sqlite::memory:", Config::default());
        let named = |config: RelayConfig| config.validate().map_err(|error| error.to_string());
        assert_eq!(named(good()), Ok(()));
        for (config, name) in [
            (RelayConfig { batch_rows: 0, ..good() }, "batch_rows"),
            (RelayConfig { lease: Duration::from_millis(100), ..good() }, "lease"),
            (RelayConfig { max_tries: 0, ..good() }, "max_tries"),
            (RelayConfig { relay_id: "it's me".to_owned(), ..good() }, "relay_id"),
        ] {
            assert!(named(config).is_err_and(|message| message.starts_with(&format!("setting `{name}`"))), "{name}");
        }
        assert!(!format!("{:?}", RelayConfig::new("postgres://u:hunter2@h/d", Config::default())).contains("hunter2"));
    }
}
