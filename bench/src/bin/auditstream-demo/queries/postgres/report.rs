//! The comparison's figures: as text, as one JSON object, and for the report.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use auditstream_bench::results::{Results, Section};
use auditstream_bench::table::{Table, thousands};
use serde::Serialize;
use serde_json::json;

use super::super::cold::Cold;
use super::super::report::Sizes;
use super::database::{self, SETTINGS, Step};
use super::plan::Plan;
use super::questions::Question;

/// What one server took for a question.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Side {
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) cold: Option<Cold>,
}

/// One question and what it took on both sides.
pub(super) struct Compared {
    pub(super) question: Question,
    pub(super) clickhouse: Side,
    pub(super) postgres: Side,
    pub(super) runs: usize,
    /// Of either answer.
    pub(super) answer_rows: usize,
    /// By ClickHouse.
    pub(super) read_rows: u64,
    pub(super) read_bytes: u64,
    /// PostgreSQL's.
    pub(super) plan: Option<Plan>,
}

/// Everything.
pub(super) struct Report {
    pub(super) rows: u64,
    pub(super) runs: u32,
    pub(super) compared: Vec<Compared>,
    pub(super) load_clickhouse: Vec<Step>,
    pub(super) load_postgres: Vec<Step>,
    pub(super) sizes_clickhouse: Sizes,
    pub(super) sizes_postgres: database::Sizes,
    pub(super) version_clickhouse: String,
    pub(super) version_postgres: String,
    /// Statements by which ClickHouse forgets.
    pub(super) dropped: Vec<&'static str>,
    /// Both servers' files are on one disk.
    pub(super) is_one_device: bool,
}

/// PostgreSQL's name for columns of ClickHouse's; the others have the same on both sides or stand on one alone.
fn name_in_postgres(column: &str) -> &str {
    if column.starts_with("changes.") { "changes" } else { column }
}

impl Report {
    /// Warm times.
    fn warm(&self) -> Table {
        let rows = self.compared.iter().map(|one| {
            let (clickhouse, postgres) = (&one.clickhouse, &one.postgres);
            vec![
                one.question.title.clone(),
                ms(clickhouse.p50_ms),
                ms(clickhouse.p95_ms),
                ms(postgres.p50_ms),
                ms(postgres.p95_ms),
                format!("{:.2}", postgres.p50_ms / clickhouse.p50_ms),
                one.answer_rows.to_string(),
            ]
        });
        table(&["question", "ClickHouse p50 ms", "p95", "PostgreSQL p50 ms", "p95", "ratio", "answer"], rows)
    }

    /// Times with nothing in memory.
    fn cold(&self) -> Table {
        let rows = self.compared.iter().map(|one| {
            let (clickhouse, postgres) = (one.clickhouse.cold.as_ref(), one.postgres.cold.as_ref());
            let ratio = clickhouse.zip(postgres).map(|(clickhouse, postgres)| postgres.ms / clickhouse.ms);
            vec![
                one.question.title.clone(),
                Cold::text(clickhouse),
                Cold::text(postgres),
                ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
                Cold::disk_text(clickhouse),
                Cold::disk_text(postgres),
            ]
        });
        table(&["question", "ClickHouse ms", "PostgreSQL ms", "ratio", "ClickHouse MB from disk", "PostgreSQL"], rows)
    }

    /// What was looked at.
    fn work(&self) -> Table {
        let rows = self.compared.iter().map(|one| {
            let (rows, bytes, ways) = match &one.plan {
                Some(plan) => (thousands(plan.rows), megabytes(plan.bytes), plan.ways.clone()),
                None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
            };
            vec![one.question.title.clone(), thousands(one.read_rows), megabytes(one.read_bytes), rows, bytes, ways]
        });
        table(&["question", "ClickHouse rows", "MB", "PostgreSQL rows", "MB", "by"], rows)
    }

