//! The reader's columns as they grow, and as a batch.

use std::sync::Arc;
use std::{array, mem};

use arrow_array::{
    ArrayRef, FixedSizeBinaryArray, Int64Array, ListArray, RecordBatch, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, FieldRef, Fields, Schema, SchemaRef};

use super::Taken;
use super::column::{Offsets, Symbols, Texts, Values};
use super::steps::{NUMBERS, ROW_TEXTS, SYMBOLS, TEXTS, WORDS};
use crate::event::{ActorKind, Operation, Outcome, Priority};
use crate::hash::{HASH_BYTES, V1_COLUMNS};

/// Events as columns, of each kind in the order of the reader schema. Each append is one row; all columns have the same number of rows but inside
/// [`Columns::push`].
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) rows: usize,
    pub(super) event_id: Values<u8>,
    pub(super) numbers: [Values<i64>; NUMBERS],
    pub(super) symbols: [Symbols; SYMBOLS],
    /// Where the changes of each row begin and end.
    pub(super) changes: Offsets,
    /// With a value for each row, then with one for each change.
    pub(super) texts: [Texts; TEXTS],
    /// What a later reader schema adds.
    pub(super) later: Vec<Texts>,
    pub(super) content_hashes: Values<u8>,
    /// Bytes that were left in the body before each step of the plan, and behind the last.
    pub(super) marks: Vec<usize>,
    /// The canonical body of the last row while its hash waits for the next row's: two at once take hardly longer than one. Empty when none waits.
    pub(super) waiting: Vec<u8>,
    /// Room for another one.
    pub(super) canonical: Vec<u8>,
}

