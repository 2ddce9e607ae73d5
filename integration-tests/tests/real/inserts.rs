//! What an insert promises, on the real server: whole, once, named when it can't be.

use std::ops::Range;
use std::sync::Arc;

use auditstream_integration_tests::{Fixture, Options, block_on};
use auditstream_schemas::{AuditEvent, BatchDecoder, Decoded, Framing, Position, Schemas, Timestamp, encode};
use auditstream_stack::Role;
use auditstream_store::{DeadLetterRow, ErrorClass, EventBody, InsertError, LedgerRow, event_body};

const MONTH_US: i64 = 2_700_000_000_000;

/// Events `numbers`, spread over so many months, as a worker decodes them.
fn decoded(numbers: Range<u64>, months: u64) -> Decoded {
    let mut decoder = BatchDecoder::new(Arc::new(Schemas::builtin().unwrap()));
    for number in numbers {
        let micros = 1_600_000_000_000_000 + (number % months) as i64 * MONTH_US + number as i64;
        let event = AuditEvent::builder("tenant", "service", "order.update", "order", format!("e{number}"))
            .event_id(uuid::Uuid::from_u128(u128::from(number)))
            .occurred_at(Timestamp::from_micros(micros));
        push(&mut decoder, &event.build().unwrap(), number as i64);
    }
    decoder.finish().unwrap().remove(0)
}

fn push(decoder: &mut BatchDecoder, event: &AuditEvent, offset: i64) {
    let mut record = Vec::new();
    encode(event, Framing::SingleObject, &mut record);
    decoder.push(&record, Position { partition: 0, offset, timestamp_ms: 1_790_000_000_000 + offset }).unwrap();
}

fn body(numbers: Range<u64>, months: u64) -> EventBody {
    event_body(&[decoded(numbers, months)], "topic").unwrap()
}

fn insert(fixture: &Fixture, body: &EventBody, token: &str) -> Result<(), InsertError> {
    block_on(fixture.store(Role::Ingest).insert_events(body, token))
}

/// Active parts of the table.
fn parts(fixture: &Fixture) -> u64 {
    fixture
        .admin()
        .number("SELECT count() FROM system.parts WHERE active AND database = currentDatabase() AND table = 'events'")
}

#[test]
fn a_large_body_is_one_part_a_month_and_its_token_counts_once() {
    let fixture = Fixture::new(Options::light("insert-parts"));
    fixture.stop_merges();
    let large = body(0..300_000, 1);
    insert(&fixture, &large, "large").unwrap();
    assert_eq!((parts(&fixture), fixture.raw_rows()), (1, 300_000));
    let batches: Vec<_> = (0..20).map(|at| decoded(at * 1_000..(at + 1) * 1_000, 150)).collect();
    let wide = event_body(&batches, "topic").unwrap();
    insert(&fixture, &wide, "wide").unwrap();
    assert_eq!(
        (parts(&fixture), fixture.raw_rows()),
        (1 + 150, 320_000),
        "one part a month, however many batches and months"
    );
    insert(&fixture, &wide, "wide").unwrap();
    assert_eq!(fixture.raw_rows(), 320_000, "the same token again");
}

#[test]
fn the_same_rows_under_another_token_are_the_same_events() {
    let fixture = Fixture::new(Options::light("insert-identity"));
    fixture.stop_merges();
    for token in ["one", "two"] {
        insert(&fixture, &body(0..1_000, 3), token).unwrap();
    }
    assert_eq!(fixture.raw_rows(), 2_000, "the token was all that told them apart");
    assert_eq!(fixture.admin().number("SELECT count() FROM events FINAL"), 1_000);
    assert_eq!(fixture.clickhouse(Role::Analyst).number("SELECT count() FROM events"), 1_000);
    let stats = block_on(fixture.store(Role::Ingest).stats()).unwrap();
    assert_eq!((stats.rows, stats.rows_final, stats.conflicts), (2_000, 1_000, Some(0)));
}

