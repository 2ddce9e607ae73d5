//! Real Apache Kafka and real ClickHouse on this machine, without containers; a schema registry for who asks for one.
//!
//! ```no_run
//! use auditstream_stack::{Options, Role, Stack};
//!
//! # fn main() -> Result<(), auditstream_stack::StackError> {
//! let stack = Stack::start(Options::default())?;          // both answer now
//! let (user, password) = stack.credentials(Role::Ingest);
//! println!("{} {} {user}", stack.kafka_bootstrap(), stack.clickhouse_url());
//! stack.kafka().kill()?;                                  // kill -9
//! stack.kafka().start()?;                                 // same port, same data
//! # let _ = password;
//! # Ok(())
//! # }                                                     // dropped: no process, no file left
//! ```
//!
//! Promises:
//! - what is missing is installed from package managers, once, into a cache; afterwards nothing touches the network;
//! - a stack listens on 127.0.0.1 only, on free ports, with random passwords, in a folder of its own;
//! - it ends with its owner, also by kill -9, and leaves no process and no file ([`Stack::detach`] is the exception);
//! - small crates only, no C toolchain beyond the linker.

mod answers;
mod claim;
mod config;
mod databases;
mod detached;
mod error;
mod hook;
mod host;
mod install;
mod ports;
mod progress;
mod protocol;
mod random;
mod registry;
mod server;
mod stack;
mod state;
mod supervisor;

pub use answers::{clickhouse_answers, kafka_answers, registry_answers};
pub use config::KafkaListener;
pub use databases::DatabaseServer;
pub use detached::{Status, down, find, list, status};
pub use error::{InstallError, StackError};
pub use hook::{bound, hook};
pub use install::{
    Installed, KAFKA_VERSION, Registry, Servers, cache_dir, ensure_databases, ensure_installed, ensure_java_compiler,
    ensure_maven, ensure_registry, ensure_servers, ensure_valgrind,
};
pub use progress::{Life, Lines, Progress, Silent};
pub use stack::{Options, Server, Stack};
pub use state::{Credentials, Role, ServerKind, State};
