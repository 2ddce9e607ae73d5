//! The transactional outbox: an audit event is written into a table of the service's own database, in the service's own
//! transaction, and a relay moves it to Kafka. The event exists if, and only if, the transaction was committed.
//!
//! ```no_run
//! # #[cfg(feature = "outbox-sqlite")]
//! # async fn example(pool: sqlx::SqlitePool) -> Result<(), Box<dyn std::error::Error>> {
//! use auditstream_producer::outbox::Outbox;
//! use auditstream_schemas::AuditEvent;
//!
//! let outbox = Outbox::default(); // table audit_outbox, made by `auditstream outbox migrate`
//!
//! let mut tx = pool.begin().await?;
//! sqlx::query("UPDATE orders SET status = 'paid' WHERE id = 42").execute(&mut *tx).await?;
//! let event = AuditEvent::builder("acme", "shop", "order.update", "order", "42").build()?;
//! outbox.record_in_tx(&mut tx, event).await?;
//! tx.commit().await?; // both or neither
//! # Ok(()) }
//! ```
//!
//! What is promised:
//! - A row holds the finished record: key, framed Avro bytes and what the headers are made of. The relay, or Debezium's outbox event
//!   router, passes bytes on and needs to know nothing of events.
//! - Sent at least once. A repeated record is the same bytes under the same event id: one row under FINAL.
//! - The events of one entity reach Kafka in the order of their rows (`seq`), however many relays there are and whichever of them
//!   die. See [`relay`](self::relay) for why. Two transactions that write to one entity at the same time are in the order in which they
//!   took their `seq`, which is that of the commits if they lock the entity before they record, as an UPDATE of its row does.
//! - An event with an idempotency key is taken once, also across processes and after it was sent, for as long as its row is
//!   kept ([`RelayConfig::retention`]): its id is made of the key, and `id` is unique in the table.
//! - Events recorded here carry a producer's stamp (id, epoch, seq) only if the caller set one: a rolled-back transaction would leave a
//!   gap in the numbers that looks like a loss.

#[cfg(not(any(feature = "outbox-postgres", feature = "outbox-mysql", feature = "outbox-sqlite")))]
compile_error!("the outbox needs a database: one of the features outbox-postgres, outbox-mysql, outbox-sqlite");

#[cfg(feature = "relay")]
mod config;
mod database;
mod ddl;
mod failed;
#[doc(hidden)]
pub mod faults;
#[cfg(feature = "relay")]
mod http;
#[cfg(feature = "relay")]
mod lease;
#[cfg(feature = "relay")]
mod metrics;
mod record;
#[cfg(feature = "relay")]
pub mod relay;
#[cfg(feature = "relay")]
mod rows;
#[cfg(feature = "relay")]
mod send;
#[cfg(feature = "relay")]
mod wakes;

#[cfg(feature = "relay")]
pub use config::{RelayConfig, Sent};
pub use database::{Database, DatabaseError, Dialect, sqlite_file};
pub use ddl::{Table, TableNameError, ddl};
pub use failed::{Depth, FailedRow};
pub use record::{InTransaction, Outbox, OutboxOptions, RecordError};
#[cfg(feature = "relay")]
pub use relay::{RelayError, Summary, run};

/// How entities are shared out: an entity belongs to one of so many shards, and a shard to one relay at a time. Written into rows: never change it.
pub const SHARDS: u32 = 64;

/// The shard of a record key: FNV-1a over its bytes, folded. Stable over versions and machines.
#[must_use]
pub fn shard_of(key: &str) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in key.as_bytes() {
        hash ^= u64::from(*byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    ((hash ^ (hash >> 32)) % u64::from(SHARDS)) as u32
}

/// What `status` in the table says.
pub(crate) mod status {
    /// To be sent as soon as its turn comes.
    pub(crate) const PENDING: i64 = 0;
    /// Every in-sync replica has it. `available_at` is then when that was known.
    #[cfg(feature = "relay")]
    pub(crate) const SENT: i64 = 1;
    /// Refused as often as allowed; `last_error` says why.
    pub(crate) const FAILED: i64 = 2;
    /// Not before `available_at`.
    pub(crate) const DELAYED: i64 = 3;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_stable_and_even() {
        // Rows in the tables of users have these.
        assert_eq!([shard_of("acme/order/42"), shard_of(""), shard_of("t/e/1")], [21, 1, 58]);
        let mut counts = [0_u32; SHARDS as usize];
        for number in 0..64_000 {
            counts[shard_of(&format!("acme/order/{number}")) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (700..1_300).contains(count)), "{counts:?}");
    }
}
