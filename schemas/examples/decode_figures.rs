//! What decoding costs beside what it may cost, in CPU time of one thread: `cargo xtask bench decode [--json FILE]`.
//!
//! The scenarios take turns, so that whatever else the machine does meets all of them; each figure is the median of its rounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use auditstream_schemas::{AUDIT_EVENT_V1, AuditEvent, BatchDecoder, Schemas, WriterId};
use serde_json::{Value as Json, json};

#[path = "../tests/common/mod.rs"]
mod common;

/// Events of a batch; a worker's are of 10,000 to 200,000.
const EVENTS: usize = 50_000;
const ROUNDS: usize = 31;

/// Events of one core and second.
const DECODE_TARGET: f64 = 1.5e6;
/// Mixed writers against v1 alone.
const MIXED_TARGET: f64 = 1.2;
/// Batches that a poison record may cost.
const POISON_TARGET: f64 = 1.0;

/// CPU nanoseconds of this process, which has one thread.
fn cpu_nanos(start: Instant) -> u64 {
    // Linux brings the count up to date when a thread goes to sleep; otherwise only with its tick, some milliseconds apart.
    std::thread::sleep(Duration::from_micros(1));
    let used = std::fs::read_to_string("/proc/self/schedstat").ok();
    let used = used.and_then(|text| text.split_whitespace().next()?.parse().ok());
    used.unwrap_or_else(|| start.elapsed().as_nanos() as u64)
}

/// Records one behind the other, as they lie in what was fetched from Kafka.
#[derive(Clone, Default)]
struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    fn of<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut all = Self::default();
        for record in records {
            all.bytes.extend_from_slice(record);
            all.ends.push(all.bytes.len());
        }
        all
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    /// The first of one, the second of the next, and so on.
    fn in_turns(of: &[&Self]) -> Self {
        let all: Vec<Vec<&[u8]>> = of.iter().map(|records| records.iter().collect()).collect();
        Self::of((0..EVENTS).map(|number| all[number % all.len()][number]))
    }

    /// With another record in the middle.
    fn with(&self, bad: &[u8]) -> Self {
        Self::of(self.iter().enumerate().map(|(number, record)| if number == EVENTS / 2 { bad } else { record }))
    }
}

struct Scenario {
    name: &'static str,
    reader: Reader,
    records: Records,
    nanos: Vec<f64>,
}

/// Which reader schema.
#[derive(Clone, Copy)]
enum Reader {
    V1,
    /// v1 with an alias for a renamed field.
    Alias,
    /// v2.
    Newer,
}

impl Scenario {
    /// Decodes the batch; poison is set aside, as a worker does.
    fn run(&mut self, decoder: &mut BatchDecoder, start: Instant) {
        let before = cpu_nanos(start);
        for record in self.records.iter() {
            let _ = black_box(decoder.push(record, common::AT));
        }
        drop(black_box(decoder.finish().unwrap()));
        self.nanos.push((cpu_nanos(start) - before) as f64 / EVENTS as f64);
    }

    /// Median nanoseconds of an event.
    fn median(&self) -> f64 {
        let mut sorted = self.nanos.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// v1, changed.
fn writer(change: impl FnOnce(&mut Vec<Json>)) -> String {
    let mut schema: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
    change(schema["fields"].as_array_mut().unwrap());
    schema.to_string()
}

fn field<'f>(fields: &'f mut [Json], name: &str) -> &'f mut Json {
    fields.iter_mut().find(|field| field["name"] == name).unwrap()
}

/// The versions, by their number as registry id: what each changes.
fn versions() -> [(u32, String); 7] {
    let region = || json!({"name": "region", "type": "string", "default": ""});
    let remove = |fields: &mut Vec<Json>, name: &str| fields.retain(|field| field["name"] != name);
    [
        (1, AUDIT_EVENT_V1.to_owned()),
        (2, writer(|fields| fields.push(region()))),
        (3, writer(|fields| fields.insert(0, region()))),
        (4, writer(|fields| fields.insert(8, region()))),
        (
            5,
            writer(|fields| {
                remove(fields, "on_behalf_of");
                for number in ["epoch", "seq"] {
                    let stamp = field(fields, "producer")["type"]["fields"].as_array_mut().unwrap();
                    field(stamp, number)["type"] = json!("int");
                }
                field(fields, "operation")["type"]["symbols"].as_array_mut().unwrap().insert(0, json!("MERGE"));
            }),
        ),
        (6, writer(|fields| field(fields, "entity_name")["name"] = json!("entity_label"))),
        (7, writer(|fields| fields.reverse())),
    ]
}

