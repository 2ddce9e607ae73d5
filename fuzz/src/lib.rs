//! What is fuzzed: bytes from nowhere as frames, as records of known schemas, and as records of schemas from nowhere.
//!
//! Each target fails when the code panics, when two ways of decoding disagree (straight to columns, by the guard and arrow-avro, by apache-avro), or when
//! a neighbour is harmed. The bounds on memory and time are the
//! fuzzer's, set by `cargo xtask fuzz`.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a fuzz target says so by failing"
)]

mod entropy;
#[path = "../../schemas/tests/common/rows.rs"]
mod rows;
mod writers;

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use auditstream_schemas::{
    AUDIT_EVENT_V1, AuditEvent, BatchDecoder, Change, Framing, Poison, PoisonCode, Position, Schemas, Timestamp,
    V1_FINGERPRINT, WriterId, content_hash_of, encode, split,
};
use uuid::Uuid;

use self::entropy::Entropy;

/// Known to the targets besides the built-in one: v1 under a registry's id, and a writer of another mind.
const V1: WriterId = WriterId::Confluent(258);
const OTHER: WriterId = WriterId::Confluent(1);
/// The writer schema that the target `resolution` makes.
const MADE: u32 = 9;

static KNOWN: LazyLock<Schemas> = LazyLock::new(|| {
    let mut schemas = Schemas::builtin().unwrap();
    schemas.add(V1, AUDIT_EVENT_V1).unwrap();
    schemas.add(OTHER, &writers::other()).unwrap();
    schemas
});
/// Reader schemas other than v1.
static READERS: LazyLock<[Schemas; 2]> =
    LazyLock::new(|| writers::readers().map(|reader| Schemas::reading_as(&reader).unwrap()));
static READER: LazyLock<Schema> = LazyLock::new(|| Schema::parse_str(AUDIT_EVENT_V1).unwrap());

/// An event that is not the fuzzer's.
fn neighbour() -> AuditEvent {
    let mut event = AuditEvent::builder("tenant", "service", "order.update", "order", "o-1")
        .event_id(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001))
        .occurred_at(Timestamp::from_micros(1_700_000_000_000_000))
        .build()
        .unwrap();
    event.changes = vec![Change { path: "/a".into(), old: None, new: Some("1".into()) }];
    event
}

fn record(event: &AuditEvent, framing: Framing) -> Vec<u8> {
    let mut out = Vec::new();
    encode(event, framing, &mut out);
    out
}

fn framed(id: WriterId, body: &[u8]) -> Vec<u8> {
    match id {
        WriterId::Confluent(id) => [&[0][..], &id.to_be_bytes(), body].concat(),
        WriterId::Rabin(fingerprint) => [&[0xc3, 1][..], &fingerprint.to_le_bytes(), body].concat(),
    }
}

/// Frames: what is split can be put together again, and nothing else is taken for a frame.
pub fn framing(data: &[u8]) {
    match split(data) {
        Ok((id, body)) => assert_eq!(framed(id, body), data),
        Err(poison) => {
            let code = match data {
                [] => PoisonCode::Empty,
                [0] | [0, _] | [0, _, _] | [0, _, _, _] => PoisonCode::Truncated,
                [0xc3] => PoisonCode::Truncated,
                [0xc3, 1, rest @ ..] if rest.len() < 8 => PoisonCode::Truncated,
                _ => PoisonCode::WrongMagic,
            };
            assert_eq!(poison.code, code);
        }
    }
    let checked = KNOWN.check(data);
    assert_eq!(checked.err(), auditstream_schemas::decode(&KNOWN, data).err());
}

/// Records: as they come, and as bodies of each known writer.
pub fn decode(data: &[u8]) {
    thread_local! {
        static WAYS: RefCell<Ways> = RefCell::new(Ways::new(&KNOWN));
    }
    WAYS.with_borrow_mut(|ways| {
        ways.agree(&KNOWN, data).ok();
        for id in [WriterId::Rabin(V1_FINGERPRINT), V1, OTHER] {
            if let Ok(event) = ways.agree(&KNOWN, &framed(id, data)) {
                // What was read can be written, and is the same event again.
                let again = record(&event, Framing::SingleObject);
                assert_eq!(auditstream_schemas::decode(&KNOWN, &again).as_ref(), Ok(&event));
            }
        }
    });
}

