//! What a field has that is not given: its default, from the schema's JSON to Avro's exact value. Done here because `Value::resolve` knows no named
//! types, and takes the text of bytes as UTF-8 where Avro means a byte a character.

use std::collections::HashMap;

use apache_avro::schema::{Name, RecordField, UuidSchema};
use apache_avro::types::Value;
use apache_avro::{Decimal, Schema};
use serde_json::Value as Json;

use super::{MAX_DEPTH, index, write};

/// Values that defaults make up in one record, at the most: a default `{}` stands for as much as its type's own defaults do, and so on.
const MAX_VALUES: usize = 200_000;

pub(super) struct Defaults<'s> {
    names: &'s HashMap<Name, Schema>,
    left: usize,
}

impl<'s> Defaults<'s> {
    pub(super) fn new(names: &'s HashMap<Name, Schema>) -> Self {
        Self { names, left: MAX_VALUES }
    }

    /// The default, or null where that may be. What was found instead when there is neither; `depth` is the record's.
    pub(super) fn of(&mut self, field: &RecordField, depth: usize) -> Result<Value, &'static str> {
        if let Some(default) = &field.default {
            return self.value(&field.schema, default, depth).ok_or("nothing, and a default that does not fit");
        }
        let null = match &field.schema {
            Schema::Union(of) => of.variants().iter().position(|branch| *branch == Schema::Null),
            _ => None,
        };
        null.map(|at| Value::Union(index(at), Box::new(Value::Null))).ok_or("nothing")
    }

    fn value(&mut self, schema: &Schema, json: &Json, depth: usize) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        if depth >= MAX_DEPTH {
            return None;
        }
        let depth = depth + 1;
        match (schema, json) {
            (Schema::Ref { name }, json) => {
                let names = self.names;
                self.value(names.get(name)?, json, depth)
            }
            (Schema::Union(of), Json::Null) => {
                let null = of.variants().iter().position(|branch| *branch == Schema::Null)?;
                Some(Value::Union(index(null), Box::new(Value::Null)))
            }
            (Schema::Union(of), json) => of.variants().iter().enumerate().find_map(|(at, branch)| {
                let value = self.value(branch, json, depth)?;
                Some(Value::Union(index(at), Box::new(value)))
            }),
            (Schema::Array(of), Json::Array(items)) => {
                items.iter().map(|item| self.value(&of.items, item, depth)).collect::<Option<_>>().map(Value::Array)
            }
            (Schema::Map(of), Json::Object(members)) => {
                let members = members.iter();
                let values = members.map(|(key, item)| Some((key.clone(), self.value(&of.types, item, depth)?)));
                values.collect::<Option<_>>().map(Value::Map)
            }
            (Schema::Record(of), Json::Object(members)) => {
                let values = of.fields.iter().map(|field| {
                    let value = match members.get(&field.name) {
                        Some(json) => self.value(&field.schema, json, depth)?,
                        None => self.of(field, depth).ok()?,
                    };
                    Some((field.name.clone(), value))
                });
                values.collect::<Option<_>>().map(Value::Record)
            }
            // What could not be written is no default either.
            (schema, json) => scalar(schema, json).filter(|value| write::scalar(schema, value).is_some()),
        }
    }
}

