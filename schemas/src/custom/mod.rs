//! Custom fields: a service's own Avro record, carried in an event's `details` as JSON text, without loss and with its types on record.
//!
//! ```
//! use auditstream_schemas::custom::CustomSchema;
//!
//! #[derive(serde::Serialize)]
//! struct Order<'a> { amount: &'a str, paid_at: &'a str, lines: u32 }
//!
//! let schema = CustomSchema::parse(r#"{"type":"record","name":"Order","namespace":"shop","fields":[
//!     {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":2}},
//!     {"name":"paid_at","type":{"type":"long","logicalType":"timestamp-millis"}},
//!     {"name":"lines","type":"int"}]}"#)?;
//! let order = Order { amount: "12.3", paid_at: "2026-11-21T21:00:00+01:00", lines: 2 };
//! let details = schema.details("order-details:1", &order)?;
//! assert_eq!(
//!     details,
//!     r#"{"$schema":"order-details:1","amount":"12.30","lines":2,"paid_at":"2026-11-21T20:00:00.000Z"}"#
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | Avro | JSON in `details` |
//! |---|---|
//! | boolean, int, long | itself; a long keeps all its digits, so read it with a parser that does |
//! | float, double | the shortest number that is read back as the same; `"NaN"`, `"Infinity"`, `"-Infinity"` as text |
//! | string, enum | text |
//! | bytes, fixed | text, base64 with padding (RFC 4648, 4) |
//! | decimal | text with exactly its scale: `"12.30"` |
//! | uuid | text, hyphenated, lower case |
//! | date | text, `"2026-11-21"`; years 1 to 9999, as for all times |
//! | time-millis, -micros | text, `"20:35:48.123"` |
//! | timestamp-millis, -micros, -nanos | text in UTC with exactly its digits, `"2026-11-21T20:35:48.123456Z"` |
//! | local-timestamp-* | the same without `Z` |
//! | array, map, record | array, object |
//! | `["null", T]` | `null`, or T |
//! | other unions | `null`, or `{"BRANCH": value}` as in Avro's own JSON |
//!
//! The reserved key `$schema` says which record it is: `SUBJECT:VERSION`. Avro allows no `$` in a name, so it never meets a field.
//!
//! Promises: what [`CustomSchema::details`] takes, [`CustomSchema::read`] gives back equal; what does not fit is an error that names the field and the
//! value's kind, never the value.

mod branch;
mod decimal;
mod default;
mod read;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
mod time;
mod write;

use std::collections::HashMap;
use std::fmt;

use apache_avro::Schema;
use apache_avro::schema::{Name, ResolvedSchema};
use apache_avro::types::Value;
use serde::Serialize;

use crate::json_form::branch_name;

/// The reserved key.
pub const SCHEMA_KEY: &str = "$schema";

/// Values in values, at the most.
const MAX_DEPTH: usize = 64;

/// A record's schema that custom fields can be written with.
#[derive(Clone, Debug)]
pub struct CustomSchema {
    schema: Schema,
    names: HashMap<Name, Schema>,
}

/// Why a schema can't be used for custom fields.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CustomSchemaError {
    /// The text is no Avro schema.
    #[error("not a valid Avro schema")]
    Parse(#[source] Box<apache_avro::Error>),
    /// It is one, but not of a record.
    #[error("the schema of custom fields must be a record")]
    NotARecord,
    /// A field's type has no form in JSON here.
    #[error("{field}: {reason}")]
    Unsupported {
        /// The field's path.
        field: String,
        /// What is the matter.
        reason: String,
    },
}

/// A value that does not fit its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomFault {
    /// Where: `lines[3].sku`; empty for the whole.
    pub field: String,
    /// What is there: its kind, never the value.
    pub found: String,
    /// What would be right.
    pub expected: String,
}

impl fmt::Display for CustomFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() { "the record" } else { &self.field };
        write!(f, "{field}: found {}, expected {}", self.found, self.expected)
    }
}

