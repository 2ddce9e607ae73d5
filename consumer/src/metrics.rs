//! All metrics of the worker: names, units and labels in one place.
//!
//! Labels are bounded: partitions of one topic, seal reasons, poison codes, steps. Never an entity, a tenant or an id.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::certificates::{CertificateFile, Certificates};
use crate::dead_letters::now_ms;

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

/// `step="insert"`
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StepLabel {
    pub(crate) step: &'static str,
}

/// Upper ends of the delay's buckets in seconds: the target is 1, an outage takes minutes.
const DELAYS: [f64; 15] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

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
    /// What the loop that sizes batches aims at now.
    pub(crate) batch_target_rows: Gauge,
    pub(crate) batch_target_age: Gauge<f64, AtomicU64>,
    pub(crate) batch_decisions: Family<ReasonLabel, Counter>,
    pub(crate) table_parts: Gauge,
    pub(crate) insert_seconds: Histogram,
    pub(crate) freshness: Histogram,
    pub(crate) failures: Family<FailureLabel, Counter>,
    pub(crate) retries: Family<StepLabel, Counter>,
    pub(crate) dead_letters: Family<DeadLetterLabel, Counter>,
    pub(crate) commits: Counter,
    pub(crate) commit_failures: Counter,
    pub(crate) rebalances: Family<ReasonLabel, Counter>,
    pub(crate) assigned_partitions: Gauge,
    pub(crate) paused: Gauge,
    pub(crate) paused_partitions: Gauge,
    pub(crate) suspended: Gauge,
    pub(crate) held_bytes: Gauge,
    pub(crate) lag: Family<PartitionLabel, Gauge>,
    pub(crate) schema_waiting_partitions: Gauge,
    pub(crate) schema_lookups: Family<OutcomeLabel, Counter>,
    /// Seconds since 1970 of the newest record that is queryable; freshness is now minus this.
    pub(crate) newest_queryable: Gauge<f64, AtomicU64>,
    /// What time lag is computed from when it is asked for.
    pub(crate) oldest_uncommitted: Oldest,
    pub(crate) trace_export_failures: Counter,
}

