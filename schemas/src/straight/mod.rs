//! The straight way from a body of the current schema to Arrow columns.
//!
//! Nearly all records are written with exactly the reader's schema. For those the order of fields is known, so one pass over the bytes checks them and
//! appends to the columns, in about half the time of the guard and arrow-avro together. What is not perfectly regular here is not judged
//! here: the row is taken back and the record goes the long way, by the guard, which names what is wrong, and by arrow-avro.
//!
//! Whatever is accepted here the guard accepts too, and arrow-avro makes the same row of it; the tests hold both to that. Two things differ in form: an
//! absent text is an empty one, as the table has it, and the content hash of each row is made on the way, of the bytes as they came: what goes straight
//! begins with its canonical body.

mod column;
mod input;
#[cfg(test)]
mod tests;

use std::mem;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, FixedSizeBinaryArray, Int64Array, ListArray, RecordBatch, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, FieldRef, Fields, SchemaRef};
use uuid::Uuid;

use self::column::{Offsets, Symbols, Texts, Values};
use self::input::Input;
use crate::event::{ActorKind, Operation, Outcome, Priority, Timestamp};
use crate::guard::Guard;
use crate::hash::{HASH_BYTES, digest};

/// Rows that are decoded before they move on together. Written one event after the other, sixty columns are sixty places in memory, more than the
/// processor fetches ahead; of so many rows all of them stay in its cache (a third less time than without; 500 to 2,000 rows make no difference).
const STAGE_ROWS: usize = 1024;

/// The events taken since the last [`StraightLane::take`].
#[derive(Debug)]
pub(crate) struct StraightLane {
    stage: Columns,
    rest: Columns,
}

/// Text columns of a change.
const CHANGE_TEXTS: usize = 3;

/// Events as columns. Each append is one row; all columns have the same number of rows but inside [`Columns::push`].
#[derive(Debug)]
struct Columns {
    rows: usize,
    event_id: Values<u8>,
    occurred_at: Values<i64>,
    tenant_id: Texts,
    service: Texts,
    environment: Texts,
    action: Texts,
    operation: Symbols,
    entity_type: Texts,
    entity_id: Texts,
    entity_name: Texts,
    actor_kind: Symbols,
    actor: [Texts; 4],
    on_behalf_of: Texts,
    outcome: Symbols,
    error_message: Texts,
    changes: Offsets,
    change_path: Texts,
    change_old: Texts,
    change_new: Texts,
    request: [Texts; 7],
    priority: Symbols,
    details: Texts,
    producer_id: Texts,
    producer_epoch: Values<i64>,
    producer_seq: Values<i64>,
    content_hashes: Values<u8>,
}

/// What a lane gives out.
pub(crate) struct Taken {
    pub(crate) batch: RecordBatch,
    /// Of each row, as [`crate::content_hash`] has it.
    pub(crate) content_hashes: FixedSizeBinaryArray,
}

impl StraightLane {
    pub(crate) fn new() -> Self {
        Self { stage: Columns::new(), rest: Columns::new() }
    }

    /// Appends a body as a row, or answers `None` and is as before.
    /// What stands behind the fields that are known here is for `tail` to check; for the current schema that is nothing.
    pub(crate) fn push(&mut self, body: &[u8], tail: &Guard) -> Option<()> {
        if self.stage.rows == STAGE_ROWS {
            self.rest.append(&mut self.stage);
        }
        self.stage.push(body, tail)
    }

    /// The rows as a batch of `schema`, which is the reader's; empty afterwards.
    ///
    /// # Errors
    /// The schema is another one.
    pub(crate) fn take(&mut self, schema: &SchemaRef) -> Result<Taken, ArrowError> {
        self.rest.append(&mut self.stage);
        self.rest.take(schema)
    }
}