#[test]
fn event_times_from_1900_to_2299_are_stored_exactly() {
    let fixture = Fixture::new(Options::light("insert-times"));
    let times: [(i64, &str); 6] = [
        (-2_208_988_800_000_000, "190001"),
        (-1, "196912"),
        (0, "197001"),
        (1_743_296_399_999_999, "202503"),
        (9_223_372_036_854_775, "226204"),
        (10_413_791_999_999_999, "229912"),
    ];
    let mut decoder = BatchDecoder::new(Arc::new(Schemas::builtin().unwrap()));
    for (offset, (micros, _)) in (0..).zip(times) {
        let event = AuditEvent::builder("t", "s", "create", "order", "e").occurred_at(Timestamp::from_micros(micros));
        push(&mut decoder, &event.build().unwrap(), offset);
    }
    insert(&fixture, &event_body(&decoder.finish().unwrap(), "topic").unwrap(), "times").unwrap();
    for (offset, (micros, month)) in (0..).zip(times) {
        let row = format!(
            "SELECT toUnixTimestamp64Micro(occurred_at), _partition_id FROM events WHERE _offset = {offset} FORMAT TSV"
        );
        assert_eq!(fixture.admin().text(&row), format!("{micros}\t{month}"));
    }
}

/// Events `numbers` with so many different words in each column of words, the empty one among them where it may be.
fn worded(mut decoder: BatchDecoder, numbers: Range<u64>, words: u64) -> Decoded {
    for number in numbers {
        let word = |column: &str| format!("{column}{}", number % words);
        let maybe = |column: &str| if number % words == 0 { String::new() } else { word(column) };
        let event = AuditEvent::builder(word("t"), word("s"), word("a"), word("y"), number.to_string())
            .event_id(uuid::Uuid::from_u128(u128::from(number)));
        let mut event = event.build().unwrap();
        (event.environment, event.http_method, event.producer.id) = (maybe("e"), Some(maybe("h")), maybe("p"));
        push(&mut decoder, &event, number as i64);
    }
    decoder.finish().unwrap().remove(0)
}

/// Dictionaries of every size, beside others and beside plain texts: a number that stands for another word would be another event.
#[test]
fn words_are_what_they_were_however_many_there_are_and_in_however_many_batches() {
    let fixture = Fixture::new(Options::light("insert-words"));
    let schemas = Arc::new(Schemas::builtin().unwrap());
    let straight = || BatchDecoder::new(Arc::clone(&schemas));
    let long = || BatchDecoder::reference(Arc::clone(&schemas));
    let mut from = 0;
    for words in [1, 2, 127, 128, 129, 255, 256, 257, 5_000, 8_191, 8_192, 8_193, 40_000] {
        let rows = (words + words / 2).max(60);
        let mut next = |decoder: BatchDecoder| {
            from += rows;
            worded(decoder, from - rows..from, words)
        };
        let mut bodies = vec![vec![next(straight())], vec![next(straight()), next(long()), next(straight())]];
        if words < 1_000 {
            bodies.push(vec![next(long()), next(straight())]);
            bodies.push(vec![next(long())]);
        }
        for (number, batches) in bodies.iter().enumerate() {
            let body = event_body(batches, "topic").unwrap();
            insert(&fixture, &body, &format!("{words}/{number}")).unwrap();
            // In pieces too, as when ClickHouse has too little memory: the same events again.
            block_on(fixture.store(Role::Ingest).insert_in_pieces(&body, &format!("{words}/{number}"), 3)).unwrap();
        }
        let of = |column: &str| format!("concat('{column}', toString(_offset % {words}))");
        let is = |name: &str, column: &str| format!("{name} = {}", of(column));
        let may_be = |name: &str, column: &str| format!("{name} = if(_offset % {words} = 0, '', {})", of(column));
        let conditions = [
            is("tenant_id", "t"),
            is("service", "s"),
            is("action", "a"),
            is("entity_type", "y"),
            may_be("environment", "e"),
            may_be("http_method", "h"),
            may_be("producer_id", "p"),
            "_topic = 'topic' AND operation = 'OTHER' AND actor_kind = 'SYSTEM' AND outcome = 'SUCCESS'".to_owned(),
            "entity_id = toString(_offset)".to_owned(),
        ];
        for condition in conditions {
            let wrong = format!("SELECT count() FROM events WHERE NOT ({condition})");
            assert_eq!(fixture.admin().number(&wrong), 0, "{words} words: {condition}");
        }
        assert_eq!(fixture.admin().number("SELECT count() FROM events FINAL"), from);
        fixture.admin().run("TRUNCATE TABLE events");
        from = 0;
    }
}

