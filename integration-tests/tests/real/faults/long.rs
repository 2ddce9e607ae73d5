//! What takes too long for every run: `cargo xtask faults --long`.

use std::time::{Duration, Instant};

use auditstream_integration_tests::{FaultReport, Fixture, Options, is_long, wait_until};

use super::{Killed, PATIENCE};

const OUTAGE: Duration = Duration::from_secs(600);
/// Resident memory of a worker at any time, with the default limits.
const BOUND_KIB: u64 = 256 * 1024;

#[test]
fn clickhouse_is_away_for_ten_minutes() {
    if !is_long() {
        return;
    }
    let mut report = FaultReport::new("15 ClickHouse away for ten minutes, memory at most 256 MiB");
    let fixture = Fixture::new(Options::heavy("long-outage"));
    let mut worker = fixture.worker();
    let load = fixture.load(4_000, Some(1_000));
    fixture.wait_rows(20_000, PATIENCE);
    let killed = Killed::new(fixture.stack().clickhouse());
    report.run();
    let (until, mut highest) = (Instant::now() + OUTAGE, 0);
    wait_until("the outage to pass", OUTAGE + PATIENCE, || {
        assert!(worker.runs(), "the worker ended in the outage");
        highest = highest.max(worker.rss_kib());
        if Instant::now() >= until { Ok(()) } else { Err("it lasts".to_owned()) }
    });
    load.finish();
    killed.start();
    let took = fixture.wait_rows(1, PATIENCE);
    report.recovered(took);
    // The backlog drains in a third of the time in which it came, or less.
    fixture.wait_landed(OUTAGE / 3);
    highest = highest.max(worker.rss_kib());
    eprintln!("outage of {OUTAGE:?}: resident {} MiB at most, rows again after {took:?}", highest / 1024);
    assert!(took <= Duration::from_secs(5), "rows grew {took:?} after ClickHouse was back");
    assert!(highest <= BOUND_KIB, "resident memory reached {highest} KiB");
    let verdict = fixture.verdict();
    report.judged(&verdict);
    let poison = fixture.poison().positions().len() as u64;
    verdict.assert_clean(fixture.acknowledged().len() as u64 + poison, poison);
    report.passed();
}