impl Columns {
    fn new() -> Self {
        let texts = Texts::default;
        Self {
            rows: 0,
            event_id: Values::default(),
            occurred_at: Values::default(),
            tenant_id: texts(),
            service: texts(),
            environment: texts(),
            action: texts(),
            operation: Symbols::new(Operation::ALL.iter().map(|symbol| symbol.as_str())),
            entity_type: texts(),
            entity_id: texts(),
            entity_name: texts(),
            actor_kind: Symbols::new(ActorKind::ALL.iter().map(|symbol| symbol.as_str())),
            actor: [(); 4].map(|()| texts()),
            on_behalf_of: texts(),
            outcome: Symbols::new(Outcome::ALL.iter().map(|symbol| symbol.as_str())),
            error_message: texts(),
            changes: Offsets::default(),
            change_path: texts(),
            change_old: texts(),
            change_new: texts(),
            request: [(); 7].map(|()| texts()),
            priority: Symbols::new(Priority::ALL.iter().map(|symbol| symbol.as_str())),
            details: texts(),
            producer_id: texts(),
            producer_epoch: Values::default(),
            producer_seq: Values::default(),
            content_hashes: Values::default(),
        }
    }

    fn push(&mut self, body: &[u8], tail: &Guard) -> Option<()> {
        let mut input = Input::new(body);
        let done = self.content(&mut input);
        let content = body.len() - input.left();
        match done.and_then(|()| self.producer(&mut input)) {
            Some(()) if tail.check(input.rest()).is_ok() => {
                self.content_hashes.extend_from_slice(&hash(body, content, input.empties()));
                self.rows += 1;
                Some(())
            }
            _ => {
                self.take_back();
                None
            }
        }
    }

    /// The fields in front of `producer`, in the order of `audit_event.v1.avsc`.
    fn content(&mut self, input: &mut Input<'_>) -> Option<()> {
        let event_id = Uuid::try_parse_ascii(input.uuid()?).ok()?;
        self.event_id.extend_from_slice(event_id.as_bytes());
        let occurred_at = input.long()?;
        Timestamp::from_micros(occurred_at).is_storable().then(|| self.occurred_at.push(occurred_at))?;
        self.tenant_id.non_empty(input)?;
        self.service.non_empty(input)?;
        self.environment.text(input)?;
        self.action.non_empty(input)?;
        self.operation.symbol(input)?;
        self.entity_type.non_empty(input)?;
        self.entity_id.non_empty(input)?;
        self.entity_name.nullable(input)?;
        self.actor_kind.symbol(input)?;
        for text in &mut self.actor {
            text.nullable(input)?;
        }
        self.on_behalf_of.nullable(input)?;
        self.outcome.symbol(input)?;
        self.error_message.nullable(input)?;
        self.changes(input)?;
        for text in &mut self.request {
            text.nullable(input)?;
        }
        self.priority.symbol(input)?;
        self.details.text(input)
    }

    fn producer(&mut self, input: &mut Input<'_>) -> Option<()> {
        self.producer_id.text(input)?;
        self.producer_epoch.push(input.long()?);
        self.producer_seq.push(input.long()?);
        Some(())
    }

    /// One block of changes, or none. Each change takes bytes, so the input bounds their number. More blocks, and blocks that tell their size, are
    /// rare: they go the long way.
    fn changes(&mut self, input: &mut Input<'_>) -> Option<()> {
        let count = usize::try_from(input.long()?).ok()?;
        if count > 0 {
            for _ in 0..count {
                self.change_path.push(input.text()?)?;
                self.change_old.push(input.nullable()?)?;
                self.change_new.push(input.nullable()?)?;
            }
            if input.long()? != 0 {
                return None;
            }
        }
        self.changes.push(self.change_path.len())
    }

    /// Takes the half-written row off every column.
    #[cold]
    fn take_back(&mut self) {
        let rows = self.rows;
        self.event_id.truncate(rows * 16);
        self.content_hashes.truncate(rows * HASH_BYTES);
        self.numbers().into_iter().for_each(|numbers| numbers.truncate(rows));
        self.symbols().into_iter().for_each(|symbols| symbols.truncate(rows));
        self.changes.truncate(rows);
        let changes = self.changes.end();
        let texts = self.texts().into_iter().enumerate();
        texts.for_each(|(number, texts)| texts.truncate(if number < CHANGE_TEXTS { changes } else { rows }));
    }

    fn numbers(&mut self) -> [&mut Values<i64>; 3] {
        [&mut self.occurred_at, &mut self.producer_epoch, &mut self.producer_seq]
    }

    fn symbols(&mut self) -> [&mut Symbols; 4] {
        [&mut self.operation, &mut self.actor_kind, &mut self.outcome, &mut self.priority]
    }

