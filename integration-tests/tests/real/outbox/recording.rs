//! What is committed arrives once, what is rolled back never, a key is taken once, and a delayed event waits.

use std::time::{Duration, Instant, SystemTime};

use auditstream_integration_tests::{Fixture, Options, wait_until};
use auditstream_producer::idempotent_event_id;
use auditstream_producer::outbox::{OutboxOptions, RecordError};

use super::database::{Kind, Outboxed, Pool, in_tx};
use super::{cli, event_of, relay, relay_with, wait_drained};

const DELAY: Duration = Duration::from_millis(2_500);

fn with_key(key: &str) -> OutboxOptions {
    OutboxOptions { idempotency_key: Some(key.to_owned()), ..OutboxOptions::default() }
}

fn records(name: &'static str, kind: Kind) {
    let fixture = Fixture::new(Options::light(name));
    let outboxed = Outboxed::new(&fixture, kind);
    let Outboxed { outbox, pool, runtime, .. } = &outboxed;
    let due = SystemTime::now() + DELAY;
    let (mut committed, delayed) = (Vec::new(), event_of(&fixture, "later", 0));
    let delayed_id = delayed.event_id;
    runtime.block_on(async {
        in_tx!(pool, tx => {
            for number in 0..50 {
                let event = event_of(&fixture, "kept", number);
                committed.push(outbox.record_in_tx(&mut tx, event).await.unwrap());
            }
            let options = OutboxOptions { available_at: Some(due), ..OutboxOptions::default() };
            committed.push(outbox.record_in_tx_with(&mut tx, delayed, options).await.unwrap());
            // A refusal leaves the transaction as it was.
            let mut wrong = event_of(&fixture, "kept", 0);
            wrong.action.clear();
            let refused = outbox.record_in_tx(&mut tx, wrong).await;
            assert!(matches!(&refused, Err(RecordError::Invalid(error)) if error.problems[0].field == "action"), "{refused:?}");
            let id = outbox.record_in_tx_with(&mut tx, event_of(&fixture, "paid", 0), with_key("payment-1")).await.unwrap();
            assert_eq!(id, idempotent_event_id("acme", "payment-1"));
            committed.push(id);
            let again = outbox.record_in_tx_with(&mut tx, event_of(&fixture, "paid", 1), with_key("payment-1")).await;
            assert!(matches!(&again, Err(RecordError::DuplicateKey { event_id }) if *event_id == id), "{again:?}");
            committed.push(outbox.record_in_tx(&mut tx, event_of(&fixture, "kept", 50)).await.unwrap());
            tx.commit().await.unwrap();
        });
        in_tx!(pool, tx => {
            for number in 0..20 {
                outbox.record_in_tx(&mut tx, event_of(&fixture, "undone", number)).await.unwrap();
            }
            outbox.record_in_tx_with(&mut tx, event_of(&fixture, "undone", 20), with_key("payment-2")).await.unwrap();
            tx.rollback().await.unwrap();
        });
        // A key whose transaction was undone is free.
        in_tx!(pool, tx => {
            let event = event_of(&fixture, "paid", 2);
            committed.push(outbox.record_in_tx_with(&mut tx, event, with_key("payment-2")).await.unwrap());
            let known = event_of(&fixture, "kept", 0);
            let again = auditstream_schemas::AuditEvent { event_id: committed[0], ..known };
            let again = outbox.record_in_tx(&mut tx, again).await;
            assert!(matches!(&again, Err(RecordError::DuplicateId { .. })), "{again:?}");
            tx.commit().await.unwrap();
        });
    });
    committed.iter().for_each(|id| fixture.acknowledged().add(*id));
    let _worker = fixture.worker();
    let first = relay(&fixture, &outboxed);
    wait_until("all but the delayed event to be sent", Duration::from_secs(20), || {
        match outboxed.count("status = 0") {
            0 => Ok(()),
            rows => Err(format!("{rows} pending: {}", first.log())),
        }
    });
    assert!(SystemTime::now() < due, "the test was too slow to prove anything");
    assert_eq!(outboxed.count("status = 3"), 1, "the delayed event is not waiting");
    wait_drained(&outboxed, Duration::from_secs(20));
    // Sent, and the keys are taken still; nothing else is kept.
    runtime.block_on(async {
        in_tx!(pool, tx => {
            let again = outbox.record_in_tx_with(&mut tx, event_of(&fixture, "paid", 3), with_key("payment-1")).await;
            assert!(matches!(again, Err(RecordError::DuplicateKey { .. })), "{again:?}");
            tx.rollback().await.unwrap();
        });
    });
    assert_eq!((outboxed.count("status = 1"), outboxed.count("1 = 1")), (2, 2));
    assert_eq!(first.metric("auditstream_relay_rows_sent_total").unwrap(), committed.len() as f64);
    assert_eq!(first.metric("auditstream_relay_shards").unwrap(), 64.0);
    first.wait_ready();
    first.terminate();
    assert_eq!(first.wait(Duration::from_secs(10)), Some(0), "the relay's exit code");
    fixture.wait_landed(Duration::from_secs(30));
    fixture.verdict().assert_clean(committed.len() as u64, 0);
    let records = fixture.kafka().read(fixture.topic());
    let late = records.iter().find(|record| record.header("ce_id") == delayed_id.to_string()).unwrap();
    let due_ms = due.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!(late.timestamp_ms >= due_ms - 50, "sent {} ms too early", due_ms - late.timestamp_ms);
    assert_eq!(late.header("ce_type"), "auditstream.v1.AuditEvent");
    assert_eq!(late.key.as_deref(), Some(&b"acme/order/later"[..]));

    // Kept for as long as it is said, and not longer.
    let _second = relay_with(
        &fixture,
        &outboxed,
        &[("AUDITSTREAM_OUTBOX__MODE", "mark"), ("AUDITSTREAM_OUTBOX__RETENTION_S", "0")],
    );
    wait_until("what was sent to be removed", Duration::from_secs(20), || match outboxed.count("1 = 1") {
        0 => Ok(()),
        rows => Err(format!("{rows} rows")),
    });
}

