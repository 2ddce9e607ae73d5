//! Ten kinds of records that can't be decoded, each with the reason that must be found for it.

use auditstream_schemas::{AuditEvent, Framing, PoisonCode, encode};

/// Bytes of the single-object frame in front of the body.
const FRAME: usize = 10;
/// Bytes of the body's first field: the length 36 as one byte, and the id.
const EVENT_ID: usize = 37;

/// A kind of poison.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// For messages.
    pub name: &'static str,
    /// The code that the consumer must give.
    pub code: PoisonCode,
    make: fn(&AuditEvent, usize) -> Option<Vec<u8>>,
}

impl Kind {
    /// The value of the `number`th record of this kind, made from a good event; `None` is a record without a value.
    #[must_use]
    pub fn value(&self, event: &AuditEvent, number: usize) -> Option<Vec<u8>> {
        (self.make)(event, number)
    }
}

/// All ten.
pub const KINDS: [Kind; 10] = [
    Kind { name: "truncated", code: PoisonCode::Truncated, make: |event, number| Some(truncated(event, number)) },
    Kind {
        name: "length bomb",
        code: PoisonCode::LengthOutOfRange,
        make: |event, number| Some(length_bomb(event, number)),
    },
    Kind {
        name: "trailing bytes",
        code: PoisonCode::TrailingBytes,
        make: |event, number| Some(trailing(event, number)),
    },
    Kind {
        name: "invalid UTF-8",
        code: PoisonCode::InvalidUtf8,
        make: |event, number| Some(invalid_utf8(event, number)),
    },
    Kind {
        name: "union branch out of range",
        code: PoisonCode::BadUnionBranch,
        make: |event, number| Some(union_branch(event, number)),
    },
    Kind {
        name: "unknown schema id",
        code: PoisonCode::UnknownSchema,
        make: |event, number| Some(unknown_schema(event, number)),
    },
    Kind { name: "wrong magic", code: PoisonCode::WrongMagic, make: |event, number| Some(wrong_magic(event, number)) },
    Kind { name: "empty", code: PoisonCode::Empty, make: |_, _| Some(Vec::new()) },
    Kind { name: "null", code: PoisonCode::NullValue, make: |_, _| None },
    Kind { name: "plain text", code: PoisonCode::WrongMagic, make: |event, number| Some(plain_text(event, number)) },
];

fn good(event: &AuditEvent) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(event, Framing::SingleObject, &mut bytes);
    bytes
}

/// Where the text of a field begins, behind the event id; fields before it must not hold the same text.
fn find(bytes: &[u8], text: &str) -> usize {
    let from = FRAME + EVENT_ID;
    let found = bytes[from..].windows(text.len()).position(|window| window == text.as_bytes());
    from + found.expect("the encoded event holds its own text")
}

/// Cut at another place each time, inside the frame and the last byte included.
fn truncated(event: &AuditEvent, number: usize) -> Vec<u8> {
    let mut bytes = good(event);
    let length = match number {
        0 => FRAME - 1,
        1 => bytes.len() - 1,
        _ => FRAME + number * 7 % (bytes.len() - FRAME),
    };
    bytes.truncate(length);
    bytes
}

/// The first text claims to be longer than any memory, or shorter than nothing.
fn length_bomb(event: &AuditEvent, number: usize) -> Vec<u8> {
    let lengths = [i64::MAX, i64::MIN, -1, 1 << 40, 0x7fff_ffff];
    let length = lengths[number % lengths.len()];
    let bytes = good(event);
    let mut bomb = bytes[..FRAME].to_vec();
    push_long(&mut bomb, length);
    bomb.extend_from_slice(&bytes[FRAME + 1..]);
    bomb
}

/// Avro's zigzag variable-length integer (<https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>).
fn push_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

fn trailing(event: &AuditEvent, number: usize) -> Vec<u8> {
    let mut bytes = good(event);
    bytes.resize(bytes.len() + 1 + number, 0);
    bytes
}

fn invalid_utf8(event: &AuditEvent, number: usize) -> Vec<u8> {
    // A lone continuation byte, a byte that UTF-8 never has, a surrogate's first byte, an overlong form's.
    let wrong = [0x80, 0xff, 0xed, 0xc0];
    let mut bytes = good(event);
    let at = find(&bytes, &event.entity_id);
    bytes[at] = wrong[number % wrong.len()];
    bytes
}

fn union_branch(event: &AuditEvent, number: usize) -> Vec<u8> {
    let branches = [-5, 2, -1, 63];
    let bytes = good(event);
    // The name, null or text, follows the entity's id.
    let at = find(&bytes, &event.entity_id) + event.entity_id.len();
    let mut wrong = bytes[..at].to_vec();
    push_long(&mut wrong, branches[number % branches.len()]);
    wrong.extend_from_slice(&bytes[at + 1..]);
    wrong
}

fn unknown_schema(event: &AuditEvent, number: usize) -> Vec<u8> {
    if number.is_multiple_of(2) {
        let mut bytes = Vec::new();
        let schema_id = 4_000_000 + u32::try_from(number).expect("a small number");
        encode(event, Framing::Confluent { schema_id }, &mut bytes);
        bytes
    } else {
        let mut bytes = good(event);
        bytes[2] ^= 0x55;
        bytes
    }
}

fn wrong_magic(event: &AuditEvent, number: usize) -> Vec<u8> {
    let mut bytes = good(event);
    if number.is_multiple_of(2) {
        bytes[0] = 0xde;
    } else {
        bytes[1] = 0x02;
    }
    bytes
}

fn plain_text(event: &AuditEvent, number: usize) -> Vec<u8> {
    if number.is_multiple_of(2) {
        event.to_json().into_bytes()
    } else {
        format!("line {number} of somebody's log").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use auditstream_bench::load::{Generator, Options};
    use auditstream_schemas::{Schemas, decode};

    use super::*;

    /// What a second implementation of Avro says of the records: none is an event.
    #[test]
    fn every_kind_is_refused_for_its_reason() {
        let schemas = Schemas::builtin().unwrap();
        let generator = Generator::new(Options::default());
        for kind in KINDS {
            for number in 0..50 {
                let event = generator.event(number as u64);
                if let Some(value) = kind.value(&event, number) {
                    let poison = decode(&schemas, &value).unwrap_err();
                    assert_eq!(poison.code, kind.code, "{} number {number}: {poison}", kind.name);
                }
            }
        }
    }
}
