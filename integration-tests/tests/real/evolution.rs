//! Schemas that change while everything runs, and everything that the model can hold.

use std::collections::HashMap;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use auditstream_integration_tests::{
    COLUMNS, FaultReport, Fixture, Options, RegistryAnswer, Rigged, ScriptedRegistry, Table, Value, expected_row,
};
use auditstream_schemas::{AUDIT_EVENT_V1, AuditEvent, Framing, Position, Timestamp, encode};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value as Json, json};

#[path = "../../../schemas/tests/common/mod.rs"]
mod common;

const PATIENCE: Duration = Duration::from_secs(90);
/// The ids of the later writer schemas.
const ADDED: u32 = 61;
const CHANGED: u32 = 62;

/// Two writer schemas besides v1: with a field added; and with a field removed, a symbol added, a type that is promoted, and a field renamed.
fn writers() -> [Json; 2] {
    let v1 = || serde_json::from_str::<Json>(AUDIT_EVENT_V1).unwrap();
    let (mut added, mut changed) = (v1(), v1());
    let region = json!({ "name": "region", "type": "string", "default": "" });
    added["fields"].as_array_mut().unwrap().push(region);
    let fields = changed["fields"].as_array_mut().unwrap();
    fields.retain(|field| field["name"] != "details");
    for field in fields {
        match field["name"].as_str().unwrap() {
            "operation" => field["type"]["symbols"].as_array_mut().unwrap().push(json!("MERGE")),
            "entity_name" => field["name"] = json!("entity_label"),
            "producer" => {
                let epoch = &mut field["type"]["fields"].as_array_mut().unwrap()[1];
                assert_eq!(epoch["name"], "epoch");
                epoch["type"] = json!("int");
            }
            _ => {}
        }
    }
    [added, changed]
}

/// The event as one of these would write it, framed with its id. What v1 has not got is given.
fn written(event: &AuditEvent, id: u32, schema: &Schema, more: &[(&str, Avro)]) -> Vec<u8> {
    let Schema::Record(shape) = schema else { panic!("a record") };
    let Avro::Record(mut fields) = common::value(event) else { panic!("a record") };
    for (name, value) in more {
        fields.retain(|(other, _)| other != name);
        fields.push(((*name).to_owned(), value.clone()));
    }
    let fields = shape.fields.iter().map(|f| fields.iter().find(|(name, _)| *name == f.name).unwrap().clone());
    let value = Avro::Record(fields.collect());
    let body = GenericDatumWriter::builder(schema).build().unwrap().write_value_to_vec(value).unwrap();
    [&[0][..], &id.to_be_bytes(), &body].concat()
}

/// What a row has in the columns that the schemas do not agree about: entity_name, operation, details, producer_epoch, region.
type Told = (String, String, String, i64, String);

/// What either reader makes of a record: the one of today, and the next version's.
struct Expected {
    today: Told,
    next: Told,
}

