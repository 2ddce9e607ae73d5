//! ClickHouse from npm: the chdb project packs the server as one C library.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::run::{Staging, Step, io_error};
use crate::error::InstallError;
use crate::hook::{bound_command, executable};
use crate::progress::Progress;

/// ClickHouse 26.7.2.1.
const VERSION: &str = "26.7.3-stable.1";

/// The package and what npm calls its integrity. There is one for x86-64 only.
const PACKAGE: &str = "@chdb/lib-linux-x64-gnu";
const INTEGRITY: &str =
    "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==";

/// Its sizes, for the progress display only.
const PACKED: u64 = 177_817_999;
const UNPACKED: u64 = 566_330_096;

fn folder(cache: &Path) -> PathBuf {
    cache.join(format!("chdb-{VERSION}"))
}

pub(crate) fn library(cache: &Path) -> PathBuf {
    folder(cache).join("libchdb.so")
}

/// What `npm pack --json` says of each file it wrote.
#[derive(Deserialize)]
struct Packed {
    filename: String,
    integrity: String,
}

pub(crate) fn install(cache: &Path, staging: &Staging, progress: &dyn Progress) -> Result<(), InstallError> {
    let executable = executable()?;
    if !cfg!(target_arch = "x86_64") {
        return Err(mismatch("this machine's processor", "x86_64", std::env::consts::ARCH));
    }
    let download = staging.folder("npm")?;
    let log = staging.dir.join("npm.json");
    Step { what: "download ClickHouse (npm)", grows: Some(&download), total: Some(PACKED), log: &log }.run(
        bound_command(&executable, Path::new("npm"))
            .args(["pack", "--json", "--loglevel=error", "--no-update-notifier"])
            .arg(format!("{PACKAGE}@{VERSION}"))
            .arg("--pack-destination")
            .arg(&download)
            .arg("--cache")
            .arg(download.join("cache"))
            .current_dir(&download),
        progress,
    )?;
    let packed = packed(&fs::read_to_string(&log).map_err(|e| io_error("read", &log, e))?)?;
    if packed.integrity != INTEGRITY {
        return Err(mismatch(&format!("{PACKAGE}@{VERSION}"), INTEGRITY, &packed.integrity));
    }
    let unpacked = staging.folder("chdb")?;
    Step {
        what: "unpack ClickHouse",
        grows: Some(&unpacked),
        total: Some(UNPACKED),
        log: &staging.dir.join("tar.log"),
    }
    .run(
        bound_command(&executable, Path::new("tar"))
            .arg("-xzf")
            .arg(archive(&download, &packed.filename)?)
            .args(["--strip-components=1", "--no-same-owner", "package/libchdb.so"])
            .current_dir(&unpacked),
        progress,
    )?;
    staging.publish("chdb", &folder(cache))
}

fn mismatch(what: &str, expected: &str, found: &str) -> InstallError {
    InstallError::Mismatch { what: what.into(), expected: expected.into(), found: found.into() }
}

/// The JSON list in npm's output: warnings may stand before it.
fn packed(output: &str) -> Result<Packed, InstallError> {
    let json: String =
        output.lines().skip_while(|line| !line.starts_with('[')).map(|line| format!("{line}\n")).collect();
    serde_json::from_str::<Vec<Packed>>(&json).ok().and_then(|mut list| list.pop()).ok_or_else(|| {
        let beginning = output.lines().take(5).collect::<Vec<_>>().join(" ");
        mismatch("the output of `npm pack --json`", "a list with one file", &beginning)
    })
}

/// npm 9 names a scoped package's file otherwise than it writes it (`@scope/name` for `scope-name`).
fn archive(download: &Path, filename: &str) -> Result<PathBuf, InstallError> {
    let candidates = [filename.to_owned(), filename.trim_start_matches('@').replace('/', "-")];
    let found = candidates.iter().map(|name| download.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| InstallError::Program(format!("{filename} (npm wrote no such file)")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn npms_answer_is_read_past_a_warning() {
        let output = "npm warn old\n[{\"filename\": \"a.tgz\", \"integrity\": \"sha512-x\", \"size\": 1}]\n";
        assert_eq!(packed(output).unwrap().filename, "a.tgz");
        assert!(packed("").is_err());
        assert!(packed("[]").is_err());
    }
}
