//! Records of other writer schemas: both decoders resolve them to the reader schema alike, and what can never be read
//! is refused when its schema is added, or by the guard, record by record.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, LazyLock};

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use auditstream_schemas::*;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

mod common;
use common::spoil::{slip, spoil};
use common::{AT, at, cases, event_at, record, typical, value};

const ID: u32 = 7;

/// Schema v1 as JSON, changed.
fn writer(change: impl FnOnce(&mut Vec<Json>)) -> String {
    let mut schema: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
    change(schema["fields"].as_array_mut().unwrap());
    schema.to_string()
}

fn field<'a>(fields: &'a mut [Json], name: &str) -> &'a mut Json {
    fields.iter_mut().find(|f| f["name"] == name).unwrap()
}

fn without(fields: &mut Vec<Json>, names: &[&str]) {
    fields.retain(|f| !names.contains(&f["name"].as_str().unwrap()));
}

fn with(schema: &str) -> Result<Arc<Schemas>, SchemaError> {
    let mut schemas = common::schemas();
    schemas.add(WriterId::Confluent(ID), schema)?;
    Ok(Arc::new(schemas))
}

/// The event as the writer's value: fields it does not have are left out, others are added or replaced.
fn body(schema: &str, event: &AuditEvent, other: Vec<(&str, Value)>) -> Vec<u8> {
    let schema = Schema::parse_str(schema).unwrap();
    let Schema::Record(shape) = &schema else { panic!("a record") };
    let Value::Record(mut fields) = value(event) else { panic!("a record") };
    for (name, value) in other {
        fields.retain(|(n, _)| n != name);
        fields.push((name.to_owned(), value));
    }
    let fields = shape.fields.iter().map(|f| fields.iter().find(|(n, _)| *n == f.name).unwrap().clone()).collect();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(Value::Record(fields)).unwrap()
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&[0][..], &ID.to_be_bytes(), body].concat()
}

/// Both decoders read the record as the event, among records of the builtin writer.
fn reads_as(schema: &str, other: Vec<(&str, Value)>, expected: &AuditEvent) {
    let schemas = with(schema).unwrap();
    let record = framed(&body(schema, &typical(), other));
    assert_eq!(&decode(&schemas, &record).unwrap(), expected);
    for mut decoder in [BatchDecoder::new(schemas.clone()), BatchDecoder::reference(schemas.clone())] {
        for offset in 0..3 {
            decoder.push(&record, at(2 * offset)).unwrap();
            decoder.push(&common::record(&typical()), at(2 * offset + 1)).unwrap();
        }
        let rows = common::rows(&schemas, &decoder.finish().unwrap());
        assert_eq!(rows.len(), 6);
        for (number, row) in (0..).zip(rows) {
            let expected = if number % 2 == 0 { expected } else { &typical() };
            assert_eq!((row.offset, &row.event), (number, expected));
            assert_eq!(row.hash, content_hash_of(expected));
        }
    }
}

/// Both decoders refuse the record alike, and its neighbours land.
fn refused(schema: &str, record: &[u8], code: PoisonCode) -> String {
    let schemas = with(schema).unwrap();
    let mut decoder = BatchDecoder::new(schemas.clone());
    decoder.push(&common::record(&typical()), AT).unwrap();
    let poison = decoder.push(record, AT).unwrap_err();
    assert_eq!((poison.code, &decode(&schemas, record).unwrap_err()), (code, &poison));
    let done = decoder.finish().unwrap();
    assert_eq!(event_at(&done[0].batch, 0), typical());
    poison.message
}

fn text(s: &str) -> Value {
    Value::String(s.to_owned())
}

