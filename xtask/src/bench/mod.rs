//! `cargo xtask bench`: figures, measured in turns on one machine. One file a subject.

mod order_service;

use anyhow::Result;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// The example service with no audit, with an INSERT into its own database, and with auditstream: what a request takes.
    OrderService(order_service::Args),
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::OrderService(args) => order_service::run(args),
    }
}
