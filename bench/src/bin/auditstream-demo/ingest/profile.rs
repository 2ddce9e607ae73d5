//! `auditstream-demo profile`: where the time goes between the topic and the table, and what other settings of the table would give.
//!
//! ClickHouse's part is told by its own events (`system.events`) and by variants of the table, each with the same ready-made blocks: their inserts
//! with merges stopped, then the merge of all of them. The worker's part is told by its threads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use auditstream_bench::results::{Results, Section};
use auditstream_bench::table::thousands;

use super::Bench;
use super::ceilings::{self, Blocks, Form, INSERT};
use super::drain::{Drained, drain_and, wait_for_rest};
use super::measure::say;
use super::report::show;
use super::scenario::{Load, Side};
use super::sql;
use super::stats::Sample;
use super::topic::Topic;
use super::versions::versions;
use crate::Common;
use crate::screen::Screen;

/// The table that variants are tried on.
const TABLE: &str = "bench_variant";
/// Blocks of a variant: with so many parts the table's own settings begin a merge (`min_parts_to_merge_at_once`).
const BLOCKS: u64 = 16;

/// Measures where the time goes, and what variants of the table take.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Events of a drain and of a variant.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=10_000_000))]
    events: u64,
    /// Mean bytes of an event as Avro; without it, as the generator makes them, about 300.
    #[arg(long, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    bytes: Option<u32>,
    /// Rounds, in each of which every variant is tried once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// The command to name in the results.
    #[arg(long, default_value = "auditstream-demo profile", hide = true)]
    command: String,
    /// Write the results here, for the report.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// Another table, or another way to insert.
#[derive(Debug, Clone, Copy)]
struct Variant {
    name: &'static str,
    /// Changes to the empty table, each a statement's end.
    changes: &'static [&'static str],
    /// More of the insert's settings, as in a URL; empty: none.
    settings: &'static str,
    with_token: bool,
    form: Form,
}

const NEWEST: &str = "DROP PROJECTION newest";
const WORDS: &str = "MODIFY COLUMN service String CODEC(ZSTD(1)), MODIFY COLUMN environment String CODEC(ZSTD(1)), MODIFY COLUMN action String CODEC(ZSTD(1)), \
    MODIFY COLUMN operation String CODEC(ZSTD(1)), MODIFY COLUMN actor_kind String CODEC(ZSTD(1)), MODIFY COLUMN outcome String CODEC(ZSTD(1)), \
    MODIFY COLUMN http_method String CODEC(ZSTD(1)), MODIFY COLUMN priority String CODEC(ZSTD(1)), MODIFY COLUMN producer_id String CODEC(ZSTD(1)), \
    MODIFY COLUMN _topic String CODEC(ZSTD(1))";
const TEXTS: &str = "MODIFY COLUMN entity_name String CODEC(LZ4), MODIFY COLUMN actor_id String CODEC(LZ4), MODIFY COLUMN actor_name String CODEC(LZ4), \
    MODIFY COLUMN actor_email String CODEC(LZ4), MODIFY COLUMN actor_session_id String CODEC(LZ4), MODIFY COLUMN on_behalf_of String CODEC(LZ4), \
    MODIFY COLUMN error_message String CODEC(LZ4), MODIFY COLUMN ip String CODEC(LZ4), MODIFY COLUMN user_agent String CODEC(LZ4), \
    MODIFY COLUMN request_id String CODEC(LZ4), MODIFY COLUMN correlation_id String CODEC(LZ4), MODIFY COLUMN trace_id String CODEC(LZ4), \
    MODIFY COLUMN http_path String CODEC(LZ4), MODIFY COLUMN details String CODEC(LZ4)";
const INDEXES: &str = "DROP INDEX by_event_id, DROP INDEX by_request_id, DROP INDEX by_correlation_id, DROP INDEX by_trace_id, DROP INDEX by_actor_id, \
    DROP INDEX by_ip, DROP INDEX by_word";

/// Nothing changed.
const PLAIN: Variant =
    Variant { name: "the table as it is", changes: &[], settings: "", with_token: true, form: Form::Native };

