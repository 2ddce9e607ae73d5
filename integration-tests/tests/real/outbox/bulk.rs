//! Many events with one statement: all arrive once and in order, and an id that is there already undoes the transaction.

use std::collections::HashMap;
use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options};
use auditstream_producer::outbox::RecordError;

use super::database::{Kind, Outboxed, Pool, in_tx};
use super::{assert_order, event_of, relay, wait_drained};

/// More than go into one statement.
const EVENTS: usize = 1_203;

fn records(name: &'static str, kind: Kind) {
    let fixture = Fixture::new(Options::light(name));
    let outboxed = Outboxed::new(&fixture, kind);
    let Outboxed { outbox, pool, runtime, .. } = &outboxed;
    let mut recorded = HashMap::<String, Vec<String>>::new();
    let events: Vec<_> = (0..EVENTS).map(|number| event_of(&fixture, &(number % 7).to_string(), number)).collect();
    for event in &events {
        recorded.entry(event.key()).or_default().push(event.event_id.to_string());
    }
    runtime.block_on(async {
        in_tx!(pool, tx => {
            let ids = outbox.record_all_in_tx(&mut tx, events.clone()).await.unwrap();
            assert_eq!(ids, events.iter().map(|event| event.event_id).collect::<Vec<_>>());
            assert!(outbox.record_all_in_tx(&mut tx, Vec::new()).await.unwrap().is_empty());
            tx.commit().await.unwrap();
        });
        in_tx!(pool, tx => {
            let again = vec![event_of(&fixture, "new", 0), events[3].clone(), event_of(&fixture, "new", 1)];
            let refused = outbox.record_all_in_tx(&mut tx, again).await;
            assert!(matches!(refused, Err(RecordError::DuplicateIds { events: 3 })), "{refused:?}");
            tx.rollback().await.unwrap();
        });
        in_tx!(pool, tx => {
            let mut wrong = event_of(&fixture, "new", 2);
            wrong.action.clear();
            let refused = outbox.record_all_in_tx(&mut tx, vec![event_of(&fixture, "new", 3), wrong]).await;
            assert!(matches!(&refused, Err(RecordError::Invalid(error)) if error.problems[0].field == "action"), "{refused:?}");
            tx.commit().await.unwrap();
        });
    });
    assert_eq!(outboxed.count("1 = 1"), EVENTS as i64, "rows in the outbox");
    recorded.values().flatten().for_each(|id| fixture.acknowledged().add(id.parse().unwrap()));
    let _worker = fixture.worker();
    let _relay = relay(&fixture, &outboxed);
    wait_drained(&outboxed, Duration::from_secs(20));
    assert_eq!(assert_order(&fixture, &recorded), 0, "copies on the topic");
    fixture.wait_landed(Duration::from_secs(30));
    fixture.verdict().assert_clean(EVENTS as u64, 0);
}

#[test]
fn postgres_takes_many_at_once() {
    records("outbox-bulk-postgres", Kind::Postgres);
}

#[test]
fn mariadb_takes_many_at_once() {
    records("outbox-bulk-mariadb", Kind::Mariadb);
}

#[test]
fn sqlite_takes_many_at_once() {
    records("outbox-bulk-sqlite", Kind::Sqlite);
}
