//! Encodes or decodes so many events and ends: `cargo xtask test-instructions` counts what the processor does meanwhile.
//!
//! The work is the same on every machine: events of a fixed form, no clock, no random source, one thread.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use auditstream_schemas::{AuditEvent, BatchDecoder, Framing, Schemas, encode};

#[path = "../tests/common/mod.rs"]
mod common;

/// Rows of a batch.
const BATCH: usize = 10_000;

fn event(number: usize) -> AuditEvent {
    let mut event = common::typical();
    event.event_id = uuid::Uuid::from_u128(event.event_id.as_u128() + number as u128);
    event.entity_id = format!("inv-2024-{number:06}");
    event.actor.id = Some(format!("user-{:03}", number % 977));
    event
}

/// What is counted: the whole call, and what it calls.
#[inline(never)]
fn counted_encode(events: &[AuditEvent], out: &mut Vec<u8>) {
    for event in events {
        out.clear();
        encode(event, Framing::SingleObject, out);
        black_box(&out);
    }
}

/// What is counted: records of several batches to columns.
#[inline(never)]
fn counted_decode(records: &[Vec<u8>], decoder: &mut BatchDecoder) {
    for batch in records.chunks(BATCH) {
        for record in batch {
            decoder.push(record, common::AT).unwrap();
        }
        drop(black_box(decoder.finish().unwrap()));
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let events: usize = arguments.next().and_then(|text| text.parse().ok()).expect("WHAT EVENTS");
    let events: Vec<AuditEvent> = (0..events).map(event).collect();
    match what.as_str() {
        "encode" => counted_encode(&events, &mut Vec::new()),
        "decode" => {
            let records: Vec<_> = events.iter().map(common::record).collect();
            let schemas = Arc::new(Schemas::builtin().unwrap());
            counted_decode(&records, &mut BatchDecoder::new(schemas));
        }
        other => panic!("encode or decode, not `{other}`"),
    }
}