#[test]
fn ten_refused_rows_of_two_hundred_thousand_are_named_and_all_others_land() {
    const ROWS: u64 = 200_000;
    let bad: Vec<u64> = (0..9).map(|number| number * 22_001).chain([ROWS - 1]).collect();
    let fixture = Fixture::new(Options::light("insert-refused"));
    fixture.stop_merges();
    let names: Vec<_> = bad.iter().map(|number| format!("'e{number}'")).collect();
    let picky = format!("ALTER TABLE events ADD CONSTRAINT picky CHECK entity_id NOT IN ({})", names.join(", "));
    fixture.admin().run(&picky);
    // Of one month, so that an insert that succeeds is one part.
    let body = event_body(&[decoded(0..120_000, 1), decoded(120_000..ROWS, 1)], "topic").unwrap();
    let refused = insert(&fixture, &body, "all").unwrap_err();
    assert_eq!((refused.class, refused.code), (ErrorClass::Bisect, Some(469)), "{refused}");
    assert_eq!(fixture.raw_rows(), 0, "a refused insert leaves nothing");
    // Twice, as after a crash in between.
    for _ in 0..2 {
        let rows = block_on(fixture.store(Role::Ingest).insert_all_but_refused(&body, "all")).unwrap();
        assert_eq!(rows.iter().map(|row| row.offset.unsigned_abs()).collect::<Vec<_>>(), bad);
        for row in &rows {
            assert_eq!(row.column.as_deref(), Some("entity_id"), "{row:?}");
            assert_eq!(row.message, "clickhouse code 469 (VIOLATED_CONSTRAINT), constraint picky");
            // Halves of 200,000 rows are single rows after 17 or 18 steps.
            assert!((17..=18).contains(&row.inserts), "{row:?}");
        }
        assert_eq!(fixture.raw_rows(), ROWS - 10);
        // Each of the ten is alone after about log2(20,000) more halvings, each of which leaves one half that lands.
        assert!(parts(&fixture) <= 10 * 15, "{} inserts landed", parts(&fixture));
    }
}

#[test]
fn a_table_of_another_shape_halts_and_says_what_is_missing() {
    let changes = [
        ("insert-dropped", "ALTER TABLE events DROP COLUMN user_agent", "No such column user_agent"),
        (
            "insert-number",
            "ALTER TABLE events MODIFY COLUMN environment UInt64",
            "MODIFY COLUMN `environment` LowCardinality(String)",
        ),
        (
            "insert-short",
            "ALTER TABLE events DROP INDEX by_word, MODIFY COLUMN details FixedString(1)",
            "column details is FixedString(1), expected String",
        ),
        ("insert-renamed", "RENAME TABLE events TO elsewhere", "does not exist"),
    ];
    for (name, change, says) in changes {
        let fixture = Fixture::new(Options::light(name));
        fixture.admin().run(change);
        let error = insert(&fixture, &body(0..10, 1), "x").unwrap_err();
        assert_eq!(error.class, ErrorClass::Halt, "{change}: {error}");
        assert!(error.message.contains(says), "{change}: {error}");
        assert!(
            block_on(fixture.store(Role::Ingest).check_tables()).is_err_and(|error| !error.is_passing()),
            "{change}"
        );
    }
}

#[test]
fn a_column_that_was_added_takes_its_default() {
    let fixture = Fixture::new(Options::light("insert-added"));
    fixture.admin().run("ALTER TABLE events ADD COLUMN region String DEFAULT 'eu' AFTER ip");
    block_on(fixture.store(Role::Ingest).check_tables()).unwrap();
    insert(&fixture, &body(0..10, 1), "x").unwrap();
    assert_eq!(fixture.admin().number("SELECT count() FROM events WHERE region = 'eu'"), 10);
}

