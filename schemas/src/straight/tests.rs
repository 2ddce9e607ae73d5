//! The straight way and the long way make the same rows.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::sync::LazyLock;

use arrow_array::cast::AsArray;
use arrow_array::{Array as _, StringArray};
use proptest::prelude::*;

use super::*;
use crate::batch::new_decoder;
use crate::columns::conform;
use crate::event::{Actor, AuditEvent};
use crate::{AUDIT_EVENT_V1, Framing, Schemas, V1_FINGERPRINT, WriterId, content_hash, encode};

/// The current schema has nothing behind its last field.
static NOTHING: LazyLock<Guard> = LazyLock::new(|| Guard { root: Box::default(), named: Vec::new() });

fn body(number: usize, text: &str) -> Vec<u8> {
    let mut event = AuditEvent::builder("tenant", "service", "order.update", "order", format!("o-{number}"))
        .actor(Actor { name: Some(format!("name {text}")), ..Actor::user(number.to_string()) })
        .http_path(format!("/orders/{number}"));
    for change in 0..number % 4 {
        event = event.change(format!("/items/{change}/{text}"), None, Some(&change.to_string()));
    }
    let mut record = Vec::new();
    encode(&event.build().unwrap(), Framing::SingleObject, &mut record);
    record.split_off(10)
}

/// With absent texts as empty ones.
fn filled(array: &ArrayRef) -> ArrayRef {
    if let Some(texts) = array.as_string_opt::<i32>() {
        return Arc::new(StringArray::from_iter_values(texts.iter().map(Option::unwrap_or_default)));
    }
    if let Some(record) = array.as_struct_opt() {
        let columns = record.columns().iter().map(filled).collect();
        return Arc::new(StructArray::new(record.fields().clone(), columns, None));
    }
    let Some(list) = array.as_list_opt::<i32>() else { return Arc::clone(array) };
    let DataType::List(item) = list.data_type() else { unreachable!("a list is one") };
    Arc::new(ListArray::new(Arc::clone(item), list.offsets().clone(), filled(list.values()), None))
}

/// Rows and hashes of a lane; the hashes are those of the rows.
fn taken(lane: &mut StraightLane, schemas: &Schemas) -> RecordBatch {
    let Taken { batch, content_hashes } = lane.take(schemas.arrow_schema()).unwrap();
    assert_eq!(content_hashes, content_hash(&batch).unwrap());
    batch
}

/// What the long way makes of the same bodies.
fn long_way(schemas: &Schemas, bodies: &[Vec<u8>]) -> RecordBatch {
    let mut decoder = new_decoder(AUDIT_EVENT_V1, AUDIT_EVENT_V1).unwrap();
    for body in bodies {
        assert_eq!(decoder.decode(body).unwrap(), body.len());
    }
    let batch = conform(&decoder.flush().unwrap().unwrap(), schemas.arrow_schema()).unwrap();
    let columns = batch.columns().iter().map(filled).collect();
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A body that is accepted passes the guard too, and becomes the row that arrow-avro makes of it; one that is not accepted leaves no trace.
    #[test]
    fn accepts_nothing_that_the_long_way_refuses(
        text in "[a-zü€]{0,12}",
        spoiled in prop::collection::vec((0usize..10, any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 0..8),
    ) {
        let schemas = Schemas::builtin().unwrap();
        let guard = &schemas.get(WriterId::Rabin(V1_FINGERPRINT)).unwrap().guard;
        let mut bodies: Vec<Vec<u8>> = (0..10).map(|number| body(number, &text)).collect();
        for (which, at, byte, how) in spoiled {
            let body = &mut bodies[which];
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => body[at] ^= 1 << (byte % 8),
                2 => body.truncate(at.max(1)),
                _ => body.insert(at, byte),
            }
        }
        let mut lane = StraightLane::new();
        let accepted: Vec<Vec<u8>> = bodies.iter().filter(|body| lane.push(body, &NOTHING).is_some()).cloned().collect();
        for body in &bodies {
            let is_good = guard.check(body).is_ok();
            prop_assert!(is_good || !accepted.contains(body), "the guard refuses what went straight");
        }
        prop_assume!(!accepted.is_empty());
        prop_assert_eq!(taken(&mut lane, &schemas), long_way(&schemas, &accepted));
    }
}

#[test]
fn every_event_of_our_own_goes_straight() {
    let schemas = Schemas::builtin().unwrap();
    let bodies: Vec<_> = (0..200).map(|number| body(number, "ü")).collect();
    let mut lane = StraightLane::new();
    for _ in 0..2 {
        assert!(bodies.iter().all(|body| lane.push(body, &NOTHING).is_some()));
        assert_eq!(taken(&mut lane, &schemas), long_way(&schemas, &bodies));
    }
}