#[test]
fn postgres_outbox_records() {
    records("outbox-postgres", Kind::Postgres);
}

#[test]
fn mariadb_outbox_records() {
    records("outbox-mariadb", Kind::Mariadb);
}

#[test]
fn sqlite_outbox_records() {
    records("outbox-sqlite", Kind::Sqlite);
}

#[test]
fn an_outbox_that_is_not_there_is_said() {
    let fixture = Fixture::new(Options::light("outbox-missing"));
    let outboxed = Outboxed::new(&fixture, Kind::Sqlite);
    let missing = Outboxed { table: "elsewhere".to_owned(), ..outboxed };
    let said = cli(&fixture, &missing, &["relay"]);
    assert_eq!(said.code(), Some(3), "{said:?}");
    assert!(said.stderr.contains("auditstream outbox migrate"), "{said:?}");
    let unset = fixture.cli(&["relay"]);
    assert_eq!(unset.code(), Some(2), "{unset:?}");
    assert!(unset.stderr.contains("outbox.url: must be set"), "{unset:?}");
}

#[test]
fn postgres_wakes_the_relay() {
    let fixture = Fixture::new(Options::light("outbox-notify"));
    let mut outboxed = Outboxed::new(&fixture, Kind::Postgres);
    outboxed.outbox.notify = true;
    // By itself it would look only once a minute.
    let settings = [("AUDITSTREAM_OUTBOX__POLL_INTERVAL_MS", "60000"), ("AUDITSTREAM_OUTBOX__LEASE_MS", "3600000")];
    let relay = relay_with(&fixture, &outboxed, &settings);
    wait_until("the relay to have looked once", Duration::from_secs(20), || {
        let shards = relay.metric("auditstream_relay_shards")?;
        if shards > 63.0 { Ok(()) } else { Err(format!("{shards} shards")) }
    });
    let Outboxed { outbox, pool, runtime, .. } = &outboxed;
    for number in 0..2 {
        let event = event_of(&fixture, "woken", number);
        let started = Instant::now();
        runtime.block_on(async {
            in_tx!(pool, tx => {
                outbox.record_in_tx(&mut tx, event).await.unwrap();
                tx.commit().await.unwrap();
            });
        });
        wait_drained(&outboxed, Duration::from_secs(10));
        eprintln!("recorded to settled: {:?}", started.elapsed());
    }
}
