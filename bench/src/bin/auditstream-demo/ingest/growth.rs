//! `auditstream-demo growth`: how time and memory grow with rows, partitions, workers and field changes.
//!
//! One topic grows from step to step and is drained from its start each time, so each number of rows costs its difference in loading only.

use std::path::PathBuf;

use anyhow::Result;
use auditstream_bench::results::{Axis, Goal, Plot, Results, Section, Series};
use auditstream_bench::table::thousands;

use super::Bench;
use super::drain::{Drained, drain};
use super::measure::say;
use super::report::show;
use super::scenario::{Load, Side};
use super::stats::{Sample, growth_by_doubling, line};
use super::topic::Topic;
use super::versions::versions;
use crate::Common;
use crate::screen::Screen;

/// Millions of rows, each twice the one before.
const MILLIONS: [f64; 5] = [0.5, 1.0, 2.0, 4.0, 8.0];
/// The number of rows at which partitions and workers vary, in millions.
const MIDDLE: f64 = 2.0;
const PARTITIONS: [u32; 2] = [1, 48];
const WORKERS: [u32; 3] = [1, 2, 3];
/// Field changes of each event, and of so many events per million of the middle: a drain takes a second or more whatever their size.
const CHANGES: [(u32, f64); 4] = [(0, 0.5), (1, 0.5), (10, 0.25), (100, 0.05)];

/// Measures how the drain of a topic grows: a line through the points of each, and the goals.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Events of the step called one million: fewer for a try.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(2_000..=10_000_000))]
    million: u64,
    /// Drains of each point.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// The command to name in the results.
    #[arg(long, default_value = "auditstream-demo growth", hide = true)]
    command: String,
    /// Write the results here, for the report.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// The drains of one point of a curve.
struct Point {
    x: f64,
    drains: Vec<Drained>,
}

impl Point {
    fn seconds(&self) -> f64 {
        Sample::of(&self.drains, |one| one.wall.as_secs_f64()).median()
    }

    fn micros(&self) -> f64 {
        Sample::of(&self.drains, |one| one.per_million(one.wall)).median()
    }

    fn worker_cpu(&self) -> f64 {
        Sample::of(&self.drains, |one| one.per_million(one.sink)).median()
    }

    fn total_cpu(&self) -> f64 {
        Sample::of(&self.drains, Drained::total).median()
    }

    fn mebibytes(&self) -> f64 {
        Sample::of(&self.drains, |one| one.peak_rss as f64 / 1_048_576.0).most()
    }

    fn rate(&self) -> f64 {
        Sample::of(&self.drains, |one| one.per_second() / 1e3).median()
    }

    fn events(&self) -> u64 {
        self.drains.first().map_or(0, |one| one.events)
    }
}

/// The curves.
#[derive(Default)]
struct Grown {
    rows: Vec<Point>,
    partitions: Vec<Point>,
    workers: Vec<Point>,
    changes: Vec<Point>,
}

