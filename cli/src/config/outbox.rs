//! `[outbox]`: the database of a service, and how the relay works on it.

use std::net::SocketAddr;
use std::time::Duration;

use auditstream_producer::outbox::{Dialect, RelayConfig, Sent, Table};
use auditstream_store::Secret;

use super::settings::{Checker, Settings, default_worker_id};
use super::{ConfigError, raw::Origin, raw::Problem};

/// `[outbox]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outbox {
    /// Needed by `relay` and `outbox` only.
    pub(crate) url: Option<Secret>,
    pub(crate) table: Table,
    pub(crate) sent: Sent,
    pub(crate) retention: Duration,
    pub(crate) batch_rows: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) poll_interval: Duration,
    pub(crate) lease: Duration,
    pub(crate) max_tries: u32,
    pub(crate) retry_backoff: Duration,
    pub(crate) drain_deadline: Duration,
    pub(crate) http_listen: Option<SocketAddr>,
    pub(crate) relay_id: Option<String>,
}

pub(super) fn settings(check: &mut Checker<'_>) -> Outbox {
    let url = check.secret("outbox.url");
    if let Some(error) = url.as_ref().and_then(|url| Dialect::of_url(url.expose()).err()) {
        let message = error.to_string();
        check.problem("outbox.url", message.trim_start_matches("the outbox's url ").to_owned());
    }
    let table = check.text("outbox.table").parse().unwrap_or_else(|error| {
        check.problem("outbox.table", format!("{error}"));
        Table::default()
    });
    let relay_id = check.optional("outbox.relay_id");
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if relay_id.as_ref().is_some_and(|id| id.len() > 100 || !id.chars().all(legal)) {
        check.problem("outbox.relay_id", "must be 1 to 100 letters, digits, `-`, `_` or `.`".to_owned());
    }
    Outbox {
        url,
        table,
        sent: if check.text("outbox.mode") == "mark" { Sent::Mark } else { Sent::Delete },
        retention: Duration::from_secs(check.size("outbox.retention_s") as u64),
        batch_rows: check.size("outbox.batch_rows"),
        batch_bytes: check.size("outbox.batch_bytes"),
        poll_interval: check.millis("outbox.poll_interval_ms"),
        lease: check.millis("outbox.lease_ms"),
        // The key's bounds have proven that it fits.
        max_tries: u32::try_from(check.size("outbox.max_tries")).unwrap_or(u32::MAX),
        retry_backoff: check.millis("outbox.retry_backoff_ms"),
        drain_deadline: check.millis("outbox.drain_deadline_ms"),
        http_listen: check.text("outbox.http_listen").parse().ok(),
        relay_id,
    }
}

impl Settings {
    /// The URL of the outbox's database.
    ///
    /// # Errors
    /// It is not set.
    pub(crate) fn outbox_url(&self) -> Result<&str, ConfigError> {
        let missing = || Problem {
            path: "outbox.url".to_owned(),
            message: "must be set, or outbox.url_file: the database that holds the outbox".to_owned(),
            origin: Origin::Default,
        };
        let url = self.outbox.url.as_ref().map(Secret::expose);
        url.ok_or_else(|| ConfigError::Wrong { file: None, problems: vec![missing()] })
    }

    /// For the relay.
    ///
    /// # Errors
    /// `outbox.url` is not set.
    pub(crate) fn relay(&self) -> Result<RelayConfig, ConfigError> {
        let outbox = &self.outbox;
        let mut kafka = self.producer();
        kafka.client_id = "auditstream-relay".to_owned();
        // The outbox is on disk already.
        kafka.spill = None;
        Ok(RelayConfig {
            table: outbox.table.clone(),
            sent: outbox.sent,
            batch_rows: outbox.batch_rows,
            batch_bytes: outbox.batch_bytes,
            poll_interval: outbox.poll_interval,
            lease: outbox.lease,
            retention: outbox.retention,
            max_tries: outbox.max_tries,
            retry_backoff: outbox.retry_backoff,
            drain_deadline: outbox.drain_deadline,
            http_listen: outbox.http_listen,
            relay_id: outbox.relay_id.clone().unwrap_or_else(default_worker_id),
            ..RelayConfig::new(self.outbox_url()?, kafka)
        })
    }
}
