//! `cargo xtask bench`: figures, each on servers of its own. One file a subject.

mod decode;
mod freshness;
mod ingest;
mod order_service;
mod own_stack;
mod producer;
mod producer_peers;
mod queries;
mod queries_postgres;
mod report;

use std::path::PathBuf;

use anyhow::Result;

use crate::child::workspace;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// What decoding records to columns costs, of one writer schema and of several mixed.
    Decode(decode::Args),
    /// How long after it was recorded an event is queryable, while others come at fixed rates.
    Freshness(freshness::Args),
    /// From the topic into the table, beside ClickHouse's own Kafka engine and beside what bounds both.
    Ingest(ingest::Args),
    /// How time and memory grow with rows, partitions, workers and field changes.
    Growth(ingest::GrowthArgs),
    /// Where the time goes between the topic and the table, and what other settings of the table give.
    Profile(ingest::ProfileArgs),
    /// What `record` costs its caller, and what the producer carries to Kafka.
    Producer(producer::Args),
    /// The producer beside bare channels, rdkafka with JSON, an INSERT into PostgreSQL, kcat and Kafka's performance tool.
    ProducerPeers(producer_peers::Args),
    /// What the questions of docs/queries.md take, and what the indexes that make them fast cost the inserts.
    Queries(queries::Args),
    /// The same questions of the same events in ClickHouse and in PostgreSQL, with the indexes that people would make there.
    QueriesPostgres(queries_postgres::Args),
    /// The example service with no audit, with an INSERT into its own database, and with auditstream: what a request takes.
    OrderService(order_service::Args),
    /// Write bench/RESULTS.md and its plots from what benchmarks left in bench/results.
    Report,
}

/// Where a benchmark leaves what `report` reads.
fn results_file(name: &str) -> PathBuf {
    workspace().join(format!("bench/results/{name}.json"))
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Decode(args) => decode::run(args),
        Bench::Freshness(args) => freshness::run(args),
        Bench::Ingest(args) => ingest::run(args),
        Bench::Growth(args) => ingest::growth(args),
        Bench::Profile(args) => ingest::profile(args),
        Bench::Producer(args) => producer::run(args),
        Bench::ProducerPeers(args) => producer_peers::run(args),
        Bench::Queries(args) => queries::run(args),
        Bench::QueriesPostgres(args) => queries_postgres::run(args),
        Bench::OrderService(args) => order_service::run(args),
        Bench::Report => report::run(),
    }
}
