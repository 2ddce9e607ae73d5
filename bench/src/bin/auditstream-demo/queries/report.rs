//! The figures: as text, as one JSON object, and as the table of docs/queries.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use auditstream_bench::table::{Table, thousands};
use serde::Serialize;
use serde_json::json;

use super::bounds::{Bounds, Unmerged};
use super::catalogue::Question;
use super::cold::Cold;
use super::insert::Inserts;
use crate::server::Server;

/// What a question took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Measured {
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) runs: usize,
    pub(super) read_rows: u64,
    pub(super) read_bytes: u64,
    pub(super) answer_rows: usize,
    /// With nothing of the table in memory, where that was measured.
    pub(super) cold: Option<Cold>,
}

/// A question that reads every event.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Scan {
    /// Without FINAL.
    pub(super) plain: Measured,
    /// Each event once.
    pub(super) once: Measured,
}

impl Scan {
    pub(super) fn ratio(&self) -> f64 {
        self.once.p50_ms / self.plain.p50_ms
    }
}

/// Bytes on disk.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sizes {
    /// Of an event, with everything.
    pub(super) per_event: f64,
    /// Of an event's indexes.
    pub(super) indexes_per_event: f64,
    parts: u64,
    /// Bytes an event, by column, most first.
    pub(super) columns: Vec<(String, f64)>,
}

impl Sizes {
    pub(super) fn read(server: &Server) -> Result<Self> {
        let of_parts = "FROM system.parts WHERE active AND database = currentDatabase() AND table = 'events'";
        let real = |what: &str| server.real(&format!("SELECT {what} {of_parts}"));
        Ok(Self {
            per_event: real("sum(bytes_on_disk) / sum(rows)")?,
            indexes_per_event: real("sum(secondary_indices_compressed_bytes) / sum(rows)")?,
            parts: server.number(&format!("SELECT count() {of_parts}"))?,
            columns: columns(server, "events")?,
        })
    }

    /// What no codec makes smaller, as the report says it.
    fn random(&self) -> String {
        let random: Vec<_> = self.columns.iter().filter(|(column, _)| RANDOM.contains(&column.as_str())).collect();
        let each: Vec<_> = random.iter().map(|(column, bytes)| format!("{column} {bytes:.1}")).collect();
        let sum: f64 = random.iter().map(|(_, bytes)| bytes).sum();
        format!("{sum:.1} of them are hashes and ids of random bytes, which nothing compresses: {}", each.join(", "))
    }
}

/// Bytes an event, by column, most first. Parts that keep all columns in one file do not tell: they count as 0.
pub(super) fn columns(server: &Server, table: &str) -> Result<Vec<(String, f64)>> {
    let columns = server.text(&format!(
        "SELECT column, sum(column_data_compressed_bytes) / sum(rows) AS bytes FROM system.parts_columns \
         WHERE active AND database = currentDatabase() AND table = '{table}' GROUP BY column ORDER BY bytes DESC, column"
    ))?;
    let columns = columns.lines().filter_map(|line| {
        let (column, bytes) = line.split_once('\t')?;
        Some((column.to_owned(), bytes.parse().ok()?))
    });
    Ok(columns.collect())
}

/// What a question may take, p95 in milliseconds: settled, and with the newest hour unmerged.
pub(super) fn wanted(title: &str) -> Option<(f64, f64)> {
    Some(match title {
        "What happened to one entity?" => (15.0, 30.0),
        "One event by its id" => (30.0, 30.0),
        "What did somebody do in a month, the newest first?"
        | "What fails, by action, on one day?"
        | "What belongs together across services?" => (60.0, 60.0),
        "How many events were there, hour by hour?" => (250.0, 250.0),
        "Where does a word stand in the details?" => (500.0, 500.0),
        _ => return None,
    })
}

/// Everything.
pub(super) struct Report {
    pub(super) rows: u64,
    pub(super) newest: u64,
    pub(super) copies: u64,
    pub(super) runs: u32,
    pub(super) questions: Vec<Question>,
    pub(super) settled: Vec<Measured>,
    pub(super) unmerged: Vec<Measured>,
    pub(super) scan_settled: Scan,
    pub(super) scan_unmerged: Scan,
    pub(super) sizes: Sizes,
    pub(super) inserts: Inserts,
    /// Of the questions that have a target, by number: settled, and with the newest hour unmerged.
    pub(super) bounds: BTreeMap<usize, [Bounds; 2]>,
    pub(super) unmerged_rows: Unmerged,
}

/// A figure that has a target.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) at_most: f64,
    /// What bounds it, where that was measured.
    pub(super) bound_by: String,
}

impl Figure {
    pub(super) fn is_reached(&self) -> bool {
        self.value <= self.at_most
    }
}

/// Columns that are random by nature: no codec makes them smaller.
const RANDOM: [&str; 4] = ["content_hash", "event_id", "request_id", "trace_id"];

impl Report {
    pub(super) fn rows_of_questions(&self) -> impl Iterator<Item = (&Question, &Measured, &Measured)> {
        self.questions
            .iter()
            .zip(self.settled.iter().zip(&self.unmerged))
            .map(|(question, (settled, unmerged))| (question, settled, unmerged))
    }

