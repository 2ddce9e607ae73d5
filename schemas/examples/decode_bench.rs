//! Nanoseconds per event of each step on one core:
//! `cargo run --release -p auditstream-schemas --example decode_bench [STEP]`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use auditstream_schemas::{BatchDecoder, Framing, Schemas, content_hash, content_hash_of, decode, encode, encoded_len};

#[path = "../tests/common/mod.rs"]
mod common;

const EVENTS: usize = 50_000;
const ROUNDS: usize = 5;

/// CPU time this process has used, in nanoseconds, so that neighbours on the machine disturb less; else the wall clock.
fn cpu_nanos(start: Instant) -> u64 {
    let used = std::fs::read_to_string("/proc/self/schedstat").ok();
    let used = used.and_then(|text| text.split_whitespace().next()?.parse().ok());
    used.unwrap_or_else(|| start.elapsed().as_nanos() as u64)
}

/// The best of several rounds, in nanoseconds per event.
fn best(name: &str, events: usize, mut round: impl FnMut()) {
    if std::env::args().nth(1).is_some_and(|only| !name.contains(&only)) {
        return;
    }
    let start = Instant::now();
    // CPU time is counted in ticks of some milliseconds: rounds of half a second make them small.
    let nanos = (0..ROUNDS).map(|_| {
        let before = cpu_nanos(start);
        let mut events_done = 0;
        while cpu_nanos(start) - before < 500_000_000 {
            round();
            events_done += events;
        }
        (cpu_nanos(start) - before) as f64 / events_done as f64
    });
    let best = nanos.fold(f64::INFINITY, f64::min);
    println!("{name:<28} {best:>7.1} ns/event  {:>5.2} M events/s", 1000.0 / best);
}

fn main() {
    // Events that differ as real ones do, about 300 bytes each.
    let events: Vec<_> = (0..EVENTS)
        .map(|i| {
            let mut event = common::typical();
            event.event_id = uuid::Uuid::from_u128(event.event_id.as_u128() + i as u128);
            event.entity_id = format!("inv-2024-{i:06}");
            event.actor.id = Some(format!("user-{:03}", i % 977));
            event
        })
        .collect();
    let records: Vec<_> = events.iter().map(common::record).collect();
    println!("{EVENTS} events of {} bytes", records[0].len());
    let schemas = Arc::new(Schemas::builtin().unwrap());
    let mut out = Vec::new();
    best("encode", EVENTS, || {
        for event in &events {
            out.clear();
            encode(black_box(event), Framing::SingleObject, &mut out);
        }
    });
    best("validate", EVENTS, || events.iter().for_each(|e| e.validate().unwrap()));
    best("encoded_len", EVENTS, || {
        events.iter().for_each(|e| {
            black_box(encoded_len(e));
        })
    });
    best("guard", EVENTS, || records.iter().for_each(|r| schemas.check(r).unwrap()));
    let mut decoder = BatchDecoder::new(schemas.clone());
    best("guard + decode to Arrow", EVENTS, || {
        for record in &records {
            decoder.push(record, common::AT).unwrap();
        }
        black_box(decoder.finish().unwrap());
    });
    for record in &records {
        decoder.push(record, common::AT).unwrap();
    }
    let batch = decoder.finish().unwrap().remove(0).batch;
    best("content_hash of a batch", EVENTS, || drop(black_box(content_hash(&batch).unwrap())));
    best("content_hash_of one event", EVENTS, || {
        events.iter().for_each(|e| {
            black_box(content_hash_of(e));
        })
    });
    best("decode one (tools)", EVENTS / 20, || {
        records[..EVENTS / 20].iter().for_each(|r| drop(decode(&schemas, r).unwrap()))
    });
    best("to_json", EVENTS, || events.iter().for_each(|e| drop(black_box(e.to_json()))));
    let lines: Vec<_> = events.iter().map(|e| e.to_json()).collect();
    best("from_json", EVENTS, || {
        lines.iter().for_each(|l| drop(auditstream_schemas::AuditEvent::from_json(l.as_bytes()).unwrap()))
    });
}
