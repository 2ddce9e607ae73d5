//! `cargo xtask tidy`: what a reviewer should never have to say.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::child::{cargo, succeed, workspace};

/// A file longer than this is two files.
const MAX_LINES: usize = 500;

/// What belongs to one machine or one network and not into the repository. Cut in two, so that this file passes too.
const FOREIGN: &[(&str, &str)] = &[
    (concat!("/ho", "me/"), "a home folder"),
    (concat!("/ro", "ot/"), "a home folder"),
    (concat!("/Use", "rs/"), "a home folder"),
    (concat!("registry.npm", "js.org"), "a registry's host"),
    (concat!("registry.yarn", "pkg.com"), "a registry's host"),
    (concat!("repo.maven.", "apache.org"), "a registry's host"),
    (concat!("repo1.", "maven.org"), "a registry's host"),
    (concat!("pypi.org/", "simple"), "a registry's host"),
    (concat!("files.python", "hosted.org"), "a registry's host"),
    (concat!("proxy.go", "lang.org"), "a registry's host"),
    (concat!("index.", "crates.io"), "a registry's host"),
    (concat!("static.", "crates.io"), "a registry's host"),
];

/// The only source that Cargo.lock may name.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The fuzz targets are a workspace of their own.
const FUZZ: &str = "fuzz/Cargo.toml";

pub(crate) fn run() -> Result<()> {
    let problems = look_at_files()?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        bail!("{} problems in tracked files", problems.len());
    }
    eprintln!("files: length and contents are fine");
    // The lints compile everything, librdkafka included.
    auditstream_stack::ensure_installed(crate::progress::shown().as_ref())?;
    succeed("cargo fmt --check", &mut cargo(&["fmt", "--all", "--check"])?)?;
    succeed("cargo fmt --check of fuzz/", &mut cargo(&["fmt", "--manifest-path", FUZZ, "--check"])?)?;
    let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
    succeed("clippy", &mut cargo(&clippy)?)?;
    let mut there = cargo(&["deny", "--version"])?;
    there.stdout(Stdio::null()).stderr(Stdio::null());
    if !crate::child::status(&mut there)?.success() {
        eprintln!("installing cargo-deny (once)");
        // Not optimised: it runs for seconds, and building it so takes minutes less.
        let mut install = cargo(&["install", "cargo-deny", "--locked", "--debug"])?;
        succeed("cargo install cargo-deny", install.env("CARGO_PROFILE_DEV_DEBUG", "0"))?;
    }
    // Advisories need a database from the network: run `cargo deny check advisories` where there is one.
    let checks = ["check", "licenses", "bans", "sources"];
    succeed("cargo deny", cargo(&["deny"])?.args(checks))?;
    let fuzz = ["deny", "--manifest-path", FUZZ, "--config", "deny.toml"];
    succeed("cargo deny of fuzz/", cargo(&fuzz)?.args(checks))
}

fn look_at_files() -> Result<Vec<String>> {
    let root = workspace();
    let listed =
        Command::new("git").args(["ls-files", "-z"]).current_dir(&root).output().context("run git ls-files")?;
    if !listed.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&listed.stderr).trim());
    }
    let names = String::from_utf8(listed.stdout).context("a tracked file's name is not UTF-8")?;
    let mut problems = Vec::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        // A file that is deleted but still tracked, or is binary, has no lines to look at.
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        problems.extend(look_at(name, &text));
    }
    Ok(problems)
}

fn look_at(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if Path::new(name).extension().is_some_and(|extension| extension == "rs") && lines > MAX_LINES {
        problems.push(format!("{name}: {lines} lines, at most {MAX_LINES}"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        for (pattern, what) in FOREIGN {
            if line.contains(pattern) {
                problems.push(format!("{name}:{number}: {what} ({pattern})"));
            }
        }
        let source = line.strip_prefix("source = \"").map(|rest| rest.trim_end_matches('"'));
        if name == "Cargo.lock" && source.is_some_and(|source| source != CRATES_IO) {
            problems.push(format!("{name}:{number}: a source other than crates.io"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_and_foreign_names_are_found() {
        assert!(look_at("a.rs", "fn main() {}\n").is_empty());
        assert_eq!(look_at("a.rs", &"\n".repeat(MAX_LINES + 1)).len(), 1);
        assert!(look_at("a.md", &"\n".repeat(MAX_LINES + 1)).is_empty());
        for (pattern, _) in FOREIGN {
            assert_eq!(look_at("a.md", &format!("see {pattern}x")).len(), 1, "{pattern}");
        }
    }

    #[test]
    fn only_crates_io_is_a_source() {
        assert!(look_at("Cargo.lock", &format!("source = \"{CRATES_IO}\"")).is_empty());
        assert_eq!(look_at("Cargo.lock", "source = \"registry+https://example.com/index\"").len(), 1);
    }
}