const VARIANTS: [Variant; 14] = [
    PLAIN,
    Variant { name: "rows as ArrowStream, as workers send them", form: Form::Arrow, ..PLAIN },
    Variant { name: "no deduplication token: ClickHouse hashes the rows", with_token: false, ..PLAIN },
    Variant { name: "no skip indexes", changes: &[INDEXES], ..PLAIN },
    Variant { name: "no index of the words of `details`", changes: &["DROP INDEX by_word"], ..PLAIN },
    Variant {
        name: "the index of words made by merges only",
        settings: "&exclude_materialize_skip_indexes_on_insert=by_word",
        ..PLAIN
    },
    Variant {
        name: "all skip indexes made by merges only",
        settings: "&materialize_skip_indexes_on_insert=0",
        ..PLAIN
    },
    Variant { name: "no projection for `freshness`", changes: &[NEWEST], ..PLAIN },
    Variant {
        name: "no fsync",
        changes: &["MODIFY SETTING fsync_after_insert = 0, fsync_part_directory = 0"],
        ..PLAIN
    },
    Variant { name: "no statistics of columns", changes: &["MODIFY SETTING auto_statistics_types = ''"], ..PLAIN },
    Variant {
        name: "merged parts compact, so merged row by row",
        changes: &["MODIFY SETTING min_bytes_for_wide_part = 10737418240"],
        ..PLAIN
    },
    Variant { name: "every part wide", changes: &["MODIFY SETTING min_bytes_for_wide_part = 0"], ..PLAIN },
    Variant { name: "words as String, not LowCardinality", changes: &[NEWEST, WORDS], ..PLAIN },
    Variant { name: "texts by LZ4, not ZSTD(1)", changes: &[TEXTS], ..PLAIN },
];

/// What a variant took.
#[derive(Debug, Clone, Copy)]
struct Tried {
    /// CPU-seconds of ClickHouse per million rows.
    insert: f64,
    merge: f64,
    /// On disk, when all is merged.
    bytes_a_row: f64,
}

/// ClickHouse's counters by name.
type Events = BTreeMap<String, u64>;

