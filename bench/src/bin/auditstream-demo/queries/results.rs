//! The figures for the report.

use auditstream_bench::results::{Goal, Results, Section};
use auditstream_bench::table::thousands;

use super::cold::Cold;
use super::report::{Measured, Report, Scan};

fn texts<const N: usize>(all: [&str; N]) -> Vec<String> {
    all.map(str::to_owned).to_vec()
}

fn times(measured: &Measured) -> [String; 4] {
    let Measured { p50_ms, p95_ms, read_rows, read_bytes, .. } = measured;
    [format!("{p50_ms:.1}"), format!("{p95_ms:.1}"), thousands(*read_rows), format!("{:.1}", *read_bytes as f64 / 1e6)]
}

/// For `bench/results/queries.json`; without versions.
pub(super) fn of(report: &Report) -> Results {
    let title = "Analysts' questions: what they take, and what makes them fast costs";
    let command = format!("cargo xtask bench queries --results --rows {}", report.rows);
    let mut results = Results::new("queries", title, &command);
    for (name, value) in [
        ("events, over a hundred days", thousands(report.rows)),
        ("events of the newest hour, not merged, in 40 parts", thousands(report.newest)),
        ("duplicates among these", thousands(report.copies)),
        ("runs of each question, one more to warm up", report.runs.to_string()),
    ] {
        results.settings.insert(name.to_owned(), value);
    }
    for figure in report.figures() {
        let reached = figure.is_reached();
        results.goals.push(Goal {
            wanted: format!("at most {}", figure.at_most),
            got: format!("{:.1}", figure.value),
            reached,
            bound_by: if reached { String::new() } else { figure.bound_by },
            what: figure.what,
        });
    }
    results.sections = vec![questions(report), scans(report), sizes(report), inserts(report)];
    results
}

fn questions(report: &Report) -> Section {
    let rows = report.rows_of_questions().map(|(question, settled, unmerged)| {
        let mut row = vec![format!("{}. {}", question.number, question.title)];
        row.extend(times(settled));
        row.extend(times(unmerged));
        row.insert(5, Cold::text(settled.cold.as_ref()));
        row.insert(6, Cold::disk_text(settled.cold.as_ref()));
        row
    });
    Section {
        title: "Questions".to_owned(),
        text: vec![
            "Asked by an analyst, each event counted once (FINAL), servers and caches warm. Settled: each partition is one part. Cold: the middle of a few \
             runs, the server's caches dropped and its files taken out of the page cache before each. Unmerged: with a newest hour \
             in many parts. Rows and megabytes are what ClickHouse says it has read. The SQL stands in `docs/queries.md`."
                .to_owned(),
        ],
        columns: texts([
            "question",
            "settled: p50 ms",
            "p95 ms",
            "rows read",
            "MB read",
            "cold: ms",
            "MB from disk",
            "unmerged: p50 ms",
            "p95 ms",
            "rows read",
            "MB read",
        ]),
        rows: rows.collect(),
        ..Section::default()
    }
}

fn scans(report: &Report) -> Section {
    let row = |name: &str, scan: &Scan| {
        let [once, plain] = [scan.once, scan.plain].map(|measured| format!("{:.1}", measured.p50_ms));
        vec![name.to_owned(), once, plain, format!("{:.2}", scan.ratio())]
    };
    Section {
        title: "A question that reads every event".to_owned(),
        text: vec![
            "Events and failures by action: each event once, and plainly, which counts duplicates too.".to_owned(),
        ],
        columns: texts(["", "each event once, p50 ms", "plain, p50 ms", "ratio"]),
        rows: vec![row("settled", &report.scan_settled), row("newest hour unmerged", &report.scan_unmerged)],
        ..Section::default()
    }
}

fn sizes(report: &Report) -> Section {
    let sizes = &report.sizes;
    let whole = [("everything on disk".to_owned(), sizes.per_event), ("indexes".to_owned(), sizes.indexes_per_event)];
    let columns = sizes.columns.iter().map(|(column, bytes)| (format!("`{column}`"), *bytes));
    Section {
        title: "Bytes an event on disk".to_owned(),
        text: vec![
            "Parts of up to 256 MiB keep all columns in one file and don't tell: in the columns they count as 0."
                .to_owned(),
        ],
        columns: texts(["column", "bytes an event"]),
        rows: whole.into_iter().chain(columns).map(|(what, bytes)| vec![what, format!("{bytes:.2}")]).collect(),
        ..Section::default()
    }
}

fn inserts(report: &Report) -> Section {
    let inserts = &report.inserts;
    let row = |what: &str, costs: [super::insert::Cost; 2]| {
        let mut row = vec![what.to_owned()];
        row.extend(costs.map(|cost| format!("{:.2}", cost.cpu_s)));
        row.extend(costs.map(|cost| format!("{:.2}", cost.wall_s)));
        row
    };
    Section {
        title: "What the indexes cost at insert".to_owned(),
        text: vec!["Of a million rows, in inserts of 100,000; the least of the rounds, in turns.".to_owned()],
        columns: texts(["", "CPU-s, without indexes", "with", "wall s, without", "with"]),
        rows: vec![
            row("insert", [inserts.plain, inserts.indexed]),
            row("merge", [inserts.merge_plain, inserts.merge_indexed]),
        ],
        ..Section::default()
    }
}
