//! What is sent is what is stored: every event, every column, in order.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use auditstream_integration_tests::{COLUMNS, Fixture, Options, Record, Table, expected_row};
use auditstream_schemas::{AuditEvent, Change, Framing, Position, ProducerStamp, Timestamp, encode};

const EVENTS: u64 = 200_000;
const PRODUCERS: u64 = 4;
const PARTITIONS: i32 = 6;

/// The event with number `index`: the generator's, with what it leaves to others or keeps plain.
fn event(fixture: &Fixture, index: u64) -> AuditEvent {
    let mut event = fixture.generator().event(index);
    let lane = fixture.generator().lane(index, PRODUCERS);
    event.environment = ["prod", "staging"][usize::from(index.is_multiple_of(3))].to_owned();
    event.producer = ProducerStamp {
        id: format!("producer-{lane}"),
        epoch: 1_769_860_800_000_000 + lane as i64,
        seq: index as i64 + 1,
    };
    let edges = [
        "1900-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "2262-04-11T23:47:16.854776Z",
        "2299-12-31T23:59:59.999999Z",
    ];
    match index % 1000 {
        // Times at which signed, unsigned and nanosecond counters end.
        10 => event.occurred_at = edges[(index / 1000 % 4) as usize].parse::<Timestamp>().unwrap(),
        20 => event.entity_name = Some("quote ' \" back\\slash tab\t line\r\n nul\0 🦀 \u{202e}العربية".to_owned()),
        30 => event.details = format!("{{\"text\":\"{}\"}}", "é\\u0000<script>\\n".repeat(2_000)),
        40 => {
            let change = |n: usize| Change {
                path: format!("/items/{n}/price"),
                old: Some("null".to_owned()),
                new: n.is_multiple_of(2).then(|| n.to_string()),
            };
            event.changes = (0..300).map(change).collect();
        }
        _ => {}
    }
    event
}

#[test]
fn every_event_lands_once_in_order_with_every_column_as_sent() {
    let fixture = Fixture::new(Options::heavy("landing").partitions(PARTITIONS));
    let _workers = [fixture.worker(), fixture.worker()];
    let started = Instant::now();
    std::thread::scope(|scope| {
        for lane in 0..PRODUCERS {
            let fixture = &fixture;
            scope.spawn(move || {
                let recorder = fixture.recorder(fixture.producer_config(&format!("producer-{lane}")));
                (0..EVENTS)
                    .filter(|index| fixture.generator().lane(*index, PRODUCERS) == lane)
                    .for_each(|index| recorder.record(event(fixture, index)));
                recorder.finish();
            });
        }
    });
    let sent = started.elapsed();
    fixture.wait_landed(Duration::from_secs(90));
    eprintln!("landing: {EVENTS} events acknowledged after {sent:.1?}, stored after {:.1?}", started.elapsed());

    fixture.verdict().assert_clean(EVENTS, 0);
    let positions = check_topic(&fixture);
    check_order(&fixture, &positions);
    check_columns(&fixture, &positions);
}

/// The topic holds what was recorded; returns where each event is, by its index.
fn check_topic(fixture: &Fixture) -> Vec<Position> {
    let index_of: HashMap<String, u64> =
        (0..EVENTS).map(|index| (fixture.generator().event_id(index).to_string(), index)).collect();
    let mut positions = vec![Position { partition: -1, offset: -1, timestamp_ms: -1 }; EVENTS as usize];
    let records = fixture.kafka().read(fixture.topic());
    assert_eq!(records.len() as u64, EVENTS);
    for record in records {
        let index = index_of[record.header("ce_id")];
        let event = event(fixture, index);
        let mut value = Vec::new();
        encode(&event, Framing::SingleObject, &mut value);
        assert_eq!(record.value.as_ref(), Some(&value), "the value of event {index}");
        assert_eq!(record.key.as_deref(), Some(event.key().as_bytes()), "the key of event {index}");
        let Record { partition, offset, timestamp_ms, .. } = record;
        positions[index as usize] = Position { partition, offset, timestamp_ms };
    }
    let used: std::collections::HashSet<i32> = positions.iter().map(|at| at.partition).collect();
    assert_eq!(used.len(), PARTITIONS as usize, "partitions in use");
    positions
}

