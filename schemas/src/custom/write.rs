//! From a value to JSON, checked against the schema on the way. Takes Avro's exact values, and the looser ones that serde gives: text for a time, a
//! smaller number for a larger one, a map for a record.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordSchema, UuidSchema};
use apache_avro::types::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use super::branch::{Closeness, closeness, tag, unwrapped};
use super::default::Defaults;
use super::{CustomFault, MAX_DEPTH, Path, Union, branch_name, decimal, expected, time, union};

/// Largest whole number up to which a double holds all.
const EXACT_IN_DOUBLE: i64 = 1 << 53;
/// The same for a float.
const EXACT_IN_FLOAT: i64 = 1 << 24;

/// Values written, branches of unions that were tried in vain included: an event's details have room for far fewer, and a value that fits no branch
/// of a union in a union in a union must come to an end.
const MAX_STEPS: usize = 1_000_000;

pub(super) struct Writer<'s> {
    names: &'s HashMap<Name, Schema>,
    defaults: Defaults<'s>,
    path: Path,
    depth: usize,
    steps: usize,
    /// Too deep or too many steps: no other branch is worth a try.
    stopped: bool,
}

impl<'s> Writer<'s> {
    pub(super) fn new(names: &'s HashMap<Name, Schema>) -> Self {
        Self { names, defaults: Defaults::new(names), path: Path::default(), depth: 0, steps: 0, stopped: false }
    }

    pub(super) fn write(&mut self, schema: &'s Schema, value: &Value) -> Result<Json, CustomFault> {
        self.depth += 1;
        self.steps += 1;
        self.stopped = self.depth > MAX_DEPTH || self.steps > MAX_STEPS;
        if self.steps > MAX_STEPS {
            let found = format!("more than {MAX_STEPS} values, or ways to choose branches of unions");
            return Err(self.path.fault(found, "fewer"));
        }
        if self.depth > MAX_DEPTH {
            return Err(self.path.fault(format!("values nested deeper than {MAX_DEPTH}"), "fewer levels"));
        }
        let json = match (schema, value) {
            (Schema::Ref { name }, value) => match self.names.get(name) {
                Some(schema) => self.write(schema, value)?,
                None => return Err(self.wrong(schema, value)),
            },
            (Schema::Union(of), value) => self.union(schema, union(of.variants()), value)?,
            // serde's Some.
            (schema, Value::Union(_, inner)) => self.write(schema, inner)?,
            (Schema::Record(record), value) => self.record(schema, record, value)?,
            (Schema::Array(array), Value::Array(items)) => {
                let mut list = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    let before = self.path.item(at);
                    list.push(self.write(&array.items, item)?);
                    self.path.back(before);
                }
                Json::Array(list)
            }
            (Schema::Map(map), value) => {
                let mut object = Map::new();
                for (key, value) in members(value).ok_or_else(|| self.wrong(schema, value))? {
                    // A key may be personal: it is not told.
                    let before = self.path.item("…");
                    object.insert(key.clone(), self.write(&map.types, value)?);
                    self.path.back(before);
                }
                Json::Object(object)
            }
            (schema, value) => scalar(schema, value).ok_or_else(|| self.wrong(schema, value))?,
        };
        self.depth -= 1;
        Ok(json)
    }

    fn wrong(&self, schema: &Schema, value: &Value) -> CustomFault {
        self.path.fault(kind(value), expected(schema))
    }

    fn record(&mut self, schema: &'s Schema, record: &'s RecordSchema, value: &Value) -> Result<Json, CustomFault> {
        let members: HashMap<&String, &Value> =
            members(value).ok_or_else(|| self.wrong(schema, value))?.into_iter().collect();
        if let Some(name) = members.keys().find(|name| !record.fields.iter().any(|field| field.name == ***name)) {
            self.path.field(name);
            return Err(self.path.fault("a field", format!("none of that name in {}", record.name.fullname(None))));
        }
        let mut object = Map::new();
        for field in &record.fields {
            let before = self.path.field(&field.name);
            let json = match members.get(&field.name) {
                Some(value) => self.write(&field.schema, value)?,
                None => {
                    let default = self.defaults.of(field, self.depth);
                    let value = default.map_err(|found| self.path.fault(found, expected(&field.schema)))?;
                    self.write(&field.schema, &value)?
                }
            };
            self.path.back(before);
            object.insert(field.name.clone(), json);
        }
        Ok(Json::Object(object))
    }

    fn union(&mut self, schema: &'s Schema, union: Union<'s>, value: &Value) -> Result<Json, CustomFault> {
        let (_, inner) = unwrapped(value);
        match union {
            Union::Nullable { null: Some(_), .. } if *inner == Value::Null => Ok(Json::Null),
            Union::Nullable { of: Some((_, of)), .. } => self.write(of, inner),
            Union::Nullable { .. } => Err(self.wrong(schema, value)),
            Union::Tagged(branches) => self.tagged(schema, branches, value),
        }
    }

    fn tagged(&mut self, schema: &'s Schema, branches: &'s [Schema], value: &Value) -> Result<Json, CustomFault> {
        let (index, inner) = unwrapped(value);
        if *inner == Value::Null && branches.contains(&Schema::Null) {
            return Ok(Json::Null);
        }
        // The branch that the value names. serde's `Some` always names the second, so its kind must agree.
        let first = index.and_then(|index| branches.get(usize::try_from(index).ok()?));
        let first = first.filter(|branch| closeness(self.names, branch, inner) == Closeness::Own);
        if let Some(branch) = first
            && let Some(json) = self.attempt(branch, inner)?
        {
            return Ok(json);
        }
        if let Some((tag, content)) = tag(inner)
            && let Some(branch) = branches.iter().find(|branch| branch_name(branch) == *tag)
        {
            let json = self.write(branch, content)?;
            return Ok(tag_with(branch, json));
        }
        let others = branches.iter().filter(|branch| !first.is_some_and(|first| std::ptr::eq(first, *branch)));
        let mut others: Vec<_> = others.map(|branch| (closeness(self.names, branch, inner), branch)).collect();
        others.sort_by_key(|(closeness, _)| *closeness);
        for (_, branch) in others {
            if let Some(json) = self.attempt(branch, inner)? {
                return Ok(json);
            }
        }
        Err(self.wrong(schema, inner))
    }

    /// `None` when the value does not fit the branch.
    fn attempt(&mut self, branch: &'s Schema, value: &Value) -> Result<Option<Json>, CustomFault> {
        let (before, depth) = (self.path.0.len(), self.depth);
        match self.write(branch, value) {
            Ok(json) => Ok(Some(tag_with(branch, json))),
            Err(fault) if self.stopped => Err(fault),
            Err(_) => {
                self.path.back(before);
                self.depth = depth;
                Ok(None)
            }
        }
    }
}

