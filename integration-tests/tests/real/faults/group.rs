//! Rows 9 and 10: a group that never rests, and commits that are refused meanwhile.

use std::time::{Duration, Instant};

use auditstream_integration_tests::{FaultReport, Fixture, Options, Rigged, Worker, is_long, wait_until};
use auditstream_store::faults::Point;

use super::PATIENCE;

/// A worker joins or leaves so often.
const EVERY: Duration = Duration::from_secs(2);
/// Rows grow at least so often.
const LONGEST_STALL: Duration = Duration::from_secs(8);

/// Three workers, up to six and back, a change every two seconds, `changes` times; the longest time without new rows goes into the report.
fn churn(fixture: &Fixture, report: &mut FaultReport, changes: usize, start: impl Fn() -> Worker) -> f64 {
    let mut workers: Vec<Worker> = (0..3).map(|_| start()).collect();
    let load = fixture.load(3_000, Some(500));
    fixture.wait_rows(1_000, PATIENCE);
    let (mut rows, mut grown, mut refused) = (fixture.raw_rows(), Instant::now(), 0.0);
    let mut leaver: Option<Worker> = None;
    for change in 0..changes {
        if change % 6 < 3 {
            workers.push(start());
        } else {
            let worker = workers.remove(0);
            refused += worker.metric("auditstream_consumer_commit_failures_total").unwrap_or(0.0);
            worker.terminate();
            leaver = Some(worker);
        }
        report.run();
        let until = Instant::now() + EVERY;
        wait_until("the next change", EVERY + PATIENCE, || {
            let now = fixture.raw_rows();
            if now > rows {
                report.recovered(grown.elapsed());
                (rows, grown) = (now, Instant::now());
            }
            assert!(grown.elapsed() <= LONGEST_STALL, "no new rows for {:?}", grown.elapsed());
            let leaves = leaver.as_mut().is_some_and(Worker::runs);
            if Instant::now() >= until && !leaves { Ok(()) } else { Err(format!("a worker is leaving: {leaves}")) }
        });
        if let Some(leaver) = leaver.take() {
            assert_eq!(leaver.wait(PATIENCE), Some(0), "the exit code after SIGTERM");
        }
    }
    load.finish();
    fixture.wait_landed(PATIENCE);
    let failures = workers.iter().map(|worker| worker.metric("auditstream_consumer_commit_failures_total").unwrap());
    let refused = refused + failures.sum::<f64>();
    let verdict = fixture.verdict();
    eprintln!("churn: {refused} commits refused; {verdict}");
    report.judged(&verdict);
    let poison = fixture.poison().positions().len() as u64;
    verdict.assert_clean(fixture.acknowledged().len() as u64 + poison, poison);
    refused
}

#[test]
fn workers_join_and_leave_all_the_time() {
    let mut report = FaultReport::new("9 workers join and leave every 2 s, 3 to 6 of them");
    let fixture = Fixture::new(Options::heavy("churn").short_sessions());
    churn(&fixture, &mut report, if is_long() { 120 } else { 12 }, || fixture.worker());
    report.passed();
}

#[test]
fn refused_commits_stall_nothing() {
    let mut report = FaultReport::new("10 offset commits fail during rebalances");
    let fixture = Fixture::new(Options::heavy("refused-commits").short_sessions());
    let points = format!("{}=40%return", Point::CommitRefused.name());
    let rigged = Rigged { points, ..Rigged::default() };
    let refused = churn(&fixture, &mut report, if is_long() { 60 } else { 7 }, || fixture.rigged_worker(&rigged));
    assert!(refused >= 5.0, "only {refused} commits were refused");
    report.passed();
}
