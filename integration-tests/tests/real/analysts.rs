//! What analysts see and what they are refused: accounts as `auditstream analyst add` makes them, on the real server.

use auditstream_integration_tests::{ClickHouse, Fixture, Options};

const PASSWORD: &str = "correct horse battery";

/// An account's element of a users file, as the command prints it.
fn account(fixture: &Fixture, name: &str, tenants: &[&str]) -> String {
    let mut args = vec!["analyst", "add", name, "--users-file", "--password-file", "-"];
    for tenant in tenants {
        args.extend(["--tenant", *tenant]);
    }
    let printed = fixture.run(fixture.command(&args), PASSWORD.as_bytes()).success();
    assert!(!printed.stdout.contains("horse") && !printed.stderr.contains("horse"), "{printed:?}");
    let (_, rest) = printed.stdout.split_once("<users>\n").unwrap();
    rest.split_once("    </users>").unwrap().0.to_owned()
}

fn login(fixture: &Fixture, name: &str) -> ClickHouse {
    ClickHouse::new(fixture.stack().clickhouse_url(), fixture.database(), name, PASSWORD)
}

/// Rows of three tenants, one of them named so that its records' keys begin like another's, each twice and not merged; what B has is newer and older.
fn fill(fixture: &Fixture) {
    let admin = fixture.admin();
    // Whatever an administrator may build on the table: an analyst must not see more through it.
    admin.run("ALTER TABLE events MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild'");
    admin.run("ALTER TABLE events ADD PROJECTION by_action (SELECT action, count() GROUP BY action)");
    // Only now: a table without merges has no mutations either.
    fixture.stop_merges();
    for (tenant, rows, time) in [("a", 3_000, "2026-05-01"), ("b", 5_000, "2026-09-01"), ("a/x", 7, "2020-01-01")] {
        for _ in 0..2 {
            admin.run(&format!(
                "INSERT INTO events (tenant_id, entity_type, entity_id, occurred_at, event_id, version, action, details) \
                 SETTINGS insert_deduplicate = 0 SELECT '{tenant}', 'order', toString(number), toDateTime64('{time}', 6, 'UTC'), \
                 reinterpretAsUUID(sipHash128('{tenant}', number)), 1, 'order.update', 'of {tenant}' FROM numbers({rows})"
            ));
        }
        let key = tenant.replace('/', "%2F");
        admin.run(&format!(
            "INSERT INTO dead_letters (topic, partition, offset, key, value) VALUES ('t', 0, {rows}, '{key}/order/1', 'of {tenant}')"
        ));
    }
    admin.run("INSERT INTO dead_letters (topic, partition, offset, key, value) VALUES ('t', 0, 1, '', 'of nobody')");
    admin.run("INSERT INTO ledger (topic, partition, first_offset, last_offset, rows) VALUES ('t', 0, 0, 9, 10)");
}

/// Each asks for a count of rows; `{database}` is the database.
const COUNTS: &[&str] = &[
    "SELECT count() FROM events",
    "SELECT count() FROM (SELECT * FROM events)",
    "SELECT sum(n) FROM (SELECT action, count() AS n FROM events GROUP BY action)",
    "SELECT count() FROM merge(currentDatabase(), '^events$')",
    "SELECT count() FROM events AS x WHERE event_id IN (SELECT event_id FROM events)",
    "SELECT count() FROM events AS x JOIN events AS y ON x.event_id = y.event_id",
    "SELECT count() FROM (SELECT event_id FROM events UNION ALL SELECT event_id FROM events WHERE 0)",
    "SELECT count() FROM view(SELECT * FROM events)",
    "WITH e AS (SELECT * FROM events) SELECT count() FROM e",
    "SELECT toUInt64(sum(1 / (tenant_id NOT IN ('b', 'a/x')))) FROM events",
    "SELECT count() FROM events WHERE NOT throwIf(tenant_id IN ('b', 'a/x'))",
    "SELECT count() FROM events PREWHERE NOT throwIf(tenant_id IN ('b', 'a/x'))",
];

