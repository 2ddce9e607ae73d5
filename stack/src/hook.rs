//! One executable, several roles: the supervisor, the ClickHouse host and two small guards are the same program, started
//! again with a hidden first argument. So nothing has to be installed beside it.

use std::env;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd;

use crate::error::StackError;
use crate::{host, supervisor};

pub(crate) const SUPERVISE: &str = "__stack-supervise";
pub(crate) const HOST: &str = "__stack-clickhouse-host";
pub(crate) const BOUND: &str = "__stack-bound";
pub(crate) const GUARD: &str = "__stack-guard";

/// The running executable itself, also after its file was replaced by a new build.
pub(crate) const SELF: &str = "/proc/self/exe";

/// What process lists show for the hidden roles, whatever executable plays them.
pub(crate) const PROCESS_NAME: &str = "auditstream-stack";

static HOOKED: AtomicBool = AtomicBool::new(false);

/// Call this first in `main` of an executable that starts stacks.
///
/// When the process was started in one of the hidden roles, it plays that role and never returns. Otherwise it only
/// notes that this executable can play them.
pub fn hook() {
    HOOKED.store(true, Ordering::Relaxed);
    let mut args = env::args_os().skip(1);
    let Some(role) = args.next() else { return };
    let rest: Vec<OsString> = args.collect();
    let code = match role.to_str() {
        Some(SUPERVISE) => supervisor::main(),
        Some(HOST) => host::main(&rest),
        Some(BOUND) => become_bound(&rest),
        Some(GUARD) => guard(&rest),
        _ => return,
    };
    process::exit(code);
}

/// The executable that plays the hidden roles: `AUDITSTREAM_STACK_EXE`, else this one when it called [`hook`], else an
/// `auditstream-stack` beside it or in the folders above (test executables are in `deps`).
pub(crate) fn executable() -> Result<PathBuf, StackError> {
    if let Some(path) = env::var_os("AUDITSTREAM_STACK_EXE").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    if HOOKED.load(Ordering::Relaxed) {
        return Ok(PathBuf::from(SELF));
    }
    let own = env::current_exe().map_err(|_| StackError::NoExecutable)?;
    let found = own.ancestors().skip(1).take(3).map(|dir| dir.join("auditstream-stack")).find(|path| path.is_file());
    found.ok_or(StackError::NoExecutable)
}

/// Ends this process as soon as its parent dies, even by kill -9; false when the parent is gone already.
///
/// The kernel watches the parent's *thread*, so whoever starts a bound process must keep that thread.
pub(crate) fn bind_to_parent(parent: i32) -> bool {
    prctl::set_pdeathsig(Signal::SIGKILL).is_ok() && unistd::getppid().as_raw() == parent
}

/// A command that runs `program` bound to the life of the calling thread.
pub(crate) fn bound_command(executable: &Path, program: &Path) -> Command {
    let mut command = Command::new(executable);
    command.arg(BOUND).arg(process::id().to_string()).arg(program);
    command
}

/// A command that runs `program` (a path, or a name on PATH) and dies with the calling *thread*, even by kill -9.
/// Arguments, folder and streams are for the caller to add; the process is the program itself, not a wrapper.
///
/// # Errors
/// No executable can play the hidden role that binds it, see [`Options::exe`](crate::Options::exe).
pub fn bound(program: &Path) -> Result<Command, StackError> {
    Ok(bound_command(&executable()?, program))
}

/// `PARENT PROGRAM ARGS...`: becomes the program, bound to the parent.
fn become_bound(args: &[OsString]) -> i32 {
    let [parent, program, rest @ ..] = args else { return 2 };
    let Some(parent) = parent.to_str().and_then(|pid| pid.parse().ok()) else { return 2 };
    if !bind_to_parent(parent) {
        return 1;
    }
    let error = Command::new(program).args(rest).exec();
    eprintln!("{}: {error}", Path::new(program).display());
    127
}

/// `FOLDER`: removes the folder once the starter closes our stdin or dies.
fn guard(args: &[OsString]) -> i32 {
    let [folder] = args else { return 2 };
    // Failing only means that this process leads a session already.
    let _ = unistd::setsid();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    i32::from(!remove_folder(Path::new(folder), Duration::from_secs(10)))
}

/// Removes a folder into which dying processes may still write; true when it is gone.
pub(crate) fn remove_folder(folder: &Path, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let _ = std::fs::remove_dir_all(folder);
        match folder.symlink_metadata() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return true,
            _ if Instant::now() >= deadline => return false,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
