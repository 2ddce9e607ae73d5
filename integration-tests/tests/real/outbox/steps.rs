//! A relay dies at each step of its round and of its leases, and one is frozen past its lease: nothing is lost or double, and each entity's order holds.

use std::time::{Duration, Instant, SystemTime};

use auditstream_integration_tests::{FaultReport, Fixture, Options, Worker, wait_until};
use auditstream_producer::outbox::OutboxOptions;
use auditstream_producer::outbox::faults::Point;
use auditstream_schemas::AuditEvent;

use super::database::{Kind, Outboxed, Pool, in_tx};
use super::kills::{Recorded, Services, on_topic, wait_more};
use super::{assert_order, event_of, relay_settings, relay_with, wait_drained};

const PATIENCE: Duration = Duration::from_secs(60);
/// Recorded before each kill, as one transaction of each entity. Several rounds of [`ROUND`] rows.
const EVENTS: usize = 240;
const ENTITIES: usize = 12;
const ROUND: &str = "50";
/// Each of so many rows has an idempotency key, so that it is marked when the others are removed: settling then takes two statements.
const KEYED: usize = 5;

/// Commits [`EVENTS`] events.
fn record(fixture: &Fixture, outboxed: &Outboxed, batch: usize, recorded: &mut Recorded) {
    let Outboxed { outbox, pool, runtime, .. } = outboxed;
    for entity in 0..ENTITIES {
        let mut committed = Vec::new();
        runtime.block_on(async {
            in_tx!(pool, tx => {
                for number in 0..EVENTS / ENTITIES {
                    let event = event_of(fixture, &entity.to_string(), number);
                    let key = event.key();
                    let keyed = number % KEYED == 0;
                    let idempotency_key = keyed.then(|| format!("{batch}-{entity}-{number}"));
                    let options = OutboxOptions { idempotency_key, ..OutboxOptions::default() };
                    committed.push((key, outbox.record_in_tx_with(&mut tx, event, options).await.unwrap()));
                }
                tx.commit().await.unwrap();
            });
        });
        for (key, id) in committed {
            fixture.acknowledged().add(id);
            recorded.entry(key).or_default().push(id.to_string());
        }
    }
}

/// Commits one event of an entity of its own, which is due a moment from now: a row to be woken.
fn delay(fixture: &Fixture, outboxed: &Outboxed, recorded: &mut Recorded) {
    let Outboxed { outbox, pool, runtime, .. } = outboxed;
    let event: AuditEvent = event_of(fixture, &format!("later-{}", recorded.len()), 0);
    let key = event.key();
    let due = SystemTime::now() + Duration::from_millis(300);
    let options = OutboxOptions { available_at: Some(due), ..OutboxOptions::default() };
    let id = runtime.block_on(async {
        in_tx!(pool, tx => {
            let id = outbox.record_in_tx_with(&mut tx, event, options).await.unwrap();
            tx.commit().await.unwrap();
            id
        })
    });
    fixture.acknowledged().add(id);
    recorded.entry(key).or_default().push(id.to_string());
}

/// What the database and the topic look like after a death at `point`, against what they were before.
fn assert_died_at(point: Point, outboxed: &Outboxed, before: (i64, i64), after: (i64, i64)) {
    let (settled, sent) = (before.0 - after.0, after.1 - before.1);
    let name = point.name();
    match point {
        // In the second round: the first one is settled.
        Point::Taken => assert!(sent == settled && settled > 0, "{name}: {sent} sent, {settled} settled"),
        Point::Sent | Point::Acknowledged => {
            assert!(sent > settled && settled > 0, "{name}: {sent} sent, {settled} settled");
        }
        Point::HalfSettled => {
            assert!(sent > settled && settled > 0, "{name}: {sent} sent, {settled} settled");
            let rest = outboxed.count("status = 0 AND idempotency_key IS NOT NULL");
            assert!(rest > 0, "{name}: no row of the round is left");
        }
        Point::Settled => assert!(sent == settled && settled > 0, "{name}: {sent} sent, {settled} settled"),
        Point::LeasesRenewed | Point::ShardsTaken | Point::DelayedWoken => {}
    }
}

