//! `cargo xtask bench`: figures, each on servers of its own.

mod producer;

use anyhow::Result;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// What `record` costs its caller, and what the producer carries to Kafka.
    Producer(producer::Args),
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Producer(args) => producer::run(args),
    }
}
