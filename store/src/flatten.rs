//! Turns a decoded batch (nested, with nulls) into the event table's flat columns, copying as little as possible.
//!
//! Values and offsets are shared with the input. What is dropped is the null mask of text columns: a null slot has no bytes, so without the mask
//! it is the empty string, which is how the table stores an absent value. Where a null slot does have bytes the column is rebuilt.

use std::sync::Arc;

use arrow_array::types::UInt16Type;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray, TimestampMillisecondArray, UInt16Array, UInt64Array,
};
use arrow_schema::{ArrowError, Field, Schema};
use auditstream_schemas::Position;

use crate::columns::{EVENT_COLUMNS, Source};
use crate::faults;

/// Why a decoded batch could not be turned into the table's columns. A fault of the program, not of a record.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The decoded batch has not got the column, or has it with another type.
    #[error("decoded batch: column {column} is {found}, expected {expected}")]
    Shape {
        /// The event table's column.
        column: &'static str,
        /// What the batch has.
        found: String,
        /// What it should have.
        expected: &'static str,
    },
    /// The number of positions is not the number of rows.
    #[error("decoded batch has {rows} rows and {positions} positions")]
    Positions {
        /// Rows of the batch.
        rows: usize,
        /// Positions that came with it.
        positions: usize,
    },
    /// Arrow refused to build or write a batch.
    #[error("arrow batch")]
    Arrow(#[from] ArrowError),
}

