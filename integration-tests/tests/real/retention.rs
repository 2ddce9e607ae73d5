//! Retention and legal holds: what goes, what stays, and what is told of it.

use std::process::Command;
use std::time::Duration;

use auditstream_integration_tests::{CliOutput, Fixture, Options, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// `rows` events of a tenant that were received `days` ago; each twice, and not merged.
fn fill(fixture: &Fixture, tenant: &str, operation: &str, days: u32, rows: u32) {
    let now = fixture.admin().text("SELECT now64(3)");
    for _ in 0..2 {
        fixture.admin().run(&format!(
            "INSERT INTO events (tenant_id, entity_type, entity_id, occurred_at, event_id, version, operation, received_at) \
             SETTINGS insert_deduplicate = 0 \
             SELECT '{tenant}', 'order', toString(number), toDateTime64('{now}', 6) - toIntervalDay({days}), \
             reinterpretAsUUID(sipHash128('{tenant}{operation}{days}', number)), 1, '{operation}', \
             toDateTime64('{now}', 3) - toIntervalDay({days}) FROM numbers({rows})"
        ));
    }
}

fn with_rules(fixture: &Fixture, args: &[&str]) -> CliOutput {
    let mut command: Command = fixture.admin_command(args);
    command
        .env("AUDITSTREAM_RETENTION__DEFAULT_DAYS", "365")
        .env(
            "AUDITSTREAM_RETENTION__RULES",
            "tenant=acme operation=READ days=30; tenant=keep days=0; tenant=globex days=60",
        )
        .env("AUDITSTREAM_RETENTION__DEAD_LETTER_DAYS", "10");
    fixture.run(command, b"")
}

fn left(fixture: &Fixture) -> String {
    fixture.admin().text(
        "SELECT tenant_id || ' ' || operation || ' ' || toString(round(dateDiff('hour', received_at, now()) / 24)) || ': ' || toString(count()) AS line \
         FROM events FINAL WHERE tenant_id != 'auditstream' GROUP BY tenant_id, operation, round(dateDiff('hour', received_at, now()) / 24) AS days ORDER BY line",
    )
}

#[test]
fn what_is_past_its_time_goes_and_what_is_held_stays() {
    let fixture = Fixture::new(Options::light("retention"));
    for (tenant, operation, days, rows) in [
        ("acme", "READ", 29, 10),
        ("acme", "READ", 31, 11),
        ("acme", "UPDATE", 31, 12),
        ("acme", "UPDATE", 366, 13),
        ("globex", "READ", 61, 14),
        ("initech", "READ", 366, 15),
        ("keep", "READ", 4_000, 16),
    ] {
        fill(&fixture, tenant, operation, days, rows);
    }
    let letter = |offset: u32, days: u32| {
        fixture.admin().run(&format!(
            "INSERT INTO dead_letters (topic, partition, offset, timestamp) VALUES ('t', 0, {offset}, now64(3) - toIntervalDay({days}))"
        ));
    };
    letter(1, 9);
    letter(2, 11);
    let shown = with_rules(&fixture, &["retention", "show"]);
    assert_eq!(shown.code(), Some(1), "{shown:?}");
    assert!(shown.stdout.contains("no retention was ever applied"), "{shown:?}");
    let everything = left(&fixture);
    let dry = with_rules(&fixture, &["retention", "apply", "--dry-run"]).success();
    let columns = |output: &CliOutput| {
        let words = |line: &str| line.split_whitespace().rev().take(4).map(str::to_owned).collect::<Vec<_>>();
        output.stdout.lines().skip(1).take(4).map(words).collect::<Vec<_>>()
    };
    // held, past it, rows, days
    assert_eq!(
        columns(&dry),
        [["0", "11", "21", "30"], ["0", "0", "16", "-"], ["0", "14", "14", "60"], ["0", "28", "40", "365"]],
        "{dry:?}"
    );
    assert!(dry.stdout.lines().all(|line| line.chars().count() <= 80), "{dry:?}");
    assert_eq!(left(&fixture), everything, "a dry run changes nothing");
    assert_eq!(
        fixture.admin().text(
            "SELECT engine_full LIKE '%TTL%' FROM system.tables WHERE database = currentDatabase() AND name = 'events'"
        ),
        "0"
    );

    // One order of globex, and all of initech.
    let hold = |more: &[&str]| {
        let added =
            fixture.run(fixture.admin_command(&[&["hold", "add", "--reason", "case 7"], more].concat()), b"").success();
        added.stdout.split(' ').next().unwrap().to_owned()
    };
    let of_order = hold(&["--tenant", "globex", "--type", "order", "--id", "3"]);
    let of_tenant = hold(&["--tenant", "initech"]);
    with_rules(&fixture, &["retention", "apply", "--yes"]).success();
    let kept = "acme READ 29: 10\nacme UPDATE 31: 12\nglobex READ 61: 1\ninitech READ 366: 15\nkeep READ 4000: 16";
    wait_until("the rows to go", PATIENCE, || if left(&fixture) == kept { Ok(()) } else { Err(left(&fixture)) });
    assert_eq!(fixture.admin().number("SELECT count() FROM dead_letters"), 2, "a hold keeps them all");
    with_rules(&fixture, &["retention", "show"]).success();

    // Merges that ClickHouse chooses, and what an operator may do, leave held rows too.
    fixture.admin().run("OPTIMIZE TABLE events FINAL");
    assert_eq!(left(&fixture), kept);
    // A hold that is set later protects what the table's rules would take at the next merge.
    fixture.stop_merges();
    fill(&fixture, "umbrella", "READ", 400, 5);
    // Nor does a mutation take them that carries older rules through the table, and begins before the hold.
    let mutations = || {
        fixture.admin().text(
            "SELECT arrayStringConcat(groupArray(mutation_id), ' ') FROM system.mutations WHERE NOT is_done \
             AND database = currentDatabase() AND table = 'events'",
        )
    };
    with_rules(&fixture, &["retention", "apply", "--yes"]).success();
    let before = mutations();
    assert!(!before.is_empty(), "without merges it waits");
    let later = hold(&["--tenant", "umbrella"]);
    let after = mutations();
    assert!(!after.is_empty() && after != before, "{before} was ended and began anew: {after}");
    fixture.admin().run(&format!("SYSTEM START MERGES {}.events", fixture.database()));
    fixture.admin().run("OPTIMIZE TABLE events FINAL");
    let with_umbrella = format!("{kept}\numbrella READ 400: 5");
    assert_eq!(left(&fixture), with_umbrella);

    let remove = |id: &str, more: &[&str]| {
        fixture.run(fixture.admin_command(&[&["hold", "remove", id, "--reason", "closed"], more].concat()), b"")
    };
    assert_eq!(
        fixture.run(fixture.admin_command(&["hold", "list"]), b"").success().stdout.matches("case 7").count(),
        3
    );
    remove(&later, &["--dry-run"]).success();
    assert_eq!(left(&fixture), with_umbrella);
    let unasked = remove(&later, &[]);
    assert!(unasked.code() == Some(1) && unasked.stderr.contains("--yes"), "{unasked:?}");
    for id in [&later, &of_order, &of_tenant] {
        remove(id, &["--yes"]).success();
    }
    let without = "acme READ 29: 10\nacme UPDATE 31: 12\nkeep READ 4000: 16";
    wait_until("the rows to go", PATIENCE, || if left(&fixture) == without { Ok(()) } else { Err(left(&fixture)) });
    wait_until("the dead letter to go", PATIENCE, || {
        match fixture.admin().number("SELECT count() FROM dead_letters") {
            1 => Ok(()),
            more => Err(more.to_string()),
        }
    });
    assert_eq!(remove(&of_order, &["--yes"]).code(), Some(1), "it is off already");
    told(&fixture);
}

/// Each deed is an audit event like others: it lands in the table.
fn told(fixture: &Fixture) {
    let _worker = fixture.worker();
    let events = || {
        fixture.admin().text(
            "SELECT action || ' ' || tenant_id || ' ' || outcome || ' ' || toString(count()) AS line FROM events FINAL \
             WHERE service = 'auditstream' GROUP BY action, tenant_id, outcome ORDER BY line",
        )
    };
    let expected = [
        "audit.hold_add globex SUCCESS 1",
        "audit.hold_add initech SUCCESS 1",
        "audit.hold_add umbrella SUCCESS 1",
        "audit.hold_remove globex SUCCESS 1",
        "audit.hold_remove initech SUCCESS 1",
        "audit.hold_remove umbrella SUCCESS 1",
        "audit.retention auditstream SUCCESS 2",
    ]
    .join("\n");
    wait_until("the audit events", PATIENCE, || if events() == expected { Ok(()) } else { Err(events()) });
}

#[test]
fn without_kafka_nothing_that_deletes_begins_and_a_hold_is_set_all_the_same() {
    let fixture = Fixture::new(Options::light("retention-alone"));
    let away = |args: &[&str]| {
        let mut command = fixture.admin_command(args);
        command
            .env("AUDITSTREAM_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
            .env("AUDITSTREAM_PRODUCER__DELIVERY_TIMEOUT_MS", "1500")
            .env("AUDITSTREAM_RETENTION__DEFAULT_DAYS", "5");
        fixture.run(command, b"")
    };
    let applied = away(&["retention", "apply", "--yes"]);
    assert_eq!(applied.code(), Some(1), "{applied:?}");
    assert!(applied.stderr.contains("nothing was done"), "{applied:?}");
    assert_eq!(fixture.admin().number("SELECT count() FROM retention_policies"), 0);
    let held = away(&["hold", "add", "--tenant", "acme", "--reason", "case"]);
    assert_eq!(held.code(), Some(1), "{held:?}");
    assert!(held.stderr.contains("it was done, but") && held.stdout.contains("holds acme"), "{held:?}");
    assert_eq!(fixture.admin().number("SELECT count() FROM legal_holds FINAL WHERE is_active"), 1);
}
