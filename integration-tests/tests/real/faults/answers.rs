//! Rows 5, 6, 8, 15, 16 and 19: what becomes of an insert whose answer is lost, late, forged, or whose server dies or freezes under it.

use std::time::{Duration, Instant};

use auditstream_integration_tests::{Fault, FaultReport, Fixture, Options, Proxy, wait_until};

use super::{EVENTS, Frozen, Killed, PATIENCE, wait_metric, worker_behind};

/// ClickHouse returned, and rows grow within this time.
const RESUME: Duration = Duration::from_secs(5);

/// Lets `times` inserts of one worker meet `fault`. The rows must be there once, even without FINAL: a retry has the token of the first attempt.
fn inserts_meet(name: &'static str, row: &str, times: u64, fault: Fault) {
    let mut report = FaultReport::new(row);
    let fixture = Fixture::new(Options::light(name).consumer("batch_max_rows = 1000"));
    fixture.stop_merges();
    let proxy = Proxy::start(fixture.stack().clickhouse_url());
    proxy.strike(EVENTS, times, fault);
    let worker = worker_behind(&fixture, &proxy);
    fixture.send(10_000);
    fixture.wait_landed(PATIENCE);
    assert_eq!(proxy.struck(), times);
    (0..times).for_each(|_| report.run());
    assert!(worker.metric("auditstream_consumer_failures_total").unwrap() >= times as f64);
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(10_000, 0);
    assert_eq!(verdict.raw_rows, verdict.rows, "the token was not the same: {verdict}");
    report.passed();
}

#[test]
fn a_swallowed_answer_is_asked_for_again_with_the_same_token() {
    inserts_meet("swallowed", "5 insert's answer swallowed", 5, Fault::SwallowAnswer);
}

#[test]
fn a_body_cut_on_the_way_leaves_nothing() {
    inserts_meet("cut", "2 connection cut in the middle of an insert's body", 5, Fault::CutAfter(30_000));
}

#[test]
fn an_exception_behind_a_200_is_an_error() {
    // One that neither the table nor the batch's size is to blame for: the same bytes again.
    const OLD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 80\r\n\r\nCode: 202. DB::Exception: no (TOO_MANY_SIMULTANEOUS_QUERIES) (version 24.1 (x))\n";
    const NEW: &str = "HTTP/1.1 200 OK\r\nX-ClickHouse-Exception-Tag: rnywyenlaeqynhmu\r\nContent-Length: 133\r\n\r\n\r\n__exception__\r\nrnywyenlaeqynhmu\r\n\
                       Code: 202. DB::Exception: no. (TOO_MANY_SIMULTANEOUS_QUERIES)\n62 rnywyenlaeqynhmu\r\n__exception__\r\n";
    inserts_meet("forged", "19 200 with an exception in the body", 3, Fault::Forge(OLD));
    inserts_meet("forged-new", "19 200 with an exception under its tag", 3, Fault::Forge(NEW));
}

#[test]
fn a_forgotten_token_is_still_one_row() {
    let mut report = FaultReport::new("6 answers swallowed, deduplication window overflowed");
    let fixture = Fixture::new(Options::light("window").consumer("batch_max_rows = 500"));
    fixture.stop_merges();
    fixture.admin().run("ALTER TABLE events MODIFY SETTING non_replicated_deduplication_window = 1");
    let proxy = Proxy::start(fixture.stack().clickhouse_url());
    proxy.strike(EVENTS, 12, Fault::SwallowAnswer);
    let _workers = [worker_behind(&fixture, &proxy), worker_behind(&fixture, &proxy)];
    fixture.send(20_000);
    fixture.wait_landed(PATIENCE);
    assert_eq!(proxy.struck(), 12);
    (0..12).for_each(|_| report.run());
    let verdict = fixture.verdict();
    report.judged(&verdict);
    assert!(verdict.raw_rows > verdict.rows, "no token was forgotten: {verdict}");
    verdict.assert_clean(20_000, 0);
    report.passed();
}

