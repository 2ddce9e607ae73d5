//! The built binary as people and scripts see it: exit codes, messages, pipes. No server needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The binary in an empty folder, without settings in the environment.
fn auditstream(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_auditstream"));
    command.env_clear().current_dir(folder).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let code = status.code().unwrap_or_else(|| panic!("ended by a signal: {status}"));
    (code, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = run(auditstream(folder.path()).args(["publish", "--dryrun", "x"]));
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("--dryrun") && stderr.contains("--dry-run"), "{stderr}");
    assert_eq!(run(&mut auditstream(folder.path())).0, 2);
}

#[test]
fn help_fits_the_terminal_and_has_examples_and_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, _) = run(auditstream(folder.path()).arg("--help"));
    assert_eq!(code, 0);
    assert!(stdout.contains("Exit codes:") && stdout.contains("Examples:"), "{stdout}");
    for command in [
        &["migrate"][..],
        &["topics", "create"],
        &["publish"],
        &["consume"],
        &["stats"],
        &["round-trip"],
        &["relay"],
        &["outbox", "migrate"],
        &["outbox", "failed", "list"],
        &["outbox", "failed", "show"],
        &["outbox", "failed", "retry"],
        &["outbox", "failed", "remove"],
        &["schema", "check"],
        &["schema", "new-version"],
        &["schema", "custom-view"],
        &["doctor"],
        &["lag"],
        &["dlq", "list"],
        &["dlq", "show"],
        &["dlq", "retry"],
        &["dlq", "discard"],
        &["consumer", "reset"],
        &["consumer", "pause"],
        &["consumer", "resume"],
        &["service", "install"],
        &["service", "uninstall"],
        &["completions"],
        &["man"],
    ] {
        let (code, stdout, _) = run(auditstream(folder.path()).args(command).arg("--help"));
        assert_eq!(code, 0);
        assert!(stdout.contains("Examples:"), "{command:?}: {stdout}");
        assert!(stdout.lines().all(|line| line.chars().count() <= 100), "{command:?}: {stdout}");
    }
}

#[test]
fn every_wrong_key_is_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = "[kafka]\ntopik = \"x\"\n[consumer]\nbatch_max_rows = \"many\"\n[colour]\nred = 1\n";
    std::fs::write(folder.path().join("auditstream.toml"), wrong).unwrap();
    let expected = [
        "kafka.topik (file): there is no such key; did you mean kafka.topic?",
        "consumer.batch_max_rows (file): found text, expected a whole number from 1 to 10000000",
        "colour (file): there is no such key",
        "log.format (AUDITSTREAM_LOG__FORMAT): found another word, expected one of text, json",
    ];
    for (command, expected_code) in [(&["config", "check"][..], 1), (&["consume"], 2), (&["stats"], 2)] {
        let (code, stdout, stderr) =
            run(auditstream(folder.path()).args(command).env("AUDITSTREAM_LOG__FORMAT", "xml"));
        assert_eq!((code, stdout.as_str()), (expected_code, ""), "{command:?}");
        assert!(stderr.contains("has 4 problems"), "{stderr}");
        for line in expected {
            assert!(stderr.contains(line), "{line} is missing in {stderr}");
        }
    }
}

#[test]
fn the_example_file_is_a_right_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/auditstream.example.toml");
    let (code, stdout, stderr) = run(auditstream(folder.path()).args(["--config", example, "config", "check"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.lines().any(|line| line.starts_with("topic = \"audit.events\"") && line.ends_with("# file")),
        "{stdout}"
    );
    let (code, _, stderr) = run(auditstream(folder.path()).args(["-c", "nowhere.toml", "config", "check"]));
    assert_eq!(code, 1);
    assert!(stderr.contains("nowhere.toml"), "{stderr}");
}

#[test]
fn secrets_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "hunter2\n").unwrap();
    let mut command = auditstream(folder.path());
    command
        .args(["config", "check"])
        .env("AUDITSTREAM_CLICKHOUSE__PASSWORD", "hunter1")
        .env("AUDITSTREAM_KAFKA__SECURITY_PROTOCOL", "sasl_plaintext")
        .env("AUDITSTREAM_KAFKA__SASL_MECHANISM", "PLAIN")
        .env("AUDITSTREAM_KAFKA__SASL_USERNAME", "me")
        .env("AUDITSTREAM_KAFKA__SASL_PASSWORD_FILE", "secret");
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, 0, "{stderr}");
    assert!(!stdout.contains("hunter") && !stderr.contains("hunter"), "{stdout}{stderr}");
    assert!(stdout.contains("[redacted]") && stdout.contains("# AUDITSTREAM_CLICKHOUSE__PASSWORD"), "{stdout}");
}

const GOOD: &str =
    r#"{"tenant_id":"acme","service":"shop","action":"order.create","entity_type":"order","entity_id":"42"}"#;

/// Two good lines, three bad ones, a blank one.
fn mixed(folder: &Path) {
    let lines = [GOOD, "{\"tenant_id\":\"acme\"}", "", "no json", GOOD, "{\"colour\":1}"];
    std::fs::write(folder.join("events.ndjson"), lines.join("\n")).unwrap();
}

fn numbers_of_bad_lines(stderr: &str) -> Vec<&str> {
    stderr.lines().filter_map(|line| line.strip_prefix("line ")?.split_once(": ")).map(|(number, _)| number).collect()
}