/// A writer schema, and the values with which it writes the typical event.
type Writer = (String, Vec<(&'static str, Value)>);

/// Fields added anywhere, of every type; fields with a default left out.
fn other_fields() -> Writer {
    let schema = writer(|fields| {
        without(
            fields,
            &["environment", "operation", "entity_name", "changes", "ip", "priority", "details", "producer"],
        );
        fields.insert(2, json!({"name": "region", "type": "string"}));
        fields.push(json!({"name": "scores", "type": {"type": "array", "items": ["null", "double"]}}));
        fields.push(json!({"name": "labels", "type": {"type": "map", "values": "bytes"}}));
        fields.push(json!({"name": "place", "type": {"type": "record", "name": "Place", "fields": [
            {"name": "on", "type": "boolean"}, {"name": "lat", "type": "float"}, {"name": "raw", "type": {"type": "fixed", "name": "F4", "size": 4}}]}}));
    });
    let labels = Value::Map([("a".to_owned(), Value::Bytes(vec![0xff, 0]))].into());
    let place = Value::Record(vec![
        ("on".into(), Value::Boolean(true)),
        ("lat".into(), Value::Float(1.5)),
        ("raw".into(), Value::Fixed(4, vec![0xff; 4])),
    ]);
    let scores =
        Value::Array(vec![Value::Union(0, Box::new(Value::Null)), Value::Union(1, Box::new(Value::Double(2.5)))]);
    (schema, vec![("region", text("eu")), ("scores", scores), ("labels", labels), ("place", place)])
}

#[test]
fn fields_more_and_less() {
    let (schema, values) = other_fields();
    let expected = AuditEvent {
        environment: "default".into(),
        operation: Operation::Other,
        entity_name: None,
        changes: Vec::new(),
        ip: None,
        priority: Priority::Standard,
        details: "{}".into(),
        producer: ProducerStamp::default(),
        ..typical()
    };
    reads_as(&schema, values, &expected);
}

/// Types that are promoted, logical types left out, unions the other way round.
fn other_types() -> Writer {
    let schema = writer(|fields| {
        let stamp = field(fields, "producer")["type"]["fields"].as_array_mut().unwrap();
        field(stamp, "epoch")["type"] = json!("int");
        field(stamp, "epoch")["default"] = json!(0);
        field(fields, "details")["type"] = json!("bytes");
        field(fields, "ip")["type"] = json!("string");
        field(fields, "ip")["default"] = json!("");
        field(fields, "request_id")["type"] = json!(["string", "null"]);
        field(fields, "request_id")["default"] = json!("");
        field(fields, "occurred_at")["type"] = json!("long");
        field(fields, "event_id")["type"] = json!("string");
    });
    let stamp = typical().producer;
    let producer = Value::Record(vec![
        ("id".into(), text(&stamp.id)),
        ("epoch".into(), Value::Int(stamp.epoch as i32)),
        ("seq".into(), Value::Long(stamp.seq)),
    ]);
    let bytes = Value::Bytes(typical().details.into_bytes());
    let values = vec![
        ("producer", producer),
        ("details", bytes),
        ("ip", text("203.0.113.42")),
        ("request_id", Value::Union(0, Box::new(text("req-7f3a9c1e")))),
        ("occurred_at", Value::Long(typical().occurred_at.as_micros())),
        ("event_id", text(&typical().event_id.to_string())),
    ];
    (schema, values)
}

#[test]
fn promotions() {
    let (schema, values) = other_types();
    reads_as(&schema, values.clone(), &typical());
    let changed = |name, value: Value| {
        let mut values = values.clone();
        values.retain(|(n, _)| *n != name);
        values.push((name, value));
        framed(&body(&schema, &typical(), values))
    };
    refused(&schema, &changed("details", Value::Bytes(vec![0xff])), PoisonCode::InvalidUtf8);
    refused(&schema, &changed("event_id", text("no uuid")), PoisonCode::InvalidUuid);
}

/// Symbols the reader does not know.
fn other_symbols() -> Writer {
    let schema = writer(|fields| {
        for name in ["operation", "outcome"] {
            field(fields, name)["type"]["symbols"].as_array_mut().unwrap().insert(0, json!("NEWER"));
        }
    });
    (schema, vec![("operation", symbol(3, "UPDATE")), ("outcome", symbol(1, "SUCCESS"))])
}

fn symbol(index: u32, symbol: &str) -> Value {
    Value::Enum(index, symbol.to_owned())
}

#[test]
fn enum_symbols() {
    let (schema, values) = other_symbols();
    reads_as(&schema, values, &typical());
    let newer = AuditEvent { operation: Operation::Other, ..typical() };
    reads_as(&schema, vec![("operation", symbol(0, "NEWER")), ("outcome", symbol(1, "SUCCESS"))], &newer);
    let bad = body(&schema, &typical(), vec![("operation", symbol(3, "UPDATE")), ("outcome", symbol(0, "NEWER"))]);
    let message = refused(&schema, &framed(&bad), PoisonCode::BadEnumSymbol);
    assert!(message.starts_with("outcome: "), "{message}");
}

/// Nulls where the reader has a plain string.
fn nulls() -> Writer {
    let schema = writer(|fields| {
        for name in ["tenant_id", "details"] {
            field(fields, name)["type"] = json!(["null", "string"]);
            field(fields, name)["default"] = Json::Null;
        }
    });
    (schema, vec![("tenant_id", some(&typical().tenant_id)), ("details", some(&typical().details))])
}

fn some(s: &str) -> Value {
    Value::Union(1, Box::new(text(s)))
}

#[test]
fn unions_where_the_reader_has_none() {
    let (schema, values) = nulls();
    reads_as(&schema, values, &typical());
    let null = || Value::Union(0, Box::new(Value::Null));
    let (tenant, details) = (some(&typical().tenant_id), some(&typical().details));
    let bad = |tenant, details| framed(&body(&schema, &typical(), vec![("tenant_id", tenant), ("details", details)]));
    refused(&schema, &bad(null(), details.clone()), PoisonCode::MissingField);
    refused(&schema, &bad(some(""), details), PoisonCode::MissingField);
    refused(&schema, &bad(tenant, null()), PoisonCode::BadUnionBranch);
}

/// All fields the other way round, those of the actor too.
fn other_order() -> Writer {
    let schema = writer(|fields| {
        fields.reverse();
        field(fields, "actor")["type"]["fields"].as_array_mut().unwrap().reverse();
    });
    let Value::Record(fields) = value(&typical()) else { panic!("a record") };
    let (_, Value::Record(mut actor)) = fields.into_iter().find(|(name, _)| name == "actor").unwrap() else {
        panic!("a record")
    };
    actor.reverse();
    (schema, vec![("actor", Value::Record(actor))])
}

/// Changes with a field more, one less, and the others the other way round.
fn other_changes() -> Writer {
    let schema = writer(|fields| {
        let change = field(fields, "changes")["type"]["items"]["fields"].as_array_mut().unwrap();
        without(change, &["old"]);
        change.reverse();
        change.insert(1, json!({"name": "why", "type": {"type": "array", "items": "null"}}));
    });
    let change = |change: &Change| {
        let new = match &change.new {
            Some(new) => some(new),
            None => Value::Union(0, Box::new(Value::Null)),
        };
        let why = Value::Array(vec![Value::Null; 2]);
        Value::Record(vec![("new".into(), new), ("why".into(), why), ("path".into(), text(&change.path))])
    };
    (schema, vec![("changes", Value::Array(typical().changes.iter().map(change).collect()))])
}

/// A field in front of all others, which stand as they did.
fn in_front() -> Writer {
    let schema = writer(|fields| fields.insert(0, json!({"name": "region", "type": ["null", "string", "long"]})));
    (schema, vec![("region", Value::Union(2, Box::new(Value::Long(-1))))])
}

#[test]
fn orders_and_changes() {
    let (schema, values) = other_order();
    reads_as(&schema, values, &typical());
    let (schema, values) = in_front();
    reads_as(&schema, values, &typical());
    let (schema, values) = other_changes();
    let changes = typical().changes.into_iter().map(|change| Change { old: None, ..change }).collect();
    reads_as(&schema, values, &AuditEvent { changes, ..typical() });
}

/// An extra field that contains itself: arrow-avro may or may not take such a schema; the guard bounds its depth.
#[test]
fn a_schema_that_contains_itself() {
    let schema = writer(|fields| {
        fields.push(json!({"name": "list", "type": {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}}));
    });
    match with(&schema) {
        Err(e) => assert!(matches!(e, SchemaError::Incompatible { .. }), "{e}"),
        Ok(schemas) => {
            let tail = |depth: usize| framed(&[record(&typical()).split_off(10), vec![2; depth], vec![0]].concat());
            assert_eq!(decode(&schemas, &tail(5)).unwrap(), typical());
            refused(&schema, &tail(100_000), PoisonCode::TooDeep);
        }
    }
}

/// Items without bytes: the length of the record does not bound them.
#[test]
fn nothing_a_billion_times() {
    let schema = writer(|fields| fields.push(json!({"name": "nothing", "type": {"type": "array", "items": "null"}})));
    let plain = record(&typical()).split_off(10);
    let many = [plain.clone(), vec![0x80, 0x80, 0x80, 0x80, 0x20], vec![0]].concat();
    refused(&schema, &framed(&many), PoisonCode::LengthOutOfRange);
    let often = [plain, [0x80, 0x80, 0x02].repeat(100_000), vec![0]].concat();
    refused(&schema, &framed(&often), PoisonCode::LengthOutOfRange);
    reads_as(&schema, vec![("nothing", Value::Array(vec![Value::Null; 3]))], &typical());
}

#[test]
fn schemas_that_can_never_be_read_are_refused_with_the_path() {
    let reason = |schema: &str| match with(schema) {
        Err(SchemaError::Incompatible { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    for (name, kind) in [
        ("occurred_at", json!({"type": "long", "logicalType": "timestamp-millis"})),
        ("tenant_id", json!("int")),
        ("actor", json!("string")),
        ("changes", json!({"type": "array", "items": "string"})),
        ("details", json!({"type": "map", "values": "string"})),
    ] {
        let reason = reason(&writer(|fields| {
            field(fields, name)["type"] = kind;
            field(fields, name).as_object_mut().unwrap().remove("default");
        }));
        assert!(reason.contains(name), "{name}: {reason}");
    }
    for name in ["event_id", "tenant_id", "outcome", "actor"] {
        let reason = reason(&writer(|fields| without(fields, &[name])));
        assert!(reason.contains(name), "{name}: {reason}");
    }
    assert!(matches!(with("{\"type\": \"nonsense\"}"), Err(SchemaError::Parse(_))));
    assert!(matches!(with("not json"), Err(SchemaError::Parse(_))));
    assert!(reason("\"string\"").contains("record"));
}

/// arrow-avro alone would follow a writer's aliases; the specification gives them no meaning there.
#[test]
fn aliases_of_the_writer_mean_nothing() {
    let schema = writer(|fields| {
        without(fields, &["error_message"]);
        fields.push(json!({"name": "note", "type": "bytes", "aliases": ["error_message"]}));
    });
    reads_as(&schema, vec![("note", Value::Bytes(vec![0xff]))], &typical());
}

proptest! {
    #![proptest_config(cases(2048))]

    /// Under resolution too: what the guard passes both decoders read alike, and nobody's neighbour is harmed.
    #[test]
    fn guard_and_decoders_agree(which in 0..7_usize, slips in prop::collection::vec(slip(), 1..3)) {
        static WRITERS: LazyLock<Vec<(Arc<Schemas>, Vec<u8>)>> = LazyLock::new(|| {
            let writers = [other_fields(), other_types(), other_symbols(), nulls(), other_order(), other_changes(), in_front()];
            let make = |(schema, values): Writer| (with(&schema).unwrap(), body(&schema, &typical(), values));
            writers.into_iter().map(make).collect()
        });
        let (schemas, good) = &WRITERS[which];
        let mut spoiled = good.clone();
        slips.iter().for_each(|slip| spoil(&mut spoiled, slip));
        let (good, spoiled) = (framed(good), framed(&spoiled));
        let good_event = decode(schemas, &good).unwrap();
        let one = decode(schemas, &spoiled);
        let mut decoder = BatchDecoder::new(schemas.clone());
        let mut reference = BatchDecoder::reference(schemas.clone());
        let pushes = [&good, &spoiled, &good].into_iter().zip(0..);
        let [_, taken, _] = pushes.clone().map(|(record, offset)| decoder.push(record, at(offset))).collect::<Vec<_>>().try_into().unwrap();
        let [_, theirs, _] = pushes.map(|(record, offset)| reference.push(record, at(offset))).collect::<Vec<_>>().try_into().unwrap();
        prop_assert!(decoder.straight_rows() >= 2, "the good ones go straight");
        prop_assert_eq!(&taken, &theirs);
        prop_assert_eq!(taken.as_ref().err(), one.as_ref().err());
        prop_assert!(taken.is_ok_and(|()| true) || one.as_ref().is_err_and(|p| p.code != PoisonCode::Unresolvable), "{:?}", one);
        let rows = common::rows(schemas, &decoder.finish().unwrap());
        prop_assert_eq!(&rows, &common::rows(schemas, &reference.finish().unwrap()));
        let rows: Vec<_> = rows.into_iter().map(|row| row.event).collect();
        let expected: Vec<_> = std::iter::once(good_event.clone()).chain(one.ok()).chain([good_event]).collect();
        prop_assert_eq!(rows, expected);
    }
}
