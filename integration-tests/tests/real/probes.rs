//! What Kubernetes and Prometheus see of a worker.

use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options, http, wait_until};

/// Names without the prefix `auditstream_consumer_`, as dashboards use them.
const METRICS: [&str; 26] = [
    "records_total",
    "record_bytes_total",
    "stale_records_total",
    "rows_total",
    "batches_total",
    "batch_rows_bucket",
    "insert_seconds_bucket",
    "failures_total",
    "dead_letters_total",
    "commits_total",
    "commit_failures_total",
    "rebalances_total",
    "assigned_partitions",
    "paused",
    "held_bytes",
    "lag",
    "schema_waiting_partitions",
    "newest_queryable_timestamp_seconds",
    "newest_queryable_age_seconds",
    "freshness_seconds_bucket",
    "freshness_seconds_count",
    "time_lag_seconds",
    "paused_partitions",
    "retries_total",
    "trace_export_failures_total",
    "build_info",
];

#[test]
fn a_worker_answers_probes_and_tells_its_figures() {
    let fixture = Fixture::new(Options::light("probes"));
    let worker = fixture.worker();
    worker.wait_ready();
    let address = worker.address().unwrap();
    let live = http::get(&address, "/livez").unwrap();
    assert_eq!((live.status, live.text().as_str()), (200, "ok\n"));
    fixture.send(1_000);
    fixture.poison().send(None, Some(b"no event"), &[]);
    fixture.wait_landed(Duration::from_secs(90));

    let metrics = || http::get(&address, "/metrics").unwrap().text();
    // The client tells it once a second.
    let has_none = |text: &str| {
        let lags = || text.lines().filter(|line| line.starts_with("auditstream_consumer_lag{"));
        lags().count() == 6 && lags().all(|line| line.ends_with(" 0"))
    };
    wait_until("the worker to have told that it lags no more", Duration::from_secs(20), || match metrics() {
        text if has_none(&text) => Ok(()),
        text => Err(text),
    });
    let text = metrics();
    assert!(text.ends_with("# EOF\n"), "OpenMetrics text ends in an end mark: {text}");
    // No failure has happened, so those families have a head only.
    for name in METRICS.iter().filter(|name| !["failures_total", "retries_total"].contains(name)) {
        let full = format!("auditstream_consumer_{name}");
        assert!(text.lines().any(|line| line.starts_with(&full)), "no {full} in\n{text}");
    }
    let value = |name: &str| worker.metric(&format!("auditstream_consumer_{name}")).unwrap();
    assert_eq!([value("records_total"), value("rows_total"), value("dead_letters_total")], [1_001.0, 1_000.0, 1.0]);
    assert_eq!(
        [value("assigned_partitions"), value("lag"), value("held_bytes"), value("paused")],
        [6.0, 0.0, 0.0, 0.0]
    );
    assert!(value("commits_total") >= 1.0);
    assert_eq!([value("time_lag_seconds"), value("paused_partitions")], [0.0, 0.0]);
    let lags = text.lines().filter(|line| line.starts_with("auditstream_consumer_time_lag_seconds{partition=")).count();
    assert_eq!(lags, 6, "one of each partition");
    let batches = value("freshness_seconds_count");
    assert!(batches >= 1.0 && batches <= value("batches_total"), "one observation a batch with rows: {batches}");
    assert!(value("freshness_seconds_sum") / batches < 60.0, "a delay, not a time of day: {text}");
    assert!((0.0..60.0).contains(&value("newest_queryable_age_seconds")), "{text}");
    assert!(!text.contains("tenant-"), "a tenant's name is in the metrics");
}