/// Each answers `0`, or nothing, to whoever is not B.
const NOTHING_OF_B: &[&str] = &[
    "SELECT count() FROM events WHERE tenant_id = 'b'",
    "SELECT count() FROM events WHERE details LIKE '%b%'",
    "SELECT count() FROM events WHERE tenant_id != 'a'",
    "SELECT count() FROM dead_letters WHERE value != 'of a'",
    "SELECT count() FROM ledger",
    "SELECT DISTINCT tenant_id FROM events WHERE tenant_id != 'a'",
    "SELECT max(occurred_at) > '2026-06-01' FROM events",
    "SELECT ifNull(min(occurred_at), now()) < '2026-01-01' FROM events WHERE occurred_at > 0",
    "SELECT uniqExact(_partition_id) > 1 FROM events",
    "SELECT count() FROM mergeTreeIndex(currentDatabase(), 'events')",
    "SELECT count() FROM mergeTreeIndex(currentDatabase(), 'events', with_marks = true)",
    "SELECT count() FROM mergeTreeAnalyzeIndexes(currentDatabase(), 'events')",
    "SELECT count() FROM mergeTreeProjection(currentDatabase(), 'events', 'by_action')",
];

#[test]
fn an_analyst_sees_the_rows_of_their_tenants_and_no_others() {
    let fixture = Fixture::new(Options::heavy("tenants"));
    fill(&fixture);
    let accounts = account(&fixture, "jo_a", &["a"])
        + &account(&fixture, "jo_ab", &["a", "b"])
        + &account(&fixture, "jo_x", &["a/x"])
        + &account(&fixture, "jo_none", &["nobody"])
        // What ClickHouse makes of the policies that the SQL gives: `audit_nothing` alone, and with a tenant's.
        + &account(&fixture, "jo_sql", &["a"]).replace("<filter>tenant_id", "<filter>0 OR tenant_id")
        + &account(&fixture, "jo_only_nothing", &["a"]).replace("<filter>tenant_id = 'a'<", "<filter>0<");
    let users = fixture.users();
    users.set(|users| {
        let end = users.rfind("</users>").unwrap();
        format!("{}{accounts}{}", &users[..end], &users[end..])
    });
    for (name, rows, letters) in [
        ("jo_a", 3_000, 1),
        ("jo_ab", 8_000, 2),
        ("jo_x", 7, 1),
        ("jo_none", 0, 0),
        ("jo_sql", 3_000, 1),
        ("jo_only_nothing", 0, 1),
    ] {
        let analyst = login(&fixture, name);
        // The last three speak of B and of the tenant with the slash.
        let counts = if rows <= 3_000 && name != "jo_x" { COUNTS } else { &COUNTS[..COUNTS.len() - 3] };
        for sql in counts {
            assert_eq!(analyst.number(sql), rows, "{name}: {sql}");
        }
        assert_eq!(analyst.number("SELECT count() FROM dead_letters"), letters, "{name}");
        assert_eq!(analyst.number("SELECT count() FROM ledger"), 0, "{name}: a batch is of all tenants");
    }
    let a = login(&fixture, "jo_a");
    for sql in NOTHING_OF_B {
        let answer = a.text(sql);
        assert!(answer.is_empty() || answer == "0", "{sql} answered {answer}");
    }
    // Every function of this server that reads a table's parts is among those that are guarded.
    let readers = fixture.admin().text("SELECT name FROM system.table_functions WHERE startsWith(name, 'mergeTree')");
    for reader in readers.lines() {
        assert!(auditstream_store::KEY_READERS.contains(&reader), "{reader} is not in KEY_READERS");
    }
    refused(&fixture, &a);
    drop(users);
}

