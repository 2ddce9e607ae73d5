//! Two transactions with one idempotency key at the same time: exactly one has it. The other one waits for the first one's end, and goes on with whatever
//! it was.

use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options};
use auditstream_producer::idempotent_event_id;
use auditstream_producer::outbox::{OutboxOptions, RecordError};
use auditstream_schemas::AuditEvent;
use uuid::Uuid;

use super::database::{Kind, Outboxed, Pool, in_tx};
use super::{event_of, relay, wait_drained};

const PATIENCE: Duration = Duration::from_secs(60);
/// So long the second transaction must not answer while the first one is open.
const STILL: Duration = Duration::from_millis(300);

fn with_key(key: &str) -> OutboxOptions {
    OutboxOptions { idempotency_key: Some(key.to_owned()), ..OutboxOptions::default() }
}

/// How the first transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Commit,
    Rollback,
}

/// What the second transaction records: the event with the key, and one without behind it.
async fn second(
    outboxed: (Pool, auditstream_producer::outbox::Outbox),
    events: [AuditEvent; 2],
    key: &'static str,
) -> Second {
    let (pool, outbox) = outboxed;
    let [keyed, plain] = events;
    in_tx!(&pool, tx => {
        let first = outbox.record_in_tx_with(&mut tx, keyed, with_key(key)).await;
        let after = outbox.record_in_tx(&mut tx, plain).await.unwrap();
        tx.commit().await.unwrap();
        Second { keyed: first, after }
    })
}

struct Second {
    keyed: Result<Uuid, RecordError>,
    after: Uuid,
}

fn one_key(name: &'static str, kind: Kind) {
    let fixture = Fixture::new(Options::light(name));
    let outboxed = Outboxed::new(&fixture, kind);
    let Outboxed { outbox, pool, runtime, .. } = &outboxed;
    let other = outboxed.another_pool();
    let mut recorded = 0;
    for (key, end) in [("committed", End::Commit), ("undone", End::Rollback)] {
        let id = idempotent_event_id("acme", key);
        let events = [event_of(&fixture, "second", 0), event_of(&fixture, "after", 0)];
        let first = event_of(&fixture, "first", 0);
        let second = runtime.block_on(async {
            in_tx!(pool, tx => {
                assert_eq!(outbox.record_in_tx_with(&mut tx, first, with_key(key)).await.unwrap(), id);
                let mut second = tokio::spawn(second((other.clone(), outbox.clone()), events, key));
                // Not a wait for something: it must not answer before the first one has ended.
                let early = tokio::time::timeout(STILL, &mut second).await;
                assert!(early.is_err(), "the second transaction did not wait for the first one");
                match end {
                    End::Commit => tx.commit().await.unwrap(),
                    End::Rollback => tx.rollback().await.unwrap(),
                }
                tokio::time::timeout(PATIENCE, second).await.expect("it waits no longer").unwrap()
            })
        });
        match (end, &second.keyed) {
            (End::Commit, Err(RecordError::DuplicateKey { event_id })) if *event_id == id => {}
            (End::Rollback, Ok(recorded)) if *recorded == id => {}
            (_, other) => panic!("after the {end:?} of the first one: {other:?}"),
        }
        let keyed = outboxed.count(&format!("idempotency_key = '{key}'"));
        assert_eq!(keyed, 1, "rows with the key after the {end:?} of the first one");
        [id, second.after].into_iter().for_each(|id| fixture.acknowledged().add(id));
        recorded += 2;
    }
    let _relay = relay(&fixture, &outboxed);
    wait_drained(&outboxed, PATIENCE);
    let _worker = fixture.worker();
    fixture.wait_landed(PATIENCE);
    fixture.verdict().assert_clean(recorded, 0);
    // Whose event it was: of the committed key the first one's, of the other the second one's.
    let entity = |key: &str| {
        let id = idempotent_event_id("acme", key);
        fixture
            .admin()
            .number(&format!("SELECT count() FROM events FINAL WHERE event_id = '{id}' AND entity_id = 'first'"))
    };
    assert_eq!((entity("committed"), entity("undone")), (1, 0));
}

#[test]
fn postgres_takes_a_key_once_of_two_at_once() {
    one_key("outbox-key-postgres", Kind::Postgres);
}

#[test]
fn mariadb_takes_a_key_once_of_two_at_once() {
    one_key("outbox-key-mariadb", Kind::Mariadb);
}

#[test]
fn sqlite_takes_a_key_once_of_two_at_once() {
    one_key("outbox-key-sqlite", Kind::Sqlite);
}
