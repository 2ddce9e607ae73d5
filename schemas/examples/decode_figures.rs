//! What decoding costs beside what it may cost, in CPU time of one thread: `cargo xtask bench decode [--json FILE]`.
//!
//! The scenarios take turns, so that whatever else the machine does meets all of them; each figure is the median of its rounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use auditstream_schemas::{AUDIT_EVENT_V1, BatchDecoder, Schemas, WriterId};
use serde_json::{Value as Json, json};

#[path = "../tests/common/mod.rs"]
mod common;

/// Events of a batch; a worker's are of 10,000 to 200,000.
const EVENTS: usize = 50_000;
const ROUNDS: usize = 31;
/// Confluent ids of the writers.
const ADDED: u32 = 2;
const CHANGED: u32 = 3;

/// Events of one core and second.
const DECODE_TARGET: f64 = 1.5e6;
/// Mixed writers against each alone.
const MIXED_TARGET: f64 = 1.2;
/// Batches that a poison record may cost.
const POISON_TARGET: f64 = 1.0;

/// CPU nanoseconds of this process, which has one thread.
fn cpu_nanos(start: Instant) -> u64 {
    let used = std::fs::read_to_string("/proc/self/schedstat").ok();
    let used = used.and_then(|text| text.split_whitespace().next()?.parse().ok());
    used.unwrap_or_else(|| start.elapsed().as_nanos() as u64)
}

struct Scenario {
    name: &'static str,
    records: Vec<Vec<u8>>,
    nanos: Vec<f64>,
}

impl Scenario {
    fn new(name: &'static str, records: Vec<Vec<u8>>) -> Self {
        Self { name, records, nanos: Vec::new() }
    }

    /// Decodes the batch; poison is set aside, as a worker does.
    fn run(&mut self, decoder: &mut BatchDecoder, start: Instant) {
        let before = cpu_nanos(start);
        for record in &self.records {
            let _ = black_box(decoder.push(record, common::AT));
        }
        drop(black_box(decoder.finish().unwrap()));
        self.nanos.push((cpu_nanos(start) - before) as f64 / self.records.len() as f64);
    }

    /// Median nanoseconds of an event.
    fn median(&self) -> f64 {
        let mut sorted = self.nanos.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// A field behind the others, as a next version would have it; and one in the middle, which no straight way knows.
fn writer(behind: bool) -> String {
    let mut schema: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
    let fields = schema["fields"].as_array_mut().unwrap();
    let at = if behind { fields.len() } else { 0 };
    fields.insert(at, json!({"name": "region", "type": "string", "default": ""}));
    schema.to_string()
}

fn main() {
    let json_file = std::env::args().nth(1);
    let events = (0..EVENTS).map(|i| {
        let mut event = common::typical();
        event.event_id = uuid::Uuid::from_u128(event.event_id.as_u128() + i as u128);
        event.entity_id = format!("inv-2024-{i:06}");
        event.actor.id = Some(format!("user-{:03}", i % 977));
        event.changes.truncate(1);
        event
    });
    let events: Vec<_> = events.collect();
    let mut schemas = Schemas::builtin().unwrap();
    schemas.add(WriterId::Confluent(ADDED), &writer(true)).unwrap();
    schemas.add(WriterId::Confluent(CHANGED), &writer(false)).unwrap();
    let frame = |id: u32| [&[0][..], &id.to_be_bytes()].concat();
    let region = b"\x0eeu-west".to_vec();
    let v1: Vec<_> = events.iter().map(common::record).collect();
    let added: Vec<_> = events.iter().map(|e| [frame(ADDED), common::body(e), region.clone()].concat()).collect();
    let changed: Vec<_> = events.iter().map(|e| [frame(CHANGED), region.clone(), common::body(e)].concat()).collect();
    let mixed = |other: &[Vec<u8>]| {
        let pick = |(i, v1): (usize, &Vec<u8>)| if i % 2 == 0 { v1.clone() } else { other[i].clone() };
        v1.iter().enumerate().map(pick).collect::<Vec<_>>()
    };
    let with = |bad: Vec<u8>| {
        let mut records = v1.clone();
        records[EVENTS / 2] = bad;
        records
    };
    let mut trailing = v1[0].clone();
    trailing.push(0);
    let bytes = v1.iter().map(Vec::len).sum::<usize>() / EVENTS;
    let mut all = [
        Scenario::new("v1", v1.clone()),
        Scenario::new("v2: a field behind", added.clone()),
        Scenario::new("v1 and v2 in turns", mixed(&added)),
        Scenario::new("v3: a field in front", changed.clone()),
        Scenario::new("v1 and v3 in turns", mixed(&changed)),
        Scenario::new("v1, one cut short", with(v1[0][..200].to_vec())),
        Scenario::new("v1, one with a byte more", with(trailing)),
        Scenario::new("v1, one of no schema", with(frame(99))),
    ];
    let start = Instant::now();
    let mut decoder = BatchDecoder::new(Arc::new(schemas));
    for _ in 0..=ROUNDS {
        all.iter_mut().for_each(|scenario| scenario.run(&mut decoder, start));
    }
    // The first round warms up.
    for scenario in &mut all {
        scenario.nanos.remove(0);
    }
    println!(
        "batches of {EVENTS} events of {bytes} bytes, {ROUNDS} rounds in turns, CPU time of one core, content hash included\n"
    );
    for scenario in &all {
        let nanos = scenario.median();
        println!("  {:<26} {nanos:>7.1} ns/event  {:>5.2} M events/s", scenario.name, 1000.0 / nanos);
    }
    let [v1, v2, mixed2, v3, mixed3, cut, more, unknown] = all.each_ref().map(Scenario::median);
    let poison = [cut, more, unknown].into_iter().fold(0.0, f64::max) / v1 - 1.0;
    let figures = [
        ("decode_events_per_second", "decode to Arrow, events a second", 1e9 / v1, DECODE_TARGET, true),
        ("mixed_to_v1", "v1 and v2 in turns, to v1 alone", mixed2 / v1, MIXED_TARGET, false),
        (
            "mixed_to_mean",
            "v1 and v2 in turns, to the mean of each alone",
            mixed2 * 2.0 / (v1 + v2),
            MIXED_TARGET,
            false,
        ),
        (
            "mixed_v3_to_mean",
            "v1 and v3 in turns, to the mean of each alone",
            mixed3 * 2.0 / (v1 + v3),
            MIXED_TARGET,
            false,
        ),
        ("poison_batches", "one poison record, in decodes of its batch", poison, POISON_TARGET, false),
    ];
    println!();
    let mut report = serde_json::Map::new();
    for (key, name, value, target, at_least) in figures {
        let reached = if at_least { value >= target } else { value <= target };
        let (sign, word) = (if at_least { "at least" } else { "at most" }, if reached { "reached" } else { "MISSED" });
        println!("  {name:<46} {value:>12.2}  target: {sign} {target}  {word}");
        report.insert(
            key.to_owned(),
            json!({"value": value, "target": target, "at_least": at_least, "reached": reached}),
        );
    }
    let nanos: serde_json::Map<_, _> = all.iter().map(|s| (s.name.to_owned(), json!(s.median()))).collect();
    report.insert("nanoseconds_per_event".to_owned(), Json::Object(nanos));
    report.insert("event_bytes".to_owned(), json!(bytes));
    if let Some(file) = json_file {
        std::fs::write(&file, Json::Object(report).to_string() + "\n").unwrap_or_else(|e| panic!("{file}: {e}"));
    }
}