#[test]
fn too_many_parts_is_a_reason_to_wait() {
    let fixture = Fixture::new(Options::light("insert-parts-limit"));
    fixture.stop_merges();
    fixture.admin().run("ALTER TABLE events MODIFY SETTING parts_to_throw_insert = 2, parts_to_delay_insert = 1000");
    for number in 0..2 {
        insert(&fixture, &body(number..number + 1, 1), &number.to_string()).unwrap();
    }
    let error = insert(&fixture, &body(2..3, 1), "2").unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::Retry, Some(252)), "{error}");
}

#[test]
fn dead_letters_and_spans_are_stored_as_they_are() {
    let fixture = Fixture::new(Options::light("insert-rows"));
    let store = fixture.store(Role::Ingest);
    let letter = DeadLetterRow {
        topic: "topic".into(),
        partition: 3,
        offset: 7,
        timestamp_ms: 5,
        key: vec![0, 0xff, b'k'],
        value: vec![0xc3, 0x28, 0],
        headers: vec![("a".into(), vec![0xff]), ("a".into(), vec![])],
        error_class: "decode".into(),
        error_code: "truncated".into(),
        error_message: "the record ends early".into(),
        schema: String::new(),
        worker: "w".into(),
        dlq_topic: "topic.dlq".into(),
        dlq_partition: 1,
        dlq_offset: 9,
        column_name: "actor.kind".into(),
        attempts: 3,
        first_failed_at_ms: 1_790_000_000_123,
        last_failed_at_ms: 1_790_000_000_456,
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        worker_version: "0.1.0".into(),
    };
    // As a worker before migration 2 wrote it.
    fixture.admin().run("INSERT INTO dead_letters (topic, partition, offset, dlq_offset) VALUES ('old', 1, 2, 3)");
    let span = |first_offset, last_offset| LedgerRow {
        topic: "topic".into(),
        partition: 3,
        first_offset,
        last_offset,
        rows: 4,
        dead_letters: 1,
        hash: [0xab; 16],
        token: "t".into(),
        worker: "w".into(),
        inserted_at_ms: 1_790_000_000_123,
        topic_id: "id".into(),
    };
    // A retry of both changes nothing.
    for _ in 0..2 {
        block_on(store.insert_dead_letters(std::slice::from_ref(&letter), "t")).unwrap();
        block_on(store.insert_ledger(&[span(0, 9), span(5, 12), span(20, 29)], "t")).unwrap();
    }
    assert_eq!(
        fixture.admin().text("SELECT hex(key), hex(value), arrayMap(header -> (header.1, hex(header.2)), headers), dlq_offset FROM dead_letters WHERE topic = 'topic' FORMAT TSV"),
        "00FF6B\tC32800\t[('a','FF'),('a','')]\t9"
    );
    let details = "SELECT column_name, attempts, toUnixTimestamp64Milli(first_failed_at), toUnixTimestamp64Milli(last_failed_at), traceparent, \
                   worker_version FROM dead_letters FINAL ORDER BY topic FORMAT TSV";
    assert_eq!(
        fixture.admin().text(details),
        "\t0\t0\t0\t\t\nactor.kind\t3\t1790000000123\t1790000000456\t00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\t0.1.0"
    );
    fixture.admin().run("ALTER TABLE dead_letters DELETE WHERE topic = 'old' SETTINGS mutations_sync = 1");
    assert_eq!(
        fixture.admin().text("SELECT count(), any(hex(hash)), any(toString(inserted_at)) FROM ledger FORMAT TSV"),
        format!("3\t{}\t2026-09-21 14:13:20.123", "AB".repeat(16))
    );
    let gaps = block_on(store.ledger_gaps(Some("topic"))).unwrap();
    assert_eq!(
        gaps.iter().map(|gap| (gap.partition, gap.first_offset, gap.last_offset)).collect::<Vec<_>>(),
        [(3, 13, 19)]
    );
    assert!(block_on(store.ledger_gaps(Some("other"))).unwrap().is_empty());
    let totals = block_on(store.ledger_totals(None)).unwrap();
    assert_eq!((totals[0].spans, totals[0].first_offset, totals[0].last_offset, totals[0].rows), (3, 0, 29, 12));
    let stats = block_on(store.stats()).unwrap();
    assert_eq!(
        (stats.spans, stats.batches, stats.gaps, &*stats.dead_letters),
        (3, 1, 1, &[("truncated".to_owned(), 1)][..])
    );
}
