//! The order service as a child process: started, reached, asked to stop.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Mode;
use super::client::{Connection, Request};
use crate::process::{Usage, usage};
use crate::target::Target;

/// Patience for the first connection.
const READY: Duration = Duration::from_secs(20);
/// How long its trail may take to drain.
const DRAIN: Duration = Duration::from_secs(15);

/// A running service. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    mode: Mode,
    child: Child,
    at: SocketAddr,
    log: PathBuf,
}

impl Service {
    /// Starts `program` on `database`; its log goes to `order-service-MODE.log` in the stack's folder.
    ///
    /// It dies with the calling thread, which must therefore live on.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(program: &Path, target: &Target, mode: Mode, database: &str) -> Result<Self> {
        // Free when asked; the service says so in its log if somebody was quicker.
        let at =
            TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).context("no free port")?;
        let log = target.state().dir.join(format!("order-service-{}.log", mode.name()));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("{} can't be written", log.display()))?;
        let child = auditstream_stack::bound(program)?
            .args(["--listen", &at.to_string(), "--audit", mode.name()])
            .args(["--kafka", target.bootstrap(), "--topic", target.topic()])
            // With a password in it, it is not for the list of processes.
            .env("ORDER_SERVICE_DATABASE", database)
            .env("ORDER_SERVICE_AUDIT_KEY", "the demo's key: anybody may know it")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("the log can't be shared")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{} can't be started", program.display()))?;
        Ok(Self { mode, child, at, log })
    }

    /// What it does with its events.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Where it listens.
    #[must_use]
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.child.id()).with_context(|| format!("the order service ({}) is gone", self.mode.name()))
    }

    /// Waits until it answers: its tables are there then.
    ///
    /// # Errors
    /// It ended, or took too long; the message holds the end of its log.
    pub async fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        while !self.answers() {
            if let Some(status) = self.child.try_wait().context("a child can't be waited for")? {
                bail!("the order service ({}) ended by itself ({status}):\n{}", self.mode.name(), self.log_end());
            }
            if begun.elapsed() > READY {
                bail!("the order service ({}) does not answer:\n{}", self.mode.name(), self.log_end());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Whoever is not logged in is told so. The connection is taken before the tables are there, the request after.
    fn answers(&self) -> bool {
        let request =
            Request { line: "GET /orders/none".to_owned(), session: None, id: String::new(), body: String::new() };
        let answer = Connection::open(self.at).and_then(|mut connection| Ok(connection.ask(&request)?.0));
        answer.is_ok_and(|status| status == 401)
    }

    /// Asks it to stop and waits until its trail is drained.
    ///
    /// # Errors
    /// It did not end in time (and was killed), or not with success; the message holds the end of its log.
    pub fn stop(mut self) -> Result<()> {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It fails only when the process is gone.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let begun = Instant::now();
        loop {
            match self.child.try_wait().context("a child can't be waited for")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    bail!("the order service ({}) ended with {status}:\n{}", self.mode.name(), self.log_end())
                }
                None if begun.elapsed() > DRAIN => {
                    bail!("the order service ({}) did not end:\n{}", self.mode.name(), self.log_end())
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
