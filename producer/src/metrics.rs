//! The producer's counters for Prometheus: a collector that a service registers with the registry that it serves anyway.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use auditstream_producer::{Config, Producer};
//! use prometheus_client::registry::Registry;
//!
//! let audit = Producer::new(Config::default())?;
//! let mut registry = Registry::default(); // without a prefix: the names are whole
//! registry.register_collector(Box::new(audit.metrics()));
//! # Ok(()) }
//! ```
//!
//! Labels are reasons, some dozens at most; never a tenant, an entity or an id.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::delivery::Shared;
use crate::error::FailReason;
use crate::stats::Stats;

/// What a queue and a spill may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) queue_bytes: u64,
    /// 0 without a spill.
    pub(crate) spill_bytes: u64,
}

/// The counters of one producer, as they are when they are asked for. It does not keep the producer alive.
#[derive(Debug)]
pub struct ProducerMetrics {
    pub(crate) shared: Arc<Shared>,
    pub(crate) limits: Limits,
}

impl Collector for ProducerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.shared.counters.stats(&self.shared.budget);
        let mut counter = |name: &str, help: &str, value: u64| {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(encoder)
        };
        counter("auditstream_producer_events_submitted", "Events taken", stats.submitted)?;
        counter(
            "auditstream_producer_events_acked",
            "Events that every in-sync replica has, those from the spill too",
            stats.acked,
        )?;
        counter("auditstream_producer_events_spilled", "Events that went to the spill", stats.spilled)?;
        counter(
            "auditstream_producer_events_drained",
            "Events that came out of the spill and that every in-sync replica has",
            stats.drained,
        )?;
        let mut by_reason = |name: &str, help: &str, values: &[(&'static str, u64)]| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            values.iter().try_for_each(|(reason, value)| {
                ConstCounter::new(*value).encode(family.encode_family(&[("reason", *reason)])?)
            })
        };
        by_reason(
            "auditstream_producer_events_lost",
            "Events that are lost for good, by reason; each is also told by an audit.loss event",
            &lost(&stats),
        )?;
        let rejected = stats.rejected;
        let rejected = [
            ("queue-full", rejected.queue_full),
            ("shut-down", rejected.shut_down),
            ("invalid", rejected.invalid),
            ("too-large", rejected.too_large),
            ("duplicate", rejected.duplicate),
        ];
        by_reason("auditstream_producer_events_rejected", "Events given back to the caller, by reason", &rejected)?;
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: u64| {
            let encoder = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)
        };
        gauge("auditstream_producer_queue_events", "Events on their way", None, stats.queue_events as u64)?;
        gauge(
            "auditstream_producer_queue",
            "Their bytes, as the bound counts them",
            Some(&Unit::Bytes),
            stats.queue_bytes as u64,
        )?;
        gauge(
            "auditstream_producer_queue_limit",
            "Most bytes on their way",
            Some(&Unit::Bytes),
            self.limits.queue_bytes,
        )?;
        gauge("auditstream_producer_spill_events", "Events in the spill", None, stats.spill_events)?;
        gauge(
            "auditstream_producer_spill",
            "Their bytes, as the limit counts them",
            Some(&Unit::Bytes),
            stats.spill_bytes,
        )?;
        gauge(
            "auditstream_producer_spill_limit",
            "Most bytes of events in the spill; 0 without one",
            Some(&Unit::Bytes),
            self.limits.spill_bytes,
        )
    }
}

/// Lost events by reason, those with none too, so that a counter is there before it grows.
fn lost(stats: &Stats) -> Vec<(&'static str, u64)> {
    let failed = FailReason::ALL.into_iter().map(|reason| (reason.as_str(), stats.failed.get(reason)));
    failed.chain([("best-effort", stats.best_effort_dropped), ("damaged", stats.damaged)]).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use crate::{Config, Producer};

    mod metric_names {
        include!("../../helm/auditstream/ci/metric_names.rs");
    }

    #[test]
    fn counters_are_of_the_moment_and_outlive_the_producer() {
        let config = Config { bootstrap_servers: "127.0.0.1:1".to_owned(), queue_bytes: 1 << 20, ..Config::default() };
        let producer = Producer::new(config).unwrap();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(producer.metrics()));
        let rendered = || {
            let mut out = String::new();
            text::encode(&mut out, &registry).unwrap();
            out
        };
        let event = || auditstream_schemas::AuditEvent::builder("t", "s", "a", "e", "1").build().unwrap();
        producer.record(event()).unwrap();
        let before = rendered();
        assert!(before.contains("auditstream_producer_events_submitted_total 1"), "{before}");
        assert!(before.contains("auditstream_producer_queue_limit_bytes 1048576"), "{before}");
        assert!(before.contains("auditstream_producer_events_lost_total{reason=\"timed-out\"} 0"), "{before}");
        assert!(before.contains("auditstream_producer_queue_events 1\n"), "{before}");
        assert_eq!(metric_names::missing("auditstream_producer_", &before), [""; 0], "{before}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(producer.shutdown(std::time::Duration::ZERO));
        drop(producer);
        let after = rendered();
        assert!(after.contains("auditstream_producer_events_lost_total{reason=\"shut-down\"} 1"), "{after}");
        assert!(after.contains("auditstream_producer_queue_events 0\n"), "{after}");
    }
}
