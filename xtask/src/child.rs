//! Child processes that never outlive us.
//!
//! Each runs in a process group of its own. Ctrl-C or SIGTERM to us ends every group, grandchildren included, then us;
//! kill -9 of us kills the children by the kernel's parent-death signal.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Groups that run now.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
/// Set once a signal is ending us.
static ENDING: AtomicBool = AtomicBool::new(false);
/// Patience after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

fn groups() -> Vec<Pid> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// From now on a signal that ends us ends the children first. Call once, before the first child.
pub(crate) fn end_with_us() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("listen to signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            ENDING.store(true, Ordering::Release);
            end_all();
            // A stack that is still ours goes now: its supervisor sees our pipe close.
            process::exit(128 + signal);
        }
    });
    Ok(())
}

fn end_all() {
    let deadline = Instant::now() + GRACE;
    for group in groups() {
        // It fails only when the group is gone.
        let _ = killpg(group, Signal::SIGTERM);
    }
    // The main thread waits for the children and takes their groups off the list.
    while !groups().is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    for group in groups() {
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// A command for [`status`]: bound to our life, in a group of its own.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Result<Command> {
    let mut command = auditstream_stack::bound(Path::new(program.as_ref()))?;
    command.process_group(0);
    Ok(command)
}

/// Runs a [`command`] to its end.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let group = i32::try_from(child.id()).map(Pid::from_raw).context("a process id out of range")?;
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner).push(group);
    let status = child.wait();
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != group);
    while ENDING.load(Ordering::Acquire) {
        // The signal's thread ends the process with the right code; a child's end is no failure to report now.
        thread::park();
    }
    status.context("wait for a child")
}

/// Runs a [`command`] and wants success. `what` names it in the message.
pub(crate) fn succeed(what: &str, command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{what} failed ({status})");
    }
    Ok(())
}

/// Cargo, in the workspace's root folder.
pub(crate) fn cargo(args: &[&str]) -> Result<Command> {
    let mut command = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))?;
    command.args(args).current_dir(workspace());
    Ok(command)
}

/// The workspace's root folder: the one above this crate's.
pub(crate) fn workspace() -> PathBuf {
    let here =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map(Path::to_path_buf).unwrap_or(here)
}
