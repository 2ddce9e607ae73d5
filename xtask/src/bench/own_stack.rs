//! What every benchmark on servers does: install what is missing, build, start a stack for this alone, run `auditstream-demo` (`bench/`) on it.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use auditstream_stack::{Options, Stack};

use super::results_file;
use crate::child::{cargo, command, succeed};
use crate::demo::target_folder;

/// A benchmark, and what it needs and leaves.
#[derive(Default)]
pub(super) struct Benchmark<'a> {
    /// Its subcommand of `auditstream-demo`.
    pub(super) subcommand: &'a str,
    /// Where its figures go, as one JSON object.
    pub(super) json: Option<&'a Path>,
    /// The name of its file in `bench/results`, when one is wanted.
    pub(super) results: Option<&'a str>,
    /// Whether it starts a PostgreSQL.
    pub(super) with_databases: bool,
    pub(super) with_registry: bool,
    /// What the stack needs before the benchmark runs on it.
    pub(super) prepare: Option<fn(&Stack) -> Result<()>>,
}

impl Benchmark<'_> {
    /// Runs it with the arguments that `add` adds. The stack goes down with it, whatever came of it.
    pub(super) fn run(&self, add: impl FnOnce(&mut Command)) -> Result<()> {
        if let Some(path) = self.json {
            // Rather now than after some minutes.
            let file = File::options().append(true).create(true).open(path);
            file.with_context(|| format!("{} can't be written", path.display()))?;
        }
        let progress = crate::progress::shown();
        progress.step("servers and what the build needs");
        auditstream_stack::ensure_installed(progress.as_ref())?;
        if self.with_databases {
            auditstream_stack::ensure_databases(progress.as_ref())?;
        }
        if self.with_registry {
            auditstream_stack::ensure_registry(progress.as_ref())?;
        }
        progress.step("build (release)");
        succeed("cargo build", &mut cargo(&["build", "--release", "--workspace", "--bins"])?)?;
        progress.step("start servers, for this alone");
        let name = format!("bench-{}", std::process::id());
        let options = Options { throughput: true, registry: self.with_registry, ..Options::named(&name) };
        let stack = Stack::start_shown(options, progress.as_ref())?;
        if let Some(prepare) = self.prepare {
            prepare(&stack)?;
        }
        let mut bench = command(target_folder().join("release/auditstream-demo"))?;
        bench.args([self.subcommand, "--stack", &name]);
        if let Some(json) = self.json {
            bench.arg("--json").arg(json);
        }
        if let Some(name) = self.results {
            bench.arg("--results").arg(results_file(name));
        }
        add(&mut bench);
        let measured = succeed("the benchmark", &mut bench);
        drop(stack);
        measured
    }
}
