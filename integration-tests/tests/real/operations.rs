//! What docs/operations.md tells an operator to do, done; and what docker-compose.yml mounts and asks, as far as the servers here can tell.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options, Worker, http, wait_until};
use auditstream_schemas::{AuditEvent, Timestamp};
use auditstream_stack::Role;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);
/// The page itself.
pub(crate) const OPERATIONS: &str = include_str!("../../../docs/operations.md");
const COMPOSE: &str = include_str!("../../../docker-compose.yml");
const USERS: &str = include_str!("../../../docker/clickhouse/users.sql");

/// The page's statement that begins so, without its end.
#[track_caller]
pub(crate) fn statement(beginning: &str) -> &'static str {
    let at = OPERATIONS.find(beginning).unwrap_or_else(|| panic!("docs/operations.md has no statement `{beginning}`"));
    let rest = &OPERATIONS[at..];
    &rest[..rest.find([';', '`']).expect("the statement ends")]
}

/// What `auditstream stats` must say in the end: lag 0, gaps 0.
#[track_caller]
pub(crate) fn assert_nothing_is_missing(fixture: &Fixture, settings: &[(&str, &str)]) {
    let mut command = fixture.command(&["stats", "--json"]);
    command.envs(settings.iter().copied());
    let stats: Value = serde_json::from_str(&fixture.run(command, b"").success().stdout).unwrap();
    let (lag, gaps) = (&stats["lag"]["total"], &stats["events"]["ledger"]["gaps"]);
    assert_eq!((lag.as_i64(), gaps.as_u64()), (Some(0), Some(0)), "{stats}");
}

/// The events of `count` audited commands are known to the oracle from now on.
#[track_caller]
pub(crate) fn acknowledge_deeds(fixture: &Fixture, count: usize) {
    let ids = fixture.admin().text("SELECT event_id FROM events FINAL WHERE tenant_id = 'auditstream'");
    assert_eq!(ids.lines().count(), count, "events of commands");
    ids.lines().for_each(|id| fixture.acknowledged().add(id.parse().unwrap()));
}

/// Stops a worker as an operator does: it drains.
fn land_and_stop(fixture: &Fixture) {
    let worker = fixture.worker();
    fixture.wait_landed(PATIENCE);
    worker.terminate();
    assert_eq!(worker.wait(PATIENCE), Some(0));
}

#[test]
fn a_round_trip_says_where_the_event_is_and_what_is_missing() {
    let fixture = Fixture::new(Options::light("round_trip"));
    let (user, password) = fixture.stack().credentials(Role::Analyst);
    let command = |args: &[&str]| {
        let mut command = fixture.command(&[&["round-trip"], args].concat());
        command.env("AUDITSTREAM_CLICKHOUSE__USER", user).env("AUDITSTREAM_CLICKHOUSE__PASSWORD", password);
        fixture.run(command, b"")
    };
    let alone = command(&["--timeout", "2"]);
    assert_eq!(alone.code(), Some(1), "{alone:?}");
    assert!(alone.stderr.contains("Kafka has the event") && alone.stderr.contains("does a worker run?"), "{alone:?}");
    let worker = fixture.worker();
    worker.wait_ready();
    let there = command(&["--json"]).success();
    let told: Value = serde_json::from_str(&there.stdout).unwrap();
    let id = told["event_id"].as_str().unwrap();
    assert_eq!(fixture.admin().number(&format!("SELECT count() FROM events WHERE event_id = '{id}'")), 1, "{there:?}");
    let ms = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("no {name} in {told}"));
    assert!(ms("acked_ms") <= ms("found_ms") && ms("found_ms") < 60_000, "{told}");
    // Who may not read is told so, not that the event is missing.
    let refused = fixture.cli(&["round-trip", "--timeout", "2"]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("clickhouse"), "{refused:?}");
    worker.terminate();
    assert_eq!(worker.wait(PATIENCE), Some(0));
}

