//! All metrics of the worker: names, units and labels in one place.
//!
//! Labels are bounded: partitions of one topic, seal reasons, poison codes, steps. Never an entity, a tenant or an id.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// `partition="3"`
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PartitionLabel {
    pub(crate) partition: i32,
}

/// `reason="age"`
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    pub(crate) reason: &'static str,
}

/// `reason="wrong-magic"`: a poison code or ClickHouse's error code, so some dozens at most.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DeadLetterLabel {
    pub(crate) reason: String,
}

/// `step="insert", class="retry"`
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FailureLabel {
    pub(crate) step: &'static str,
    pub(crate) class: &'static str,
}

/// `outcome="found"`
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabel {
    pub(crate) outcome: &'static str,
}

/// The worker's metrics. Counters only grow; gauges say what is so now.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) records: Counter,
    pub(crate) record_bytes: Counter,
    pub(crate) stale_records: Counter,
    pub(crate) rows: Counter,
    pub(crate) batches: Family<ReasonLabel, Counter>,
    pub(crate) batch_rows: Histogram,
    pub(crate) insert_seconds: Histogram,
    pub(crate) failures: Family<FailureLabel, Counter>,
    pub(crate) dead_letters: Family<DeadLetterLabel, Counter>,
    pub(crate) commits: Counter,
    pub(crate) commit_failures: Counter,
    pub(crate) rebalances: Family<ReasonLabel, Counter>,
    pub(crate) assigned_partitions: Gauge,
    pub(crate) paused: Gauge,
    pub(crate) held_bytes: Gauge,
    pub(crate) lag: Family<PartitionLabel, Gauge>,
    pub(crate) schema_waiting_partitions: Gauge,
    pub(crate) schema_lookups: Family<OutcomeLabel, Counter>,
    /// Seconds since 1970 of the newest record that is queryable; freshness is now minus this.
    pub(crate) newest_queryable: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// All metrics at zero, registered under the prefix `auditstream_consumer`.
    pub(crate) fn new(worker_id: &str) -> Self {
        let mut registry = Registry::with_prefix("auditstream_consumer");
        let metrics = Self {
            records: Counter::default(),
            record_bytes: Counter::default(),
            stale_records: Counter::default(),
            rows: Counter::default(),
            batches: Family::default(),
            // 1 row to 2^20 rows an insert.
            batch_rows: Histogram::new(exponential_buckets(1.0, 4.0, 11)),
            // 1 ms to 65 s, about the range between an idle server and the insert timeout.
            insert_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
            failures: Family::default(),
            dead_letters: Family::default(),
            commits: Counter::default(),
            commit_failures: Counter::default(),
            rebalances: Family::default(),
            assigned_partitions: Gauge::default(),
            paused: Gauge::default(),
            held_bytes: Gauge::default(),
            lag: Family::default(),
            schema_waiting_partitions: Gauge::default(),
            schema_lookups: Family::default(),
            newest_queryable: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("records", "Records read", metrics.records.clone());
        registry.register_with_unit(
            "record",
            "Key and value bytes of the records read",
            Unit::Bytes,
            metrics.record_bytes.clone(),
        );
        registry.register(
            "stale_records",
            "Records dropped because they belong to an older assignment",
            metrics.stale_records.clone(),
        );
        registry.register("rows", "Rows acknowledged by ClickHouse", metrics.rows.clone());
        registry.register("batches", "Batches sealed, by reason", metrics.batches.clone());
        registry.register("batch_rows", "Rows of a batch", metrics.batch_rows.clone());
        registry.register_with_unit(
            "insert",
            "Time of one insert, answer included",
            Unit::Seconds,
            metrics.insert_seconds.clone(),
        );
        registry.register("failures", "Failed attempts, by step and class", metrics.failures.clone());
        registry.register(
            "dead_letters",
            "Dead letters acknowledged by the broker, by reason",
            metrics.dead_letters.clone(),
        );
        registry.register("commits", "Offset commits acknowledged", metrics.commits.clone());
        registry.register("commit_failures", "Offset commits refused or lost", metrics.commit_failures.clone());
        registry.register(
            "rebalances",
            "Assignments, revocations and losses of partitions",
            metrics.rebalances.clone(),
        );
        registry.register("assigned_partitions", "Partitions this worker owns", metrics.assigned_partitions.clone());
        registry.register(
            "paused",
            "1 while fetching is paused because as much is held as may be",
            metrics.paused.clone(),
        );
        registry.register_with_unit(
            "held",
            "Wire bytes held: filling, inserting, waiting",
            Unit::Bytes,
            metrics.held_bytes.clone(),
        );
        registry.register("lag", "Records of a partition that are not committed yet", metrics.lag.clone());
        registry.register(
            "schema_waiting_partitions",
            "Partitions that wait for a schema of the registry",
            metrics.schema_waiting_partitions.clone(),
        );
        registry.register(
            "schema_lookups",
            "Requests for a schema, by outcome: found, missing, unusable, failed",
            metrics.schema_lookups.clone(),
        );
        registry.register_with_unit(
            "newest_queryable_timestamp",
            "Record time, since 1970, of the newest row that is queryable",
            Unit::Seconds,
            metrics.newest_queryable.clone(),
        );
        registry.register(
            "build",
            "Version and name of this worker",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("worker_id", worker_id.to_owned())]),
        );
        Self { registry, ..metrics }
    }

    /// The text that a Prometheus server scrapes (OpenMetrics 1.0).
    pub(crate) fn render(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn renders_each_family_under_the_prefix() {
        let metrics = Metrics::new("w1");
        metrics.records.inc_by(3);
        metrics.batches.get_or_create(&ReasonLabel { reason: "age" }).inc();
        let text = metrics.render().unwrap();
        assert!(text.contains("auditstream_consumer_records_total 3"), "{text}");
        assert!(text.contains("auditstream_consumer_batches_total{reason=\"age\"} 1"), "{text}");
        assert!(text.contains("worker_id=\"w1\""), "{text}");
    }
}
