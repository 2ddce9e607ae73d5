//! One Arrow schema for all writers.
//!
//! arrow-avro notes in field metadata what its resolution did (defaults used, Avro names), so that two writers' batches
//! differ in schema though not in shape. Here that metadata is taken off, nested types included; no value is copied.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt16Type;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, StringArray, StructArray};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema, SchemaRef};

/// The schema without metadata.
pub(crate) fn plain_schema(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(plain_field).collect::<Vec<_>>())
}

fn plain_field(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::List(item) => DataType::List(plain_field(item)),
        other => other.clone(),
    };
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
}

/// The batch with plain texts, as the schema has them, where it has dictionaries of words.
///
/// # Errors
/// The batch has another shape than the schema.
pub fn without_words(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    conform(batch, schema)
}

/// The batch's columns under a schema of the same shape.
///
/// # Errors
/// The shape differs.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns =
        batch.columns().iter().zip(schema.fields()).map(|(column, field)| conform_column(column, field.data_type()));
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)
}

fn conform_column(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    match (column.data_type(), to) {
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let from = column.as_struct();
            let columns =
                from.columns().iter().zip(fields).map(|(column, field)| conform_column(column, field.data_type()));
            let columns = columns.collect::<Result<_, _>>()?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), columns, from.nulls().cloned())?))
        }
        (DataType::List(_), DataType::List(item)) => {
            let from = column.as_list::<i32>();
            let items = conform_column(from.values(), item.data_type())?;
            Ok(Arc::new(ListArray::try_new(item.clone(), from.offsets().clone(), items, from.nulls().cloned())?))
        }
        (DataType::Dictionary(_, _), DataType::Utf8) => {
            let words = column.as_dictionary_opt::<UInt16Type>().and_then(|c| c.downcast_dict::<StringArray>());
            let words = words.ok_or_else(|| ArrowError::SchemaError("a dictionary of another kind".to_owned()))?;
            Ok(Arc::new(words.into_iter().collect::<StringArray>()))
        }
        _ => Ok(column.clone()),
    }
}
