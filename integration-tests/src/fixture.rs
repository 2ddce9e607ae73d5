//! What one test has for itself: topics, group, database, log folder, on servers that all tests of the process share or on its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use auditstream_bench::load::{self, Acknowledged, Generator};
use auditstream_producer::{Config as ProducerConfig, Lanes};
use auditstream_schemas::AuditEvent;
use auditstream_stack::{Role, Stack};
use auditstream_store::faults::{Guard, Point};
use auditstream_store::{Config as StoreConfig, MigrateOptions, Store};

use crate::build;
use crate::clickhouse::ClickHouse;
use crate::kafka::{Kafka, RawSender};
use crate::load::{Load, LoadPlan, Recorder};
use crate::options::{Names, Options};
use crate::oracle::{self, Verdict};
use crate::poison::KINDS;
use crate::report;
use crate::servers::{self, Servers, Turn, Users};
use crate::wait::{block_on, wait_until};
use crate::worker::{self, CliOutput, Worker};

/// How a worker is to fail, or which of its guards is off. By default it is as the shipped one.
#[derive(Clone, Debug, Default)]
pub struct Rigged<'a> {
    /// Crash points, in the notation of the `fail` crate; see `auditstream_store::faults`.
    pub points: String,
    /// The guard that is off.
    pub off: Option<Guard>,
    /// As for [`Fixture::worker_with`].
    pub settings: &'a [(&'a str, &'a str)],
}

impl Rigged<'_> {
    /// Dies, or fails, when it comes to `point` for the `time`th time, which counts from 1.
    #[must_use]
    pub fn at(point: Point, time: u64) -> Self {
        Self { points: format!("{}={}*off->return", point.name(), time.saturating_sub(1)), ..Self::default() }
    }

    /// As shipped, but for one guard.
    #[must_use]
    pub fn without(guard: Guard) -> Self {
        Self { off: Some(guard), ..Self::default() }
    }
}

/// One test's world. Dropped, it leaves nothing behind, except the logs of a failed test.
#[derive(Debug)]
pub struct Fixture {
    options: Options,
    folder: PathBuf,
    topic: String,
    database: String,
    kafka: Kafka,
    admin: ClickHouse,
    acknowledged: Acknowledged,
    generator: Arc<Generator>,
    next_event: Arc<AtomicU64>,
    poison: Arc<RawSender>,
    workers: AtomicU64,
    // Dropped after the clients, and before others may have the machine.
    servers: Servers,
    _turn: Turn,
}

