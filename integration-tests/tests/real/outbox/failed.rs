//! A row that Kafka refuses for itself: three tries, failed, and back by hand; the others go on.

use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options, wait_until};
use auditstream_producer::idempotent_event_id;

use super::database::{Kind, Outboxed, Pool, in_tx};
use super::{cli, event_of, relay_with, wait_drained};

fn fails(name: &'static str, kind: Kind) {
    let fixture = Fixture::new(Options::light(name));
    let outboxed = Outboxed::new(&fixture, kind);
    fixture.kafka().set_topic(fixture.topic(), "max.message.bytes", "20000");
    let Outboxed { outbox, pool, runtime, .. } = &outboxed;
    let mut large = event_of(&fixture, "one", 1);
    // Words that compress badly.
    let words: String =
        (0..4_000_u32).map(|word| idempotent_event_id("acme", &word.to_string()).simple().to_string()).collect();
    large.details = format!("{{\"text\":\"{words}\"}}");
    let mut removed = event_of(&fixture, "two", 0);
    removed.details.clone_from(&large.details);
    let (large_id, removed_id) = (large.event_id, removed.event_id);
    runtime.block_on(async {
        in_tx!(pool, tx => {
            for event in [event_of(&fixture, "one", 0), large, event_of(&fixture, "one", 2), removed] {
                if event.event_id != removed_id {
                    fixture.acknowledged().add(event.event_id);
                }
                outbox.record_in_tx(&mut tx, event).await.unwrap();
            }
            tx.commit().await.unwrap();
        });
    });
    let relay = relay_with(&fixture, &outboxed, &[("AUDITSTREAM_OUTBOX__RETRY_BACKOFF_MS", "100")]);
    wait_until("two rows to fail", Duration::from_secs(30), || match outboxed.count("status = 2") {
        2 => Ok(()),
        rows => Err(format!("{rows} failed; {}", relay.log())),
    });
    assert_eq!(outboxed.count("1 = 1"), 2, "the others were not sent");
    assert_eq!(outboxed.count("attempts = 3"), 2);
    // Counted once the rows are written.
    wait_until("both to be counted", Duration::from_secs(10), || {
        match relay.metric("auditstream_relay_rows_failed_total")? {
            2.0 => Ok(()),
            counted => Err(format!("{counted} counted")),
        }
    });

    let failed = |args: &[&str]| {
        let mut all = vec!["outbox", "failed"];
        all.extend_from_slice(args);
        cli(&fixture, &outboxed, &all)
    };
    let list = failed(&["list"]).success().stdout;
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.contains(&large_id.to_string()) && list.contains("3 tries") && list.contains("size"), "{list}");
    let shown = failed(&["show", &large_id.to_string()]).success().stdout;
    assert!(shown.contains("acme/order/one") && !shown.contains(&words[..32]), "{shown}");
    let unknown = failed(&["remove", &uuid::Uuid::nil().to_string()]);
    assert_eq!(unknown.code(), Some(1), "{unknown:?}");
    assert!(failed(&["remove", "--all", "--dry-run"]).success().stdout.contains("2 rows would be removed"));
    assert_eq!(outboxed.count("status = 2"), 2, "a dry run removes nothing");
    let silent = failed(&["remove", &removed_id.to_string()]);
    assert!(silent.code() == Some(1) && silent.stderr.contains("--yes"), "{silent:?}");
    assert_eq!(outboxed.count("status = 2"), 2, "nothing is removed without a yes");
    assert_eq!(failed(&["remove", &removed_id.to_string(), "--yes"]).success().stdout, "1 row removed\n");
    fixture.kafka().set_topic(fixture.topic(), "max.message.bytes", "1000000");
    assert_eq!(failed(&["retry", "--all"]).success().stdout, "1 row pending again\n");
    wait_drained(&outboxed, Duration::from_secs(20));
    assert_eq!(outboxed.count("1 = 1"), 0, "the row failed again");
    let _worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(60));
    let audited = format!(
        "SELECT event_id FROM events FINAL WHERE action = 'audit.outbox_remove' AND outcome = 'SUCCESS' AND entity_id = '{removed_id}'"
    );
    let audited = fixture.admin().text(&audited);
    fixture.acknowledged().add(audited.trim().parse().expect("one audit event of the removal"));
    fixture.verdict().assert_clean(4, 0);
}

#[test]
fn postgres_rows_fail_and_come_back() {
    fails("outbox-failed-postgres", Kind::Postgres);
}

#[test]
fn mariadb_rows_fail_and_come_back() {
    fails("outbox-failed-mariadb", Kind::Mariadb);
}

#[test]
fn sqlite_rows_fail_and_come_back() {
    fails("outbox-failed-sqlite", Kind::Sqlite);
}
