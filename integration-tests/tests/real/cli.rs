//! The commands as people use them, from an empty system to figures, and what they say when something is wrong.

use std::process::Stdio;
use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options, wait_until};
use serde_json::Value;

/// Lines that are no event, by their number in the file, and what must be said of them.
const BAD_LINES: [(usize, &str, &str); 5] = [
    (5, "{\"tenant_id\":", "JSON"),
    (
        17,
        r#"{"tenant_id":"acme","service":"shop","action":"order.create","entity_type":"order","entity_id":""}"#,
        "entity_id",
    ),
    (
        101,
        r#"{"tenant_id":"acme","service":"shop","action":"order.create","entity_type":"order","entity_id":"1","colour":"red"}"#,
        "colour",
    ),
    (
        102,
        r#"{"tenant_id":"acme","service":"shop","action":"order.create","entity_type":"order","entity_id":"1","occurred_at":"yesterday"}"#,
        "occurred_at",
    ),
    (250, "plain text", "JSON"),
];

/// `good` events, and the bad lines at their numbers.
fn ndjson(fixture: &Fixture, good: u64) -> String {
    let mut lines: Vec<String> = (0..good).map(|_| fixture.next_event().to_json()).collect();
    for (number, text, _) in BAD_LINES {
        lines.insert(number - 1, text.to_owned());
    }
    lines.join("\n") + "\n"
}

#[test]
fn from_nothing_to_figures() {
    const GOOD: u64 = 300;
    let fixture = Fixture::new(Options::light("cli").bare());

    // What is missing is said, with the command that makes it, and nothing is read.
    let early = fixture.cli(&["consume"]);
    assert_eq!(early.code(), Some(3), "{early:?}");
    assert!(early.stderr.contains("auditstream migrate"), "{early:?}");
    fixture.run(fixture.admin_command(&["migrate"]), b"").success();
    let early = fixture.cli(&["consume"]);
    assert_eq!(early.code(), Some(3), "{early:?}");
    assert!(
        early.stderr.contains("topic cli does not exist") && early.stderr.contains("auditstream topics create"),
        "{early:?}"
    );
    let created = fixture.cli(&["topics", "create", "--partitions", "3"]).success();
    assert!(
        created.stdout.contains("cli: created, 3 partitions")
            && created.stdout.contains("cli.dlq: created, 3 partitions"),
        "{created:?}"
    );
    let again = fixture.cli(&["topics", "create", "--partitions", "3"]).success();
    assert!(again.stdout.contains("cli: exists already"), "{again:?}");

    // Each bad line is named, and only those; the rest goes on.
    let (events, ids) = (fixture.folder().join("events.ndjson"), fixture.folder().join("ids"));
    std::fs::write(&events, ndjson(&fixture, GOOD)).unwrap();
    let published = fixture.cli(&["publish", events.to_str().unwrap(), "--json", "--ids", ids.to_str().unwrap()]);
    assert_eq!(published.code(), Some(1), "{published:?}");
    let complaints: Vec<&str> = published.stderr.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(complaints.len(), BAD_LINES.len(), "{published:?}");
    for ((number, _, reason), complaint) in BAD_LINES.iter().zip(complaints) {
        assert!(
            complaint.starts_with(&format!("line {number}:")) && complaint.contains(reason),
            "line {number} must speak of {reason}: {complaint}"
        );
    }
    let summary: Value = serde_json::from_str(&published.stdout).unwrap();
    let figure = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("no {name} in {summary}"));
    let bad = BAD_LINES.len() as u64;
    assert_eq!(
        [figure("read"), figure("published"), figure("acked"), figure("rejected"), figure("failed")],
        [GOOD + bad, GOOD, GOOD, bad, 0]
    );
    let acknowledged: Vec<_> =
        std::fs::read_to_string(&ids).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    let mut sent: Vec<_> = (0..GOOD).map(|index| fixture.generator().event_id(index)).collect();
    let mut heard = acknowledged.clone();
    sent.sort_unstable();
    heard.sort_unstable();
    assert_eq!(heard, sent, "the list of acknowledged ids");

    acknowledged.into_iter().for_each(|id| fixture.acknowledged().add(id));
    fixture.poison().send(Some(b"k"), Some(b"not an event"), &[]);
    fixture.poison().send(Some(b"k"), None, &[]);
    assert_eq!(fixture.poison().positions().len(), 2);
    let worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(90));
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(40)), Some(0));
    fixture.verdict().assert_clean(GOOD + 2, 2);
    check_stats(&fixture, GOOD);
}

