//! `cargo xtask sim-scaling`: how the number of workers follows a burst of events, from measured rates; a table and a plot.
//!
//! The chart's defaults are the ones of [`Scaling::default`], and a test holds them equal. Try others here before a cluster does.

mod model;
mod plot;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use self::model::{Load, Scaling, Worker, simulate};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the plots go: scaling-burst.svg and scaling-clickhouse.svg.
    #[arg(long, default_value = "docs", value_name = "FOLDER")]
    folder: PathBuf,
    /// Events a second before and after the burst.
    #[arg(long, default_value_t = 120_000.0)]
    arrivals: f64,
    /// Events a second in it.
    #[arg(long, default_value_t = 900_000.0)]
    burst: f64,
    /// Its length in seconds.
    #[arg(long, default_value_t = 600)]
    burst_seconds: usize,
    /// What one worker stores a second. Measured: 150,000, two workers beside Kafka and ClickHouse on two cores.
    #[arg(long, default_value_t = 150_000.0)]
    worker_rate: f64,
    /// Seconds from a pod that is wanted to one that reads; not measured, as most of it is the cluster's.
    #[arg(long, default_value_t = 15)]
    start_seconds: usize,
    /// Seconds in which partitions that move are not read; not measured.
    #[arg(long, default_value_t = 3)]
    rebalance_seconds: usize,
    /// What ClickHouse stores a second at most, in the second plot.
    #[arg(long, default_value_t = 400_000.0)]
    clickhouse: f64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 12)]
    partitions: usize,
    /// `eventsPerSecond` of the chart.
    #[arg(long)]
    events_per_second: Option<f64>,
    /// `drainSeconds` of the chart.
    #[arg(long)]
    drain_seconds: Option<f64>,
    /// `scaleDownStabilizationSeconds` of the chart.
    #[arg(long)]
    scale_down_seconds: Option<usize>,
}

/// The burst begins after so many seconds.
const QUIET: usize = 600;
const LENGTH: usize = 7_200;

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.worker_rate > 0.0 && args.clickhouse > 0.0, "--worker-rate, --clickhouse: must be above 0");
    ensure!(args.partitions > 0 && QUIET + args.burst_seconds < LENGTH, "--partitions, --burst-seconds: out of range");
    let mut scaling = Scaling::default();
    scaling.events_per_second = args.events_per_second.unwrap_or(scaling.events_per_second);
    scaling.drain_seconds = args.drain_seconds.unwrap_or(scaling.drain_seconds);
    scaling.scale_down_stabilization = args.scale_down_seconds.unwrap_or(scaling.scale_down_stabilization);
    ensure!(
        scaling.events_per_second > 0.0 && scaling.drain_seconds > 0.0,
        "--events-per-second, --drain-seconds: must be above 0"
    );
    fs::create_dir_all(&args.folder).with_context(|| format!("create {}", args.folder.display()))?;
    let (start, rebalance) = (args.start_seconds, args.rebalance_seconds);
    let worker = Worker { rate: args.worker_rate, start, rebalance };
    for (name, title, ceiling, holds) in [
        ("burst", "A burst, ClickHouse keeps up", f64::INFINITY, true),
        ("clickhouse", "The same burst, ClickHouse is the limit", args.clickhouse, true),
        ("clickhouse-without-hold", "ClickHouse is the limit, and nobody asks whether it is", args.clickhouse, false),
    ] {
        let load = Load {
            quiet: args.arrivals,
            burst: args.burst,
            from: QUIET,
            to: QUIET + args.burst_seconds,
            length: LENGTH,
            clickhouse: ceiling,
            partitions: args.partitions,
        };
        let run = simulate(&load, &worker, &Scaling { holds, ..scaling.clone() });
        let drained = run
            .drained_after(load.from + 1)
            .map_or("not within two hours".to_owned(), |s| format!("{s} s after its begin"));
        summary(title, &run, &drained);
        // The third is only to compare with.
        if holds {
            let file = args.folder.join(format!("scaling-{name}.svg"));
            fs::write(&file, plot::svg(title, &run)).with_context(|| format!("write {}", file.display()))?;
            eprintln!("  {}", file.display());
        }
    }
    Ok(())
}

fn summary(title: &str, run: &model::Run, drained: &str) {
    eprintln!("{title}");
    eprintln!("  most events waiting {:.0}; backlog gone {drained}", run.most_lag());
    eprintln!(
        "  most workers {}, changes {}, worker-hours {:.1}",
        run.most_workers(),
        run.changes(),
        run.worker_hours()
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn load(clickhouse: f64) -> Load {
        Load { quiet: 120_000.0, burst: 900_000.0, from: 600, to: 1_200, length: LENGTH, clickhouse, partitions: 12 }
    }

    const WORKER: Worker = Worker { rate: 150_000.0, start: 15, rebalance: 3 };

    #[test]
    fn a_burst_is_followed_and_drained_and_nothing_flaps() {
        let run = simulate(&load(f64::INFINITY), &WORKER, &Scaling::default());
        // Caught up with while it still lasts.
        assert!(run.drained_after(601).unwrap() <= 600, "{:?}", run.drained_after(601));
        assert!(run.most_workers() <= 12);
        assert_eq!(run.steps.last().unwrap().workers, 2, "back to the fewest");
        // Up, and then down one by one: no worker more than once.
        assert!(run.changes() <= 2 * 10, "{}", run.changes());
    }

    #[test]
    fn while_clickhouse_is_the_limit_no_worker_is_added() {
        let held = simulate(&load(400_000.0), &WORKER, &Scaling::default());
        let asked = simulate(&load(400_000.0), &WORKER, &Scaling { holds: false, ..Scaling::default() });
        assert!(held.most_workers() < asked.most_workers(), "{} and {}", held.most_workers(), asked.most_workers());
        // What is stored is the same: the workers were not what was missing.
        let late = held.drained_after(1_200).unwrap() as f64 / asked.drained_after(1_200).unwrap() as f64;
        assert!(late < 1.1, "{late}");
    }

    #[test]
    fn the_charts_defaults_are_the_simulated_ones() {
        let values = fs::read_to_string(crate::child::workspace().join("helm/auditstream/values.yaml")).unwrap();
        let value = |key: &str| -> f64 {
            let line = values.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
            line.unwrap().parse().unwrap()
        };
        let ours = Scaling::default();
        for (key, here) in [
            ("eventsPerSecond", ours.events_per_second),
            ("drainSeconds", ours.drain_seconds),
            ("pollingInterval", ours.polling_interval as f64),
            ("scaleUpStabilizationSeconds", ours.scale_up_stabilization as f64),
            ("scaleUpPods", ours.scale_up_pods as f64),
            ("scaleDownStabilizationSeconds", ours.scale_down_stabilization as f64),
            ("minReplicas", ours.min as f64),
        ] {
            assert_eq!(value(key), here, "{key}");
        }
    }
}
