//! What the results of `ingest` say: tables, plots and goals, all computed from what was measured.

use std::time::Duration;

use anyhow::Result;
use auditstream_bench::results::{Axis, Goal, Machine, Plot, Results, Section, Series};
use auditstream_bench::table::{Table, thousands};
use auditstream_producer::Compression;

use super::Bench;
use super::ceilings::Ceiling;
use super::drain::Drained;
use super::measure::{All, Measured};
use super::scenario::{Factor, Side};
use super::stats::Sample;
use super::versions::versions;
use crate::screen::Screen;

const ONE: Side = Side::Ours(1);
const TWO: Side = Side::Ours(2);

pub(super) fn results(bench: &Bench<'_>, all: &All, command: &str) -> Result<Results> {
    let mut results = Results::new("ingest", "Ingest, side by side", command);
    results.versions = versions(bench)?;
    let mut set = |name: &str, value: String| results.settings.insert(name.to_owned(), value);
    set("workers", "the defaults of `auditstream consume`, with the address of the schema registry".to_owned());
    set("ClickHouse's Kafka engine", bench.engine.get().text());
    set(
        "the events",
        "Avro in Confluent's wire format, under one schema id of the registry; acks=all, with the producer's headers"
            .to_owned(),
    );
    if let Some(base) = &all.base {
        set(
            "base",
            format!(
                "{} events of {:.0} Avro bytes (frame included), {}, {} partitions, {} rounds in which the sides take turns",
                thousands(base.scenario.load.events),
                base.mean_bytes(),
                base.scenario.load.compression.as_str(),
                base.scenario.load.partitions,
                base.scenario.rounds
            ),
        );
        results.sections.push(side_by_side(base));
        results.sections.push(ceilings(base));
    }
    let of = |factor: Factor| {
        let base = all.base.iter().filter(move |_| factor != Factor::Base);
        base.chain(all.others.iter().filter(move |one| one.scenario.factor == factor)).collect::<Vec<_>>()
    };
    for factor in [Factor::Size, Factor::Compression, Factor::Partitions, Factor::Rows] {
        let measured = of(factor);
        if measured.iter().any(|one| one.scenario.factor == factor) {
            results.sections.push(factor_section(factor, measured));
        }
    }
    if !all.tried.is_empty() {
        results.sections.push(tried(all));
    }
    results.sections.push(left_out());
    results.goals = goals(all);
    Ok(results)
}