#[test]
fn an_insert_longer_than_the_poll_interval_keeps_the_membership() {
    let mut report = FaultReport::new("8 insert longer than max.poll.interval");
    let options = Options::light("long-insert").consumer("batch_max_rows = 500");
    let properties = "\"session.timeout.ms\" = \"3000\"\n\"max.poll.interval.ms\" = \"4000\"\n";
    let fixture = Fixture::new(options.kafka(properties));
    fixture.stop_merges();
    let proxy = Proxy::start(fixture.stack().clickhouse_url());
    let worker = worker_behind(&fixture, &proxy);
    worker.wait_ready();
    wait_metric(&worker, "assigned_partitions", 6.0);
    let rebalances = worker.metric("auditstream_consumer_rebalances_total").unwrap();
    proxy.strike(EVENTS, 2, Fault::Delay(Duration::from_secs(7)));
    fixture.send(5_000);
    report.run();
    fixture.wait_landed(PATIENCE);
    assert_eq!(proxy.struck(), 2);
    assert!(worker.metric("auditstream_consumer_insert_seconds_sum").unwrap() >= 14.0, "the inserts were long");
    let now = worker.metric("auditstream_consumer_rebalances_total").unwrap();
    assert!((now - rebalances).abs() < 0.5, "{rebalances} rebalances before, {now} now");
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(5_000, 0);
    assert_eq!(verdict.raw_rows, verdict.rows, "{verdict}");
    report.passed();
}

#[test]
fn clickhouse_dies_in_the_middle_of_an_insert() {
    let mut report = FaultReport::new("15 ClickHouse killed in the middle of an insert");
    let fixture = Fixture::new(Options::heavy("killed-under-insert").consumer("batch_max_rows = 1000"));
    let proxy = Proxy::start(fixture.stack().clickhouse_url());
    let worker = worker_behind(&fixture, &proxy);
    for _ in 0..2 {
        proxy.strike(EVENTS, 1, Fault::HoldAfter(50_000));
        fixture.send(5_000);
        wait_until("an insert to be half sent", PATIENCE, || match proxy.holding() {
            0 => Err("none is".to_owned()),
            _ => Ok(()),
        });
        let killed = Killed::new(fixture.stack().clickhouse());
        proxy.heal();
        proxy.cut();
        killed.start();
        report.run();
        let back = Instant::now();
        fixture.wait_landed(PATIENCE);
        report.recovered(back.elapsed());
    }
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(10_000, 0);
    assert!(worker.metric("auditstream_consumer_failures_total").unwrap() >= 2.0);
    report.passed();
}

#[test]
fn clickhouse_freezes_longer_than_a_client_waits() {
    let mut report = FaultReport::new("16 ClickHouse frozen");
    let fixture = Fixture::new(
        Options::heavy("frozen-clickhouse").consumer("batch_max_bytes = 1048576\nin_flight_bytes = 2097152"),
    );
    let mut worker = fixture.worker_with(&[("AUDITSTREAM_CLICKHOUSE__INSERT_TIMEOUT_MS", "1500")]);
    let load = fixture.load(5_000, None);
    fixture.wait_rows(10_000, PATIENCE);
    let before = worker.rss_kib();
    let frozen = Frozen::new(fixture.stack().clickhouse());
    report.run();
    let mut highest = 0;
    // Two inserts run into their limit, are sent again, and run into it again.
    wait_until("the client to give up four times", PATIENCE, || {
        highest = highest.max(worker.rss_kib());
        match worker.metric("auditstream_consumer_failures_total")? {
            failures if failures >= 4.0 => Ok(()),
            failures => Err(format!("{failures} failures")),
        }
    });
    let rows = fixture.acknowledged().len();
    drop(frozen);
    let took = fixture.wait_rows(1, PATIENCE);
    report.recovered(took);
    load.finish();
    assert!(worker.log().contains("did not answer within 1.5 s"), "the log names the limit");
    fixture.wait_landed(PATIENCE);
    assert!(worker.runs());
    assert!(took <= RESUME, "rows grew {took:?} after ClickHouse went on; {rows} were acknowledged");
    assert!(highest <= before + 64 * 1024, "resident memory grew from {before} to {highest} KiB");
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(fixture.acknowledged().len() as u64, 0);
    report.passed();
}
