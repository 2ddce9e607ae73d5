//! The negative control: an oracle that can't fail proves nothing.

use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options, Verdict};

#[test]
fn the_oracle_sees_each_fault() {
    let fixture = Fixture::new(Options::light("oracle-control"));
    let worker = fixture.worker();
    fixture.send(1_000);
    fixture.poison().send(Some(b"k"), Some(b"not an event"), &[]);
    // Taken before anything is read, so that the poison is acknowledged.
    assert_eq!(fixture.poison().positions().len(), 1);
    fixture.wait_landed(Duration::from_secs(90));
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(40)), Some(0));
    let clean = fixture.verdict();
    clean.assert_clean(1_001, 1);
    let (admin, database) = (fixture.admin(), fixture.database());
    let id = fixture.acknowledged().ids()[500];
    let counts = |verdict: &Verdict| [verdict.lost, verdict.double, verdict.unknown, verdict.gaps];

    // The same event again is one row under FINAL: no fault, though it is two rows.
    admin.run(&format!("SYSTEM STOP MERGES {database}.events"));
    admin.run(&format!("INSERT INTO events SELECT * FROM events WHERE event_id = '{id}'"));
    let again = fixture.verdict();
    assert_eq!((counts(&again), again.raw_rows), ([0; 4], 1_001), "{again}");

    // The same id with another content stays visible as a second row.
    admin.run(&format!("INSERT INTO events SELECT * REPLACE (unhex('00112233445566778899aabbccddeeff') AS content_hash) FROM events WHERE event_id = '{id}' LIMIT 1"));
    let double = fixture.verdict();
    assert_eq!(counts(&double), [0, 1, 0, 0], "{double}");

    // A deletion waits for merges.
    admin.run(&format!("SYSTEM START MERGES {database}.events"));
    admin.run(&format!("DELETE FROM events WHERE event_id = '{id}'"));
    let lost = fixture.verdict();
    assert_eq!(counts(&lost), [1, 0, 0, 0], "{lost}");

    admin.run("INSERT INTO events SELECT * REPLACE (generateUUIDv4() AS event_id) FROM events LIMIT 1");
    let unknown = fixture.verdict();
    assert_eq!(counts(&unknown), [1, 0, 1, 0], "{unknown}");

    // A span that is missing, and one that says less than it did.
    let span = admin.text("SELECT partition, first_offset, last_offset FROM ledger FINAL WHERE last_offset > first_offset ORDER BY partition, first_offset LIMIT 1");
    let numbers: Vec<i64> = span.split('\t').map(|number| number.parse().unwrap()).collect();
    let [partition, first, last] = numbers[..] else { panic!("a span is three numbers: {span}") };
    admin.run(&format!(
        "ALTER TABLE ledger DELETE WHERE partition = {partition} AND first_offset = {first} SETTINGS mutations_sync = 1"
    ));
    let gap = fixture.verdict();
    assert_eq!(counts(&gap), [1, 0, 1, (last - first + 1) as u64], "{gap}");
    admin.run(&format!(
        "INSERT INTO ledger (topic, partition, first_offset, last_offset) VALUES ('{}', {partition}, {first}, {})",
        fixture.topic(),
        last - 1
    ));
    let short = fixture.verdict();
    assert_eq!(counts(&short), [1, 0, 1, 1], "{short}");

    // Poison that nobody dead-lettered, and a dead letter of nothing.
    fixture.poison().send(Some(b"k"), None, &[]);
    let forgotten = fixture.verdict();
    assert_eq!(counts(&forgotten), [2, 0, 1, 2], "{forgotten}");
}
