//! Row 22: the dead-letter topic is missing (that it refuses is in `poison`). The partition waits, its offset holds, the others go on.

use std::time::Instant;

use auditstream_integration_tests::{FaultReport, Fixture, Options};

use super::{PATIENCE, wait_metric};

const EVENTS: u64 = 1_000;

/// Sends events and one record of poison while the dead-letter topic is as `spoil` leaves it, then mends it.
fn dead_letters_meet(name: &'static str, row: &str, spoil: impl Fn(&Fixture), mend: impl Fn(&Fixture)) {
    let mut report = FaultReport::new(row);
    let fixture = Fixture::new(Options::light(name));
    let mut worker = fixture.worker();
    fixture.send(EVENTS);
    fixture.wait_landed(PATIENCE);
    spoil(&fixture);
    report.run();
    fixture.poison().send(Some(b"k"), Some(&[b'x'; 300]), &[]);
    let at = fixture.poison().positions()[0];
    fixture.send(EVENTS);
    // The rows of the other partitions, and the rows beside the poison, do not wait.
    fixture.wait_rows(2 * EVENTS - fixture.raw_rows(), PATIENCE);
    wait_metric(&worker, "failures_total", 2.0);
    let committed = fixture.kafka().committed(fixture.topic()).get(&at.0).copied().unwrap_or(0);
    assert!(committed <= at.1, "offset {committed} is committed, the record at {at:?} is nowhere");
    assert!(worker.runs(), "the worker waits, it does not end");
    mend(&fixture);
    let mended = Instant::now();
    fixture.wait_landed(PATIENCE);
    report.recovered(mended.elapsed());
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(2 * EVENTS + 1, 1);
    report.passed();
}

#[test]
fn a_dead_letter_topic_that_is_missing_holds_the_offset() {
    dead_letters_meet(
        "missing-dlq",
        "22 dead-letter topic missing",
        |fixture| fixture.kafka().delete_topic(&fixture.dead_letter_topic()),
        |fixture| fixture.kafka().create_topic(&fixture.dead_letter_topic(), 3),
    );
}