fn tag_with(branch: &Schema, json: Json) -> Json {
    match branch {
        Schema::Null => json,
        branch => Json::Object(Map::from_iter([(branch_name(branch), json)])),
    }
}

/// Names and values of a record or a map.
pub(super) fn members(value: &Value) -> Option<Vec<(&String, &Value)>> {
    match value {
        Value::Record(fields) => Some(fields.iter().map(|(name, value)| (name, value)).collect()),
        Value::Map(map) => Some(map.iter().collect()),
        _ => None,
    }
}

pub(super) fn scalar(schema: &Schema, value: &Value) -> Option<Json> {
    if let Some((per_second, local)) = time::unit(schema) {
        // The same number means another time in other units.
        let units = match (schema, value) {
            (_, Value::String(text)) => time::timestamp_units(text, per_second, local)?,
            (Schema::TimestampMillis, Value::TimestampMillis(units))
            | (Schema::TimestampMicros, Value::TimestampMicros(units))
            | (Schema::TimestampNanos, Value::TimestampNanos(units))
            | (Schema::LocalTimestampMillis, Value::LocalTimestampMillis(units))
            | (Schema::LocalTimestampMicros, Value::LocalTimestampMicros(units))
            | (Schema::LocalTimestampNanos, Value::LocalTimestampNanos(units)) => *units,
            (_, other) => integer(other)?,
        };
        return time::timestamp_text(units, per_second, local).map(Json::from);
    }
    Some(match (schema, value) {
        (Schema::Null, Value::Null) => Json::Null,
        (Schema::Boolean, Value::Boolean(is)) => Json::from(*is),
        (Schema::Int, value) => Json::from(i32::try_from(integer(value)?).ok()?),
        (Schema::Long, value) => Json::from(integer(value)?),
        (Schema::Float, value) => number(f64::from(float(value)?)),
        (Schema::Double, value) => number(double(value)?),
        (Schema::String, Value::String(text)) => Json::from(text.as_str()),
        (Schema::Enum(of), Value::Enum(_, symbol) | Value::String(symbol)) if of.symbols.contains(symbol) => {
            Json::from(symbol.as_str())
        }
        // serde's u64 and u128 come as fixed, and are no bytes.
        (Schema::Bytes, Value::Fixed(..)) => return None,
        (Schema::Bytes, value) => Json::from(STANDARD.encode(bytes(value)?)),
        (Schema::Fixed(of), value) => Json::from(STANDARD.encode(bytes(value).filter(|bytes| bytes.len() == of.size)?)),
        (Schema::Decimal(of), value) => {
            let unscaled = match value {
                Value::Decimal(decimal) => Vec::<u8>::try_from(decimal).ok()?,
                Value::String(text) => decimal::from_text(text, of.precision, of.scale)?,
                other => decimal::from_text(&integer(other)?.to_string(), of.precision, of.scale)?,
            };
            Json::from(decimal::to_text(&unscaled, of.precision, of.scale)?)
        }
        (Schema::Uuid(_), value) => Json::from(uuid(schema, value)?.hyphenated().to_string()),
        (Schema::Date, value) => {
            let days = match value {
                Value::Date(days) => *days,
                Value::String(text) => time::date_days(text)?,
                other => i32::try_from(integer(other)?).ok()?,
            };
            Json::from(time::date_text(days)?)
        }
        (Schema::TimeMillis | Schema::TimeMicros, value) => {
            let per_second = if matches!(schema, Schema::TimeMillis) { 1_000 } else { 1_000_000 };
            let units = match (schema, value) {
                (Schema::TimeMillis, Value::TimeMillis(units)) => i64::from(*units),
                (Schema::TimeMicros, Value::TimeMicros(units)) => *units,
                (_, Value::String(text)) => time::clock_units(text, per_second)?,
                (_, other) => integer(other)?,
            };
            Json::from(time::clock_text(units, per_second)?)
        }
        _ => return None,
    })
}

