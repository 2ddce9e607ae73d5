//! Each way in which a record can be bad has its code, in both decoders, and harms no neighbour.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use auditstream_schemas::*;
use proptest::prelude::*;

mod common;
use common::spoil::{slip, spoil, zigzag};
use common::{AT, body, cases, event_at, minimal, record, shared, typical};

fn framed(body: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc3, 1];
    record.extend_from_slice(&V1_FINGERPRINT.to_le_bytes());
    record.extend_from_slice(body);
    record
}

/// The code that both decoders give, and the message.
fn refused(record: &[u8]) -> (PoisonCode, String) {
    let schemas = shared();
    let mut decoder = BatchDecoder::new(schemas.clone());
    let good = common::record(&typical());
    decoder.push(&good, AT).unwrap();
    let poison = decoder.push(record, AT).unwrap_err();
    assert_eq!(decode(&schemas, record).unwrap_err(), poison);
    assert_eq!(schemas.check(record).unwrap_err(), poison);
    decoder.push(&good, AT).unwrap();
    assert_eq!((decoder.rows(), decoder.bytes()), (2, 2 * good.len()));
    let batch = decoder.finish().unwrap().remove(0).batch;
    assert_eq!((event_at(&batch, 0), event_at(&batch, 1)), (typical(), typical()));
    (poison.code, poison.message)
}

/// The minimal event's body with the bytes at `at..at + len` replaced.
fn patched(at: usize, len: usize, with: &[u8]) -> Vec<u8> {
    let mut body = body(&minimal());
    body.splice(at..at + len, with.iter().copied());
    framed(&body)
}

// Where things stand in the minimal event's body: 1 + 36 bytes of id, 8 of time, then t, s, default, a, an enum, e, 1.
const TIME: usize = 37;
const TENANT: usize = TIME + 8;
const OPERATION: usize = TENANT + 2 + 2 + 8 + 2;
const ENTITY_NAME: usize = OPERATION + 1 + 2 + 2;
const KIND: usize = ENTITY_NAME + 1;
/// kind, four texts, on_behalf_of, outcome, error_message.
const CHANGES: usize = KIND + 1 + 4 + 1 + 1 + 1;

#[test]
fn offsets_are_what_they_say() {
    let body = body(&minimal());
    assert_eq!(body[TENANT..TENANT + 2], [2, b't']);
    assert_eq!(body[OPERATION], 4 << 1);
    assert_eq!(body[KIND], 3 << 1);
    assert_eq!(body[CHANGES], 0);
    assert_eq!(body.len(), CHANGES + 1 + 7 + 1 + 3 + 1 + 2);
}

#[test]
fn frames() {
    assert_eq!(refused(b"").0, PoisonCode::Empty);
    assert_eq!(refused(b"{\"plain\":\"text\"}").0, PoisonCode::WrongMagic);
    assert_eq!(refused(&[0xc3, 1, 2]).0, PoisonCode::Truncated);
    let (code, message) = refused(&[0, 0, 0, 0, 7, 1, 2, 3]);
    assert_eq!((code, message.as_str()), (PoisonCode::UnknownSchema, "no schema is known under confluent:7"));
    assert_eq!(Poison::null_value().code.as_str(), "null-value");
}

#[test]
fn every_cut_is_truncated() {
    let whole = record(&typical());
    for cut in 1..whole.len() {
        let (code, message) = refused(&whole[..cut]);
        assert_eq!(code, PoisonCode::Truncated, "cut at {cut}: {message}");
    }
}

#[test]
fn trailing_bytes() {
    for tail in [&b"\0"[..], b"more", &record(&typical())] {
        let mut record = record(&typical());
        record.extend_from_slice(tail);
        assert_eq!(refused(&record).0, PoisonCode::TrailingBytes);
    }
}

#[test]
fn lengths() {
    for bomb in [-1, i64::MIN, 1 << 30, i64::MAX] {
        let (code, message) = refused(&patched(TENANT, 1, &zigzag(bomb)));
        assert_eq!(code, PoisonCode::LengthOutOfRange);
        assert!(message.starts_with(&format!("tenant_id: a string of {bomb} bytes")), "{message}");
        if bomb != -1 {
            assert_eq!(refused(&patched(CHANGES, 1, &zigzag(bomb))).0, PoisonCode::LengthOutOfRange, "{bomb}");
        }
    }
    // A negative count is followed by the block's bytes: here -1 item of 3 bytes, then one of a lying length.
    let block = |len: i64| patched(CHANGES, 1, &[zigzag(-1), zigzag(len), vec![0, 0, 0], vec![0]].concat());
    assert_eq!(decode(&shared(), &block(3)).unwrap().changes.len(), 1);
    for lie in [0, 2, 4, 6] {
        assert_eq!(refused(&block(lie)).0, PoisonCode::LengthOutOfRange, "{lie}");
    }
    assert_eq!(refused(&block(-3)).0, PoisonCode::LengthOutOfRange);
}

