//! The content hash: 16 bytes that say whether two records are the same event.
//!
//! SHA-256 over a canonical frame of the event's fields, cut to 16 bytes. It does not depend on the encoding, the writer
//! schema, or on fields added later: a field at its default is left out, and an added field has a new tag.
//!
//! Frame, version 1: for each field below, in this order, unless it equals its default: the tag (one byte, for ever the
//! same), the length of the value as an unsigned LEB128 varint, the value.
//!
//! | tags | fields | value | left out when |
//! |---|---|---|---|
//! | 1 | event_id | the UUID's 16 bytes | never |
//! | 2 | occurred_at | microseconds, 8 bytes, little-endian | never |
//! | 3 4 6 8 9 | tenant_id, service, action, entity_type, entity_id | UTF-8 | never |
//! | 5 | environment | UTF-8 | `default` |
//! | 7 | operation | the symbol | `OTHER` |
//! | 11 17 | actor.kind, outcome | the symbol | never |
//! | 10 12-16 18 20-26 | optional texts | UTF-8 | null or empty |
//! | 19 | changes | the number of changes (instead of the length), then path, old and new of each, every one with its length | none |
//! | 27 | priority | the symbol | `STANDARD` |
//! | 28 | details | the text as it is | `{}` |
//!
//! Optional texts: 10 entity_name, 12 actor.id, 13 actor.name, 14 actor.email, 15 actor.session_id, 16 on_behalf_of,
//! 18 error_message, 20 ip, 21 user_agent, 22 request_id, 23 correlation_id, 24 trace_id, 25 http_method, 26 http_path.
//!
//! `producer` is not content: the same event that goes out again after a crash, or through the outbox, may carry another
//! sequence number, and must stay one row. Nor is anything that Kafka adds.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, FixedSizeBinaryArray, ListArray, PrimitiveArray, RecordBatch, StringArray,
    StructArray,
};
use arrow_buffer::Buffer;
use sha2::{Digest, Sha256};

use crate::event::AuditEvent;

/// Bytes of a content hash.
pub const HASH_BYTES: usize = 16;

/// A batch is not of the shape that [`crate::Schemas::arrow_schema`] says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column} is missing or not of the reader schema's type")]
pub struct ShapeFault {
    /// The column's path.
    pub column: &'static str,
}

/// The content hash of each row: 16 bytes each, no nulls.
///
/// # Errors
/// The batch has another shape than the reader schema.
pub fn content_hash(batch: &RecordBatch) -> Result<FixedSizeBinaryArray, ShapeFault> {
    let columns = Columns::of(batch)?;
    let mut frame = Frame::default();
    let mut hashes = Vec::with_capacity(batch.num_rows() * HASH_BYTES);
    for row in 0..batch.num_rows() {
        columns.write(row, &mut frame);
        hashes.extend_from_slice(&frame.digest());
    }
    Ok(FixedSizeBinaryArray::new(HASH_BYTES as i32, Buffer::from_vec(hashes), None))
}

