//! Relays are killed under load, two at once share the work, Kafka goes away: nothing is lost or double, and each entity's order holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options, Worker, wait_until};
use tokio::task::JoinHandle;

use super::database::{Kind, Outboxed, Pool, in_tx};
use super::{assert_order, cli, relay_with, shaped, wait_drained};

/// Kills of each database's relays.
const KILLS: u64 = 12;
const ENTITIES: usize = 24;
/// Two of them write at once, each to its own half of the entities: the order of an entity is then known.
const WRITERS: usize = 2;

/// Ids by key, in the order of their commits.
pub(super) type Recorded = HashMap<String, Vec<String>>;

/// Services that record without end: transactions of one to eight events, every seventh of them rolled back.
pub(super) struct Services {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Recorded>>,
}

impl Services {
    pub(super) fn start(fixture: &Fixture, outboxed: &Outboxed) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..WRITERS).map(|writer| {
            let (generator, pool, outbox) =
                (Arc::clone(fixture.generator()), outboxed.pool.clone(), outboxed.outbox.clone());
            let stop = Arc::clone(&stop);
            outboxed.runtime.spawn(async move {
                let mut recorded = Recorded::new();
                // Beyond those that the fixture gives out itself.
                let mut index = 5_000_000 + 1_000_000 * writer as u64;
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let mut events = Vec::new();
                    for step in 0..=number % 8 {
                        let entity = (number * 7 + step) % (ENTITIES / WRITERS) * WRITERS + writer;
                        events.push(shaped(generator.event(index), &entity.to_string(), number));
                        index += 1;
                    }
                    let committed = number % 7 != 0;
                    in_tx!(&pool, tx => {
                        for event in &events {
                            outbox.record_in_tx(&mut tx, event.clone()).await.unwrap();
                        }
                        if committed { tx.commit().await.unwrap() } else { tx.rollback().await.unwrap() }
                    });
                    if committed {
                        for event in events {
                            recorded.entry(event.key()).or_default().push(event.event_id.to_string());
                        }
                    }
                }
                recorded
            })
        });
        let writers = writers.collect();
        Self { stop, writers }
    }

    pub(super) fn finish(self, fixture: &Fixture, outboxed: &Outboxed) -> Recorded {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Recorded::new();
        for writer in self.writers {
            all.extend(outboxed.runtime.block_on(writer).unwrap());
        }
        all.values().flatten().for_each(|id| fixture.acknowledged().add(id.parse().unwrap()));
        all
    }
}

/// Records on the topic.
pub(super) fn on_topic(fixture: &Fixture) -> i64 {
    fixture.kafka().ends(fixture.topic()).iter().map(|(_, end)| end).sum()
}

/// Waits until so many more records are on the topic.
pub(super) fn wait_more(fixture: &Fixture, more: i64, relays: &[&Worker]) {
    let goal = on_topic(fixture) + more;
    wait_until("records to be sent", Duration::from_secs(30), || match on_topic(fixture) {
        records if records >= goal => Ok(()),
        records => Err(format!("{records} of {goal}; {}", relays.iter().map(|relay| relay.log()).collect::<String>())),
    });
}

fn start(fixture: &Fixture, outboxed: &Outboxed) -> Worker {
    // Small rounds: a kill meets each of their steps soon.
    relay_with(fixture, outboxed, &[("AUDITSTREAM_OUTBOX__BATCH_ROWS", "300")])
}

fn kills(name: &'static str, kind: Kind) {
    let fixture = Fixture::new(Options::heavy(name));
    let outboxed = Outboxed::new(&fixture, kind);
    let _worker = fixture.worker();
    let services = Services::start(&fixture, &outboxed);
    let (mut one, mut other) = (start(&fixture, &outboxed), start(&fixture, &outboxed));
    for kill in 0..KILLS {
        // A different way into the round each time; the load keeps the rounds coming.
        wait_more(&fixture, 1 + (kill as i64 * 37) % 150, &[&one, &other]);
        let victim = if kill % 2 == 0 { &mut one } else { &mut other };
        std::mem::replace(victim, start(&fixture, &outboxed)).kill();
    }
    // Both have their share, and both work.
    for relay in [&one, &other] {
        wait_until("both relays to work", Duration::from_secs(20), || {
            let (shards, sent) =
                (relay.metric("auditstream_relay_shards")?, relay.metric("auditstream_relay_rows_sent_total")?);
            if shards == 32.0 && sent > 0.0 { Ok(()) } else { Err(format!("{shards} shards, {sent} sent")) }
        });
    }
    wait_more(&fixture, 500, &[&one, &other]);
    let recorded = services.finish(&fixture, &outboxed);
    wait_drained(&outboxed, Duration::from_secs(30));
    assert_eq!(outboxed.count("1 = 1"), 0, "rows stay");
    for relay in [one, other] {
        relay.terminate();
        assert_eq!(relay.wait(Duration::from_secs(10)), Some(0), "the relay's exit code");
    }
    let copies = assert_order(&fixture, &recorded);
    fixture.wait_landed(Duration::from_secs(60));
    let verdict = fixture.verdict();
    eprintln!("{:?}: {KILLS} kills, {copies} copies on the topic: {verdict}", outboxed.kind);
    let events: usize = recorded.values().map(Vec::len).sum();
    verdict.assert_clean(events as u64, 0);
}

#[test]
fn postgres_relays_are_killed() {
    kills("outbox-kills-postgres", Kind::Postgres);
}

#[test]
fn mariadb_relays_are_killed() {
    kills("outbox-kills-mariadb", Kind::Mariadb);
}

#[test]
fn sqlite_relays_are_killed() {
    kills("outbox-kills-sqlite", Kind::Sqlite);
}

#[test]
fn a_kafka_that_is_away_is_no_rows_fault() {
    let fixture = Fixture::new(Options::own_servers("outbox-kafka-away"));
    let outboxed = Outboxed::new(&fixture, Kind::Sqlite);
    let relay = start(&fixture, &outboxed);
    let services = Services::start(&fixture, &outboxed);
    wait_more(&fixture, 100, &[&relay]);
    fixture.stack().kafka().kill().unwrap();
    // Longer than several leases: those are renewed all the same.
    let waiting = outboxed.count("1 = 1") + 1_000;
    wait_until("rows to pile up", Duration::from_secs(60), || match outboxed.count("1 = 1") {
        rows if rows >= waiting => Ok(()),
        rows => Err(format!("{rows} of {waiting}")),
    });
    fixture.stack().kafka().start().unwrap();
    let recorded = services.finish(&fixture, &outboxed);
    wait_drained(&outboxed, Duration::from_secs(60));
    assert_eq!(relay.metric("auditstream_relay_rows_refused_total").unwrap(), 0.0);
    assert_eq!(cli(&fixture, &outboxed, &["outbox", "failed", "list"]).success().stdout, "no failed rows\n");
    assert_order(&fixture, &recorded);
    let _worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(60));
    fixture.verdict().assert_clean(recorded.values().map(Vec::len).sum::<usize>() as u64, 0);
}
