//! Kafka is lost for good, with all that was in it: outboxes that keep what they have sent send it again to the new cluster, after the statements of
//! docs/operations.md, as they stand there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use auditstream_integration_tests::{Fixture, Kafka, Options, Worker, oracle, wait_until};
use auditstream_stack::Stack;
use sqlx::Executor as _;

use super::database::{Kind, Outboxed, Pool, in_tx};
use super::{event_of, relay_with, wait_drained};
use crate::operations::{assert_nothing_is_missing, statement};

const PATIENCE: Duration = Duration::from_secs(90);
/// Of each database: stored long before the loss; stored shortly before; sent and not stored; not sent.
const EVENTS: [u64; 4] = [100, 60, 40, 20];
const KEPT: (&str, &str) = ("AUDITSTREAM_OUTBOX__MODE", "mark");

fn record(fixture: &Fixture, outboxes: &[Outboxed], count: u64) {
    for Outboxed { outbox, pool, runtime, .. } in outboxes {
        let ids = runtime.block_on(async {
            let mut ids = Vec::new();
            in_tx!(pool, tx => {
                for number in 0..count as usize {
                    let event = event_of(fixture, &(number % 7).to_string(), number);
                    ids.push(outbox.record_in_tx(&mut tx, event).await.unwrap());
                }
                tx.commit().await.unwrap();
            });
            ids
        });
        ids.into_iter().for_each(|id| fixture.acknowledged().add(id));
    }
}

/// Waits until a second begins, and returns it as the page writes a time (UTC).
fn next_second(fixture: &Fixture) -> String {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let next = now() + 1;
    wait_until("the next second", PATIENCE, || if now() >= next { Ok(()) } else { Err(now().to_string()) });
    fixture.admin().text(&format!("SELECT toString(toDateTime({next}, 'UTC'))"))
}

/// Sets the rows that were sent since then back, and returns how many they were.
fn set_back(outboxed: &Outboxed, since: &str) -> u64 {
    let beginning = match outboxed.kind {
        Kind::Postgres => "-- PostgreSQL\n",
        Kind::Mariadb => "-- MariaDB, MySQL\n",
        Kind::Sqlite => "-- SQLite\n",
    };
    let page = statement(beginning);
    let sql = page.replace("audit_outbox", &outboxed.table).replace("2026-11-20 09:30:00", since);
    assert!(sql.contains(&outboxed.table) && sql.contains(since), "{page}");
    outboxed.runtime.block_on(async {
        match &outboxed.pool {
            Pool::Postgres(pool) => pool.execute(&*sql).await.unwrap().rows_affected(),
            Pool::Mariadb(pool) => pool.execute(&*sql).await.unwrap().rows_affected(),
            Pool::Sqlite(pool) => pool.execute(&*sql).await.unwrap().rows_affected(),
        }
    })
}

#[test]
fn kafka_is_lost_and_rows_that_were_sent_are_sent_again_to_the_new_one() {
    let fixture = Fixture::new(Options::own_servers("outbox-kafka-lost"));
    fixture.stop_merges();
    let outboxes = [Kind::Postgres, Kind::Mariadb, Kind::Sqlite].map(|kind| Outboxed::new(&fixture, kind));
    let relays: Vec<_> = outboxes.iter().map(|outbox| relay_with(&fixture, outbox, &[KEPT])).collect();
    let drained = || outboxes.iter().for_each(|outbox| wait_drained(outbox, PATIENCE));
    let [long_before, shortly_before, unread, unsent] = EVENTS;
    let worker = fixture.worker();
    record(&fixture, &outboxes, long_before);
    drained();
    let since = next_second(&fixture);
    record(&fixture, &outboxes, shortly_before);
    drained();
    fixture.wait_landed(PATIENCE);
    worker.terminate();
    assert_eq!(worker.wait(PATIENCE), Some(0));
    record(&fixture, &outboxes, unread);
    drained();
    fixture.stack().kafka().kill().unwrap();
    record(&fixture, &outboxes, unsent);
    relays.into_iter().for_each(Worker::kill);

    let name = format!("test-outbox-new-kafka-{}", std::process::id());
    let new = Stack::start(auditstream_stack::Options::named(name)).unwrap();
    let there = ("AUDITSTREAM_KAFKA__BOOTSTRAP_SERVERS", new.kafka_bootstrap());
    let mut create = fixture.command(&["topics", "create"]);
    create.env(there.0, there.1);
    fixture.run(create, b"").success();
    let worker = fixture.worker_with(&[there]);
    for outbox in &outboxes {
        assert_eq!(set_back(outbox, &since), shortly_before + unread, "{:?}", outbox.kind);
    }
    let relays: Vec<_> = outboxes.iter().map(|outbox| relay_with(&fixture, outbox, &[KEPT, there])).collect();
    drained();
    let kafka = Kafka::new(new.kafka_bootstrap(), fixture.topic());
    wait_until("everything to be stored and committed", PATIENCE, || match kafka.lag(fixture.topic()) {
        0 => Ok(()),
        lag => Err(format!("{lag} records are not committed")),
    });
    fixture.acknowledged().sync().unwrap();
    let verdict = oracle::judge(&oracle::Case {
        clickhouse: fixture.admin(),
        kafka: &kafka,
        topic: fixture.topic(),
        dead_letter_topic: &fixture.dead_letter_topic(),
        events: &fixture.acknowledged().ids(),
        poison: &[],
    });
    eprintln!("three outboxes, Kafka lost: {verdict}");
    verdict.assert_clean(3 * EVENTS.iter().sum::<u64>(), 0);
    let again = 3 * shortly_before;
    assert_eq!(verdict.raw_rows - verdict.rows, again, "rows that ClickHouse had already: {verdict}");
    assert_nothing_is_missing(&fixture, &[there]);
    drop((worker, relays));
}
