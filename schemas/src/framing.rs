//! How an encoded event names its writer schema, and why a record is poison.
//!
//! Two frames are understood at all times:
//! Avro single-object encoding, `C3 01` and the little-endian CRC-64-AVRO fingerprint of the schema's parsing canonical
//! form (<https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding>), and the Confluent wire format,
//! `00` and a big-endian schema id (<https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>).

use std::fmt;

pub(crate) const SINGLE_OBJECT_MAGIC: [u8; 2] = [0xc3, 0x01];
pub(crate) const CONFLUENT_MAGIC: u8 = 0;

/// How a producer frames events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Framing {
    /// The fingerprint of the compiled-in schema: no registry needed.
    #[default]
    SingleObject,
    /// The id under which a schema registry knows the schema.
    Confluent {
        /// The registry's id.
        schema_id: u32,
    },
}

/// Which schema a record was written with, as its frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WriterId {
    /// CRC-64-AVRO of the schema's parsing canonical form.
    Rabin(u64),
    /// A schema registry's id.
    Confluent(u32),
}

impl fmt::Display for WriterId {
    /// `rabin:5f3a…` (16 hexadecimal digits) or `confluent:12`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rabin(fingerprint) => write!(f, "rabin:{fingerprint:016x}"),
            Self::Confluent(id) => write!(f, "confluent:{id}"),
        }
    }
}

/// Splits a record into its writer's id and the Avro body.
///
/// # Errors
/// Poison with the code empty, wrong-magic or truncated (a frame cut short).
pub fn split(record: &[u8]) -> Result<(WriterId, &[u8]), Poison> {
    match record {
        [] => Err(Poison::new(PoisonCode::Empty, "the record has no bytes")),
        [CONFLUENT_MAGIC, rest @ ..] => match rest.split_first_chunk() {
            Some((id, body)) => Ok((WriterId::Confluent(u32::from_be_bytes(*id)), body)),
            None => Err(cut_frame("Confluent", 5, record.len())),
        },
        [0xc3, 0x01, rest @ ..] => match rest.split_first_chunk() {
            Some((fingerprint, body)) => Ok((WriterId::Rabin(u64::from_le_bytes(*fingerprint)), body)),
            None => Err(cut_frame("single-object", 10, record.len())),
        },
        [0xc3] => Err(cut_frame("single-object", 10, 1)),
        [first, ..] => Err(Poison::new(
            PoisonCode::WrongMagic,
            format!(
                "the first byte is {first:#04x}: neither Avro single-object encoding (c3 01) nor Confluent framing (00)"
            ),
        )),
    }
}

fn cut_frame(name: &str, need: usize, len: usize) -> Poison {
    Poison::new(PoisonCode::Truncated, format!("the {name} frame has {need} bytes, the record only {len}"))
}

/// Where a record stands in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp, milliseconds since the epoch.
    pub timestamp_ms: i64,
}

/// Why a record can't be stored, now or later. It belongs to the dead letters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Poison {
    /// The stable reason, for machines.
    pub code: PoisonCode,
    /// For people: the field and the byte where it went wrong, never a value.
    pub message: String,
    /// The Avro field at fault, such as `actor.kind`, where there is one.
    pub field: Option<Box<str>>,
}

impl Poison {
    pub(crate) fn new(code: PoisonCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None }
    }

    /// The poison of a record whose schema the registry confirms not to have.
    pub fn unregistered_schema(id: WriterId) -> Self {
        Self::new(PoisonCode::UnknownSchema, format!("the schema registry has no schema under {id}"))
    }

    /// The poison of a record whose schema is there and can't be used for the `reason` given.
    pub fn unusable_schema(id: WriterId, reason: &str) -> Self {
        Self::new(PoisonCode::UnusableSchema, format!("schema {id}: {reason}"))
    }

    /// The poison of a record without a value (a tombstone).
    pub fn null_value() -> Self {
        Self::new(
            PoisonCode::NullValue,
            "the record has a key but no value: audit events are never deleted by tombstones",
        )
    }
}

/// Declares the codes with their stable names.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// Stable reasons why a record is poison. Names are written to headers and tables: never rename one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum PoisonCode { $($(#[$doc])* $variant),+ }

        impl PoisonCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable kebab-case name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

codes! {
    /// The record's value has no bytes.
    Empty = "empty",
    /// The record has no value at all.
    NullValue = "null-value",
    /// The first bytes are of no known frame.
    WrongMagic = "wrong-magic",
    /// The frame names a schema nobody knows here.
    UnknownSchema = "unknown-schema",
    /// The schema registry has the schema, but events written with it can't be read as the current event.
    UnusableSchema = "unusable-schema",
    /// The record ends within a value.
    Truncated = "truncated",
    /// The record goes on after the event.
    TrailingBytes = "trailing-bytes",
    /// A length or count is negative or larger than what is left of the record.
    LengthOutOfRange = "length-out-of-range",
    /// A string is not UTF-8.
    InvalidUtf8 = "invalid-utf8",
    /// A union names a branch it doesn't have, or one the reader has no place for.
    BadUnionBranch = "bad-union-branch",
    /// An enum names a symbol it doesn't have, or one the reader doesn't know and has no default for.
    BadEnumSymbol = "bad-enum-symbol",
    /// A number takes more bytes, or a larger value, than its type has; or a boolean is neither 0 nor 1.
    BadVarint = "bad-varint",
    /// Values are nested deeper than any honest event.
    TooDeep = "too-deep",
    /// event_id is no hyphenated UUID.
    InvalidUuid = "invalid-uuid",
    /// occurred_at is outside of what the table can hold.
    TimeOutOfRange = "time-out-of-range",
    /// A required string is empty or null.
    MissingField = "missing-field",
    /// The decoder refused a record that is well-formed: a resolution the guard does not know.
    Unresolvable = "unresolvable",
}

impl fmt::Display for PoisonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn frames() {
        assert_eq!(split(&[0, 0, 0, 1, 2, 9]), Ok((WriterId::Confluent(258), &[9u8][..])));
        let single = [0xc3, 1, 8, 7, 6, 5, 4, 3, 2, 1, 9];
        assert_eq!(split(&single), Ok((WriterId::Rabin(0x0102_0304_0506_0708), &[9u8][..])));
        let code = |record: &[u8]| split(record).unwrap_err().code;
        assert_eq!(code(&[]), PoisonCode::Empty);
        assert_eq!(code(b"plain text"), PoisonCode::WrongMagic);
        assert_eq!(code(&[0xc3, 2, 0, 0]), PoisonCode::WrongMagic);
        for cut in 1..5 {
            assert_eq!(code(&[0, 0, 0, 1, 2][..cut]), PoisonCode::Truncated);
        }
        for cut in 1..10 {
            assert_eq!(code(&single[..cut]), PoisonCode::Truncated);
        }
    }

    #[test]
    fn ids_print() {
        assert_eq!(WriterId::Rabin(0xab).to_string(), "rabin:00000000000000ab");
        assert_eq!(WriterId::Confluent(7).to_string(), "confluent:7");
    }
}
