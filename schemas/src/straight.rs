//! The straight way from a body of the current schema to Arrow columns.
//!
//! Nearly all records are written with exactly the reader's schema. For those the order of fields is known, so one pass over the bytes checks them and
//! appends to the columns, in a third of the time of the guard and arrow-avro together. What is not perfectly regular here is not judged
//! here: the row is taken back and the record goes the long way, by the guard, which names what is wrong, and by arrow-avro.
//!
//! Whatever is accepted here the guard accepts too, and arrow-avro makes the same row of it; the tests hold both to that. Two things differ in form: an
//! absent text is an empty one, as the table has it, and the content hash of each row is made on the way, while its values are at hand: from the
//! columns it costs half as much again.

use std::mem;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, DictionaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, FieldRef, Fields, SchemaRef};
use uuid::Uuid;

use crate::event::{ActorKind, Operation, Outcome, Priority, Timestamp};
use crate::hash::{Frame, HASH_BYTES, PIECE, symbol_frame};

/// Bytes of a column at first.
const FIRST_BYTES: usize = 4096;

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
    content_hashes: Vec<u8>,
    frame: Frame,
}

/// What a lane gives out.
pub(crate) struct Taken {
    pub(crate) batch: RecordBatch,
    /// Of each row, as [`crate::content_hash`] has it.
    pub(crate) content_hashes: FixedSizeBinaryArray,
}

