//! `auditstream doctor` finds what is planted, and nothing else.

use std::process::Command;

use auditstream_integration_tests::{Fixture, Options, RegistryAnswer, ScriptedRegistry, wait_until};
use auditstream_stack::Role;
use serde_json::Value as Json;

/// Check, level and text of everything that is not fine.
type Found = Vec<(String, String, String)>;

fn findings(fixture: &Fixture, mut command: Command) -> Found {
    command.arg("--json");
    let output = fixture.run(command, b"");
    let json: Json = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let all = json["findings"].as_array().unwrap();
    let bad = all.iter().filter(|finding| finding["level"] != "ok");
    let found: Found = bad
        .map(|finding| {
            assert!(!text(&finding["remedy"]).is_empty(), "nothing to do about {finding}");
            (text(&finding["check"]), text(&finding["level"]), text(&finding["found"]))
        })
        .collect();
    let wrong = found.iter().filter(|(_, level, _)| level == "wrong").count();
    assert_eq!(output.code(), Some(i32::from(wrong > 0)), "{found:?}");
    found
}

/// Exactly one finding, of this check, with this in its text.
#[track_caller]
fn only(planted: &str, found: &Found, check: &str, level: &str, part: &str) {
    let fits = matches!(&found[..], [(of, how, what)] if of == check && how == level && what.contains(part));
    assert!(fits, "{planted}: expected one finding of {check}, {level}, with {part:?}: {found:?}");
}

