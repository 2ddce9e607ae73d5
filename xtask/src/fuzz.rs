//! `cargo xtask fuzz`: frames, records and writer schemas from nowhere, for as long as wanted. The targets are in `fuzz/`.
//!
//! It runs on the stable toolchain: coverage is the compiler's own, and no sanitizer takes part, as there is no unsafe code to catch.

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::child::{cargo, command, status, succeed, workspace};
use crate::test::target;

/// All targets, as in `fuzz/Cargo.toml`.
const TARGETS: [&str; 3] = ["framing", "decode", "resolution"];
/// More memory than this is a finding; the fuzzer with its corpus takes about 100 MiB.
const MEMORY_MIB: u32 = 512;
/// A record that takes longer is a finding.
const SECONDS_EACH: u32 = 5;
/// Bytes of the longest record that is made.
const LONGEST: u32 = 4096;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long each target runs, in seconds; what is committed in `fuzz/corpus` runs in any case.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=864_000))]
    seconds: u32,
    /// Only this target.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS))]
    target: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    auditstream_stack::ensure_installed(crate::progress::shown().as_ref())?;
    let mut there = cargo(&["fuzz", "--version"])?;
    there.stdout(Stdio::null()).stderr(Stdio::null());
    if !status(&mut there)?.success() {
        eprintln!("installing cargo-fuzz (once)");
        succeed("cargo install cargo-fuzz", &mut cargo(&["install", "cargo-fuzz", "--locked"])?)?;
    }
    let build = target()?.join("fuzz");
    let mut made = cargo(&["fuzz", "build", "--sanitizer", "none", "--target-dir"])?;
    succeed("cargo fuzz build", made.arg(&build))?;
    let host = fs::read_dir(&build).with_context(|| format!("read {}", build.display()))?.flatten();
    // Cargo names the folder by the platform.
    let programs = host.map(|entry| entry.path().join("release")).find(|folder| folder.join(TARGETS[0]).is_file());
    let programs = programs.context("cargo fuzz left no programs")?;
    let mut failed = Vec::new();
    for name in TARGETS.iter().filter(|name| args.target.as_deref().is_none_or(|only| only == **name)) {
        // What is found goes beside the build; the committed corpus is read only.
        let found = build.join("corpus").join(name);
        let artifacts = build.join("artifacts").join(name);
        for folder in [&found, &artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        eprintln!("fuzz {name} for {} s", args.seconds);
        let mut fuzzer = command(programs.join(name))?;
        fuzzer.arg(&found).arg(workspace().join("fuzz/corpus").join(name));
        fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
        fuzzer.arg(format!("-max_total_time={}", args.seconds));
        fuzzer.args([format!("-rss_limit_mb={MEMORY_MIB}"), format!("-timeout={SECONDS_EACH}")]);
        fuzzer.args([format!("-max_len={LONGEST}"), "-print_final_stats=1".to_owned(), "-verbosity=0".to_owned()]);
        if !status(&mut fuzzer)?.success() {
            failed.push(format!("{name}: see {}", artifacts.display()));
        }
    }
    if !failed.is_empty() {
        bail!("found something: {}", failed.join("; "));
    }
    Ok(())
}
