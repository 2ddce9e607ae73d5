//! Partitions out to files, dropped, and back again, row for row.

use std::path::PathBuf;

use auditstream_integration_tests::{CliOutput, Fixture, Options, block_on};
use auditstream_stack::Role;
use auditstream_store::Fingerprint;

/// Two partitions of rows with every kind of value in them, some there twice and not merged.
pub(crate) fn fill(fixture: &Fixture) {
    fixture.stop_merges();
    let admin = fixture.admin();
    for _ in 0..2 {
        admin.run(
            "INSERT INTO events (tenant_id, entity_type, entity_id, occurred_at, event_id, content_hash, version, received_at, \
             `changes.path`, `changes.old`, `changes.new`, details, producer_epoch, _offset) SETTINGS insert_deduplicate = 0 \
             SELECT ['acme', 'globex', 'é ''\\\\ 🦀'][number % 3 + 1], 'order', toString(number), \
             toDateTime64('2026-03-01 00:00:00', 6, 'UTC') + toIntervalMicrosecond(number * 654321987), \
             reinterpretAsUUID(sipHash128(number)), sipHash128(number, 1), 18446744073709551615 - number, \
             toDateTime64('2026-03-01 00:00:00.123', 3, 'UTC') + number, \
             arrayMap(x -> '/' || toString(x), range(number % 4)), arrayMap(x -> '', range(number % 4)), arrayMap(x -> '\"é\\0\"', range(number % 4)), \
             '{\"n\":' || toString(number) || '}', -number, number FROM numbers(2000)",
        );
    }
    admin.run("INSERT INTO events (tenant_id, occurred_at, received_at) VALUES ('acme', '1900-01-01 00:00:00.000001', '2026-03-01'), ('acme', '2299-12-31 23:59:59.999999', '2026-03-01')");
}

pub(crate) fn table(fixture: &Fixture) -> String {
    fixture.admin().text(
        "SELECT count(), sum(reinterpretAsUInt128(sipHash128(*))) FROM events FINAL WHERE tenant_id != 'auditstream'",
    )
}

/// Ids of the partitions of March: one or many, as the table is divided.
fn march(fixture: &Fixture) -> Vec<String> {
    let ids = fixture
        .admin()
        .text("SELECT DISTINCT _partition_id FROM events WHERE toYYYYMM(occurred_at) = 202603 ORDER BY 1");
    ids.lines().map(str::to_owned).collect()
}

/// The sum of what stands before ` rows` in the lines about March.
pub(crate) fn rows(output: &CliOutput) -> u64 {
    let of_line = |line: &str| -> u64 {
        let words = line.split_once(": ").unwrap().1;
        words.split(' ').next().unwrap().replace(',', "").parse().unwrap()
    };
    output.stdout.lines().filter(|line| line.starts_with("202603")).map(of_line).sum()
}

struct World {
    fixture: Fixture,
    to: PathBuf,
}

impl World {
    fn new(name: &'static str) -> Self {
        let fixture = Fixture::new(Options::light(name));
        fill(&fixture);
        let to = fixture.folder().join("archive");
        std::fs::create_dir(&to).unwrap();
        Self { fixture, to }
    }

    fn archive(&self, more: &[&str]) -> CliOutput {
        let args = [&["archive", "--to", self.to.to_str().unwrap(), "--file-rows", "100"], more].concat();
        self.fixture.run(self.fixture.admin_command(&args), b"")
    }

    fn restore(&self, more: &[&str]) -> CliOutput {
        let folders: Vec<_> = self.folders().iter().map(|folder| folder.to_str().unwrap().to_owned()).collect();
        let folders: Vec<_> = folders.iter().map(String::as_str).collect();
        self.fixture.run(self.fixture.admin_command(&[&["restore"], more, &folders].concat()), b"")
    }

    fn folders(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> = std::fs::read_dir(&self.to).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    }

    /// Tables that were made on the way.
    fn traces(&self) -> u64 {
        self.fixture.admin().number(
            "SELECT count() FROM system.tables WHERE database = currentDatabase() AND startsWith(name, 'archive_')",
        )
    }
}

#[test]
fn a_partition_leaves_and_comes_back_row_for_row() {
    let world = World::new("archive");
    let before = table(&world.fixture);
    let partitions = march(&world.fixture).len();
    let dry = world.archive(&["--before", "2300-01", "--dry-run", "--drop"]).success();
    assert!(dry.stdout.contains("nothing was written") && dry.stdout.contains("190001"), "{dry:?}");
    assert_eq!(world.folders().len(), 0);

    let archived = world.archive(&["--before", "2300-01"]).success();
    assert_eq!(archived.stdout.matches("rows archived and verified").count(), partitions + 2, "{archived:?}");
    assert_eq!(rows(&archived), 2_000, "duplicates are archived once: {archived:?}");
    let again = world.archive(&["--before", "2300-01"]).success();
    assert_eq!(again.stdout.matches("were archived before").count(), partitions + 2, "{again:?}");
    assert_eq!(world.folders().len(), partitions + 2);
    let files: usize = world.folders().iter().map(|folder| std::fs::read_dir(folder).unwrap().count() - 1).sum();
    assert!(files > 30, "{files}: a file for each day, more for days of many rows");
    assert_eq!(table(&world.fixture), before, "archiving changes nothing");

    // A late event: what is archived is no longer all of it.
    world.fixture.admin().run(
        "INSERT INTO events (tenant_id, entity_id, occurred_at, received_at) VALUES ('acme', 'late', '2026-03-09', '2026-03-09')",
    );
    let with_late = table(&world.fixture);
    let dropped = world.archive(&["--month", "2026-03", "--drop", "--yes"]).success();
    assert_eq!((rows(&dropped), dropped.stdout.matches("; dropped").count()), (2_001, partitions), "{dropped:?}");
    assert_eq!(march(&world.fixture).len(), 0);
    assert_eq!(world.folders().len(), partitions + 3, "the first archive stays beside the second");

    let dry = world.restore(&["--dry-run"]).success();
    assert!(dry.stdout.contains("1 rows are whole, 0 of them missing"), "{dry:?}");
    assert_eq!(dry.stdout.matches(" 0 of them missing").count(), 2, "all of March is missing: {dry:?}");
    world.restore(&[]).success();
    assert_eq!(table(&world.fixture), with_late, "every column of every row is as it was");
    let raw = world.fixture.raw_rows();
    let again = world.restore(&[]).success();
    assert_eq!(again.stdout.matches(": 0 of").count(), partitions + 3, "{again:?}");
    assert_eq!(world.fixture.raw_rows(), raw, "what is there is not inserted again");
    assert_eq!(world.traces(), 0, "no table is left behind");
}

