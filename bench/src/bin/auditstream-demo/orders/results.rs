//! The comparison for the report.

use auditstream_bench::orders::Mode;
use auditstream_bench::orders::clerk::Kind;
use auditstream_bench::orders::compare::{Compared, Database, Options, Times};
use auditstream_bench::results::{Goal, Results, Section};
use auditstream_bench::table::thousands;

use super::Figures;

fn ms(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}") } else { "-".to_owned() }
}

fn times(what: String, times: Times) -> Vec<String> {
    let Times { p50_ms, p99_ms, p50_ratio, p99_ratio } = times;
    let mut row = vec![what];
    row.extend([p50_ms, p99_ms, p50_ratio, p99_ratio].map(ms));
    row
}

/// For `bench/results/order-service.json` or `order-service-postgres.json`; without versions.
pub(super) fn of(options: &Options, compared: &Compared, figures: &Figures) -> Results {
    let (name, database, flag) = match options.database {
        Database::Sqlite(_) => ("order-service", "SQLite", ""),
        Database::Postgres(_) => ("order-service-postgres", "PostgreSQL", " --postgres"),
    };
    let mut results = Results::new(
        name,
        &format!("What the trail costs a request: a service on {database}, three ways of auditing"),
        &format!(
            "cargo xtask bench order-service{flag} --results --rounds {} --per-second {}",
            options.rounds, options.per_second
        ),
    );
    for (name, value) in [
        ("requests a second to each service", options.per_second.to_string()),
        ("connections to each service", options.connections.to_string()),
        ("rounds", options.rounds.to_string()),
        ("length of a turn, s", options.slice.as_secs_f64().to_string()),
        ("requests of each way that count", thousands(compared.requests())),
    ] {
        results.settings.insert(name.to_owned(), value);
    }
    let (lost, double) = figures.faults();
    for (what, got) in [("events of the trail that are lost", lost), ("events of the trail too many", double)] {
        let (wanted, bound_by) = ("0".to_owned(), String::new());
        results.goals.push(Goal { what: what.to_owned(), wanted, got: got.to_string(), reached: got == 0, bound_by });
    }
    let ways = ["no audit", "an INSERT into its own database", "auditstream"];
    let names = ["request", "p50 ms", "p99 ms", "p50, ratio", "p99, ratio"].map(str::to_owned).to_vec();
    let requests = compared.requests().max(1) as f64;
    let all = compared.times(None).into_iter().zip(ways).zip(compared.cpu).map(|((of_way, way), cpu)| {
        let mut row = times(way.to_owned(), of_way);
        row.push(ms(cpu.as_secs_f64() * 1e3 / requests));
        row
    });
    results.sections.push(Section {
        title: "All requests".to_owned(),
        text: vec![
            "The services get the same requests at the same times, in turns: an open loop, so a request counts from when it was due. Times are medians over \
             the rounds; a ratio is the median of the rounds' ratios to the service without audit. CPU time is the service's own."
                .to_owned(),
        ],
        columns: names.iter().cloned().chain(["CPU ms each".to_owned()]).collect(),
        rows: all.collect(),
        ..Section::default()
    });
    let by_kind = Kind::ALL.into_iter().flat_map(|kind| {
        let of_kind = compared.times(Some(kind)).into_iter().zip(Mode::ALL);
        of_kind.map(move |(of_way, way)| times(format!("{}, {}", kind.name(), way.name()), of_way))
    });
    results.sections.push(Section {
        title: "By sort of request".to_owned(),
        columns: names,
        rows: by_kind.collect(),
        ..Section::default()
    });
    results
}
