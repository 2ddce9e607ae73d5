//! Runs a command of the installation: its output kept, its life shown, and neither it nor its files outliving us.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::InstallError;
use crate::hook::{GUARD, executable, remove_folder};
use crate::progress::{Life, Progress};
use crate::server::tail_of;

/// Beginning of the names of half-filled folders.
pub(crate) const STAGING: &str = "staging-";

/// How often a running command is looked at.
const TICK: Duration = Duration::from_millis(200);

pub(crate) fn io_error(what: &str, path: &Path, source: io::Error) -> InstallError {
    InstallError::Io { what: format!("{what} {}", path.display()), source }
}

/// A folder to fill. A guard process removes it when we end it or die.
pub(crate) struct Staging {
    pub(crate) dir: PathBuf,
    guard: Child,
}

impl Staging {
    /// Makes the folder inside the cache, so that a rename out of it stays on one file system.
    pub(crate) fn begin(cache: &Path) -> Result<Self, InstallError> {
        let dir = cache.join(format!("{STAGING}{}", std::process::id()));
        remove_folder(&dir, Duration::from_secs(5));
        let guard = Command::new(executable()?)
            .arg(GUARD)
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| io_error("start the guard of", &dir, e))?;
        let staging = Self { dir, guard };
        fs::create_dir(&staging.dir).map_err(|e| io_error("create", &staging.dir, e))?;
        Ok(staging)
    }

    /// Makes a folder inside.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, InstallError> {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).map_err(|e| io_error("create", &path, e))?;
        Ok(path)
    }

    /// Moves something complete out of the folder, under its final name.
    pub(crate) fn publish(&self, name: &str, to: &Path) -> Result<(), InstallError> {
        if to.is_dir() {
            fs::remove_dir_all(to).map_err(|e| io_error("remove the incomplete", to, e))?;
        }
        fs::rename(self.dir.join(name), to).map_err(|e| io_error("create", to, e))
    }

    /// Removes the folder. The same as dropping it, by a name that says so.
    pub(crate) fn end(self) {}
}

impl Drop for Staging {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// A step that runs one command.
pub(crate) struct Step<'a> {
    /// Said to the person.
    pub(crate) what: &'a str,
    /// A file or folder whose growth shows the progress.
    pub(crate) grows: Option<&'a Path>,
    /// Its size in the end, about.
    pub(crate) total: Option<u64>,
    /// Where the command's output goes.
    pub(crate) log: &'a Path,
}

impl Step<'_> {
    /// Runs the command to its end.
    pub(crate) fn run(&self, command: &mut Command, progress: &dyn Progress) -> Result<(), InstallError> {
        progress.step(self.what);
        let result = self.run_shown(command, progress);
        progress.ended();
        result
    }

    fn run_shown(&self, command: &mut Command, progress: &dyn Progress) -> Result<(), InstallError> {
        let log = File::create(self.log).map_err(|e| io_error("create", self.log, e))?;
        let errors = log.try_clone().map_err(|e| io_error("open", self.log, e))?;
        let mut child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().map_err(|source| {
            let program = command.get_program().to_string_lossy().into_owned();
            InstallError::Io { what: format!("start {program} to {}", self.what), source }
        })?;
        let begun = Instant::now();
        let status = loop {
            match child.try_wait().map_err(|e| io_error("wait for the command of", self.log, e))? {
                Some(status) => break status,
                None => {
                    let last = tail_of(self.log, 1);
                    progress.alive(&Life {
                        what: self.what,
                        elapsed: begun.elapsed(),
                        bytes: self.grows.map(size),
                        total: self.total,
                        last_line: last.trim(),
                    });
                    thread::sleep(TICK);
                }
            }
        };
        if status.success() {
            return Ok(());
        }
        Err(InstallError::Command {
            what: self.what.to_owned(),
            status: status.to_string(),
            output: tail_of(self.log, 25),
        })
    }
}

/// Bytes in a file, or in all files below a folder.
fn size(path: &Path) -> u64 {
    let Ok(meta) = path.symlink_metadata() else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}
