//! Rows 1 to 4, and half of 22: the worker dies at each point of a batch's way, many times, and the figure: none lost, none double.

use std::time::{Duration, Instant};

use auditstream_integration_tests::{FaultReport, Fixture, Options, Rigged, Worker, is_long, poison::KINDS, poll};
use auditstream_store::faults::Point;

use super::PATIENCE;

/// Rows grow again within the session timeout (2 s here) and this.
const RECOVERY: Duration = Duration::from_secs(12);

fn fault(point: Point) -> &'static str {
    match point {
        Point::BeforeInsert => "1 killed after poll, before insert",
        Point::MidBody => "2 killed in the middle of an insert's body",
        Point::BodySent => "3 killed after the body, before the response",
        Point::BeforeLedger => "4 killed between insert and ledger",
        Point::BeforeCommit => "4 killed between ledger and commit",
        Point::Committed => "4 killed after the commit, before it was heard",
        Point::BeforeDeadLetters => "22 killed before dead letters are sent",
        Point::DeadLettersAcknowledged => "22 killed after dead letters are acknowledged",
        Point::CommitRefused => "no kill",
    }
}

/// Waits until the table has more than `rows` rows; `None` when the worker died first.
fn rows_grow(fixture: &Fixture, rows: u64, died: Instant, worker: &mut Worker) -> Option<Duration> {
    let grown = poll(PATIENCE, || {
        if fixture.raw_rows() > rows {
            Ok(Some(died.elapsed()))
        } else if !worker.runs() {
            Ok(None)
        } else {
            Err("no more rows".to_owned())
        }
    });
    grown.unwrap_or_else(|seen| panic!("{seen} after a kill"))
}

#[test]
fn kills_at_every_crash_point_lose_nothing_and_double_nothing() {
    let (kills, events): (u64, u64) = if is_long() { (300, 10_000_000) } else { (20, 100_000) };
    // Small batches at first, so that there are enough of them to die at; large ones where there are ten million events to move.
    let batches = if is_long() { "batch_min_rows = 2000" } else { "batch_max_rows = 500" };
    let fixture = Fixture::new(Options::heavy("crash-points").short_sessions().consumer(batches));
    if !is_long() {
        fixture.stop_merges();
    }
    let mut reports = Point::CRASHES.map(|point| FaultReport::new(fault(point)));
    let mut figure = FaultReport::new(format!("1-4 {events} events, {kills} kills at every crash point"));
    let mut died: Option<(Instant, u64)> = None;
    for kill in 0..kills {
        let share = events * (kill + 1) / kills - events * kill / kills;
        let recorder = fixture.recorder(fixture.producer_config("kills"));
        for number in 0..share {
            recorder.record(fixture.next_event());
            if number.is_multiple_of(100) {
                let event = fixture.generator().event(number);
                let value = KINDS[(number / 100) as usize % KINDS.len()].value(&event, number as usize);
                fixture.poison().send(Some(event.key().as_bytes()), value.as_deref(), &[]);
            }
        }
        recorder.finish();
        let _ = fixture.poison().positions();
        let index = (kill % 8) as usize;
        // At another batch each time round.
        let mut worker = fixture.rigged_worker(&Rigged::at(Point::CRASHES[index], 2 + kill / 8 % 4));
        if let Some((at, rows)) = died
            && let Some(took) = rows_grow(&fixture, rows, at, &mut worker)
        {
            assert!(took <= RECOVERY, "rows grew {took:?} after a kill");
            reports[index].recovered(took);
            figure.recovered(took);
        }
        assert_eq!(worker.wait(PATIENCE), None, "{} ends the worker by a signal", Point::CRASHES[index].name());
        reports[index].run();
        figure.run();
        died = Some((Instant::now(), fixture.raw_rows()));
    }
    let last = fixture.worker();
    fixture.wait_landed(if is_long() { 10 * PATIENCE } else { PATIENCE });
    drop(last);
    let verdict = fixture.verdict();
    eprintln!("kills: {kills}: {verdict}");
    let poison = fixture.poison().positions().len() as u64;
    for report in reports.iter_mut().chain([&mut figure]) {
        report.judged(&verdict);
    }
    verdict.assert_clean(events + poison, poison);
    assert!(verdict.raw_rows > verdict.rows || verdict.repeated_dead_letters > 0, "no kill left anything: {verdict}");
    reports.into_iter().chain([figure]).for_each(FaultReport::passed);
}

#[test]
fn what_landed_before_a_kill_is_not_read_again() {
    const EVENTS: u64 = 1_000;
    let mut report = FaultReport::new("4 what landed without a commit is looked up, not read again");
    let fixture = Fixture::new(Options::light("landed").short_sessions());
    fixture.stop_merges();
    let worker = fixture.worker();
    fixture.send(EVENTS);
    fixture.wait_landed(PATIENCE);
    worker.terminate();
    assert_eq!(worker.wait(PATIENCE), Some(0));

    fixture.send(EVENTS);
    let dying = fixture.rigged_worker(&Rigged::at(Point::BeforeCommit, 1));
    assert_eq!(dying.wait(PATIENCE), None, "it dies with its ledger written and nothing committed");
    report.run();
    let (died, rows) = (Instant::now(), fixture.raw_rows());
    assert!(rows > EVENTS, "something landed");
    let committed: i64 = fixture.kafka().committed(fixture.topic()).values().sum();
    assert_eq!(committed, i64::try_from(EVENTS).unwrap(), "nothing of it is committed");

    let next = fixture.worker();
    fixture.wait_landed(PATIENCE);
    report.recovered(died.elapsed());
    let read = next.metric("auditstream_consumer_records_total").unwrap();
    assert!((read - (2 * EVENTS - rows) as f64).abs() < 0.5, "{read} records were read, {rows} rows were there");
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(2 * EVENTS, 0);
    assert_eq!(verdict.raw_rows, verdict.rows, "nothing was inserted twice: {verdict}");
    report.passed();
}
