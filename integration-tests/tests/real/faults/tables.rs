//! Row 18: what a human changed needs a human: the worker halts, says so, dead-letters nothing and skips nothing. Repaired and started again, it goes on.

use std::time::{Duration, Instant};

use auditstream_integration_tests::{FaultReport, Fixture, Options, Worker};

use super::PATIENCE;

const EVENTS: u64 = 1_000;

/// Something changes under a running worker; it must halt and say `says`.
fn halts(fixture: &Fixture, row: &str, says: &str, change: impl Fn(bool)) {
    let mut report = FaultReport::new(row);
    let worker: Worker = fixture.worker();
    worker.wait_ready();
    fixture.send(EVENTS);
    fixture.wait_landed(PATIENCE);
    change(true);
    report.run();
    let before = fixture.kafka().committed(fixture.topic());
    fixture.send(EVENTS);
    let log = fixture.folder().join(format!("worker-{}.log", worker.name()));
    assert_eq!(worker.wait(PATIENCE), Some(3), "the exit code of a worker that needs a human");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("halted") && log.contains(says), "it says `{says}`: {log}");
    assert_eq!(fixture.kafka().committed(fixture.topic()), before, "nothing was committed");
    assert!(fixture.kafka().read(&fixture.dead_letter_topic()).is_empty(), "nothing was dead-lettered");
    change(false);
    let repaired = Instant::now();
    let again = fixture.worker();
    fixture.wait_landed(PATIENCE);
    report.recovered(repaired.elapsed());
    again.terminate();
    assert_eq!(again.wait(Duration::from_secs(40)), Some(0));
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(fixture.acknowledged().len() as u64, 0);
    report.passed();
}

#[test]
fn a_table_that_was_changed_halts() {
    let fixture = Fixture::new(Options::light("changed-table").short_sessions());
    let alter = |spoil: &'static str, mend: &'static str| {
        let admin = fixture.admin();
        move |spoils| {
            admin.run(&format!("ALTER TABLE events {} SETTINGS mutations_sync = 1", if spoils { spoil } else { mend }))
        }
    };
    halts(
        &fixture,
        "18 column dropped",
        "No such column user_agent",
        alter("DROP COLUMN user_agent", "ADD COLUMN user_agent String AFTER ip"),
    );
    halts(
        &fixture,
        "18 column retyped",
        "column _partition is UInt64",
        alter("MODIFY COLUMN _partition UInt64", "MODIFY COLUMN _partition Int32"),
    );
    // Inserts go on and change what does not fit.
    halts(
        &fixture,
        "18 column narrowed without a word",
        "column producer_seq is UInt8",
        alter("MODIFY COLUMN producer_seq UInt8", "MODIFY COLUMN producer_seq Int64"),
    );
    // The last thousand were sent by one producer, in order, and read again after the repair.
    let last = "SELECT count(), min(producer_seq), max(producer_seq) FROM events FINAL \
                WHERE producer_epoch = (SELECT max(producer_epoch) FROM events)";
    assert_eq!(fixture.admin().text(last), format!("{EVENTS}\t1\t{EVENTS}"));
}

#[test]
fn a_user_whose_rights_were_changed_halts() {
    let fixture = Fixture::new(Options::heavy("changed-user").short_sessions());
    let users = fixture.users();
    let grant = format!("<query>GRANT INSERT ON {}.events</query>", fixture.database());
    halts(&fixture, "18 INSERT revoked", "Not enough privileges", |spoil| {
        users.set(|text| if spoil { text.replace(&grant, "") } else { text.to_owned() });
    });
    let password = fixture.stack().credentials(auditstream_stack::Role::Ingest).1.to_owned();
    halts(&fixture, "18 password changed", "Authentication failed", |spoil| {
        users.set(|text| if spoil { text.replace(&password, "another") } else { text.to_owned() });
    });
}