/// The content hash of one event.
pub fn content_hash_of(event: &AuditEvent) -> [u8; HASH_BYTES] {
    let mut frame = Frame::default();
    let actor = &event.actor;
    frame.start(event.event_id.as_bytes(), event.occurred_at.as_micros());
    frame.text(3, &event.tenant_id);
    frame.text(4, &event.service);
    frame.unless(5, &event.environment, "default");
    frame.text(6, &event.action);
    frame.unless(7, event.operation.as_str(), "OTHER");
    frame.text(8, &event.entity_type);
    frame.text(9, &event.entity_id);
    frame.optional(10, event.entity_name.as_deref());
    frame.text(11, actor.kind.as_str());
    frame.optional(12, actor.id.as_deref());
    frame.optional(13, actor.name.as_deref());
    frame.optional(14, actor.email.as_deref());
    frame.optional(15, actor.session_id.as_deref());
    frame.optional(16, event.on_behalf_of.as_deref());
    frame.text(17, event.outcome.as_str());
    frame.optional(18, event.error_message.as_deref());
    frame.count(19, event.changes.len());
    for change in &event.changes {
        frame.bytes(change.path.as_bytes());
        frame.bytes(change.old.as_deref().unwrap_or_default().as_bytes());
        frame.bytes(change.new.as_deref().unwrap_or_default().as_bytes());
    }
    frame.optional(20, event.ip.as_deref());
    frame.optional(21, event.user_agent.as_deref());
    frame.optional(22, event.request_id.as_deref());
    frame.optional(23, event.correlation_id.as_deref());
    frame.optional(24, event.trace_id.as_deref());
    frame.optional(25, event.http_method.as_deref());
    frame.optional(26, event.http_path.as_deref());
    frame.unless(27, event.priority.as_str(), "STANDARD");
    frame.unless(28, &event.details, "{}");
    frame.digest()
}

/// The canonical frame of one event; its memory is used again for the next.
#[derive(Default)]
struct Frame(Vec<u8>);

impl Frame {
    fn start(&mut self, id: &[u8], micros: i64) {
        self.0.clear();
        self.0.push(1);
        self.bytes(id);
        self.0.push(2);
        self.bytes(&micros.to_le_bytes());
    }

    #[inline]
    fn text(&mut self, tag: u8, value: &str) {
        self.0.push(tag);
        self.bytes(value.as_bytes());
    }

    #[inline]
    fn unless(&mut self, tag: u8, value: &str, default: &str) {
        if value != default {
            self.text(tag, value);
        }
    }

    #[inline]
    fn optional(&mut self, tag: u8, value: Option<&str>) {
        if let Some(value) = value
            && !value.is_empty()
        {
            self.text(tag, value);
        }
    }

    fn count(&mut self, tag: u8, items: usize) {
        if items > 0 {
            self.0.push(tag);
            self.varint(items);
        }
    }

    #[inline]
    fn bytes(&mut self, value: &[u8]) {
        self.varint(value.len());
        self.0.extend_from_slice(value);
    }

    #[inline]
    fn varint(&mut self, mut n: usize) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn digest(&self) -> [u8; HASH_BYTES] {
        let full: [u8; 32] = Sha256::digest(&self.0).into();
        let mut short = [0; HASH_BYTES];
        short.copy_from_slice(&full[..HASH_BYTES]);
        short
    }
}

