//! The straight way and the long way make the same rows.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::sync::{Arc, LazyLock};

use apache_avro::Schema;
use arrow_array::cast::AsArray;
use arrow_array::{Array as _, StringArray};
use arrow_array::{ArrayRef, ListArray, StructArray};
use arrow_schema::DataType;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::steps::{Piece, Step};
use super::*;
use crate::batch::new_decoder;
use crate::columns::{conform, without_words};
use crate::event::{Actor, AuditEvent};
use crate::{AUDIT_EVENT_V1, Framing, Schemas, V1_FINGERPRINT, WriterId, content_hash, encode};

static BUILTIN: LazyLock<Schemas> = LazyLock::new(|| Schemas::builtin().unwrap());
static PLAN: LazyLock<Plan> = LazyLock::new(|| plan(AUDIT_EVENT_V1, AUDIT_EVENT_V1).unwrap());

fn plan(writer: &str, reader: &str) -> Option<Plan> {
    Plan::compile(&Schema::parse_str(writer).unwrap(), &Schema::parse_str(reader).unwrap())
}

/// The plan for v1, changed, read as v1.
fn plan_of(change: impl FnOnce(&mut Vec<Json>)) -> Option<Plan> {
    let mut json: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
    change(json["fields"].as_array_mut().unwrap());
    plan(&json.to_string(), AUDIT_EVENT_V1)
}

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

/// Rows of a lane, without dictionaries; the hashes are those of the rows.
fn taken(lane: &mut StraightLane, schemas: &Schemas) -> RecordBatch {
    let Taken { batch, content_hashes } = lane.take(schemas.arrow_schema()).unwrap();
    assert_eq!(content_hashes, content_hash(&batch).unwrap());
    without_words(&batch, schemas.arrow_schema()).unwrap()
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
        let mut lane = StraightLane::new(BUILTIN.arrow_schema());
        let accepted: Vec<Vec<u8>> = bodies.iter().filter(|body| lane.push(body, &PLAN).is_some()).cloned().collect();
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
    let mut lane = StraightLane::new(BUILTIN.arrow_schema());
    for _ in 0..2 {
        assert!(bodies.iter().all(|body| lane.push(body, &PLAN).is_some()));
        assert_eq!(taken(&mut lane, &schemas), long_way(&schemas, &bodies));
    }
}

/// The steps, and how many pieces the canonical body has.
fn shape(plan: &Plan) -> (Vec<&'static str>, usize) {
    let name = |step: &Step| match step {
        Step::Content => "content",
        Step::Skip { .. } => "skip",
        _ => "one",
    };
    (plan.steps.iter().map(name).collect(), plan.pieces.len())
}

#[test]
fn what_stands_as_in_v1_is_read_and_hashed_in_one_piece() {
    let region = || json!({"name": "region", "type": "string"});
    let producer = ["one"; 3];
    let plan = plan_of(|_| ()).unwrap();
    assert_eq!(shape(&plan), ([&["content"][..], &producer].concat(), 1));
    let plan = plan_of(|fields| fields.push(region())).unwrap();
    assert_eq!(shape(&plan), ([&["content"][..], &producer, &["skip"]].concat(), 1));
    let plan = plan_of(|fields| fields.insert(0, region())).unwrap();
    assert_eq!(shape(&plan), ([&["skip", "content"][..], &producer].concat(), 1));
    let plan = plan_of(|fields| fields.insert(8, region())).unwrap();
    assert!(matches!(&*plan.pieces, [Piece::Body { from: 0, to: 8 }, Piece::Body { from: 9, .. }]));
    let plan = plan_of(|fields| drop(fields.remove(4))).unwrap();
    assert!(matches!(&*plan.pieces, [Piece::Body { .. }, Piece::Fixed(_), Piece::Body { .. }]));
}

#[test]
fn what_is_rare_or_has_two_meanings_goes_the_long_way() {
    let alias = |names: &[&str]| {
        let mut json: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
        json["fields"][9]["aliases"] = json!(names);
        json.to_string()
    };
    assert!(plan(AUDIT_EVENT_V1, &alias(&["label"])).is_some());
    let mut two: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
    two["fields"].as_array_mut().unwrap().push(json!({"name": "label", "type": ["null", "string"]}));
    assert!(plan(&two.to_string(), &alias(&["label"])).is_none(), "two fields for one");
    let typed = |name: &str, kind: Json| {
        plan_of(|fields| {
            let field = fields.iter_mut().find(|field| field["name"] == name).unwrap().as_object_mut().unwrap();
            field.insert("type".to_owned(), kind);
            field.remove("default");
        })
    };
    assert!(typed("ip", json!(["string", "null"])).is_some());
    assert!(typed("ip", json!(["null", "string", "bytes"])).is_none());
    assert!(typed("service", json!(["null", "string"])).is_some());
    assert!(typed("service", json!(["string"])).is_none());
    assert!(typed("details", json!({"type": "string", "logicalType": "uuid"})).is_none());
    assert!(typed("occurred_at", json!({"type": "long", "logicalType": "timestamp-millis"})).is_none());
}
