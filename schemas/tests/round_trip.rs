//! Whatever the model can hold comes back: through both decoders, with one hash, and as the bytes that apache-avro writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use auditstream_schemas::*;
use proptest::prelude::*;

mod common;
use common::{AT, body, event_at, events, record, schemas, typical};

/// The event as apache-avro's generic value.
fn value(event: &AuditEvent) -> Value {
    let text = |s: &str| Value::String(s.to_owned());
    let optional = |s: &Option<String>| match s {
        None => Value::Union(0, Box::new(Value::Null)),
        Some(s) => Value::Union(1, Box::new(text(s))),
    };
    let symbol = |index: u32, s: &str| Value::Enum(index, s.to_owned());
    let fields =
        |fields: Vec<(&str, Value)>| Value::Record(fields.into_iter().map(|(n, v)| (n.to_owned(), v)).collect());
    let change =
        |c: &Change| fields(vec![("path", text(&c.path)), ("old", optional(&c.old)), ("new", optional(&c.new))]);
    let actor = &event.actor;
    fields(vec![
        ("event_id", Value::Uuid(event.event_id)),
        ("occurred_at", Value::TimestampMicros(event.occurred_at.as_micros())),
        ("tenant_id", text(&event.tenant_id)),
        ("service", text(&event.service)),
        ("environment", text(&event.environment)),
        ("action", text(&event.action)),
        ("operation", symbol(event.operation as u32, event.operation.as_str())),
        ("entity_type", text(&event.entity_type)),
        ("entity_id", text(&event.entity_id)),
        ("entity_name", optional(&event.entity_name)),
        (
            "actor",
            fields(vec![
                ("kind", symbol(actor.kind as u32, actor.kind.as_str())),
                ("id", optional(&actor.id)),
                ("name", optional(&actor.name)),
                ("email", optional(&actor.email)),
                ("session_id", optional(&actor.session_id)),
            ]),
        ),
        ("on_behalf_of", optional(&event.on_behalf_of)),
        ("outcome", symbol(event.outcome as u32, event.outcome.as_str())),
        ("error_message", optional(&event.error_message)),
        ("changes", Value::Array(event.changes.iter().map(change).collect())),
        ("ip", optional(&event.ip)),
        ("user_agent", optional(&event.user_agent)),
        ("request_id", optional(&event.request_id)),
        ("correlation_id", optional(&event.correlation_id)),
        ("trace_id", optional(&event.trace_id)),
        ("http_method", optional(&event.http_method)),
        ("http_path", optional(&event.http_path)),
        ("priority", symbol(event.priority as u32, event.priority.as_str())),
        ("details", text(&event.details)),
        (
            "producer",
            fields(vec![
                ("id", text(&event.producer.id)),
                ("epoch", Value::Long(event.producer.epoch)),
                ("seq", Value::Long(event.producer.seq)),
            ]),
        ),
    ])
}

/// JSON keeps everything but line breaks between tokens.
fn on_one_line(mut event: AuditEvent) -> AuditEvent {
    let flat = |s: &mut String| *s = s.replace(['\r', '\n'], " ");
    flat(&mut event.details);
    for change in &mut event.changes {
        change.old.iter_mut().chain(&mut change.new).for_each(flat);
    }
    event
}

/// JSON drops space around a value.
fn trimmed(mut event: AuditEvent) -> AuditEvent {
    for change in &mut event.changes {
        change.old.iter_mut().chain(&mut change.new).for_each(|s| *s = s.trim().to_owned());
    }
    event
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_are_those_of_apache_avro(event in events()) {
        let schema = Schema::parse_str(AUDIT_EVENT_V1).unwrap();
        let theirs = GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value(&event)).unwrap();
        prop_assert_eq!(body(&event), theirs);
        prop_assert_eq!(encoded_len(&event), body(&event).len());
    }

    #[test]
    fn both_decoders_and_both_hashes_agree(all in proptest::collection::vec(events(), 1..6), id in any::<u32>()) {
        let mut schemas = schemas();
        schemas.add(WriterId::Confluent(id), AUDIT_EVENT_V1).unwrap();
        let schemas = Arc::new(schemas);
        let mut decoder = BatchDecoder::new(schemas.clone());
        let mut bytes = 0;
        for (i, event) in all.iter().enumerate() {
            prop_assert!(event.validate().is_ok(), "{}", event.validate().unwrap_err());
            for framing in [Framing::SingleObject, Framing::Confluent { schema_id: id }] {
                let mut record = b"kept".to_vec();
                encode(event, framing, &mut record);
                let record = &record[4..];
                prop_assert_eq!(&decode(&schemas, record).unwrap(), event);
                decoder.push(record, Position { offset: i as i64, ..AT }).unwrap();
                bytes += record.len();
            }
        }
        prop_assert_eq!((decoder.rows(), decoder.bytes()), (2 * all.len(), bytes));
        let done = decoder.finish().unwrap();
        prop_assert_eq!((done.len(), decoder.rows(), decoder.bytes()), (2, 0, 0));
        for Decoded { batch, positions } in done {
            prop_assert_eq!(&batch.schema(), schemas.arrow_schema());
            prop_assert_eq!(positions.len(), all.len());
            let hashes = content_hash(&batch).unwrap();
            for (row, event) in all.iter().enumerate() {
                prop_assert_eq!(&event_at(&batch, row), event);
                prop_assert_eq!(positions[row].offset, row as i64);
                let hash = content_hash_of(event);
                prop_assert_eq!(hashes.value(row), &hash[..]);
            }
        }
    }

    #[test]
    fn json_keeps_everything(event in events()) {
        let line = event.to_json();
        prop_assert!(!line.contains(['\n', '\r']));
        let back = AuditEvent::from_json(line.as_bytes()).unwrap();
        prop_assert_eq!(back, trimmed(on_one_line(event)));
    }
}

