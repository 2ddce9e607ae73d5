//! What must hold before a schema is released: it reads what all earlier versions wrote, the one before reads what it writes, and the golden files
//! stay what they are.
//!
//! Both directions, because workers are upgraded one by one while producers go on: a new worker meets events of every version that is still on the
//! topic (*backward*, against all earlier versions); a worker that is not upgraded yet meets events of the new version (*forward*, against the one
//! before).

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;

pub use crate::compatibility::Carrier;
use crate::compatibility::{Incompatibility, compare};
use crate::decode::decode;
use crate::event::AuditEvent;
use crate::framing::split;
use crate::golden::GoldenFile;
use crate::schemas::{AUDIT_EVENT_V1, SchemaError, Schemas};

/// The released versions of the event's schema with their file names, oldest first; the last one is what this program writes and reads.
pub const AUDIT_EVENT_VERSIONS: &[(&str, &str)] = &[("audit_event.v1.avsc", AUDIT_EVENT_V1)];

/// The full name of the event's record.
pub const AUDIT_EVENT: &str = "auditstream.v1.AuditEvent";

/// Who must read whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The new schema reads what the earlier one wrote.
    Backward,
    /// The earlier schema reads what the new one writes.
    Forward,
}

impl Direction {
    /// `backward` or `forward`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backward => "backward",
            Self::Forward => "forward",
        }
    }
}

/// A schema and what it is called in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// A file's name, or a subject with its version.
    pub name: String,
    /// Avro's JSON.
    pub json: String,
}

/// One comparison of the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The earlier version.
    pub against: String,
    /// Who must read whom.
    pub direction: Direction,
    /// What forbids it; none when it is fine.
    pub problems: Vec<Incompatibility>,
}

/// Compares a schema with earlier ones, oldest first: backward with each, forward with the last. The carrier is JSON for custom fields.
///
/// # Errors
/// The schema, or the earlier one that is named, is none.
pub fn compare_with(
    new: &str,
    earlier: &[Named],
    carrier: Carrier,
) -> Result<Vec<Comparison>, (Option<String>, SchemaError)> {
    let parse = |json: &str| Schema::parse_str(json).map_err(|error| SchemaError::Parse(Box::new(error)));
    let new = parse(new).map_err(|error| (None, error))?;
    let mut comparisons = Vec::new();
    for (index, Named { name, json }) in earlier.iter().enumerate() {
        let at = |error| (Some(name.clone()), error);
        let old = parse(json).map_err(at)?;
        let problems = compare(&new, &old, carrier).map_err(at)?;
        comparisons.push(Comparison { against: name.clone(), direction: Direction::Backward, problems });
        if index + 1 == earlier.len() {
            let problems = compare(&old, &new, carrier).map_err(at)?;
            comparisons.push(Comparison { against: name.clone(), direction: Direction::Forward, problems });
        }
    }
    Ok(comparisons)
}

/// The full name of a record's schema; `None` when it is no record.
///
/// # Errors
/// The text is no schema.
pub fn record_name(json: &str) -> Result<Option<String>, SchemaError> {
    let schema = Schema::parse_str(json).map_err(|error| SchemaError::Parse(Box::new(error)))?;
    Ok(match &schema {
        Schema::Record(record) => Some(record.name.fullname(None)),
        _ => None,
    })
}

/// Whether two texts are one schema for readers and writers, whatever their docs and layout: names, types, defaults and aliases.
///
/// # Errors
/// One of them is no JSON.
pub fn is_same(one: &str, other: &str) -> Result<bool, serde_json::Error> {
    let plain = |text: &str| -> Result<serde_json::Value, serde_json::Error> {
        let mut json = serde_json::from_str(text)?;
        drop_docs(&mut json);
        Ok(json)
    };
    Ok(plain(one)? == plain(other)?)
}

fn drop_docs(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(object) => {
            // A field could be called `doc` only as a value of `name`.
            object.remove("doc");
            object.values_mut().for_each(drop_docs);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_docs),
        _ => {}
    }
}

/// Checks one golden file: it still decodes to its JSON, and with `reader` (a version of the event's schema) each field that both have keeps its value.
///
/// # Errors
/// What is wrong with it, in one sentence.
pub fn check_golden(reader: &str, golden: &GoldenFile) -> Result<(), String> {
    let schemas = Schemas::builtin().map_err(|error| error.to_string())?;
    let event = decode(&schemas, golden.single).map_err(|poison| format!("it is not decoded: {poison}"))?;
    let expected = AuditEvent::from_json(golden.json.as_bytes()).map_err(|error| format!("its JSON: {error}"))?;
    if event.to_json() != expected.to_json() {
        return Err("it does not decode to its JSON".to_owned());
    }
    let (id, body) = split(golden.single).map_err(|poison| poison.to_string())?;
    let known = schemas.get(id).ok_or_else(|| format!("its schema {id} is unknown"))?;
    let parse = |json: &str| Schema::parse_str(json).map_err(|error| error.to_string());
    let (writer, reader) = (parse(known.json())?, parse(reader)?);
    let read = |reader: Option<&Schema>| -> Result<Value, String> {
        let builder = GenericDatumReader::builder(&writer);
        let datum = match reader {
            Some(reader) => builder.reader_schema(reader).build(),
            None => builder.build(),
        };
        let mut rest = body;
        datum.and_then(|datum| datum.read_value(&mut rest)).map_err(|error| error.to_string())
    };
    let new = read(Some(&reader)).map_err(|error| format!("the new schema can't read it: {error}"))?;
    match changed(&read(None)?, &new) {
        Some(path) => Err(format!("{path} has another value under the new schema")),
        None => Ok(()),
    }
}

/// Where a value that both versions have is not the same any more. Promoted numbers are the same; so are text and its bytes.
fn changed(old: &Value, new: &Value) -> Option<String> {
    match (old, new) {
        (Value::Union(_, old), new) => changed(old, new),
        (old, Value::Union(_, new)) => changed(old, new),
        (Value::Record(old), Value::Record(new)) => old.iter().find_map(|(name, value)| {
            let (_, other) = new.iter().find(|(other, _)| other == name)?;
            changed(value, other).map(|path| format!("/{name}{path}"))
        }),
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            old.iter().zip(new).find_map(|(old, new)| changed(old, new)).map(|path| format!("/items{path}"))
        }
        // The default of the reader's enum stands for symbols that it does not know.
        (Value::Enum(..), Value::Enum(..)) => None,
        (Value::String(old), Value::Bytes(new)) if old.as_bytes() == new => None,
        (old, new) => match (number(old), number(new)) {
            (Some(old), Some(new)) if old == new => None,
            (None, None) if old == new => None,
            _ => Some(String::new()),
        },
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(f64::from(*number)),
        // Numbers of golden files are small enough; what loses digits in a promotion loses them here on both sides.
        Value::Long(number) | Value::TimestampMicros(number) => Some(*number as f64),
        Value::Float(number) => Some(f64::from(*number)),
        Value::Double(number) => Some(*number),
        _ => None,
    }
}