/// The tables and goals on the screen.
pub(super) fn show(screen: &Screen, results: &Results) {
    for Section { title, text, columns, rows, .. } in &results.sections {
        screen.say(&format!("\n{title}"));
        for paragraph in text {
            screen.say(&format!("  {paragraph}"));
        }
        if !columns.is_empty() {
            screen.say(&Table { names: columns.clone(), rows: rows.clone() }.render(2));
        }
    }
    screen.say("");
    for Goal { what, wanted, got, reached, bound_by } in &results.goals {
        let verdict = if *reached { "reached" } else { "NOT REACHED" };
        screen.say(&format!("  {what}: {got}, wanted {wanted}: {verdict}"));
        if !bound_by.is_empty() {
            screen.say(&format!("    {bound_by}"));
        }
    }
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

fn thousands_per_second(drains: &[Drained]) -> Sample {
    Sample::of(drains, |one| one.per_second() / 1e3)
}

fn cpu(drains: &[Drained], of: impl Fn(&Drained) -> Duration) -> Sample {
    Sample::of(drains, |one| one.per_million(of(one)))
}

/// Of another side's median rate.
fn times(one: &[Drained], other: &[Drained]) -> f64 {
    thousands_per_second(one).median() / thousands_per_second(other).median()
}

fn side_by_side(base: &Measured) -> Section {
    let engine = base.drains.get(&Side::Engine);
    let rows = base.drains.iter().map(|(side, drains)| {
        let rest = Sample(drains.iter().filter_map(|one| Some(one.per_million(one.clickhouse_at_rest?))).collect());
        let dash = |is_some: bool, text: String| if is_some { text } else { "-".to_owned() };
        let has_own = *side != Side::Engine;
        vec![
            side.name(),
            thousands_per_second(drains).text(0),
            engine.map_or_else(|| "-".to_owned(), |engine| format!("{:.1}", times(drains, engine))),
            dash(has_own, format!("{:.2}", cpu(drains, |one| one.sink).median())),
            format!("{:.2}", cpu(drains, |one| one.clickhouse).median()),
            dash(!rest.0.is_empty(), format!("{:.2}", rest.median())),
            format!("{:.2}", cpu(drains, |one| one.kafka).median()),
            Sample::of(drains, Drained::total).text(2),
            dash(has_own, format!("{:.0}", Sample::of(drains, mebibytes).most())),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    Section {
        title: "Side by side".to_owned(),
        text: texts(&[
            "Every side drains the same topic with a consumer group of its own into the same empty table; the sides take turns, round after round. The clock \
             runs from the moment its first consumer is in the group until a query counts all rows. After each drain the rows are compared by two hashes over \
             every column, positions and timestamps included, under FINAL: a difference ends the benchmark. `content_hash` is not among them: only our side \
             has it, SQL can't compute it, and the engine's rows hold its default, so our side also does work here that the engine does not do. A side may \
             store a row twice; under FINAL it is there once.",
            "CPU-seconds are per million events: of the workers from their start, of ClickHouse and Kafka as a difference over the drain. `At rest` is \
             ClickHouse's when its merges have been quiet for two seconds. `Total` is the workers' and ClickHouse's until all rows are queryable. `MiB` is the \
             most that a worker ever held. Medians, with the least and the most of the rounds.",
        ]),
        columns: texts(&["side", "k events/s", "x engine", "worker", "ClickHouse", "at rest", "Kafka", "total", "MiB"]),
        rows,
        plots: Vec::new(),
    }
}

fn ceilings(base: &Measured) -> Section {
    let row = |what: &str, all: &[Ceiling]| {
        vec![
            what.to_owned(),
            Sample::of(all, |one| one.per_second() / 1e3).text(0),
            Sample::of(all, Ceiling::per_million).text(2),
            format!("{:.0}", all.first().map_or(f64::NAN, Ceiling::mean_bytes)),
        ]
    };
    Section {
        title: "What bounds every side".to_owned(),
        text: vec![
            "The fetch is librdkafka with the worker's settings in a process that looks at nothing but each record's length, taken one at a time; the CPU time is \
             that process's."
                .to_owned(),
            format!(
                "Ready-made blocks are the same rows in the order of the topic, read from the table as FORMAT Native before, {} rows each as in the worker's \
                 median insert, sent over HTTP on one connection or two with the settings of the worker's inserts; the CPU time is ClickHouse's.",
                thousands(base.block_rows)
            ),
        ],
        columns: texts(&["what", "k events/s", "CPU-s per million", "bytes an event"]),
        rows: vec![
            row("fetch without decoding", &base.fetches),
            row("ready-made blocks, one connection", &base.inserts[0]),
            row("ready-made blocks, two connections", &base.inserts[1]),
        ],
        plots: Vec::new(),
    }
}

/// Megabytes of Avro for each CPU-second of the workers.
fn megabytes_per_cpu(measured: &Measured, drains: &[Drained]) -> Sample {
    Sample::of(drains, |one| measured.mean_bytes() * one.events as f64 / 1e6 / one.sink.as_secs_f64())
}

fn factor_section(factor: Factor, mut all: Vec<&Measured>) -> Section {
    all.sort_by_key(|one| {
        let load = &one.scenario.load;
        (
            load.bytes.unwrap_or(300),
            load.partitions,
            load.compression == Compression::None,
            load.compression.as_str(),
            load.events,
        )
    });
    let mut rows = Vec::new();
    for measured in &all {
        let Measured { drains, fetches, .. } = measured;
        for (side, drains) in drains {
            let rate = thousands_per_second(drains);
            let has_own = *side != Side::Engine;
            let dash = |text: String| if has_own { text } else { "-".to_owned() };
            rows.push(vec![
                label(factor, measured),
                format!("{:.0}", measured.stored_bytes),
                side.name(),
                rate.text(1),
                format!("{:.0}", rate.median() * measured.mean_bytes() / 1e3),
                dash(format!("{:.2}", cpu(drains, |one| one.sink).median())),
                format!("{:.2}", cpu(drains, |one| one.clickhouse).median()),
                dash(format!("{:.0}", megabytes_per_cpu(measured, drains).median())),
                dash(format!("{:.0}", Sample::of(drains, mebibytes).most())),
                format!("{:.0}", Sample::of(fetches, |one| one.per_second() / 1e3).median()),
            ]);
        }
    }
    let (title, name, about) = match factor {
        Factor::Size => (
            "Size of an event",
            "bytes",
            "Larger events hold more field changes, and a larger JSON object as `details`.",
        ),
        Factor::Compression => {
            ("Compression of the topic", "codec", "The producer compresses; brokers keep batches as they are.")
        }
        Factor::Partitions => ("Partitions", "partitions", "One consumer group whatever their number."),
        _ => ("Rows", "rows", "Each topic is drained from its start into the empty table."),
    };
    let loads: Vec<String> = all
        .iter()
        .map(|one| {
            let events = format!("{} of {:.0} Avro bytes", thousands(one.scenario.load.events), one.mean_bytes());
            if matches!(factor, Factor::Size | Factor::Rows) {
                events
            } else {
                format!("{}: {events}", label(factor, one))
            }
        })
        .collect();
    Section {
        title: title.to_owned(),
        text: vec![
            about.to_owned(),
            format!("Events: {}.", loads.join("; ")),
            "`On disk` are the bytes of an event on the broker's disk, with key, headers and compression. `Worker` and `ClickHouse` are CPU-seconds per million \
             events. `MB/s` and `MB/CPU-s` are of Avro, the latter for each CPU-second of the workers. `MiB` is the most that a worker ever held. `Fetch` is the \
             fetch without decoding, in thousand events a second."
                .to_owned(),
        ],
        columns: texts(&[name, "on disk", "side", "k events/s", "MB/s", "worker", "ClickHouse", "MB/CPU-s", "MiB", "fetch"]),
        rows,
        plots: plot(factor, &all).into_iter().collect(),
    }
}

fn mebibytes(drained: &Drained) -> f64 {
    drained.peak_rss as f64 / 1_048_576.0
}

fn label(factor: Factor, measured: &Measured) -> String {
    let load = &measured.scenario.load;
    match factor {
        Factor::Size => format!("{:.0}", measured.mean_bytes()),
        Factor::Compression => load.compression.as_str().to_owned(),
        Factor::Partitions => load.partitions.to_string(),
        _ => thousands(load.events),
    }
}

fn plot(factor: Factor, all: &[&Measured]) -> Option<Plot> {
    let (file, title, x, y) = match factor {
        Factor::Size => {
            ("ingest-size", "Avro taken in by workers, by size of an event", "Avro bytes of an event", "MB/s")
        }
        Factor::Partitions => {
            ("ingest-partitions", "Events taken in by workers, by partitions", "partitions", "thousand events/s")
        }
        _ => return None,
    };
    let value = |measured: &Measured, drains: &[Drained]| {
        let rate = thousands_per_second(drains).median();
        match factor {
            Factor::Size => (measured.mean_bytes(), rate * measured.mean_bytes() / 1e3),
            _ => (f64::from(measured.scenario.load.partitions), rate),
        }
    };
    let points = all.iter().filter_map(|measured| Some(value(measured, measured.drains.get(&ONE)?))).collect();
    Some(Plot {
        file: file.to_owned(),
        title: title.to_owned(),
        x: Axis { label: x.to_owned(), logarithmic: true },
        y: Axis { label: y.to_owned(), logarithmic: false },
        series: vec![Series { name: ONE.name(), points }],
    })
}

fn tried(all: &All) -> Section {
    let rows = all.tried.iter().map(|(settings, drained)| {
        vec![
            settings.consumers.to_string(),
            settings.block.to_string(),
            settings.flush_ms.to_string(),
            settings.poll_ms.to_string(),
            settings.words().to_owned(),
            format!("{:.0}", drained.per_second() / 1e3),
            format!("{:.2}", drained.per_million(drained.clickhouse)),
        ]
    });
    Section {
        title: "Settings of ClickHouse's Kafka engine that were tried".to_owned(),
        text: vec![format!(
            "Each once, on {} events of the base; the fastest were taken for everything else. The server-wide ones are the same for all: \
                 optimize_on_insert=0, and librdkafka's fetch.queue.backoff.ms=5, as our worker has them. A block that is not full goes when the flush interval \
                 is over, or after ten polls without a record: with the defaults the last rows wait for seconds. `Few values` is the type of such columns in the \
                 engine's own table; the view makes LowCardinality of them.",
            thousands(all.tried.first().map_or(0, |(_, drained)| drained.events))
        )],
        columns: texts(&[
            "consumers",
            "max_block_size",
            "flush_ms",
            "poll_ms",
            "few values",
            "k events/s",
            "CPU-s/million",
        ]),
        rows: rows.collect(),
        plots: Vec::new(),
    }
}

fn left_out() -> Section {
    Section {
        title: "Left out".to_owned(),
        text: texts(&[
            "Redpanda Connect: the Go module proxy that this project's tools come from does not offer its module (403, not available).",
            "Kafka Connect with ClickHouse's sink: Kafka's runtime is on Maven Central, the sink is not. Its makers release archives only \
             (ClickHouse/clickhouse-kafka-connect, issue 488, asks for a package), and this benchmark installs from package registries only.",
        ]),
        ..Section::default()
    }
}

fn goals(all: &All) -> Vec<Goal> {
    let mut goals = Vec::new();
    let goal = |what: &str, wanted: String, got: String, reached: bool, bound_by: String| Goal {
        what: what.to_owned(),
        wanted,
        got,
        reached,
        bound_by: if reached { String::new() } else { bound_by },
    };
    if let Some(base) = &all.base {
        let drains = |side: Side| base.drains.get(&side);
        let bound = drains(ONE).map(|one| bounds(base, one)).unwrap_or_default();
        if let (Some(one), Some(engine)) = (drains(ONE), drains(Side::Engine)) {
            let ratio = times(one, engine);
            goals.push(goal(
                "One worker against ClickHouse's Kafka engine, about 300 bytes, times its rate",
                "at least 6".to_owned(),
                format!("{ratio:.1}"),
                ratio >= 6.0,
                bound.clone(),
            ));
            let (total, of_engine) =
                (Sample::of(one, Drained::total).median(), Sample::of(engine, Drained::total).median());
            let most = 2.8_f64.min(of_engine / 5.0);
            goals.push(goal(
                "CPU-seconds per million events, worker and ClickHouse together",
                format!("at most 2.8, and a fifth of the engine's {of_engine:.2}, which is {:.2}", of_engine / 5.0),
                format!("{total:.2}"),
                total <= most,
                bound.clone(),
            ));
        }
        if let (Some(one), Some(two)) = (drains(ONE), drains(TWO)) {
            let ratio = times(two, one);
            goals.push(goal(
                "Two workers against one, times its rate",
                "at least 1".to_owned(),
                format!("{ratio:.2}"),
                ratio >= 1.0,
                bound.clone(),
            ));
        }
        if let Some(one) = drains(ONE) {
            let own = cpu(one, |one| one.sink).median();
            goals.push(goal(
                "A worker's CPU-seconds per million events of about 300 bytes",
                "at most 1.0".to_owned(),
                format!("{own:.2}"),
                own <= 1.0,
                bound,
            ));
            let all = base.drains.iter().filter(|(side, _)| **side != Side::Engine).flat_map(|(_, drains)| drains);
            let most = all.map(mebibytes).fold(0.0, f64::max);
            goals.push(goal(
                "The most memory of a worker in the base, MiB",
                "at most 256".to_owned(),
                format!("{most:.0}"),
                most <= 256.0,
                base.drains
                    .iter()
                    .filter(|(side, _)| **side != Side::Engine)
                    .map(|(side, drains)| format!("{}: {} MiB", side.name(), Sample::of(drains, mebibytes).text(0)))
                    .collect::<Vec<_>>()
                    .join("; "),
            ));
        }
    }
    if let Some(large) = all.others.iter().find(|one| one.scenario.load.bytes == Some(1_600)) {
        let bound = large.drains.get(&ONE).map(|one| bounds(large, one)).unwrap_or_default();
        if let (Some(one), Some(engine)) = (large.drains.get(&ONE), large.drains.get(&Side::Engine)) {
            let ratio = times(one, engine);
            goals.push(goal(
                "One worker against ClickHouse's Kafka engine, about 1,600 bytes, times its rate",
                "at least 4".to_owned(),
                format!("{ratio:.1}"),
                ratio >= 4.0,
                bound.clone(),
            ));
        }
        if let Some(one) = large.drains.get(&ONE) {
            let rate = megabytes_per_cpu(large, one).median();
            goals.push(goal(
                "MB of Avro per CPU-second of the worker, about 1,600 bytes",
                "at least 300".to_owned(),
                format!("{rate:.0}"),
                rate >= 300.0,
                bound,
            ));
        }
    }
    goals
}

/// How busy the machine was, and what each part takes at least.
fn bounds(measured: &Measured, drains: &[Drained]) -> String {
    let cores = Machine::this().cores as f64;
    let busy = Sample::of(drains, |one| {
        100.0 * (one.sink + one.clickhouse + one.kafka).as_secs_f64() / (one.wall.as_secs_f64() * cores)
    });
    let part = |of: fn(&Drained) -> Duration| cpu(drains, of).median();
    let mut text = format!(
        "{:.0} % of {cores} cores were busy during the drain: CPU-seconds per million events {:.2} in the worker, {:.2} in ClickHouse, {:.2} in Kafka",
        busy.median(),
        part(|one| one.sink),
        part(|one| one.clickhouse),
        part(|one| one.kafka)
    );
    let least = |all: &[Ceiling]| Sample::of(all, Ceiling::per_million).median();
    if !measured.fetches.is_empty() {
        text.push_str(&format!("; the fetch without decoding takes {:.2}", least(&measured.fetches)));
    }
    if !measured.inserts[0].is_empty() {
        text.push_str(&format!(", the insert of ready-made blocks {:.2} in ClickHouse", least(&measured.inserts[0])));
    }
    text
}
