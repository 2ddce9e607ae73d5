//! The negative controls: each guard, switched off, makes the oracle speak; the same scenario with the guard on is clean.
//!
//! The fifth guard, the epoch, has its control beside the core: `core::tests`.

use auditstream_integration_tests::{Fault, FaultReport, Fixture, Options, Proxy, Rigged, Verdict};
use auditstream_store::faults::{Guard, Point};

use super::{EVENTS, PATIENCE};

const SENT: u64 = 2_000;

/// Runs `scenario` with the guard on, where it must be clean, and off, and returns that verdict.
fn without(guard: Guard, names: [&'static str; 2], scenario: impl Fn(&Fixture, Option<Guard>) -> Verdict) -> Verdict {
    let run = |name, off| {
        let fixture = Fixture::new(Options::light(name).short_sessions());
        fixture.stop_merges();
        scenario(&fixture, off)
    };
    let mut report = FaultReport::new(format!("control: without {}", guard.name()));
    let clean = run(names[0], None);
    assert!(clean.is_clean(), "with {} on: {clean}", guard.name());
    let verdict = run(names[1], Some(guard));
    eprintln!("without {}: {verdict}", guard.name());
    report.run();
    // The figures are those with the guard; that the oracle notices without it is what has passed.
    report.judged(&clean);
    if guard == Guard::Token {
        assert!(verdict.raw_rows > verdict.rows && clean.raw_rows == clean.rows, "on: {clean}; off: {verdict}");
    } else {
        assert!(!verdict.is_clean(), "nobody noticed: {verdict}");
    }
    report.passed();
    verdict
}

/// A worker that dies at `point`, then one that finishes, both without the guard.
fn dies_once(fixture: &Fixture, off: Option<Guard>, point: Point) -> Verdict {
    fixture.send(SENT);
    let victim = fixture.rigged_worker(&Rigged { off, ..Rigged::at(point, 1) });
    assert_eq!(victim.wait(PATIENCE), None, "it dies by a signal");
    let _worker = fixture.rigged_worker(&Rigged { off, ..Rigged::default() });
    fixture.wait_landed(PATIENCE);
    fixture.verdict()
}

#[test]
fn the_oracle_notices_without_row_identity() {
    let verdict = without(Guard::RowIdentity, ["identity-on", "identity-off"], |fixture, off| {
        dies_once(fixture, off, Point::BeforeLedger)
    });
    assert!(verdict.double > 0 && verdict.lost == 0, "{verdict}");
}

#[test]
fn the_oracle_notices_without_commit_after_insert() {
    let verdict = without(Guard::CommitAfterInsert, ["commit-on", "commit-off"], |fixture, off| {
        dies_once(fixture, off, Point::BeforeInsert)
    });
    assert!(verdict.lost > 0 && verdict.gaps > 0, "{verdict}");
}

#[test]
fn the_oracle_notices_without_dead_letter_acknowledgement() {
    let verdict = without(Guard::DeadLetterAck, ["ack-on", "ack-off"], |fixture, off| {
        // Too small for the dead letter.
        fixture.kafka().set_topic(&fixture.dead_letter_topic(), "max.message.bytes", "200");
        fixture.send(SENT);
        fixture.poison().send(Some(b"k"), Some(&[b'x'; 300]), &[]);
        let _ = fixture.poison().positions();
        let worker = fixture.rigged_worker(&Rigged { off, ..Rigged::default() });
        if off.is_some() {
            fixture.wait_landed(PATIENCE);
        } else {
            super::wait_metric(&worker, "failures_total", 2.0);
        }
        fixture.kafka().set_topic(&fixture.dead_letter_topic(), "max.message.bytes", "1048588");
        fixture.wait_landed(PATIENCE);
        fixture.verdict()
    });
    assert_eq!(verdict.lost, 1, "{verdict}");
}

#[test]
fn the_oracle_notices_without_tokens() {
    let verdict = without(Guard::Token, ["token-on", "token-off"], |fixture, off| {
        let proxy = Proxy::start(fixture.stack().clickhouse_url());
        proxy.strike(EVENTS, 1, Fault::SwallowAnswer);
        fixture.send(SENT);
        let settings = [("AUDITSTREAM_CLICKHOUSE__URL", &*proxy.url())];
        let _worker = fixture.rigged_worker(&Rigged { off, settings: &settings, ..Rigged::default() });
        fixture.wait_landed(PATIENCE);
        assert_eq!(proxy.struck(), 1);
        fixture.verdict()
    });
    // Tokens only save work: what makes a repeated row one row is its identity.
    assert!(verdict.is_clean(), "{verdict}");
}
