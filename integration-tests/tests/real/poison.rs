//! Records that can't be stored: each is kept whole with its reason, and hurts no neighbour.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use auditstream_consumer::headers;
use auditstream_integration_tests::poison::KINDS;
use auditstream_integration_tests::{FaultReport, Fixture, Options, Record, Table, Value, http, wait_until};

const EACH: usize = 50;
const GOOD_BETWEEN: u64 = 40;

type Headers = Vec<(String, Option<Vec<u8>>)>;
/// Key, value and headers of a record that was sent.
type Sent = (Option<Vec<u8>>, Option<Vec<u8>>, Headers);

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// Headers of all shapes: text, bytes, empty, absent, and one name twice; and a trace context that is valid in every third record.
fn some_headers(number: usize) -> Headers {
    let traceparent = if number.is_multiple_of(3) { TRACEPARENT } else { "00-none" };
    vec![
        ("traceparent".to_owned(), Some(traceparent.as_bytes().to_vec())),
        ("number".to_owned(), Some(number.to_string().into_bytes())),
        ("bytes".to_owned(), Some(vec![0, 0xff, 0xc3, 0x28])),
        ("empty".to_owned(), Some(Vec::new())),
        ("absent".to_owned(), None),
        ("number".to_owned(), Some(b"again".to_vec())),
    ]
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The field at fault, where the kind of poison has one that is always the same.
fn field(kind: &str) -> Option<&'static str> {
    match kind {
        "length bomb" => Some("event_id"),
        "invalid UTF-8" => Some("entity_id"),
        "union branch out of range" => Some("entity_name"),
        "truncated" => None,
        _ => Some(""),
    }
}

#[test]
fn five_hundred_records_of_ten_kinds_are_dead_letters_and_their_neighbours_land() {
    let mut report = FaultReport::new("21 poison of ten kinds");
    let fixture = Fixture::new(Options::heavy("poison"));
    let started_ms = now_ms();
    let workers = [fixture.worker(), fixture.worker()];
    workers.iter().for_each(|worker| worker.wait_ready());
    let total = KINDS.len() * EACH;
    let recorder = fixture.recorder(fixture.producer_config("good"));
    let mut sent = Vec::new();
    for number in 0..total {
        (0..GOOD_BETWEEN).for_each(|_| recorder.record(fixture.next_event()));
        let event = fixture.generator().event(number as u64);
        let value = KINDS[number % KINDS.len()].value(&event, number / KINDS.len());
        // Every seventh has no key.
        let key = (number % 7 > 0).then(|| event.key().into_bytes());
        let headers = some_headers(number);
        fixture.poison().send(key.as_deref(), value.as_deref(), &headers);
        sent.push((key, value, headers));
        report.run();
    }
    recorder.finish();
    fixture.wait_landed(Duration::from_secs(90));

    let good = total as u64 * GOOD_BETWEEN;
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(good + total as u64, total as u64);
    assert_eq!(verdict.repeated_dead_letters, 0, "{verdict}");
    let letters = check_topic(&fixture, &sent, started_ms);
    check_table(&fixture, &letters);

    let counted: f64 =
        workers.iter().map(|worker| worker.metric("auditstream_consumer_dead_letters_total").unwrap()).sum();
    assert!((counted - total as f64).abs() < 0.5, "the workers counted {counted} dead letters");
    for worker in &workers {
        assert!(worker.rss_kib() < 256 * 1024, "worker {} has {} KiB resident", worker.name(), worker.rss_kib());
    }
    report.passed();
}

