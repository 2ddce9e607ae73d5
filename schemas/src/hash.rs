//! The content hash: 16 bytes that say whether two records are the same event.
//!
//! SHA-256 over the canonical body of the event, cut to 16 bytes. It does not depend on the encoding, the writer schema, or on fields added later.
//!
//! Canonical body, version 1: what an Avro writer writes for `audit_event.v1.avsc` without its last field, `producer`, where
//! - every length, number and index is its shortest varint, and the changes are one block (or none) that does not tell its size;
//! - an optional text that is empty is null; the UUID is in small letters.
//!
//! So a record of the current schema carries its canonical body as it is, and nothing is copied to be hashed. A field that a later schema adds is
//! appended behind, unless it is at its default: its number (from 1, in the order in which such fields were added), its length, its value.
//!
//! `producer` is not content: the same event that goes out again after a crash, or through the outbox, may carry another
//! sequence number, and must stay one row. Nor is anything that Kafka adds.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampMicrosecondType, UInt16Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, FixedSizeBinaryArray, ListArray, PrimitiveArray, RecordBatch, StringArray,
};
use arrow_buffer::{Buffer, NullBuffer};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::encode::{bytes, encode_content, long, symbol};
use crate::event::{ActorKind, AuditEvent, Operation, Outcome, Priority};

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
    let mut canonical = Vec::new();
    let mut hashes = Vec::with_capacity(batch.num_rows() * HASH_BYTES);
    for row in 0..batch.num_rows() {
        canonical.clear();
        columns.write(row, &mut canonical);
        hashes.extend_from_slice(&digest([&canonical[..]]));
    }
    Ok(FixedSizeBinaryArray::new(HASH_BYTES as i32, Buffer::from_vec(hashes), None))
}

/// The content hash of one event.
pub fn content_hash_of(event: &AuditEvent) -> [u8; HASH_BYTES] {
    let mut canonical = Vec::with_capacity(512);
    encode_content::<true>(event, &mut canonical);
    digest([&canonical[..]])
}

/// The hash of a canonical body that lies in pieces.
pub(crate) fn digest<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> [u8; HASH_BYTES] {
    let mut sha = Sha256::new();
    pieces.into_iter().for_each(|piece| sha.update(piece));
    let full: [u8; 32] = sha.finalize().into();
    let mut short = [0; HASH_BYTES];
    short.copy_from_slice(&full[..HASH_BYTES]);
    short
}

/// A text column as slices, null as empty.
struct Texts<'a> {
    /// Of a dictionary.
    keys: Option<&'a [u16]>,
    offsets: &'a [i32],
    data: &'a [u8],
    nulls: Option<&'a NullBuffer>,
}

impl<'a> Texts<'a> {
    fn of(column: Option<&'a ArrayRef>, name: &'static str) -> Result<Self, ShapeFault> {
        let fault = ShapeFault { column: name };
        let column = column.ok_or_else(|| fault.clone())?;
        let dictionary = column.as_dictionary_opt::<UInt16Type>().filter(|words| words.logical_null_count() == 0);
        let array: &StringArray = dictionary.map_or(column, DictionaryArray::values).as_string_opt().ok_or(fault)?;
        let keys = dictionary.map(|words| &words.keys().values()[..]);
        Ok(Self { keys, offsets: array.value_offsets(), data: array.value_data(), nulls: array.nulls() })
    }

    #[inline]
    fn get(&self, row: usize) -> &'a [u8] {
        let row = self.keys.map_or(row, |keys| keys[row].into());
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return &[];
        }
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

