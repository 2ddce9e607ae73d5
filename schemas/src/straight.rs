//! The straight way from a body of the current schema to Arrow columns.
//!
//! Nearly all records are written with exactly the reader's schema. For those the order of fields is known, so one pass over the bytes checks them and
//! appends to the columns: 0.35 µs an event where the guard and arrow-avro together take 0.95. What is not perfectly regular here is not judged
//! here: the row is taken back and the record goes the long way, by the guard, which names what is wrong, and by arrow-avro.
//!
//! Whatever is accepted here the guard accepts too, and arrow-avro makes the same row of it; the tests hold both to that.

use std::mem;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, FieldRef, Fields, SchemaRef};
use uuid::Uuid;

use crate::event::{ActorKind, Operation, Outcome, Priority, Timestamp};

/// The columns of the events taken since the last [`StraightLane::take`]. Each append is one row; all columns have the same number of rows but
/// inside [`StraightLane::push`].
#[derive(Debug)]
pub(crate) struct StraightLane {
    rows: usize,
    event_id: Vec<u8>,
    occurred_at: Vec<i64>,
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
    change_ends: Vec<i32>,
    change_path: Texts,
    change_old: Texts,
    change_new: Texts,
    request: [Texts; 7],
    priority: Symbols,
    details: Texts,
    producer_id: Texts,
    producer_epoch: Vec<i64>,
    producer_seq: Vec<i64>,
}

impl StraightLane {
    pub(crate) fn new() -> Self {
        let optional = Texts::optional;
        let required = Texts::required;
        Self {
            rows: 0,
            event_id: Vec::new(),
            occurred_at: Vec::new(),
            tenant_id: required(),
            service: required(),
            environment: required(),
            action: required(),
            operation: Symbols::new(Operation::ALL.iter().map(|symbol| symbol.as_str())),
            entity_type: required(),
            entity_id: required(),
            entity_name: optional(),
            actor_kind: Symbols::new(ActorKind::ALL.iter().map(|symbol| symbol.as_str())),
            actor: [(); 4].map(|()| optional()),
            on_behalf_of: optional(),
            outcome: Symbols::new(Outcome::ALL.iter().map(|symbol| symbol.as_str())),
            error_message: optional(),
            change_ends: Vec::new(),
            change_path: required(),
            change_old: optional(),
            change_new: optional(),
            request: [(); 7].map(|()| optional()),
            priority: Symbols::new(Priority::ALL.iter().map(|symbol| symbol.as_str())),
            details: required(),
            producer_id: required(),
            producer_epoch: Vec::new(),
            producer_seq: Vec::new(),
        }
    }

    /// Appends a body as a row, or answers `None` and is as before.
    pub(crate) fn push(&mut self, body: &[u8]) -> Option<()> {
        let mut input = Input { rest: body };
        match self.record(&mut input) {
            Some(()) if input.rest.is_empty() => {
                self.rows += 1;
                Some(())
            }
            _ => {
                self.take_back();
                None
            }
        }
    }

    /// The fields, in the order of `audit_event.v1.avsc`.
    fn record(&mut self, input: &mut Input<'_>) -> Option<()> {
        self.event_id.extend_from_slice(Uuid::try_parse_ascii(input.uuid()?).ok()?.as_bytes());
        let occurred_at = input.long()?;
        Timestamp::from_micros(occurred_at).is_storable().then(|| self.occurred_at.push(occurred_at))?;
        self.tenant_id.non_empty(input)?;
        self.service.non_empty(input)?;
        self.environment.any(input)?;
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
        self.details.any(input)?;
        self.producer_id.any(input)?;
        self.producer_epoch.push(input.long()?);
        self.producer_seq.push(input.long()?);
        Some(())
    }

    /// Blocks of changes until an empty one. Each change takes bytes, so the input bounds their number. Blocks that tell their size are rare: they go
    /// the long way.
    fn changes(&mut self, input: &mut Input<'_>) -> Option<()> {
        loop {
            match input.long()? {
                0 => break,
                count => {
                    for _ in 0..u64::try_from(count).ok()? {
                        self.change_path.any(input)?;
                        self.change_old.nullable(input)?;
                        self.change_new.nullable(input)?;
                    }
                }
            }
        }
        self.change_ends.push(i32::try_from(self.change_path.len()).ok()?);
        Some(())
    }

