//! `cargo xtask bench`: figures, each on servers of its own. One file a subject.

mod decode;
mod order_service;
mod producer;
mod queries;

use anyhow::Result;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// What decoding records to columns costs, of one writer schema and of several mixed.
    Decode(decode::Args),
    /// What `record` costs its caller, and what the producer carries to Kafka.
    Producer(producer::Args),
    /// What the questions of docs/queries.md take, and what the indexes that make them fast cost the inserts.
    Queries(queries::Args),
    /// The example service with no audit, with an INSERT into its own database, and with auditstream: what a request takes.
    OrderService(order_service::Args),
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Decode(args) => decode::run(args),
        Bench::Producer(args) => producer::run(args),
        Bench::Queries(args) => queries::run(args),
        Bench::OrderService(args) => order_service::run(args),
    }
}
