//! Migrations while workers insert, and migrations that fail.

use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options, block_on, wait_until};
use auditstream_stack::Role;
use auditstream_store::{MIGRATIONS, MigrateError, MigrateOptions, Migration, MigrationState};

const PATIENCE: Duration = Duration::from_secs(90);

/// The released migrations, and behind them some of a version to come.
fn with(later: &[(&'static str, &'static str)]) -> &'static [Migration] {
    let next = MIGRATIONS.len() as u32 + 1;
    let later = later.iter().copied().zip(next..).map(|((name, sql), version)| Migration { version, name, sql });
    Vec::leak(MIGRATIONS.iter().copied().chain(later).collect())
}

fn options() -> MigrateOptions {
    MigrateOptions { roles: false, ..MigrateOptions::default() }
}

#[test]
fn a_table_changes_under_load_and_nothing_is_lost_or_doubled() {
    let fixture = Fixture::new(Options::heavy("migrate-load"));
    let store = fixture.store(Role::Admin);
    let _workers = [fixture.worker(), fixture.worker()];
    let load = fixture.load(3_000, Some(500));
    let stored = || fixture.admin().number("SELECT count() FROM events");
    let mut migrations = Vec::new();
    for step in [
        (
            "note",
            "ALTER TABLE {database}.events\n    ADD COLUMN IF NOT EXISTS note String DEFAULT 'none' COMMENT 'Of a later version' CODEC(ZSTD(1)) AFTER details;\n",
        ),
        (
            "note_index",
            "ALTER TABLE {database}.events\n    ADD INDEX IF NOT EXISTS by_note note TYPE bloom_filter(0.01) GRANULARITY 1;\n\
             ALTER TABLE {database}.events MATERIALIZE INDEX IF EXISTS by_note;\n",
        ),
        (
            "by_action",
            "ALTER TABLE {database}.events MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';\n\
             ALTER TABLE {database}.events\n    ADD PROJECTION IF NOT EXISTS by_action (SELECT action, count() GROUP BY action);\n\
             ALTER TABLE {database}.events MATERIALIZE PROJECTION IF EXISTS by_action;\n",
        ),
    ] {
        // Between two changes the workers insert under the one before.
        let before = stored();
        wait_until("more rows to land", PATIENCE, || {
            if stored() > before + 1_000 { Ok(()) } else { Err(stored().to_string()) }
        });
        migrations.push(step);
        let report = block_on(store.migrate_with(with(&migrations), &options())).unwrap();
        assert_eq!(report.applied.len(), 1, "{report:?}");
    }
    let before = stored();
    wait_until("rows to land in the new table", PATIENCE, || {
        if stored() > before + 1_000 { Ok(()) } else { Err(stored().to_string()) }
    });
    load.finish();
    fixture.wait_landed(PATIENCE);
    let verdict = fixture.verdict();
    verdict.assert_clean(verdict.events, verdict.dead_letters);
    assert!(verdict.rows > 4_000 && verdict.dead_letters > 5, "{verdict}");
    // The mutations of the two MATERIALIZE end, and what they made is whole.
    let open = "SELECT count() FROM system.mutations WHERE database = currentDatabase() AND NOT is_done";
    wait_until("the mutations", PATIENCE, || match fixture.admin().number(open) {
        0 => Ok(()),
        open => Err(format!("{open} are open")),
    });
    assert_eq!(fixture.admin().number("SELECT count() FROM events FINAL WHERE note = 'none'"), verdict.rows);
    let of_projection = "SELECT sum(n) FROM (SELECT action, count() AS n FROM events GROUP BY action SETTINGS force_optimize_projection = 1)";
    assert_eq!(
        fixture.admin().number(of_projection),
        fixture.admin().number("SELECT sum(1) FROM (SELECT tenant_id FROM events)")
    );
}