#[test]
fn each_planted_misconfiguration_is_found_and_nothing_else() {
    let fixture = Fixture::new(Options::light("planted").partitions(1));
    let doctor = || fixture.admin_command(&["doctor"]);
    let with = |settings: &[(&str, &str)]| {
        let mut command = doctor();
        command.envs(settings.iter().copied());
        findings(&fixture, command)
    };
    assert_eq!(with(&[]), [], "nothing is planted yet");
    let mut count = 0;
    let mut planted = |what: &str, found: Found, check: &str, level: &str, part: &str| {
        only(what, &found, check, level, part);
        count += 1;
    };

    // In the configuration.
    let registry = ScriptedRegistry::answering(RegistryAnswer::Missing);
    let missing = registry.url();
    let closed = ScriptedRegistry::closed().url();
    let file = fixture.config_file();
    let spill = file.join("spill");
    for (settings, check, level, part) in [
        (&[("AUDITSTREAM_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9")][..], "kafka", "wrong", "no broker answers"),
        (&[("AUDITSTREAM_KAFKA__TOPIC", "nowhere")], "kafka", "wrong", "topic nowhere does not exist"),
        (&[("AUDITSTREAM_KAFKA__DEAD_LETTER_TOPIC", "nowhere")], "kafka", "wrong", "topic nowhere does not exist"),
        (
            &[("AUDITSTREAM_SCHEMA__REGISTRY_URL", &closed), ("AUDITSTREAM_SCHEMA__REGISTRY_TIMEOUT_MS", "1000")],
            "registry",
            "wrong",
            "",
        ),
        (
            &[("AUDITSTREAM_SCHEMA__REGISTRY_URL", &missing), ("AUDITSTREAM_SCHEMA__FRAMING", "confluent")],
            "registry",
            "wrong",
            "has not got the event's schema",
        ),
        (&[("AUDITSTREAM_CLICKHOUSE__URL", "http://127.0.0.1:9")], "clickhouse", "wrong", "no answer"),
        (&[("AUDITSTREAM_CLICKHOUSE__PASSWORD", "hunter2")], "clickhouse", "wrong", "Authentication failed"),
        (
            &[("AUDITSTREAM_KAFKA__PROPERTIES__HEARTBEAT_INTERVAL_MS", "20000")],
            "config",
            "wrong",
            "heartbeat.interval.ms is 20000",
        ),
        (&[("AUDITSTREAM_CONSUMER__BATCH_MAX_AGE_MS", "5000")], "config", "note", "the target can't be met"),
        (&[("AUDITSTREAM_PRODUCER__SPILL_FOLDER", spill.to_str().unwrap())], "spill", "wrong", "can't be written"),
        (&[("AUDITSTREAM_OUTBOX__URL", "postgres://nobody@127.0.0.1:9/nothing")], "outbox", "wrong", ""),
    ] {
        planted(&format!("{settings:?}"), with(settings), check, level, part);
    }

    // In the topics' settings.
    let (topic, letters) = (fixture.topic().to_owned(), fixture.dead_letter_topic());
    for (name, setting, value, part) in [
        (&topic, "cleanup.policy", "compact", "of each entity only the last event"),
        (&topic, "retention.ms", "3600000", "within 1.0 hours"),
        (&letters, "retention.ms", "3600000", "within 1.0 hours"),
        (&topic, "min.insync.replicas", "2", "no event can be written"),
        (&topic, "unclean.leader.election.enable", "true", "may become the leader"),
        (&topic, "message.timestamp.type", "LogAppendTime", "LogAppendTime"),
        (&topic, "max.message.bytes", "10000", "producers send up to 1000000"),
        (&letters, "max.message.bytes", "10000", "would hold its partition for ever"),
    ] {
        fixture.kafka().set_topic(name, setting, value);
        planted(&format!("{name} {setting}={value}"), with(&[]), "topics", "wrong", part);
        // Takes the other settings back to their defaults.
        fixture.kafka().set_topic(name, "retention.ms", "604800000");
    }

    // In the tables.
    let admin = fixture.admin();
    let ddl = |sql: &str| admin.run(sql);
    ddl("ALTER TABLE schema_migrations DELETE WHERE version = 2 SETTINGS mutations_sync = 2");
    planted("a pending migration", with(&[]), "migrations", "wrong", "not applied: dead_letter_details");
    fixture.run(fixture.admin_command(&["migrate"]), b"").success();
    ddl("ALTER TABLE events DROP COLUMN user_agent");
    planted("a missing column", with(&[]), "tables", "wrong", "column user_agent is missing");
    ddl("ALTER TABLE events ADD COLUMN user_agent String AFTER ip");
    ddl("ALTER TABLE dead_letters MODIFY COLUMN attempts UInt8");
    planted("a narrowed column", with(&[]), "tables", "wrong", "column attempts is UInt8");
    ddl("ALTER TABLE dead_letters MODIFY COLUMN attempts UInt32");
    ddl("ALTER TABLE events MODIFY SETTING non_replicated_deduplication_window = 0");
    planted("no deduplication", with(&[]), "engines", "note", "does not know repeated inserts");
    ddl("ALTER TABLE events MODIFY SETTING non_replicated_deduplication_window = 10000");
    ddl("RENAME TABLE ledger TO ledger_kept");
    ddl(
        "CREATE TABLE ledger ENGINE = MergeTree ORDER BY (topic, partition, first_offset) AS SELECT * FROM ledger_kept",
    );
    planted(
        "another engine",
        with(&[]),
        "engines",
        "wrong",
        "ledger is a MergeTree: what is stored twice stays two rows",
    );
    ddl("DROP TABLE ledger");
    ddl("RENAME TABLE ledger_kept TO ledger");
    let (user, password) = fixture.stack().credentials(Role::Analyst);
    let reader = with(&[("AUDITSTREAM_CLICKHOUSE__USER", user), ("AUDITSTREAM_CLICKHOUSE__PASSWORD", password)]);
    // Nor may an analyst see whether an operator has paused the group.
    let wrong: Found = reader.into_iter().filter(|(of, level, _)| level == "wrong" && of != "pause").collect();
    planted("a user who may only read", wrong, "settings", "wrong", "may only read");
    ddl(
        "INSERT INTO ledger (topic, partition, first_offset, last_offset) VALUES ('planted', 0, 0, 4), ('planted', 0, 9, 12)",
    );
    planted("a gap", with(&[]), "ledger", "note", "1 gaps, 4 offsets in all, the first planted/0 from 5 to 8");
    ddl("TRUNCATE TABLE ledger");

    // In the group.
    fixture.kafka().commit(&topic, 0, 1_000);
    planted("an offset beyond the log", with(&[]), "group", "wrong", "whose log ends at 0");
    fixture.kafka().commit(&topic, 0, 0);
    let workers = [fixture.worker(), fixture.worker()];
    workers.iter().for_each(|worker| worker.wait_ready());
    let idle = wait_until("two members", std::time::Duration::from_secs(30), || match with(&[]) {
        found if found.is_empty() => Err("nothing is found".to_owned()),
        found => Ok(found),
    });
    planted("more members than partitions", idle, "group", "note", "2 members for 1 partitions");
    drop(workers);
    assert!(count >= 25, "{count} were planted");
}
