//! What Kubernetes and Prometheus see of a worker.

use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options, http, wait_until};

/// Names without the prefix `auditstream_consumer_`, as dashboards use them.
const METRICS: [&str; 18] = [
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
    wait_until("the worker to have told its lag", Duration::from_secs(20), || match metrics() {
        text if text.contains("auditstream_consumer_lag{") => Ok(()),
        text => Err(text),
    });
    let text = metrics();
    assert!(text.ends_with("# EOF\n"), "OpenMetrics text ends in an end mark: {text}");
    // No failure has happened, so that family has a head only.
    for name in METRICS.iter().filter(|name| **name != "failures_total") {
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
    assert!(!text.contains("tenant-"), "a tenant's name is in the metrics");
}