impl Metrics {
    /// All metrics at zero, registered under the prefix `auditstream_consumer`.
    pub(crate) fn new(worker_id: &str, certificates: Vec<CertificateFile>) -> Self {
        let mut registry = Registry::with_prefix("auditstream_consumer");
        let metrics = Self {
            records: Counter::default(),
            record_bytes: Counter::default(),
            stale_records: Counter::default(),
            rows: Counter::default(),
            batches: Family::default(),
            // 1 row to 2^20 rows an insert.
            batch_rows: Histogram::new(exponential_buckets(1.0, 4.0, 11)),
            batch_target_rows: Gauge::default(),
            batch_target_age: Gauge::default(),
            batch_decisions: Family::default(),
            table_parts: Gauge::default(),
            // 1 ms to 65 s, about the range between an idle server and the insert timeout.
            insert_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
            freshness: Histogram::new(DELAYS),
            failures: Family::default(),
            retries: Family::default(),
            dead_letters: Family::default(),
            commits: Counter::default(),
            commit_failures: Counter::default(),
            rebalances: Family::default(),
            assigned_partitions: Gauge::default(),
            paused: Gauge::default(),
            paused_partitions: Gauge::default(),
            suspended: Gauge::default(),
            held_bytes: Gauge::default(),
            lag: Family::default(),
            schema_waiting_partitions: Gauge::default(),
            schema_lookups: Family::default(),
            newest_queryable: Gauge::default(),
            oldest_uncommitted: Oldest::default(),
            trace_export_failures: Counter::default(),
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
        registry.register(
            "batch_target_rows",
            "Rows that close a batch, as the closed loop has it now",
            metrics.batch_target_rows.clone(),
        );
        registry.register_with_unit(
            "batch_target_age",
            "Age that closes a batch, as the closed loop has it now",
            Unit::Seconds,
            metrics.batch_target_age.clone(),
        );
        registry.register(
            "batch_decisions",
            "Decisions of the closed loop that sizes batches, by reason",
            metrics.batch_decisions.clone(),
        );
        registry.register(
            "table_parts",
            "Active parts of the fullest partition of the events table",
            metrics.table_parts.clone(),
        );
        registry.register_with_unit(
            "insert",
            "Time of one insert, answer included",
            Unit::Seconds,
            metrics.insert_seconds.clone(),
        );
        registry.register_with_unit(
            "freshness",
            "Time from the oldest row's record to the acknowledgement of its batch's insert, one observation a batch: how old events were when they became queryable",
            Unit::Seconds,
            metrics.freshness.clone(),
        );
        registry.register(
            "failures",
            "Failed attempts, by step and class: retry is tried again, bisect is a batch with refused rows, halt ends the worker",
            metrics.failures.clone(),
        );
        registry.register("retries", "Attempts after the first one, by step", metrics.retries.clone());
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
        registry.register(
            "paused_partitions",
            "Partitions of this worker whose fetching is paused",
            metrics.paused_partitions.clone(),
        );
        registry.register(
            "suspended",
            "1 while an operator has paused the group, with auditstream consumer pause",
            metrics.suspended.clone(),
        );
        registry.register_with_unit(
            "held",
            "Wire bytes in flight: of records being filled into a batch, inserted, or waiting for another attempt",
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
        registry.register_collector(Box::new(Ages {
            oldest_uncommitted: metrics.oldest_uncommitted.clone(),
            newest_queryable: metrics.newest_queryable.clone(),
        }));
        registry.register_collector(Box::new(Certificates::new(certificates)));
        registry.register(
            "trace_export_failures",
            "Requests to the OTLP collector that failed; their spans are lost, nothing else is",
            metrics.trace_export_failures.clone(),
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

/// Timestamp of the oldest record of each owned partition that was read and is not committed, milliseconds since 1970; `None` when all are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oldest(Arc<Mutex<BTreeMap<i32, Option<i64>>>>);

impl Oldest {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Option<i64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, partition: i32, oldest_ms: Option<i64>) {
        self.lock().insert(partition, oldest_ms);
    }

    pub(crate) fn remove(&self, partition: i32) {
        self.lock().remove(&partition);
    }

    #[cfg(test)]
    pub(crate) fn get(&self, partition: i32) -> Option<Option<i64>> {
        self.lock().get(&partition).copied()
    }
}

/// Gauges that grow by themselves: computed when they are asked for, so that they grow when the loop hangs, too.
#[derive(Debug)]
struct Ages {
    oldest_uncommitted: Oldest,
    newest_queryable: Gauge<f64, AtomicU64>,
}

impl Collector for Ages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = now_ms();
        let age = |then: i64| ConstGauge::new(now.saturating_sub(then).max(0) as f64 / 1000.0);
        let mut lags = encoder.encode_descriptor(
            "time_lag",
            "Age, by its timestamp, of the oldest record of a partition that this worker has read and not committed; 0 when there is none. \
             Records that are not read yet are younger",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (&partition, oldest) in &*self.oldest_uncommitted.lock() {
            age(oldest.unwrap_or(now)).encode(lags.encode_family(&PartitionLabel { partition })?)?;
        }
        let newest = self.newest_queryable.get();
        if newest > 0.0 {
            let help = "Age of the newest row that this worker made queryable. Grows while no events come; freshness is of single batches";
            let encoder =
                encoder.encode_descriptor("newest_queryable_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
            age((newest * 1000.0) as i64).encode(encoder)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    mod metric_names {
        include!("../../helm/auditstream/ci/metric_names.rs");
    }

    #[test]
    fn alerts_dashboards_and_scaling_ask_for_what_is_there() {
        let file = CertificateFile {
            setting: "kafka.ssl_ca_location",
            file: "/nowhere".into(),
            kind: auditstream_store::CertificateKind::Own,
        };
        let metrics = Metrics::new("w1", vec![file]);
        // These are there only once something has happened.
        metrics.newest_queryable.set(1.0);
        for family in [&metrics.batches, &metrics.batch_decisions, &metrics.rebalances] {
            drop(family.get_or_create(&ReasonLabel { reason: "r" }));
        }
        drop(metrics.failures.get_or_create(&FailureLabel { step: "s", class: "c" }));
        drop(metrics.retries.get_or_create(&StepLabel { step: "s" }));
        drop(metrics.dead_letters.get_or_create(&DeadLetterLabel { reason: "r".to_owned() }));
        drop(metrics.lag.get_or_create(&PartitionLabel { partition: 0 }));
        drop(metrics.schema_lookups.get_or_create(&OutcomeLabel { outcome: "o" }));
        let text = metrics.render().unwrap();
        assert_eq!(metric_names::missing("auditstream_consumer_", &text), [""; 0], "{text}");
    }

    #[test]
    fn renders_each_family_under_the_prefix() {
        let metrics = Metrics::new("w1", Vec::new());
        metrics.records.inc_by(3);
        metrics.batches.get_or_create(&ReasonLabel { reason: "age" }).inc();
        let text = metrics.render().unwrap();
        assert!(text.contains("auditstream_consumer_records_total 3"), "{text}");
        assert!(text.contains("auditstream_consumer_batches_total{reason=\"age\"} 1"), "{text}");
        assert!(text.contains("worker_id=\"w1\""), "{text}");
    }
    #[test]
    fn ages_are_of_the_moment_they_are_asked_for() {
        let metrics = Metrics::new("w1", Vec::new());
        assert!(!metrics.render().unwrap().contains("newest_queryable_age"), "nothing is queryable yet");
        metrics.oldest_uncommitted.set(3, Some(now_ms() - 90_000));
        metrics.oldest_uncommitted.set(4, None);
        metrics.oldest_uncommitted.set(5, Some(now_ms() + 90_000));
        metrics.newest_queryable.set(now_ms() as f64 / 1000.0 - 30.0);
        let text = metrics.render().unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix("auditstream_consumer_")?.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().unwrap()
        };
        assert!((90.0..95.0).contains(&value("time_lag_seconds{partition=\"3\"}")), "{text}");
        assert_eq!(
            [value("time_lag_seconds{partition=\"4\"}"), value("time_lag_seconds{partition=\"5\"}")],
            [0.0, 0.0]
        );
        assert!((30.0..35.0).contains(&value("newest_queryable_age_seconds")), "{text}");
        metrics.oldest_uncommitted.remove(3);
        assert!(!metrics.render().unwrap().contains("time_lag_seconds{partition=\"3\"}"));
    }
}