    /// Takes the half-written row off every column.
    #[cold]
    fn take_back(&mut self) {
        let rows = self.rows;
        self.event_id.truncate(rows * 16);
        for numbers in [&mut self.occurred_at, &mut self.producer_epoch, &mut self.producer_seq] {
            numbers.truncate(rows);
        }
        for symbols in [&mut self.operation, &mut self.actor_kind, &mut self.outcome, &mut self.priority] {
            symbols.keys.truncate(rows);
        }
        self.change_ends.truncate(rows);
        let changes = self.change_ends.last().map_or(0, |&end| usize::try_from(end).unwrap_or(0));
        for texts in [&mut self.change_path, &mut self.change_old, &mut self.change_new] {
            texts.truncate(changes);
        }
        let Self { tenant_id, service, environment, action, entity_type, entity_id, entity_name, .. } = self;
        for texts in [tenant_id, service, environment, action, entity_type, entity_id, entity_name] {
            texts.truncate(rows);
        }
        let Self { on_behalf_of, error_message, details, producer_id, .. } = self;
        let singles = [on_behalf_of, error_message, details, producer_id].into_iter();
        for texts in singles.chain(&mut self.actor).chain(&mut self.request) {
            texts.truncate(rows);
        }
    }

    /// The rows as a batch of `schema`, which is the reader's; empty afterwards.
    ///
    /// # Errors
    /// The schema is another one.
    pub(crate) fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        let times = TimestampMicrosecondArray::new(ScalarBuffer::from(renewed(&mut self.occurred_at)), None);
        let event_ids = Buffer::from_vec(renewed(&mut self.event_id));
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
        columns.push(list_of(schema, "changes", renewed(&mut self.change_ends), changes)?);
        for texts in &mut self.request {
            columns.push(texts.take()?);
        }
        columns.extend([self.priority.take()?, self.details.take()?]);
        let producer: Vec<ArrayRef> = vec![
            self.producer_id.take()?,
            Arc::new(Int64Array::new(ScalarBuffer::from(renewed(&mut self.producer_epoch)), None)),
            Arc::new(Int64Array::new(ScalarBuffer::from(renewed(&mut self.producer_seq)), None)),
        ];
        columns.push(record_of(schema, "producer", producer)?);
        RecordBatch::try_new(Arc::clone(schema), columns)
    }
}

fn record_of(schema: &SchemaRef, name: &str, columns: Vec<ArrayRef>) -> Result<ArrayRef, ArrowError> {
    match schema.field_with_name(name)?.data_type() {
        DataType::Struct(fields) => Ok(Arc::new(StructArray::try_new(fields.clone(), columns, None)?)),
        other => Err(ArrowError::SchemaError(format!("{name} is {other}, expected a struct"))),
    }
}

fn list_of(schema: &SchemaRef, name: &str, ends: Vec<i32>, columns: Vec<ArrayRef>) -> Result<ArrayRef, ArrowError> {
    let item = |field: &FieldRef| match field.data_type() {
        DataType::Struct(fields) => Some(Fields::clone(fields)),
        _ => None,
    };
    match schema.field_with_name(name)?.data_type() {
        DataType::List(field) if item(field).is_some() => {
            let items = StructArray::try_new(item(field).unwrap_or_default(), columns, None)?;
            let list = ListArray::try_new(Arc::clone(field), offsets(ends), Arc::new(items), None)?;
            Ok(Arc::new(list))
        }
        other => Err(ArrowError::SchemaError(format!("{name} is {other}, expected a list of structs"))),
    }
}

/// Offsets from where each value ends.
fn offsets(mut ends: Vec<i32>) -> OffsetBuffer<i32> {
    ends.insert(0, 0);
    OffsetBuffer::new(ScalarBuffer::from(ends))
}

/// What a column holds, leaving room for as much again: batches are alike, and growing means copying.
fn renewed<T>(column: &mut Vec<T>) -> Vec<T> {
    let room = column.len() + column.len() / 8;
    mem::replace(column, Vec::with_capacity(room))
}

/// A column of strings.
#[derive(Debug)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    /// Which are there, for a nullable column.
    valid: Option<BooleanBufferBuilder>,
}

