//! Tests of the whole system on real Kafka and real ClickHouse. One executable, because linking costs more than running most of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cli;
mod crashes;
mod custom_fields;
mod doctor;
mod evolution;
mod faults;
mod inserts;
mod interop;
mod landing;
mod live_registry;
mod membership;
mod oracle;
mod outage;
mod outbox;
mod poison;
mod probes;
mod queries;
mod registry;
mod schema_gate;
mod security;
mod spill;
mod store;
mod traces;
