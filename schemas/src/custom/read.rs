//! From JSON back to the value. Works on the text, so that numbers keep their digits.

use std::collections::HashMap;

use apache_avro::schema::{Name, UuidSchema};
use apache_avro::types::Value;
use apache_avro::{Decimal, Schema};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::default::Defaults;
use super::{CustomFault, MAX_DEPTH, Path, Union, branch_name, decimal, expected, index, time, union};

pub(super) struct Reader<'s> {
    names: &'s HashMap<Name, Schema>,
    defaults: Defaults<'s>,
    path: Path,
    depth: usize,
}

type Object<'t> = HashMap<String, &'t RawValue>;

impl<'s> Reader<'s> {
    pub(super) fn new(names: &'s HashMap<Name, Schema>) -> Self {
        Self { names, defaults: Defaults::new(names), path: Path::default(), depth: 0 }
    }

    pub(super) fn read(&mut self, schema: &'s Schema, text: &str) -> Result<Value, CustomFault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.path.fault(format!("values nested deeper than {MAX_DEPTH}"), "fewer levels"));
        }
        let value = match schema {
            Schema::Ref { name } => match self.names.get(name) {
                Some(schema) => self.read(schema, text)?,
                None => return Err(self.wrong(schema, text)),
            },
            Schema::Record(record) => {
                let object: Object<'_> = self.parse(schema, text)?;
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    let before = self.path.field(&field.name);
                    let value = match object.get(&field.name) {
                        Some(raw) => self.read(&field.schema, raw.get())?,
                        None => {
                            let default = self.defaults.of(field, self.depth);
                            default.map_err(|found| self.path.fault(found, expected(&field.schema)))?
                        }
                    };
                    self.path.back(before);
                    fields.push((field.name.clone(), value));
                }
                Value::Record(fields)
            }
            Schema::Array(array) => {
                let items: Vec<&RawValue> = self.parse(schema, text)?;
                let mut values = Vec::with_capacity(items.len());
                for (at, item) in items.into_iter().enumerate() {
                    let before = self.path.item(at);
                    values.push(self.read(&array.items, item.get())?);
                    self.path.back(before);
                }
                Value::Array(values)
            }
            Schema::Map(map) => {
                let object: Object<'_> = self.parse(schema, text)?;
                let mut values = HashMap::with_capacity(object.len());
                for (key, raw) in object {
                    let before = self.path.item("…");
                    values.insert(key, self.read(&map.types, raw.get())?);
                    self.path.back(before);
                }
                Value::Map(values)
            }
            Schema::Union(of) => self.union(schema, union(of.variants()), text)?,
            _ => scalar(schema, text).ok_or_else(|| self.wrong(schema, text))?,
        };
        self.depth -= 1;
        Ok(value)
    }

    fn union(&mut self, schema: &'s Schema, union: Union<'s>, text: &str) -> Result<Value, CustomFault> {
        let null = text.trim() == "null";
        let branches = match union {
            Union::Nullable { null: Some(at), .. } if null => {
                return Ok(Value::Union(index(at), Box::new(Value::Null)));
            }
            Union::Nullable { of: Some((at, of)), .. } => {
                return Ok(Value::Union(index(at), Box::new(self.read(of, text)?)));
            }
            Union::Nullable { .. } => return Err(self.wrong(schema, text)),
            Union::Tagged(branches) => branches,
        };
        let tagged: Option<Object<'_>> = serde_json::from_str(text).ok();
        for (at, branch) in branches.iter().enumerate() {
            if null && *branch == Schema::Null {
                return Ok(Value::Union(index(at), Box::new(Value::Null)));
            }
            let inner = tagged.as_ref().filter(|object| object.len() == 1);
            if let Some(raw) = inner.and_then(|object| object.get(&branch_name(branch))) {
                return Ok(Value::Union(index(at), Box::new(self.read(branch, raw.get())?)));
            }
        }
        Err(self.wrong(schema, text))
    }

    fn parse<'t, T: serde::Deserialize<'t>>(&self, schema: &Schema, text: &'t str) -> Result<T, CustomFault> {
        serde_json::from_str(text).map_err(|_| self.wrong(schema, text))
    }

    fn wrong(&self, schema: &Schema, text: &str) -> CustomFault {
        let found = match text.trim_start().as_bytes().first() {
            Some(b'"') => "text",
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b't' | b'f') => "true or false",
            Some(b'n') => "null",
            Some(b'-' | b'0'..=b'9') => "a number",
            _ => "no JSON",
        };
        self.path.fault(found, expected(schema))
    }
}