impl Fixture {
    /// Makes what `options` say.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let turn = Turn::wait(options.alone);
        let folder = build::logs_dir().join(options.name);
        // There is none, or an older run's.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("target can be written");
        let servers = if options.own_servers { Servers::own(options.name) } else { Servers::shared() };
        let stack = servers.stack();
        let database = servers::free_database();
        let topic = options.name.to_owned();
        let kafka = Kafka::new(stack.kafka_bootstrap(), options.name);
        if options.prepared {
            kafka.create_topic(&topic, options.partitions);
            kafka.create_topic(&format!("{topic}.dlq"), 3);
        }
        let poison = Arc::new(kafka.raw_sender(&topic));
        let (user, password) = stack.credentials(Role::Admin);
        let admin = ClickHouse::new(stack.clickhouse_url(), &database, user, password);
        let acknowledged = Acknowledged::with_file(&folder.join("acknowledged.ids")).expect("target can be written");
        // As many as no test sends; their times are spread over three days.
        let events = if report::is_long() { 40_000_000 } else { 10_000_000 };
        let generator = Arc::new(Generator::new(load::Options { events, ..load::Options::default() }));
        let fixture = Self {
            options,
            folder,
            topic,
            database,
            kafka,
            admin,
            acknowledged,
            generator,
            next_event: Arc::default(),
            poison,
            workers: AtomicU64::new(0),
            _turn: turn,
            servers,
        };
        fixture.write_config();
        if fixture.options.prepared {
            let migrated = block_on(fixture.store(Role::Admin).migrate(&MigrateOptions::default()));
            migrated.unwrap_or_else(|error| panic!("the tables can't be made: {error}"));
        }
        fixture
    }

    fn write_config(&self) {
        let stack = self.stack();
        let (user, password) = stack.credentials(Role::Ingest);
        let names = Names {
            bootstrap: stack.kafka_bootstrap(),
            topic: &self.topic,
            clickhouse: stack.clickhouse_url(),
            database: &self.database,
            user,
            password,
        };
        let text = self.options.config_text(&names);
        std::fs::write(self.config_file(), text).expect("target can be written");
    }

    /// The servers.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        self.servers.stack()
    }

    /// The base URL of a real schema registry beside the servers, started at the first call. Subjects are named after topics, so tests share it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn registry_url(&self) -> &str {
        let started = self.stack().add_registry(&auditstream_stack::Lines::default());
        started.unwrap_or_else(|error| panic!("the schema registry does not start: {error}"))
    }

    /// Kafka, looked at from outside.
    #[must_use]
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// ClickHouse as its administrator, who sees rows without FINAL.
    #[must_use]
    pub fn admin(&self) -> &ClickHouse {
        &self.admin
    }

    /// ClickHouse as another role.
    #[must_use]
    pub fn clickhouse(&self, role: Role) -> ClickHouse {
        let (user, password) = self.stack().credentials(role);
        ClickHouse::new(self.stack().clickhouse_url(), &self.database, user, password)
    }

    /// The store as a role.
    #[must_use]
    pub fn store(&self, role: Role) -> Store {
        let (user, password) = self.stack().credentials(role);
        let config = StoreConfig {
            url: self.stack().clickhouse_url().to_owned(),
            tls: auditstream_store::Tls::default(),
            database: self.database.clone(),
            user: user.to_owned(),
            password: password.into(),
            insert_timeout: Duration::from_secs(30),
            query_timeout: Duration::from_secs(30),
        };
        Store::new(&config).expect("a valid configuration")
    }

    /// The source topic; the dead-letter topic has `.dlq` behind its name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The dead-letter topic.
    #[must_use]
    pub fn dead_letter_topic(&self) -> String {
        format!("{}.dlq", self.topic)
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The folder of this test's files; it goes with the fixture, unless the test fails.
    #[must_use]
    pub fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// The configuration file of this test's processes, which connect as the ingest role.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("auditstream.toml")
    }

    /// The generator of this test's events.
    #[must_use]
    pub fn generator(&self) -> &Arc<Generator> {
        &self.generator
    }

    /// The list of acknowledged events.
    #[must_use]
    pub fn acknowledged(&self) -> &Acknowledged {
        &self.acknowledged
    }

    /// The configuration of a producer to the source topic, called `id`.
    #[must_use]
    pub fn producer_config(&self, id: &str) -> ProducerConfig {
        ProducerConfig {
            bootstrap_servers: self.stack().kafka_bootstrap().to_owned(),
            topic: self.topic.clone(),
            producer_id: Some(id.to_owned()),
            // A recorder hands in again what finds no room; were that counted as dropped, an event would tell of it, and tests count events.
            lanes: Lanes { standard: 100, best_effort: 100 },
            ..ProducerConfig::default()
        }
    }

    /// A producer whose acknowledgements go on the list.
    #[must_use]
    pub fn recorder(&self, config: ProducerConfig) -> Recorder {
        Recorder::new(config, &self.acknowledged)
    }

    /// The next event of this test that nobody had yet.
    #[must_use]
    pub fn next_event(&self) -> AuditEvent {
        self.generator.event(self.next_event.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends `count` events and waits until they are acknowledged.
    pub fn send(&self, count: u64) {
        let recorder = self.recorder(self.producer_config("send"));
        (0..count).for_each(|_| recorder.record(self.next_event()));
        recorder.finish();
    }

    /// Sends raw bytes that no worker can decode; the oracle expects each in the dead-letter topic.
    #[must_use]
    pub fn poison(&self) -> &RawSender {
        &self.poison
    }

    /// `per_second` events a second from now on, and after each `poison_every` of them a record that can't be decoded.
    #[must_use]
    pub fn load(&self, per_second: u64, poison_every: Option<u64>) -> Load {
        let (generator, next) = (Arc::clone(&self.generator), Arc::clone(&self.next_event));
        let (poison, bad) = (Arc::clone(&self.poison), Arc::clone(&self.generator));
        let mut number = 0;
        let plan = LoadPlan {
            per_second,
            poison_every,
            next: Box::new(move || generator.event(next.fetch_add(1, Ordering::Relaxed))),
            poison: Box::new(move || {
                let event = bad.event(number as u64);
                poison.send(
                    Some(event.key().as_bytes()),
                    KINDS[number % KINDS.len()].value(&event, number).as_deref(),
                    &[],
                );
                number += 1;
            }),
        };
        Load::start(self.recorder(self.producer_config("load")), plan)
    }

    /// A command of the executable under test, with this test's configuration, as the ingest role; it dies with the calling thread.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = auditstream_stack::bound(build::auditstream()).expect("the supervisor's executable is built");
        command.args(args).arg("--config").arg(self.config_file());
        command
    }

    /// [`Self::command`] as the administrator.
    #[must_use]
    pub fn admin_command(&self, args: &[&str]) -> Command {
        let (user, password) = self.stack().credentials(Role::Admin);
        let mut command = self.command(args);
        command.env("AUDITSTREAM_CLICKHOUSE__USER", user).env("AUDITSTREAM_CLICKHOUSE__PASSWORD", password);
        command
    }

    /// Runs a command to its end, at most for a minute.
    pub fn cli(&self, args: &[&str]) -> CliOutput {
        self.run(self.command(args), b"")
    }

    /// Runs `command` to its end with `input`, at most for a minute.
    pub fn run(&self, command: Command, input: &[u8]) -> CliOutput {
        worker::run(command, input, Duration::from_secs(60))
    }

    /// Runs a benchmark's `command` to its end, at most for five minutes: it does much, beside other tests.
    pub fn run_benchmark(&self, command: Command) -> CliOutput {
        worker::run(command, b"", Duration::from_secs(300))
    }

    /// Starts one more worker.
    #[must_use]
    pub fn worker(&self) -> Worker {
        self.worker_with(&[])
    }

    /// Starts one more worker with settings of its own, as `("AUDITSTREAM_SECTION__KEY", "value")`.
    #[must_use]
    pub fn worker_with(&self, settings: &[(&str, &str)]) -> Worker {
        let name = format!("w{}", self.workers.fetch_add(1, Ordering::Relaxed));
        let mut command = self.command(&["consume"]);
        command.env("AUDITSTREAM_CONSUMER__WORKER_ID", &name).envs(settings.iter().copied());
        Worker::start(command, &name, self.folder.join(format!("worker-{name}.log")))
    }

    /// Starts a relay with settings of its own, as `("AUDITSTREAM_SECTION__KEY", "value")`; one of them is the outbox's URL.
    #[must_use]
    pub fn relay(&self, settings: &[(&str, &str)]) -> Worker {
        let name = format!("relay-{}", self.workers.fetch_add(1, Ordering::Relaxed));
        let mut command = self.command(&["relay"]);
        command.env("AUDITSTREAM_OUTBOX__HTTP_LISTEN", "127.0.0.1:0").env("AUDITSTREAM_OUTBOX__RELAY_ID", &name);
        command.envs(settings.iter().copied());
        Worker::start(command, &name, self.folder.join(format!("{name}.log")))
    }

    /// [`Self::relay`] that dies at the crash points `points`, in the notation of the `fail` crate; see `auditstream_producer::outbox::faults`.
    #[must_use]
    pub fn rigged_relay(&self, points: &str, settings: &[(&str, &str)]) -> Worker {
        let name = format!("relay-{}", self.workers.fetch_add(1, Ordering::Relaxed));
        let mut command = auditstream_stack::bound(build::with_faults()).expect("the supervisor's executable is built");
        command.args(["relay", "--config"]).arg(self.config_file());
        command.env("AUDITSTREAM_OUTBOX__HTTP_LISTEN", "127.0.0.1:0").env("AUDITSTREAM_OUTBOX__RELAY_ID", &name);
        command.env("FAILPOINTS", points).envs(settings.iter().copied());
        Worker::start(command, &name, self.folder.join(format!("{name}.log")))
    }

    /// ClickHouse's users, to be changed by a test that has the machine for itself.
    #[must_use]
    pub fn users(&self) -> Users<'_> {
        assert!(self.options.alone, "other tests have the same users");
        Users::new(self.stack())
    }

    /// Starts one more worker that fails as told.
    #[must_use]
    pub fn rigged_worker(&self, rigged: &Rigged<'_>) -> Worker {
        let name = format!("w{}", self.workers.fetch_add(1, Ordering::Relaxed));
        let mut command = auditstream_stack::bound(build::with_faults()).expect("the supervisor's executable is built");
        command.args(["consume", "--config"]).arg(self.config_file());
        command.env("AUDITSTREAM_CONSUMER__WORKER_ID", &name).envs(rigged.settings.iter().copied());
        command.env("FAILPOINTS", &rigged.points);
        command.env("AUDITSTREAM_FAULTS_OFF", rigged.off.map_or("", Guard::name));
        Worker::start(command, &name, self.folder.join(format!("worker-{name}.log")))
    }

    /// Rows without FINAL.
    #[must_use]
    pub fn raw_rows(&self) -> u64 {
        self.admin.number("SELECT count() FROM events")
    }

    /// Waits until so many more rows are in the table, and returns how long that took.
    #[track_caller]
    pub fn wait_rows(&self, more: u64, limit: Duration) -> Duration {
        self.wait_all_rows(self.raw_rows() + more, limit)
    }

    /// Waits until at least so many rows are in the table in all, and returns how long that took.
    #[track_caller]
    pub fn wait_all_rows(&self, goal: u64, limit: Duration) -> Duration {
        let started = Instant::now();
        wait_until("rows to be inserted", limit, || match self.raw_rows() {
            rows if rows >= goal => Ok(()),
            rows => Err(format!("{rows} of {goal} rows")),
        });
        started.elapsed()
    }

    /// Keeps duplicates visible: nothing merges them away before they are counted.
    pub fn stop_merges(&self) {
        self.admin.run(&format!("SYSTEM STOP MERGES {}.events", self.database()));
    }

    /// Waits until the group has committed everything that is in the topic.
    #[track_caller]
    pub fn wait_landed(&self, limit: Duration) {
        // What is not on the topic yet is not lag yet.
        let _ = self.poison.positions();
        wait_until("everything to be stored and committed", limit, || match self.kafka.lag(&self.topic) {
            0 => Ok(()),
            lag => Err(format!("{lag} records are not committed")),
        });
    }

    /// The oracle's verdict on everything this test sent.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.acknowledged.sync().expect("the disk has room");
        oracle::judge(&oracle::Case {
            clickhouse: &self.admin,
            kafka: &self.kafka,
            topic: &self.topic,
            dead_letter_topic: &self.dead_letter_topic(),
            events: &self.acknowledged.ids(),
            poison: &self.poison.positions(),
        })
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = self.stack().keep_logs(&self.folder);
            eprintln!("\n{} failed; the logs of its workers and servers: {}", self.options.name, self.folder.display());
            if let Err(error) = kept {
                eprintln!("the servers' logs could not be copied: {error}");
            }
        } else {
            // What stays is overwritten by the next run.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
