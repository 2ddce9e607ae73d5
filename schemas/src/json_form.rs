//! What values look like in the JSON that custom fields travel as (`custom` has the table), as far as it decides whether one type reads what another wrote.

use apache_avro::Schema;
use apache_avro::schema::{UnionSchema, UuidSchema};

use crate::kind::Kind;

/// Whether a reader's type takes the text of a writer's. Both are of types that Avro resolves, neither is a union.
pub(crate) fn reads(reader: &Schema, writer: &Schema) -> bool {
    let (read, written) = (form(reader), form(writer));
    // A whole number is a number, and the text of a UUID a text.
    read == written || (written == WHOLE && read == NUMBER) || (written == UUID && read == TEXT)
}

const WHOLE: &str = "a whole number";
const NUMBER: &str = "a number";
const TEXT: &str = "text";
const UUID: &str = "a uuid";

/// How a type's values are written, in words.
pub(crate) fn form(schema: &Schema) -> String {
    let form = match schema {
        Schema::Int | Schema::Long => WHOLE,
        Schema::Float | Schema::Double => NUMBER,
        Schema::String => TEXT,
        Schema::Uuid(_) => UUID,
        Schema::Bytes | Schema::Fixed(_) => "base64",
        Schema::Date => "a date",
        Schema::TimeMillis => "a time of day to the millisecond",
        Schema::TimeMicros => "a time of day to the microsecond",
        Schema::TimestampMillis => "a time to the millisecond",
        Schema::TimestampMicros => "a time to the microsecond",
        Schema::TimestampNanos => "a time to the nanosecond",
        Schema::LocalTimestampMillis => "a local time to the millisecond",
        Schema::LocalTimestampMicros => "a local time to the microsecond",
        Schema::LocalTimestampNanos => "a local time to the nanosecond",
        Schema::Decimal(decimal) => return format!("a decimal with {} digits behind the point", decimal.scale),
        other => return Kind::of(other).name(),
    };
    form.to_owned()
}

/// Whether a union's values are written as `{"BRANCH": value}`: not where there is one type beside null at the most.
pub(crate) fn is_tagged(union: &UnionSchema) -> bool {
    !matches!(union.variants(), [] | [_] | [Schema::Null, _] | [_, Schema::Null])
}

/// What a union's branch is called: the type's name, logical types left out, as in Avro's own JSON.
pub(crate) fn branch_name(schema: &Schema) -> String {
    match schema {
        Schema::Ref { name } => return name.fullname(None),
        Schema::Uuid(UuidSchema::Fixed(fixed)) => return fixed.name.fullname(None),
        _ => {}
    }
    match schema.name() {
        Some(name) => name.fullname(None),
        None => Kind::of(schema).name(),
    }
}