/// serde's u64 comes as eight bytes, the lowest first.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(i64::from(*number)),
        Value::Long(number) => Some(*number),
        Value::Fixed(8, bytes) => i64::try_from(u64::from_le_bytes(bytes.as_slice().try_into().ok()?)).ok(),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f32> {
    match value {
        Value::Float(number) => Some(*number),
        Value::Double(number) => {
            let narrow = *number as f32;
            (f64::from(narrow) == *number || number.is_nan()).then_some(narrow)
        }
        other => integer(other).filter(|number| number.abs() <= EXACT_IN_FLOAT).map(|number| number as f32),
    }
}

fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        Value::Float(number) => Some(f64::from(*number)),
        other => integer(other).filter(|number| number.abs() <= EXACT_IN_DOUBLE).map(|number| number as f64),
    }
}

fn number(number: f64) -> Json {
    if number.is_nan() {
        Json::from("NaN")
    } else if number.is_infinite() {
        Json::from(if number > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        Json::from(number)
    }
}

/// serde's `Vec<u8>` is a list of numbers.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => Some(bytes.clone()),
        Value::Array(items) => items.iter().map(|item| u8::try_from(integer(item)?).ok()).collect(),
        _ => None,
    }
}

fn uuid(schema: &Schema, value: &Value) -> Option<uuid::Uuid> {
    match value {
        Value::Uuid(uuid) => Some(*uuid),
        Value::String(text) => uuid::Uuid::try_parse(text).ok(),
        Value::Bytes(bytes) => uuid::Uuid::from_slice(bytes).ok(),
        // Elsewhere it is serde's u128, the lowest byte first.
        Value::Fixed(16, bytes) if matches!(schema, Schema::Uuid(UuidSchema::Fixed(_))) => {
            uuid::Uuid::from_slice(bytes).ok()
        }
        _ => None,
    }
}

/// What a value is, never what it holds.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Boolean(_) => "true or false",
        Value::Int(_) | Value::Long(_) => "a whole number",
        // serde_json gives numbers above 0 without sign.
        Value::Fixed(8, _) if integer(value).is_some() => "a whole number",
        Value::Fixed(8, _) => "a whole number of 64 bits without sign, or bytes",
        Value::Float(_) | Value::Double(_) => "a floating-point number",
        Value::Bytes(_) | Value::Fixed(..) => "bytes",
        Value::String(_) | Value::Enum(..) => "text",
        Value::Array(_) => "a list",
        Value::Map(_) | Value::Record(_) => "a record or a map",
        Value::Union(_, inner) => kind(inner),
        Value::Decimal(_) | Value::BigDecimal(_) => "a decimal",
        Value::Uuid(_) => "a uuid",
        Value::Duration(_) => "a duration",
        _ => "a time",
    }
}