#[test]
fn clickhouse_is_lost_and_filled_again_from_kafka() {
    let fixture = Fixture::new(Options::light("clickhouse_lost"));
    fixture.send(2_000);
    fixture.poison().send(Some(b"k"), Some(b"no event"), &[]);
    land_and_stop(&fixture);
    fixture.admin().run(&format!("DROP DATABASE {} SYNC", fixture.database()));
    fixture.run(fixture.admin_command(&["migrate"]), b"").success();
    fixture.cli(&["consumer", "reset", "--to-earliest", "--yes"]).success();
    fixture.send(500);
    let worker = fixture.worker();
    fixture.wait_landed(PATIENCE);
    worker.terminate();
    assert_eq!(worker.wait(PATIENCE), Some(0));
    assert_nothing_is_missing(&fixture, &[]);
    acknowledge_deeds(&fixture, 1);
    let verdict = fixture.verdict();
    // The bad record is a dead letter once more, as the first copy is still in its topic.
    assert_eq!((verdict.lost, verdict.double, verdict.gaps, verdict.rows), (0, 0, 0, 2_501), "{verdict}");
}

#[test]
fn offsets_are_lost_and_nothing_is_double() {
    let fixture = Fixture::new(Options::light("offsets_lost"));
    fixture.send(2_000);
    land_and_stop(&fixture);
    fixture.kafka().delete_group();
    fixture.send(500);
    land_and_stop(&fixture);
    fixture.verdict().assert_clean(2_500, 0);
}

#[test]
fn offsets_are_lost_and_a_time_before_that_says_where_to_begin() {
    let fixture = Fixture::new(Options::light("offsets_lost_time"));
    fixture.send(2_000);
    land_and_stop(&fixture);
    let loss = Timestamp::now().to_string();
    fixture.kafka().delete_group();
    fixture.send(500);
    fixture.cli(&["consumer", "reset", "--to-time", &loss, "--yes"]).success();
    let worker = fixture.worker();
    fixture.wait_landed(PATIENCE);
    // And the event of the reset.
    assert_eq!(worker.metric("auditstream_consumer_records_total"), Ok(501.0), "records read");
    worker.terminate();
    assert_eq!(worker.wait(PATIENCE), Some(0));
    acknowledge_deeds(&fixture, 1);
    fixture.verdict().assert_clean(2_501, 0);
}

#[test]
fn an_offset_is_out_of_range_and_a_human_goes_on_at_the_earliest() {
    let fixture = Fixture::new(Options::light("offset_out_of_range").partitions(1));
    fixture.send(1_000);
    land_and_stop(&fixture);
    fixture.send(1_000);
    // Retention was faster than the worker.
    fixture.kafka().delete_records(fixture.topic(), 0, 1_400);
    assert_eq!(fixture.worker().wait(PATIENCE), Some(3), "it needs a human");
    fixture.cli(&["consumer", "reset", "--to-earliest", "--yes"]).success();
    land_and_stop(&fixture);
    acknowledge_deeds(&fixture, 1);
    let verdict = fixture.verdict();
    // Kafka had deleted those 400, and nobody hides it.
    assert_eq!((verdict.lost, verdict.gaps, verdict.double, verdict.rows), (400, 400, 0, 1_601), "{verdict}");
}

#[test]
fn the_questions_that_alerts_raise_are_answered() {
    let fixture = Fixture::new(Options::light("alerts_questions"));
    let recorder = fixture.recorder(fixture.producer_config("loss"));
    recorder.record(AuditEvent { action: "audit.loss".to_owned(), ..fixture.next_event() });
    recorder.finish();
    fixture.poison().send(Some(b"k"), Some(b"no event"), &[]);
    land_and_stop(&fixture);
    let analyst = fixture.clickhouse(Role::Analyst);
    for beginning in ["SELECT * FROM audit.events WHERE action", "SELECT error_code, error_message"] {
        let sql = statement(beginning).replace(" audit.", &format!(" {}.", fixture.database()));
        assert_eq!(analyst.text(&sql).lines().count(), 1, "{sql}");
    }
}