/// The events as records of a version.
fn records(events: &[AuditEvent], id: u32, schema: &str) -> Records {
    let schema = Schema::parse_str(schema).unwrap();
    let Schema::Record(shape) = &schema else { panic!("a record") };
    let to_bytes = GenericDatumWriter::builder(&schema).build().unwrap();
    let record = |event: &AuditEvent| {
        let Value::Record(mut fields) = common::value(event) else { panic!("a record") };
        fields.push(("region".to_owned(), Value::String("eu-west".to_owned())));
        for (name, value) in &mut fields {
            match (id, name.as_str(), &mut *value) {
                (5, "producer", Value::Record(stamp)) => {
                    for (_, number) in stamp {
                        if let Value::Long(n) = number {
                            *number = Value::Int(*n as i32);
                        }
                    }
                }
                (5, "operation", Value::Enum(index, _)) => *index += 1,
                (6, "entity_name", _) => *name = "entity_label".to_owned(),
                _ => {}
            }
        }
        let of_schema = shape.fields.iter().map(|f| fields.iter().find(|(name, _)| *name == f.name).unwrap().clone());
        let body = to_bytes.write_value_to_vec(Value::Record(of_schema.collect())).unwrap();
        [&[0][..], &id.to_be_bytes(), &body].concat()
    };
    let all: Vec<_> = events.iter().map(record).collect();
    Records::of(all.iter().map(Vec::as_slice))
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
    let versions = versions();
    let alias = writer(|fields| field(fields, "entity_name")["aliases"] = json!(["entity_label"]));
    let [mut v1_reader, mut alias_reader, mut newer_reader] =
        [AUDIT_EVENT_V1, &alias, &versions[1].1].map(|reader| Schemas::reading_as(reader).unwrap());
    for (id, json) in &versions {
        // Only who has the alias can read what was renamed as more than a field less.
        v1_reader.add(WriterId::Confluent(*id), json).unwrap();
        alias_reader.add(WriterId::Confluent(*id), json).unwrap();
        newer_reader.add(WriterId::Confluent(*id), json).unwrap();
    }
    let [v1, v2, v3, v4, v5, v6, v7] = versions.each_ref().map(|(id, json)| records(&events, *id, json));
    let bytes = v1.bytes.len() / EVENTS;
    let first = v1.iter().next().unwrap();
    let mut trailing = first.to_vec();
    trailing.push(0);
    let turns = |other| Records::in_turns(&[&v1, other]);
    let all = [
        ("v1", Reader::V1, v1.clone()),
        ("v2: a field behind", Reader::V1, v2.clone()),
        ("v1 and v2 in turns", Reader::V1, turns(&v2)),
        ("v3: a field in front", Reader::V1, v3.clone()),
        ("v1 and v3 in turns", Reader::V1, turns(&v3)),
        ("v4: a field in the middle", Reader::V1, v4.clone()),
        ("v1 and v4 in turns", Reader::V1, turns(&v4)),
        ("v5: one less, int, a symbol", Reader::V1, v5.clone()),
        ("v1 and v5 in turns", Reader::V1, turns(&v5)),
        ("v6: a field renamed", Reader::Alias, v6.clone()),
        ("v1 and v6 in turns", Reader::Alias, turns(&v6)),
        ("v7: the other way round", Reader::V1, v7.clone()),
        ("v1 and v7 in turns", Reader::V1, turns(&v7)),
        ("v1 to v5 in turns", Reader::V1, Records::in_turns(&[&v1, &v2, &v3, &v4, &v5])),
        ("v1, read as v2", Reader::Newer, v1.clone()),
        ("v1 and v2, read as v2", Reader::Newer, turns(&v2)),
        ("v1 and v3, read as v2", Reader::Newer, turns(&v3)),
        ("v1, one cut short", Reader::V1, v1.with(&first[..200])),
        ("v1, one with a byte more", Reader::V1, v1.with(&trailing)),
        ("v1, one of no schema", Reader::V1, v1.with(&[0, 0, 0, 0, 99])),
    ];
    let mut all = all.map(|(name, reader, records)| Scenario { name, reader, records, nanos: Vec::new() });
    let start = Instant::now();
    let mut decoders = [v1_reader, alias_reader, newer_reader].map(|schemas| BatchDecoder::new(Arc::new(schemas)));
    for _ in 0..=ROUNDS {
        all.iter_mut().for_each(|scenario| scenario.run(&mut decoders[scenario.reader as usize], start));
    }
    // The first round warms up.
    for scenario in &mut all {
        scenario.nanos.remove(0);
    }
    println!(
        "batches of {EVENTS} events of {bytes} bytes, {ROUNDS} rounds in turns, CPU time of one core, content hash included\n"
    );
    let alone = all[0].median();
    for scenario in &all {
        let nanos = scenario.median();
        let ratio = nanos / alone;
        println!(
            "  {:<28} {nanos:>7.1} ns/event  {:>5.2} M events/s  {ratio:>5.2} times v1",
            scenario.name,
            1000.0 / nanos
        );
    }
    let of = |starts: &str, has: &str| {
        let named = all.iter().filter(|scenario| scenario.name.starts_with(starts) && scenario.name.contains(has));
        named.map(Scenario::median).fold(0.0, f64::max)
    };
    let figures = [
        ("decode_events_per_second", "decode to Arrow, events a second", 1e9 / alone, DECODE_TARGET, true),
        ("mixed_to_v1", "the worst mix of versions, to v1 alone", of("v1 ", "in turns") / alone, MIXED_TARGET, false),
        ("newer_reader_to_v1", "v1 read as v2, to v1 alone", of("v1", "read as") / alone, MIXED_TARGET, false),
        (
            "poison_batches",
            "one poison record, in decodes of its batch",
            of("v1, one", "") / alone - 1.0,
            POISON_TARGET,
            false,
        ),
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
