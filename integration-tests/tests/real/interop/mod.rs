//! Clients that share no code with ours, on a real registry: what they write lands, what we write they read, value by value.
//!
//! The events that both sides speak about travel between the test and the other program as plain JSON, one object a line, in the shape of the Avro
//! record: `changes[].old` and `details` are the texts themselves, `occurred_at` is in microseconds, an absent text is null.

mod java;
mod python;

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::time::Duration;

use auditstream_integration_tests::{COLUMNS, Fixture, Record, Table, Worker, block_on, expected_row};
use auditstream_producer::Config as ProducerConfig;
use auditstream_schemas::registry::{Registry, RegistryConfig};
use auditstream_schemas::{
    AUDIT_EVENT_V1, AuditEvent, Change, Framing, Position, ProducerStamp, Schemas, WriterId, decode,
};
use serde_json::{Value as Json, json};

const PATIENCE: Duration = Duration::from_secs(90);
/// Events that each side sends.
const EACH: usize = 240;

/// How producers of the fixture's topic frame, by what the registry says.
pub(super) fn framing(registry: &Registry, fixture: &Fixture) -> Framing {
    block_on(auditstream_producer::registry::framing(registry, fixture.topic())).expect("the subject has the schema")
}

/// The events of the fixture's topic, read by our own decoder of single records; `known` are ids and their schemas.
pub(super) fn decoded(fixture: &Fixture, known: &[(u32, &str)]) -> Vec<AuditEvent> {
    let mut schemas = Schemas::builtin().unwrap();
    for (id, schema) in known {
        schemas.add(WriterId::Confluent(*id), schema).unwrap();
    }
    let records = fixture.kafka().read(fixture.topic());
    records.iter().map(|record| decode(&schemas, record.value.as_ref().unwrap()).unwrap()).collect()
}

/// Every column of every row is what the events say, and there is a row for each of them and for nothing else.
pub(super) fn assert_rows(fixture: &Fixture, events: &[AuditEvent]) {
    let mut expected = HashMap::new();
    for Record { partition, offset, timestamp_ms, key, .. } in fixture.kafka().read(fixture.topic()) {
        expected.insert((partition, offset), (timestamp_ms, key.expect("a key")));
    }
    let events: HashMap<_, _> = events.iter().map(|event| (event.event_id, event)).collect();
    let sql = "SELECT * FROM events FINAL FORMAT RowBinaryWithNamesAndTypes";
    let table = Table::read(&fixture.admin().try_bytes(sql).unwrap());
    let [id, partition, offset] = ["event_id", "_partition", "_offset"].map(|name| table.column(name));
    assert_eq!((table.rows.len(), expected.len()), (events.len(), events.len()), "rows, records and events");
    for row in &table.rows {
        let event = events[&row[id].uuid()];
        let (partition, offset) = (i32::try_from(row[partition].int()).unwrap(), row[offset].int());
        let (timestamp_ms, key) = expected.remove(&(partition, offset)).expect("one row a record");
        assert_eq!(String::from_utf8(key).unwrap(), event.key(), "the key of event {}", event.event_id);
        let expected = expected_row(event, fixture.topic(), Position { partition, offset, timestamp_ms });
        for (place, (name, _)) in COLUMNS.iter().enumerate() {
            assert_eq!(row[place], expected[place], "column {name} of event {}", event.event_id);
        }
    }
}

/// Events with the values at which implementations differ, on keys that `sharing` events have in common with those of another call.
fn events(fixture: &Fixture) -> Vec<AuditEvent> {
    let edge = |index: usize| {
        let mut event = fixture.next_event();
        // Both sides write events of the same entities.
        let entity = index % 40;
        event.tenant_id = ["tenant-1", "a/b", "50%", "ténant 🦀"][entity % 4].to_owned();
        event.entity_type = "invoice".to_owned();
        event.entity_id = format!("inv-{entity}{}", "/%2F".repeat(entity % 3));
        match index % 12 {
            1 => event.occurred_at = "1900-01-01T00:00:00.000001Z".parse().unwrap(),
            2 => event.occurred_at = "2299-12-31T23:59:59.999999Z".parse().unwrap(),
            3 => event.occurred_at = "1969-12-31T23:59:59.999999Z".parse().unwrap(),
            4 => event.entity_name = Some("quote ' \" back\\slash tab\t line\r\n nul\0 🦀 \u{202e}العربية".to_owned()),
            5 => event.details = format!("{{\"text\": \"{}\", \"n\":1.50}}", "é\\u0000<script>\\n".repeat(500)),
            6 => {
                let change = |n: usize| Change {
                    path: format!("/items/{n}/price"),
                    old: (!n.is_multiple_of(3)).then(|| "null".to_owned()),
                    new: n.is_multiple_of(2).then(|| n.to_string()),
                };
                event.changes = (0..200).map(change).collect();
            }
            7 => event.producer = ProducerStamp { id: "other".to_owned(), epoch: i64::MAX, seq: i64::MIN + 1 },
            8 => event.on_behalf_of = Some(" user-7\u{a0} ".to_owned()),
            _ => {}
        }
        event.validate().unwrap();
        event
    };
    (0..EACH).map(edge).collect()
}

