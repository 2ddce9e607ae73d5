//! Freshness for the report.

use auditstream_bench::results::{Axis, Goal, Plot, Results, Section, Series, median};
use auditstream_bench::table::thousands;

use super::{Args, Measured, Run, SHARE, of_workers};

/// The rate that has a goal, and the goal in milliseconds.
const GOAL: (u32, f64) = (100_000, 1_000.0);

impl Measured {
    /// The middle of the runs.
    fn middle(&self, pick: impl Fn(&Run) -> f64) -> f64 {
        median(&self.runs.iter().map(pick).collect::<Vec<f64>>())
    }

    /// The same, and in brackets the least and the most.
    fn spread(&self, pick: impl Fn(&Run) -> f64) -> String {
        let values: Vec<f64> = self.runs.iter().map(pick).collect();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{:.0} ({least:.0} to {most:.0})", median(&values))
    }
}

fn texts<const N: usize>(all: [&str; N]) -> Vec<String> {
    all.map(str::to_owned).to_vec()
}

/// For `bench/results/freshness.json`; without versions.
pub(super) fn of(args: &Args, maxima: &[(u32, f64)], all: &[Measured]) -> Results {
    let title = "Freshness under load: from `record` to queryable in ClickHouse";
    let rates: Vec<String> = args.rates.iter().map(u32::to_string).collect();
    let command = format!(
        "cargo xtask bench freshness --results --rounds {} --seconds {} -- --rates {} --warm-up {} --events {} --poll-ms {}",
        args.rounds,
        args.seconds,
        rates.join(","),
        args.warm_up,
        args.events,
        args.poll_ms
    );
    let mut results = Results::new("freshness", title, &command);
    for (name, value) in [
        ("seconds of each run, and before it at the same rate", format!("{} and {}", args.seconds, args.warm_up)),
        ("rounds", args.rounds.to_string()),
        ("pause between two questions of the watcher, ms", args.poll_ms.to_string()),
        ("events of a run that finds the maximum", thousands(args.events)),
        ("compression of the producer", "zstd".to_owned()),
    ] {
        results.settings.insert(name.to_owned(), value);
    }
    let (rate, most) = GOAL;
    for measured in all.iter().filter(|measured| measured.rate == rate && !measured.is_share) {
        let got = measured.middle(|run| run.p99);
        let reached = got <= most;
        let cores = measured.middle(|run| run.cores.iter().sum());
        let maximum = maxima.iter().find(|(workers, _)| *workers == measured.workers).map_or(0.0, |(_, most)| *most);
        let bound_by = format!(
            "CPU: {cores:.2} of {} cores in use at this rate; everything on this machine carries {} a second at most",
            results.machine.cores,
            thousands(maximum as u64)
        );
        results.goals.push(Goal {
            what: format!(
                "freshness p99 at {} events a second, {}, ms",
                thousands(rate.into()),
                of_workers(measured.workers)
            ),
            wanted: format!("at most {}", thousands(most as u64)),
            got: format!("{got:.0}"),
            reached,
            bound_by: if reached { String::new() } else { bound_by },
        });
    }
    results.sections = vec![maximum(maxima), freshness(all), cores(all)];
    results
}

fn maximum(maxima: &[(u32, f64)]) -> Section {
    let row = |(workers, rate): &(u32, f64)| vec![of_workers(*workers).to_owned(), thousands(*rate as u64)];
    Section {
        title: "What goes through at most".to_owned(),
        text: texts([
            "Events recorded by one thread as fast as the producer takes them, until all are stored: number by time. Producer, Kafka, workers and \
                      ClickHouse share this machine. The middle of two runs after one that warms up.",
        ]),
        columns: texts(["", "events a second"]),
        rows: maxima.iter().map(row).collect(),
        ..Section::default()
    }
}

fn freshness(all: &[Measured]) -> Section {
    let row = |measured: &Measured| {
        let share = if measured.is_share { format!(" ({:.0} % of the maximum)", SHARE * 100.0) } else { String::new() };
        let mut row = vec![
            of_workers(measured.workers).to_owned(),
            format!("{}{share}", thousands(measured.rate.into())),
            thousands(measured.middle(|run| run.offered.per_second).round() as u64),
        ];
        row.extend([
            measured.spread(|run| run.p50),
            measured.spread(|run| run.p99),
            measured.spread(|run| run.p999),
            measured.spread(|run| run.max),
        ]);
        row.push(format!("{:.1}", measured.middle(|run| run.offered.late_p99_ms)));
        row.push(format!("{:.0}", measured.middle(|run| run.offered.waits as f64)));
        row.push(format!("{:.1} / {:.1}", measured.middle(|run| run.poll.0), measured.middle(|run| run.poll.1)));
        row.push(format!("{:.1}", measured.middle(|run| run.too_long)));
        row
    };
    let line = |name: &str, workers: u32, pick: fn(&Run) -> f64| {
        let points = all.iter().filter(|measured| measured.workers == workers);
        let mut points: Vec<(f64, f64)> =
            points.map(|measured| (f64::from(measured.rate), measured.middle(pick))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: format!("{name}, {}", of_workers(workers)), points }
    };
    Section {
        title: "Times".to_owned(),
        text: texts([
            "Each event carries the time at which it was due, and its time runs from there: an open loop, in which an event that the load was late for is \
             counted with its lateness. It ends when the answer of a watcher has arrived after which \
             the event's batch is in the table: the number of rows has grown by the batch's rows, and the ledger says which events they are. So every event is \
             known by its position, and none is sampled. Times are upper bounds, by the pause between two answers; where a growth is no sum of batches, by the \
             time of the ledger's entry, and how much too long that makes them on average stands in the last column. Times in ms, medians of the rounds, in brackets the least and the most. After each run the table was read back: every event once.",
        ]),
        columns: texts([
            "",
            "events a second",
            "reached",
            "p50",
            "p99",
            "p99.9",
            "longest",
            "load late, p99",
            "queue full, times",
            "answers apart, p50 / p99",
            "too long by, mean",
        ]),
        rows: all.iter().map(row).collect(),
        plots: vec![Plot {
            file: "freshness".to_owned(),
            title: "From record to queryable, against the rate".to_owned(),
            x: Axis { label: "events a second".to_owned(), logarithmic: true },
            y: Axis { label: "ms".to_owned(), logarithmic: true },
            series: vec![
                line("p50", 1, |run| run.p50),
                line("p99", 1, |run| run.p99),
                line("p99.9", 1, |run| run.p999),
                line("p50", 2, |run| run.p50),
                line("p99", 2, |run| run.p99),
                line("p99.9", 2, |run| run.p999),
            ],
        }],
    }
}

fn cores(all: &[Measured]) -> Section {
    let row = |measured: &Measured| {
        let mut row = vec![of_workers(measured.workers).to_owned(), thousands(measured.rate.into())];
        row.extend([0, 1, 2, 3].map(|who| format!("{:.2}", measured.middle(|run| run.cores[who]))));
        row.push(format!("{:.2}", measured.middle(|run| run.cores.iter().sum())));
        row
    };
    Section {
        title: "Cores in use meanwhile".to_owned(),
        text: texts([
            "CPU-seconds a second, over the seconds that count. The load's process makes the events, records them, and asks; ClickHouse's share holds \
                      the answers to the watcher and the merges.",
        ]),
        columns: texts(["", "events a second", "load and producer", "Kafka", "workers", "ClickHouse", "all"]),
        rows: all.iter().map(row).collect(),
        ..Section::default()
    }
}