/// The events of one entity lie in one partition, in the order in which they were recorded.
fn check_order(fixture: &Fixture, positions: &[Position]) {
    let mut last_of: HashMap<String, (u64, Position)> = HashMap::new();
    let mut compared = 0;
    for (index, at) in (0u64..).zip(positions) {
        let before = last_of.insert(event(fixture, index).key(), (index, *at));
        if let Some((before, earlier)) = before {
            assert_eq!(at.partition, earlier.partition, "events {before} and {index} of one entity");
            assert!(at.offset > earlier.offset, "event {index} overtook event {before} of the same entity");
            compared += 1;
        }
    }
    assert!(compared > EVENTS / 10, "only {compared} events had one of the same entity before them");
}

fn check_columns(fixture: &Fixture, positions: &[Position]) {
    let index_of: HashMap<_, u64> = (0..EVENTS).map(|index| (fixture.generator().event_id(index), index)).collect();
    let mut seen = vec![false; positions.len()];
    let mut first_row = Vec::new();
    let mut varies = [false; COLUMNS.len()];
    for partition in 0..PARTITIONS {
        let sql =
            format!("SELECT * FROM events FINAL WHERE _partition = {partition} FORMAT RowBinaryWithNamesAndTypes");
        let table = Table::read(&fixture.admin().try_bytes(&sql).unwrap());
        let columns: Vec<(&str, &str)> = table.columns.iter().map(|(name, kind)| (&**name, &**kind)).collect();
        assert_eq!(columns, COLUMNS, "the columns of the table");
        let id = table.column("event_id");
        for row in table.rows {
            let index = index_of[&row[id].uuid()];
            assert!(!std::mem::replace(&mut seen[index as usize], true), "event {index} is there twice");
            let expected = expected_row(&event(fixture, index), fixture.topic(), positions[index as usize]);
            if first_row.is_empty() {
                first_row = expected.clone();
            }
            for (place, (name, _)) in COLUMNS.iter().enumerate() {
                assert_eq!(row[place], expected[place], "column {name} of event {index}");
                varies[place] |= row[place] != first_row[place];
            }
        }
    }
    assert!(seen.iter().all(|seen| *seen), "every event was compared");
    for ((name, _), varies) in COLUMNS.iter().zip(varies) {
        assert!(varies || *name == "_topic", "column {name} has one value only: comparing it shows little");
    }
}

#[test]
fn both_framings_land_from_one_topic() {
    const EACH: u64 = 2_000;
    let fixture = Fixture::new(Options::light("framings").schema("framing = \"confluent\"\nconfluent_schema_id = 77"));
    let _worker = fixture.worker();
    let framings = [Framing::SingleObject, Framing::Confluent { schema_id: 77 }];
    let recorders = framings
        .map(|framing| fixture.recorder(auditstream_producer::Config { framing, ..fixture.producer_config("mixed") }));
    for _ in 0..EACH {
        recorders.iter().for_each(|recorder| recorder.record(fixture.next_event()));
    }
    recorders.into_iter().for_each(|recorder| recorder.finish());
    fixture.wait_landed(Duration::from_secs(90));
    fixture.verdict().assert_clean(2 * EACH, 0);
    let starts_with = |start: &[u8]| {
        let records = fixture.kafka().read(fixture.topic());
        records.iter().filter(|record| record.value.as_ref().is_some_and(|value| value.starts_with(start))).count()
            as u64
    };
    assert_eq!([starts_with(&[0xc3, 0x01]), starts_with(&[0, 0, 0, 0, 77])], [EACH, EACH], "records of each framing");
}
