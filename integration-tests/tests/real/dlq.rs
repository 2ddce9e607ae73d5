//! `auditstream dlq`: dead letters are listed, shown, sent again as they were, and discarded; each deed is audited.

use std::process::Command;
use std::time::Duration;

use auditstream_consumer::headers;
use auditstream_integration_tests::{CliOutput, Fixture, Options, Record, wait_until};
use serde_json::Value as Json;

fn list(fixture: &Fixture, args: &[&str]) -> Vec<Json> {
    let args = [&["dlq", "list", "--json"], args].concat();
    let output = fixture.run(fixture.admin_command(&args), b"").success();
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn place(letter: &Json) -> String {
    format!("{}/{}", letter["partition"], letter["offset"])
}

fn wait_letters(fixture: &Fixture, args: &[&str], count: usize) -> Vec<Json> {
    wait_until("dead letters", Duration::from_secs(60), || match list(fixture, args) {
        letters if letters.len() == count => Ok(letters),
        letters => Err(format!("{} of {count}", letters.len())),
    })
}

fn dlq(fixture: &Fixture, args: &[&str]) -> CliOutput {
    fixture.run(fixture.admin_command(&[&["dlq"], args].concat()), b"")
}

fn audited(fixture: &Fixture, action: &str) -> Vec<String> {
    let sql = format!(
        "SELECT concat(entity_id, ' ', outcome, ' ', actor_kind) FROM events FINAL WHERE tenant_id = 'auditstream' AND action = '{action}' ORDER BY entity_id"
    );
    fixture.admin().text(&sql).lines().map(str::to_owned).collect()
}

/// Two records that the table refuses, one that nobody can decode.
#[test]
fn a_dead_letter_is_retried_as_it_was_and_one_that_fails_again_is_a_new_one() {
    let fixture = Fixture::new(Options::light("dlq"));
    fixture.stop_merges();
    fixture.admin().run("ALTER TABLE events ADD CONSTRAINT no_such_name CHECK entity_name != 'refuse me'");
    let recorder = fixture.recorder(fixture.producer_config("dlq"));
    for number in 0..20 {
        let mut event = fixture.next_event();
        if number == 7 || number == 13 {
            event.entity_name = Some("refuse me".to_owned());
        }
        recorder.record(event);
    }
    recorder.finish();
    let own = ("own".to_owned(), Some(vec![0xff, 0]));
    fixture.poison().send(None, Some(b"not an event"), &[own.clone(), ("empty".to_owned(), None)]);
    let poison = fixture.poison().positions()[0];
    let _worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(90));
    let letters = wait_letters(&fixture, &[], 3);
    assert_eq!(list(&fixture, &["--code", "wrong-magic"]).len(), 1);
    assert_eq!(list(&fixture, &["--code", "clickhouse-469", "--since", "1h"]).len(), 2);
    assert!(list(&fixture, &["--since", "2100-01-01T00:00:00Z"]).is_empty());
    assert!(list(&fixture, &["--topic", "another"]).is_empty());
    let table = dlq(&fixture, &["list"]).success().stdout;
    assert!(table.lines().count() == 4 && table.lines().all(|line| line.chars().count() <= 80), "{table}");

    check_show(&fixture, poison);
    check_consent(&fixture, &letters);

    // The cause is still there: both are sent, and both come back as new ones that know it.
    let source = fixture.kafka().read(fixture.topic());
    let sent = dlq(&fixture, &["retry", "--all", "--code", "clickhouse-469", "--yes"]).success();
    assert!(sent.stdout.contains("2 dead letters sent again"), "{sent:?}");
    fixture.wait_landed(Duration::from_secs(60));
    let again = wait_letters(&fixture, &["--code", "clickhouse-469"], 2);
    assert!(again.iter().all(|letter| letter["retries"] == 1), "{again:?}");
    assert!(again.iter().all(|letter| !letters.iter().any(|old| place(old) == place(letter))), "other places");
    assert_eq!(list(&fixture, &["--all"]).len(), 5, "the old ones are decided, not gone");
    check_records(&fixture, &source, 1);
    let old = letters.iter().find(|letter| letter["error_code"] == "clickhouse-469").unwrap();
    let left_alone = dlq(&fixture, &["retry", &place(old), "--yes"]).success();
    assert!(
        left_alone.stderr.contains("is left alone") && left_alone.stdout.contains("nothing to do"),
        "{left_alone:?}"
    );

    // The cause is mended.
    fixture.admin().run("ALTER TABLE events DROP CONSTRAINT no_such_name");
    dlq(&fixture, &["retry", &place(&again[0]), &place(&again[1]), "--yes"]).success();
    wait_until("the refused rows", Duration::from_secs(60), || {
        match fixture.admin().number("SELECT count() FROM events FINAL WHERE entity_name = 'refuse me'") {
            2 => Ok(()),
            rows => Err(format!("{rows} rows")),
        }
    });
    fixture.wait_landed(Duration::from_secs(60));
    check_records(&fixture, &source, 2);
    assert_eq!(list(&fixture, &[]).len(), 1, "the poison is open");

    let at = format!("{}/{}", poison.0, poison.1);
    dlq(&fixture, &["discard", &at, "--yes"]).success();
    assert!(list(&fixture, &[]).is_empty());
    assert_eq!(dlq(&fixture, &["list"]).success().stdout, "no open dead letters\n");
    fixture.wait_landed(Duration::from_secs(60));
    let retries = audited(&fixture, "audit.dlq_retry");
    assert_eq!(retries.len(), 4, "{retries:?}");
    assert!(retries.iter().all(|event| event.ends_with(" SUCCESS USER")), "{retries:?}");
    assert_eq!(audited(&fixture, "audit.dlq_discard"), [format!("dlq/{at} SUCCESS USER")]);
    assert_eq!(fixture.admin().number("SELECT count() FROM events FINAL WHERE tenant_id != 'auditstream'"), 20);
    let stored =
        "SELECT count() FROM events WHERE tenant_id = 'auditstream' AND position(toString(tuple(*)), 'refuse me') > 0";
    assert_eq!(fixture.admin().number(stored), 0, "no content in the audit trail");
}

