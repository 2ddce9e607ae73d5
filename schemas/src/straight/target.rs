//! Where the fields of the reader schema go: which column, and which place in the canonical body.

use apache_avro::Schema;
use apache_avro::schema::{EnumSchema, RecordField, RecordSchema, UuidSchema};

use super::steps::{CHANGE_PATH, CHANGE_TEXTS, Form, NUMBERS, ROW_TEXTS, SYMBOLS, TEXTS};
use crate::compile::REQUIRED;
use crate::hash::V1_COLUMNS;

/// Values of the canonical body; the changes are one.
pub(super) const LEAVES: usize = 28;
/// The field that is not content.
const PRODUCER: &str = "producer";

/// A field of the reader schema.
pub(super) struct ReaderField<'s> {
    pub(super) field: &'s RecordField,
    pub(super) target: Target<'s>,
    /// Its number in the canonical body; none of a record, and of what is not v1's content.
    pub(super) leaf: Option<usize>,
}

/// What it becomes. Columns are numbered as in [`super::steps::Step`].
pub(super) enum Target<'s> {
    EventId,
    OccurredAt,
    Text { column: usize, form: Form },
    Symbol { column: usize, symbols: &'s EnumSchema },
    Long(usize),
    Changes(Vec<ReaderField<'s>>),
    Record(Vec<ReaderField<'s>>),
}

/// The fields of the reader schema; `None` when it is not v1 with texts behind.
pub(super) fn fields_of(reader: &RecordSchema) -> Option<Vec<ReaderField<'_>>> {
    let mut numbers = Numbers { text: 0, symbol: 0, long: 1, leaf: 0 };
    let (v1, later) = reader.fields.split_at_checked(V1_COLUMNS)?;
    let mut fields = numbers.fields(v1, true)?;
    let counted = (numbers.text, numbers.symbol, numbers.long, numbers.leaf);
    if counted != (ROW_TEXTS, SYMBOLS, NUMBERS, LEAVES) {
        return None;
    }
    for (number, field) in later.iter().enumerate() {
        let target = Target::Text { column: TEXTS + number, form: form(&field.schema)? };
        fields.push(ReaderField { field, target, leaf: None });
    }
    Some(fields)
}

/// Columns and places given away so far.
struct Numbers {
    text: usize,
    symbol: usize,
    long: usize,
    leaf: usize,
}

impl Numbers {
    fn fields<'s>(&mut self, fields: &'s [RecordField], is_top: bool) -> Option<Vec<ReaderField<'s>>> {
        let mut done = Vec::with_capacity(fields.len());
        for field in fields {
            let is_content = field.name != PRODUCER || !is_top;
            let before = self.leaf;
            let target = self.target(field, is_top)?;
            if !is_content {
                self.leaf = before;
            }
            let is_record = matches!(target, Target::Record(_));
            let mut field = ReaderField { field, target, leaf: None };
            match &mut field.target {
                Target::Record(inner) if !is_content => inner.iter_mut().for_each(|inner| inner.leaf = None),
                _ if !is_record => {
                    field.leaf = Some(self.leaf);
                    self.leaf += 1;
                }
                _ => {}
            }
            done.push(field);
        }
        Some(done)
    }

    fn target<'s>(&mut self, field: &'s RecordField, is_top: bool) -> Option<Target<'s>> {
        Some(match &field.schema {
            Schema::Uuid(UuidSchema::String) => Target::EventId,
            Schema::TimestampMicros => Target::OccurredAt,
            Schema::Record(record) => Target::Record(self.fields(&record.fields, false)?),
            Schema::Enum(symbols) => {
                self.symbol += 1;
                Target::Symbol { column: self.symbol - 1, symbols }
            }
            Schema::Long => {
                self.long += 1;
                Target::Long(self.long - 1)
            }
            Schema::Array(list) => {
                let Schema::Record(item) = &*list.items else { return None };
                let mut of_item = Numbers { text: CHANGE_PATH, symbol: SYMBOLS, long: NUMBERS, leaf: 0 };
                let mut fields = of_item.fields(&item.fields, false)?;
                let counted = (of_item.text, of_item.symbol, of_item.long);
                if counted != (CHANGE_PATH + CHANGE_TEXTS, SYMBOLS, NUMBERS) {
                    return None;
                }
                // The list is one place in the canonical body.
                fields.iter_mut().for_each(|field| field.leaf = None);
                Target::Changes(fields)
            }
            other => {
                let form = form(other)?;
                self.text += 1;
                let is_required = is_top && REQUIRED.contains(&field.name.as_str());
                Target::Text { column: self.text - 1, form: if is_required { Form::Required } else { form } }
            }
        })
    }
}

fn form(schema: &Schema) -> Option<Form> {
    match schema {
        Schema::String => Some(Form::Any),
        Schema::Union(union) => (union.variants() == [Schema::Null, Schema::String]).then_some(Form::Nullable),
        _ => None,
    }
}
