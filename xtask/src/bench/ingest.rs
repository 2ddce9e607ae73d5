//! `cargo xtask bench ingest`, `growth` and `profile`: a stack of its own with a schema registry, and the part of `auditstream-demo` (`bench/`) of that
//! name on it.

use std::fs;

use anyhow::{Context as _, Result};
use auditstream_stack::Stack;

use super::own_stack::Benchmark;

/// Settings of ClickHouse's Kafka engine that only the server's configuration takes; librdkafka's, with underscores. As the worker has them.
const KAFKA: &str = "<clickhouse>
  <kafka>
    <fetch_queue_backoff_ms>5</fetch_queue_backoff_ms>
    <fetch_wait_max_ms>100</fetch_wait_max_ms>
  </kafka>
</clickhouse>
";

/// The engine's inserts run under the server's own profile. Without this, each would sort out duplicates, which ours leave to the merges too.
const PROFILE: &str = "<clickhouse>
  <profiles>
    <stack_host>
      <optimize_on_insert>0</optimize_on_insert>
      <max_partitions_per_insert_block>0</max_partitions_per_insert_block>
    </stack_host>
  </profiles>
</clickhouse>
";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The base only, a million events, two rounds: about four minutes.
    #[arg(long)]
    quick: bool,
    /// Only these scenarios, such as `base,size`; see `auditstream-demo ingest --help`.
    #[arg(long, value_name = "SCENARIOS")]
    only: Option<String>,
    /// Also scenarios of up to so many rows; there is one of 50 million.
    #[arg(long, default_value_t = 10_000_000)]
    rows_up_to: u64,
    /// Write the results to bench/results/ingest.json, for the report.
    #[arg(long)]
    results: bool,
    /// Handed on to `auditstream-demo ingest`, such as `--rounds 5`; see its --help.
    #[arg(last = true)]
    more: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GrowthArgs {
    /// Write the results to bench/results/growth.json, for the report.
    #[arg(long)]
    results: bool,
    /// Handed on to `auditstream-demo growth`, such as `--rounds 5`; see its --help.
    #[arg(last = true)]
    more: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ProfileArgs {
    /// Write the results to bench/results/profile.json, for the report.
    #[arg(long)]
    results: bool,
    /// Handed on to `auditstream-demo profile`, such as `--rounds 5`; see its --help.
    #[arg(last = true)]
    more: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut more = vec!["--rows-up-to".to_owned(), args.rows_up_to.to_string()];
    if args.quick {
        more.push("--quick".to_owned());
    }
    if let Some(only) = &args.only {
        more.extend(["--only".to_owned(), only.clone()]);
    }
    more.extend(args.more.iter().cloned());
    measure("ingest", args.results, &more)
}

pub(crate) fn growth(args: &GrowthArgs) -> Result<()> {
    measure("growth", args.results, &args.more)
}

pub(crate) fn profile(args: &ProfileArgs) -> Result<()> {
    measure("profile", args.results, &args.more)
}

fn measure(name: &str, with_results: bool, more: &[String]) -> Result<()> {
    let benchmark = Benchmark {
        subcommand: name,
        results: with_results.then_some(name),
        with_registry: true,
        prepare: Some(configure),
        ..Benchmark::default()
    };
    benchmark.run(|bench| {
        bench.args(["--command", &typed(name)]).args(more);
    })
}

/// Gives ClickHouse what it reads at its start only.
fn configure(stack: &Stack) -> Result<()> {
    for (folder, text) in [("conf.d", KAFKA), ("users.d", PROFILE)] {
        let folder = stack.dir().join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
        let file = folder.join("bench.xml");
        fs::write(&file, text).with_context(|| format!("{} can't be written", file.display()))?;
    }
    stack.clickhouse().stop()?;
    stack.clickhouse().start()?;
    Ok(())
}

/// The command as it was typed, for whoever wants to repeat it.
fn typed(name: &str) -> String {
    let mut words = vec!["cargo", "xtask", "bench", name];
    let given: Vec<String> = std::env::args().skip(3).collect();
    words.extend(given.iter().map(String::as_str));
    words.join(" ")
}
