//! Records made to hurt: each is an error in both decoders, in bounded memory and time, and its neighbours are rows.
//!
//! One test in an executable of its own: memory is measured for the process, as what was ever touched and as what was ever asked of the system.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use auditstream_schemas::*;
use serde_json::{Value as Json, json};

mod common;
use common::spoil::zigzag;
use common::{AT, body, event_at, minimal, record, typical};

/// A record takes at most this long, neighbours and both decoders included; a hundred times what a slow machine needs.
const EACH: Duration = Duration::from_millis(50);
/// More than this is not needed for any record here: the largest have 1 MiB.
const MEMORY_KIB: u64 = 24 * 1024;

const WRITER: u32 = 7;
const LARGE: usize = 1 << 20;

/// v1 with fields behind it that the reader has not got, of every type that has a length or a depth.
fn writer(field: &str, kind: Json) -> Arc<Schemas> {
    let mut schema: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
    schema["fields"].as_array_mut().unwrap().push(json!({"name": field, "type": kind}));
    let mut schemas = common::schemas();
    schemas.add(WriterId::Confluent(WRITER), &schema.to_string()).unwrap();
    Arc::new(schemas)
}

/// The same in front of v1's fields.
fn writer_in_front(field: &str, kind: Json) -> Arc<Schemas> {
    let mut schema: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
    schema["fields"].as_array_mut().unwrap().insert(0, json!({"name": field, "type": kind}));
    let mut schemas = common::schemas();
    schemas.add(WriterId::Confluent(WRITER), &schema.to_string()).unwrap();
    Arc::new(schemas)
}

/// These bytes in the field in front of the typical event.
fn in_front(bytes: &[u8]) -> Vec<u8> {
    [&[0][..], &WRITER.to_be_bytes(), bytes, &body(&typical())].concat()
}

/// The typical event with these bytes in the field behind it.
fn behind(bytes: &[u8]) -> Vec<u8> {
    [&[0][..], &WRITER.to_be_bytes(), &body(&typical()), bytes].concat()
}

fn single(body: &[u8]) -> Vec<u8> {
    [&[0xc3, 1][..], &V1_FINGERPRINT.to_le_bytes(), body].concat()
}

/// A number over as many bytes as asked for, more than it needs.
fn padded(number: u8, bytes: usize) -> Vec<u8> {
    let mut out = vec![number | 0x80];
    out.resize(bytes - 1, 0x80);
    out.push(0);
    out
}

fn nested(depth: usize) -> Json {
    (0..depth).fold(json!("long"), |items, _| json!({"type": "array", "items": items}))
}

