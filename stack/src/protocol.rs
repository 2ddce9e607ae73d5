//! What a stack's owner and its supervisor say to each other: one JSON object a line, over the supervisor's stdin and stdout.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::KafkaListener;
use crate::install::{Registry, Servers};
use crate::state::{ServerKind, State};

/// Goes up with every change, so that an executable left from an older build is refused with a clear message.
pub(crate) const VERSION: u32 = 3;

/// The first line: what to start.
#[derive(Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) version: u32,
    pub(crate) name: String,
    /// The folder to use.
    pub(crate) dir: PathBuf,
    /// Where stacks lie by default; dead ones are removed there.
    pub(crate) root: PathBuf,
    pub(crate) throughput: bool,
    /// ClickHouse's memory limit in bytes.
    pub(crate) clickhouse_memory: u64,
    pub(crate) kafka_listeners: Vec<KafkaListener>,
    /// User and password, written into Kafka's storage when it is formatted.
    pub(crate) kafka_scram_users: Vec<(String, String)>,
    pub(crate) servers: Servers,
}

/// Every further line from the owner. Each gets exactly one reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// SIGKILL.
    Kill(ServerKind),
    /// SIGTERM, and SIGKILL when that takes too long.
    Stop(ServerKind),
    /// Again, on the same ports and data.
    Start(ServerKind),
    /// SIGSTOP.
    Pause(ServerKind),
    /// SIGCONT.
    Resume(ServerKind),
    /// Start a schema registry beside the others; nothing when there is one.
    AddRegistry(Registry),
    /// Only tell the state.
    Look,
    /// Live on without an owner.
    Detach,
    /// Stop everything, remove the folder, end.
    Shutdown,
}

/// The supervisor's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// Done; this is the state now.
    Done(Box<State>),
    /// The name is taken by a living stack.
    InUse,
    /// Not done, for this reason.
    Failed(String),
}