/// What nobody who reads may do, and for what reasons the server refuses: no right (497), read-only (164); 46: it has no such function; others say so.
const FORBIDDEN: &[&str] = &[
    // Reaching out.
    "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
    "SELECT * FROM urlCluster('c', 'http://127.0.0.1:1/', CSV, 'x Int8')",
    "SELECT * FROM file('/etc/passwd', LineAsString)",
    "SELECT * FROM fileCluster('c', '/etc/passwd', LineAsString)",
    "SELECT * FROM filesystem('/etc')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM remoteSecure('127.0.0.1', system.one)",
    "SELECT * FROM remote('127.0.0.1', currentDatabase(), events, 'audit_admin', 'x')",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM clusterAllReplicas('default', system.one)",
    "SELECT * FROM s3('http://127.0.0.1:1/bucket/key', CSV, 'x Int8')",
    "SELECT * FROM gcs('http://127.0.0.1:1/bucket/key', CSV, 'x Int8')",
    "SELECT * FROM iceberg('http://127.0.0.1:1/bucket/key')",
    "SELECT * FROM deltaLake('http://127.0.0.1:1/bucket/key')",
    "SELECT * FROM hudi('http://127.0.0.1:1/bucket/key')",
    "SELECT * FROM azureBlobStorage('x', 'y', 'z')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1:1/x', CSV, 'x Int8')",
    "SELECT * FROM executable('x', TSV, 'x Int8')",
    "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM mongodb('127.0.0.1:1', 'd', 't', 'u', 'p', 'x Int8')",
    "SELECT * FROM redis('127.0.0.1:1', 'k', 'k String')",
    "SELECT * FROM sqlite('/x', 't')",
    "SELECT * FROM jdbc('x', 't')",
    "SELECT * FROM odbc('DSN=x', 't')",
    "SELECT * FROM arrowFlight('127.0.0.1:1', 'x')",
    "SELECT * FROM input('x Int8')",
    "SELECT * FROM dictionary('d')",
    "SELECT * FROM loop(events)",
    "SELECT * FROM events INTO OUTFILE '/tmp/x'",
    "BACKUP TABLE events TO Disk('d', 'x')",
    // The server and other people.
    "SELECT * FROM system.parts",
    "SELECT * FROM system.parts_columns",
    "SELECT * FROM system.detached_parts",
    "SELECT * FROM system.merges",
    "SELECT * FROM system.mutations",
    "SELECT * FROM system.projections",
    "SELECT * FROM system.projection_parts",
    "SELECT * FROM system.processes",
    "SELECT * FROM system.query_cache",
    "SELECT * FROM system.users",
    "SELECT * FROM system.roles",
    "SELECT * FROM system.grants",
    "SELECT * FROM system.role_grants",
    "SELECT * FROM system.row_policies",
    "SELECT * FROM system.settings_profiles",
    "SELECT * FROM system.server_settings",
    "SELECT * FROM system.clusters",
    "SELECT * FROM system.disks",
    "SELECT * FROM system.errors",
    "SELECT * FROM schema_migrations",
    "SELECT * FROM legal_holds",
    "SELECT * FROM retention_policies",
    "SHOW USERS",
    "SHOW ACCESS",
    "SHOW PROCESSLIST",
    "KILL QUERY WHERE 1",
    // Its own bounds.
    "SET readonly = 0",
    "SET final = 0",
    "SET max_execution_time = 0",
    "SELECT count() FROM events SETTINGS final = 0",
    "SELECT 1 SETTINGS max_memory_usage = 0",
    "SELECT 1 SETTINGS use_query_cache = 1",
    "SELECT 1 SETTINGS max_result_rows = 0",
    "EXECUTE AS audit_admin SELECT 1",
    "SET ROLE audit_admin",
    // Changing.
    "INSERT INTO events (tenant_id) VALUES ('a')",
    "INSERT INTO ledger (topic) VALUES ('a')",
    "INSERT INTO FUNCTION null('x Int8') SELECT 1",
    "ALTER TABLE events DELETE WHERE 1",
    "ALTER TABLE events UPDATE details = '' WHERE 1",
    "ALTER TABLE events ADD COLUMN x Int8",
    "ALTER TABLE events DROP PARTITION ID '202605'",
    "ALTER TABLE events DROP PROJECTION by_action",
    "DELETE FROM events WHERE 1",
    "TRUNCATE TABLE events",
    "DROP TABLE events",
    "DETACH TABLE events",
    "RENAME TABLE events TO mine",
    "EXCHANGE TABLES events AND ledger",
    "OPTIMIZE TABLE events FINAL",
    "CHECK TABLE events",
    "CREATE TABLE mine (x Int8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE mine (x Int8)",
    "CREATE VIEW mine AS SELECT * FROM events",
    "CREATE DATABASE mine",
    "CREATE FUNCTION mine AS x -> x",
    "CREATE DICTIONARY mine (x UInt64) PRIMARY KEY x SOURCE(CLICKHOUSE(TABLE 'events')) LAYOUT(FLAT()) LIFETIME(0)",
    "CREATE USER mine",
    "CREATE ROLE mine",
    "CREATE ROW POLICY mine ON events USING 1 TO jo_a",
    "DROP ROW POLICY audit_nothing ON events",
    "GRANT SELECT ON *.* TO jo_a",
    "SYSTEM STOP MERGES events",
    "SYSTEM FLUSH LOGS",
    "SYSTEM SHUTDOWN",
    // Reading about the host.
    "SELECT addressToLine(1)",
];