#[test]
fn writers_of_three_schemas_and_workers_of_two_readers_share_a_topic() {
    const EACH: usize = 400;
    let mut report = FaultReport::new("three writer schemas, two reader schemas, no restart");
    let fixture = Fixture::new(Options::light("evolution"));
    // What the next version's migration would do; today's workers take no notice.
    fixture.admin().run(&format!("ALTER TABLE {}.events ADD COLUMN region String", fixture.database()));
    let registry = ScriptedRegistry::answering(RegistryAnswer::Missing);
    let [added, changed] = writers();
    registry.answer(ADDED, RegistryAnswer::Schema(added.to_string()));
    registry.answer(CHANGED, RegistryAnswer::Schema(changed.to_string()));
    let [added, changed] = [added, changed].map(|schema| Schema::parse(&schema).unwrap());
    let url = registry.url();
    let settings = [("AUDITSTREAM_SCHEMA__REGISTRY_URL", &*url)];
    let next = [settings[0], ("AUDITSTREAM_FAULTS_READER", "next")];
    let mut workers =
        [fixture.worker_with(&settings), fixture.rigged_worker(&Rigged { settings: &next, ..Rigged::default() })];
    workers.iter().for_each(|worker| worker.wait_ready());
    report.run();

    let sender = fixture.kafka().raw_sender(fixture.topic());
    let mut expected = Vec::new();
    let mut send = |value: &[u8], event: &AuditEvent, today: Told, next: Told| {
        sender.send(Some(event.key().as_bytes()), Some(value), &[]);
        fixture.acknowledged().add(event.event_id);
        expected.push(Expected { today, next });
    };
    for number in 0..EACH {
        let told = |event: &AuditEvent, region: &str| {
            let name = event.entity_name.clone().unwrap_or_default();
            let operation = event.operation.as_str().to_owned();
            (name, operation, event.details.clone(), event.producer.epoch, region.to_owned())
        };
        let event = || {
            let mut event = fixture.next_event();
            event.entity_name = Some(format!("name {number}"));
            event.producer.epoch = number as i64;
            event
        };
        let v1 = event();
        let mut value = Vec::new();
        encode(&v1, Framing::SingleObject, &mut value);
        send(&value, &v1, told(&v1, ""), told(&v1, ""));

        let v2 = event();
        let region = ["eu-west", ""][usize::from(number % 10 == 0)];
        let value = written(&v2, ADDED, &added, &[("region", Avro::String(region.to_owned()))]);
        send(&value, &v2, told(&v2, ""), told(&v2, region));

        // In the middle of it a third writer begins.
        if number < EACH / 3 {
            continue;
        }
        let v3 = event();
        let Avro::Record(fields) = common::value(&v3) else { panic!("a record") };
        let field = |name: &str| fields.iter().find(|(other, _)| other == name).unwrap().1.clone();
        let Avro::Record(mut stamp) = field("producer") else { panic!("a record") };
        stamp[1].1 = Avro::Int(number as i32);
        let mut more = vec![("entity_label", field("entity_name")), ("producer", Avro::Record(stamp))];
        let is_merge = number % 2 == 0;
        if is_merge {
            more.push(("operation", Avro::Enum(5, "MERGE".to_owned())));
        }
        let value = written(&v3, CHANGED, &changed, &more);
        let mut next = told(&v3, "");
        next.2 = "{}".to_owned();
        if is_merge {
            next.1 = "OTHER".to_owned();
        }
        // Only the next version knows that the label is the name.
        let mut today = next.clone();
        today.0.clear();
        send(&value, &v3, today, next);
    }
    let positions = sender.positions();
    fixture.wait_landed(PATIENCE);
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(expected.len() as u64, 0);
    assert!(workers.iter_mut().all(|worker| worker.runs()), "no worker was started again");
    assert_eq!(registry.asked(ADDED) + registry.asked(CHANGED), 2 * workers.len(), "each worker asks once for each");

    let read_by = readers(&fixture);
    let rows = told_rows(&fixture);
    let mut seen = [0, 0];
    for (at, expected) in positions.iter().zip(&expected) {
        let worker = read_by(*at);
        let is_next = worker == workers[1].name();
        assert!(is_next || worker == workers[0].name(), "read by {worker}");
        let wanted = if is_next { &expected.next } else { &expected.today };
        assert_eq!(rows.get(at), Some(wanted), "the row of {at:?}, read by {worker}");
        seen[usize::from(is_next)] += 1;
    }
    assert!(seen.iter().all(|seen| *seen > EACH / 10), "both readers had a share: {seen:?}");
    report.passed();
}

