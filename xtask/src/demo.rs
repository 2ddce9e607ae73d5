//! `cargo xtask demo`: from a clean clone to audit events that are queried, in one command.
//!
//! Here: what is installed, built and started. What happens on the servers then is `auditstream-demo`, a program of its own (`bench/`).

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use auditstream_stack::{Options, Role, Stack};

use crate::child::{cargo, command, status, succeed, workspace};

/// Steps done here.
const STEPS: u32 = 3;
/// Steps of `auditstream-demo`.
const STEPS_AFTER: u32 = 7;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A git repository whose history becomes audit events; default: this one.
    #[arg(long, value_name = "PATH")]
    git: Option<PathBuf>,
    /// How many events the generated load has.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    events: u64,
    /// Leave Kafka and ClickHouse up, with all the data, and print how to connect.
    #[arg(long)]
    keep: bool,
    /// Write the figures to this file, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let begun = Instant::now();
    if let Some(path) = &args.json {
        // Rather now than after a quarter of an hour.
        File::options()
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("{} can't be written", path.display()))?;
    }
    let progress = crate::progress::shown();
    let step = |number: u32, title: &str| progress.step(&format!("\n[{number}/{}] {title}", STEPS + STEPS_AFTER));

    step(1, "Kafka, ClickHouse and what the build needs");
    auditstream_stack::ensure_installed(progress.as_ref())?;
    progress.step(&format!("  there after {:.1} s", begun.elapsed().as_secs_f64()));

    step(2, "Build: the product and the demo's program");
    succeed("cargo build", &mut cargo(&["build", "--release", "--bin", "auditstream", "--bin", "auditstream-demo"])?)?;

    step(3, "Start a real Kafka and a real ClickHouse, for this demo alone");
    let starting = Instant::now();
    let name = format!("demo-{}", std::process::id());
    let stack = Stack::start_shown(Options { throughput: true, ..Options::named(&name) }, progress.as_ref())?;
    progress.step(&format!(
        "  Kafka {}, ClickHouse {}, both answer after {:.1} s",
        stack.kafka_bootstrap(),
        stack.clickhouse_url(),
        starting.elapsed().as_secs_f64()
    ));

    let program = target_folder().join("release/auditstream-demo");
    let mut demo = command(&program)?;
    demo.args(["run", "--stack", &name, "--steps-before", &STEPS.to_string(), "--events", &args.events.to_string()]);
    demo.arg("--git").arg(args.git.clone().unwrap_or_else(workspace));
    if let Some(json) = &args.json {
        demo.arg("--json").arg(json);
    }
    let verdict = status(&mut demo)?;
    progress.step(&format!("\nthe whole demo took {:.0} s", begun.elapsed().as_secs_f64()));
    if args.keep {
        keep(stack)?;
    } else {
        drop(stack);
        progress.step("servers stopped, their data removed (--keep would have left them up)");
    }
    if !verdict.success() {
        bail!("the demo failed ({verdict}); what went wrong stands above");
    }
    Ok(())
}

/// Lets the stack live on and says how to look around.
fn keep(stack: Stack) -> Result<()> {
    let state = stack.detach()?;
    let analyst = state.credentials(Role::Analyst).context("the stack has no analyst")?;
    let (bootstrap, url, dir) = (&state.kafka_bootstrap, &state.clickhouse_url, state.dir.display());
    let (user, password, program) = (&analyst.user, &analyst.password, target_folder().join("release/auditstream"));
    let more = format!(
        "
  curl -u {user}:{password} '{url}/?database=audit' -d 'SELECT count() FROM events'
  curl -u {user}:{password} '{url}/?database=audit' -d 'SELECT * FROM dead_letters FORMAT Vertical'
  kcat -q -b {bootstrap} -C -t audit.events -o -3 -e -f '%p/%o %k: %S bytes %h\\n'
  kcat -q -b {bootstrap} -C -t audit.events.dlq -o beginning -e -f '%p/%o %h\\n'
  {} --config {dir}/auditstream.toml consume    (the workers have ended)
",
        program.display()
    );
    crate::stack::print(&(crate::stack::how_to_connect(&state) + &more))
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |folder| workspace().join(folder))
}
