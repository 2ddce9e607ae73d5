//! `auditstream-demo freshness`: how long after it was recorded an event is queryable, while others come at a fixed rate.
//!
//! The events are recorded by the producer library at fixed times and carry these times. While workers store them, a watcher asks every few
//! milliseconds what is stored ([`watch`]); afterwards the table is read back, and for each event it is computed when an answer held it first ([`seen`]).
//! So nothing is sampled, and nobody is left out because the load had to wait ([`load`]).

mod load;
mod results;
mod run;
mod seen;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use auditstream_bench::clickhouse::Asker;
use auditstream_bench::results::median;
use auditstream_bench::table::{Table, thousands};
use auditstream_bench::versions;
use auditstream_stack::Role;

use crate::producer::Events;
use crate::run::Demo;
use crate::screen::Screen;
use crate::{Common, setup};
use load::Offered;

/// Of the maximum, the highest rate that is measured.
const SHARE: f64 = 0.8;

/// Measures freshness under load.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Events a second, one run for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000], value_parser = clap::value_parser!(u32).range(10..=2_000_000))]
    rates: Vec<u32>,
    /// Length of a run that counts, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Seconds at the same rate before it.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=600))]
    warm_up: u32,
    /// Rounds, each with every rate.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Events of the runs that find the maximum.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(100_000..=50_000_000))]
    events: u64,
    /// Pause between two questions of the watcher, in milliseconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    poll_ms: u64,
    /// Write the figures here for the report.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// What one run of one rate measured.
#[derive(Debug, Clone, Copy)]
struct Run {
    offered: Offered,
    /// Milliseconds.
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
    /// By how much these are too long, on average.
    too_long: f64,
    /// From one answer of the watcher to the next, in the middle and of 99 in 100 at most.
    poll: (f64, f64),
    /// Cores in use: this process, Kafka, the workers, ClickHouse.
    cores: [f64; 4],
    /// From the first event to the last answer, events a second.
    end_to_end: f64,
}

/// A rate with a number of workers, and its runs.
struct Measured {
    workers: u32,
    rate: u32,
    /// Whether the rate is [`SHARE`] of what these workers reached.
    is_share: bool,
    runs: Vec<Run>,
}

/// What the runs share.
struct Bench<'a> {
    args: &'a Args,
    demo: Demo<'a>,
    admin: Asker,
    events: Arc<Events>,
    /// No event's number is given twice.
    next: u64,
}

/// Runs it all, prints the table, writes the file.
pub(crate) async fn bench(args: &Args, screen: &Screen) -> Result<()> {
    let demo = Demo::new(&args.common, 0, screen)?;
    setup::tables_and_topics(&demo).await?;
    let admin = Asker::new(&demo.target, Role::Admin);
    let there = admin.number("SELECT count() FROM events").await?;
    ensure!(there == 0, "the table has events: this needs a stack of its own");
    let seed = args.common.seed;
    let events = tokio::task::spawn_blocking(move || Events::new(seed)).await.context("a thread ended badly")?;
    let mut bench = Bench { args, demo, admin, events: Arc::new(events), next: 0 };

    screen.say("\nThe most that goes through from `record` to ClickHouse, everything on this machine");
    let mut maxima = Vec::new();
    for workers in [1, 2] {
        let mut rates = Vec::new();
        for number in 0..3 {
            let run = bench.run(workers, None).await?;
            // The first warms the servers up.
            if number > 0 {
                screen.say(&format!("  {}: {} events a second", of_workers(workers), thousands(run.end_to_end as u64)));
                rates.push(run.end_to_end);
            }
        }
        maxima.push((workers, median(&rates)));
    }
    let mut all = cases(&args.rates, &maxima);
    for round in 1..=args.rounds {
        screen.say(&format!(
            "\nround {round} of {}: {} s at each rate, after {} s that don't count",
            args.rounds, args.seconds, args.warm_up
        ));
        for measured in &mut all {
            let run = bench.run(measured.workers, Some(measured.rate)).await?;
            screen.say(&format!(
                "  {}, {} a second ({} reached): p50 {:.0} ms, p99 {:.0} ms, p99.9 {:.0} ms; cores in use {:.2}",
                of_workers(measured.workers),
                thousands(u64::from(measured.rate)),
                thousands(run.offered.per_second as u64),
                run.p50,
                run.p99,
                run.p999,
                run.cores.iter().sum::<f64>()
            ));
            measured.runs.push(run);
        }
    }
    let mut results = results::of(args, &maxima, &all);
    results.versions = versions::with_clickhouse(&bench.demo.analyst).await?;
    for section in results.sections.iter().filter(|section| !section.columns.is_empty()) {
        let table = Table { names: section.columns.clone(), rows: section.rows.clone() };
        screen.say(&format!("\n{}", table.render(2)));
    }
    if let Some(path) = &args.results {
        results.write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    Ok(())
}

fn of_workers(workers: u32) -> &'static str {
    if workers == 1 { "one worker" } else { "two workers" }
}

/// Every rate with one worker, the highest with two as well, and the share of each one's maximum.
fn cases(rates: &[u32], maxima: &[(u32, f64)]) -> Vec<Measured> {
    let highest = rates.iter().max().copied();
    let mut all = Vec::new();
    for (workers, most) in maxima {
        let given = rates.iter().copied().filter(|rate| *workers == 1 || Some(*rate) == highest);
        all.extend(given.map(|rate| (rate, false)).map(|(rate, is_share)| (*workers, rate, is_share)));
        // Whole thousands, as the others.
        let share = ((most * SHARE / 1e3) as u32).max(1) * 1_000;
        all.push((*workers, share, true));
    }
    let measured = |(workers, rate, is_share)| Measured { workers, rate, is_share, runs: Vec::new() };
    all.into_iter().map(measured).collect()
}