#[test]
fn kafka_is_lost_and_the_new_topic_is_read_from_its_start() {
    let fixture = Fixture::new(Options::light("kafka_lost"));
    fixture.send(2_000);
    land_and_stop(&fixture);
    fixture.kafka().delete_topic(fixture.topic());
    fixture.cli(&["topics", "create", "--partitions", "3"]).success();
    fixture.send(500);
    let worker = fixture.worker();
    let rows = "SELECT count() FROM events FINAL";
    wait_until("what the new topic holds", PATIENCE, || match fixture.admin().number(rows) {
        2_500 => Ok(()),
        other => Err(format!("{other} rows")),
    });
    worker.terminate();
    assert_eq!(worker.wait(PATIENCE), Some(0));
}

#[test]
fn partitions_are_added_while_workers_read() {
    let fixture = Fixture::new(Options::light("partitions_added"));
    let before = fixture.kafka().ends(fixture.topic()).len();
    let workers = [fixture.worker(), fixture.worker()];
    workers.iter().for_each(Worker::wait_ready);
    // Its producer knows the old partitions for a while yet.
    let load = fixture.load(1_000, None);
    fixture.wait_rows(500, PATIENCE);
    fixture.kafka().add_partitions(fixture.topic(), before * 2);
    // This one knows all.
    fixture.send(3_000);
    load.finish();
    fixture.wait_landed(PATIENCE);
    let ends = fixture.kafka().ends(fixture.topic());
    assert!(ends.len() == before * 2 && ends.iter().all(|(_, end)| *end > 0), "{ends:?}");
    for worker in workers {
        worker.terminate();
        assert_eq!(worker.wait(PATIENCE), Some(0));
    }
    let verdict = fixture.verdict();
    verdict.assert_clean(verdict.rows, 0);
}

/// The text of compose's check, as a shell gets it.
fn health_check() -> String {
    let (_, rest) = COMPOSE.split_once("&ready \"").expect("the check has an anchor");
    let (text, _) = rest.split_once("\"]\n").expect("the check ends");
    text.replace("\\\\", "\\").replace("\\\"", "\"").replace("$$", "$")
}

#[test]
fn composes_health_check_tells_a_worker_that_is_ready() {
    let fixture = Fixture::new(Options::light("health_check"));
    let worker = fixture.worker();
    worker.wait_ready();
    let address = worker.address().unwrap();
    let (_, port) = address.rsplit_once(':').unwrap();
    let check = |port: &str, path: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-c", &health_check()]).env("PROBE_PORT", port).env("PROBE_PATH", path);
        bash.output().expect("bash is there").status.success()
    };
    assert!(check(port, "/readyz"));
    assert!(!check(port, "/nothing-there"));
    worker.kill();
    assert!(!check(port, "/readyz"));
}

/// Users by SQL can't be made here, so this only sees that the statements are ClickHouse's.
#[test]
fn composes_users_are_written_in_clickhouses_sql() {
    let fixture = Fixture::new(Options::light("users_sql"));
    let (user, password) = fixture.stack().credentials(Role::Admin);
    let address = fixture.stack().clickhouse_url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let statements: Vec<&str> = USERS.split_inclusive(";\n").map(str::trim).collect();
    assert_eq!(statements.len(), 6, "{statements:?}");
    let mut codes = HashMap::new();
    for statement in statements.into_iter().chain(["CREATE USER IF NOT EXISTS x IDENTIFIED DIFFERENTLY BY 'y'"]) {
        let headers = [("X-ClickHouse-User", user), ("X-ClickHouse-Key", password)];
        let answer =
            http::post(&address, "/?param_password=x", &headers, statement.as_bytes(), PATIENCE).unwrap().text();
        *codes.entry(answer.contains("SYNTAX_ERROR")).or_insert(0) += 1;
        assert_eq!(answer.contains("SYNTAX_ERROR"), statement.contains("DIFFERENTLY"), "{statement}: {answer}");
    }
    assert_eq!(codes, HashMap::from([(false, 6), (true, 1)]));
}
