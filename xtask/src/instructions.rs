//! `cargo xtask test-instructions`: the hot path must not get slower unnoticed.
//!
//! Time is too noisy for a test; the number of instructions is nearly the same on every run and machine. valgrind's callgrind counts them, for N and
//! for 2 N events, and the difference divided by N is an event's: whatever happens once falls out. valgrind knows no SHA
//! instructions, with which workers make the content hash, so the hash's portable form is left out of the count.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::child::{cargo, command, succeed, workspace};
use crate::demo::target_folder;

/// More than this above what is written down is a failure. An upgrade of the compiler or of a library moves it by less.
const TOLERANCE_PERCENT: f64 = 8.0;
/// With another compiler than the one that was counted with.
const TOLERANCE_OTHER_COMPILER_PERCENT: f64 = 15.0;

/// `record` meets the sender's thread now here, now there, which is some percent; the fewest of so many counts are nearly always the same.
const COUNTS: usize = 3;

/// What is counted.
struct Subject {
    name: &'static str,
    program: &'static str,
    /// Before the number of events.
    arguments: &'static [&'static str],
    /// The function that counts, and what is left out of it: callgrind changes between counting and not counting whenever it enters or leaves one.
    functions: &'static [&'static str],
    events: u64,
}

const SUBJECTS: [Subject; 3] = [
    Subject {
        name: "encode",
        program: "decode_instructions",
        arguments: &["encode"],
        functions: &["*counted_encode*"],
        events: 10_000,
    },
    Subject {
        name: "decode",
        program: "decode_instructions",
        arguments: &["decode"],
        functions: &["*counted_decode*", "*sha2*compress256*"],
        events: 20_000,
    },
    Subject {
        name: "record",
        program: "record_instructions",
        arguments: &[],
        functions: &["*counted_record*"],
        events: 20_000,
    },
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write what is counted now to bench/instructions.json, to be committed.
    #[arg(long)]
    write: bool,
}

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Counted {
    /// `rustc --version`.
    compiler: String,
    /// Instructions for one event, on the thread that does the work.
    per_event: BTreeMap<String, f64>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let progress = crate::progress::shown();
    auditstream_stack::ensure_installed(progress.as_ref())?;
    auditstream_stack::ensure_valgrind(progress.as_ref())?;
    progress.step("build the examples that are counted (release)");
    let examples = ["--example", "decode_instructions", "--example", "record_instructions"];
    succeed("cargo build", cargo(&["build", "--release", "--workspace"])?.args(examples))?;
    progress.step("count instructions with callgrind");
    let mut per_event = BTreeMap::new();
    for subject in &SUBJECTS {
        let once = subject.fewest(subject.events)?;
        let twice = subject.fewest(subject.events * 2)?;
        let each = twice.saturating_sub(once) as f64 / subject.events as f64;
        per_event.insert(subject.name.to_owned(), each.round());
    }
    let now = Counted { compiler: compiler()?, per_event };
    let file = file();
    if args.write {
        fs::write(&file, serde_json::to_string_pretty(&now)? + "\n")
            .with_context(|| format!("write {}", file.display()))?;
        eprintln!("written to {}", file.display());
        return Ok(());
    }
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let before: Counted = serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))?;
    let (lines, slower) = compare(&before, &now);
    eprintln!("{}", lines.join("\n"));
    if !slower.is_empty() {
        bail!(
            "more instructions than bench/instructions.json allows: {}; if that is wanted: cargo xtask test-instructions --write",
            slower.join(", ")
        );
    }
    Ok(())
}

fn file() -> PathBuf {
    workspace().join("bench/instructions.json")
}

fn compiler() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let answer = command(rustc)?.arg("--version").output().context("ask rustc for its version")?;
    Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}

impl Subject {
    /// Instructions for so many events, the fewest of some runs.
    fn fewest(&self, events: u64) -> Result<u64> {
        let mut fewest = u64::MAX;
        for _ in 0..COUNTS {
            fewest = fewest.min(self.count(events)?);
        }
        Ok(fewest)
    }

    /// Instructions of one run, on the thread of the function that counts.
    fn count(&self, events: u64) -> Result<u64> {
        let mut valgrind = command("valgrind")?;
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
        valgrind.args(self.functions.iter().map(|function| format!("--toggle-collect={function}")));
        // A file and not stderr: the program may write there too.
        let folder = target_folder().join("tmp");
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let log = folder.join(format!("callgrind-{}.log", std::process::id()));
        valgrind.arg(format!("--log-file={}", log.display()));
        valgrind.arg(target_folder().join("release/examples").join(self.program));
        valgrind.args(self.arguments).arg(events.to_string());
        succeed("callgrind", valgrind.stdout(Stdio::null()))?;
        let text = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
        fs::remove_file(&log).ok();
        let counted = collected(&text).with_context(|| format!("callgrind's log has no count:\n{text}"))?;
        if counted == 0 {
            bail!("callgrind saw no call of {}: has it another name now?", self.functions[0]);
        }
        Ok(counted)
    }
}

/// The number behind `Collected :`.
fn collected(log: &str) -> Option<u64> {
    log.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

/// A line for each figure, and those that are too high.
fn compare(before: &Counted, now: &Counted) -> (Vec<String>, Vec<String>) {
    let same = before.compiler == now.compiler;
    let tolerance = if same { TOLERANCE_PERCENT } else { TOLERANCE_OTHER_COMPILER_PERCENT };
    let mut lines = Vec::new();
    if !same {
        lines
            .push(format!("  counted with {}, now it is {}: {tolerance} % are allowed", before.compiler, now.compiler));
    }
    let mut slower = Vec::new();
    for (name, count) in &now.per_event {
        let Some(allowed) = before.per_event.get(name) else {
            slower.push(format!("{name} is not in the file"));
            continue;
        };
        let percent = (count / allowed - 1.0) * 100.0;
        lines.push(format!("  {name:<8} {count:>7} instructions an event, {percent:+.1} %"));
        if percent > tolerance {
            slower.push(format!("{name} {percent:+.1} %"));
        } else if percent < -tolerance {
            lines.push(format!("  {name:<8} is cheaper now: cargo xtask test-instructions --write keeps it so"));
        }
    }
    (lines, slower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(compiler: &str, decode: f64) -> Counted {
        Counted { compiler: compiler.to_owned(), per_event: BTreeMap::from([("decode".to_owned(), decode)]) }
    }

    #[test]
    fn the_count_is_found_in_the_log() {
        assert_eq!(collected("==1== Events    : Ir\n==1== Collected : 12345\n==1==\n"), Some(12_345));
        assert_eq!(collected("==1== ERROR\n"), None);
    }

    #[test]
    fn more_than_the_tolerance_fails() {
        let before = counted("a", 1000.0);
        assert_eq!(compare(&before, &counted("a", 1079.0)).1, Vec::<String>::new());
        assert_eq!(compare(&before, &counted("a", 1081.0)).1, ["decode +8.1 %"]);
        assert_eq!(compare(&before, &counted("b", 1149.0)).1, Vec::<String>::new());
        assert_eq!(compare(&before, &counted("b", 1160.0)).1, ["decode +16.0 %"]);
        let (lines, slower) = compare(&before, &counted("a", 900.0));
        assert!(slower.is_empty() && lines[1].contains("cheaper"), "{lines:?}");
        assert_eq!(compare(&Counted { per_event: BTreeMap::new(), ..before }, &counted("a", 1.0)).1.len(), 1);
    }
}
