//! The harness of the tests on real servers.
//!
//! A test asks for a [`Fixture`]: topics, consumer group and database of its own on real Kafka and real ClickHouse, and a folder for logs. It sends
//! events ([`Load`], [`Fixture::poison`]), runs workers as processes ([`Worker`]), and lets the [`oracle`] decide: every acknowledged event is one
//! row or one dead letter, none is lost, none is there twice.
//!
//! Promises: nothing here sleeps to wait for something (see [`wait_until`]); nothing outlives the test's process; a failed test leaves the logs of
//! its workers and servers under `target/test-logs/NAME/` and says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test harness: what fails here fails the test"
)]

mod build;
mod clickhouse;
mod fixture;
pub mod http;
mod kafka;
mod load;
mod options;
pub mod oracle;
pub mod otlp;
pub mod poison;
mod proxy;
mod registry;
mod report;
mod row_binary;
mod rows;
mod s3;
mod servers;
pub mod tls;
mod wait;
mod worker;

pub use build::bench_program;
pub use clickhouse::ClickHouse;
pub use fixture::{Fixture, Rigged};
pub use kafka::{Kafka, RawSender, Record};
pub use load::{Load, Recorder};
pub use options::Options;
pub use oracle::Verdict;
pub use proxy::{Fault, Proxy};
pub use registry::{RegistryAnswer, ScriptedRegistry};
pub use report::{FaultReport, is_long};
pub use row_binary::{Table, Value};
pub use rows::{COLUMNS, expected_row};
pub use s3::S3Server;
pub use servers::Users;
pub use wait::{block_on, poll, wait_until};
pub use worker::{CliOutput, Worker};
