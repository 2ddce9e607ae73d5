//! The types of Avro without their logical types, and which of them is read as which.

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, UuidSchema};

/// A type without its logical type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Array,
    Map,
    Union,
    Record,
    Enum,
    Fixed,
    /// A reference, which is of the kind of what it names.
    Reference,
}

impl Kind {
    pub(crate) fn of(schema: &Schema) -> Self {
        match schema {
            Schema::Null => Self::Null,
            Schema::Boolean => Self::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Self::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Self::Long,
            Schema::Float => Self::Float,
            Schema::Double => Self::Double,
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Self::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Self::String,
            Schema::Decimal(decimal) => match decimal.inner {
                InnerDecimalSchema::Bytes => Self::Bytes,
                InnerDecimalSchema::Fixed(_) => Self::Fixed,
            },
            Schema::Array(_) => Self::Array,
            Schema::Map(_) => Self::Map,
            Schema::Union(_) => Self::Union,
            Schema::Record(_) => Self::Record,
            Schema::Enum(_) => Self::Enum,
            Schema::Fixed(_) | Schema::Duration(_) | Schema::Uuid(UuidSchema::Fixed(_)) => Self::Fixed,
            Schema::Ref { .. } => Self::Reference,
        }
    }

    /// Whether a reader's other type takes it: the promotions of
    /// <https://avro.apache.org/docs/1.12.0/specification/#schema-resolution>.
    pub(crate) fn is_promoted_to(self, reader: Self) -> bool {
        matches!(
            (self, reader),
            (Self::Int, Self::Long | Self::Float | Self::Double)
                | (Self::Long, Self::Float | Self::Double)
                | (Self::Float, Self::Double)
                | (Self::String, Self::Bytes)
                | (Self::Bytes, Self::String)
        )
    }

    /// `long` for a timestamp.
    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}
