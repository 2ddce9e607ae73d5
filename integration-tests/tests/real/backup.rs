//! ClickHouse is lost under load, and comes back out of a backup and out of Kafka: the statements of docs/operations.md, as they stand there.

use std::path::PathBuf;
use std::time::Duration;

use auditstream_integration_tests::{ClickHouse, Fixture, Options, Worker};
use auditstream_schemas::Timestamp;
use auditstream_stack::Role;

use crate::operations::{OPERATIONS, acknowledge_deeds, assert_nothing_is_missing, statement};

const PATIENCE: Duration = Duration::from_secs(90);
/// Sent and stored before anything happens, and gone from Kafka when ClickHouse is lost: only the backup has them.
const OLD: u64 = 3_000;

/// The server, its configuration beside it, and a folder for backups that outlives it.
struct Server<'a> {
    fixture: &'a Fixture,
    backups: PathBuf,
}

impl Server<'_> {
    /// The page's text with this test's names for the page's own.
    fn of_page(&self, text: &str) -> String {
        let text = text.replace("/backups/", &format!("{}/", self.backups.display()));
        text.replace("DATABASE audit ", &format!("DATABASE {} ", self.fixture.database()))
    }

    /// As the administrator, from outside of the database, which a new server lacks.
    fn answer(&self, beginning: &str) -> String {
        let (user, password) = self.fixture.stack().credentials(Role::Admin);
        let server = ClickHouse::new(self.fixture.stack().clickhouse_url(), "system", user, password);
        server.text(&self.of_page(statement(beginning)))
    }

    /// Gives it the page's setting.
    fn allow_backups(&self) {
        let (_, rest) = OPERATIONS.split_once("<clickhouse><backups>").expect("the page has the setting");
        let (setting, _) = rest.split_once("</clickhouse>").expect("it ends");
        let setting = format!("<backups>{}</clickhouse>", self.of_page(setting));
        let file = self.fixture.stack().dir().join("clickhouse.xml");
        let config = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, config.replace("</clickhouse>", &setting)).unwrap();
        std::fs::create_dir(&self.backups).unwrap();
        self.fixture.stack().clickhouse().stop().unwrap();
        self.fixture.stack().clickhouse().start().unwrap();
    }

    fn destroy(&self) {
        self.fixture.stack().clickhouse().kill().unwrap();
        std::fs::remove_dir_all(self.data()).unwrap();
    }

    /// A server with the same address and configuration, and nothing in it.
    fn renew(&self) {
        std::fs::create_dir(self.data()).unwrap();
        self.fixture.stack().clickhouse().start().unwrap();
    }

    fn data(&self) -> PathBuf {
        self.fixture.stack().dir().join("clickhouse")
    }
}

#[test]
fn clickhouse_is_lost_and_comes_back_from_a_backup_and_from_kafka() {
    let options = Options::own_servers("clickhouse-backup").consumer("drain_deadline_ms = 1000");
    let fixture = Fixture::new(options);
    let server = Server { fixture: &fixture, backups: fixture.folder().join("backups") };
    server.allow_backups();
    let workers = [fixture.worker(), fixture.worker()];
    workers.iter().for_each(Worker::wait_ready);
    fixture.send(OLD);
    fixture.poison().send(Some(b"k"), Some(b"no event"), &[]);
    fixture.wait_landed(PATIENCE);
    for (partition, end) in fixture.kafka().ends(fixture.topic()) {
        fixture.kafka().delete_records(fixture.topic(), partition, end);
    }
    // Nothing lags now, so nothing older is missing in a backup that begins later.
    let before = Timestamp::now().to_string();
    let load = fixture.load(2_000, Some(500));
    fixture.wait_rows(2_000, PATIENCE);

    let made = server.answer("BACKUP DATABASE");
    assert!(made.ends_with("BACKUP_CREATED"), "{made}");
    fixture.wait_rows(4_000, PATIENCE);
    server.destroy();
    for worker in workers {
        worker.terminate();
        // It can't store what it has read; that is read again.
        let _ = worker.wait(PATIENCE);
    }

    server.renew();
    let restored = server.answer("RESTORE DATABASE");
    assert!(restored.ends_with("RESTORED"), "{restored}");
    let rows = fixture.raw_rows();
    assert!(rows >= OLD + 2_000, "{rows} rows were in the backup");
    fixture.run(fixture.admin_command(&["migrate"]), b"").success();
    fixture.cli(&["consumer", "reset", "--to-time", &before, "--yes"]).success();
    let workers = [fixture.worker(), fixture.worker()];
    workers.iter().for_each(Worker::wait_ready);
    load.finish();
    fixture.wait_landed(PATIENCE);
    assert_nothing_is_missing(&fixture, &[]);
    for worker in workers {
        worker.terminate();
        assert_eq!(worker.wait(PATIENCE), Some(0));
    }
    acknowledge_deeds(&fixture, 1);
    let verdict = fixture.verdict();
    eprintln!("{rows} rows out of the backup: {verdict}");
    let poison = fixture.poison().positions().len() as u64;
    verdict.assert_clean(fixture.acknowledged().len() as u64 + poison, poison);
}