impl Columns {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let later = schema.fields().len().saturating_sub(V1_COLUMNS);
        Self {
            rows: 0,
            event_id: Values::default(),
            numbers: Default::default(),
            symbols: [
                Symbols::new(Operation::ALL.iter().map(|symbol| symbol.as_str())),
                Symbols::new(ActorKind::ALL.iter().map(|symbol| symbol.as_str())),
                Symbols::new(Outcome::ALL.iter().map(|symbol| symbol.as_str())),
                Symbols::new(Priority::ALL.iter().map(|symbol| symbol.as_str())),
            ],
            changes: Offsets::default(),
            texts: array::from_fn(|text| if WORDS.contains(&text) { Texts::of_words() } else { Texts::default() }),
            later: (0..later).map(|_| Texts::default()).collect(),
            content_hashes: Values::default(),
            marks: Vec::new(),
            waiting: Vec::new(),
            canonical: Vec::new(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// A text column of v1, or one that is later.
    #[inline(always)]
    pub(super) fn text(&mut self, column: usize) -> Option<&mut Texts> {
        match column.checked_sub(TEXTS) {
            None => self.texts.get_mut(column),
            Some(later) => self.later.get_mut(later),
        }
    }

    /// Takes the half-written row off every column.
    #[cold]
    pub(super) fn take_back(&mut self) {
        let rows = self.rows;
        self.event_id.truncate(rows * 16);
        self.content_hashes.truncate(rows * HASH_BYTES);
        self.numbers.iter_mut().for_each(|numbers| numbers.truncate(rows));
        self.symbols.iter_mut().for_each(|symbols| symbols.truncate(rows));
        self.changes.truncate(rows);
        let changes = self.changes.end();
        let (of_rows, of_changes) = self.texts.split_at_mut(ROW_TEXTS);
        of_rows.iter_mut().chain(&mut self.later).for_each(|texts| texts.take_back(rows));
        of_changes.iter_mut().for_each(|texts| texts.take_back(changes));
    }

    /// Moves the rows of `from` behind its own.
    pub(super) fn append(&mut self, from: &mut Columns) {
        from.hash_last();
        self.rows += mem::take(&mut from.rows);
        self.event_id.append(&mut from.event_id);
        self.content_hashes.append(&mut from.content_hashes);
        self.changes.append(&mut from.changes);
        self.numbers.iter_mut().zip(&mut from.numbers).for_each(|(to, from)| to.append(from));
        self.symbols.iter_mut().zip(&mut from.symbols).for_each(|(to, from)| to.append(from));
        self.texts.iter_mut().zip(&mut from.texts).for_each(|(to, from)| to.append(from));
        self.later.iter_mut().zip(&mut from.later).for_each(|(to, from)| to.append(from));
    }

    /// For another batch.
    pub(super) fn forget_words(&mut self) {
        self.texts.iter_mut().for_each(Texts::forget_words);
    }

    /// As a batch of `schema`, but that columns of words may be dictionaries.
    pub(super) fn take(&mut self, schema: &SchemaRef) -> Result<Taken, ArrowError> {
        self.rows = 0;
        let hashes = Buffer::from_vec(self.content_hashes.take());
        let event_ids = Buffer::from_vec(self.event_id.take());
        let [occurred_at, epoch, seq] = &mut self.numbers;
        let times = TimestampMicrosecondArray::new(ScalarBuffer::from(occurred_at.take()), None);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(FixedSizeBinaryArray::try_new(16, event_ids, None)?),
            Arc::new(times.with_timezone("+00:00")),
        ];
        let [operation, actor_kind, outcome, priority] = &mut self.symbols;
        let mut texts = self.texts.iter_mut();
        let mut next = |columns: &mut Vec<ArrayRef>, count: usize| -> Result<(), ArrowError> {
            texts.by_ref().take(count).try_for_each(|texts| {
                columns.push(texts.take()?);
                Ok(())
            })
        };
        // tenant_id, service, environment, action
        next(&mut columns, 4)?;
        columns.push(operation.take()?);
        // entity_type, entity_id, entity_name
        next(&mut columns, 3)?;
        let mut actor = vec![actor_kind.take()?];
        // id, name, email, session_id
        next(&mut actor, 4)?;
        columns.push(record_of(schema, "actor", actor)?);
        // on_behalf_of
        next(&mut columns, 1)?;
        columns.push(outcome.take()?);
        // error_message
        next(&mut columns, 1)?;
        let changes_at = columns.len();
        // From ip to http_path.
        next(&mut columns, 7)?;
        columns.push(priority.take()?);
        // details
        next(&mut columns, 1)?;
        let mut producer = Vec::new();
        // id
        next(&mut producer, 1)?;
        for numbers in [epoch, seq] {
            producer.push(Arc::new(Int64Array::new(ScalarBuffer::from(numbers.take()), None)));
        }
        columns.push(record_of(schema, "producer", producer)?);
        let mut changes = Vec::new();
        // path, old, new
        next(&mut changes, 3)?;
        columns.insert(changes_at, list_of(schema, "changes", self.changes.take(), changes)?);
        for texts in &mut self.later {
            columns.push(texts.take()?);
        }
        Ok(Taken {
            batch: RecordBatch::try_new(Arc::new(Schema::new(with_words(schema.fields(), &columns))), columns)?,
            content_hashes: FixedSizeBinaryArray::try_new(HASH_BYTES as i32, hashes, None)?,
        })
    }
}

/// The fields, with the type of those columns that are dictionaries of words, or records in which some are.
fn with_words(fields: &Fields, columns: &[ArrayRef]) -> Fields {
    let with_words =
        |(number, field): (usize, &FieldRef)| match (columns.get(number).map(|c| c.data_type()), field.data_type()) {
            (Some(words @ DataType::Dictionary(..)), DataType::Utf8)
            | (Some(words @ DataType::Struct(_)), DataType::Struct(_)) => {
                Arc::new(field.as_ref().clone().with_data_type(words.clone()))
            }
            _ => Arc::clone(field),
        };
    fields.iter().enumerate().map(with_words).collect()
}

fn record_of(schema: &SchemaRef, name: &str, columns: Vec<ArrayRef>) -> Result<ArrayRef, ArrowError> {
    match schema.field_with_name(name)?.data_type() {
        DataType::Struct(fields) => Ok(Arc::new(StructArray::try_new(with_words(fields, &columns), columns, None)?)),
        other => Err(ArrowError::SchemaError(format!("{name} is {other}, expected a struct"))),
    }
}

fn list_of(
    schema: &SchemaRef,
    name: &str,
    offsets: OffsetBuffer<i32>,
    columns: Vec<ArrayRef>,
) -> Result<ArrayRef, ArrowError> {
    let item = |field: &FieldRef| match field.data_type() {
        DataType::Struct(fields) => Some(Fields::clone(fields)),
        _ => None,
    };
    match schema.field_with_name(name)?.data_type() {
        DataType::List(field) if item(field).is_some() => {
            let items = StructArray::try_new(item(field).unwrap_or_default(), columns, None)?;
            let list = ListArray::try_new(Arc::clone(field), offsets, Arc::new(items), None)?;
            Ok(Arc::new(list))
        }
        other => Err(ArrowError::SchemaError(format!("{name} is {other}, expected a list of structs"))),
    }
}