impl Texts {
    fn required() -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), valid: None }
    }

    fn optional() -> Self {
        Self { valid: Some(BooleanBufferBuilder::new(0)), ..Self::required() }
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    #[inline]
    fn any(&mut self, input: &mut Input<'_>) -> Option<()> {
        self.append(input.text()?)
    }

    #[inline]
    fn non_empty(&mut self, input: &mut Input<'_>) -> Option<()> {
        self.append(input.text().filter(|text| !text.is_empty())?)
    }

    /// A union of null and string.
    #[inline]
    fn nullable(&mut self, input: &mut Input<'_>) -> Option<()> {
        let is_there = match input.byte()? {
            0 => false,
            2 => true,
            _ => return None,
        };
        if let Some(valid) = &mut self.valid {
            valid.append(is_there);
        }
        if is_there { self.append(input.text()?) } else { self.append(&[]) }
    }

    #[inline]
    fn append(&mut self, text: &[u8]) -> Option<()> {
        self.bytes.extend_from_slice(text);
        self.ends.push(i32::try_from(self.bytes.len()).ok()?);
        Some(())
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.bytes.truncate(self.ends.last().map_or(0, |&end| usize::try_from(end).unwrap_or(0)));
        if let Some(valid) = &mut self.valid {
            valid.truncate(rows);
        }
    }

    fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let bytes = Buffer::from_vec(renewed(&mut self.bytes));
        let nulls = self.valid.as_mut().map(|valid| NullBuffer::new(valid.finish()));
        Ok(Arc::new(StringArray::try_new(offsets(renewed(&mut self.ends)), bytes, nulls)?))
    }
}

/// A column of an enum's symbols.
#[derive(Debug)]
struct Symbols {
    keys: Vec<i32>,
    names: Arc<StringArray>,
}

impl Symbols {
    fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self { keys: Vec::new(), names: Arc::new(StringArray::from_iter_values(names)) }
    }

    #[inline]
    fn symbol(&mut self, input: &mut Input<'_>) -> Option<()> {
        let key = i32::try_from(input.long()?).ok()?;
        (usize::try_from(key).ok()? < self.names.len()).then(|| self.keys.push(key))
    }

    fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let keys = Int32Array::new(ScalarBuffer::from(renewed(&mut self.keys)), None);
        let names: ArrayRef = Arc::clone(&self.names) as ArrayRef;
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, names)?))
    }
}

/// What is left of a body.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    /// A zigzag varint of at most ten bytes that fits 64 bits.
    #[inline]
    fn long(&mut self) -> Option<i64> {
        let first = self.byte()?;
        let mut value = u64::from(first & 0x7f);
        if first >= 0x80 {
            let mut shift = 7;
            loop {
                let byte = self.byte()?;
                // The tenth byte has room for one bit.
                if shift == 63 && byte > 1 {
                    return None;
                }
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
                shift += 7;
            }
        }
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// A string's bytes, which are UTF-8.
    #[inline]
    fn text(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.long()?).ok()?;
        let (text, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        (text.is_ascii() || std::str::from_utf8(text).is_ok()).then_some(text)
    }

    /// A uuid's 36 characters. Other spellings are for the long way to judge.
    #[inline]
    fn uuid(&mut self) -> Option<&'a [u8]> {
        self.text().filter(|text| text.len() == 36)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::batch::new_decoder;
    use crate::columns::conform;
    use crate::event::{Actor, AuditEvent};
    use crate::{AUDIT_EVENT_V1, Framing, Schemas, V1_FINGERPRINT, WriterId, encode};

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

    /// What the long way makes of the same bodies.
    fn long_way(schemas: &Schemas, bodies: &[Vec<u8>]) -> RecordBatch {
        let mut decoder = new_decoder(AUDIT_EVENT_V1).unwrap();
        for body in bodies {
            assert_eq!(decoder.decode(body).unwrap(), body.len());
        }
        conform(&decoder.flush().unwrap().unwrap(), schemas.arrow_schema()).unwrap()
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
            let accepted: Vec<Vec<u8>> = bodies.iter().filter(|body| lane.push(body).is_some()).cloned().collect();
            for body in &bodies {
                let is_good = guard.check(body).is_ok();
                prop_assert!(is_good || !accepted.contains(body), "the guard refuses what went straight");
            }
            prop_assume!(!accepted.is_empty());
            prop_assert_eq!(lane.take(schemas.arrow_schema()).unwrap(), long_way(&schemas, &accepted));
        }
    }

    #[test]
    fn every_event_of_our_own_goes_straight() {
        let schemas = Schemas::builtin().unwrap();
        let bodies: Vec<_> = (0..200).map(|number| body(number, "ü")).collect();
        let mut lane = StraightLane::new();
        for _ in 0..2 {
            assert!(bodies.iter().all(|body| lane.push(body).is_some()));
            assert_eq!(lane.take(schemas.arrow_schema()).unwrap(), long_way(&schemas, &bodies));
        }
    }
}
