//! `auditstream-demo queries`: what an analyst's questions take, on a stack that is up, and what the indexes that make them fast cost.
//!
//! Events are made inside ClickHouse and inserted as workers insert them. Each question of docs/queries.md is asked by the analyst's user: on settled
//! partitions, and again with the newest hour unmerged and one row in a hundred of it a duplicate.

mod bounds;
mod catalogue;
mod cold;
mod insert;
pub(crate) mod postgres;
mod report;
mod results;
mod seed;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use auditstream_bench::table::thousands;
use auditstream_bench::versions;
use auditstream_stack::Role;
use tokio::runtime::Handle;

use crate::screen::Screen;
use crate::server::Server;
use crate::{Common, setup};
use bounds::{Bounds, Unmerged};
use catalogue::{Names, Question};
use report::{Measured, Report, Scan, Sizes};
use seed::Plan;

/// A question that takes longer is asked less often.
const MOST_FOR_ONE: Duration = Duration::from_secs(4);

/// Measures the questions of docs/queries.md on generated events: time, rows and bytes read, bytes on disk, cost of the indexes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Events in the table, over a hundred days.
    #[arg(long, default_value_t = 50_000_000, value_parser = clap::value_parser!(u64).range(100_000..=1_000_000_000))]
    rows: u64,
    /// Events of the newest hour, which is not merged.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(2_000..=10_000_000))]
    newest: u64,
    /// How often each question is asked, once more to warm up.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// How often each question is asked with nothing of the table in memory; 0: not at all.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100))]
    cold: u32,
    /// Write the figures here, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write docs/queries.md with this run's times here.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Write the figures here for the report.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// Runs it all, prints the tables, writes the files. Blocks.