#[test]
fn every_field_counts_for_the_hash_but_the_producer_stamp() {
    let base = typical();
    let mut seen = vec![content_hash_of(&base)];
    let mut differs = |change: &dyn Fn(&mut AuditEvent)| {
        let mut event = base.clone();
        change(&mut event);
        let hash = content_hash_of(&event);
        assert!(!seen.contains(&hash));
        seen.push(hash);
    };
    let x = || Some("x".to_owned());
    differs(&|e| e.event_id = uuid::Uuid::nil());
    differs(&|e| e.occurred_at = Timestamp::from_micros(1));
    differs(&|e| e.tenant_id.push('x'));
    differs(&|e| e.service.push('x'));
    differs(&|e| e.environment.push('x'));
    differs(&|e| e.action.push('x'));
    differs(&|e| e.operation = Operation::Other);
    differs(&|e| e.entity_type.push('x'));
    differs(&|e| e.entity_id.push('x'));
    differs(&|e| e.entity_name = x());
    differs(&|e| e.actor.kind = ActorKind::System);
    differs(&|e| e.actor.id = x());
    differs(&|e| e.actor.name = x());
    differs(&|e| e.actor.email = x());
    differs(&|e| e.actor.session_id = x());
    differs(&|e| e.on_behalf_of = x());
    differs(&|e| e.outcome = Outcome::Denied);
    differs(&|e| e.error_message = x());
    differs(&|e| e.changes.clear());
    differs(&|e| e.changes.swap(0, 1));
    differs(&|e| e.changes[0].path.push('x'));
    differs(&|e| e.changes[0].old = None);
    differs(&|e| e.changes[0].new = None);
    differs(&|e| e.ip = x());
    differs(&|e| e.user_agent = x());
    differs(&|e| e.request_id = x());
    differs(&|e| e.correlation_id = x());
    differs(&|e| e.trace_id = x());
    differs(&|e| e.http_method = x());
    differs(&|e| e.http_path = x());
    differs(&|e| e.priority = Priority::Critical);
    differs(&|e| e.details = "{ }".into());
    let mut resent = base.clone();
    resent.producer = ProducerStamp { id: "another".into(), epoch: 9, seq: 9 };
    assert_eq!(content_hash_of(&resent), seen[0]);
}

/// A change of these values would make every stored event a stranger to its own retry.
#[test]
fn hashes_are_for_ever() {
    let hex = |event: &AuditEvent| content_hash_of(event).map(|b| format!("{b:02x}")).concat();
    assert_eq!(hex(&common::minimal()), "MINIMAL");
    assert_eq!(hex(&typical()), "TYPICAL");
}

#[test]
fn an_empty_optional_text_equals_none() {
    let mut foreign = typical();
    foreign.ip = Some(String::new());
    foreign.actor.email = Some(String::new());
    foreign.changes[0].old = Some(String::new());
    let mut ours = typical();
    ours.ip = None;
    ours.changes[0].old = None;
    assert_eq!(decode(&schemas(), &record(&foreign)).unwrap(), ours);
    assert_eq!(content_hash_of(&foreign), content_hash_of(&ours));
    let mut decoder = BatchDecoder::new(Arc::new(schemas()));
    decoder.push(&record(&foreign), AT).unwrap();
    let batch = decoder.finish().unwrap().remove(0).batch;
    assert_eq!(content_hash(&batch).unwrap().value(0), content_hash_of(&ours));
}