impl StraightLane {
    pub(crate) fn new() -> Self {
        let texts = Texts::default;
        Self {
            rows: 0,
            event_id: Vec::new(),
            occurred_at: Vec::new(),
            tenant_id: texts(),
            service: texts(),
            environment: texts(),
            action: texts(),
            operation: Symbols::new(7, "OTHER", Operation::ALL.iter().map(|symbol| symbol.as_str())),
            entity_type: texts(),
            entity_id: texts(),
            entity_name: texts(),
            actor_kind: Symbols::new(11, "", ActorKind::ALL.iter().map(|symbol| symbol.as_str())),
            actor: [(); 4].map(|()| texts()),
            on_behalf_of: texts(),
            outcome: Symbols::new(17, "", Outcome::ALL.iter().map(|symbol| symbol.as_str())),
            error_message: texts(),
            change_ends: Vec::new(),
            change_path: texts(),
            change_old: texts(),
            change_new: texts(),
            request: [(); 7].map(|()| texts()),
            priority: Symbols::new(27, "STANDARD", Priority::ALL.iter().map(|symbol| symbol.as_str())),
            details: texts(),
            producer_id: texts(),
            producer_epoch: Vec::new(),
            producer_seq: Vec::new(),
            content_hashes: Vec::new(),
            frame: Frame::default(),
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

    /// The fields, in the order of `audit_event.v1.avsc`, which is that of the frame: the numbers are its tags.
    fn record(&mut self, input: &mut Input<'_>) -> Option<()> {
        let event_id = Uuid::try_parse_ascii(input.uuid()?).ok()?;
        self.event_id.extend_from_slice(event_id.as_bytes());
        let occurred_at = input.long()?;
        Timestamp::from_micros(occurred_at).is_storable().then(|| self.occurred_at.push(occurred_at))?;
        let mut frame = std::mem::take(&mut self.frame);
        frame.start(event_id.as_bytes(), occurred_at);
        let done = self.fields(input, &mut frame);
        if done.is_some() {
            self.content_hashes.extend_from_slice(&frame.digest());
        }
        self.frame = frame;
        done
    }

    fn fields(&mut self, input: &mut Input<'_>, frame: &mut Frame) -> Option<()> {
        self.tenant_id.non_empty(input, frame, 3)?;
        self.service.non_empty(input, frame, 4)?;
        self.environment.unless(input, frame, 5, b"default")?;
        self.action.non_empty(input, frame, 6)?;
        self.operation.symbol(input, frame)?;
        self.entity_type.non_empty(input, frame, 8)?;
        self.entity_id.non_empty(input, frame, 9)?;
        self.entity_name.nullable(input, frame, 10)?;
        self.actor_kind.symbol(input, frame)?;
        for (text, tag) in self.actor.iter_mut().zip(12..) {
            text.nullable(input, frame, tag)?;
        }
        self.on_behalf_of.nullable(input, frame, 16)?;
        self.outcome.symbol(input, frame)?;
        self.error_message.nullable(input, frame, 18)?;
        self.changes(input, frame)?;
        for (text, tag) in self.request.iter_mut().zip(20..) {
            text.nullable(input, frame, tag)?;
        }
        self.priority.symbol(input, frame)?;
        self.details.unless(input, frame, 28, b"{}")?;
        self.producer_id.append(input.text()?)?;
        self.producer_epoch.push(input.long()?);
        self.producer_seq.push(input.long()?);
        Some(())
    }

    /// One block of changes, or none. Each change takes bytes, so the input bounds their number. More blocks, and blocks that tell their size, are
    /// rare: they go the long way.
    fn changes(&mut self, input: &mut Input<'_>, frame: &mut Frame) -> Option<()> {
        let count = usize::try_from(input.long()?).ok()?;
        if count > 0 {
            frame.count(19, count);
            for _ in 0..count {
                let path = input.text()?;
                frame.bytes_from(path.value, path.piece);
                self.change_path.append(path)?;
                for texts in [&mut self.change_old, &mut self.change_new] {
                    let value = input.nullable()?;
                    frame.bytes_from(value.value, value.piece);
                    texts.append(value)?;
                }
            }
            if input.long()? != 0 {
                return None;
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
        self.content_hashes.truncate(rows * HASH_BYTES);
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
    pub(crate) fn take(&mut self, schema: &SchemaRef) -> Result<Taken, ArrowError> {
        self.rows = 0;
        let hashes = Buffer::from_vec(renewed(&mut self.content_hashes));
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
        Ok(Taken {
            batch: RecordBatch::try_new(Arc::clone(schema), columns)?,
            content_hashes: FixedSizeBinaryArray::try_new(HASH_BYTES as i32, hashes, None)?,
        })
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
#[derive(Debug, Default)]
struct Texts {
    /// The column's bytes are the first `used`; what follows is scratch, so that short texts can be copied in one piece of fixed size.
    bytes: Vec<u8>,
    used: usize,
    ends: Vec<i32>,
}

impl Texts {
    fn len(&self) -> usize {
        self.ends.len()
    }

    #[inline(never)]
    fn non_empty(&mut self, input: &mut Input<'_>, frame: &mut Frame, tag: u8) -> Option<()> {
        let text = input.text()?;
        if text.value.is_empty() {
            return None;
        }
        frame.field_from(tag, text.value, text.piece);
        self.append(text)
    }

    /// Any text; the frame leaves out the default.
    #[inline(never)]
    fn unless(&mut self, input: &mut Input<'_>, frame: &mut Frame, tag: u8, default: &[u8]) -> Option<()> {
        let text = input.text()?;
        if text.value != default {
            frame.field_from(tag, text.value, text.piece);
        }
        self.append(text)
    }

    /// A union of null and string; the frame leaves out what is null or empty.
    #[inline(never)]
    fn nullable(&mut self, input: &mut Input<'_>, frame: &mut Frame, tag: u8) -> Option<()> {
        let text = input.nullable()?;
        if !text.value.is_empty() {
            frame.field_from(tag, text.value, text.piece);
        }
        self.append(text)
    }

    #[inline(always)]
    fn append(&mut self, text: Text<'_>) -> Option<()> {
        let end = self.used + text.value.len();
        if text.value.len() <= PIECE
            && let Some(piece) = text.piece
            && let Some(to) = self.bytes.get_mut(self.used..self.used + PIECE)
        {
            to.copy_from_slice(piece);
        } else {
            self.append_long(text.value, end);
        }
        self.used = end;
        self.ends.push(i32::try_from(end).ok()?);
        Some(())
    }

    #[inline(never)]
    fn append_long(&mut self, value: &[u8], end: usize) {
        if end + PIECE > self.bytes.len() {
            self.bytes.resize((2 * end).max(FIRST_BYTES), 0);
        }
        self.bytes[self.used..end].copy_from_slice(value);
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.used = self.ends.last().map_or(0, |&end| usize::try_from(end).unwrap_or(0));
    }

    fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        self.bytes.truncate(self.used);
        self.used = 0;
        // Room for an eighth more than this time, and for the last piece.
        let room = vec![0; self.bytes.len() + self.bytes.len() / 8 + PIECE];
        let bytes = Buffer::from_vec(mem::replace(&mut self.bytes, room));
        Ok(Arc::new(StringArray::try_new(offsets(renewed(&mut self.ends)), bytes, None)?))
    }
}

/// A column of an enum's symbols.
#[derive(Debug)]
struct Symbols {
    keys: Vec<i32>,
    names: Arc<StringArray>,
    /// What each symbol adds to the frame.
    frames: Vec<Vec<u8>>,
}

impl Symbols {
    /// The symbols `names`, which go into the frame under `tag`; `default` does not.
    fn new<'a>(tag: u8, default: &str, names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let frames = names.clone().map(|name| symbol_frame(tag, name.as_bytes(), default)).collect();
        Self { keys: Vec::new(), names: Arc::new(StringArray::from_iter_values(names)), frames }
    }

    #[inline]
    fn symbol(&mut self, input: &mut Input<'_>, frame: &mut Frame) -> Option<()> {
        let key = i32::try_from(input.long()?).ok()?;
        frame.append(self.frames.get(usize::try_from(key).ok()?)?);
        self.keys.push(key);
        Some(())
    }

    fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let keys = Int32Array::new(ScalarBuffer::from(renewed(&mut self.keys)), None);
        let names: ArrayRef = Arc::clone(&self.names) as ArrayRef;
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, names)?))
    }
}

/// A text in a body.
#[derive(Clone, Copy)]
struct Text<'a> {
    value: &'a [u8],
    /// Its first bytes and what follows behind it, where there is as much.
    piece: Option<&'a [u8; PIECE]>,
}

