//! Folders of stacks: who owns which, and what a dead owner left.
//!
//! Promise: a folder belongs to the living process that holds the lock on its `lock` file, and to nobody else. The kernel
//! lets go of the lock when that process dies in whatever way, so no pid can be mistaken for another.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{StackError, Tried as _};
use crate::hook::remove_folder;

const LOCK: &str = "lock";

/// A stack's folder, held until dropped or the process ends.
pub(crate) struct Claim {
    pub(crate) dir: PathBuf,
    _lock: File,
}

impl Claim {
    /// Makes the folder afresh and takes it. What a dead supervisor left there, or beside it, is removed.
    pub(crate) fn take(root: &Path, dir: PathBuf, name: &str) -> Result<Self, StackError> {
        let _turn = turn(root)?;
        for left in folders(root) {
            if !alive(&left)? {
                remove_folder(&left, Duration::from_secs(5));
            }
        }
        if dir.exists() {
            if alive(&dir)? {
                return Err(StackError::InUse(name.to_owned()));
            }
            let empty = fs::read_dir(&dir).tried("read", &dir)?.next().is_none();
            if !empty && !dir.join(LOCK).exists() {
                return Err(StackError::ForeignFolder(dir));
            }
            fs::remove_dir_all(&dir).tried("remove", &dir)?;
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).tried("create", &dir)?;
        let path = dir.join(LOCK);
        let lock = File::create(&path).tried("create", &path)?;
        lock.lock().tried("lock", &path)?;
        Ok(Self { dir, _lock: lock })
    }

    /// Removes the folder and lets it go; true when it is gone.
    pub(crate) fn remove(self, root: &Path) -> bool {
        let gone = remove_folder(&self.dir, Duration::from_secs(10));
        // Only an empty one goes.
        let _ = fs::remove_dir(root);
        gone
    }
}

/// The folders of living stacks under `root`.
pub(crate) fn living(root: &Path) -> Result<Vec<PathBuf>, StackError> {
    let _turn = turn(root)?;
    let mut found = Vec::new();
    for dir in folders(root) {
        if alive(&dir)? {
            found.push(dir);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a living process holds the folder.
pub(crate) fn alive(dir: &Path) -> Result<bool, StackError> {
    let path = dir.join(LOCK);
    match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).tried("open", &path),
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => Err(e).tried("lock", &path),
        },
    }
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// One process at a time looks at folders and takes one; the lock file lies beside `root`, never inside.
fn turn(root: &Path) -> Result<File, StackError> {
    let path = root.with_extension("lock");
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).tried("create", parent)?;
    }
    let file = File::create(&path).tried("create", &path)?;
    file.lock().tried("lock", &path)?;
    Ok(file)
}

/// A name must be a plain folder name: nothing else may be made or removed by it.
pub(crate) fn check_name(name: &str) -> Result<(), StackError> {
    let good = (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if good { Ok(()) } else { Err(StackError::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("auditstream-claim-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn one_owner_at_a_time() {
        let base = scratch("owner");
        let root = base.join("stacks");
        let claim = Claim::take(&root, root.join("a"), "a").unwrap();
        assert!(matches!(Claim::take(&root, root.join("a"), "a"), Err(StackError::InUse(_))));
        assert_eq!(living(&root).unwrap(), [root.join("a")]);
        assert!(claim.remove(&root));
        assert!(living(&root).unwrap().is_empty());
        assert!(!root.exists());
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn what_a_dead_owner_left_goes() {
        let base = scratch("dead");
        let root = base.join("stacks");
        for name in ["a", "b"] {
            fs::create_dir_all(root.join(name)).unwrap();
            fs::write(root.join(name).join(LOCK), "").unwrap();
            fs::write(root.join(name).join("data"), "old").unwrap();
        }
        let claim = Claim::take(&root, root.join("a"), "a").unwrap();
        assert!(!root.join("a/data").exists());
        assert!(!root.join("b").exists());
        drop(claim);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_foreign_folder_is_left_alone() {
        let base = scratch("foreign");
        fs::create_dir_all(base.join("mine")).unwrap();
        fs::write(base.join("mine/thesis.txt"), "precious").unwrap();
        let taken = Claim::take(&base.join("stacks"), base.join("mine"), "x");
        assert!(matches!(taken, Err(StackError::ForeignFolder(_))));
        assert!(base.join("mine/thesis.txt").exists());
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn names_stay_inside_the_folder() {
        for good in ["demo", "test-1", "a.b_c"] {
            check_name(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "-x", "a b", "é"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