/// The reason, the headers and the sizes; the value only into a file that was not there.
fn check_show(fixture: &Fixture, (partition, offset): (i32, i64)) {
    let at = format!("{partition}/{offset}");
    let shown = dlq(fixture, &["show", &at]).success().stdout;
    for part in
        ["wrong-magic (decode)", "12 bytes", "state          open", "  own = ", "  empty = ", &format!("dlq/{at}")]
    {
        assert!(shown.contains(part), "{part} is missing in {shown}");
    }
    assert!(!shown.contains("not an event"), "{shown}");
    let file = fixture.folder().join("value");
    let write = ["show", &at, "--payload", file.to_str().unwrap()];
    dlq(fixture, &write).success();
    assert_eq!(std::fs::read(&file).unwrap(), b"not an event");
    let again = dlq(fixture, &write);
    assert_eq!(again.code(), Some(1), "no file is overwritten: {again:?}");
    let nothing = dlq(fixture, &["show", "0/999999"]);
    assert!(nothing.code() == Some(1) && nothing.stderr.contains("no dead letter dlq/0/999999"), "{nothing:?}");
    // The workers' user may not read what dead letters hold.
    let ingest = fixture.cli(&["dlq", "list"]);
    assert!(ingest.code() == Some(1) && ingest.stderr.contains("audit_analyst"), "{ingest:?}");
}

