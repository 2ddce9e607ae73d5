//! The server processes: how each is started, and the signals it may get.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{StackError, Tried as _};
use crate::hook::{HOST, PROCESS_NAME, SELF, bound_command};
use crate::install;
use crate::random;
use crate::registry;
use crate::state::ServerKind;

/// Patience for SIGTERM before SIGKILL follows.
const STOP: Duration = Duration::from_secs(20);
/// ClickHouse keeps freed memory for a minute, blocks of 8 MiB and more too, which jemalloc gives back at once unless told not to: a quarter of an
/// insert's time went into pages that it had just given back (measured with perf).
const CLICKHOUSE_MALLOC: &str = "dirty_decay_ms:60000,muzzy_decay_ms:60000,oversize_threshold:0";

/// A stack's processes and how to start them.
pub(crate) struct Servers {
    dir: PathBuf,
    throughput: bool,
    installed: install::Servers,
    kafka: Option<Child>,
    clickhouse: Option<Child>,
    registry: Option<Child>,
    registry_plan: Option<registry::Plan>,
}

impl Servers {
    pub(crate) fn new(dir: PathBuf, throughput: bool, installed: install::Servers) -> Self {
        Self { dir, throughput, installed, kafka: None, clickhouse: None, registry: None, registry_plan: None }
    }

    /// What a start of the registry is to do from now on.
    pub(crate) fn plan_registry(&mut self, plan: registry::Plan) {
        self.registry_plan = Some(plan);
    }

    fn slot(&mut self, server: ServerKind) -> &mut Option<Child> {
        match server {
            ServerKind::Kafka => &mut self.kafka,
            ServerKind::Clickhouse => &mut self.clickhouse,
            ServerKind::Registry => &mut self.registry,
        }
    }

    /// The process while it is known to run (call [`Servers::reap`] first).
    pub(crate) fn pid(&self, server: ServerKind) -> Option<u32> {
        let slot = match server {
            ServerKind::Kafka => &self.kafka,
            ServerKind::Clickhouse => &self.clickhouse,
            ServerKind::Registry => &self.registry,
        };
        slot.as_ref().map(Child::id)
    }

    /// Forgets children that have ended.
    pub(crate) fn reap(&mut self) {
        for server in ServerKind::ALL {
            let slot = self.slot(server);
            if slot.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_)))) {
                *slot = None;
            }
        }
    }

    /// Starts a server; it does not answer yet.
    pub(crate) fn start(&mut self, server: ServerKind) -> Result<(), StackError> {
        if self.pid(server).is_some() {
            return Err(StackError::Failed(format!("{} already runs", server.name())));
        }
        let mut command = match server {
            ServerKind::Kafka => kafka_command(&self.installed, &self.dir.join("server.properties"), self.throughput),
            ServerKind::Clickhouse => {
                let mut command = Command::new(SELF);
                command
                    .arg0(PROCESS_NAME)
                    .arg(HOST)
                    .arg(std::process::id().to_string())
                    .arg(&self.installed.clickhouse_library)
                    .arg(self.dir.join("clickhouse.xml"))
                    .env("MALLOC_CONF", CLICKHOUSE_MALLOC);
                command
            }
            ServerKind::Registry => match &self.registry_plan {
                Some(plan) => plan.command(&self.dir),
                None => return Err(StackError::Failed("the stack has no schema registry".into())),
            },
        };
        // The last name is the one that gets what the process prints.
        let name = server.log_names().last().copied().unwrap_or("server.log");
        let log = append(&self.dir.join(name))?;
        let errors = log.try_clone().tried("open", &self.dir.join(name))?;
        command.current_dir(&self.dir).stdin(Stdio::null()).stdout(log).stderr(errors);
        let child =
            command.spawn().map_err(|source| StackError::Io { what: format!("start {}", server.name()), source })?;
        *self.slot(server) = Some(child);
        Ok(())
    }

    /// SIGKILL, and waits for the end. Nothing to do when it does not run.
    pub(crate) fn kill(&mut self, server: ServerKind) {
        if let Some(mut child) = self.slot(server).take() {
            // Both fail only when the process has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGKILL to all at once, then waits for all.
    pub(crate) fn kill_all(&mut self) {
        for server in ServerKind::ALL {
            if let Some(child) = self.slot(server) {
                let _ = child.kill();
            }
        }
        ServerKind::ALL.into_iter().for_each(|server| self.kill(server));
    }

    /// SIGTERM, waits, SIGKILL when it takes too long. A paused process is woken, or it could not end.
    pub(crate) fn stop(&mut self, server: ServerKind) {
        if self.signal(server, Signal::SIGTERM).is_ok() && self.signal(server, Signal::SIGCONT).is_ok() {
            let deadline = Instant::now() + STOP;
            while self.pid(server).is_some() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
                self.reap();
            }
        }
        self.kill(server);
    }

    pub(crate) fn pause(&mut self, server: ServerKind) -> Result<(), StackError> {
        self.signal(server, Signal::SIGSTOP)
    }

    pub(crate) fn resume(&mut self, server: ServerKind) -> Result<(), StackError> {
        self.signal(server, Signal::SIGCONT)
    }

    fn signal(&self, server: ServerKind, signal: Signal) -> Result<(), StackError> {
        let pid = self.pid(server).and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| StackError::Failed(format!("{} does not run", server.name())))?;
        kill(Pid::from_raw(pid), signal)
            .map_err(|e| StackError::Io { what: format!("signal {}", server.name()), source: io::Error::from(e) })
    }

    /// Lays out a fresh Kafka data folder from the template, as `StorageTool format` would, with ids of its own. With users, the tool itself does
    /// it: it derives their keys. `server.properties` must be there.
    pub(crate) fn format_kafka(&self, scram_users: &[(String, String)]) -> Result<(), StackError> {
        let data = self.dir.join("kafka");
        if !scram_users.is_empty() {
            return self.format_kafka_with(scram_users);
        }
        fs::create_dir_all(&data).tried("create", &data)?;
        let (from, to) =
            (self.installed.kafka_template.join("bootstrap.checkpoint"), data.join("bootstrap.checkpoint"));
        fs::copy(&from, &to).tried("copy", &from)?;
        let ids = (random::kafka_uuid(), random::kafka_uuid());
        let (cluster, directory) = (ids.0.tried("make an id for", &data)?, ids.1.tried("make an id for", &data)?);
        let meta = format!("version=1\ncluster.id={cluster}\nnode.id=1\ndirectory.id={directory}\n");
        let path = data.join("meta.properties");
        fs::write(&path, meta).tried("write", &path)
    }
}