fn scalar(schema: &Schema, text: &str) -> Option<Value> {
    let text = text.trim();
    // Numbers are read from their digits: serde_json's own way may miss a double by one bit.
    match schema {
        Schema::Null => return (text == "null").then_some(Value::Null),
        Schema::Boolean => return text.parse().ok().map(Value::Boolean),
        Schema::Int => return text.parse().ok().map(Value::Int),
        Schema::Long => return text.parse().ok().map(Value::Long),
        Schema::Float => return float(text).map(Value::Float),
        Schema::Double => return double(text).map(Value::Double),
        _ => {}
    }
    let text: String = serde_json::from_str(text).ok()?;
    if let Some((per_second, local)) = time::unit(schema) {
        let units = time::timestamp_units(&text, per_second, local)?;
        return Some(match schema {
            Schema::TimestampMillis => Value::TimestampMillis(units),
            Schema::TimestampMicros => Value::TimestampMicros(units),
            Schema::TimestampNanos => Value::TimestampNanos(units),
            Schema::LocalTimestampMillis => Value::LocalTimestampMillis(units),
            Schema::LocalTimestampMicros => Value::LocalTimestampMicros(units),
            _ => Value::LocalTimestampNanos(units),
        });
    }
    Some(match schema {
        Schema::String => Value::String(text),
        Schema::Enum(of) => {
            // A symbol that a later version has added is the default, as in Avro.
            let number = |wanted: &String| of.symbols.iter().position(|symbol| symbol == wanted);
            let symbol = if number(&text).is_some() { text } else { of.default.clone()? };
            Value::Enum(index(number(&symbol)?), symbol)
        }
        Schema::Bytes => Value::Bytes(STANDARD.decode(text).ok()?),
        Schema::Fixed(of) => {
            let bytes = STANDARD.decode(text).ok().filter(|bytes| bytes.len() == of.size)?;
            Value::Fixed(of.size, bytes)
        }
        Schema::Decimal(of) => Value::Decimal(Decimal::from(decimal::from_text(&text, of.precision, of.scale)?)),
        Schema::Uuid(UuidSchema::String | UuidSchema::Bytes | UuidSchema::Fixed(_)) => {
            Value::Uuid(uuid::Uuid::try_parse(&text).ok()?)
        }
        Schema::Date => Value::Date(time::date_days(&text)?),
        Schema::TimeMillis => Value::TimeMillis(i32::try_from(time::clock_units(&text, 1_000)?).ok()?),
        Schema::TimeMicros => Value::TimeMicros(time::clock_units(&text, 1_000_000)?),
        _ => return None,
    })
}

fn float(text: &str) -> Option<f32> {
    let number = double(text)?;
    let narrow = number as f32;
    // Too large a number is none, and not infinity.
    (narrow.is_finite() || !number.is_finite()).then_some(narrow)
}

fn double(text: &str) -> Option<f64> {
    match text {
        r#""NaN""# => Some(f64::NAN),
        r#""Infinity""# => Some(f64::INFINITY),
        r#""-Infinity""# => Some(f64::NEG_INFINITY),
        // What Rust would take beyond JSON's numbers begins with a letter or a point.
        number if number.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            number.parse().ok().filter(|number: &f64| number.is_finite())
        }
        _ => None,
    }
}
