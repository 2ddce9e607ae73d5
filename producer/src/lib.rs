//! The part of auditstream that a service links: hand in an audit event and forget it.
//!
//! ```no_run
//! use std::time::Duration;
//! use auditstream_producer::Producer;
//! use auditstream_schemas::{Actor, AuditEvent};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let audit = Producer::builder("127.0.0.1:9092").linger(Duration::from_millis(10)).build()?;
//!
//! let event = AuditEvent::builder("acme", "shop", "order.update", "order", "42")
//!     .actor(Actor::user("u-7"))
//!     .change("/status", Some("\"open\""), Some("\"paid\""))
//!     .build()?;
//! audit.record(event)?; // never blocks; gives the event back when it can't be taken
//!
//! let login = AuditEvent::builder("acme", "shop", "user.login", "user", "u-7").build()?;
//! let at = audit.record_acked(login).await?; // every in-sync replica has it
//! println!("partition {} offset {}", at.partition, at.offset);
//!
//! let report = audit.shutdown(Duration::from_secs(10)).await;
//! assert!(report.all_acked());
//! # Ok(()) }
//! ```
//!
//! What is promised:
//! - [`Producer::record`] never blocks, never does I/O, and never throws an event away: it takes it or gives it back
//!   with the reason. It needs no async runtime.
//! - Events and bytes on their way are bounded, in one place, with room of its own for each priority ([`Lanes`]).
//! - Events of one entity, handed in by one thread, keep their order on the topic, also across retries.
//! - An event that was taken is acknowledged by all in-sync replicas, or it is counted, logged (without its content)
//!   and told to whoever waits for it or observes deliveries; when events get through again, an `audit.loss` event says how many did not. With a
//!   spill it goes to disk instead, and from there to Kafka.
//! - [`Producer::record_critical`] returns when every in-sync replica has the event or it is on disk, or says that neither is so.
//! - [`Producer::flush`], [`Producer::shutdown`] and [`Producer::record_acked`] work in any executor.
//!
//! Behind features, all off by default:
//! - `tower`: the request context for axum; events know client, ids and path without being told (module `context`);
//! - `changes`: an event's changes as the difference of two serde values (module `changes`);
//! - `redaction`: rules that drop, mask or hash values before they leave the process (module `redaction`);
//! - `spill`: a file on local disk for the time when Kafka is away or memory is full (module `spill`);
//! - `outbox-postgres`, `outbox-mysql`, `outbox-sqlite`: events in the service's own transaction (module `outbox`);
//! - `registry`: the schema's id from a schema registry (module `registry`);
//! - `custom-fields`: a service's own Avro record in `details`, checked and typed (module `custom`);
//! - `metrics`: the counters for a Prometheus registry (module `metrics`);
//! - `derive`: `derive(Audited)`, one line for an event of two values (module `audited`).
//!
//! A record's key is [`AuditEvent::key`](auditstream_schemas::AuditEvent::key), its partition the one that Java's
//! default partitioner takes, its timestamp the moment it is handed to the Kafka client, and its headers are
//! CloudEvents in binary mode, with [`CE_TYPE`].

#[cfg(feature = "derive")]
pub mod audited;
mod budget;
mod builder;
#[cfg(feature = "changes")]
pub mod changes;
mod config;
#[cfg(feature = "tower")]
pub mod context;
#[cfg(feature = "custom-fields")]
pub mod custom;
mod delivery;
mod error;
mod headers;
mod idempotency;
#[cfg(any(feature = "changes", feature = "redaction"))]
mod json;
mod loss;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "tower"))]
mod no_context;
#[cfg(not(feature = "spill"))]
mod no_spill;
pub mod oauth;
#[cfg(feature = "outbox")]
pub mod outbox;
mod prepare;
mod producer;
#[cfg(feature = "redaction")]
pub mod redaction;
#[cfg(feature = "registry")]
pub mod registry;
pub mod security;
mod sender;
mod size;
#[cfg(feature = "spill")]
pub mod spill;
mod stats;

pub use budget::Lanes;
pub use builder::Builder;
pub use config::{Compression, Config, Critical};
#[cfg(feature = "tower")]
pub(crate) use context::ForEvent;
pub use delivery::{Delivery, Fate, Observer};
pub use error::{DeliveryError, DeliveryFailure, FailReason, ProducerError, RejectReason, Rejected};
pub use headers::{CE_TYPE, TraceParent};
pub use idempotency::idempotent_event_id;
#[cfg(not(feature = "tower"))]
pub(crate) use no_context::ForEvent;
#[cfg(not(feature = "spill"))]
pub(crate) use no_spill::{Drain, Spill};
pub use producer::{Durable, Producer, RecordOptions};
#[cfg(feature = "spill")]
pub(crate) use spill::{Drain, Spill};
pub use stats::{Failures, Rejections, Report, Stats};
