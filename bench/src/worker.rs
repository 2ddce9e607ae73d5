//! `auditstream consume` and `relay` as child processes: started, asked whether they are ready, measured, drained.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use auditstream_stack::Role;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{Usage, threads, usage};
use crate::target::Target;

/// How long a worker may take to drain before it is killed.
const DRAIN: Duration = Duration::from_secs(30);
/// The same when nobody waits for its work any more.
const DROP: Duration = Duration::from_secs(3);

/// A running worker. Dropping it ends it.
#[derive(Debug)]
pub struct Worker {
    id: String,
    child: Child,
    probes: SocketAddr,
    log: PathBuf,
}

impl Worker {
    /// Starts `program consume` against `target` under the name `id`. Its log goes to `ID.log` in the stack's folder.
    ///
    /// It dies with the calling thread, which must therefore live on.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(program: &Path, target: &Target, id: &str) -> Result<Self> {
        Self::run(program, target, id, "consume", |command, probes| {
            command.env("AUDITSTREAM_CONSUMER__WORKER_ID", id).env("AUDITSTREAM_CONSUMER__HTTP_LISTEN", probes);
        })
    }

    /// As [`Worker::start`], with settings of the product's over those of the target: names of environment variables and their values.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_with(program: &Path, target: &Target, id: &str, settings: &[(String, String)]) -> Result<Self> {
        Self::run(program, target, id, "consume", |command, probes| {
            command.env("AUDITSTREAM_CONSUMER__WORKER_ID", id).env("AUDITSTREAM_CONSUMER__HTTP_LISTEN", probes);
            command.envs(settings.iter().map(|(name, value)| (name, value)));
        })
    }

    /// Starts `program relay` on the outbox at `url`. Otherwise as [`Worker::start`].
    ///
    /// # Errors
    /// It can't be started.
    pub fn relay(program: &Path, target: &Target, id: &str, url: &str) -> Result<Self> {
        Self::run(program, target, id, "relay", |command, probes| {
            command.env("AUDITSTREAM_OUTBOX__RELAY_ID", id).env("AUDITSTREAM_OUTBOX__HTTP_LISTEN", probes);
            command.env("AUDITSTREAM_OUTBOX__URL", url);
        })
    }

    fn run(
        program: &Path,
        target: &Target,
        id: &str,
        subcommand: &str,
        set: impl FnOnce(&mut Command, String),
    ) -> Result<Self> {
        // Free when asked; the worker says so in its log if somebody was quicker.
        let probes =
            TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).context("no free port")?;
        let log = target.state().dir.join(format!("{id}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("{} can't be written", log.display()))?;
        let mut command = auditstream_stack::bound(program)?;
        command.args([subcommand, "--config"]).arg(target.config(Role::Ingest));
        set(&mut command, probes.to_string());
        let child = command
            .stdin(std::process::Stdio::null())
            .stdout(file.try_clone().context("the log can't be shared")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{} can't be started", program.display()))?;
        Ok(Self { id: id.to_owned(), child, probes, log })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.child.id()).with_context(|| format!("{} is gone", self.id))
    }

    /// The CPU time of its threads so far, by their names.
    ///
    /// # Errors
    /// It has ended.
    pub fn threads(&self) -> Result<BTreeMap<String, Duration>> {
        threads(self.child.id()).with_context(|| format!("{} is gone", self.id))
    }

    /// Whether it is a member of the group. A request of less than a millisecond.
    ///
    /// # Errors
    /// The worker has ended; the message holds the end of its log.
    pub fn is_ready(&mut self) -> Result<bool> {
        if let Some(status) = self.child.try_wait().context("a child can't be waited for")? {
            bail!("{} ended by itself ({status}):\n{}", self.id, self.log_end());
        }
        Ok(self.probe().unwrap_or(false))
    }

    fn probe(&self) -> std::io::Result<bool> {
        let mut status = [0; 12];
        self.get("/readyz")?.read_exact(&mut status)?;
        Ok(status.ends_with(b"200"))
    }

    fn get(&self, path: &str) -> std::io::Result<TcpStream> {
        let limit = Duration::from_secs(1);
        let mut stream = TcpStream::connect_timeout(&self.probes, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        Ok(stream)
    }

    /// The value of a metric that has no labels.
    ///
    /// # Errors
    /// It does not answer, or has no such metric.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let mut text = String::new();
        self.get("/metrics")
            .and_then(|mut answer| answer.read_to_string(&mut text))
            .with_context(|| format!("{} serves no metrics", self.id))?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.with_context(|| format!("{} has no metric {name}", self.id))
    }

    /// Asks it to drain, and waits.
    ///
    /// # Errors
    /// It did not end in time (and was killed), or not with success; the message holds the end of its log.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM);
        match self.wait(DRAIN)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.id, self.log_end()),
            None => bail!("{} did not end within {} s:\n{}", self.id, DRAIN.as_secs(), self.log_end()),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It fails only when the process is gone, which is what is wanted.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("a child can't be waited for")? {
                return Ok(Some(status));
            }
            if begun.elapsed() > limit {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::SIGTERM);
        if !matches!(self.wait(DROP), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