#[test]
fn what_was_tampered_with_is_not_restored_and_what_is_held_is_not_dropped() {
    let world = World::new("archive-refuses");
    let before = table(&world.fixture);
    let fixture = &world.fixture;
    fixture.run(fixture.admin_command(&["hold", "add", "--tenant", "globex", "--reason", "case"]), b"").success();
    let held = world.archive(&["--month", "2026-03", "--drop", "--yes"]);
    assert_eq!(held.code(), Some(1), "{held:?}");
    assert!(held.stderr.contains("rows under a legal hold"), "{held:?}");
    assert_eq!(world.folders().len(), 0, "it says so before it writes");
    world.archive(&["--month", "2026-03"]).success();
    assert_eq!(table(fixture), before);

    // Rows that would be deleted again at once.
    let store = fixture.store(Role::Admin);
    let retention = auditstream_store::Retention { default_days: 1, ..auditstream_store::Retention::default() };
    for partition in march(fixture) {
        fixture.admin().run(&format!("ALTER TABLE events DROP PARTITION ID '{partition}'"));
    }
    // A table without merges has no mutations either, and the rules come by one.
    fixture.admin().run(&format!("SYSTEM START MERGES {}.events", fixture.database()));
    block_on(store.apply_retention(&retention, "test")).unwrap();
    let past = world.restore(&[]);
    assert_eq!(past.code(), Some(1), "{past:?}");
    assert!(past.stderr.contains("are past the retention that is applied"), "{past:?}");
    assert_eq!(march(fixture).len(), 0, "nothing went in");
    block_on(store.apply_retention(&auditstream_store::Retention::default(), "test")).unwrap();

    let files = world.folders().into_iter().map(|folder| folder.join("2026-03-05-000.parquet"));
    let file = files.into_iter().find(|file| file.exists()).unwrap();
    let whole = std::fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    for args in [&[][..], &["--dry-run"]] {
        let refused = world.restore(args);
        assert_eq!(refused.code(), Some(1), "{refused:?}");
        assert!(refused.stderr.contains("its SHA-256 is another"), "{refused:?}");
    }
    let of_day = "SELECT count() FROM events WHERE toDate(occurred_at) = '2026-03-05'";
    assert_eq!(fixture.admin().number(of_day), 0, "nothing of the damaged archive went in");
    // Nor does it pass for an archive of the partition as it is.
    std::fs::write(&file, &whole).unwrap();
    world.restore(&[]).success();
    assert!(fixture.admin().number(of_day) > 0);
    std::fs::write(&file, &bytes).unwrap();
    let relied = world.archive(&["--month", "2026-03"]);
    assert_eq!(relied.code(), Some(1), "{relied:?}");
    assert!(relied.stderr.contains("its SHA-256 is another"), "{relied:?}");
    assert_eq!(world.traces(), 0);
}

#[test]
fn a_partition_that_changed_is_not_dropped_and_one_set_aside_comes_back() {
    let world = World::new("archive-aside");
    let fixture = &world.fixture;
    let before = table(fixture);
    let partition = &march(fixture)[0];
    let aside = format!("archive_aside_{partition}_x");
    let store = fixture.store(Role::Admin);
    let columns = block_on(store.archived_columns()).unwrap();
    let now = block_on(store.partition_in_events(partition, &columns)).unwrap();
    for expected in
        [Fingerprint { rows: now.rows - 1, ..now.clone() }, Fingerprint { hash: "1".to_owned(), ..now.clone() }]
    {
        let found = block_on(store.drop_partition_if(partition, &aside, &columns, &expected)).unwrap();
        assert_eq!(found, Err(now.clone()));
        assert_eq!(table(fixture), before, "it is back");
    }
    assert_eq!(world.traces(), 0);
    // As a kill between the move and the drop leaves it.
    fixture.admin().run(&format!("CREATE TABLE {aside} AS events"));
    fixture.admin().run(&format!("ALTER TABLE events MOVE PARTITION ID '{partition}' TO TABLE {aside}"));
    let refused = world.archive(&["--before", "2300-01"]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains(&format!("stands aside in the table {aside}")), "{refused:?}");
    let back = fixture.run(fixture.admin_command(&["archive", "--put-back"]), b"").success();
    assert_eq!(back.stdout, format!("{partition} is back\n"));
    assert_eq!(table(fixture), before);
}