    /// Bytes an event: columns, then what is around them.
    fn storage(&self) -> Table {
        let (clickhouse, postgres) = (&self.sizes_clickhouse, &self.sizes_postgres);
        let mut by_column: BTreeMap<&str, (Option<f64>, Option<f64>)> = BTreeMap::new();
        for (column, bytes) in &clickhouse.columns {
            let own = &mut by_column.entry(name_in_postgres(column)).or_default().0;
            *own = Some(own.unwrap_or(0.0) + bytes);
        }
        for (column, bytes) in &postgres.columns {
            by_column.entry(column).or_default().1 = Some(*bytes);
        }
        let mut columns: Vec<_> = by_column.into_iter().collect();
        columns.sort_by(|(_, one), (_, other)| {
            let most = |(own, others): &(Option<f64>, Option<f64>)| own.unwrap_or(0.0).max(others.unwrap_or(0.0));
            most(other).total_cmp(&most(one))
        });
        let bytes = |bytes: Option<f64>| bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.1}"));
        let sum = |columns: &[(String, f64)]| columns.iter().map(|(_, bytes)| bytes).sum::<f64>();
        let row = |name: &str, own: Option<f64>, others: Option<f64>| vec![name.to_owned(), bytes(own), bytes(others)];
        let mut rows: Vec<_> = columns.iter().map(|(name, (own, others))| row(name, *own, *others)).collect();
        let columns = sum(&clickhouse.columns);
        rows.push(row(
            "marks, sparse index; headers, pages",
            Some(clickhouse.per_event - columns - clickhouse.indexes_per_event),
            Some(postgres.heap - sum(&postgres.columns)),
        ));
        rows.push(row("all skip indexes", Some(clickhouse.indexes_per_event), None));
        rows.extend(postgres.indexes.iter().map(|(name, bytes)| row(&format!("index {name}"), None, Some(*bytes))));
        rows.push(row("everything", Some(clickhouse.per_event), Some(postgres.total)));
        table(&["bytes an event", "ClickHouse", "PostgreSQL"], rows)
    }

    /// What it took to fill the tables, for a million events.
    fn load(&self) -> Table {
        let millions = self.rows as f64 / 1e6;
        let steps = |name: &'static str, steps: &[Step]| {
            let row = move |step: &Step| {
                vec![
                    name.to_owned(),
                    step.what.to_owned(),
                    format!("{:.1}", step.wall_s / millions),
                    format!("{:.1}", step.cpu_s / millions),
                ]
            };
            steps.iter().map(row).collect::<Vec<_>>()
        };
        let rows =
            steps("ClickHouse", &self.load_clickhouse).into_iter().chain(steps("PostgreSQL", &self.load_postgres));
        table(&["server", "step", "s a million", "CPU-s a million"], rows)
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let mut settings: BTreeMap<String, String> =
            SETTINGS.iter().map(|(name, value)| (format!("PostgreSQL {name}"), (*value).to_owned())).collect();
        settings.insert("PostgreSQL fsync".to_owned(), "off".to_owned());
        settings.insert("rows".to_owned(), thousands(self.rows));
        settings.insert("runs of each question, at most".to_owned(), self.runs.to_string());
        settings.insert("cold ClickHouse".to_owned(), self.dropped.join("; "));
        settings.insert("files on one disk".to_owned(), if self.is_one_device { "yes" } else { "no" }.to_owned());
        settings
    }

    pub(super) fn text(&self) -> String {
        let tables = [self.warm(), self.cold(), self.work(), self.storage(), self.load()];
        let tables: Vec<_> = tables.iter().map(|table| table.render(2)).collect();
        format!(
            "\n{}\n  ClickHouse {}, PostgreSQL {}; every answer was the same on both sides\n",
            tables.join("\n"),
            self.version_clickhouse,
            self.version_postgres
        )
    }

    /// Writes one JSON object.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let questions: Vec<_> = self
            .compared
            .iter()
            .map(|one| {
                json!({
                    "title": one.question.title, "runs": one.runs, "answer_rows": one.answer_rows,
                    "clickhouse": one.clickhouse, "postgres": one.postgres,
                    "read_rows": one.read_rows, "read_bytes": one.read_bytes, "plan": one.plan,
                })
            })
            .collect();
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let json = json!({
            "bench": "queries-postgres", "rows": self.rows, "cores": cores, "settings": self.settings(), "questions": questions,
            "clickhouse": { "version": self.version_clickhouse, "load": self.load_clickhouse, "sizes": self.sizes_clickhouse },
            "postgres": { "version": self.version_postgres, "load": self.load_postgres, "sizes": self.sizes_postgres },
        });
        let text = serde_json::to_string_pretty(&json)? + "\n";
        std::fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
    }

    pub(super) fn results(&self) -> Results {
        let mut results = Results::new(
            "queries-postgres",
            "Analysts' questions: ClickHouse beside PostgreSQL",
            &format!("cargo xtask bench queries-postgres --results --rows {}", self.rows),
        );
        results.versions.insert("auditstream".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        results.versions.insert("ClickHouse".to_owned(), self.version_clickhouse.clone());
        results.versions.insert("PostgreSQL".to_owned(), self.version_postgres.clone());
        results.settings = self.settings();
        let section = |title: &str, text: &[&str], table: Table| Section {
            title: title.to_owned(),
            text: text.iter().map(|text| (*text).to_owned()).collect(),
            columns: table.names,
            rows: table.rows,
            plots: Vec::new(),
        };
        results.sections = vec![
            section(
                "Warm",
                &[
                    "The same events in both, on settled partitions in ClickHouse and after VACUUM ANALYZE in PostgreSQL, each question in turns. Every answer was compared, \
                     all rows and columns. ClickHouse is asked over HTTP as an analyst, each event counted once, a connection a question; PostgreSQL over one \
                     connection that stays. Ratio: PostgreSQL's p50 to ClickHouse's, so below 1 PostgreSQL is faster. Answer: rows of it.",
                ],
                self.warm(),
            ),
            section(
                "Cold",
                &[
                    "The middle of a few runs. Before each, ClickHouse's caches are dropped; PostgreSQL is started again, and its connection has looked at the \
                     table's columns; then all files of the server are taken out of the page cache.",
                ],
                self.cold(),
            ),
            section(
                "Rows and bytes read",
                &[
                    "ClickHouse: rows, and bytes after decompression. PostgreSQL: rows looked at, and pages of 8 KiB looked at, wherever they were.",
                ],
                self.work(),
            ),
            section(
                "Storage",
                &[
                    "PostgreSQL's table is the one people make: typed columns, NULL for what is absent, jsonb for changes and details. What ClickHouse has besides (content hash, \
                     the producer's numbers, the place in Kafka, the version) is not in it. ClickHouse's columns are measured in a copy with each column in files of its \
                     own, where the table's parts are smaller than 256 MiB and so have one file.",
                ],
                self.storage(),
            ),
            section(
                "Load",
                &[
                    "No measure of inserting events one by one; CPU time is that of the server's own processes. ClickHouse makes the events itself and keeps all its indexes up to date meanwhile; PostgreSQL gets them by \
                     COPY in the order of their arrival and makes the indexes afterwards, which is its quickest way.",
                ],
                self.load(),
            ),
        ];
        results
    }
}

fn table(names: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    Table { names: names.iter().map(|name| (*name).to_owned()).collect(), rows: rows.into_iter().collect() }
}

fn ms(ms: f64) -> String {
    format!("{ms:.1}")
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