impl std::error::Error for CustomFault {}

impl CustomSchema {
    /// Takes a record's schema, Avro's JSON, complete: what it refers to is part of the text.
    ///
    /// # Errors
    /// It is no record, or holds `duration`, `big-decimal`, a decimal of more than 10,000 digits, or a union of two types that look alike in JSON.
    pub fn parse(json: &str) -> Result<Self, CustomSchemaError> {
        let parse = |error| CustomSchemaError::Parse(Box::new(error));
        let schema = Schema::parse_str(json).map_err(parse)?;
        if !matches!(schema, Schema::Record(_)) {
            return Err(CustomSchemaError::NotARecord);
        }
        let resolved = ResolvedSchema::new(&schema).map_err(parse)?;
        let names = resolved.get_names().iter().map(|(name, schema)| (name.clone(), (*schema).clone())).collect();
        supported(&schema, "")?;
        Ok(Self { schema, names })
    }

    /// The details of an event for a value: serde's view of it, checked against the schema field by field. Text is taken where JSON has text (see the
    /// table above), a time also as the number that Avro stores, a decimal also as a whole number. serde has no word for a union's branch: an enum
    /// with data names it by its variant, any other value goes to the nearest branch that takes it.
    ///
    /// # Errors
    /// The first field that does not fit.
    pub fn details<T: Serialize>(&self, mark: &str, value: &T) -> Result<String, CustomFault> {
        let value = apache_avro::to_value(value).map_err(|error| CustomFault {
            field: String::new(),
            found: format!("a value that Avro has no type for ({error})"),
            expected: "a struct or a map of fields".to_owned(),
        })?;
        self.details_of(mark, &value)
    }

    /// [`Self::details`] of an Avro value.
    ///
    /// # Errors
    /// The first field that does not fit.
    pub fn details_of(&self, mark: &str, value: &Value) -> Result<String, CustomFault> {
        let mut json = write::Writer::new(&self.names).write(&self.schema, value)?;
        if let Some(object) = json.as_object_mut() {
            object.insert(SCHEMA_KEY.to_owned(), mark.into());
        }
        Ok(json.to_string())
    }

    /// The record out of an event's details. Keys that the schema does not have are left out; fields that are missing have their default, or null.
    ///
    /// # Errors
    /// The first field that does not fit.
    pub fn read(&self, details: &str) -> Result<Value, CustomFault> {
        read::Reader::new(&self.names).read(&self.schema, details)
    }
}

/// Subject and version that details are marked with.
#[must_use]
pub fn mark_of(details: &str) -> Option<(String, u32)> {
    let object: HashMap<String, &serde_json::value::RawValue> = serde_json::from_str(details).ok()?;
    let mark: String = serde_json::from_str(object.get(SCHEMA_KEY)?.get()).ok()?;
    let (subject, version) = mark.rsplit_once(':')?;
    Some((subject.to_owned(), version.parse().ok()?))
}

/// Where there is more than one type, each must look different in JSON.
fn supported(schema: &Schema, field: &str) -> Result<(), CustomSchemaError> {
    let no = |reason: String| Err(CustomSchemaError::Unsupported { field: field.to_owned(), reason });
    match schema {
        Schema::Duration(_) => no("a duration has no form in JSON here; use a record of three numbers".to_owned()),
        Schema::BigDecimal => no("a big-decimal has no type in ClickHouse; use decimal with a precision".to_owned()),
        Schema::Decimal(of) if of.precision > decimal::MAX_PRECISION => no(format!(
            "a decimal of {} digits is too long; use a precision of at most {}",
            of.precision,
            decimal::MAX_PRECISION
        )),
        Schema::Array(array) => supported(&array.items, &format!("{field}[]")),
        Schema::Map(map) => supported(&map.types, &format!("{field}[]")),
        Schema::Union(union) => {
            let mut seen = Vec::new();
            for branch in union.variants() {
                let name = branch_name(branch);
                if seen.contains(&name) {
                    return no(format!("its union has two branches {name}"));
                }
                seen.push(name);
                supported(branch, field)?;
            }
            Ok(())
        }
        Schema::Record(record) => record.fields.iter().try_for_each(|inner| {
            supported(
                &inner.schema,
                &if field.is_empty() { inner.name.clone() } else { format!("{field}.{}", inner.name) },
            )
        }),
        _ => Ok(()),
    }
}