pub(crate) fn run(args: &Args) -> Result<()> {
    let screen = Screen::new();
    let target = args.common.target()?;
    let questions = catalogue::questions()?;
    Handle::current().block_on(setup::auditstream_with(
        &screen,
        &target,
        &args.common.program()?,
        &["migrate"],
        &[],
    ))?;
    let (admin, analyst) = (Server::new(&target, Role::Admin)?, Server::new(&target, Role::Analyst)?);
    let plan = Plan::new(args.rows);
    ensure!(admin.text("SELECT count() FROM events")? == "0", "the table has events: this needs a stack of its own");

    let begun = Instant::now();
    screen.say(&format!("  {} events over a hundred days", thousands(args.rows)));
    plan.insert(&admin, 0, args.rows)?;
    let seeded = begun.elapsed();
    seed::settle(&admin)?;
    screen.say(&format!(
        "    inserted in {:.0} s, merged {:.0} s later",
        seeded.as_secs_f64(),
        (begun.elapsed() - seeded).as_secs_f64()
    ));
    let sizes = Sizes::read(&admin)?;
    let inserts = insert::measure(&admin, plan)?;
    let names = Names::choose(&analyst)?;

    screen.say("  questions on settled partitions");
    let mut settled = ask_all(&analyst, &questions, &names, args.runs, &screen)?;
    let scan_settled = scan(&admin, &analyst, args.runs)?;
    let bounds_settled = bounds_of(&admin, &analyst, &questions, &names)?;
    if args.cold > 0 {
        screen.say("  the same with nothing of the table in memory");
        let caches = cold::Caches::find(&admin, &target)?;
        for (question, measured) in questions.iter().zip(&mut settled) {
            let cold = caches.ask(&analyst, &names.apply(&question.sql), args.cold)?;
            screen.say(&format!("    {:>2}. {} {:.1} ms", question.number, question.title, cold.ms));
            measured.cold = Some(cold);
        }
    }
    screen.say(&format!("  the newest hour: {} events, not merged", thousands(args.newest)));
    admin.text("SYSTEM STOP MERGES events")?;
    let copies = plan.insert_newest_hour(&admin, args.newest)?;
    // What everything else rests on: each identity once, for an analyst and in the view, with copies there.
    let identities = admin.text("SELECT uniqExact(tenant_id, event_id, content_hash) FROM events")?;
    let plain = admin.number("SELECT count() FROM events")?;
    ensure!(
        copies > 0 && plain - copies == identities.parse::<u64>()?,
        "{copies} copies, {plain} rows, {identities} events"
    );
    for counted in ["SELECT count() FROM events", "SELECT count() FROM events_once", "SELECT sum(events) FROM hourly"] {
        let counted_as = analyst.text(counted)?;
        ensure!(counted_as == identities, "{counted}: {counted_as}, and there are {identities} events");
    }
    let unmerged = ask_all(&analyst, &questions, &names, args.runs, &screen)?;
    let scan_unmerged = scan(&admin, &analyst, args.runs)?;
    let bounds_unmerged = bounds_of(&admin, &analyst, &questions, &names)?;
    let bounds = bounds_settled.into_iter().zip(bounds_unmerged);
    let bounds = bounds.map(|((number, settled), (_, unmerged))| (number, [settled, unmerged])).collect();
    let unmerged_rows = Unmerged::measure(&admin)?;

    let report = Report {
        rows: args.rows,
        newest: args.newest,
        copies,
        runs: args.runs,
        questions,
        settled,
        unmerged,
        scan_settled,
        scan_unmerged,
        sizes,
        inserts,
        bounds,
        unmerged_rows,
    };
    screen.say(&report.text());
    if let Some(path) = &args.json {
        report.write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    if let Some(path) = &args.results {
        let mut results = results::of(&report);
        results.versions = versions::with_kafka();
        results.versions.insert("ClickHouse".to_owned(), admin.text("SELECT version()")?);
        results.write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    if let Some(path) = &args.page {
        std::fs::write(path, catalogue::page_with(&report.page_table())?)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    Ok(())
}

fn ask_all(
    analyst: &Server,
    questions: &[Question],
    names: &Names,
    runs: u32,
    screen: &Screen,
) -> Result<Vec<Measured>> {
    let measured = questions.iter().map(|question| {
        let measured = measure(analyst, &names.apply(&question.sql), runs)?;
        screen.say(&format!("    {:>2}. {} {:.1} ms", question.number, question.title, measured.p50_ms));
        Ok(measured)
    });
    measured.collect()
}

/// Of the questions that have a target, by number and in their order.
fn bounds_of(admin: &Server, analyst: &Server, questions: &[Question], names: &Names) -> Result<Vec<(usize, Bounds)>> {
    let with_target = questions.iter().filter(|question| report::wanted(&question.title).is_some());
    let bounds = with_target.map(|question| {
        let bounds = Bounds::measure(admin, analyst, &names.apply(&question.sql))?;
        Ok((question.number, bounds))
    });
    bounds.collect()
}

/// Once to warm up, then `runs` times, fewer when it is slow.
fn measure(server: &Server, sql: &str, runs: u32) -> Result<Measured> {
    let first = server.ask(sql, "")?;
    let begun = Instant::now();
    let mut took = Vec::new();
    while took.len() < runs as usize && (took.len() < 3 || begun.elapsed() < MOST_FOR_ONE) {
        took.push(server.ask(sql, "")?.took.as_secs_f64() * 1e3);
    }
    Ok(Measured {
        p50_ms: percentile(&took, 0.5),
        p95_ms: percentile(&took, 0.95),
        runs: took.len(),
        read_rows: first.read_rows,
        read_bytes: first.read_bytes,
        answer_rows: first.text.lines().count(),
        cold: None,
    })
}

/// The value below or at which that share of `values` lies; not a number when there are none.
fn percentile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let place = (values.len() as f64 * share).ceil() as usize;
    values.get(place.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// A question that reads every event: as an analyst, and plainly, which counts duplicates too.
fn scan(admin: &Server, analyst: &Server, runs: u32) -> Result<Scan> {
    let sql = "SELECT action, count() AS events, countIf(outcome != 'SUCCESS') AS unsuccessful FROM events GROUP BY action ORDER BY events DESC";
    Ok(Scan { plain: measure(admin, sql, runs)?, once: measure(analyst, sql, runs)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.95, 1.0].map(|share| percentile(&values, share)), [1.0, 10.0, 19.0, 20.0]);
        assert_eq!(percentile(&[7.0], 0.95), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
