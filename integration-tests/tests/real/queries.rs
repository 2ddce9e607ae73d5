//! What analysts ask: docs/queries.md, each statement run; and that an event counts once at every moment, whatever was stored twice or late.

use auditstream_integration_tests::{ClickHouse, Fixture, Options};
use auditstream_stack::Role;

use crate::interop::told;

const PAGE: &str = include_str!("../../../docs/queries.md");
/// Inserts the page's events; `{copy}` numbers the copy and `{rows}` says which.
const EVENTS: &str = include_str!("queries.sql");
/// The worker's settings for inserts: without them ClickHouse would take duplicates out of an insert by itself.
const INSERT: &str = "SETTINGS async_insert = 0, optimize_on_insert = 0, insert_deduplicate = 0";

fn insert(admin: &ClickHouse, copy: u32, rows: &str) {
    let sql: Vec<_> = EVENTS.lines().filter(|line| !line.starts_with("--")).collect();
    let sql = sql.join("\n").replace("{copy}", &copy.to_string()).replace("{rows}", rows);
    let (columns, select) = sql.split_once(")\nWITH").expect("the statement names its columns");
    admin.run(&format!("{columns}) {INSERT}\nWITH{}", select.trim_end().trim_end_matches(';')));
}

/// The page's events, five of them twice, none merged; its dead letters and spans.
fn seed(fixture: &Fixture) {
    fixture.stop_merges();
    let admin = fixture.admin();
    insert(admin, 0, "1");
    insert(admin, 1, "n IN (2, 5, 12, 22, 25)");
    admin.run(
        "INSERT INTO dead_letters (topic, partition, offset, timestamp, error_class, error_code, error_message) VALUES
         ('audit.events', 0, 500, '2026-05-05 10:00:00', 'decode', 'truncated', 'the record ends too early'),
         ('audit.events', 3, 7, '2026-05-06 10:00:00', 'decode', 'truncated', 'the record ends too early'),
         ('audit.events', 3, 9, '2026-05-06 11:00:00', 'schema', 'unknown_schema', 'no schema has this id')",
    );
    admin.run(
        "INSERT INTO ledger (topic, partition, first_offset, last_offset, rows, topic_id, inserted_at) VALUES
         ('audit.events', 0, 0, 99, 100, 't', '2026-05-07 10:00:00'), ('audit.events', 0, 90, 149, 60, 't', '2026-05-07 10:00:01'),
         ('audit.events', 0, 160, 199, 40, 't', '2026-05-07 10:00:02'), ('audit.events', 1, 0, 10, 11, 't', '2026-05-07 10:00:02')",
    );
}

/// Statements of the page with what they answer.
fn examples() -> Vec<(&'static str, &'static str)> {
    let blocks = PAGE.split("```sql\n").skip(1);
    let examples = blocks.map(|block| {
        let (sql, rest) = block.split_once("\n```\n```text\n").expect("an answer stands below each statement");
        (sql, rest.split_once("\n```").expect("a block ends").0)
    });
    examples.collect()
}

#[test]
fn every_question_of_the_page_has_its_answer() {
    let fixture = Fixture::new(Options::light("queries-page"));
    seed(&fixture);
    assert_eq!(fixture.raw_rows(), 32, "27 events, 5 of them twice");
    let analyst = fixture.clickhouse(Role::Analyst);
    let examples = examples();
    assert!(examples.len() >= 25, "the page has {} questions", examples.len());
    let ask = |moment: &str| {
        for (sql, answer) in &examples {
            let sql = sql.replace("audit.", &format!("{}.", fixture.database()));
            assert_eq!(analyst.text(&sql), *answer, "{moment}: {sql}");
        }
    };
    ask("copies in parts of their own");
    fixture.admin().run(&format!("SYSTEM START MERGES {}.events", fixture.database()));
    fixture.admin().run("OPTIMIZE TABLE events FINAL");
    assert_eq!(fixture.raw_rows(), 27);
    ask("merged");
}

