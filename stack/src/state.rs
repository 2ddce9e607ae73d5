//! What is known of a running stack: `stack.json` in its folder, and what the supervisor answers.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{StackError, Tried as _};

/// Who connects to ClickHouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May do everything, also migrate.
    Admin,
    /// The worker: inserts, and reads what it needs to resume.
    Ingest,
    /// Reads, always without duplicates.
    Analyst,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Ingest, Self::Analyst];

    /// `admin`, `ingest` or `analyst`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Ingest => "ingest",
            Self::Analyst => "analyst",
        }
    }

    /// The ClickHouse user.
    #[must_use]
    pub fn user(self) -> &'static str {
        match self {
            Self::Admin => "audit_admin",
            Self::Ingest => "audit_ingest",
            Self::Analyst => "audit_analyst",
        }
    }
}

/// A user of this stack's ClickHouse.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// What it is for.
    pub role: Role,
    /// Its name.
    pub user: String,
    /// Its password, random per stack.
    pub password: String,
}

impl Credentials {
    pub(crate) fn new(role: Role, password: String) -> Self {
        Self { role, user: role.user().to_owned(), password }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// One of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerKind {
    /// Apache Kafka.
    Kafka,
    /// ClickHouse.
    Clickhouse,
    /// The schema registry, which not every stack has.
    Registry,
}

impl ServerKind {
    /// All that a stack may have.
    pub const ALL: [Self; 3] = [Self::Kafka, Self::Clickhouse, Self::Registry];
    /// Those that every stack has.
    pub(crate) const ALWAYS: [Self; 2] = [Self::Kafka, Self::Clickhouse];

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka",
            Self::Clickhouse => "ClickHouse",
            Self::Registry => "the schema registry",
        }
    }

    /// What the server itself writes; start-up errors of ClickHouse's host stand in the second file.
    #[must_use]
    pub fn log_names(self) -> &'static [&'static str] {
        match self {
            Self::Kafka => &["kafka.log"],
            Self::Clickhouse => &["clickhouse.log", "clickhouse-host.log"],
            Self::Registry => &["registry.log"],
        }
    }
}

/// A running stack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Its name.
    pub name: String,
    /// Its folder: data, logs, configuration. Goes when the stack goes.
    pub dir: PathBuf,
    /// The process that owns the servers.
    pub supervisor_pid: u32,
    /// True when it stays until `down`; false when it goes with the process that started it.
    pub detached: bool,
    /// True when Kafka runs with the full just-in-time compiler and a larger heap.
    pub throughput: bool,
    /// `127.0.0.1:PORT`.
    pub kafka_bootstrap: String,
    /// Kafka's port.
    pub kafka_port: u16,
    /// Ports of the further listeners, by name.
    #[serde(default)]
    pub kafka_listener_ports: BTreeMap<String, u16>,
    /// The KRaft controller's port.
    pub kafka_controller_port: u16,
    /// Kafka's process while it runs.
    pub kafka_pid: Option<u32>,
    /// `http://127.0.0.1:PORT`.
    pub clickhouse_url: String,
    /// ClickHouse's HTTP port.
    pub clickhouse_http_port: u16,
    /// ClickHouse's native protocol port.
    pub clickhouse_tcp_port: u16,
    /// ClickHouse's process while it runs.
    pub clickhouse_pid: Option<u32>,
    /// The schema registry's base URL, `http://127.0.0.1:PORT/apis/ccompat/v7`; `None` when the stack has none.
    #[serde(default)]
    pub registry_url: Option<String>,
    /// Its port; 0 when the stack has none.
    #[serde(default)]
    pub registry_port: u16,
    /// Its process while it runs.
    #[serde(default)]
    pub registry_pid: Option<u32>,
    /// ClickHouse's users.
    pub users: Vec<Credentials>,
}

impl State {
    /// The file's name inside the stack's folder.
    pub const FILE: &'static str = "stack.json";

    /// Reads a stack's file.
    pub(crate) fn read(dir: &Path) -> Result<Self, StackError> {
        let path = dir.join(Self::FILE);
        let text = fs::read(&path).tried("read", &path)?;
        serde_json::from_slice(&text).map_err(|e| StackError::Failed(format!("{}: {e}", path.display())))
    }

    /// Writes the file; a reader sees the old one or the new one.
    pub(crate) fn write(&self) -> Result<(), StackError> {
        let text = serde_json::to_string_pretty(self).map_err(|e| StackError::Failed(e.to_string()))?;
        let (path, temporary) = (self.dir.join(Self::FILE), self.dir.join("stack.json.new"));
        write_private(&temporary, &text)?;
        fs::rename(&temporary, &path).tried("write", &path)
    }

    /// The credentials of a role.
    #[must_use]
    pub fn credentials(&self, role: Role) -> Option<&Credentials> {
        self.users.iter().find(|user| user.role == role)
    }

    /// A server's process while it runs.
    #[must_use]
    pub fn pid(&self, server: ServerKind) -> Option<u32> {
        match server {
            ServerKind::Kafka => self.kafka_pid,
            ServerKind::Clickhouse => self.clickhouse_pid,
            ServerKind::Registry => self.registry_pid,
        }
    }

    /// The servers' log files.
    #[must_use]
    pub fn log_paths(&self) -> Vec<PathBuf> {
        ServerKind::ALL.iter().flat_map(|server| server.log_names()).map(|name| self.dir.join(name)).collect()
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), StackError> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .tried("write", path)
}
