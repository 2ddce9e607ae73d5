//! Row 23: event times at the edges are stored exactly, and those that can't be are dead letters with the reason.

use auditstream_consumer::headers;
use auditstream_integration_tests::{FaultReport, Fixture, Options};
use auditstream_schemas::{Framing, Timestamp, encode};

use super::PATIENCE;

#[test]
fn times_at_the_edges_are_exact_or_dead_letters() {
    let mut report = FaultReport::new("23 event times at 1970, 2262, DST, a day ahead, out of range");
    let fixture = Fixture::new(Options::light("edge-times"));
    let _worker = fixture.worker();
    let tomorrow =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64 + 86_400_000_000;
    let stored = [
        -2_208_988_800_000_000,
        -1,
        0,
        1,
        // Both sides of Berlin's changes of 2025, in March and in October.
        1_743_296_399_999_999,
        1_743_296_400_000_000,
        1_761_440_399_999_999,
        1_761_440_400_000_000,
        9_223_372_036_854_775,
        9_223_372_036_854_776,
        10_413_791_999_999_999,
        tomorrow,
    ];
    let recorder = fixture.recorder(fixture.producer_config("times"));
    let mut expected = Vec::new();
    for micros in stored {
        let mut event = fixture.next_event();
        event.occurred_at = Timestamp::from_micros(micros);
        expected.push((event.event_id.to_string(), micros));
        recorder.record(event);
        report.run();
    }
    recorder.finish();
    for micros in [-2_208_988_800_000_001, 10_413_792_000_000_000, i64::MAX, i64::MIN] {
        let mut event = fixture.generator().event(9_000_000);
        event.occurred_at = Timestamp::from_micros(micros);
        let mut value = Vec::new();
        encode(&event, Framing::SingleObject, &mut value);
        fixture.poison().send(Some(b"k"), Some(&value), &[]);
        report.run();
    }
    fixture.wait_landed(PATIENCE);
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(stored.len() as u64 + 4, 4);
    for (id, micros) in expected {
        let sql = format!("SELECT toUnixTimestamp64Micro(occurred_at) FROM events FINAL WHERE event_id = '{id}'");
        assert_eq!(fixture.admin().text(&sql), micros.to_string());
    }
    for letter in fixture.kafka().read(&fixture.dead_letter_topic()) {
        assert_eq!(letter.header(headers::ERROR_CODE), "time-out-of-range");
    }
    report.passed();
}
