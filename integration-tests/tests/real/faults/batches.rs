//! The closed loop that sizes batches, on the real ClickHouse: what it sees is what is there, and what it decides is what happens.

use std::time::{Duration, Instant};

use auditstream_integration_tests::{FaultReport, Fixture, Options, Worker, http, wait_until};

use super::PATIENCE;

const FLOOR: u64 = 1_000;

/// How often the loop decided for this reason.
fn decisions(worker: &Worker, reason: &str) -> Result<f64, String> {
    let text = http::get(&worker.address()?, "/metrics").map_err(|error| error.to_string())?.text();
    let name = format!("auditstream_consumer_batch_decisions_total{{reason=\"{reason}\"}} ");
    Ok(text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0.0))
}

fn wait_decision(worker: &Worker, reason: &str) {
    wait_until(&format!("a decision for {reason}"), PATIENCE, || match decisions(worker, reason)? {
        times if times > 0.0 => Ok(()),
        _ => Err("none yet".to_owned()),
    });
    assert!(worker.log().contains(&format!("\"reason\":\"{reason}\"")), "the log says why: {}", worker.log());
}

fn target(worker: &Worker, name: &str) -> f64 {
    worker.metric(&format!("auditstream_consumer_batch_target_{name}")).unwrap()
}

#[test]
fn batches_grow_with_a_backlog_shrink_at_low_traffic_and_spare_a_table_of_many_parts() {
    const BACKLOG: u64 = 60_000;
    let fixture = Fixture::new(Options::heavy("batch-sizes").consumer("batch_min_rows = 1000\nmax_parts = 4"));
    fixture.send(BACKLOG);
    let worker = fixture.worker();
    wait_decision(&worker, "backlog");
    fixture.wait_landed(PATIENCE);
    let inserts = fixture.admin().number("SELECT uniqExact(token) FROM ledger");
    assert!(inserts < BACKLOG / FLOOR / 2, "{inserts} inserts: batches stayed at the floor");
    assert!(target(&worker, "rows") > FLOOR as f64);

    // One event at a time: nothing fills a batch any more.
    let few = fixture.load(4, None);
    wait_decision(&worker, "low_traffic");
    wait_until("the floor", PATIENCE, || match target(&worker, "rows") {
        rows if rows <= FLOOR as f64 => Ok(()),
        rows => Err(format!("{rows} rows")),
    });

    fixture.stop_merges();
    wait_decision(&worker, "too_many_parts");
    assert!(worker.metric("auditstream_consumer_table_parts").unwrap() > 4.0);
    // As the fixtures configure it: 200 ms.
    let age = target(&worker, "age_seconds");
    assert!(age >= 0.4, "it waits for {age} s");
    few.finish();
    fixture.wait_landed(PATIENCE);
    fixture.verdict().assert_clean(fixture.acknowledged().len() as u64, 0);
}

#[test]
fn an_insert_that_never_gets_enough_memory_lands_in_pieces() {
    const EVENTS: u64 = 40_000;
    let mut report = FaultReport::new("17 memory limit (241) that stays: the batch goes in pieces");
    let fixture = Fixture::new(Options::heavy("pieces").consumer("batch_min_rows = 50000"));
    fixture.stop_merges();
    fixture.send(EVENTS);
    let users = fixture.users();
    let limit = "<audit_ingest>\n            <max_memory_usage>40000000</max_memory_usage>";
    users.set(|text| text.replacen("<audit_ingest>", limit, 1));
    report.run();
    let started = Instant::now();
    let worker = fixture.worker();
    wait_decision(&worker, "memory_limit");
    fixture.wait_landed(PATIENCE);
    report.recovered(started.elapsed());
    users.set(str::to_owned);
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(EVENTS, 0);
    assert!(fixture.kafka().read(&fixture.dead_letter_topic()).is_empty(), "no row is to blame");
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(40)), Some(0));
    report.passed();
}