/// Peak of resident and of virtual memory, in KiB.
fn peaks() -> [u64; 2] {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    ["VmHWM:", "VmPeak:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    })
}

/// Both decoders refuse the record with this code, and what stands around it lands.
fn refused(name: &str, schemas: &Arc<Schemas>, bytes: &[u8], code: PoisonCode) {
    let mut reference = BatchDecoder::reference(Arc::clone(schemas));
    let theirs = reference.push(bytes, AT).unwrap_err();
    let before = peaks();
    let started = Instant::now();
    let good = record(&typical());
    let mut decoder = BatchDecoder::new(Arc::clone(schemas));
    decoder.push(&good, AT).unwrap();
    let poison = decoder.push(bytes, AT).unwrap_err();
    decoder.push(&good, AT).unwrap();
    assert_eq!(poison.code, code, "{name}: {poison}");
    assert_eq!(decode(schemas, bytes).unwrap_err(), poison, "{name}");
    assert_eq!(theirs, poison, "{name}");
    assert!(poison.message.len() < 1024, "{name}: a message of {} bytes", poison.message.len());
    let done = decoder.finish().unwrap();
    assert_eq!((done.len(), done[0].positions.len()), (1, 2), "{name}");
    assert_eq!([0, 1].map(|row| event_at(&done[0].batch, row)), [typical(), typical()], "{name}");
    let took = started.elapsed();
    assert!(took < EACH, "{name}: {took:?}");
    for (before, after) in before.into_iter().zip(peaks()) {
        let more = after.saturating_sub(before);
        assert!(more < MEMORY_KIB, "{name}: {more} KiB more");
    }
}

/// The minimal event's body with the byte of its tenant's length replaced.
fn with_length(length: &[u8]) -> Vec<u8> {
    const TENANT: usize = 37 + 8;
    let mut body = body(&minimal());
    body.splice(TENANT..=TENANT, length.iter().copied());
    single(&body)
}

#[test]
fn what_is_made_to_hurt_costs_little_and_only_itself() {
    use PoisonCode::*;
    let v1 = common::shared();
    // What is made once for a process, and the allocator's first pools.
    refused("warm up", &v1, &single(&[]), Truncated);
    for length in [i64::MAX, i64::MIN, -1, i64::from(i32::MAX), 1 << 31, 1 << 32, 1 << 40, 1 << 24 | 1] {
        refused("length bomb", &v1, &with_length(&zigzag(length)), LengthOutOfRange);
        for (name, kind) in [("bytes", json!("bytes")), ("string", json!("string"))] {
            refused(name, &writer("extra", kind.clone()), &behind(&zigzag(length)), LengthOutOfRange);
            refused(name, &writer_in_front("extra", kind), &in_front(&zigzag(length)), LengthOutOfRange);
        }
    }
    let lists = [json!({"type": "array", "items": "long"}), json!({"type": "map", "values": "long"})];
    for kind in lists {
        let schemas = writer("extra", kind);
        let count = |count: i64, rest: &[u8]| behind(&[zigzag(count), rest.to_vec()].concat());
        refused("count bomb", &schemas, &count(1 << 40, &[]), LengthOutOfRange);
        refused("count bomb", &schemas, &count(i64::MAX, &[2; 64]), LengthOutOfRange);
        refused("negative count, size bomb", &schemas, &count(-1, &zigzag(i64::MAX)), LengthOutOfRange);
        refused("negative count, negative size", &schemas, &count(-1, &zigzag(-1)), LengthOutOfRange);
        refused("the most negative count", &schemas, &count(i64::MIN, &[2, 2, 0]), LengthOutOfRange);
        refused("negative count without a size", &schemas, &count(-3, &[]), Truncated);
        refused("count without items", &schemas, &count(100, &[]), Truncated);
    }
    // Two lists of nothing have one allowance, wherever they stand.
    let mut schema: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
    let fields = schema["fields"].as_array_mut().unwrap();
    fields.insert(0, json!({"name": "first", "type": {"type": "array", "items": "null"}}));
    fields.push(json!({"name": "last", "type": {"type": "array", "items": "null"}}));
    let mut two = common::schemas();
    two.add(WriterId::Confluent(WRITER), &schema.to_string()).unwrap();
    let half = [zigzag(40_000), vec![0]].concat();
    let both = [&[0][..], &WRITER.to_be_bytes(), &half, &body(&typical()), &half].concat();
    refused("nothing, in front and behind", &Arc::new(two), &both, LengthOutOfRange);
    let nulls = writer_in_front("extra", json!({"type": "array", "items": "null"}));
    refused("nothing, often, in front", &nulls, &in_front(&zigzag(1 << 50)), LengthOutOfRange);
    let nulls = writer("extra", json!({"type": "array", "items": "null"}));
    refused("nothing, often", &nulls, &behind(&zigzag(1 << 50)), LengthOutOfRange);
    refused("nothing, in many blocks", &nulls, &behind(&[0xfe, 0xff, 0x01].repeat(LARGE / 3)), LengthOutOfRange);

    for bytes in 11..20 {
        refused("over-long varint", &v1, &with_length(&padded(2, bytes)), BadVarint);
        refused("over-long varint", &writer("extra", json!("long")), &behind(&padded(2, bytes)), BadVarint);
    }
    refused("a varint without an end", &v1, &with_length(&vec![0x80; LARGE]), BadVarint);
    refused("an int of 64 bits", &writer("extra", json!("int")), &behind(&zigzag(1 << 40)), BadVarint);
    refused("a boolean of 2", &writer("extra", json!("boolean")), &behind(&[2]), BadVarint);

    for wrong in [&[0x80][..], &[0xff], &[0xed, 0xa0, 0x80], &[0xc0, 0xaf], &[0xf5, 0x80, 0x80, 0x80], &[0xe2, 0x82]] {
        let text = [&[wrong.len() as u8 * 2][..], wrong].concat();
        let mut first = with_length(&text);
        // The tenant's own byte.
        first.remove(10 + 37 + 8 + text.len());
        refused("invalid UTF-8", &v1, &first, InvalidUtf8);
        refused("invalid UTF-8", &writer("extra", json!("string")), &behind(&text), InvalidUtf8);
        let key = [&[2][..], &text, &[0, 0]].concat();
        refused(
            "invalid UTF-8 in a key",
            &writer("extra", json!({"type": "map", "values": "long"})),
            &behind(&key),
            InvalidUtf8,
        );
    }
    let mut long_text = zigzag(LARGE as i64);
    long_text.resize(LARGE + long_text.len() - 1, b'x');
    long_text.push(0xff);
    refused("invalid UTF-8 at a long text's end", &writer("extra", json!("string")), &behind(&long_text), InvalidUtf8);

    let union = writer("extra", json!(["null", "string", "long"]));
    for branch in [-1, -5, 3, 63, i64::MAX, i64::MIN] {
        refused("union branch", &union, &behind(&zigzag(branch)), BadUnionBranch);
    }
    let symbols = writer("extra", json!({"type": "enum", "name": "Extra", "symbols": ["A", "B"]}));
    for symbol in [-1, 2, i64::from(i32::MAX), i64::from(i32::MIN)] {
        refused("enum symbol", &symbols, &behind(&zigzag(symbol)), BadEnumSymbol);
    }

    for depth in [65, 200] {
        let mut schema: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
        schema["fields"].as_array_mut().unwrap().push(json!({"name": "extra", "type": nested(depth)}));
        let mut schemas = common::schemas();
        // A decoder may refuse such a schema; who takes it must bound its records.
        if schemas.add(WriterId::Confluent(WRITER), &schema.to_string()).is_ok() {
            refused("deep nesting", &Arc::new(schemas), &behind(&[2].repeat(depth + 1)), TooDeep);
        }
    }
    let deep = writer("extra", nested(20));
    let bomb = [2_u8].repeat(20).into_iter().chain(zigzag(i64::MAX)).collect::<Vec<_>>();
    refused("truncated in the depth", &deep, &behind(&[2].repeat(19)), Truncated);
    assert!(decode(&deep, &behind(&bomb)).is_err());

    let extra = writer("extra", json!({"type": "array", "items": "string"}));
    let whole = behind(&[4, 2, b'a', 2, b'b', 0]);
    decode(&extra, &whole).unwrap();
    for cut in 5..whole.len() {
        refused("cut", &extra, &whole[..cut], Truncated);
    }
    for tail in [1, 1000, LARGE] {
        refused("trailing bytes", &extra, &[whole.clone(), vec![0; tail]].concat(), TrailingBytes);
        refused("trailing bytes", &v1, &[record(&typical()), vec![0xff; tail]].concat(), TrailingBytes);
    }
}
