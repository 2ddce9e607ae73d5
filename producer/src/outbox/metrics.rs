//! The relay's metrics: names, units and labels in one place. No label: never an entity, a tenant or an id.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) sent: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) refused: Counter,
    pub(crate) failed: Counter,
    pub(crate) database_errors: Counter,
    pub(crate) kafka_errors: Counter,
    pub(crate) shards: Gauge,
    pub(crate) in_flight_rows: Gauge,
    pub(crate) failed_rows: Gauge,
    pub(crate) oldest_pending: Gauge<f64, AtomicU64>,
    pub(crate) round: Histogram,
    pub(crate) delay: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("auditstream_relay");
        // A millisecond to about half an hour.
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 21));
        let metrics = Self {
            sent: Counter::default(),
            sent_bytes: Counter::default(),
            refused: Counter::default(),
            failed: Counter::default(),
            database_errors: Counter::default(),
            kafka_errors: Counter::default(),
            shards: Gauge::default(),
            in_flight_rows: Gauge::default(),
            failed_rows: Gauge::default(),
            oldest_pending: Gauge::default(),
            round: seconds(),
            delay: seconds(),
            registry: Registry::default(),
        };
        let m = &metrics;
        registry.register("rows_sent", "Rows that every in-sync replica has", m.sent.clone());
        registry.register_with_unit("sent", "Bytes of their payloads", Unit::Bytes, m.sent_bytes.clone());
        registry.register("rows_refused", "Tries of rows that were refused for themselves", m.refused.clone());
        registry.register("rows_failed", "Rows that became failed", m.failed.clone());
        registry.register(
            "database_errors",
            "Statements that the database did not answer well",
            m.database_errors.clone(),
        );
        registry.register("kafka_errors", "Rounds that Kafka or its configuration broke off", m.kafka_errors.clone());
        registry.register("shards", "Shards that this relay works on, of 64", m.shards.clone());
        registry.register("in_flight_rows", "Rows of the round that is under way", m.in_flight_rows.clone());
        registry.register("failed_rows", "Failed rows in the outbox", m.failed_rows.clone());
        registry.register_with_unit(
            "oldest_pending_age",
            "How long the first pending row has waited",
            Unit::Seconds,
            m.oldest_pending.clone(),
        );
        registry.register_with_unit("round", "From taking rows to having settled them", Unit::Seconds, m.round.clone());
        registry.register_with_unit(
            "delay",
            "From recording a row to its acknowledgement, the last row of each round",
            Unit::Seconds,
            m.delay.clone(),
        );
        Self { registry, ..metrics }
    }

    pub(crate) fn render(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::Metrics;

    mod metric_names {
        include!("../../../helm/auditstream/ci/metric_names.rs");
    }

    #[test]
    fn alerts_and_dashboards_ask_for_what_is_there() {
        let text = Metrics::new().render().unwrap();
        assert_eq!(metric_names::missing("auditstream_relay_", &text), [""; 0], "{text}");
    }
}