/// Each dead letter is its source record, whole, with the right position and reason; returns them by the source's position.
fn check_topic(fixture: &Fixture, sent: &[Sent], started_ms: i64) -> HashMap<(i32, i64), Record> {
    let place = |record: &Record| (record.partition, record.offset);
    let source: HashMap<(i32, i64), Record> =
        fixture.kafka().read(fixture.topic()).into_iter().map(|record| (place(&record), record)).collect();
    let letters: HashMap<(i32, i64), Record> = fixture
        .kafka()
        .read(&fixture.dead_letter_topic())
        .into_iter()
        .map(|letter| {
            (
                (letter.header(headers::PARTITION).parse().unwrap(), letter.header(headers::OFFSET).parse().unwrap()),
                letter,
            )
        })
        .collect();
    for (number, at) in fixture.poison().positions().into_iter().enumerate() {
        let kind = KINDS[number % KINDS.len()];
        let about = format!("record {number}, {} at {at:?}", kind.name);
        let (key, value, added) = &sent[number];
        let letter = letters.get(&at).unwrap_or_else(|| panic!("no dead letter for {about}"));
        assert_eq!((&letter.key, &letter.value), (key, value), "key and value of {about}");
        assert_eq!(&letter.headers[..added.len()], added, "headers of {about}");
        assert_eq!(letter.timestamp_ms, source[&at].timestamp_ms, "timestamp of {about}");
        assert_eq!(
            letter.header(headers::ERROR_CODE),
            kind.code.as_str(),
            "code of {about}: {}",
            letter.header(headers::ERROR_MESSAGE)
        );
        assert_eq!(letter.header(headers::ERROR_CLASS), "decode", "class of {about}");
        assert_eq!(
            letter.header(headers::TIMESTAMP),
            source[&at].timestamp_ms.to_string(),
            "timestamp header of {about}"
        );
        assert_eq!(letter.header(headers::ATTEMPTS), "1", "attempts of {about}");
        let failed_at = letter.header(headers::FIRST_FAILED_AT);
        assert!((started_ms..=now_ms()).contains(&failed_at.parse().unwrap()), "{about} failed at {failed_at}");
        assert_eq!(failed_at, letter.header(headers::LAST_FAILED_AT), "{about} failed once");
        if let Some(field) = field(kind.name) {
            assert_eq!(letter.header(headers::ERROR_COLUMN), field, "field of {about}");
        }
        assert_eq!(letter.header(headers::WORKER_VERSION), env!("CARGO_PKG_VERSION"), "version of {about}");
        assert!(!letter.header(headers::ERROR_MESSAGE).is_empty(), "no message for {about}");
        assert!(letter.header(headers::WORKER).starts_with('w'), "worker of {about}");
    }
    letters
}

/// The table says the same as the topic.
fn check_table(fixture: &Fixture, letters: &HashMap<(i32, i64), Record>) {
    let sql = "SELECT partition, offset, topic, timestamp, key, value, headers, error_class, error_code, error_message, schema, dlq_topic, \
               dlq_partition, dlq_offset, column_name, toInt64(attempts), first_failed_at, last_failed_at, traceparent, worker, worker_version FROM dead_letters FINAL FORMAT RowBinaryWithNamesAndTypes";
    let table = Table::read(&fixture.admin().try_bytes(sql).unwrap());
    assert_eq!(table.rows.len(), letters.len(), "rows of dead_letters");
    for row in table.rows {
        let at = (i32::try_from(row[0].int()).unwrap(), row[1].int());
        let letter =
            letters.get(&at).unwrap_or_else(|| panic!("the table has a dead letter {at:?} that the topic has not"));
        let bytes = |bytes: &Option<Vec<u8>>| bytes.clone().unwrap_or_default();
        let header = |name| Value::text(letter.header(name));
        let number = |name| Value::Int(letter.header(name).parse().unwrap());
        let traceparent = Some(letter.header("traceparent")).filter(|value| *value == TRACEPARENT).unwrap_or_default();
        let original = letter.headers.iter().take_while(|(name, _)| name != headers::TOPIC);
        let expected = vec![
            Value::Int(at.0.into()),
            Value::Int(at.1),
            Value::text(fixture.topic()),
            Value::Int(letter.timestamp_ms),
            Value::Bytes(bytes(&letter.key)),
            Value::Bytes(bytes(&letter.value)),
            Value::Pairs(original.map(|(name, value)| (name.clone().into_bytes(), bytes(value))).collect()),
            header(headers::ERROR_CLASS),
            header(headers::ERROR_CODE),
            header(headers::ERROR_MESSAGE),
            header(headers::SCHEMA),
            Value::text(&fixture.dead_letter_topic()),
            Value::Int(letter.partition.into()),
            Value::Int(letter.offset),
            header(headers::ERROR_COLUMN),
            number(headers::ATTEMPTS),
            number(headers::FIRST_FAILED_AT),
            number(headers::LAST_FAILED_AT),
            Value::text(traceparent),
            header(headers::WORKER),
            header(headers::WORKER_VERSION),
        ];
        assert_eq!(row, expected, "the row of {at:?}");
    }
}

