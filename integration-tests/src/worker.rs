//! The executable under test as a process: long-running workers, and commands that end by themselves.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http;
use crate::wait::{poll, wait_until};

/// A worker process. It dies with this value, and with the thread that started it.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Worker {
    pub(crate) fn start(mut command: Command, name: &str, log: PathBuf) -> Self {
        let out = File::create(&log).expect("the log's folder exists");
        let err = out.try_clone().expect("a second handle");
        let child =
            command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().expect("the executable can be started");
        Self { child, name: name.to_owned(), log }
    }

    /// The worker's name in the ledger.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("the worker runs");
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Freezes it.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("the worker runs");
        self.child.wait().expect("it can be waited for");
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_none()
    }

    /// Waits until it ends by itself, and returns its exit code; `None` when a signal ended it.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Option<i32> {
        let what = format!("worker {} to end", self.name);
        wait_until(&what, limit, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// `HOST:PORT` of its probes and metrics, once it serves them.
    ///
    /// # Errors
    /// It has not said so yet.
    pub fn address(&self) -> Result<String, String> {
        let log = self.log();
        let said = log.lines().find(|line| line.contains("serving probes and metrics"));
        let address = said.and_then(|line| line.split_once("\"address\":\"")?.1.split_once('"'));
        let last = || format!("worker {} serves no probes; its log ends: {}", self.name, log.trim_end());
        Ok(address.ok_or_else(last)?.0.to_owned())
    }

    /// Waits until the group has taken it in.
    #[track_caller]
    pub fn wait_ready(&self) {
        let what = format!("worker {} to be ready", self.name);
        wait_until(&what, Duration::from_secs(60), || match http::get(&self.address()?, "/readyz") {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        });
    }

    /// The sum of all its metrics named `name`, whatever their labels.
    ///
    /// # Errors
    /// It can't be asked.
    pub fn metric(&self, name: &str) -> Result<f64, String> {
        let text = http::get(&self.address()?, "/metrics").map_err(|error| error.to_string())?.text();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            if rest.starts_with(['{', ' ']) { rest.rsplit(' ').next()?.parse::<f64>().ok() } else { None }
        });
        Ok(values.sum())
    }

    /// Resident memory in KiB.
    #[must_use]
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the worker runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command left behind.
#[derive(Debug)]
pub struct CliOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote for programs.
    pub stdout: String,
    /// What it wrote for people.
    pub stderr: String,
}

impl CliOutput {
    /// The exit code.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Itself; fails the test when the command did not succeed.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "{}\n{}{}", self.status, self.stdout, self.stderr);
        self
    }
}

/// Runs a command to its end with `input`, at most for so long.
pub(crate) fn run(mut command: Command, input: &[u8], limit: Duration) -> CliOutput {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the executable can be started");
    let (mut stdin, mut out, mut err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command may end before it has read everything.
            let _ = stdin.take().map(|mut stdin| stdin.write_all(input));
        });
        let stdout = scope.spawn(move || text(out.as_mut()));
        let stderr = scope.spawn(move || text(err.as_mut()));
        let ended = poll(limit, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        if ended.is_err() {
            let _ = child.kill();
        }
        let (stdout, stderr) = (stdout.join().expect("text"), stderr.join().expect("text"));
        match ended {
            Ok(status) => CliOutput { status, stdout, stderr },
            Err(_) => panic!("{command:?} did not end within {limit:?}\n{stdout}{stderr}"),
        }
    })
}

fn text(stream: Option<&mut impl Read>) -> String {
    let mut bytes = Vec::new();
    // A cut stream is what was written so far.
    let _ = stream.map(|stream| stream.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
