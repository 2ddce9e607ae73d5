//! Where everything goes: a stack that is up, with the names that the product uses by default.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use auditstream_producer::Compression;
use auditstream_stack::{Role, State};

/// A stack that is up.
#[derive(Debug, Clone)]
pub struct Target {
    state: State,
}

impl Target {
    /// The stack of that name.
    ///
    /// # Errors
    /// No such stack is up.
    pub fn find(name: &str) -> Result<Self> {
        let state = auditstream_stack::find(name)?;
        let state = state.with_context(|| {
            format!("no stack `{name}` is up; start one: cargo xtask stack up --throughput --name {name}")
        })?;
        Ok(Self { state })
    }

    /// The stack itself.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The brokers.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.state.kafka_bootstrap
    }

    /// ClickHouse's address, `http://...`.
    #[must_use]
    pub fn clickhouse_url(&self) -> &str {
        &self.state.clickhouse_url
    }

    /// The topic of the events.
    #[must_use]
    pub fn topic(&self) -> &'static str {
        "audit.events"
    }

    /// The topic of the dead letters.
    #[must_use]
    pub fn dead_letter_topic(&self) -> &'static str {
        "audit.events.dlq"
    }

    /// The database of the tables.
    #[must_use]
    pub fn database(&self) -> &'static str {
        "audit"
    }

    /// User and password of a role.
    #[must_use]
    pub fn credentials(&self, role: Role) -> (&str, &str) {
        self.state.credentials(role).map_or(("", ""), |found| (&found.user, &found.password))
    }

    /// The configuration file that connects the `auditstream` binary as the worker's user, or as the administrator.
    #[must_use]
    pub fn config(&self, role: Role) -> PathBuf {
        self.state.dir.join(if role == Role::Admin { "auditstream-admin.toml" } else { "auditstream.toml" })
    }

    /// A producer's configuration for much at once.
    #[must_use]
    pub fn producer(&self) -> auditstream_producer::Config {
        auditstream_producer::Config {
            bootstrap_servers: self.state.kafka_bootstrap.clone(),
            topic: self.topic().to_owned(),
            compression: Compression::Lz4,
            delivery_timeout: Duration::from_secs(60),
            ..auditstream_producer::Config::default()
        }
    }
}
