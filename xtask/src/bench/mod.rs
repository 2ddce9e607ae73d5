//! `cargo xtask bench`: figures, each on servers of its own. One file a subject.

mod decode;
mod order_service;
mod producer;

use anyhow::Result;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// What decoding records to columns costs, of one writer schema and of several mixed.
    Decode(decode::Args),
    /// What `record` costs its caller, and what the producer carries to Kafka.
    Producer(producer::Args),
    /// The example service with no audit, with an INSERT into its own database, and with auditstream: what a request takes.
    OrderService(order_service::Args),
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Decode(args) => decode::run(args),
        Bench::Producer(args) => producer::run(args),
        Bench::OrderService(args) => order_service::run(args),
    }
}
