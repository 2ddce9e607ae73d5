//! `auditstream-demo queries-postgres`: the questions that have a target, and two over everything, asked of the same events in ClickHouse and in PostgreSQL.
//!
//! PostgreSQL gets the table and the indexes that people make for an audit trail (`table.sql`, `indexes.sql`). Every answer is compared: one that
//! is not the same on both sides ends the run.

mod answers;
mod database;
mod plan;
mod questions;
mod report;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use auditstream_bench::table::thousands;
use auditstream_stack::Role;
use sqlx::postgres::PgRow;
use tokio::runtime::Handle;

use super::catalogue::Names;
use super::cold::{Caches, Cold};
use super::report::{Sizes, columns};
use super::seed::{self, Plan};
use super::{MOST_FOR_ONE, percentile};
use crate::screen::Screen;
use crate::server::{Answer, Server};
use crate::{Common, setup};
use database::{Database, Step};
use questions::Question;
use report::{Compared, Report, Side};

/// Asks the same questions of the same events in ClickHouse and in PostgreSQL: time, rows and bytes read, cold and warm, and bytes on disk.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Events in each table, over a hundred days.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    rows: u64,
    /// How often each question is asked, once more to warm up.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// How often each question is asked with nothing of the tables in memory; 0: not at all.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100))]
    cold: u32,
    /// Write the figures here, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the figures here for the report.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// Runs it all, prints the tables, writes the files. Blocks.
