//! What the row of an event must be, column by column: written down here a second time, so that the store is compared with the design and not with itself.

use auditstream_schemas::{AuditEvent, Change, Position, content_hash_of};

use crate::row_binary::Value;

/// All columns of the `events` table, in order.
pub const COLUMNS: [(&str, &str); 39] = [
    ("tenant_id", "LowCardinality(String)"),
    ("entity_type", "LowCardinality(String)"),
    ("entity_id", "String"),
    ("occurred_at", "DateTime64(6, 'UTC')"),
    ("event_id", "UUID"),
    ("content_hash", "FixedString(16)"),
    ("service", "LowCardinality(String)"),
    ("environment", "LowCardinality(String)"),
    ("action", "LowCardinality(String)"),
    ("operation", "LowCardinality(String)"),
    ("entity_name", "String"),
    ("actor_kind", "LowCardinality(String)"),
    ("actor_id", "String"),
    ("actor_name", "String"),
    ("actor_email", "String"),
    ("actor_session_id", "String"),
    ("on_behalf_of", "String"),
    ("outcome", "LowCardinality(String)"),
    ("error_message", "String"),
    ("changes.path", "Array(String)"),
    ("changes.old", "Array(String)"),
    ("changes.new", "Array(String)"),
    ("ip", "String"),
    ("user_agent", "String"),
    ("request_id", "String"),
    ("correlation_id", "String"),
    ("trace_id", "String"),
    ("http_method", "LowCardinality(String)"),
    ("http_path", "String"),
    ("priority", "LowCardinality(String)"),
    ("details", "String"),
    ("producer_id", "LowCardinality(String)"),
    ("producer_epoch", "Int64"),
    ("producer_seq", "Int64"),
    ("received_at", "DateTime64(3, 'UTC')"),
    ("version", "UInt64"),
    ("_topic", "LowCardinality(String)"),
    ("_partition", "Int32"),
    ("_offset", "Int64"),
];

/// The row of `event`, read from `at` in `topic`: values in the order of [`COLUMNS`].
#[must_use]
pub fn expected_row(event: &AuditEvent, topic: &str, at: Position) -> Vec<Value> {
    let text = Value::text;
    let optional = |value: &Option<String>| Value::text(value.as_deref().unwrap_or_default());
    let changes = |part: fn(&Change) -> &str| {
        Value::List(event.changes.iter().map(|change| part(change).as_bytes().to_vec()).collect())
    };
    let received_ms = u64::try_from(at.timestamp_ms).expect("records are younger than 1970");
    vec![
        text(&event.tenant_id),
        text(&event.entity_type),
        text(&event.entity_id),
        Value::Int(event.occurred_at.as_micros()),
        Value::Uuid(event.event_id),
        Value::Fixed(content_hash_of(event)),
        text(&event.service),
        text(&event.environment),
        text(&event.action),
        text(event.operation.as_str()),
        optional(&event.entity_name),
        text(event.actor.kind.as_str()),
        optional(&event.actor.id),
        optional(&event.actor.name),
        optional(&event.actor.email),
        optional(&event.actor.session_id),
        optional(&event.on_behalf_of),
        text(event.outcome.as_str()),
        optional(&event.error_message),
        changes(|change| &change.path),
        changes(|change| change.old.as_deref().unwrap_or_default()),
        changes(|change| change.new.as_deref().unwrap_or_default()),
        optional(&event.ip),
        optional(&event.user_agent),
        optional(&event.request_id),
        optional(&event.correlation_id),
        optional(&event.trace_id),
        optional(&event.http_method),
        optional(&event.http_path),
        text(event.priority.as_str()),
        text(&event.details),
        text(&event.producer.id),
        Value::Int(event.producer.epoch),
        Value::Int(event.producer.seq),
        Value::Int(at.timestamp_ms),
        Value::UInt(u64::MAX - received_ms),
        text(topic),
        Value::Int(at.partition.into()),
        Value::Int(at.offset),
    ]
}