fn check_stats(fixture: &Fixture, rows: u64) {
    let stats: Value = serde_json::from_str(&fixture.cli(&["stats", "--json"]).success().stdout).unwrap();
    let events = &stats["events"];
    assert_eq!([events["rows"].as_u64(), events["duplicates"].as_u64()], [Some(rows), Some(0)], "{stats}");
    assert_eq!(events["dead_letters"], serde_json::json!({ "wrong-magic": 1, "null-value": 1 }), "{stats}");
    assert_eq!(events["ledger"]["gaps"].as_u64(), Some(0), "{stats}");
    assert_eq!(stats["lag"]["total"].as_i64(), Some(0), "{stats}");
    assert_eq!(stats["lag"]["partitions"].as_array().map(Vec::len), Some(3), "{stats}");
    assert!(stats["recent"]["rows"].is_u64() && stats["spill"].is_null() && stats["outbox"].is_null(), "{stats}");
    let text = fixture.cli(&["stats"]).success().stdout;
    assert!(text.lines().any(|line| line.starts_with("events ") && line.ends_with(" 300")), "{text}");
}

#[test]
fn publish_reads_a_pipe_and_survives_closed_ones() {
    let fixture = Fixture::new(Options::light("pipes"));
    let input = ndjson(&fixture, 300);
    let ids = fixture.folder().join("ids");
    let mut args = vec!["publish", "-", "--ids", ids.to_str().unwrap()];
    // Nobody reads what it says, on either side.
    let mut child =
        fixture.command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let status = wait_until("publish to end", Duration::from_secs(30), || {
        child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())
    });
    assert_eq!(status.code(), Some(1), "there were bad lines, and no signal ended it");
    assert_eq!(std::fs::read_to_string(&ids).unwrap().lines().count(), 300, "acknowledged ids");

    // The writer of the pipe ends in the middle of a line.
    args.pop();
    let second = fixture.folder().join("ids-2");
    args.push(second.to_str().unwrap());
    let text = format!("{}\n{}", fixture.next_event().to_json(), &fixture.next_event().to_json()[..50]);
    let cut = fixture.run(fixture.command(&args), text.as_bytes());
    assert_eq!(cut.code(), Some(1), "{cut:?}");
    assert!(cut.stderr.contains("line 2:"), "{cut:?}");
    assert_eq!(std::fs::read_to_string(&second).unwrap().lines().count(), 1, "acknowledged ids");

    for file in [ids, second] {
        std::fs::read_to_string(file).unwrap().lines().for_each(|id| fixture.acknowledged().add(id.parse().unwrap()));
    }
    let _worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(90));
    fixture.verdict().assert_clean(301, 0);
}

#[test]
fn a_wrong_password_halts_and_loses_nothing() {
    const EVENTS: u64 = 500;
    let fixture = Fixture::new(Options::light("wrong-password"));
    fixture.send(EVENTS);
    let output = fixture.run(
        {
            let mut command = fixture.command(&["consume"]);
            command.env("AUDITSTREAM_CLICKHOUSE__PASSWORD", "not the password");
            command
        },
        b"",
    );
    assert_eq!(output.code(), Some(3), "{output:?}");
    assert!(
        output.stderr.contains("Authentication failed") && output.stderr.contains("audit_ingest"),
        "it must say why: {output:?}"
    );
    assert!(!output.stderr.contains("not the password"), "the password is in the log");
    assert!(fixture.kafka().read(&fixture.dead_letter_topic()).is_empty(), "something was dead-lettered");
    assert_eq!(fixture.kafka().lag(fixture.topic()), EVENTS as i64, "something was committed");
    let _worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(90));
    fixture.verdict().assert_clean(EVENTS, 0);
}