/// How a column enters the frame.
enum Column<'a> {
    Text(&'a StringArray),
    Unless(&'a StringArray, &'static str),
    Optional(&'a StringArray),
    Symbol(&'a DictionaryArray<Int32Type>, &'a StringArray, &'static str),
    Changes { list: &'a ListArray, path: &'a StringArray, old: &'a StringArray, new: &'a StringArray },
}

/// The batch's columns, cast once.
struct Columns<'a> {
    event_id: &'a FixedSizeBinaryArray,
    occurred_at: &'a PrimitiveArray<TimestampMicrosecondType>,
    /// Tags 3 and up, in frame order.
    rest: Vec<(u8, Column<'a>)>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, ShapeFault> {
        let column = |name: &'static str| batch.column_by_name(name).ok_or(ShapeFault { column: name });
        let text = |name| as_text(column(name)?, name);
        let symbol = |name, default| as_symbol(column(name)?, name, default);
        let actor: &StructArray = column("actor")?.as_struct_opt().ok_or(ShapeFault { column: "actor" })?;
        let of_actor = |name: &'static str| actor.column_by_name(name).ok_or(ShapeFault { column: name });
        let actor_text = |name| Ok(Column::Optional(as_text(of_actor(name)?, name)?));
        let event_id = column("event_id")?.as_fixed_size_binary_opt().ok_or(ShapeFault { column: "event_id" })?;
        let occurred_at = column("occurred_at")?.as_primitive_opt().ok_or(ShapeFault { column: "occurred_at" })?;
        let rest = vec![
            (3, Column::Text(text("tenant_id")?)),
            (4, Column::Text(text("service")?)),
            (5, Column::Unless(text("environment")?, "default")),
            (6, Column::Text(text("action")?)),
            (7, symbol("operation", "OTHER")?),
            (8, Column::Text(text("entity_type")?)),
            (9, Column::Text(text("entity_id")?)),
            (10, Column::Optional(text("entity_name")?)),
            (11, as_symbol(of_actor("kind")?, "kind", "")?),
            (12, actor_text("id")?),
            (13, actor_text("name")?),
            (14, actor_text("email")?),
            (15, actor_text("session_id")?),
            (16, Column::Optional(text("on_behalf_of")?)),
            (17, symbol("outcome", "")?),
            (18, Column::Optional(text("error_message")?)),
            (19, as_changes(column("changes")?)?),
            (20, Column::Optional(text("ip")?)),
            (21, Column::Optional(text("user_agent")?)),
            (22, Column::Optional(text("request_id")?)),
            (23, Column::Optional(text("correlation_id")?)),
            (24, Column::Optional(text("trace_id")?)),
            (25, Column::Optional(text("http_method")?)),
            (26, Column::Optional(text("http_path")?)),
            (27, symbol("priority", "STANDARD")?),
            (28, Column::Unless(text("details")?, "{}")),
        ];
        Ok(Self { event_id, occurred_at, rest })
    }

    fn write(&self, row: usize, frame: &mut Frame) {
        frame.start(self.event_id.value(row), self.occurred_at.value(row));
        for (tag, column) in &self.rest {
            match column {
                Column::Text(values) => frame.text(*tag, values.value(row)),
                Column::Unless(values, default) => frame.unless(*tag, values.value(row), default),
                Column::Optional(values) => frame.optional(*tag, non_null(values, row)),
                Column::Symbol(keys, symbols, default) => {
                    let key = usize::try_from(keys.keys().value(row)).unwrap_or_default();
                    frame.unless(*tag, symbols.value(key), default);
                }
                Column::Changes { list, path, old, new } => {
                    let offsets = list.value_offsets();
                    let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
                    frame.count(*tag, to - from);
                    for item in from..to {
                        frame.bytes(path.value(item).as_bytes());
                        frame.bytes(non_null(old, item).unwrap_or_default().as_bytes());
                        frame.bytes(non_null(new, item).unwrap_or_default().as_bytes());
                    }
                }
            }
        }
    }
}

#[inline]
fn non_null(values: &StringArray, row: usize) -> Option<&str> {
    values.is_valid(row).then(|| values.value(row))
}

fn as_text<'a>(column: &'a ArrayRef, name: &'static str) -> Result<&'a StringArray, ShapeFault> {
    column.as_string_opt().ok_or(ShapeFault { column: name })
}

fn as_symbol<'a>(column: &'a ArrayRef, name: &'static str, default: &'static str) -> Result<Column<'a>, ShapeFault> {
    let fault = ShapeFault { column: name };
    let keys: &DictionaryArray<Int32Type> = column.as_dictionary_opt().ok_or_else(|| fault.clone())?;
    Ok(Column::Symbol(keys, keys.values().as_string_opt().ok_or(fault)?, default))
}

fn as_changes(column: &ArrayRef) -> Result<Column<'_>, ShapeFault> {
    let list: &ListArray = column.as_list_opt().ok_or(ShapeFault { column: "changes" })?;
    let items = list.values().as_struct_opt().ok_or(ShapeFault { column: "changes" })?;
    let part = |name: &'static str| as_text(items.column_by_name(name).ok_or(ShapeFault { column: name })?, name);
    Ok(Column::Changes { list, path: part("path")?, old: part("old")?, new: part("new")? })
}