/// The event as both sides write it down.
fn plain(event: &AuditEvent) -> Json {
    let changes: Vec<Json> =
        event.changes.iter().map(|Change { path, old, new }| json!({ "path": path, "old": old, "new": new })).collect();
    json!({
        "event_id": event.event_id.to_string(),
        "occurred_at": event.occurred_at.as_micros(),
        "tenant_id": event.tenant_id,
        "service": event.service,
        "environment": event.environment,
        "action": event.action,
        "operation": event.operation.as_str(),
        "entity_type": event.entity_type,
        "entity_id": event.entity_id,
        "entity_name": event.entity_name,
        "actor": {
            "kind": event.actor.kind.as_str(),
            "id": event.actor.id,
            "name": event.actor.name,
            "email": event.actor.email,
            "session_id": event.actor.session_id,
        },
        "on_behalf_of": event.on_behalf_of,
        "outcome": event.outcome.as_str(),
        "error_message": event.error_message,
        "changes": changes,
        "ip": event.ip,
        "user_agent": event.user_agent,
        "request_id": event.request_id,
        "correlation_id": event.correlation_id,
        "trace_id": event.trace_id,
        "http_method": event.http_method,
        "http_path": event.http_path,
        "priority": event.priority.as_str(),
        "details": event.details,
        "producer": { "id": event.producer.id, "epoch": event.producer.epoch, "seq": event.producer.seq },
    })
}