/// Measures, prints the tables, writes the file. Blocks.
pub(crate) fn run(args: &Args) -> Result<()> {
    let screen = Screen::new();
    let bench = Bench::new(&args.common, &screen)?;
    let grown = measure(&bench, args)?;
    let mut results = Results::new("growth", "Growth", &args.command);
    results.versions = versions(&bench)?;
    results.settings.insert("drains of each point".to_owned(), args.rounds.to_string());
    results.settings.insert(
        "the events".to_owned(),
        "about 300 Avro bytes each, lz4; a Confluent schema id; 6 partitions and one worker where nothing else is said"
            .to_owned(),
    );
    results.sections = sections(&grown);
    results.goals = goals(&grown);
    show(&screen, &results);
    if let Some(path) = &args.results {
        results.write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    Ok(())
}

fn measure(bench: &Bench<'_>, args: &Args) -> Result<Grown> {
    let millions = |of: f64| (of * args.million as f64) as u64;
    let point = |topic: &Topic, workers: u32, x: f64| -> Result<Point> {
        let drains = (0..args.rounds).map(|_| {
            let side = Side::Ours(workers);
            let (drained, _) = drain(bench, topic, side, false)?;
            say(bench, side, &drained);
            Ok(drained)
        });
        Ok(Point { x, drains: drains.collect::<Result<_>>()? })
    };
    let heading = |text: &str| bench.screen.say(&format!("\n{text}"));
    let mut grown = Grown::default();

    let load = Load::base(0);
    let mut topic = Topic::new(bench, &load)?;
    heading("warm-up; it does not count");
    topic.add(bench, &load, millions(MILLIONS[0]))?;
    point(&topic, 1, 0.0)?;
    for step in MILLIONS {
        let more = millions(step) - topic.events;
        if more > 0 {
            topic.add(bench, &load, more)?;
        }
        heading(&format!("{} rows", thousands(topic.events)));
        grown.rows.push(point(&topic, 1, topic.events as f64)?);
        if step == MIDDLE {
            for workers in WORKERS {
                heading(&format!("{workers} workers, {} rows", thousands(topic.events)));
                grown.workers.push(point(&topic, workers, f64::from(workers))?);
            }
            heading(&format!("{} partitions", topic.partitions));
            grown.partitions.push(point(&topic, 1, f64::from(topic.partitions))?);
        }
    }
    topic.remove(bench)?;

    for partitions in PARTITIONS {
        heading(&format!("{partitions} partitions"));
        let topic = Topic::loaded(bench, &Load { partitions, ..Load::base(millions(MIDDLE)) })?;
        grown.partitions.push(point(&topic, 1, f64::from(partitions))?);
        topic.remove(bench)?;
    }
    grown.partitions.sort_by(|one, other| one.x.total_cmp(&other.x));

    for (changes, share) in CHANGES {
        heading(&format!("{changes} field changes an event"));
        let topic = Topic::loaded(bench, &Load { changes: Some(changes), ..Load::base(millions(MIDDLE * share)) })?;
        grown.changes.push(point(&topic, 1, f64::from(changes))?);
        topic.remove(bench)?;
    }
    Ok(grown)
}

fn points(all: &[Point], value: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    all.iter().map(|point| (point.x, value(point))).collect()
}

fn section(title: &str, text: &str, name: &str, all: &[Point], plots: Vec<Plot>) -> Section {
    let row = |point: &Point| {
        vec![
            thousands(point.x as u64),
            thousands(point.events()),
            format!("{:.2}", point.seconds()),
            format!("{:.0}", point.rate()),
            format!("{:.2}", point.worker_cpu()),
            format!("{:.2}", point.total_cpu()),
            format!("{:.0}", point.mebibytes()),
        ]
    };
    Section {
        title: title.to_owned(),
        text: vec![
            text.to_owned(),
            "CPU-seconds are per million events, of all workers, and with ClickHouse's until all rows are queryable; `MiB` is the most that one worker held."
                .to_owned(),
        ],
        columns: [name, "events", "seconds", "k events/s", "worker's CPU-s", "with ClickHouse's", "MiB"].map(str::to_owned).to_vec(),
        rows: all.iter().map(row).collect(),
        plots,
    }
}

fn plot(file: &str, title: &str, x: (&str, bool), y: &str, series: Vec<(&str, Vec<(f64, f64)>)>) -> Plot {
    Plot {
        file: format!("growth-{file}"),
        title: title.to_owned(),
        x: Axis { label: x.0.to_owned(), logarithmic: x.1 },
        y: Axis { label: y.to_owned(), logarithmic: false },
        series: series.into_iter().map(|(name, points)| Series { name: name.to_owned(), points }).collect(),
    }
}

fn sections(grown: &Grown) -> Vec<Section> {
    let Grown { rows, partitions, workers, changes } = grown;
    let doubling = growth_by_doubling(&points(rows, Point::seconds));
    let fit = line(&points(changes, Point::worker_cpu)).unwrap_or((f64::NAN, f64::NAN));
    vec![
        section(
            "Rows",
            &format!(
                "From the first worker's membership until all rows are queryable. Through all points: twice the rows take {doubling:.2} times as long; 2 is \
                 linear, less means that the start counts less."
            ),
            "rows",
            rows,
            vec![
                plot(
                    "rows",
                    "Time by rows",
                    ("rows", false),
                    "seconds",
                    vec![("one worker", points(rows, Point::seconds))],
                ),
                plot(
                    "memory",
                    "Peak memory of a worker by rows",
                    ("rows", false),
                    "MiB",
                    vec![("one worker", points(rows, Point::mebibytes))],
                ),
            ],
        ),
        section(
            "Partitions",
            "One worker reads them all.",
            "partitions",
            partitions,
            vec![plot(
                "partitions",
                "Rate by partitions",
                ("partitions", true),
                "thousand events/s",
                vec![("one worker", points(partitions, Point::rate))],
            )],
        ),
        section(
            "Workers",
            "On one machine they share its cores with Kafka and ClickHouse: more of them can be faster only while cores are idle.",
            "workers",
            workers,
            vec![plot(
                "workers",
                "Rate by workers",
                ("workers", false),
                "thousand events/s",
                vec![("all workers", points(workers, Point::rate))],
            )],
        ),
        section(
            "Field changes of an event",
            &format!(
                "The line of least squares: {:.2} CPU-microseconds in the worker for the event, and {:.3} for each field change.",
                fit.0, fit.1
            ),
            "field changes",
            changes,
            vec![plot(
                "changes",
                "Time of an event by its field changes",
                ("field changes", false),
                "microseconds",
                vec![
                    ("from the topic into the table", points(changes, Point::micros)),
                    ("the worker's CPU time", points(changes, Point::worker_cpu)),
                    ("the worker's and ClickHouse's CPU time", points(changes, Point::total_cpu)),
                ],
            )],
        ),
    ]
}

/// A figure of every point: `1: 0.95, 6: 1.10 MiB`.
fn each(all: &[Point], unit: &str, value: fn(&Point) -> f64) -> String {
    let figures: Vec<String> =
        all.iter().map(|point| format!("{}: {:.2}", thousands(point.x as u64), value(point))).collect();
    format!("{} {unit}", figures.join(", "))
}

fn goals(grown: &Grown) -> Vec<Goal> {
    let at_most = |what: &str, most: f64, got: f64, bound_by: &str| Goal {
        what: what.to_owned(),
        wanted: format!("at most {most}"),
        got: format!("{got:.2}"),
        reached: got <= most,
        bound_by: if got <= most { String::new() } else { bound_by.to_owned() },
    };
    let at =
        |all: &[Point], x: f64, value: fn(&Point) -> f64| all.iter().find(|point| point.x == x).map_or(f64::NAN, value);
    let most_memory = Sample(grown.rows.iter().map(Point::mebibytes).collect()).most();
    let least_memory = grown.rows.iter().map(Point::mebibytes).fold(f64::INFINITY, f64::min);
    vec![
        at_most(
            "Time for twice the rows, times",
            2.1,
            growth_by_doubling(&points(&grown.rows, Point::seconds)),
            &each(&grown.rows, "seconds", Point::seconds),
        ),
        at_most(
            "Memory of a worker with 16 times the rows: the most against the least, times",
            1.25,
            most_memory / least_memory,
            &each(&grown.rows, "MiB", Point::mebibytes),
        ),
        at_most(
            "The worker's CPU time of an event with 100 field changes against one with 10, times",
            10.0,
            at(&grown.changes, 100.0, Point::worker_cpu) / at(&grown.changes, 10.0, Point::worker_cpu),
            &each(&grown.changes, "CPU-microseconds an event", Point::worker_cpu),
        ),
        at_most(
            "Time with 48 partitions against 6, times",
            1.25,
            at(&grown.partitions, 48.0, Point::seconds) / at(&grown.partitions, 6.0, Point::seconds),
            &format!(
                "{}; {}",
                each(&grown.partitions, "CPU-seconds of the worker per million events", Point::worker_cpu),
                each(&grown.partitions, "with ClickHouse's", Point::total_cpu)
            ),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn point(x: f64, events: u64, seconds: f64) -> Point {
        let wall = Duration::from_secs_f64(seconds);
        Point { x, drains: vec![Drained { events, wall, sink: wall, peak_rss: 100 << 20, ..Drained::default() }] }
    }

    #[test]
    fn goals_follow_from_the_points() {
        let grown = |exponent: f64| Grown {
            rows: [1.0, 2.0, 4.0].map(|x: f64| point(x, x as u64, x.powf(exponent))).into(),
            partitions: vec![point(6.0, 1, 1.0), point(48.0, 1, 1.1)],
            workers: Vec::new(),
            changes: vec![point(10.0, 1_000_000, 1.0), point(100.0, 1_000_000, 12.0)],
        };
        let reached = |exponent| goals(&grown(exponent)).iter().map(|goal| goal.reached).collect::<Vec<_>>();
        assert_eq!(reached(1.0), [true, true, false, true]);
        assert_eq!(reached(1.5), [false, true, false, true]);
        assert_eq!(goals(&grown(1.0))[0].got, "2.00");
    }

    #[test]
    fn nothing_measured_reaches_no_goal() {
        assert!(goals(&Grown::default()).iter().all(|goal| !goal.reached));
    }
}