/// Nothing happens without a yes.
fn check_consent(fixture: &Fixture, letters: &[Json]) {
    let dry = dlq(fixture, &["retry", "--all", "--dry-run"]).success().stdout;
    assert!(dry.contains("3 dead letters would be sent again; nothing was done"), "{dry}");
    for word in ["retry", "discard"] {
        let silent = dlq(fixture, &[word, &place(&letters[0])]);
        assert!(silent.code() == Some(1) && silent.stderr.contains("--yes"), "{silent:?}");
    }
    assert_eq!(list(fixture, &[]).len(), 3);
    assert_eq!(fixture.kafka().lag(fixture.topic()), 0, "nothing was sent");
    // Nobody knows of it: so it is not done.
    let unheard = |word: &str| -> Command {
        let mut command = fixture.admin_command(&["dlq", word, "--all", "--yes"]);
        command
            .env("AUDITSTREAM_KAFKA__TOPIC", "no-such-topic")
            .env("AUDITSTREAM_PRODUCER__DELIVERY_TIMEOUT_MS", "2000");
        command
    };
    let output = fixture.run(unheard("discard"), b"");
    assert!(output.code() == Some(1) && output.stderr.contains("nothing was done: the audit event"), "{output:?}");
    assert_eq!(list(fixture, &[]).len(), 3);
}

/// What was sent again is what lay at the place that its header names.
fn check_records(fixture: &Fixture, source: &[Record], retries: u32) {
    let now = fixture.kafka().read(fixture.topic());
    let is_sent = |record: &&Record| {
        record
            .headers
            .iter()
            .any(|(name, value)| name == "auditstream.retries" && *value == Some(retries.to_string().into_bytes()))
    };
    let sent: Vec<_> = now.iter().filter(is_sent).collect();
    assert_eq!(sent.len(), 2, "records sent for the time {retries}");
    for record in sent {
        let is_same = |original: &&Record| {
            let ids = original.headers.iter().filter(|(name, _)| name == "ce_id");
            ids.into_iter().any(|(_, id)| id.as_deref() == Some(record.header("ce_id").as_bytes()))
        };
        let original = source.iter().find(is_same).unwrap();
        assert_eq!(
            (&record.key, &record.value, record.timestamp_ms),
            (&original.key, &original.value, original.timestamp_ms)
        );
        let (headers, added) = record.headers.split_at(original.headers.len());
        assert_eq!(headers, original.headers);
        let names: Vec<_> = added.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["auditstream.retries", "auditstream.retry.of"]);
        assert!(!record.headers.iter().any(|(name, _)| name == headers::TOPIC), "a worker's header");
    }
}

/// The topic takes no record older than two seconds, which stands for one that retention would delete.
#[test]
fn an_old_record_is_sent_again_with_the_present_time() {
    let fixture = Fixture::new(Options::light("dlq-old").partitions(1));
    fixture.poison().send(None, Some(b"not an event"), &[]);
    let _worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(60));
    let letters = wait_letters(&fixture, &[], 1);
    let first = fixture.kafka().read(fixture.topic()).remove(0).timestamp_ms;
    fixture.kafka().set_topic(fixture.topic(), "message.timestamp.before.max.ms", "2000");
    wait_until("the record to be old", Duration::from_secs(10), || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        if now - first > 2_000 { Ok(()) } else { Err(format!("{} ms", now - first)) }
    });
    let sent = dlq(&fixture, &["retry", &place(&letters[0]), "--yes"]).success().stdout;
    assert!(sent.contains("1 dead letter with the present time"), "{sent}");
    let records = fixture.kafka().read(fixture.topic());
    let again = records.iter().find(|record| record.headers.iter().any(|(name, _)| name == "auditstream.retry.of"));
    let again = again.unwrap_or_else(|| panic!("it is not there: {records:?}"));
    assert_eq!(again.header("auditstream.retry.timestamp"), first.to_string());
    assert!(again.timestamp_ms > first + 2_000, "{} and {first}", again.timestamp_ms);
    let letters = wait_letters(&fixture, &[], 1);
    assert_eq!(letters[0]["retries"], 1, "it is as bad as before");
}
