//! The transactional outbox and its relay, on real PostgreSQL, MariaDB and SQLite.

mod bulk;
mod database;
mod failed;
mod kafka_lost;
mod keys;
mod kills;
mod rate;
mod recording;
mod steps;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use auditstream_integration_tests::{CliOutput, Fixture, Worker, wait_until};
use auditstream_schemas::AuditEvent;
use database::Outboxed;

/// A lease short enough that a test need not wait long for the shards of a killed relay.
const LEASE_MS: &str = "400";

/// A relay of this outbox.
fn relay(fixture: &Fixture, outbox: &Outboxed) -> Worker {
    relay_with(fixture, outbox, &[])
}

fn relay_with(fixture: &Fixture, outbox: &Outboxed, more: &[(&str, &str)]) -> Worker {
    fixture.relay(&relay_settings(outbox, more))
}

fn relay_settings<'a>(outbox: &'a Outboxed, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut settings = vec![
        ("AUDITSTREAM_OUTBOX__URL", outbox.url.as_str()),
        ("AUDITSTREAM_OUTBOX__TABLE", outbox.table.as_str()),
        ("AUDITSTREAM_OUTBOX__LEASE_MS", LEASE_MS),
        ("AUDITSTREAM_OUTBOX__POLL_INTERVAL_MS", "50"),
    ];
    settings.extend_from_slice(more);
    settings
}

/// A command on this outbox.
fn cli(fixture: &Fixture, outbox: &Outboxed, args: &[&str]) -> CliOutput {
    let mut command = fixture.command(args);
    command.env("AUDITSTREAM_OUTBOX__URL", &outbox.url).env("AUDITSTREAM_OUTBOX__TABLE", &outbox.table);
    fixture.run(command, b"")
}

/// The next event of the test, as the `number`th of one of a few entities.
fn event_of(fixture: &Fixture, entity: &str, number: usize) -> AuditEvent {
    shaped(fixture.next_event(), entity, number)
}

fn shaped(mut event: AuditEvent, entity: &str, number: usize) -> AuditEvent {
    event.entity_type = "order".to_owned();
    event.entity_id = entity.to_owned();
    event.tenant_id = "acme".to_owned();
    event.details = format!("{{\"number\":{number}}}");
    event
}

/// Waits until nothing is pending or delayed.
#[track_caller]
fn wait_drained(outbox: &Outboxed, limit: Duration) {
    wait_until("the outbox to be drained", limit, || match outbox.count("status IN (0, 3)") {
        0 => Ok(()),
        rows => Err(format!("{rows} rows wait")),
    });
}

/// Fails unless the first copies of each entity's events are on the topic in the order in which they were recorded. Gives back how many copies there are beyond
/// the first ones.
#[track_caller]
fn assert_order(fixture: &Fixture, recorded: &HashMap<String, Vec<String>>) -> usize {
    let mut records = fixture.kafka().read(fixture.topic());
    records.sort_by_key(|record| (record.partition, record.offset));
    let (mut seen, mut found, mut copies) = (HashSet::new(), HashMap::<String, Vec<String>>::new(), 0);
    for record in records {
        let id = record.header("ce_id").to_owned();
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        if seen.insert(id.clone()) {
            found.entry(key).or_default().push(id);
        } else {
            copies += 1;
        }
    }
    for (key, ids) in recorded {
        let found = found.remove(key).unwrap_or_default();
        assert_eq!(found.len(), ids.len(), "events of {key} on the topic");
        let first = found.iter().zip(ids).position(|(found, recorded)| found != recorded);
        assert_eq!(first, None, "{key} is out of order from there on");
    }
    assert!(found.is_empty(), "entities that nobody committed: {:?}", found.keys());
    copies
}