impl Text<'_> {
    const EMPTY: Self = Self { value: &[], piece: Some(&[0; PIECE]) };

    /// Whether the bytes are UTF-8; nearly all are short and ASCII.
    #[inline(always)]
    fn is_utf8(&self) -> bool {
        const HIGH_BITS: u128 = u128::from_ne_bytes([0x80; PIECE]);
        match self.piece {
            Some(piece) if self.value.len() <= PIECE => {
                // Of a piece as a little-endian number the low bytes are the first ones.
                let unused = 8 * (PIECE - self.value.len()) as u32;
                let high = (u128::from_le_bytes(*piece) & HIGH_BITS).checked_shl(unused).unwrap_or(0);
                high == 0 || std::str::from_utf8(self.value).is_ok()
            }
            _ => self.value.is_ascii() || std::str::from_utf8(self.value).is_ok(),
        }
    }
}

/// What is left of a body.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    /// A zigzag varint of at most ten bytes that fits 64 bits.
    #[inline(always)]
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

    /// A string, which is UTF-8.
    #[inline(always)]
    fn text(&mut self) -> Option<Text<'a>> {
        let len = usize::try_from(self.long()?).ok()?;
        let piece = self.rest.first_chunk();
        let (value, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        let text = Text { value, piece };
        // Not `Option::filter`: that is a call, and this is the hottest line of the worker.
        if text.is_utf8() { Some(text) } else { None }
    }

    /// A union of null and string; null is the empty text.
    #[inline(always)]
    fn nullable(&mut self) -> Option<Text<'a>> {
        match self.byte()? {
            0 => Some(Text::EMPTY),
            2 => self.text(),
            _ => None,
        }
    }

    /// A uuid's 36 characters. Other spellings are for the long way to judge.
    #[inline]
    fn uuid(&mut self) -> Option<&'a [u8]> {
        self.text().map(|text| text.value).filter(|text| text.len() == 36)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use arrow_array::Array as _;
    use arrow_array::cast::AsArray;
    use proptest::prelude::*;

    use super::*;
    use crate::batch::new_decoder;
    use crate::columns::conform;
    use crate::event::{Actor, AuditEvent};
    use crate::{AUDIT_EVENT_V1, Framing, Schemas, V1_FINGERPRINT, WriterId, content_hash, encode};

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
        let mut decoder = new_decoder(AUDIT_EVENT_V1).unwrap();
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
            let accepted: Vec<Vec<u8>> = bodies.iter().filter(|body| lane.push(body).is_some()).cloned().collect();
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
            assert!(bodies.iter().all(|body| lane.push(body).is_some()));
            assert_eq!(taken(&mut lane, &schemas), long_way(&schemas, &bodies));
        }
    }
}