fn scalar(schema: &Schema, json: &Json) -> Option<Value> {
    Some(match (schema, json) {
        (Schema::Null, Json::Null) => Value::Null,
        (Schema::Boolean, Json::Bool(is)) => Value::Boolean(*is),
        (Schema::Int, json) => Value::Int(int(json)?),
        (Schema::Long, json) => Value::Long(json.as_i64()?),
        (Schema::Float, json) => {
            let number = double(json)?;
            let narrow = number as f32;
            Value::Float((narrow.is_finite() || !number.is_finite()).then_some(narrow)?)
        }
        (Schema::Double, json) => Value::Double(double(json)?),
        (Schema::String, Json::String(text)) => Value::String(text.clone()),
        (Schema::Bytes, Json::String(text)) => Value::Bytes(bytes(text)?),
        (Schema::Fixed(of), Json::String(text)) => {
            Value::Fixed(of.size, bytes(text).filter(|bytes| bytes.len() == of.size)?)
        }
        (Schema::Decimal(_), Json::String(text)) => Value::Decimal(Decimal::from(bytes(text)?)),
        (Schema::Enum(of), Json::String(text)) => {
            Value::Enum(index(of.symbols.iter().position(|symbol| symbol == text)?), text.clone())
        }
        (Schema::Uuid(UuidSchema::String), Json::String(text)) => Value::Uuid(uuid::Uuid::try_parse(text).ok()?),
        (Schema::Uuid(_), Json::String(text)) => Value::Uuid(uuid::Uuid::from_slice(&bytes(text)?).ok()?),
        (Schema::Date, json) => Value::Date(int(json)?),
        (Schema::TimeMillis, json) => Value::TimeMillis(int(json)?),
        (Schema::TimeMicros, json) => Value::TimeMicros(json.as_i64()?),
        (Schema::TimestampMillis, json) => Value::TimestampMillis(json.as_i64()?),
        (Schema::TimestampMicros, json) => Value::TimestampMicros(json.as_i64()?),
        (Schema::TimestampNanos, json) => Value::TimestampNanos(json.as_i64()?),
        (Schema::LocalTimestampMillis, json) => Value::LocalTimestampMillis(json.as_i64()?),
        (Schema::LocalTimestampMicros, json) => Value::LocalTimestampMicros(json.as_i64()?),
        (Schema::LocalTimestampNanos, json) => Value::LocalTimestampNanos(json.as_i64()?),
        _ => return None,
    })
}

fn int(json: &Json) -> Option<i32> {
    i32::try_from(json.as_i64()?).ok()
}

/// A number, or text for what JSON has no number for.
fn double(json: &Json) -> Option<f64> {
    match json.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("INF" | "Infinity") => Some(f64::INFINITY),
        Some("-INF" | "-Infinity") => Some(f64::NEG_INFINITY),
        _ => json.as_f64(),
    }
}

/// Avro's text for bytes: a byte a character, U+0000 to U+00FF.
fn bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A record T with fields of T itself, each with the default `{}`: Avro's parser lets no text say so.
    fn endless(kind: impl Fn(Schema) -> Schema) -> (HashMap<Name, Schema>, RecordField) {
        let json = r#"{"type":"record","name":"T","fields":[
            {"name":"a","type":["null","T"],"default":null},{"name":"b","type":["null","T"],"default":null}]}"#;
        let Schema::Record(mut record) = Schema::parse_str(json).unwrap() else { panic!() };
        for field in &mut record.fields {
            field.schema = kind(Schema::Ref { name: record.name.clone() });
            field.default = Some(json!({}));
        }
        let field = record.fields[0].clone();
        (HashMap::from([(record.name.clone(), Schema::Record(record))]), field)
    }

    #[test]
    fn defaults_without_end_do_not_fit() {
        let (names, field) = endless(|schema| schema);
        assert_eq!(Defaults::new(&names).of(&field, 0).unwrap_err(), "nothing, and a default that does not fit");
        // Each level could be tried as either branch: the bound on depth alone would leave 2^64 tries.
        let (mut names, field) = endless(|schema| schema);
        let Some(Schema::Record(record)) = names.values().next().cloned() else { panic!() };
        let mut twin = record.clone();
        twin.name = Name::new("Twin").unwrap();
        let branches = [&record.name, &twin.name].map(|name| Schema::Ref { name: name.clone() });
        let union = apache_avro::schema::UnionSchema::new(branches.to_vec());
        let union = Schema::Union(union.unwrap());
        for mut record in [record, twin] {
            record.fields.iter_mut().for_each(|field| field.schema = union.clone());
            names.insert(record.name.clone(), Schema::Record(record));
        }
        let field = RecordField { schema: union, ..field };
        let mut defaults = Defaults::new(&names);
        assert!(defaults.of(&field, 0).is_err());
        assert_eq!(defaults.left, 0);
    }
}