#[test]
fn clickhouses_python_client_asks() {
    let fixture = Fixture::new(Options::light("queries-python"));
    seed(&fixture);
    let python = told("AUDITSTREAM_CLICKHOUSE_PYTHON", "a Python with clickhouse-connect");
    let mut command = auditstream_stack::bound(python.as_ref()).unwrap();
    let (user, password) = fixture.stack().credentials(Role::Analyst);
    command.env("CLICKHOUSE_USER", user).env("CLICKHOUSE_PASSWORD", password);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/interop/analyst.py"));
    command.args([fixture.stack().clickhouse_url(), fixture.database()]);
    command.args([
        "SELECT count() FROM events",
        "SELECT occurred_at, action FROM events WHERE tenant_id = {tenant:String} AND entity_id = {id:String} ORDER BY occurred_at LIMIT 1",
        "SELECT path, new FROM field_history WHERE tenant_id = {tenant:String} AND entity_id = {id:String} ORDER BY occurred_at, path LIMIT 2",
    ]);
    let asked = fixture.run(command, b"").success();
    let answers: Vec<&str> = asked.stdout.lines().collect();
    let expected =
        ["[[27]]", r#"[["2026-05-04 09:00:00", "order.create"]]"#, r#"[["/status", "\"open\""], ["/total", "100"]]"#];
    assert_eq!(answers, expected, "{asked:?}");
}

#[test]
fn every_table_and_view_says_what_it_is() {
    let fixture = Fixture::new(Options::light("queries-comments"));
    let analyst = fixture.clickhouse(Role::Analyst);
    for object in auditstream_store::ANALYST_OBJECTS {
        let comment = analyst.text(&format!(
            "SELECT comment FROM system.tables WHERE database = '{}' AND name = '{}'",
            fixture.database(),
            object.name
        ));
        assert!(comment.len() > 20, "{}: {comment:?}", object.name);
    }
    // A view is no way around the rights of who asks.
    let view = "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND engine = 'View'";
    for view in fixture.admin().text(view).lines() {
        assert!(view.contains("SQL SECURITY INVOKER"), "{view}");
    }
}

/// Counts that must be the number of events whatever happened to them on their way.
const COUNTS: &[&str] = &[
    "SELECT count() FROM events_once",
    "SELECT sum(events) FROM hourly",
    "SELECT sum(events) FROM actor_activity",
    "SELECT uniqExact(event_id) FROM field_history",
    "SELECT count() FROM field_history",
    "SELECT countIf(outcome = 'FAILURE') * 10 FROM events_once",
    "SELECT count() * 10 FROM failures",
];

/// `count` events from number `first` on, a tenth of them failures, a change in each, over three days; as `copy`th copy.
fn generated(first: u64, count: u64, copy: u32, rows: &str) -> String {
    format!(
        "INSERT INTO events (tenant_id, entity_type, entity_id, occurred_at, event_id, content_hash, service, action, outcome, actor_id, `changes.path`, `changes.old`, `changes.new`, received_at, version, _offset) {INSERT}
         SELECT 't' || toString(number % 3), 'order', toString(number % 97), toDateTime64('2026-05-04 23:00:00', 6, 'UTC') + toIntervalSecond(number % 172800),
         reinterpretAsUUID(toUInt128(number + 1)), substring(SHA256(toString(number)), 1, 16), 's', 'order.update', if(number % 10 = 3, 'FAILURE', 'SUCCESS'), toString(number % 7), ['/a'], ['1'], ['2'],
         toDateTime64('2026-05-07 00:00:00', 3, 'UTC') + toIntervalSecond({copy}), 1000 - {copy}, number + 1000000 * {copy}
         FROM numbers({first}, {count}) WHERE {rows}"
    )
}

#[test]
fn an_event_counts_once_at_every_moment() {
    let fixture = Fixture::new(Options::light("queries-once"));
    let (admin, analyst, ingest) =
        (fixture.admin(), fixture.clickhouse(Role::Analyst), fixture.clickhouse(Role::Ingest));
    fixture.stop_merges();
    let check = |moment: &str, events: u64| {
        for sql in COUNTS {
            for user in [&analyst, admin] {
                assert_eq!(user.number(sql), events, "{moment}: {sql}");
            }
        }
        assert_eq!(analyst.number("SELECT count() FROM events"), events, "{moment}");
        // Conditions on the content may choose rows before copies are taken out.
        let chosen = analyst.number("SELECT count() * 10 FROM events PREWHERE outcome = 'FAILURE'");
        assert_eq!(chosen, events, "{moment}");
        // Whatever an index may leave out, it leaves out with all copies.
        assert_eq!(
            analyst.number("SELECT count() FROM events WHERE event_id = reinterpretAsUUID(toUInt128(108))"),
            1,
            "{moment}"
        );
        assert_eq!(analyst.number("SELECT count() FROM conflicts"), 0, "{moment}");
        // From what is kept beside the parts, and the same as from the rows.
        let explained = analyst.text("EXPLAIN SELECT * FROM freshness");
        assert!(explained.contains("ReadFromMergeTree (newest)"), "{moment}: {explained}");
        let newest = admin.text("SELECT tenant_id, service, max(received_at), max(occurred_at) FROM events GROUP BY ALL ORDER BY ALL SETTINGS final = 0, optimize_use_projections = 0");
        let kept = analyst
            .text("SELECT tenant_id, service, newest_received_at, newest_occurred_at FROM freshness ORDER BY ALL");
        assert_eq!(kept, newest, "{moment}");
    };
    ingest.run(&generated(0, 10_000, 0, "1"));
    check("at first", 10_000);
    // One in a hundred again, some of them twice in one insert.
    ingest.run(&generated(0, 10_000, 1, "number % 100 = 7"));
    ingest.run(&generated(0, 10_000, 2, "number % 200 = 7"));
    let twice = generated(0, 10_000, 3, "number % 100 = 7");
    ingest.run(&format!(
        "{twice} UNION ALL {}",
        twice.split_once("SELECT").map(|(_, select)| format!("SELECT{select}")).unwrap()
    ));
    assert_eq!(fixture.raw_rows(), 10_350);
    check("with copies", 10_000);
    // Late ones, into partitions that were merged meanwhile.
    admin.run(&format!("SYSTEM START MERGES {}.events", fixture.database()));
    admin.run("OPTIMIZE TABLE events FINAL");
    assert_eq!(fixture.raw_rows(), 10_000);
    check("merged", 10_000);
    fixture.stop_merges();
    ingest.run(&generated(10_000, 500, 0, "1"));
    ingest.run(&generated(10_000, 500, 1, "number % 100 = 7"));
    check("with late events and their copies", 10_500);
    // The first write is the one that is seen.
    let first = "SELECT max(_offset) < 1000000 AND max(received_at) = '2026-05-07 00:00:00' FROM events";
    assert_eq!(analyst.text(first), "1");
}

#[test]
fn an_entity_as_it_was() {
    let fixture = Fixture::new(Options::light("queries-entity"));
    let (admin, analyst) = (fixture.admin(), fixture.clickhouse(Role::Analyst));
    fixture.stop_merges();
    let next = std::cell::Cell::new(1_u128);
    let event = |at: u32, action: &str, operation: &str, outcome: &str, changes: &[(&str, &str)]| {
        let id = uuid::Uuid::from_u128(next.replace(next.get() + 1));
        let list = |texts: Vec<&str>| format!("['{}']", texts.join("', '"));
        let (paths, news) = if changes.is_empty() {
            ("[]".to_owned(), "[]".to_owned())
        } else {
            (
                list(changes.iter().map(|change| change.0).collect()),
                list(changes.iter().map(|change| change.1).collect()),
            )
        };
        // Twice: what a copy says must not be done again.
        for copy in 0..2 {
            admin.run(&format!(
                "INSERT INTO events (tenant_id, entity_type, entity_id, occurred_at, event_id, content_hash, action, operation, outcome, actor_id, `changes.path`, `changes.old`, `changes.new`, version) {INSERT}
                 VALUES ('t', 'order', 'o', '2026-05-01 00:{at:02}:00', '{id}', unhex(replaceAll('{id}', '-', '')), '{action}', '{operation}', '{outcome}', 'u-{at}', {paths}, arrayResize([''], length({paths})), {news}, {})",
                10 - copy
            ));
        }
    };
    let at = |minute: u32| {
        analyst.text(&format!(
            "SELECT state, fields, created_by, changed_by, deleted_by FROM entity_at(tenant = 't', type = 'order', id = 'o', time = '2026-05-01 00:{minute:02}:30')"
        ))
    };
    event(1, "order.create", "CREATE", "SUCCESS", &[("/status", "1"), ("/items/1/sku", "7"), ("/items/2/sku", "8")]);
    event(2, "order.update", "UPDATE", "SUCCESS", &[("/status", "2")]);
    event(3, "order.update", "UPDATE", "FAILURE", &[("/status", "3")]);
    event(4, "order.read", "READ", "SUCCESS", &[]);
    event(5, "order.update", "UPDATE", "SUCCESS", &[("/items/1", "")]);
    event(6, "order.update", "UPDATE", "SUCCESS", &[("/items", "[]"), ("/items/9/sku", "9")]);
    event(7, "order.soft_delete", "OTHER", "SUCCESS", &[]);
    event(8, "order.restore", "OTHER", "SUCCESS", &[]);
    event(9, "order.update", "UPDATE", "SUCCESS", &[("/is_deleted", "true")]);
    event(10, "order.update", "UPDATE", "SUCCESS", &[("/is_deleted", "false")]);
    event(11, "order.delete", "DELETE", "FAILURE", &[]);
    event(12, "order.delete", "DELETE", "SUCCESS", &[("/status", "")]);
    event(13, "order.read", "READ", "SUCCESS", &[]);
    event(14, "order.create", "CREATE", "SUCCESS", &[("/total", "5")]);
    // Another content under the second event's id, sent later: it is a row, and changes no history.
    let known = uuid::Uuid::from_u128(2);
    admin.run(&format!(
        "INSERT INTO events (tenant_id, entity_type, entity_id, occurred_at, event_id, content_hash, action, operation, outcome, actor_id, `changes.path`, `changes.old`, `changes.new`, received_at) {INSERT}
         VALUES ('t', 'order', 'o', '2026-05-01 00:02:20', '{known}', repeat('x', 16), 'order.update', 'UPDATE', 'SUCCESS', 'u-0', ['/status'], [''], ['99'], '2026-05-02 00:00:00')"
    ));
    for (minute, expected) in [
        (0, ""),
        (1, "live\t{'/items/1/sku':'7','/items/2/sku':'8','/status':'1'}\tu-1\tu-1\t"),
        (2, "live\t{'/items/1/sku':'7','/items/2/sku':'8','/status':'2'}\tu-1\tu-2\t"),
        (4, "live\t{'/items/1/sku':'7','/items/2/sku':'8','/status':'2'}\tu-1\tu-2\t"),
        (5, "live\t{'/items/2/sku':'8','/status':'2'}\tu-1\tu-5\t"),
        (6, "live\t{'/items':'[]','/items/9/sku':'9','/status':'2'}\tu-1\tu-6\t"),
        (7, "soft-deleted\t{'/items':'[]','/items/9/sku':'9','/status':'2'}\tu-1\tu-7\t"),
        (8, "live\t{'/items':'[]','/items/9/sku':'9','/status':'2'}\tu-1\tu-8\t"),
        (9, "soft-deleted\t{'/is_deleted':'true','/items':'[]','/items/9/sku':'9','/status':'2'}\tu-1\tu-9\t"),
        (11, "live\t{'/is_deleted':'false','/items':'[]','/items/9/sku':'9','/status':'2'}\tu-1\tu-10\t"),
        (12, "deleted\t{}\tu-1\tu-12\tu-12"),
        (13, "deleted\t{}\tu-1\tu-12\tu-12"),
        (14, "live\t{'/total':'5'}\tu-14\tu-14\t"),
    ] {
        // `text` takes the last tabulators for the answer's end.
        assert_eq!(at(minute), expected.trim_end(), "minute {minute}");
    }
    assert_eq!(
        analyst.text(
            "SELECT count() FROM entity_at(tenant = 'u', type = 'order', id = 'o', time = '2026-05-02 00:00:00')"
        ),
        "0"
    );
}