    /// The figures that have a target.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        let mut add = |what: String, value, at_most, bound_by| figures.push(Figure { what, value, at_most, bound_by });
        for (question, settled, unmerged) in self.rows_of_questions() {
            let Some((most_settled, most_unmerged)) = wanted(&question.title) else { continue };
            let [of_settled, of_unmerged] = self.bounds.get(&question.number).copied().unwrap_or_default();
            for (state, measured, most, bounds) in [
                ("settled", settled, most_settled, of_settled),
                ("newest hour unmerged", unmerged, most_unmerged, of_unmerged),
            ] {
                let bound = bounds.text(measured.read_rows, measured.read_bytes);
                add(format!("{}, {state}, p95 ms", question.title), measured.p95_ms, most, bound);
            }
        }
        let bound = |scan: &Scan| self.unmerged_rows.text(scan.plain.p50_ms);
        add("each event once / plain scan, settled".to_owned(), self.scan_settled.ratio(), 1.3, String::new());
        let what = "each event once / plain scan, newest hour unmerged".to_owned();
        add(what, self.scan_unmerged.ratio(), 2.0, bound(&self.scan_unmerged));
        add("bytes an event on disk".to_owned(), self.sizes.per_event, 80.0, self.sizes.random());
        let percent = self.inserts.indexes_percent();
        add("cost of the indexes at insert, percent of CPU".to_owned(), percent, 30.0, String::new());
        figures
    }

    pub(super) fn text(&self) -> String {
        let questions = Table {
            names: ["", "question", "p50 ms", "p95 ms", "cold", "unmerged p50", "p95", "rows read"]
                .map(str::to_owned)
                .to_vec(),
            rows: self
                .rows_of_questions()
                .map(|(question, settled, unmerged)| {
                    let times =
                        [settled.p50_ms, settled.p95_ms, unmerged.p50_ms, unmerged.p95_ms].map(|ms| format!("{ms:.1}"));
                    let mut row = vec![question.number.to_string(), question.title.clone()];
                    row.extend(times);
                    row.insert(4, Cold::text(settled.cold.as_ref()));
                    row.push(thousands(settled.read_rows));
                    row
                })
                .collect(),
        };
        let figures = Table {
            names: ["figure", "value", "at most", ""].map(str::to_owned).to_vec(),
            rows: self
                .figures()
                .into_iter()
                .map(|figure| {
                    let verdict = if figure.is_reached() { "reached" } else { "NOT REACHED" };
                    vec![figure.what, format!("{:.1}", figure.value), figure.at_most.to_string(), verdict.to_owned()]
                })
                .collect(),
        };
        let Inserts { plain, indexed, merge_plain, merge_indexed } = self.inserts;
        let mut text = format!("\n{}\n{}\n", questions.render(2), figures.render(2));
        let columns: Vec<String> =
            self.sizes.columns.iter().take(12).map(|(column, bytes)| format!("{column} {bytes:.1}")).collect();
        // Writing to a String can't fail.
        let _ = write!(
            text,
            "  {:.1} bytes an event, {:.1} of them indexes; {} parts; by column: {}\n  CPU-seconds a million rows: inserted {:.2} without indexes, {:.2} with; merged {:.2}, {:.2}\n",
            self.sizes.per_event,
            self.sizes.indexes_per_event,
            self.sizes.parts,
            columns.join(", "),
            plain.cpu_s,
            indexed.cpu_s,
            merge_plain.cpu_s,
            merge_indexed.cpu_s
        );
        text
    }

    /// Rows for the page, in Markdown.
    pub(super) fn page_table(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let mut text = format!(
            "{} events over a hundred days on {cores} cores, {} runs each, warm; milliseconds. Cold: the middle of a few, the server's caches dropped and its files out of the page cache before each. Unmerged: with a newest hour of {} events in 40 parts, {} of them duplicates.\n\n\
             | question | p50 | p95 | cold | unmerged p50 | p95 | rows read | MB read |\n|---|---|---|---|---|---|---|---|\n",
            thousands(self.rows),
            self.runs,
            thousands(self.newest),
            thousands(self.copies)
        );
        for (question, settled, unmerged) in self.rows_of_questions() {
            let _ = writeln!(
                text,
                "| {}. {} | {:.1} | {:.1} | {} | {:.1} | {:.1} | {} | {:.1} |",
                question.number,
                question.title,
                settled.p50_ms,
                settled.p95_ms,
                Cold::text(settled.cold.as_ref()),
                unmerged.p50_ms,
                unmerged.p95_ms,
                thousands(settled.read_rows),
                settled.read_bytes as f64 / 1e6
            );
        }
        text
    }

    /// Writes one JSON object.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let questions: Vec<_> = self
            .rows_of_questions()
            .map(|(question, settled, unmerged)| {
                json!({ "number": question.number, "title": question.title, "settled": settled, "unmerged": unmerged })
            })
            .collect();
        let figures: Vec<_> = self
            .figures()
            .into_iter()
            .map(|figure| {
                let reached = figure.is_reached();
                json!({ "name": figure.what, "value": figure.value, "at_most": figure.at_most, "reached": reached, "bound_by": figure.bound_by })
            })
            .collect();
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let json = json!({
            "bench": "queries", "rows": self.rows, "newest_hour": self.newest, "copies": self.copies, "runs": self.runs, "cores": cores,
            "figures": figures, "questions": questions, "scan": { "settled": self.scan_settled, "unmerged": self.scan_unmerged },
            "sizes": self.sizes, "inserts": self.inserts,
        });
        let text = serde_json::to_string_pretty(&json)? + "\n";
        std::fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
    }
}
