//! Load on the order service (`examples/order-service`), one way of auditing beside the other: what does the trail cost a request?
//!
//! Three services run at once, each on tables of its own kind: one audits nothing, one inserts into an audit table of its own database, one uses
//! auditstream. They get the same requests at the same times in turns ([`compare`]), so that whatever else happens on the machine meets all three. Then
//! every request that was answered is held against what ClickHouse has ([`trail`]): the load's request ids are in the events.
//!
//! - [`mod@client`]: one connection, kept alive.
//! - [`clerk`]: who asks what: reads, updates, new orders, cancellations, logins, imports, each about orders of its own.
//! - [`mod@slice`]: requests at fixed times on a fixed number of connections, and how long each took.
//! - [`service`]: the service as a process.

pub mod clerk;
pub mod client;
pub mod compare;
pub mod service;
pub mod slice;
pub mod trail;

/// What the service does with its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nothing.
    None,
    /// A synchronous INSERT into an audit table of its own database.
    Sync,
    /// auditstream.
    Stream,
}

impl Mode {
    /// In the order in which they take turns.
    pub const ALL: [Mode; 3] = [Mode::None, Mode::Sync, Mode::Stream];

    /// As the service's `--audit` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::None => "none",
            Mode::Sync => "sync",
            Mode::Stream => "stream",
        }
    }
}
