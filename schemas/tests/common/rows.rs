//! An event as apache-avro's value, and a row of a batch as an event. The fuzz targets use it too.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

use std::str::FromStr;

use apache_avro::types::Value;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType, UInt16Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use auditstream_schemas::*;
use uuid::Uuid;

/// The event as apache-avro's generic value.
pub fn value(event: &AuditEvent) -> Value {
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

fn string(column: &ArrayRef, row: usize) -> String {
    match column.as_dictionary_opt::<UInt16Type>() {
        Some(words) => words.values().as_string::<i32>().value(words.key(row).unwrap()).to_owned(),
        None => column.as_string::<i32>().value(row).to_owned(),
    }
}

fn some(column: &ArrayRef, row: usize) -> Option<String> {
    column.is_valid(row).then(|| string(column, row)).filter(|s| !s.is_empty())
}

fn parsed<T: FromStr<Err = UnknownSymbol>>(column: &ArrayRef, row: usize) -> T {
    let keys = column.as_dictionary::<Int32Type>();
    keys.values().as_string::<i32>().value(keys.keys().value(row) as usize).parse().unwrap()
}

/// One row of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub offset: i64,
    pub event: AuditEvent,
    pub hash: Vec<u8>,
    /// The texts that a later reader schema has behind v1's fields; absent is empty.
    pub later: Vec<String>,
}

/// Columns of v1.
const V1_COLUMNS: usize = 25;

/// All rows in the order of their offsets. Each hash is that of its row, with dictionaries and without, and each batch is of the reader schema.
pub fn rows(schemas: &Schemas, done: &[Decoded]) -> Vec<Row> {
    let mut rows = Vec::new();
    for Decoded { batch, positions, content_hashes } in done {
        let plain = without_words(batch, schemas.arrow_schema()).unwrap();
        assert_eq!(batch.num_rows(), positions.len());
        for batch in [batch, &plain] {
            assert_eq!(&content_hash(batch).unwrap(), content_hashes);
        }
        rows.extend(positions.iter().enumerate().map(|(row, at)| Row {
            offset: at.offset,
            event: event_at(batch, row),
            hash: content_hashes.value(row).to_vec(),
            later: batch.columns()[V1_COLUMNS..].iter().map(|c| some(c, row).unwrap_or_default()).collect(),
        }));
    }
    rows.sort_by_key(|row| row.offset);
    rows
}

/// A row of a decoded batch as an event.
pub fn event_at(batch: &RecordBatch, row: usize) -> AuditEvent {
    let c = |name: &str| batch.column_by_name(name).unwrap();
    let long = |column: &ArrayRef| column.as_primitive::<Int64Type>().value(row);
    let sub = |parent: &str, name: &str| c(parent).as_struct().column_by_name(name).unwrap().clone();
    let list = c("changes").as_list::<i32>().value(row);
    let items: &StructArray = list.as_struct();
    let item = |name: &str| items.column_by_name(name).unwrap();
    AuditEvent {
        event_id: Uuid::from_slice(c("event_id").as_fixed_size_binary().value(row)).unwrap(),
        occurred_at: Timestamp::from_micros(c("occurred_at").as_primitive::<TimestampMicrosecondType>().value(row)),
        tenant_id: string(c("tenant_id"), row),
        service: string(c("service"), row),
        environment: string(c("environment"), row),
        action: string(c("action"), row),
        operation: parsed(c("operation"), row),
        entity_type: string(c("entity_type"), row),
        entity_id: string(c("entity_id"), row),
        entity_name: some(c("entity_name"), row),
        actor: Actor {
            kind: parsed(&sub("actor", "kind"), row),
            id: some(&sub("actor", "id"), row),
            name: some(&sub("actor", "name"), row),
            email: some(&sub("actor", "email"), row),
            session_id: some(&sub("actor", "session_id"), row),
        },
        on_behalf_of: some(c("on_behalf_of"), row),
        outcome: parsed(c("outcome"), row),
        error_message: some(c("error_message"), row),
        changes: (0..items.len())
            .map(|i| Change { path: string(item("path"), i), old: some(item("old"), i), new: some(item("new"), i) })
            .collect(),
        ip: some(c("ip"), row),
        user_agent: some(c("user_agent"), row),
        request_id: some(c("request_id"), row),
        correlation_id: some(c("correlation_id"), row),
        trace_id: some(c("trace_id"), row),
        http_method: some(c("http_method"), row),
        http_path: some(c("http_path"), row),
        priority: parsed(c("priority"), row),
        details: string(c("details"), row),
        producer: ProducerStamp {
            id: string(&sub("producer", "id"), row),
            epoch: long(&sub("producer", "epoch")),
            seq: long(&sub("producer", "seq")),
        },
    }
}