#[test]
fn a_failed_migration_says_where_it_stands_and_can_be_run_again() {
    let fixture = Fixture::new(Options::light("migrate-fails"));
    let store = fixture.store(Role::Admin);
    let version = MIGRATIONS.len() as u32 + 1;
    let column = (
        "half",
        "ALTER TABLE {database}.events\n    ADD COLUMN IF NOT EXISTS first_half UInt8;\n\
                           ALTER TABLE {database}.not_there_yet\n    ADD COLUMN IF NOT EXISTS second_half UInt8;\n\
                           ALTER TABLE {database}.events\n    ADD COLUMN IF NOT EXISTS third UInt8;\n",
    );
    let migrations = with(&[column]);
    let error = block_on(store.migrate_with(migrations, &options())).unwrap_err();
    assert!(matches!(error, MigrateError::Statement { statement: 2, .. }), "{error:?}");
    assert!(
        error.to_string().starts_with(&format!("migration {version} (half) is not applied: its statement 2 failed")),
        "{error}"
    );
    let columns = || {
        fixture.admin().text(
            "SELECT name FROM system.columns WHERE database = currentDatabase() AND name IN ('first_half', 'third')",
        )
    };
    assert_eq!(columns(), "first_half", "the first statement is done, the third was not begun");
    assert_eq!(fixture.admin().number(&format!("SELECT count() FROM schema_migrations WHERE version = {version}")), 0);
    let recorded = fixture
        .admin()
        .text("SELECT version, name, statement, error LIKE '%not_there_yet%' FROM schema_migration_failures");
    assert_eq!(recorded, format!("{version}\thalf\t2\t1"));
    // Nobody is locked out, and the worker of this version goes on.
    fixture.run(fixture.admin_command(&["migrate"]), b"").success();
    block_on(store.check_tables()).unwrap();

    fixture.admin().run("CREATE TABLE not_there_yet (x Int8) ENGINE = Memory");
    let report = block_on(store.migrate_with(migrations, &options())).unwrap();
    assert_eq!(report.applied, [(version, "half")]);
    assert_eq!(columns(), "first_half\nthird");
    assert!(block_on(store.migrate_with(migrations, &options())).unwrap().applied.is_empty());
}

#[test]
fn the_status_of_migrations_is_shown() {
    let fixture = Fixture::new(Options::light("migrate-status").bare());
    let status = || fixture.run(fixture.admin_command(&["migrate", "--status"]), b"");
    let lines =
        |text: &str| text.lines().map(|line| line.split_whitespace().nth(2).unwrap().to_owned()).collect::<Vec<_>>();
    let fresh = status().success();
    assert_eq!(lines(&fresh.stdout), vec!["pending"; MIGRATIONS.len()], "{fresh:?}");
    // A table of that name that is no MergeTree: the first ALTER on it fails.
    fixture.admin().try_text(&format!("CREATE DATABASE {}", fixture.database())).ok();
    let store = fixture.store(Role::Admin);
    block_on(store.migrate_with(&MIGRATIONS[..1], &options())).unwrap();
    fixture.admin().run("RENAME TABLE dead_letters TO hidden");
    let failed = fixture.run(fixture.admin_command(&["migrate"]), b"");
    assert_eq!(failed.code(), Some(1), "{failed:?}");
    let half = status();
    assert_eq!(half.code(), Some(1), "{half:?}");
    assert!(
        half.stdout.contains("dead_letter_details      failed   ") && half.stdout.contains(", statement 1\n"),
        "{half:?}"
    );
    assert!(
        block_on(store.migration_states())
            .unwrap()
            .iter()
            .any(|it| matches!(it.state, MigrationState::Failed { statement: 1, .. }))
    );
    fixture.admin().run("RENAME TABLE hidden TO dead_letters");
    fixture.run(fixture.admin_command(&["migrate"]), b"").success();
    let whole = status().success();
    assert_eq!(lines(&whole.stdout), vec!["applied"; MIGRATIONS.len()], "{whole:?}");
}