pub(crate) fn run(args: &Args) -> Result<()> {
    let screen = Screen::new();
    let target = args.common.target()?;
    Handle::current().block_on(setup::auditstream_with(
        &screen,
        &target,
        &args.common.program()?,
        &["migrate"],
        &[],
    ))?;
    let (admin, analyst) = (Server::new(&target, Role::Admin)?, Server::new(&target, Role::Analyst)?);
    ensure!(admin.text("SELECT count() FROM events")? == "0", "the table has events: this needs a stack of its own");
    let mut database = Database::start()?;

    screen.say(&format!("  {} events over a hundred days, in ClickHouse", thousands(args.rows)));
    let mut load_clickhouse = Vec::new();
    let plan = Plan::new(args.rows);
    step(&admin, &mut load_clickhouse, "INSERT SELECT, which makes the events too; all indexes", || {
        plan.insert(&admin, 0, args.rows)
    })?;
    step(&admin, &mut load_clickhouse, "merged to one part a month", || seed::settle(&admin))?;
    screen.say("  the same in PostgreSQL");
    let load_postgres = database.load(&admin, args.rows)?;
    for step in load_clickhouse.iter().chain(&load_postgres) {
        screen.say(&format!("    {}: {:.0} s", step.what, step.wall_s));
    }
    let (mut sizes_clickhouse, sizes_postgres) = (Sizes::read(&admin)?, database.sizes()?);
    if admin.text("SELECT count() FROM system.parts WHERE active AND database = currentDatabase() AND table = 'events' AND part_type != 'Wide'")? != "0" {
        sizes_clickhouse.columns = columns_apart(&admin)?;
    }

    let questions = questions::all(&Names::choose(&analyst)?)?;
    let caches = Caches::find(&admin, &target)?;
    screen.say("  each question of both in turns, and the answers compared");
    let mut compared = Vec::new();
    for question in questions {
        let mut one = warm(&analyst, &mut database, question, args.runs)?;
        screen.say(&format!(
            "    {}: {:.1} ms, PostgreSQL {:.1} ms",
            one.question.title, one.clickhouse.p50_ms, one.postgres.p50_ms
        ));
        one.plan = Some(database.plan(&one.question.postgres)?);
        compared.push(one);
    }
    if args.cold > 0 {
        screen.say("  the same with nothing of the tables in memory");
        for one in &mut compared {
            cold(&caches, &analyst, &mut database, one, args.cold)?;
            let times = [&one.clickhouse, &one.postgres].map(|side| Cold::text(side.cold.as_ref()));
            screen.say(&format!("    {}: {} ms, PostgreSQL {} ms", one.question.title, times[0], times[1]));
        }
    }

    let report = Report {
        rows: args.rows,
        runs: args.runs,
        compared,
        load_clickhouse,
        load_postgres,
        sizes_clickhouse,
        sizes_postgres,
        version_clickhouse: admin.text("SELECT version()")?,
        version_postgres: database.version()?,
        dropped: caches.statements().to_vec(),
        is_one_device: device(&target.state().dir)? == device(database.folder())?,
    };
    screen.say(&report.text());
    if let Some(path) = &args.json {
        report.write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    if let Some(path) = &args.results {
        report.results().write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    Ok(())
}

/// What a step of ClickHouse's load took, merges meanwhile included.
fn step(server: &Server, steps: &mut Vec<Step>, what: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (begun, cpu) = (Instant::now(), server.cpu()?);
    work()?;
    let cpu_s = server.cpu()?.saturating_sub(cpu).as_secs_f64();
    steps.push(Step { what, wall_s: begun.elapsed().as_secs_f64(), cpu_s });
    Ok(())
}

/// Bytes an event by column, from a copy that has each column in files of its own; parts of less than 256 MiB have all in one, and do not tell.
fn columns_apart(server: &Server) -> Result<Vec<(String, f64)>> {
    server.text("DROP TABLE IF EXISTS bench_wide SYNC")?;
    server.text("CREATE TABLE bench_wide AS events")?;
    server.text("ALTER TABLE bench_wide MODIFY SETTING min_bytes_for_wide_part = 0")?;
    server.ask("INSERT INTO bench_wide SELECT * FROM events", "optimize_on_insert=0")?;
    server.text("OPTIMIZE TABLE bench_wide FINAL")?;
    let columns = columns(server, "bench_wide")?;
    server.text("DROP TABLE bench_wide SYNC")?;
    Ok(columns)
}

/// Once each to warm up and to compare, then in turns; fewer turns when one side is slow.
fn warm(analyst: &Server, database: &mut Database, question: Question, runs: u32) -> Result<Compared> {
    let sql = in_rows(&question.clickhouse);
    let (first, (rows, _)) = (analyst.ask(&sql, "")?, database.ask(&question.postgres)?);
    let answer_rows = same(&question, &first, &rows)?;
    let (mut clickhouse, mut postgres) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    while clickhouse.len() < runs as usize && (clickhouse.len() < 3 || begun.elapsed() < 2 * MOST_FOR_ONE) {
        clickhouse.push(analyst.ask(&sql, "")?.took.as_secs_f64() * 1e3);
        postgres.push(database.ask(&question.postgres)?.1.as_secs_f64() * 1e3);
    }
    let side = |times: &[f64]| Side { p50_ms: percentile(times, 0.5), p95_ms: percentile(times, 0.95), cold: None };
    Ok(Compared {
        clickhouse: side(&clickhouse),
        postgres: side(&postgres),
        runs: clickhouse.len(),
        answer_rows,
        read_rows: first.read_rows,
        read_bytes: first.read_bytes,
        plan: None,
        question,
    })
}

/// In turns, each time with nothing in memory.
fn cold(caches: &Caches, analyst: &Server, database: &mut Database, one: &mut Compared, runs: u32) -> Result<()> {
    let sql = in_rows(&one.question.clickhouse);
    let (mut clickhouse, mut postgres) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (answer, run) = caches.ask_once(analyst, &sql)?;
        clickhouse.push(run);
        let (rows, run) = database.ask_cold(&one.question.postgres)?;
        postgres.push(run);
        same(&one.question, &answer, &rows)?;
    }
    one.clickhouse.cold = Some(Cold::of(&clickhouse));
    one.postgres.cold = Some(Cold::of(&postgres));
    Ok(())
}

/// The statement with its answer in a form that tells a text from a list.
fn in_rows(sql: &str) -> String {
    format!("{sql}\nFORMAT JSONCompactEachRow")
}

/// How many rows both answers have; an error when they are not the same.
fn same(question: &Question, clickhouse: &Answer, postgres: &[PgRow]) -> Result<usize> {
    let clickhouse = answers::of_clickhouse(&clickhouse.text)?;
    let postgres = answers::of_postgres(postgres)?;
    match answers::difference(&clickhouse, &postgres, question.is_ordered) {
        None => Ok(clickhouse.len()),
        Some(difference) => bail!("{} The answers differ: {difference}", question.title),
    }
}

/// Which disk a folder is on.
fn device(folder: &Path) -> Result<u64> {
    Ok(std::fs::metadata(folder).with_context(|| format!("{} can't be looked at", folder.display()))?.dev())
}