/// Which worker stored the record at a partition and offset, as the ledger has it.
fn readers(fixture: &Fixture) -> impl Fn((i32, i64)) -> String {
    let sql = "SELECT partition, first_offset, last_offset, worker FROM ledger FORMAT RowBinaryWithNamesAndTypes";
    let spans = Table::read(&fixture.admin().try_bytes(sql).unwrap()).rows;
    move |(partition, offset)| {
        let holds =
            |row: &&Vec<Value>| row[0].int() == i64::from(partition) && (row[1].int()..=row[2].int()).contains(&offset);
        let span = spans.iter().find(holds).unwrap_or_else(|| panic!("no span holds {partition}/{offset}"));
        text(&span[3])
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("{other:?} is no text"),
    }
}

fn told_rows(fixture: &Fixture) -> HashMap<(i32, i64), Told> {
    let sql = "SELECT _partition, _offset, entity_name, operation, details, producer_epoch, region FROM events FINAL FORMAT RowBinaryWithNamesAndTypes";
    let rows = Table::read(&fixture.admin().try_bytes(sql).unwrap()).rows;
    let told = |row: &Vec<Value>| (text(&row[2]), text(&row[3]), text(&row[4]), row[5].int(), text(&row[6]));
    rows.iter().map(|row| ((row[0].int() as i32, row[1].int()), told(row))).collect()
}

/// Any events, the same in every run: with all edges of each field, and of all times in some months.
fn any_events(count: usize) -> Vec<AuditEvent> {
    const DAY: i64 = 86_400_000_000;
    let mut runner = TestRunner::deterministic();
    let events = common::events();
    let mut any = |number: usize| {
        let mut event = events.new_tree(&mut runner).unwrap().current();
        let micros = event.occurred_at.as_micros();
        let is_edge =
            [Timestamp::MIN_STORABLE, Timestamp::from_micros(0), Timestamp::MAX_STORABLE].contains(&event.occurred_at);
        if !is_edge {
            // Each month is a part of its own in the table: thirty of them do.
            let month = Timestamp::MIN_STORABLE.as_micros() + (number % 30) as i64 * 4_750 * DAY;
            event.occurred_at = Timestamp::from_micros(month + micros.rem_euclid(DAY));
        }
        event.validate().unwrap();
        event
    };
    (0..count).map(&mut any).collect()
}

#[test]
fn whatever_the_model_can_hold_comes_back_from_clickhouse() {
    const EVENTS: usize = 4_000;
    let fixture = Fixture::new(Options::light("everything"));
    let _worker = fixture.worker();
    let events = any_events(EVENTS);
    let sender = fixture.kafka().raw_sender(fixture.topic());
    for event in &events {
        let mut value = Vec::new();
        encode(event, Framing::SingleObject, &mut value);
        sender.send(Some(event.key().as_bytes()), Some(&value), &[]);
        fixture.acknowledged().add(event.event_id);
    }
    let positions = sender.positions();
    fixture.wait_landed(PATIENCE);
    fixture.verdict().assert_clean(EVENTS as u64, 0);

    let times: HashMap<(i32, i64), i64> = fixture
        .kafka()
        .read(fixture.topic())
        .into_iter()
        .map(|record| ((record.partition, record.offset), record.timestamp_ms))
        .collect();
    let sql = "SELECT * FROM events FINAL FORMAT RowBinaryWithNamesAndTypes";
    let table = Table::read(&fixture.admin().try_bytes(sql).unwrap());
    let place = (table.column("_partition"), table.column("_offset"));
    let rows: HashMap<(i32, i64), &Vec<Value>> =
        table.rows.iter().map(|row| ((row[place.0].int() as i32, row[place.1].int()), row)).collect();
    assert_eq!(rows.len(), EVENTS);
    for (event, at) in events.iter().zip(positions) {
        let position = Position { partition: at.0, offset: at.1, timestamp_ms: times[&at] };
        let expected = expected_row(event, fixture.topic(), position);
        for ((name, _), (stored, sent)) in COLUMNS.iter().zip(rows[&at].iter().zip(&expected)) {
            assert_eq!(stored, sent, "column {name} of event {}", event.event_id);
        }
    }
}