/// Runs another program to its end with events on its stdin, and returns the lines that it printed.
fn run(fixture: &Fixture, command: Command, events: &[AuditEvent]) -> Vec<Json> {
    let input: String = events.iter().map(|event| format!("{}\n", plain(event))).collect();
    let ran = fixture.run(command, input.as_bytes()).success();
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A program of somebody else.
trait Other {
    /// Its command that sends what it reads from stdin, and prints `{partition, offset}` of each in order.
    fn produce(&self, fixture: &Fixture, single_object: bool) -> Command;
    /// Its command that prints `{partition, offset, key, event}` of each record of the topic.
    fn consume(&self, fixture: &Fixture) -> Command;
    /// Whether it can write and read single-object encoding.
    const SINGLE_OBJECT: bool;
}

/// The whole exchange.
fn exchange<O: Other>(fixture: &Fixture, other: &O) {
    let url = fixture.registry_url();
    let schema = std::fs::read_to_string(schema_file()).unwrap();
    assert_eq!(schema, AUDIT_EVENT_V1, "both sides have the same file");

    // One schema under two subjects: from here on Apicurio's own number of a version is not the id that Confluent's API gives to its schema.
    let config = RegistryConfig { urls: vec![url.to_owned()], may_register: true, ..RegistryConfig::default() };
    let registry = Registry::new(&config).unwrap();
    let one_id = ["-one", "-two"]
        .map(|end| block_on(registry.register(&format!("{}{end}", fixture.topic()), "\"string\"", &[])).unwrap());
    assert_eq!(one_id[0], one_id[1], "one schema has one id");

    // They write, one registering the schema, the other without a registry.
    let theirs = events(fixture);
    let mut sent: Vec<(AuditEvent, Json)> = Vec::new();
    let halves: [(&[AuditEvent], bool); 2] = if O::SINGLE_OBJECT {
        [(&theirs[..EACH / 2], false), (&theirs[EACH / 2..], true)]
    } else {
        [(&theirs, false), (&[], false)]
    };
    for (events, single_object) in halves.into_iter().filter(|(events, _)| !events.is_empty()) {
        let at = run(fixture, other.produce(fixture, single_object), events);
        assert_eq!(at.len(), events.len(), "acknowledgements");
        sent.extend(events.iter().cloned().zip(at));
    }
    let records: HashMap<_, _> =
        fixture.kafka().read(fixture.topic()).into_iter().map(|r| ((r.partition, r.offset), r)).collect();

    // Our producer may not register: it finds what they have registered.
    let config = RegistryConfig { urls: vec![url.to_owned()], ..RegistryConfig::default() };
    let framing = framing(&Registry::new(&config).unwrap(), fixture);
    let Framing::Confluent { schema_id } = framing else { panic!("{framing:?} is no registry's") };
    let mut partition_of = BTreeMap::new();
    for (index, (event, at)) in sent.iter().enumerate() {
        let (partition, offset) = (at["partition"].as_i64().unwrap() as i32, at["offset"].as_i64().unwrap());
        let record = &records[&(partition, offset)];
        let frame: &[u8] = if O::SINGLE_OBJECT && index >= EACH / 2 {
            &[0xc3, 0x01]
        } else {
            &[&[0], &schema_id.to_be_bytes()[..]].concat()
        };
        assert!(record.value.as_ref().unwrap().starts_with(frame), "the frame of event {index}");
        assert_eq!(record.key.as_deref(), Some(event.key().as_bytes()), "their key is ours");
        partition_of.insert(event.key(), partition);
    }
    assert!(partition_of.values().collect::<std::collections::BTreeSet<_>>().len() > 3, "keys are spread");

    // We write of the same entities.
    let ours = events(fixture);
    let framings = if O::SINGLE_OBJECT { [framing, Framing::SingleObject] } else { [framing, framing] };
    for (framing, events) in framings.into_iter().zip([&ours[..EACH / 2], &ours[EACH / 2..]]) {
        let recorder = fixture.recorder(ProducerConfig { framing, ..fixture.producer_config("ours") });
        events.iter().for_each(|event| recorder.record(event.clone()));
        recorder.finish();
    }
    theirs.iter().for_each(|event| fixture.acknowledged().add(event.event_id));
    let all = decoded(fixture, &[(schema_id, AUDIT_EVENT_V1)]);
    let by_id: HashMap<_, _> = all.iter().map(|event| (event.event_id, event)).collect();
    for event in &theirs {
        assert_eq!(by_id[&event.event_id], event, "what they sent is what our decoder of single records reads");
    }
    for event in &ours {
        // The producer stamps what it sends.
        let stamped = AuditEvent { producer: by_id[&event.event_id].producer.clone(), ..event.clone() };
        assert_eq!(by_id[&event.event_id], &stamped);
    }
    for record in fixture.kafka().read(fixture.topic()) {
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        assert_eq!(partition_of[&key], record.partition, "the partition of {key} is the same for both");
    }

    // Everything lands, and they read everything.
    let worker: Worker = fixture.worker_with(&[("AUDITSTREAM_SCHEMA__REGISTRY_URL", url)]);
    fixture.wait_landed(PATIENCE);
    fixture.verdict().assert_clean(2 * EACH as u64, 0);
    assert_rows(fixture, &all);
    assert!(worker.metric("auditstream_consumer_schema_lookups_total").unwrap() >= 1.0, "the id was learned");
    let read = run(fixture, other.consume(fixture), &[]);
    assert_eq!(read.len(), 2 * EACH, "records that they read");
    for line in read {
        let id = line["event"]["event_id"].as_str().unwrap().parse().unwrap();
        let event: &AuditEvent = by_id[&id];
        assert_eq!(line["key"].as_str(), Some(&*event.key()));
        let (Json::Object(found), Json::Object(expected)) = (&line["event"], plain(event)) else { panic!("{line}") };
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (field, expected) in &expected {
            assert_eq!(&found[field], expected, "field {field} of event {id} as they read it");
        }
    }
}

/// The event's schema, which the other programs read too.
fn schema_file() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/avro/audit_event.v1.avsc")
}

/// What `cargo xtask test` tells its tests.
pub(crate) fn told(name: &str, what: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`, which installs {what} and sets it"))
}