/// Resolution: a writer schema made of v1, a value of it, perhaps spoiled; read by both decoders here and by apache-avro alone.
pub fn resolution(data: &[u8]) {
    let mut entropy = Entropy::new(data);
    let json = writers::made(&mut entropy).to_string();
    let Ok(writer) = Schema::parse_str(&json) else { return };
    let Some(mut body) = writers::body(&writer, &mut entropy) else { return };
    let is_whole = !entropy.chance(3);
    if !is_whole {
        writers::spoil(&mut body, &mut entropy);
    }
    let reader = entropy.below(1 + READERS.len());
    let mut schemas = if reader == 0 { KNOWN.clone() } else { READERS[reader - 1].clone() };
    if schemas.add(WriterId::Confluent(MADE), &json).is_err() {
        return;
    }
    let read = Ways::new(&schemas).agree(&schemas, &framed(WriterId::Confluent(MADE), &body));
    if let (0, true, Err(poison)) = (reader, is_whole, &read) {
        let reader = GenericDatumReader::builder(&writer).reader_schema(&READER).build().unwrap();
        // What is refused although it is well-formed breaks a rule of the event's, or has no place in the reader schema.
        let is_rule = matches!(
            poison.code,
            PoisonCode::InvalidUuid | PoisonCode::TimeOutOfRange | PoisonCode::MissingField | PoisonCode::InvalidUtf8
        );
        let is_resolution = matches!(poison.code, PoisonCode::BadEnumSymbol | PoisonCode::BadUnionBranch);
        let theirs = reader.read_value(&mut &*body);
        assert!(is_rule || is_resolution && theirs.is_err(), "{poison} but apache-avro says {theirs:?} of {json}");
    }
}

/// The decoder of batches as it is, and with the long way only.
struct Ways {
    straight: BatchDecoder,
    long: BatchDecoder,
}

impl Ways {
    fn new(schemas: &Schemas) -> Self {
        let schemas = Arc::new(schemas.clone());
        Self { straight: BatchDecoder::new(Arc::clone(&schemas)), long: BatchDecoder::reference(schemas) }
    }

    /// A record between two good ones: all decoders take it alike or refuse it alike, and the good ones are rows.
    fn agree(&mut self, schemas: &Schemas, bytes: &[u8]) -> Result<AuditEvent, Poison> {
        let one = auditstream_schemas::decode(schemas, bytes);
        if let Err(poison) = &one {
            assert_ne!(poison.code, PoisonCode::Unresolvable, "{poison}");
            assert!(poison.message.len() < 4096, "a message of {} bytes", poison.message.len());
        }
        let good = neighbour();
        let mut expected = vec![(0, good.clone())];
        if let Ok(event) = &one {
            expected.extend([(1, event.clone()), (2, event.clone())]);
        }
        expected.push((3, good.clone()));
        let [straight, long] = [&mut self.straight, &mut self.long].map(|decoder| {
            let at = |offset| Position { partition: 0, offset, timestamp_ms: 0 };
            decoder.push(&record(&good, Framing::SingleObject), at(0)).unwrap();
            let taken = decoder.push(bytes, at(1));
            assert_eq!(taken.as_ref().err(), one.as_ref().err());
            decoder.push(bytes, at(2)).ok();
            decoder.push(&record(&good, Framing::SingleObject), at(3)).unwrap();
            rows::rows(schemas, &decoder.finish().unwrap())
        });
        assert_eq!(straight, long);
        for row in &straight {
            if row.later.iter().all(String::is_empty) {
                assert_eq!(row.hash, content_hash_of(&row.event));
            }
        }
        let events: Vec<_> = straight.into_iter().map(|row| (row.offset, row.event)).collect();
        assert_eq!(events, expected);
        one
    }
}