/// Measures, prints the tables, writes the file. Blocks.
pub(crate) fn run(args: &Args) -> Result<()> {
    let screen = Screen::new();
    let bench = Bench::new(&args.common, &screen)?;
    let topic = Topic::loaded(&bench, &Load { bytes: args.bytes, ..Load::base(args.events) })?;
    screen.say("\nwarm-up; it does not count");
    let mut ready = None;
    let look = || {
        let cut = |form| ceilings::blocks(&bench, &topic, args.events / BLOCKS, form);
        ready = Some((cut(Form::Native)?, cut(Form::Arrow)?));
        Ok(())
    };
    drain_and(&bench, &topic, Side::Ours(1), false, look)?;
    let (native, arrow) = ready.context("no blocks were cut")?;
    let (mut drains, mut counted) = (Vec::new(), Vec::new());
    let mut tried: Vec<Vec<Tried>> = vec![Vec::new(); VARIANTS.len()];
    for round in 1..=args.rounds {
        screen.say(&format!("\nround {round} of {}", args.rounds));
        let before = events(&bench)?;
        let mut after = Events::new();
        let look = || {
            after = events(&bench)?;
            Ok(())
        };
        let (drained, _) = drain_and(&bench, &topic, Side::Ours(1), false, look)?;
        say(&bench, Side::Ours(1), &drained);
        drains.push(drained);
        counted.push(difference(&before, &after));
        for (variant, tried) in VARIANTS.iter().zip(&mut tried) {
            let ready = if variant.form == Form::Arrow { &arrow } else { &native };
            let one = attempt(&bench, ready, *variant).with_context(|| variant.name)?;
            screen.say(&format!("  {}: insert {:.2}, merge {:.2}", variant.name, one.insert, one.merge));
            tried.push(one);
        }
    }
    topic.remove(&bench)?;
    let mut results = Results::new("profile", "Where the time goes, and what was tried", &args.command);
    results.versions = versions(&bench)?;
    results.settings.insert(
        "the events".to_owned(),
        format!(
            "{} of about {} Avro bytes, lz4, 6 partitions; {} rounds",
            thousands(args.events),
            thousands(args.bytes.map_or(300, u64::from)),
            args.rounds
        ),
    );
    results.sections = vec![threads_section(&drains), events_section(&counted, args.events), variants_section(&tried)];
    show(&screen, &results);
    if let Some(path) = &args.results {
        results.write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    Ok(())
}

/// Inserts the blocks into a table like that of the events, but for the variant's changes, and lets it merge them.
fn attempt(bench: &Bench<'_>, ready: &Blocks, variant: Variant) -> Result<Tried> {
    let (server, database) = (&bench.server, bench.server.database());
    let table = format!("{database}.{TABLE}");
    let remove = format!("DROP TABLE IF EXISTS {table} SYNC");
    server.text(&remove)?;
    server.text(&format!("CREATE TABLE {table} AS {database}.events"))?;
    for change in variant.changes {
        server.text(&format!("ALTER TABLE {table} {change}"))?;
    }
    server.text(&format!("SYSTEM STOP MERGES {table}"))?;
    let (statement, run) = (sql::insert(database, TABLE, variant.form), bench.next());
    let begun = server.cpu()?;
    for (number, block) in ready.blocks.iter().enumerate() {
        let token = if variant.with_token { format!("variant-{run}-{number}") } else { String::new() };
        server.insert(
            &statement,
            &format!("{INSERT}{}&insert_deduplication_token={token}", variant.settings),
            block,
        )?;
    }
    let inserted = server.cpu()?;
    server.text(&format!("SYSTEM START MERGES {table}"))?;
    wait_for_rest(bench)?;
    let parts = format!("FROM system.parts WHERE active AND database = '{database}' AND table = '{TABLE}'");
    if server.number(&format!("SELECT count() {parts}"))? > 1 {
        // What the table's settings have left apart.
        server.text(&format!("OPTIMIZE TABLE {table} FINAL"))?;
    }
    let merged = server.cpu()?;
    let count = server.number(&format!("SELECT count() FROM {table}"))?;
    ensure!(count == ready.events, "{count} rows are there, {} were inserted", ready.events);
    let bytes = server.number(&format!("SELECT sum(bytes_on_disk) {parts}"))?;
    server.text(&remove)?;
    let per_million = |cpu: Duration| cpu.as_secs_f64() * 1e6 / ready.events as f64;
    Ok(Tried {
        insert: per_million(inserted.saturating_sub(begun)),
        merge: per_million(merged.saturating_sub(inserted)),
        bytes_a_row: bytes as f64 / ready.events as f64,
    })
}

fn events(bench: &Bench<'_>) -> Result<Events> {
    let text = bench.server.text("SELECT event, value FROM system.events")?;
    let line = |line: &str| {
        let (name, value) = line.split_once('\t')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().map(|one| line(one).with_context(|| format!("system.events answered `{one}`"))).collect()
}

/// What was counted in between; a counter that was not there stood at 0.
fn difference(before: &Events, after: &Events) -> Events {
    after
        .iter()
        .map(|(name, value)| (name.clone(), value.saturating_sub(before.get(name).copied().unwrap_or(0))))
        .collect()
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

fn threads_section(drains: &[Drained]) -> Section {
    let mut by_name: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for drained in drains {
        for (name, cpu) in &drained.threads {
            by_name.entry(name).or_default().push(drained.per_million(*cpu));
        }
    }
    let all = Sample::of(drains, |one| one.per_million(one.sink)).median();
    let mut rows: Vec<(f64, Vec<String>)> = by_name
        .into_iter()
        .map(|(name, values)| {
            let sample = Sample(values);
            let median = sample.median();
            (median, vec![name.to_owned(), sample.text(2), format!("{:.0}", 100.0 * median / all)])
        })
        .filter(|(median, _)| *median >= 0.005)
        .collect();
    rows.sort_by(|one, other| other.0.total_cmp(&one.0));
    Section {
        title: "The worker, by its threads".to_owned(),
        text: texts(&[
            "CPU-seconds per million events while one worker drains the topic; the names are the kernel's. `rdk:` are librdkafka's: the fetch, with the \
             checksums and lz4.",
        ]),
        columns: texts(&["thread", "CPU-s per million", "% of the worker"]),
        rows: rows.into_iter().map(|(_, row)| row).collect(),
        ..Section::default()
    }
}

/// Counters of ClickHouse in microseconds or milliseconds: their names, and what they mean.
const TIMES: [(&str, f64, &str); 13] = [
    ("OSCPUVirtualTimeMicroseconds", 1e6, "CPU time of inserts, questions and merges"),
    ("InsertQueryTimeMicroseconds", 1e6, "time of the inserts, waiting for the network included"),
    ("MergeTreeDataWriterSortingBlocksMicroseconds", 1e6, "of it, sorting the rows"),
    ("MergeTreeDataWriterSkipIndicesCalculationMicroseconds", 1e6, "of inserts and merges, the skip indexes"),
    ("MergeTreeDataWriterProjectionsCalculationMicroseconds", 1e6, "of the inserts, the projection for `freshness`"),
    ("DuplicationElapsedMicroseconds", 1e6, "of the inserts, looking whether it was there before"),
    ("FileSyncElapsedMicroseconds", 1e6, "of the inserts, fsync of files"),
    ("DirectorySyncElapsedMicroseconds", 1e6, "of the inserts, fsync of folders"),
    ("MergeTotalMilliseconds", 1e3, "time of the merges that ended meanwhile"),
    ("MergeHorizontalStageTotalMilliseconds", 1e3, "of it, sorting key and version, or rows as a whole"),
    ("MergeVerticalStageTotalMilliseconds", 1e3, "of it, the other columns, one by one"),
    ("GatheringColumnMilliseconds", 1e3, "of that, putting values in order"),
    ("MergeTreeDataWriterStatisticsCalculationMicroseconds", 1e6, "of the merges, statistics of columns"),
];

fn events_section(counted: &[Events], events: u64) -> Section {
    let row = |(name, unit, meaning): &(&str, f64, &str)| {
        let sample =
            Sample::of(counted, |one| one.get(*name).copied().unwrap_or(0) as f64 / unit * 1e6 / events as f64);
        vec![(*meaning).to_owned(), format!("`{name}`"), sample.text(2)]
    };
    Section {
        title: "ClickHouse, by its own counters".to_owned(),
        text: texts(&[
            "While one worker drains the topic, from before its start until all rows are there and compared. Seconds per million events; those of the first \
             line are of the CPU, the others by the clock, of all threads.",
        ]),
        columns: texts(&["what", "counter", "s per million"]),
        rows: TIMES.iter().map(row).collect(),
        ..Section::default()
    }
}

fn variants_section(tried: &[Vec<Tried>]) -> Section {
    let figure = |all: &[Tried], of: fn(&Tried) -> f64| Sample::of(all, of);
    let base = tried.first().map_or(f64::NAN, |all| figure(all, |one| one.insert + one.merge).median());
    let row = |(variant, all): (&Variant, &Vec<Tried>)| {
        let both = figure(all, |one| one.insert + one.merge);
        vec![
            variant.name.to_owned(),
            figure(all, |one| one.insert).text(2),
            figure(all, |one| one.merge).text(2),
            both.text(2),
            format!("{:.2}", both.median() / base),
            format!("{:.1}", figure(all, |one| one.bytes_a_row).median()),
        ]
    };
    Section {
        title: "Other tables, other inserts".to_owned(),
        text: texts(&[
            "The same ready-made blocks, sixteen of them, inserted one after the other while merges are stopped, then merged to one part. CPU-seconds of the \
             whole server per million rows.",
        ]),
        columns: texts(&["variant", "inserts", "merge", "both", "x", "bytes a row"]),
        rows: VARIANTS.iter().zip(tried).map(row).collect(),
        ..Section::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_differences() {
        let of = |all: &[(&str, u64)]| all.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<Events>();
        let counted = difference(&of(&[("a", 5)]), &of(&[("a", 7), ("FileSyncElapsedMicroseconds", 3_000_000)]));
        assert_eq!((counted["a"], counted["FileSyncElapsedMicroseconds"]), (2, 3_000_000));
        let rows = events_section(&[counted], 2_000_000).rows;
        assert!(rows.iter().any(|row| row[1] == "`FileSyncElapsedMicroseconds`" && row[2] == "1.50"), "{rows:?}");
    }

    #[test]
    fn threads_are_sorted_and_those_of_nothing_left_out() {
        let seconds = |value: f64| Duration::from_secs_f64(value);
        let threads = [("a", 0.5), ("b", 1.5), ("c", 0.001)].map(|(name, cpu)| (name.to_owned(), seconds(cpu)));
        let drained = Drained { events: 1_000_000, sink: seconds(2.0), threads: threads.into(), ..Drained::default() };
        assert_eq!(threads_section(&[drained]).rows, [["b", "1.50", "75"], ["a", "0.50", "25"]]);
    }

    #[test]
    fn variants_are_held_against_the_first() {
        let tried = |insert, merge| vec![Tried { insert, merge, bytes_a_row: 90.0 }];
        let rows = variants_section(&[tried(2.0, 4.0), tried(1.0, 2.0)]).rows;
        assert_eq!(rows[0][1..], ["2.00", "4.00", "6.00", "1.00", "90.0"]);
        assert_eq!(rows[1][4], "0.50");
    }
}