fn dies_at_each_step(name: &'static str, kind: Kind) {
    let mut report = FaultReport::new(format!("relay killed at every step, {kind:?}"));
    let fixture = Fixture::new(Options::light(name));
    let outboxed = Outboxed::new(&fixture, kind);
    let mut recorded = Recorded::new();
    for (batch, point) in Point::ALL.into_iter().enumerate() {
        record(&fixture, &outboxed, batch, &mut recorded);
        delay(&fixture, &outboxed, &mut recorded);
        let waiting = || (outboxed.count("status IN (0, 3)"), on_topic(&fixture));
        let before = waiting();
        // At the second time where a first one says little: in the second round, and with leases to lose.
        let time = if point == Point::ShardsTaken { 1 } else { 2 };
        let settings = relay_settings(&outboxed, &[("AUDITSTREAM_OUTBOX__BATCH_ROWS", ROUND)]);
        let dying = fixture.rigged_relay(&format!("{}={}*off->return", point.name(), time - 1), &settings);
        assert_eq!(dying.wait(PATIENCE), None, "{} ends the relay by a signal", point.name());
        let died = Instant::now();
        assert_died_at(point, &outboxed, before, waiting());
        report.run();
        // The next one waits for the leases of the dead one, and must get over what it left half done.
        let next = relay_with(&fixture, &outboxed, &[("AUDITSTREAM_OUTBOX__BATCH_ROWS", ROUND)]);
        wait_drained(&outboxed, PATIENCE);
        report.recovered(died.elapsed());
        if batch % 2 == 0 {
            next.terminate();
            assert_eq!(next.wait(PATIENCE), Some(0), "the relay's exit code");
        } else {
            next.kill();
        }
    }
    let copies = assert_order(&fixture, &recorded);
    let _worker = fixture.worker();
    fixture.wait_landed(PATIENCE);
    let verdict = fixture.verdict();
    eprintln!("{kind:?}: killed at {} steps, {copies} copies on the topic: {verdict}", report.runs());
    report.judged(&verdict);
    verdict.assert_clean(recorded.values().map(Vec::len).sum::<usize>() as u64, 0);
    assert!(copies > 0, "no kill left anything: {verdict}");
    report.passed();
}

#[test]
fn a_postgres_relay_dies_at_each_step() {
    dies_at_each_step("outbox-steps-postgres", Kind::Postgres);
}

#[test]
fn a_mariadb_relay_dies_at_each_step() {
    dies_at_each_step("outbox-steps-mariadb", Kind::Mariadb);
}

#[test]
fn a_sqlite_relay_dies_at_each_step() {
    dies_at_each_step("outbox-steps-sqlite", Kind::Sqlite);
}

/// Waits until `relay` owns so many shards.
fn wait_shards(relay: &Worker, what: &str, holds: impl Fn(f64) -> bool) {
    wait_until(what, PATIENCE, || match relay.metric("auditstream_relay_shards")? {
        shards if holds(shards) => Ok(()),
        shards => Err(format!("{shards} shards")),
    });
}

/// A relay that holds rows is frozen, longer than its lease; the other one takes its shards over and sends the same rows; then the first one goes on
/// with what it had, sends it and settles it.
fn freezes(name: &'static str, kind: Kind) {
    const ROUNDS: u64 = 4;
    let mut report = FaultReport::new(format!("relay frozen past its lease, {kind:?}"));
    let fixture = Fixture::new(Options::heavy(name));
    let outboxed = Outboxed::new(&fixture, kind);
    let _worker = fixture.worker();
    let services = Services::start(&fixture, &outboxed);
    let small = [("AUDITSTREAM_OUTBOX__BATCH_ROWS", "300")];
    let (one, other) = (relay_with(&fixture, &outboxed, &small), relay_with(&fixture, &outboxed, &small));
    wait_shards(&one, "the shards to be shared", |shards| shards == 32.0);
    for round in 0..ROUNDS {
        let (frozen, working) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        wait_until("the relay to hold rows", PATIENCE, || match frozen.metric("auditstream_relay_in_flight_rows")? {
            rows if rows > 0.0 => Ok(()),
            _ => Err("it holds none".to_owned()),
        });
        frozen.pause();
        wait_shards(working, "the other relay to take all shards", |shards| shards == 64.0);
        wait_more(&fixture, 300, &[working]);
        frozen.resume();
        report.run();
        let resumed = Instant::now();
        wait_shards(working, "the shards to be shared again", |shards| shards == 32.0);
        report.recovered(resumed.elapsed());
    }
    wait_more(&fixture, 300, &[&one, &other]);
    let recorded = services.finish(&fixture, &outboxed);
    wait_drained(&outboxed, PATIENCE);
    let copies = assert_order(&fixture, &recorded);
    fixture.wait_landed(PATIENCE);
    let verdict = fixture.verdict();
    eprintln!("{kind:?}: frozen {ROUNDS} times, {copies} copies on the topic: {verdict}");
    report.judged(&verdict);
    verdict.assert_clean(recorded.values().map(Vec::len).sum::<usize>() as u64, 0);
    assert!(copies > 0, "no row was sent by both: {verdict}");
    report.passed();
}

#[test]
fn a_postgres_relay_that_froze_past_its_lease_does_no_harm() {
    freezes("outbox-frozen-postgres", Kind::Postgres);
}

#[test]
fn a_mariadb_relay_that_froze_past_its_lease_does_no_harm() {
    freezes("outbox-frozen-mariadb", Kind::Mariadb);
}
