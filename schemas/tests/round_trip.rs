//! Whatever the model can hold comes back: through both decoders, with one hash, and as the bytes that apache-avro writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::writer::datum::GenericDatumWriter;
use auditstream_schemas::*;
use proptest::prelude::*;

mod common;
use common::{AT, body, cases, events, record, schemas, typical, value};

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
    #![proptest_config(cases(256))]

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
        prop_assert_eq!(decoder.straight_rows(), 2 * all.len());
        let done = decoder.finish().unwrap();
        prop_assert_eq!((done.len(), decoder.rows(), decoder.straight_rows(), decoder.bytes()), (1, 0, 0, 0));
        let rows = common::rows(&schemas, &done);
        prop_assert_eq!(rows.len(), 2 * all.len());
        for (number, row) in rows.into_iter().enumerate() {
            let event = &all[number / 2];
            prop_assert_eq!(row.offset, (number / 2) as i64);
            prop_assert_eq!(&row.event, event);
            prop_assert_eq!(row.hash, content_hash_of(event));
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
    let decoded = decoder.finish().unwrap().remove(0);
    assert_eq!(decoded.content_hashes.value(0), content_hash_of(&ours));
    assert_eq!(content_hash(&decoded.batch).unwrap().value(0), content_hash_of(&ours));
}