/// How a column enters the body.
enum Column<'a> {
    Text(Texts<'a>),
    Optional(Texts<'a>),
    /// Indexes of an enum's symbols.
    Symbol(&'a [i32]),
    Changes {
        offsets: &'a [i32],
        path: Texts<'a>,
        old: Texts<'a>,
        new: Texts<'a>,
    },
}

/// Columns of v1, `producer` included.
pub(crate) const V1_COLUMNS: usize = 25;

/// The batch's columns, cast once.
struct Columns<'a> {
    event_id: &'a FixedSizeBinaryArray,
    occurred_at: &'a [i64],
    /// What follows them, in the schema's order.
    rest: Vec<Column<'a>>,
    /// What later schemas added. Empty is the default of each.
    later: Vec<Texts<'a>>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, ShapeFault> {
        let column = |name: &'static str| batch.column_by_name(name);
        let fault = |column| ShapeFault { column };
        let actor = column("actor").and_then(|c| c.as_struct_opt()).ok_or(fault("actor"))?;
        let event_id = column("event_id").and_then(|c| c.as_fixed_size_binary_opt()).ok_or(fault("event_id"))?;
        let occurred_at: &PrimitiveArray<TimestampMicrosecondType> =
            column("occurred_at").and_then(|c| c.as_primitive_opt()).ok_or(fault("occurred_at"))?;
        let text = |name| Texts::of(column(name), name).map(Column::Text);
        let optional = |name| Texts::of(column(name), name).map(Column::Optional);
        let of_actor = |name| Texts::of(actor.column_by_name(name), name).map(Column::Optional);
        let rest = vec![
            text("tenant_id")?,
            text("service")?,
            text("environment")?,
            text("action")?,
            symbols(column("operation"), "operation", Operation::ALL.iter().map(|symbol| symbol.as_str()))?,
            text("entity_type")?,
            text("entity_id")?,
            optional("entity_name")?,
            symbols(actor.column_by_name("kind"), "actor.kind", ActorKind::ALL.iter().map(|symbol| symbol.as_str()))?,
            of_actor("id")?,
            of_actor("name")?,
            of_actor("email")?,
            of_actor("session_id")?,
            optional("on_behalf_of")?,
            symbols(column("outcome"), "outcome", Outcome::ALL.iter().map(|symbol| symbol.as_str()))?,
            optional("error_message")?,
            changes(column("changes"))?,
            optional("ip")?,
            optional("user_agent")?,
            optional("request_id")?,
            optional("correlation_id")?,
            optional("trace_id")?,
            optional("http_method")?,
            optional("http_path")?,
            symbols(column("priority"), "priority", Priority::ALL.iter().map(|symbol| symbol.as_str()))?,
            text("details")?,
        ];
        let later = batch.columns().iter().skip(V1_COLUMNS).map(|column| Texts::of(Some(column), "of a later schema"));
        Ok(Self { event_id, occurred_at: occurred_at.values(), rest, later: later.collect::<Result<_, _>>()? })
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) {
        let mut id = [0; Hyphenated::LENGTH];
        let event_id = Uuid::from_slice(self.event_id.value(row)).unwrap_or_default();
        bytes(event_id.hyphenated().encode_lower(&mut id).as_bytes(), out);
        long(self.occurred_at[row], out);
        for column in &self.rest {
            match column {
                Column::Text(values) => bytes(values.get(row), out),
                Column::Optional(values) => optional(values.get(row), out),
                Column::Symbol(keys) => symbol(keys[row] as u8, out),
                Column::Changes { offsets, path, old, new } => {
                    let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
                    if from < to {
                        long((to - from) as i64, out);
                        for item in from..to {
                            bytes(path.get(item), out);
                            optional(old.get(item), out);
                            optional(new.get(item), out);
                        }
                    }
                    out.push(0);
                }
            }
        }
        for (number, texts) in (1..).zip(&self.later) {
            let value = texts.get(row);
            if !value.is_empty() {
                long(number, out);
                bytes(value, out);
            }
        }
    }
}

/// The union of null and string, with the empty text as null.
pub(crate) fn optional(value: &[u8], out: &mut Vec<u8>) {
    if value.is_empty() {
        out.push(0);
    } else {
        out.push(2);
        bytes(value, out);
    }
}

/// The keys of a dictionary whose values are the enum's symbols in the schema's order.
fn symbols<'a>(
    column: Option<&'a ArrayRef>,
    name: &'static str,
    symbols: impl Iterator<Item = &'static str>,
) -> Result<Column<'a>, ShapeFault> {
    let fault = || ShapeFault { column: name };
    let keys: &DictionaryArray<Int32Type> = column.and_then(|c| c.as_dictionary_opt()).ok_or_else(fault)?;
    let values: &StringArray = keys.values().as_string_opt().ok_or_else(fault)?;
    let is_in_order = values.iter().flatten().eq(symbols);
    let has_nulls = keys.keys().null_count() > 0;
    if is_in_order && !has_nulls { Ok(Column::Symbol(keys.keys().values())) } else { Err(fault()) }
}

fn changes(column: Option<&ArrayRef>) -> Result<Column<'_>, ShapeFault> {
    let fault = ShapeFault { column: "changes" };
    let list: &ListArray = column.and_then(|c| c.as_list_opt()).ok_or(fault.clone())?;
    let items = list.values().as_struct_opt().ok_or(fault)?;
    let part = |name| Texts::of(items.column_by_name(name), name);
    Ok(Column::Changes { offsets: list.value_offsets(), path: part("path")?, old: part("old")?, new: part("new")? })
}