#[test]
fn rows_that_clickhouse_refuses_are_dead_letters_and_the_rest_of_their_batch_lands() {
    const EVENTS: u64 = 20_000;
    const REFUSED: u64 = 10;
    let mut report = FaultReport::new("21 rows that ClickHouse refuses");
    let fixture = Fixture::new(Options::light("refused"));
    fixture.stop_merges();
    fixture.admin().run("ALTER TABLE events ADD CONSTRAINT no_such_name CHECK entity_name != 'refuse me'");
    let recorder = fixture.recorder(fixture.producer_config("refused"));
    let mut refused = Vec::new();
    for number in 0..EVENTS {
        let mut event = fixture.next_event();
        if number % (EVENTS / REFUSED) == 7 {
            event.entity_name = Some("refuse me".to_owned());
            refused.push(event.event_id.to_string());
            report.run();
        }
        recorder.record(event);
    }
    recorder.finish();
    // All of them are on the topic already, so they meet in few batches.
    let worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(90));
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(EVENTS, REFUSED);
    assert_eq!(verdict.raw_rows, verdict.rows, "what landed in parts landed once: {verdict}");

    let source: HashMap<String, Record> = fixture
        .kafka()
        .read(fixture.topic())
        .into_iter()
        .map(|record| (record.header("ce_id").to_owned(), record))
        .collect();
    let letters = fixture.kafka().read(&fixture.dead_letter_topic());
    let mut found: Vec<&str> = letters.iter().map(|letter| letter.header("ce_id")).collect();
    found.sort_unstable();
    refused.sort_unstable();
    assert_eq!(found, refused, "the dead letters");
    for letter in &letters {
        let original = &source[letter.header("ce_id")];
        assert_eq!(
            (&letter.key, &letter.value, letter.timestamp_ms),
            (&original.key, &original.value, original.timestamp_ms)
        );
        assert_eq!(letter.headers[..original.headers.len()], original.headers);
        assert_eq!(letter.header(headers::PARTITION), original.partition.to_string());
        assert_eq!(letter.header(headers::OFFSET), original.offset.to_string());
        assert_eq!(letter.header(headers::ERROR_CLASS), "refused");
        assert_eq!(letter.header(headers::ERROR_CODE), "clickhouse-469");
        assert_eq!(letter.header(headers::ERROR_COLUMN), "entity_name");
        assert!(letter.header(headers::ERROR_MESSAGE).ends_with(", constraint no_such_name"));
        assert!(!letter.header(headers::ERROR_MESSAGE).contains("refuse me"), "a value is in the message");
        // The whole batch, and halves of it down to the row: at least of a tenth of the events, at most of all.
        let attempts: u32 = letter.header(headers::ATTEMPTS).parse().unwrap();
        assert!((11..=16).contains(&attempts), "{attempts} attempts");
        let failed =
            [headers::FIRST_FAILED_AT, headers::LAST_FAILED_AT].map(|name| letter.header(name).parse::<i64>().unwrap());
        assert!(failed[0] < failed[1], "refused in the batch first, then alone: {failed:?}");
    }
    let rows = "SELECT count() FROM dead_letters FINAL WHERE error_class = 'refused' AND error_code = 'clickhouse-469' \
                AND column_name = 'entity_name' AND attempts > 10 AND first_failed_at < last_failed_at";
    assert_eq!(fixture.admin().number(rows), REFUSED);
    let bisected = "auditstream_consumer_failures_total{step=\"insert\",class=\"bisect\"}";
    assert!(http::get(&worker.address().unwrap(), "/metrics").unwrap().text().contains(bisected), "no {bisected}");
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(40)), Some(0));
    report.passed();
}

