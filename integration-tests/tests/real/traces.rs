//! Traces over OTLP: whose events a batch made queryable, and that a collector that fails harms nobody.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use auditstream_integration_tests::otlp::{Collected, Collector, StatusCode};
use auditstream_integration_tests::{Fixture, Options, wait_until};

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const ALSO_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// Settings that trace every batch to `endpoint`.
fn traced(endpoint: &str) -> [(&'static str, &str); 2] {
    [("AUDITSTREAM_TELEMETRY__OTLP_ENDPOINT", endpoint), ("AUDITSTREAM_TELEMETRY__SAMPLE_RATIO", "1")]
}

fn sum(spans: &[Collected], attribute: &str) -> u64 {
    spans.iter().map(|span| span.attribute(attribute).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_batch_is_linked_to_the_sampled_spans_of_its_producers() {
    const PLAIN: u64 = 500;
    let fixture = Fixture::new(Options::light("traces"));
    let collector = Collector::start();
    let recorder = fixture.recorder(fixture.producer_config("traces"));
    for traceparent in [SAMPLED, UNSAMPLED, SAMPLED, ALSO_SAMPLED] {
        recorder.record_traced(fixture.next_event(), traceparent);
    }
    (0..PLAIN).for_each(|_| recorder.record(fixture.next_event()));
    recorder.finish();
    let broken = [("traceparent".to_owned(), Some(b"00-not-a-trace".to_vec()))];
    fixture.poison().send(Some(b"k"), Some(b"no event"), &broken);
    let worker = fixture.worker_with(&traced(&collector.endpoint()));
    fixture.wait_landed(Duration::from_secs(90));
    fixture.verdict().assert_clean(PLAIN + 5, 1);
    worker.terminate();
    let name = worker.name().to_owned();
    assert_eq!(worker.wait(Duration::from_secs(40)), Some(0));

    // The worker has sent the last of them before it ended.
    let batches = collector.named("audit.batch");
    let linked: BTreeSet<(String, String)> = batches.iter().flat_map(Collected::links).collect();
    let of = |traceparent: &str| (traceparent[3..35].to_owned(), traceparent[36..52].to_owned());
    assert_eq!(linked, [of(SAMPLED), of(ALSO_SAMPLED)].into(), "the links");
    assert_eq!(
        batches.iter().map(|batch| batch.links().len()).sum::<usize>(),
        linked.len(),
        "one link a producer's span"
    );
    assert_eq!(sum(&batches, "messaging.batch.message_count"), PLAIN + 5);
    assert_eq!(
        [sum(&batches, "auditstream.batch.rows"), sum(&batches, "auditstream.batch.dead_letters")],
        [PLAIN + 4, 1]
    );
    let batch = &batches[0];
    for (attribute, value) in [
        ("messaging.system", "kafka"),
        ("messaging.destination.name", fixture.topic()),
        ("messaging.consumer.group.name", fixture.topic()),
    ] {
        assert_eq!(batch.attribute(attribute).as_deref(), Some(value), "{attribute}");
    }
    assert!(batch.attribute("auditstream.batch.seal_reason").is_some());
    for (attribute, value) in [("service.name", "auditstream-consumer"), ("service.instance.id", &*name)] {
        assert_eq!(batch.resource[attribute], value, "{attribute}");
    }
    assert!(batch.span.parent_span_id.is_empty(), "a batch is a trace of its own");

    let parents: BTreeSet<_> = batches.iter().map(|batch| (&batch.span.trace_id, &batch.span.span_id)).collect();
    for (step, at_least) in
        [("audit.insert", 1), ("audit.dead_letters", 1), ("audit.ledger", batches.len()), ("audit.commit", 1)]
    {
        let children = collector.named(step);
        assert!(children.len() >= at_least, "{} {step}", children.len());
        for child in &children {
            assert!(parents.contains(&(&child.span.trace_id, &child.span.parent_span_id)), "{step} has no batch");
            assert!(child.span.start_time_unix_nano <= child.span.end_time_unix_nano);
            assert_eq!(child.span.status.clone().unwrap_or_default().code, 0, "{step} went well");
        }
    }
}

#[test]
fn what_fails_is_told_on_its_span() {
    let fixture = Fixture::new(Options::light("traces-failed"));
    let collector = Collector::start();
    fixture.admin().run("ALTER TABLE events MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1000");
    fixture.stop_merges();
    let worker = fixture.worker_with(&traced(&collector.endpoint()));
    let failed = wait_until("a failed insert", Duration::from_secs(60), || {
        // As long as there is no part, an insert succeeds.
        fixture.send(1);
        let inserts = collector.named("audit.insert");
        let statuses = inserts.iter().filter_map(|insert| insert.span.status.clone());
        let failed = statuses.filter(|status| status.code() == StatusCode::Error).map(|status| status.message).next();
        failed.ok_or_else(|| format!("{} inserts went well", inserts.len()))
    });
    assert!(failed.contains("Code: 252"), "{failed}");
    assert!(worker.metric("auditstream_consumer_retries_total").unwrap() >= 1.0);
}

#[test]
fn a_collector_that_is_away_or_never_answers_changes_nothing() {
    const EVENTS: u64 = 20_000;
    // Takes connections into its backlog, and no more.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (name, address) in [("traces-silent", silent.local_addr().unwrap()), ("traces-closed", closed)] {
        let fixture = Fixture::new(Options::heavy(name));
        let endpoint = format!("http://{address}");
        let started = Instant::now();
        let worker = fixture.worker_with(&traced(&endpoint));
        worker.wait_ready();
        fixture.send(EVENTS);
        fixture.wait_landed(Duration::from_secs(60));
        fixture.verdict().assert_clean(EVENTS, 0);
        let failures = || worker.metric("auditstream_consumer_trace_export_failures_total");
        wait_until("an export to fail", Duration::from_secs(60), || match failures()? {
            failed if failed >= 1.0 => Ok(()),
            failed => Err(format!("{failed} failed")),
        });
        // Some more, so that something is left to be sent at the end.
        fixture.send(EVENTS);
        fixture.wait_landed(Duration::from_secs(60));
        let log = worker.log();
        let lines = log.lines().filter(|line| line.contains("traces could not be sent")).count();
        let most = 1 + started.elapsed().as_secs() / 10;
        assert!((1..=most).contains(&(lines as u64)), "{name}: {lines} lines, one in ten seconds is {most}: {log}");
        let asked = Instant::now();
        worker.terminate();
        assert_eq!(worker.wait(Duration::from_secs(40)), Some(0), "{name}");
        assert!(asked.elapsed() < Duration::from_millis(4_500), "{name} took {:?} to end", asked.elapsed());
        fixture.verdict().assert_clean(2 * EVENTS, 0);
    }
}
