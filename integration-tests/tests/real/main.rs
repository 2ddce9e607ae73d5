//! Tests of the whole system on real Kafka and real ClickHouse. One executable, because linking costs more than running most of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod analysts;
mod archives;
mod cli;
mod consumer_admin;
mod consumer_pause;
mod crashes;
mod custom_fields;
mod dlq;
mod doctor;
mod doctor_planted;
mod evolution;
mod faults;
mod inserts;
mod interop;
mod landing;
mod live_registry;
mod membership;
mod migrations;
mod operations;
mod oracle;
mod outage;
mod outbox;
mod poison;
mod probes;
mod prometheus;
mod queries;
mod registry;
mod retention;
mod schema_gate;
mod security;
mod shards;
mod spill;
mod store;
mod traces;