#[test]
fn a_dead_letter_topic_that_refuses_holds_the_offset() {
    const EVENTS: u64 = 1_000;
    let mut report = FaultReport::new("22 dead-letter topic refuses");
    let fixture = Fixture::new(Options::light("refusing-dlq"));
    // Too small for any dead letter.
    fixture.kafka().set_topic(&fixture.dead_letter_topic(), "max.message.bytes", "200");
    fixture.send(EVENTS);
    fixture.poison().send(Some(b"k"), Some(&[b'x'; 300]), &[]);
    let at = fixture.poison().positions()[0];
    let mut worker = fixture.worker();
    worker.wait_ready();
    wait_until("rows, and refused dead letters", Duration::from_secs(60), || {
        match (fixture.raw_rows(), worker.metric("auditstream_consumer_failures_total")?) {
            (EVENTS, failures) if failures >= 3.0 => Ok(()),
            seen => Err(format!("rows and failures: {seen:?}")),
        }
    });
    let metric = |name: &str| worker.metric(&format!("auditstream_consumer_{name}")).unwrap();
    assert!(metric("retries_total") >= 2.0, "failures of class retry are tried again");
    let time_lag = format!("time_lag_seconds{{partition=\"{}\"}}", at.0);
    let (before, asked) = (metric(&time_lag), Instant::now());
    assert!(before > 0.0, "a record is not committed");
    wait_until("the time lag to grow by a second", Duration::from_secs(30), || match metric(&time_lag) - before {
        grown if grown >= 1.0 => Ok(()),
        grown => Err(format!("it grew by {grown} s")),
    });
    assert!(asked.elapsed() >= Duration::from_millis(950), "a second of lag takes a second");
    let (since, failures) = (now_ms(), metric("failures_total"));
    wait_until("one more refusal", Duration::from_secs(60), || match metric("failures_total") {
        more if more > failures => Ok(()),
        _ => Err(format!("still {failures}")),
    });
    let committed = fixture.kafka().committed(fixture.topic()).get(&at.0).copied().unwrap_or(0);
    assert!(committed <= at.1, "offset {committed} is committed, the record at {at:?} is nowhere");
    assert!(worker.runs(), "the worker waits, it does not end");
    assert!(fixture.verdict().lost > 0, "the oracle misses the record");

    fixture.kafka().set_topic(&fixture.dead_letter_topic(), "max.message.bytes", "1048588");
    report.run();
    let mended = Instant::now();
    fixture.wait_landed(Duration::from_secs(90));
    report.recovered(mended.elapsed());
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(EVENTS + 1, 1);
    assert!(worker.metric("auditstream_consumer_time_lag_seconds").unwrap() < f64::EPSILON, "all is committed");
    let letter = fixture.kafka().read(&fixture.dead_letter_topic()).remove(0);
    let failed =
        [headers::FIRST_FAILED_AT, headers::LAST_FAILED_AT].map(|name| letter.header(name).parse::<i64>().unwrap());
    assert!(failed[0] + 950 <= since && since <= failed[1], "the first and the last refusal: {failed:?}, {since}");
    assert_eq!(letter.header(headers::ATTEMPTS), "1", "it was decoded once");
    report.passed();
}

#[test]
fn a_second_sigterm_ends_a_drain_that_hangs_and_loses_nothing() {
    const EVENTS: u64 = 500;
    let fixture = Fixture::new(Options::light("sigterm-twice"));
    fixture.kafka().set_topic(&fixture.dead_letter_topic(), "max.message.bytes", "200");
    fixture.send(EVENTS);
    fixture.poison().send(Some(b"k"), Some(&[b'x'; 300]), &[]);
    let worker = fixture.worker();
    wait_until("refused dead letters", Duration::from_secs(60), || {
        match worker.metric("auditstream_consumer_failures_total")? {
            failures if failures >= 1.0 => Ok(()),
            failures => Err(format!("{failures} failures")),
        }
    });
    worker.terminate();
    wait_until("the worker to begin its drain", Duration::from_secs(20), || {
        let log = worker.log();
        if log.contains("stopping: finishing what was read") { Ok(()) } else { Err(log) }
    });
    worker.terminate();
    // The drain's own deadline is 25 s.
    assert_eq!(worker.wait(Duration::from_secs(10)), Some(143));

    fixture.kafka().set_topic(&fixture.dead_letter_topic(), "max.message.bytes", "1048588");
    let worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(90));
    fixture.verdict().assert_clean(EVENTS + 1, 1);
    drop(worker);
}