#[test]
fn a_dry_run_reports_each_bad_line() {
    let folder = tempfile::tempdir().unwrap();
    mixed(folder.path());
    let (code, stdout, stderr) = run(auditstream(folder.path()).args(["publish", "--dry-run", "events.ndjson"]));
    assert_eq!(code, 1);
    assert_eq!(stdout, "5 lines: 2 valid, 3 rejected; nothing was sent (dry run)\n");
    assert_eq!(numbers_of_bad_lines(&stderr), ["2", "4", "6"]);
    assert!(stderr.contains("entity_id") && stderr.contains("colour"), "{stderr}");

    std::fs::write(folder.path().join("events.ndjson"), GOOD).unwrap();
    let (code, stdout, _) = run(auditstream(folder.path()).args(["publish", "--dry-run", "--json", "events.ndjson"]));
    assert_eq!(code, 0);
    let summary: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&summary["valid"], &summary["rejected"]), (&1.into(), &0.into()));
}

/// librdkafka's mock cluster inside the process takes the events.
fn publish(folder: &Path) -> Command {
    let mut command = auditstream(folder);
    command
        .arg("publish")
        .env("AUDITSTREAM_KAFKA__PROPERTIES__TEST_MOCK_NUM_BROKERS", "1")
        .env("AUDITSTREAM_LOG__LEVEL", "error");
    command
}

#[test]
fn good_lines_are_published_and_their_ids_listed() {
    let folder = tempfile::tempdir().unwrap();
    mixed(folder.path());
    let id = "0190a5b0-7c3e-7000-8000-000000000001";
    let with_id = GOOD.replacen('{', &format!("{{\"event_id\":\"{id}\","), 1);
    std::fs::write(folder.path().join("more.ndjson"), with_id).unwrap();
    let (code, stdout, stderr) = run(publish(folder.path()).args(["--json", "--ids", "ids", "events.ndjson"]));
    assert_eq!(code, 1, "{stderr}");
    assert_eq!(numbers_of_bad_lines(&stderr), ["2", "4", "6"]);
    let summary: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    for (name, count) in [("read", 5), ("published", 2), ("acked", 2), ("rejected", 3), ("failed", 0)] {
        assert_eq!(summary[name], count, "{name} in {summary}");
    }
    let (code, stdout, stderr) = run(publish(folder.path()).args(["--ids", "ids", "more.ndjson"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("1 lines: 1 published, 1 acknowledged, 0 rejected, 0 failed in "), "{stdout}");
    let ids = std::fs::read_to_string(folder.path().join("ids")).unwrap();
    assert_eq!(ids.lines().count(), 3);
    assert_eq!(ids.lines().last(), Some(id));
}

#[test]
fn events_that_kafka_does_not_take_are_failures() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.ndjson"), GOOD).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut command = auditstream(folder.path());
    command
        .args(["publish", "--ids", "ids", "events.ndjson"])
        .env("AUDITSTREAM_KAFKA__BOOTSTRAP_SERVERS", closed)
        .env("AUDITSTREAM_PRODUCER__DELIVERY_TIMEOUT_MS", "1000");
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, 1, "{stderr}");
    assert!(stdout.contains("1 published, 0 acknowledged, 0 rejected, 1 failed"), "{stdout}");
    assert!(stderr.contains("timed-out"), "{stderr}");
    assert_eq!(std::fs::read_to_string(folder.path().join("ids")).unwrap(), "");
}

#[test]
fn a_signal_ends_reading_and_what_was_read_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = publish(folder.path())
        .args(["--json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{GOOD}\n{GOOD}\nno json").unwrap();
    // The complaint about line 3 says that the first two are handed in and that signals are heard.
    let mut errors = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut errors, &mut line).unwrap();
    assert!(line.starts_with("line 3: "), "{line}");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["acked"], &summary["interrupted"]), (&2.into(), &true.into()), "{summary}");
    drop(input);
}

#[test]
fn closed_pipes_are_no_reason_to_panic() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.ndjson"), format!("{GOOD}\n").repeat(100)).unwrap();
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    for mut command in [publish(folder.path()), {
        let mut dry = publish(folder.path());
        dry.arg("--dry-run");
        dry
    }] {
        let (code, _, stderr) = run_with_stdout(command.arg("events.ndjson"), closed());
        assert_eq!((code, stderr.as_str()), (0, ""));
    }
    let (code, _, stderr) = run_with_stdout(auditstream(folder.path()).args(["config", "check"]), closed());
    assert_eq!((code, stderr.as_str()), (0, ""));

    // Nobody listens on either side.
    mixed(folder.path());
    let status = publish(folder.path()).arg("events.ndjson").stdout(closed()).stderr(closed()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

fn run_with_stdout(command: &mut Command, stdout: std::io::PipeWriter) -> (i32, String, String) {
    let child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::new(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_outboxs_tables_are_printed_for_each_database_and_no_url_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    for (database, word) in [("postgres", "BYTEA"), ("mysql", "AUTO_INCREMENT"), ("sqlite", "AUTOINCREMENT")] {
        let args = ["outbox", "migrate", "--print", "--database", database];
        let (code, stdout, stderr) =
            run(auditstream(folder.path()).args(args).env("AUDITSTREAM_OUTBOX__TABLE", "trail"));
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert!(
            stdout.contains(word) && stdout.contains("EXISTS trail (") && stdout.contains("trail_leases"),
            "{stdout}"
        );
    }
    let secret = "oracle://audit:hunter2@db/x";
    let (code, stdout, stderr) = run(auditstream(folder.path())
        .args(["relay"])
        .env("AUDITSTREAM_OUTBOX__URL", secret)
        .env("AUDITSTREAM_OUTBOX__TABLE", "a b"));
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("outbox.url (AUDITSTREAM_OUTBOX__URL): begins with another scheme"), "{stderr}");
    assert!(stderr.contains("outbox.table (AUDITSTREAM_OUTBOX__TABLE): found another kind of text"), "{stderr}");
    assert!(!stderr.contains("hunter2"), "{stderr}");
}