/// How a union is written.
enum Union<'s> {
    /// `["null", T]`, `T` alone, or nothing but null: the index of null, and of the type.
    Nullable {
        null: Option<usize>,
        of: Option<(usize, &'s Schema)>,
    },
    Tagged(&'s [Schema]),
}

fn union(variants: &[Schema]) -> Union<'_> {
    match variants {
        [Schema::Null] => Union::Nullable { null: Some(0), of: None },
        [Schema::Null, of] => Union::Nullable { null: Some(0), of: Some((1, of)) },
        [of, Schema::Null] => Union::Nullable { null: Some(1), of: Some((0, of)) },
        [of] => Union::Nullable { null: None, of: Some((0, of)) },
        more => Union::Tagged(more),
    }
}

/// A union's index.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// What a type takes, in words.
fn expected(schema: &Schema) -> String {
    let text = match schema {
        Schema::Null => "null",
        Schema::Boolean => "true or false",
        Schema::Int => "a whole number of 32 bits",
        Schema::Long => "a whole number of 64 bits",
        Schema::Float => "a number of 32 bits",
        Schema::Double => "a number",
        Schema::Bytes => "bytes",
        Schema::String => "text",
        Schema::Array(_) => "a list",
        Schema::Map(_) => "a map",
        Schema::Union(union) => {
            let names: Vec<_> = union.variants().iter().map(branch_name).collect();
            return format!("one of {}", names.join(", "));
        }
        Schema::Record(record) => return format!("a record {}", record.name.fullname(None)),
        Schema::Enum(symbols) => return format!("one of {}", symbols.symbols.join(", ")),
        Schema::Fixed(fixed) => return format!("{} bytes", fixed.size),
        Schema::Decimal(decimal) => {
            return format!(
                "a decimal as text, of at most {} digits, {} of them behind the point",
                decimal.precision, decimal.scale
            );
        }
        Schema::Uuid(_) => "a uuid",
        Schema::Date => "a date such as 2026-11-21, from year 1 to 9999",
        Schema::TimeMillis => "a time of day such as 20:35:48.123",
        Schema::TimeMicros => "a time of day such as 20:35:48.123456",
        Schema::TimestampMillis | Schema::TimestampMicros | Schema::TimestampNanos => {
            "a time with its offset such as 2026-11-21T20:35:48Z, from year 1 to 9999, without finer digits than the type has"
        }
        Schema::LocalTimestampMillis | Schema::LocalTimestampMicros | Schema::LocalTimestampNanos => {
            "a local time such as 2026-11-21T20:35:48, from year 1 to 9999, without finer digits than the type has"
        }
        Schema::Ref { name } => return format!("a {}", name.fullname(None)),
        Schema::BigDecimal | Schema::Duration(_) => "another type",
    };
    text.to_owned()
}

/// A path of field names and indices, for faults.
#[derive(Debug, Default)]
struct Path(String);

impl Path {
    fn field(&mut self, name: &str) -> usize {
        let before = self.0.len();
        if before > 0 {
            self.0.push('.');
        }
        self.0.push_str(name);
        before
    }

    fn item(&mut self, at: impl fmt::Display) -> usize {
        let before = self.0.len();
        self.0.push_str(&format!("[{at}]"));
        before
    }

    fn back(&mut self, before: usize) {
        self.0.truncate(before);
    }

    fn fault(&self, found: impl Into<String>, expected: impl Into<String>) -> CustomFault {
        CustomFault { field: self.0.clone(), found: found.into(), expected: expected.into() }
    }
}