fn refused(fixture: &Fixture, analyst: &ClickHouse) {
    let before = fixture.admin().text("SELECT count(), sum(sipHash64(*)) FROM events");
    for sql in FORBIDDEN {
        match analyst.try_text(sql) {
            Ok(answer) => panic!("an analyst may `{sql}`: {answer}"),
            Err(refusal) => {
                // 497 no right, 164 read-only, 46 no such function here, 358 no file of the server's, 477 input() without an insert, 344 switched off,
                // 511 and 512 no such role, or not granted, 701 no such cluster (this server is in none).
                let expected = [497, 164, 46, 358, 477, 344, 511, 512, 701];
                assert!(
                    expected.iter().any(|code| refusal.contains(&format!("Code: {code}."))),
                    "`{sql}`: refused for another reason: {refusal}"
                );
            }
        }
    }
    assert_eq!(
        fixture.admin().text("SELECT count(), sum(sipHash64(*)) FROM events"),
        before,
        "rows after the refusals"
    );
    let refusal = analyst.try_text("SELECT number FROM numbers(1000001)").unwrap_err();
    assert!(refusal.contains("Code: 396."), "more rows than may be answered: {refusal}");
    for (bound, value) in [
        ("readonly", "1"),
        ("max_execution_time", "60"),
        ("max_memory_usage", "4000000000"),
        ("max_rows_to_read", "300000000000"),
        ("max_bytes_to_read", "1000000000000"),
        ("max_result_bytes", "1000000000"),
    ] {
        assert_eq!(analyst.text(&format!("SELECT getSetting('{bound}')")), value, "{bound}");
    }
}

/// Servers that keep users made by SQL get these statements. This one keeps none, but reads them, each as one statement of its own grammar.
#[test]
fn clickhouse_understands_the_sql_of_roles_and_accounts() {
    let fixture = Fixture::new(Options::light("roles-sql"));
    let jo = |more: &[&str]| {
        let args =
            [&["analyst", "add", "jo", "--tenant", "it's, a `tenant`\\", "--password-file", "-", "--print"], more]
                .concat();
        fixture.run(fixture.command(&args), PASSWORD.as_bytes()).success().stdout
    };
    let golden =
        |file: &str| std::fs::read_to_string(format!("{}/../store/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let text = [
        golden("roles/roles.sql"),
        golden("roles/roles-cluster.sql"),
        golden("migrations/cluster.golden.sql"),
        jo(&[]),
        jo(&["--cluster", "main"]),
    ]
    .concat();
    assert!(!text.contains("horse"), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("--")).collect();
    let joined = lines.join("\n") + "\n";
    let mut count = 0;
    for sql in joined.split(";\n").map(str::trim).filter(|sql| !sql.is_empty()) {
        let literal = sql.replace('\\', "\\\\").replace('\'', "\\'");
        let parsed = fixture.admin().try_text(&format!("SELECT formatQuery('{literal}')"));
        assert!(parsed.is_ok(), "`{sql}` is not understood: {parsed:?}");
        count += 1;
    }
    assert!(count > 40, "{count} statements");
    // This server says where its users come from.
    let refused = fixture.run(
        fixture.admin_command(&["analyst", "add", "jo", "--tenant", "a", "--password-file", "-"]),
        PASSWORD.as_bytes(),
    );
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("takes its users from a file: see `--users-file`"), "{refused:?}");
    assert!(!refused.stderr.contains("horse"), "{refused:?}");
    let listed = fixture.run(fixture.admin_command(&["analyst", "list"]), b"").success();
    assert!(listed.stdout.contains("no analysts were made by SQL"), "{listed:?}");
    let removed = fixture.run(fixture.admin_command(&["analyst", "remove", "audit_ingest"]), b"");
    assert_eq!(removed.code(), Some(1), "{removed:?}");
    assert!(
        removed.stderr.contains("audit_ingest is no analyst that was made by SQL; nothing was done"),
        "{removed:?}"
    );
}

#[test]
fn a_new_password_is_in_its_file_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new(Options::light("new-password"));
    let file = fixture.folder().join("jo.password");
    let add = || {
        let args = ["analyst", "add", "jo", "--tenant", "a", "--print", "--new-password-file", file.to_str().unwrap()];
        fixture.cli(&args)
    };
    let printed = add().success();
    let password = std::fs::read_to_string(&file).unwrap();
    assert_eq!(password.trim().len(), 40, "{password}");
    assert!(!printed.stdout.contains(password.trim()) && !printed.stderr.contains(password.trim()));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = add();
    assert_eq!(again.code(), Some(1), "a file that is there is not overwritten: {again:?}");
    let short = fixture.run(
        fixture.command(&["analyst", "add", "jo", "--tenant", "a", "--print", "--password-file", "-"]),
        b"short\n",
    );
    assert_eq!(short.code(), Some(1), "{short:?}");
    assert!(short.stderr.contains("at least 12 characters"), "{short:?}");
}