#[test]
fn values() {
    let (code, message) = refused(&patched(TENANT, 2, &[4, 0xc3, 0x28]));
    assert_eq!(
        (code, message.as_str()),
        (PoisonCode::InvalidUtf8, "tenant_id: a string that is not UTF-8 (byte 48 of the body)")
    );
    for branch in [-1, 2, -5, i64::MAX] {
        assert_eq!(refused(&patched(ENTITY_NAME, 1, &zigzag(branch))).0, PoisonCode::BadUnionBranch, "{branch}");
    }
    for symbol in [-1, 5, 1 << 20] {
        assert_eq!(refused(&patched(OPERATION, 1, &zigzag(symbol))).0, PoisonCode::BadEnumSymbol, "{symbol}");
        let (code, message) = refused(&patched(KIND, 1, &zigzag(symbol)));
        assert_eq!(code, PoisonCode::BadEnumSymbol);
        assert!(message.starts_with("actor.kind: "), "{message}");
    }
    assert_eq!(refused(&patched(OPERATION, 1, &zigzag(1 << 40))).0, PoisonCode::BadVarint);
    assert_eq!(refused(&patched(TIME, 8, &[0xff; 11])).0, PoisonCode::BadVarint);
    assert_eq!(
        refused(&patched(TIME, 8, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2])).0,
        PoisonCode::BadVarint
    );
    for time in [Timestamp::MIN_STORABLE.as_micros() - 1, Timestamp::MAX_STORABLE.as_micros() + 1, i64::MIN, i64::MAX] {
        assert_eq!(refused(&patched(TIME, 8, &zigzag(time))).0, PoisonCode::TimeOutOfRange);
    }
    for id in [
        "",
        "x",
        "01900000-0000-7000-8000-00000000000g",
        "{1900000-0000-7000-8000-00000000000}",
        "01900000000070008000000000000001",
    ] {
        let text = [zigzag(id.len() as i64), id.as_bytes().to_vec()].concat();
        assert_eq!(refused(&patched(0, 37, &text)).0, PoisonCode::InvalidUuid, "{id}");
    }
    for field in [TENANT, TENANT + 2, OPERATION - 2, OPERATION + 1, OPERATION + 3] {
        assert_eq!(refused(&patched(field, 2, &[0])).0, PoisonCode::MissingField, "{field}");
    }
    let bad_change = [zigzag(2), vec![0, 0, 0], vec![0, 2, 2, 0xff, 0], vec![0]].concat();
    let (code, message) = refused(&patched(CHANGES, 1, &bad_change));
    assert_eq!(code, PoisonCode::InvalidUtf8);
    assert!(message.starts_with("changes[1].old: "), "{message}");
}

#[test]
fn codes_are_stable() {
    let names: Vec<_> = PoisonCode::ALL.iter().map(|c| c.as_str()).collect();
    assert_eq!(
        names.join(" "),
        "empty null-value wrong-magic unknown-schema unusable-schema truncated trailing-bytes length-out-of-range invalid-utf8 bad-union-branch \
         bad-enum-symbol bad-varint too-deep invalid-uuid time-out-of-range missing-field unresolvable"
    );
}

proptest! {
    #![proptest_config(cases(4096))]

    /// What the guard passes, apache-avro decodes to the last byte and arrow-avro decodes to the same event;
    /// what it refuses leaves no trace.
    #[test]
    fn guard_and_decoders_agree(
        event in prop_oneof![Just(minimal()), Just(typical()), common::events()],
        slips in prop::collection::vec(slip(), 1..3),
    ) {
        let mut spoiled = body(&event);
        slips.iter().for_each(|slip| spoil(&mut spoiled, slip));
        let spoiled = framed(&spoiled);
        let schemas = shared();
        let mut decoder = BatchDecoder::new(schemas.clone());
        let at = |offset| Position { offset, ..AT };
        decoder.push(&record(&event), at(0)).unwrap();
        let taken = decoder.push(&spoiled, at(1));
        decoder.push(&record(&event), at(2)).unwrap();
        let one = decode(&schemas, &spoiled);
        prop_assert_eq!(taken.as_ref().err(), one.as_ref().err());
        if let Err(poison) = &taken {
            prop_assert!(poison.code != PoisonCode::Unresolvable, "{}", poison);
        }
        // What is good but not regular comes in a batch of its own.
        let mut rows = Vec::new();
        for Decoded { batch, positions, .. } in decoder.finish().unwrap() {
            let hashes = content_hash(&batch).unwrap();
            rows.extend(positions.iter().enumerate().map(|(row, at)| {
                (at.offset, event_at(&batch, row), hashes.value(row).to_vec())
            }));
        }
        rows.sort_by_key(|(offset, ..)| *offset);
        let expected = [(0, Some(event.clone())), (1, one.ok()), (2, Some(event))].into_iter();
        let expected: Vec<_> = expected
            .filter_map(|(offset, event)| event.map(|event| (offset, event.clone(), content_hash_of(&event).to_vec())))
            .collect();
        prop_assert_eq!(rows, expected);
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), frame in any::<bool>()) {
        let record = if frame { framed(&bytes) } else { bytes };
        let mut decoder = BatchDecoder::new(shared());
        prop_assert_eq!(decoder.push(&record, AT).is_ok(), decode(&shared(), &record).is_ok());
    }
}
