//! The audit event: its model, its Avro schema, and its way to bytes and back.
//!
//! - [`AuditEvent::builder`] makes an event and refuses a bad one with all problems at once.
//! - [`encode`] writes it, framed for a laptop ([`Framing::SingleObject`]) or a schema registry ([`Framing::Confluent`]).
//! - [`BatchDecoder`] turns records into Arrow batches, the consumer's hot path; [`decode`] turns one into an event.
//! - [`content_hash`] says whether two records are the same event.
//! - [`compatibility`] says whether one schema reads what another wrote, and why not; [`gate`] what must hold before one is released.
//! - `custom` (with the feature of that name) carries a service's own record in `details`.
//! - `registry` (with the feature of that name) asks a schema registry.
//!
//! Promises: an event that [`AuditEvent::validate`] accepts comes back equal from both decoders, with one hash; a record
//! that no event was written to is [`Poison`] with a stable code, in bounded memory and time, without a panic, and never at
//! its neighbours' cost.

mod batch;
mod builder;
mod columns;
pub mod compatibility;
mod compile;
#[cfg(feature = "custom")]
pub mod custom;
mod decode;
mod encode;
mod event;
mod framing;
pub mod gate;
pub mod golden;
mod guard;
mod hash;
mod json;
mod json_form;
mod json_scan;
mod json_text;
mod kind;
mod misread;
mod nearest;
#[cfg(feature = "registry")]
pub mod registry;
mod schemas;
mod straight;
mod validate;

pub use batch::{BatchDecoder, DecodeFault, Decoded};
pub use builder::EventBuilder;
pub use decode::decode;
pub use encode::{encode, encoded_len};
pub use event::{
    Actor, ActorKind, AuditEvent, Change, NotATime, Operation, Outcome, Priority, ProducerStamp, Timestamp,
    UnknownSymbol,
};
pub use framing::{Framing, Poison, PoisonCode, Position, WriterId, split};
pub use hash::{HASH_BYTES, ShapeFault, content_hash, content_hash_of};
pub use schemas::{AUDIT_EVENT_V1, Known, SchemaError, Schemas, V1_FINGERPRINT};
pub use validate::{EventError, Problem, limits};
