//! Cold answers: what a question takes when nothing of the table is in memory, neither in ClickHouse's caches nor in the page cache.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use auditstream_bench::family::fetched;
use auditstream_bench::results::median;
use auditstream_bench::target::Target;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::Serialize;

use crate::server::{Answer, Server};

/// What may be dropped of a server; which of it a version has, the server says. A part's sparse index is no cache, but is read again when it is unloaded.
const DROPS: &[&str] = &[
    "SYSTEM DROP MARK CACHE",
    "SYSTEM DROP INDEX MARK CACHE",
    "SYSTEM DROP UNCOMPRESSED CACHE",
    "SYSTEM DROP INDEX UNCOMPRESSED CACHE",
    "SYSTEM DROP PRIMARY INDEX CACHE",
    "SYSTEM UNLOAD PRIMARY KEY events",
    "SYSTEM DROP QUERY CONDITION CACHE",
    "SYSTEM DROP QUERY CACHE",
    "SYSTEM DROP MMAP CACHE",
    "SYSTEM DROP PAGE CACHE",
];
/// Without these a cold answer is none.
const NEEDED: &[&str] = &["SYSTEM DROP MARK CACHE", "SYSTEM DROP UNCOMPRESSED CACHE"];

/// What a question took with nothing in memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Cold {
    /// The middle of all times.
    pub(super) ms: f64,
    pub(super) runs: usize,
    /// Bytes fetched from storage, the middle too.
    pub(super) disk_bytes: Option<f64>,
}

/// One time of asking.
#[derive(Debug, Clone, Copy)]
pub(super) struct ColdRun {
    pub(super) took: Duration,
    /// Bytes fetched from storage, where the kernel tells.
    pub(super) disk_bytes: Option<u64>,
}

impl Cold {
    pub(super) fn of(runs: &[ColdRun]) -> Self {
        let times: Vec<f64> = runs.iter().map(|run| run.took.as_secs_f64() * 1e3).collect();
        let bytes: Option<Vec<f64>> = runs.iter().map(|run| run.disk_bytes.map(|bytes| bytes as f64)).collect();
        let disk_bytes = bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| median(&bytes));
        Self { ms: median(&times), runs: runs.len(), disk_bytes }
    }

    /// Milliseconds for a table; `-` where they were not measured.
    pub(super) fn text(cold: Option<&Self>) -> String {
        cold.map_or_else(|| "-".to_owned(), |cold| format!("{:.1}", cold.ms))
    }

    /// Megabytes fetched from storage, for a table.
    pub(super) fn disk_text(cold: Option<&Self>) -> String {
        cold.and_then(|cold| cold.disk_bytes).map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes / 1e6))
    }
}

/// All that keeps a stack's tables in memory.
pub(super) struct Caches {
    admin: Server,
    folder: PathBuf,
    drops: Vec<&'static str>,
}

impl Caches {
    /// Finds out what there is to drop, by dropping it.
    pub(super) fn find(admin: &Server, target: &Target) -> Result<Self> {
        let mut drops = Vec::new();
        for drop in DROPS {
            match admin.text(drop) {
                Ok(_) => drops.push(*drop),
                // Another version's.
                Err(error) if error.to_string().contains("(SYNTAX_ERROR)") => {}
                Err(error) => return Err(error),
            }
        }
        ensure!(NEEDED.iter().all(|needed| drops.contains(needed)), "ClickHouse knows only {drops:?}");
        Ok(Self { admin: admin.clone(), folder: target.state().dir.join("clickhouse"), drops })
    }

    /// The statements that drop what the server itself keeps.
    pub(super) fn statements(&self) -> &[&'static str] {
        &self.drops
    }

    /// From here on everything has to be read from storage.
    pub(super) fn drop_all(&self) -> Result<()> {
        self.drops.iter().try_for_each(|drop| self.admin.text(drop).map(std::mem::drop))?;
        drop_files(&self.folder)
    }

    /// Asks `runs` times, each time with nothing in memory.
    pub(super) fn ask(&self, who: &Server, sql: &str, runs: u32) -> Result<Cold> {
        let runs: Result<Vec<_>> = (0..runs).map(|_| self.ask_once(who, sql).map(|(_, run)| run)).collect();
        Ok(Cold::of(&runs?))
    }

    /// The answer, and what it took.
    pub(super) fn ask_once(&self, who: &Server, sql: &str) -> Result<(Answer, ColdRun)> {
        self.drop_all()?;
        let before = fetched(who.pid());
        let answer = who.ask(sql, "")?;
        let disk_bytes = fetched(who.pid()).zip(before).map(|(after, before)| after.saturating_sub(before));
        let run = ColdRun { took: answer.took, disk_bytes };
        Ok((answer, run))
    }
}

/// Takes every file below `folder` out of the page cache; what was not on disk yet is written first. Needs no right but to read the files.
pub(super) fn drop_files(folder: &Path) -> Result<()> {
    for path in files(folder).with_context(|| format!("{} can't be read", folder.display()))? {
        let dropped = File::open(&path).and_then(|file| {
            file.sync_data()?;
            // A length of 0 is all.
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(io::Error::from)
        });
        match dropped {
            // A merge or a checkpoint may have removed it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            dropped => dropped.with_context(|| format!("{} can't be taken out of the page cache", path.display()))?,
        }
    }
    Ok(())
}

/// Regular files below `folder`; links are not followed.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_middle_counts_and_what_is_unknown_stays_so() {
        let run = |ms, disk_bytes| ColdRun { took: Duration::from_millis(ms), disk_bytes };
        let cold = Cold::of(&[run(30, Some(5)), run(10, Some(7)), run(20, Some(9))]);
        assert_eq!(cold, Cold { ms: 20.0, runs: 3, disk_bytes: Some(7.0) });
        assert_eq!((Cold::text(Some(&cold)), Cold::text(None)), ("20.0".to_owned(), "-".to_owned()));
        assert_eq!(Cold::disk_text(Some(&Cold { disk_bytes: Some(2_500_000.0), ..cold })), "2.5");
        assert_eq!(Cold::of(&[run(1, Some(5)), run(2, None)]).disk_bytes, None);
    }

    #[test]
    fn every_file_is_found_and_none_behind_a_link() {
        let folder = std::env::temp_dir().join(format!("auditstream-cold-{}", std::process::id()));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/data.bin"), [7; 100_000]).unwrap();
        fs::write(folder.join("count.txt"), "1").unwrap();
        std::os::unix::fs::symlink("/", folder.join("a/everything")).unwrap();
        let mut found = files(&folder).unwrap();
        found.sort();
        assert_eq!(found, [folder.join("a/b/data.bin"), folder.join("count.txt")]);
        drop_files(&folder).unwrap();
        assert_eq!(fs::read(folder.join("a/b/data.bin")).unwrap(), [7; 100_000], "nothing is lost");
        drop_files(&folder.join("nowhere")).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}
