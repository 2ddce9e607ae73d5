//! Which branch of a union a value is likely of, told from its outside alone: whether it fits is found out by writing it.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordSchema};
use apache_avro::types::Value;

use super::write::members;

/// How near a value's kind is to a type; the nearest is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closeness {
    /// Avro's own kind for the type.
    Own,
    /// One that serde gives for it: a smaller number, a map for a record.
    Near,
    Far,
}

/// Of a record also the fields' names and kinds count, as unions often have several.
pub(super) fn closeness(names: &HashMap<Name, Schema>, schema: &Schema, value: &Value) -> Closeness {
    match resolved(names, schema) {
        Schema::Record(record) => fields(names, record, value).max(kind(names, schema, value)),
        schema => kind(names, schema, value),
    }
}

/// The value in unions, and the index that the innermost one names: serde's options may be in each other, Avro's unions are not.
pub(super) fn unwrapped(mut value: &Value) -> (Option<u32>, &Value) {
    let mut index = None;
    while let Value::Union(at, inner) = value {
        (index, value) = (Some(*at), &**inner);
    }
    (index, value)
}

/// serde's form of an enum with data: its variant is the branch's name. Text in place of the variant would be somebody's data.
pub(super) fn tag(value: &Value) -> Option<(&String, &Value)> {
    let Value::Record(fields) = value else { return None };
    match fields.as_slice() {
        [(kind, Value::Enum(_, tag)), (content, value)] if kind == "type" && content == "value" => Some((tag, value)),
        _ => None,
    }
}

fn resolved<'s>(names: &'s HashMap<Name, Schema>, schema: &'s Schema) -> &'s Schema {
    match schema {
        Schema::Ref { name } => names.get(name).unwrap_or(schema),
        schema => schema,
    }
}

fn fields(names: &HashMap<Name, Schema>, record: &RecordSchema, value: &Value) -> Closeness {
    let Some(members) = members(value) else { return Closeness::Far };
    let members: HashMap<&String, &Value> = members.into_iter().collect();
    let (mut given, mut farthest) = (0, Closeness::Own);
    for field in &record.fields {
        match members.get(&field.name) {
            Some(value) => {
                given += 1;
                farthest = farthest.max(kind(names, &field.schema, value));
            }
            None if field.default.is_some() || matches!(field.schema, Schema::Union(_)) => {}
            None => return Closeness::Far,
        }
    }
    if given == members.len() { farthest } else { Closeness::Far }
}

fn kind(names: &HashMap<Name, Schema>, schema: &Schema, value: &Value) -> Closeness {
    let schema = resolved(names, schema);
    if let Schema::Union(of) = schema {
        let (_, inner) = unwrapped(value);
        let kinds = of.variants().iter().map(|branch| kind(names, branch, inner));
        return kinds.min().unwrap_or(Closeness::Far);
    }
    match (schema, value) {
        (Schema::Null, Value::Null)
        | (Schema::Boolean, Value::Boolean(_))
        | (Schema::Int, Value::Int(_))
        | (Schema::Long, Value::Long(_))
        | (Schema::Float, Value::Float(_))
        | (Schema::Double, Value::Double(_))
        | (Schema::Bytes, Value::Bytes(_))
        | (Schema::String, Value::String(_))
        | (Schema::Decimal(_), Value::Decimal(_))
        | (Schema::Uuid(_), Value::Uuid(_))
        | (Schema::Date, Value::Date(_))
        | (Schema::TimeMillis, Value::TimeMillis(_))
        | (Schema::TimeMicros, Value::TimeMicros(_))
        | (Schema::TimestampMillis, Value::TimestampMillis(_))
        | (Schema::TimestampMicros, Value::TimestampMicros(_))
        | (Schema::TimestampNanos, Value::TimestampNanos(_))
        | (Schema::LocalTimestampMillis, Value::LocalTimestampMillis(_))
        | (Schema::LocalTimestampMicros, Value::LocalTimestampMicros(_))
        | (Schema::LocalTimestampNanos, Value::LocalTimestampNanos(_))
        | (Schema::Array(_), Value::Array(_))
        | (Schema::Map(_), Value::Map(_))
        | (Schema::Record(_), Value::Record(_)) => Closeness::Own,
        (Schema::Enum(of), Value::Enum(_, symbol)) if of.symbols.contains(symbol) => Closeness::Own,
        (Schema::Fixed(of), Value::Fixed(size, _)) if of.size == *size => Closeness::Own,
        // serde's u64 is eight bytes.
        (Schema::Int | Schema::Long, Value::Int(_) | Value::Long(_) | Value::Fixed(8, _))
        | (Schema::Float | Schema::Double, Value::Float(_) | Value::Double(_))
        | (Schema::Fixed(_), Value::Bytes(_))
        | (Schema::Record(_), Value::Map(_)) => Closeness::Near,
        (Schema::Enum(of), Value::String(symbol)) if of.symbols.contains(symbol) => Closeness::Near,
        _ => Closeness::Far,
    }
}