/// The statements that a message gives, each as it stands there.
fn statements(message: &str) -> Vec<String> {
    let (_, listed) = message.split_once("To mend it: ").unwrap_or_else(|| panic!("no statement in {message}"));
    let all = listed.lines().next().unwrap();
    all.split_inclusive(';').fold(Vec::new(), |mut statements: Vec<String>, part| {
        // A comment of a column may hold a semicolon.
        match statements.last_mut() {
            Some(last) if !part.trim_start().starts_with("ALTER TABLE ") => last.push_str(part),
            _ => statements.push(part.trim_start().to_owned()),
        }
        statements
    })
}

#[test]
fn a_missing_column_halts_before_reading_with_the_statement_that_brings_it() {
    const EVENTS: u64 = 500;
    let fixture = Fixture::new(Options::light("missing-column"));
    let shape = "SELECT name, type, position, comment, compression_codec FROM system.columns WHERE table = 'events' AND database = currentDatabase() ORDER BY position";
    let before = fixture.admin().text(shape);
    fixture.admin().run("ALTER TABLE events DROP COLUMN user_agent, DROP COLUMN `changes.new`");
    fixture.send(EVENTS);
    // It halts before it asks Kafka for anything: these brokers are none.
    let mut blind = fixture.command(&["consume"]);
    blind.env("AUDITSTREAM_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9");
    let blind = fixture.run(blind, b"");
    assert_eq!(blind.code(), Some(3), "{blind:?}");
    let output = fixture.cli(&["consume"]);
    assert_eq!(output.code(), Some(3), "{output:?}");
    assert!(output.stderr.contains("column changes.new is missing; column user_agent is missing"), "{output:?}");
    assert_eq!(statements(&blind.stderr), statements(&output.stderr));
    let committed = fixture.kafka().committed(fixture.topic());
    assert!(committed.values().all(|offset| *offset < 0), "something was committed: {committed:?}");
    assert_eq!(fixture.kafka().lag(fixture.topic()), EVENTS as i64, "something was committed");
    assert_eq!(fixture.raw_rows(), 0, "something was read and stored");
    // The statements are right: as they stand, they bring the table back to what the migrations made, comments, codecs and places included.
    let ddl = statements(&output.stderr);
    assert_eq!(ddl.len(), 2, "{ddl:?}");
    ddl.iter().for_each(|statement| fixture.admin().run(statement));
    assert_eq!(fixture.admin().text(shape), before);
    let _worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(90));
    fixture.verdict().assert_clean(EVENTS, 0);
}

#[test]
fn a_column_dropped_under_load_halts_and_loses_nothing() {
    let fixture = Fixture::new(Options::heavy("dropped-column"));
    let worker = fixture.worker();
    let load = fixture.load(2_000, None);
    wait_until("rows", Duration::from_secs(30), || {
        if fixture.raw_rows() > 1_000 { Ok(()) } else { Err("too few rows".to_owned()) }
    });
    fixture.admin().run("ALTER TABLE events DROP COLUMN user_agent");
    assert_eq!(worker.wait(Duration::from_secs(30)), Some(3), "the exit code");
    load.finish();
    assert!(fixture.kafka().read(&fixture.dead_letter_topic()).is_empty(), "something was dead-lettered");
    fixture.admin().run("ALTER TABLE events ADD COLUMN user_agent String AFTER ip");
    let _worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(90));
    fixture.verdict().assert_clean(fixture.acknowledged().len() as u64, 0);
}