    /// All texts; first the [`CHANGE_TEXTS`] that have a value for each change instead of one for each row.
    fn texts(&mut self) -> impl IntoIterator<Item = &mut Texts> {
        let changes = [&mut self.change_path, &mut self.change_old, &mut self.change_new];
        let who = [&mut self.tenant_id, &mut self.service, &mut self.environment, &mut self.action];
        let what = [&mut self.entity_type, &mut self.entity_id, &mut self.entity_name];
        let more = [&mut self.on_behalf_of, &mut self.error_message, &mut self.details, &mut self.producer_id];
        let single = changes.into_iter().chain(who).chain(what).chain(more);
        single.chain(&mut self.actor).chain(&mut self.request)
    }

    /// Moves the rows of `from` behind its own.
    fn append(&mut self, from: &mut Columns) {
        self.rows += mem::take(&mut from.rows);
        self.event_id.append(&mut from.event_id);
        self.content_hashes.append(&mut from.content_hashes);
        self.changes.append(&mut from.changes);
        self.numbers().into_iter().zip(from.numbers()).for_each(|(to, from)| to.append(from));
        self.symbols().into_iter().zip(from.symbols()).for_each(|(to, from)| to.append(from));
        self.texts().into_iter().zip(from.texts()).for_each(|(to, from)| to.append(from));
    }

    fn take(&mut self, schema: &SchemaRef) -> Result<Taken, ArrowError> {
        self.rows = 0;
        let hashes = Buffer::from_vec(self.content_hashes.take());
        let times = TimestampMicrosecondArray::new(ScalarBuffer::from(self.occurred_at.take()), None);
        let event_ids = Buffer::from_vec(self.event_id.take());
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(FixedSizeBinaryArray::try_new(16, event_ids, None)?),
            Arc::new(times.with_timezone("+00:00")),
            self.tenant_id.take()?,
            self.service.take()?,
            self.environment.take()?,
            self.action.take()?,
            self.operation.take()?,
            self.entity_type.take()?,
            self.entity_id.take()?,
            self.entity_name.take()?,
        ];
        let mut actor = vec![self.actor_kind.take()?];
        for texts in &mut self.actor {
            actor.push(texts.take()?);
        }
        columns.push(record_of(schema, "actor", actor)?);
        columns.extend([self.on_behalf_of.take()?, self.outcome.take()?, self.error_message.take()?]);
        let changes = vec![self.change_path.take()?, self.change_old.take()?, self.change_new.take()?];
        columns.push(list_of(schema, "changes", self.changes.take(), changes)?);
        for texts in &mut self.request {
            columns.push(texts.take()?);
        }
        columns.extend([self.priority.take()?, self.details.take()?]);
        let producer: Vec<ArrayRef> = vec![
            self.producer_id.take()?,
            Arc::new(Int64Array::new(ScalarBuffer::from(self.producer_epoch.take()), None)),
            Arc::new(Int64Array::new(ScalarBuffer::from(self.producer_seq.take()), None)),
        ];
        columns.push(record_of(schema, "producer", producer)?);
        Ok(Taken {
            batch: RecordBatch::try_new(Arc::clone(schema), columns)?,
            content_hashes: FixedSizeBinaryArray::try_new(HASH_BYTES as i32, hashes, None)?,
        })
    }
}

/// The content hash: of the first `content` bytes of the body, with `empties` as null.
fn hash(body: &[u8], content: usize, empties: &[usize]) -> [u8; HASH_BYTES] {
    if empties.is_empty() {
        return digest([&body[..content]]);
    }
    let mut pieces = Vec::with_capacity(2 * empties.len() + 1);
    let mut from = 0;
    for left in empties {
        let at = body.len() - left;
        pieces.extend([&body[from..at], &[0]]);
        from = at + 2;
    }
    pieces.push(&body[from..content]);
    digest(pieces)
}

fn record_of(schema: &SchemaRef, name: &str, columns: Vec<ArrayRef>) -> Result<ArrayRef, ArrowError> {
    match schema.field_with_name(name)?.data_type() {
        DataType::Struct(fields) => Ok(Arc::new(StructArray::try_new(fields.clone(), columns, None)?)),
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