/// The flat batch for `batch`, whose rows were read from `positions` of `topic`.
pub(crate) fn flatten(
    batch: &RecordBatch,
    positions: &[Position],
    topic: &str,
    content_hash: FixedSizeBinaryArray,
) -> Result<RecordBatch, BodyError> {
    if positions.len() != batch.num_rows() {
        return Err(BodyError::Positions { rows: batch.num_rows(), positions: positions.len() });
    }
    let content_hash: ArrayRef = Arc::new(content_hash);
    let mut fields = Vec::with_capacity(EVENT_COLUMNS.len());
    let mut arrays = Vec::with_capacity(EVENT_COLUMNS.len());
    for column in EVENT_COLUMNS.iter().chain(faults::later_columns()) {
        let array = match column.source {
            Source::Field(name) => without_nulls(column.name, top(batch, column.name, name)?)?,
            Source::Child(record, name) => {
                without_nulls(column.name, child(column.name, top(batch, column.name, record)?, name)?)?
            }
            Source::Change(name) => change(column.name, top(batch, column.name, "changes")?, name)?,
            Source::ContentHash => Arc::clone(&content_hash),
            Source::ReceivedAt => {
                let times = TimestampMillisecondArray::from_iter_values(positions.iter().map(|at| at.timestamp_ms));
                Arc::new(times.with_timezone("UTC"))
            }
            Source::Version => {
                Arc::new(UInt64Array::from_iter_values(positions.iter().map(|at| version(at.timestamp_ms))))
            }
            Source::Topic => one_word(topic, batch.num_rows())?,
            Source::Partition => Arc::new(Int32Array::from_iter_values(positions.iter().map(|at| at.partition))),
            Source::Offset => Arc::new(Int64Array::from_iter_values(positions.iter().map(|at| at.offset))),
        };
        fields.push(Field::new(column.name, array.data_type().clone(), false));
        arrays.push(array);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// The earlier the record, the higher its version, so that `ReplacingMergeTree` keeps the first write. Times before 1970 count as 1970. Milliseconds, as
/// Kafka has them: in microseconds the column takes a byte more of each row on disk.
pub(crate) fn version(timestamp_ms: i64) -> u64 {
    u64::MAX - u64::try_from(timestamp_ms).unwrap_or(0)
}

/// A column that is `word`, which is not empty, in each of `rows` rows.
fn one_word(word: &str, rows: usize) -> Result<ArrayRef, BodyError> {
    let (keys, words) = (UInt16Array::from(vec![1; rows]), StringArray::from(vec!["", word]));
    Ok(Arc::new(DictionaryArray::<UInt16Type>::try_new(keys, Arc::new(words))?))
}

fn top<'a>(batch: &'a RecordBatch, column: &'static str, field: &str) -> Result<&'a ArrayRef, BodyError> {
    batch.column_by_name(field).ok_or_else(|| missing(column))
}

fn child<'a>(column: &'static str, record: &'a ArrayRef, name: &str) -> Result<&'a ArrayRef, BodyError> {
    let record = record.as_any().downcast_ref::<StructArray>().ok_or_else(|| wrong(column, record, "a struct"))?;
    if record.null_count() > 0 {
        return Err(wrong_text(column, "a struct with nulls", "a struct without nulls"));
    }
    record.column_by_name(name).ok_or_else(|| missing(column))
}

/// One child of the records in a list, as a list of its own with the same offsets.
fn change(column: &'static str, list: &ArrayRef, name: &str) -> Result<ArrayRef, BodyError> {
    let list = list.as_any().downcast_ref::<ListArray>().ok_or_else(|| wrong(column, list, "a list"))?;
    if list.null_count() > 0 {
        return Err(wrong_text(column, "a list with nulls", "a list without nulls"));
    }
    let values = without_nulls(column, child(column, list.values(), name)?)?;
    let item = Arc::new(Field::new("item", values.data_type().clone(), false));
    Ok(Arc::new(ListArray::try_new(item, list.offsets().clone(), values, None)?))
}

/// The same values with null texts as empty texts; any other type must have no nulls.
fn without_nulls(column: &'static str, array: &ArrayRef) -> Result<ArrayRef, BodyError> {
    let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) else {
        return Ok(Arc::clone(array));
    };
    let text = text(column, array)?;
    let offsets = text.value_offsets();
    let null_slots_are_empty =
        (0..text.len()).filter(|&row| nulls.is_null(row)).all(|row| offsets[row] == offsets[row + 1]);
    if null_slots_are_empty {
        let (offsets, values, _nulls) = text.clone().into_parts();
        // Checks the text's encoding once more, at more than ten gigabytes a second.
        Ok(Arc::new(StringArray::try_new(offsets, values, None)?))
    } else {
        Ok(Arc::new(StringArray::from_iter_values(text.iter().map(Option::unwrap_or_default))))
    }
}

fn text<'a>(column: &'static str, array: &'a ArrayRef) -> Result<&'a StringArray, BodyError> {
    array
        .as_any()
        .downcast_ref::<StringArray>()
        .ok_or_else(|| wrong(column, array, "a text, or a column without nulls"))
}

fn missing(column: &'static str) -> BodyError {
    wrong_text(column, "missing", "present")
}

fn wrong(column: &'static str, found: &ArrayRef, expected: &'static str) -> BodyError {
    wrong_text(column, &found.data_type().to_string(), expected)
}

fn wrong_text(column: &'static str, found: &str, expected: &'static str) -> BodyError {
    BodyError::Shape { column, found: found.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int64Type, TimestampMillisecondType, UInt64Type};
    use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
    use auditstream_schemas::{AuditEvent, content_hash};

    use super::*;
    use crate::testing::{decoded, event};

    fn flat(events: &[AuditEvent]) -> RecordBatch {
        let decoded = decoded(events, 10);
        flatten(&decoded.batch, &decoded.positions, "audit.events", content_hash(&decoded.batch).unwrap()).unwrap()
    }

    fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
        batch[column].as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect()
    }

    #[test]
    fn every_column_is_there_in_order_and_without_nulls() {
        let batch = flat(&[event(0), event(1), event(2)]);
        let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        let expected: Vec<_> = EVENT_COLUMNS.iter().map(|column| column.name).collect();
        assert_eq!(names, expected);
        assert!(batch.columns().iter().all(|column| column.logical_null_count() == 0));
    }

    #[test]
    fn absent_texts_are_empty_and_present_ones_stay_at_their_row() {
        // Of three events the middle one has an ip and an actor name.
        let mut middle = event(1);
        middle.ip = Some("192.0.2.1".into());
        middle.actor.name = Some("Ada".into());
        let batch = flat(&[event(0), middle, event(2)]);
        assert_eq!(texts(&batch, "ip"), ["", "192.0.2.1", ""]);
        assert_eq!(texts(&batch, "actor_name"), ["", "Ada", ""]);
    }

    #[test]
    fn changes_become_lists_of_one_length_a_row() {
        let mut changed = event(1);
        changed.changes = vec![
            auditstream_schemas::Change { path: "/a".into(), old: None, new: Some("1".into()) },
            auditstream_schemas::Change { path: "/b".into(), old: Some("null".into()), new: None },
        ];
        let batch = flat(&[event(0), changed]);
        let list = |name: &str| -> Vec<Vec<String>> {
            batch[name]
                .as_list::<i32>()
                .iter()
                .map(|row| row.unwrap().as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect())
                .collect()
        };
        assert_eq!(list("changes.path"), [vec![], vec!["/a", "/b"]]);
        assert_eq!(list("changes.old"), [vec![], vec!["", "null"]]);
        assert_eq!(list("changes.new"), [vec![], vec!["1", ""]]);
    }

    #[test]
    fn positions_become_columns_and_the_first_write_wins() {
        let batch = flat(&[event(0), event(1)]);
        assert_eq!(batch["_offset"].as_primitive::<Int64Type>().values(), &[10, 11]);
        let received = batch["received_at"].as_primitive::<TimestampMillisecondType>().values().to_vec();
        assert_eq!(received, [1_790_000_000_010, 1_790_000_000_011]);
        let versions = batch["version"].as_primitive::<UInt64Type>().values().to_vec();
        assert_eq!(versions[0], u64::MAX - 1_790_000_000_010);
        assert!(versions[0] > versions[1]);
        assert_eq!([version(-1), version(i64::MIN), version(i64::MAX)], [u64::MAX, u64::MAX, 1 << 63]);
    }

    #[test]
    fn a_null_slot_with_bytes_in_it_is_emptied() {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, 1, 4, 5]));
        let nulls = NullBuffer::from(vec![true, false, true]);
        let dirty: ArrayRef = Arc::new(StringArray::new(offsets, Buffer::from(b"asecb".as_slice()), Some(nulls)));
        let clean = without_nulls("ip", &dirty).unwrap();
        let texts: Vec<_> = clean.as_string::<i32>().iter().collect();
        assert_eq!(texts, [Some("a"), Some(""), Some("b")]);
    }

    #[test]
    fn a_batch_of_another_shape_is_refused_by_the_column_s_name() {
        let decoded = decoded(&[event(0)], 0);
        let hash = content_hash(&decoded.batch).unwrap();
        let index = decoded.batch.schema().index_of("ip").unwrap();
        let mut without = decoded.batch.clone();
        without.remove_column(index);
        let error = flatten(&without, &decoded.positions, "t", hash.clone()).unwrap_err();
        assert_eq!(error.to_string(), "decoded batch: column ip is missing, expected present");
        let error = flatten(&decoded.batch, &[], "t", hash).unwrap_err();
        assert_eq!(error.to_string(), "decoded batch has 1 rows and 0 positions");
    }
}
