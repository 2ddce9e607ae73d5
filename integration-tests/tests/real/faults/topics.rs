//! Rows 13 and 14: a committed offset that is not in the topic, for want of records or because the topic is another one.

use std::time::{Duration, Instant};

use auditstream_integration_tests::{FaultReport, Fixture, Options, Worker, wait_until};

use super::PATIENCE;

/// Runs a worker until everything is stored, and lets it leave.
fn land(fixture: &Fixture) {
    let worker = fixture.worker();
    fixture.wait_landed(PATIENCE);
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(40)), Some(0), "the exit code after SIGTERM");
}

/// Runs a worker that must halt because of its offset, with nothing stored or committed.
fn halts(fixture: &Fixture, rows: u64, committed: i64) {
    let worker = fixture.worker();
    let log = fixture.folder().join(format!("worker-{}.log", worker.name()));
    assert_eq!(worker.wait(PATIENCE), Some(3), "the exit code of a worker that needs a human");
    let log = std::fs::read_to_string(log).unwrap();
    let says = format!("the committed offset of group {0} is not in topic {0} any more", fixture.topic());
    assert!(log.contains(&says), "it says what is wrong: {log}");
    assert_eq!(fixture.raw_rows(), rows, "nothing was skipped to");
    assert_eq!(fixture.kafka().committed(fixture.topic())[&0], committed, "the offset stays where it was");
}

#[test]
fn an_offset_that_is_not_in_the_topic_halts() {
    let mut report = FaultReport::new("13 committed offset out of range");
    let fixture = Fixture::new(Options::light("out-of-range").partitions(1));
    let topic = fixture.topic();
    fixture.send(2_000);
    land(&fixture);

    // Beyond the end, as after a restore of the brokers from a backup.
    fixture.kafka().commit(topic, 0, 5_000);
    halts(&fixture, 2_000, 5_000);
    report.run();
    fixture.kafka().commit(topic, 0, 2_000);
    fixture.send(1_000);
    land(&fixture);
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(3_000, 0);

    // Before the start: retention was faster.
    fixture.send(1_000);
    fixture.kafka().delete_records(topic, 0, 3_400);
    halts(&fixture, 3_000, 3_000);
    report.run();
    // A human looks, and decides to go on where the topic begins.
    let repaired = Instant::now();
    fixture.kafka().commit(topic, 0, 3_400);
    land(&fixture);
    report.recovered(repaired.elapsed());
    let verdict = fixture.verdict();
    // The 400 were lost by the topic, not by the worker, and the oracle and the ledger both say so.
    assert_eq!((verdict.lost, verdict.gaps, verdict.double, verdict.rows), (400, 400, 0, 3_600), "{verdict}");
    report.passed();
}

/// Deletes the topic and makes it again.
fn renew(fixture: &Fixture) {
    fixture.kafka().delete_topic(fixture.topic());
    fixture.kafka().create_topic(fixture.topic(), 1);
}

fn wait_rows_final(fixture: &Fixture, rows: u64) {
    wait_until("all rows of both topics", PATIENCE, || {
        match fixture.admin().number("SELECT count() FROM events FINAL") {
            now if now >= rows => Ok(()),
            now => Err(format!("{now} of {rows}")),
        }
    });
}

#[test]
fn a_topic_made_again_is_read_from_its_start_by_a_new_worker() {
    let mut report = FaultReport::new("14 topic deleted and made again, no worker running");
    let fixture = Fixture::new(Options::light("topic-again").partitions(1));
    fixture.send(1_000);
    land(&fixture);
    let (offset, metadata) = fixture.kafka().committed_with_metadata(fixture.topic(), 0);
    assert_eq!(offset, 1_000);
    renew(&fixture);
    report.run();
    fixture.send(3_000);
    // The old topic's commit arrives late, or the brokers have kept it: it lies inside the new topic, where going on would skip a thousand records.
    fixture.kafka().commit_with_metadata(fixture.topic(), 0, offset, &metadata);
    land(&fixture);
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(4_000, 0);

    // What a human commits speaks of the topic that is there.
    fixture.kafka().commit(fixture.topic(), 0, 2_999);
    let worker = fixture.worker();
    worker.wait_ready();
    fixture.wait_landed(PATIENCE);
    super::wait_metric(&worker, "records_total", 1.0);
    let read = worker.metric("auditstream_consumer_records_total").unwrap();
    assert!(read < 1.5, "{read} records were read again");
    report.passed();
}

#[test]
fn a_topic_made_again_under_a_worker_is_read_from_its_start() {
    for (name, sent) in [("topic-again-short", 500), ("topic-again-long", 3_000)] {
        let mut report = FaultReport::new(format!("14 topic deleted and made again under a worker, {sent} for 1000"));
        let fixture = Fixture::new(Options::light(name).partitions(1));
        let mut worker: Worker = fixture.worker();
        fixture.send(1_000);
        fixture.wait_landed(PATIENCE);
        renew(&fixture);
        report.run();
        let again = Instant::now();
        fixture.send(sent);
        wait_rows_final(&fixture, 1_000 + sent);
        report.recovered(again.elapsed());
        fixture.wait_landed(PATIENCE);
        assert!(worker.runs(), "it gets there without a restart");
        let verdict = fixture.verdict();
        report.judged(&verdict);
        verdict.assert_clean(1_000 + sent, 0);
        report.passed();
    }
}