impl Servers {
    fn format_kafka_with(&self, scram_users: &[(String, String)]) -> Result<(), StackError> {
        let id = random::kafka_uuid().tried("make an id for", &self.dir)?;
        let mut command = java_command(&self.installed);
        command.args(["-Xmx128m", "-XX:TieredStopAtLevel=1"]).args(install::KAFKA_JVM_FLAGS);
        command.arg("-cp").arg(&self.installed.kafka_class_path);
        command.args(["kafka.tools.StorageTool", "format", "-t", &id, "-c"]).arg(self.dir.join("server.properties"));
        for (user, password) in scram_users {
            command.arg("--add-scram").arg(format!("SCRAM-SHA-512=[name={user},password={password}]"));
        }
        command.current_dir(&self.dir).stdin(Stdio::null());
        let output =
            command.output().map_err(|source| StackError::Io { what: "start Kafka's storage tool".into(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(StackError::Failed(format!("Kafka's storage can't be formatted ({}): {}", output.status, said.trim_end())))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// The Java command for Kafka. Without `throughput` it starts quicker and stays smaller; with it, the JIT compiles fully.
fn kafka_command(installed: &install::Servers, properties: &Path, throughput: bool) -> Command {
    let mut command = java_command(installed);
    if throughput {
        command.args(["-Xms128m", "-Xmx512m"]);
    } else {
        command.args(["-Xms32m", "-Xmx256m", "-XX:TieredStopAtLevel=1"]);
    }
    command.args(install::KAFKA_JVM_FLAGS);
    command.arg(format!("-XX:SharedArchiveFile={}", installed.kafka_cds.display()));
    // Compression libraries unpack themselves there and stay behind when the process is killed; in the stack's folder they go with it.
    if let Some(dir) = properties.parent() {
        command.arg(format!("-Djava.io.tmpdir={}", dir.display()));
    }
    command.arg("-cp").arg(&installed.kafka_class_path).arg("kafka.Kafka").arg(properties);
    command
}

/// Java, with nothing from this process's environment.
fn java_command(installed: &install::Servers) -> Command {
    let mut command = bound_command(Path::new(SELF), &installed.java);
    for name in ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "KAFKA_OPTS"] {
        command.env_remove(name);
    }
    command
}

fn append(path: &Path) -> Result<File, StackError> {
    OpenOptions::new().append(true).create(true).open(path).tried("open", path)
}

/// The last lines of a server's logs, for messages.
pub(crate) fn tail(dir: &Path, server: ServerKind, lines: usize) -> String {
    let mut text = String::new();
    for name in server.log_names() {
        text.push_str(&tail_of(&dir.join(name), lines));
    }
    text
}

/// The last lines of a file; empty when it cannot be read.
pub(crate) fn tail_of(path: &Path, lines: usize) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("{line}\n")).collect()
}
