//! Migrations and roles on the real server.

use auditstream_integration_tests::{Fixture, Options, block_on};
use auditstream_stack::Role;

#[test]
fn migrations_are_idempotent_and_may_run_at_once() {
    let fixture = Fixture::new(Options::light("migrate").bare());
    std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..4).map(|_| scope.spawn(|| fixture.run(fixture.admin_command(&["migrate"]), b""))).collect();
        for run in runs {
            run.join().unwrap().success();
        }
    });
    block_on(fixture.store(Role::Ingest).check_tables()).unwrap();
    let tables = "SELECT arrayStringConcat(groupArray(create_table_query), '\\n') FROM (SELECT * FROM system.tables WHERE database = currentDatabase() ORDER BY name)";
    let before = fixture.admin().text(tables);
    assert!(before.contains("ReplacingMergeTree(version)"), "{before}");
    fixture.run(fixture.admin_command(&["migrate"]), b"").success();
    assert_eq!(fixture.admin().text(tables), before, "a second run changed the tables");
}

#[test]
fn a_changed_or_newer_migration_is_refused() {
    let fixture = Fixture::new(Options::light("checksum"));
    let refused = |text: &str| {
        let output = fixture.run(fixture.admin_command(&["migrate"]), b"");
        assert_eq!(output.code(), Some(1), "{output:?}");
        assert!(output.stderr.contains(text), "it must say `{text}`: {output:?}");
    };
    fixture.admin().run("INSERT INTO schema_migrations (version, name, checksum) VALUES (999, 'from the future', '')");
    refused("the database is at migration 999");
    fixture.admin().run("ALTER TABLE schema_migrations DELETE WHERE version = 999 SETTINGS mutations_sync = 1");
    fixture
        .admin()
        .run("ALTER TABLE schema_migrations UPDATE checksum = 'other' WHERE version = 1 SETTINGS mutations_sync = 1");
    refused("migration 1 (tables) was changed after it had been applied");
}

#[test]
fn an_analyst_reads_without_duplicates_and_does_nothing_else() {
    let fixture = Fixture::new(Options::light("analyst"));
    let (admin, analyst) = (fixture.admin(), fixture.clickhouse(Role::Analyst));
    fixture.stop_merges();
    for value in ["first", "second"] {
        let version = if value == "first" { 2 } else { 1 };
        admin.run(&format!(
            "INSERT INTO events (tenant_id, entity_id, version, details) VALUES ('t', 'e', {version}, '{value}')"
        ));
    }
    assert_eq!(fixture.raw_rows(), 2, "two rows without FINAL");
    assert_eq!(
        analyst.text("SELECT details FROM events"),
        "first",
        "one row, the first write, without asking for FINAL"
    );
    assert_eq!(analyst.text("SELECT count() FROM ledger"), "0");
    let refused = [
        "INSERT INTO events (tenant_id) VALUES ('x')",
        "SELECT count() FROM events SETTINGS final = 0",
        "ALTER TABLE events DELETE WHERE 1",
        "DELETE FROM events WHERE 1",
        "TRUNCATE TABLE events",
        "DROP TABLE events",
        "CREATE TABLE t (x Int8) ENGINE = Memory",
        "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
        "SELECT * FROM file('/etc/passwd', LineAsString)",
        "SELECT * FROM remote('127.0.0.1', system.one)",
        "SYSTEM STOP MERGES events",
        "KILL QUERY WHERE 1",
    ];
    check_refused(&fixture, Role::Analyst, &refused);
    assert_eq!(fixture.raw_rows(), 2, "rows after the refused statements");
}

#[test]
fn the_role_of_workers_inserts_and_reads_positions_only() {
    let fixture = Fixture::new(Options::light("ingest"));
    let ingest = fixture.clickhouse(Role::Ingest);
    ingest.run("INSERT INTO events (tenant_id) VALUES ('x')");
    assert_eq!(ingest.text("SELECT _offset FROM events"), "0", "positions are the worker's business");
    let refused = [
        "SELECT tenant_id FROM events",
        "SELECT details FROM events",
        "SELECT * FROM schema_migrations",
        "SYSTEM STOP MERGES events",
        "SELECT value FROM dead_letters",
        "ALTER TABLE events DELETE WHERE 1",
        "DELETE FROM events WHERE 1",
        "ALTER TABLE events DROP COLUMN ip",
        "TRUNCATE TABLE events",
        "DROP TABLE events",
        "DROP TABLE schema_migrations",
        "CREATE TABLE t (x Int8) ENGINE = Memory",
        "CREATE DATABASE audit_other",
        "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
        "SELECT * FROM file('/etc/passwd', LineAsString)",
    ];
    check_refused(&fixture, Role::Ingest, &refused);
    assert_eq!(fixture.raw_rows(), 1, "rows after the refused statements");
}

/// ClickHouse refuses each statement for want of rights (497), or because the profile is read-only (164).
fn check_refused(fixture: &Fixture, role: Role, statements: &[&str]) {
    let clickhouse = fixture.clickhouse(role);
    for sql in statements {
        match clickhouse.try_text(sql) {
            Ok(answer) => panic!("{} may `{sql}`: {answer}", role.name()),
            Err(refusal) => {
                assert!(
                    refusal.contains("Code: 497") || refusal.contains("Code: 164"),
                    "{} and `{sql}`: refused for another reason: {refusal}",
                    role.name()
                );
            }
        }
    }
}
