//! The proof and the figures: what was acknowledged against what ClickHouse holds, and what was measured.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use auditstream_bench::oracle::{self, Verdict};
use auditstream_bench::table::{Table, thousands};
use auditstream_schemas::Schemas;
use serde::Serialize;
use uuid::Uuid;

use crate::freshness::Freshness;
use crate::orders;
use crate::poison::{self, Poison};
use crate::run::Demo;
use crate::screen::Screen;
use crate::throughput::Drained;

/// The figures, in the form of the file that `--json` names.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    /// See `throughput.rs`: from the first worker's membership until all rows are queryable.
    events_per_second: f64,
    /// From `record` to a query's answer, without other load.
    rest_p50_ms: f64,
    rest_p99_ms: f64,
    /// Peak resident memory of the larger of the two workers.
    worker_rss_mib: f64,
    /// Both workers, from their start to the last row.
    worker_cpu_s_per_million: f64,
    /// Rows of `events` under FINAL.
    rows: u64,
    /// Rows of `dead_letters` under FINAL.
    dead_letters: u64,
    /// Acknowledged, and neither stored nor a dead letter.
    lost: u64,
    /// Stored more than once under FINAL.
    double: u64,
    /// See `orders.rs`.
    #[serde(flatten)]
    orders: orders::Figures,
}

/// Reads back every id and compares.
pub(crate) async fn prove(
    demo: &Demo<'_>,
    poison: &Poison,
    freshness: &Freshness,
    drained: &Drained,
    orders: orders::Figures,
) -> Result<Figures> {
    let bar = demo.screen.bar("reading every event id back", 0);
    let read = async {
        // The analyst's profile bounds how many rows an answer may have; this is no analyst's question.
        let stored = demo.ingest.uuids("SELECT event_id FROM events FINAL").await?;
        let values = demo.analyst.table("SELECT hex(value) AS value FROM dead_letters").await?;
        let poisoned = demo.analyst.number(&poison::count_sql(*poison)).await?;
        let plain = demo.ingest.number("SELECT count() FROM events").await?;
        anyhow::Ok((stored, values, poisoned, plain))
    };
    let (stored, letters, poisoned, plain) = bar.during(|| 0, read).await?;
    drop(bar);
    let (rows, dead_letters) = (stored.len() as u64, letters.rows.len() as u64);
    let dead = ids_in(&letters)?;
    let acknowledged = demo.acknowledged.ids();
    let verdict = tokio::task::spawn_blocking(move || oracle::compare(acknowledged, stored, dead))
        .await
        .context("a thread ended badly")?;
    demo.screen.say(&format!(
        "  {} acknowledged ids compared with {} rows read back, one by one",
        thousands(verdict.acknowledged),
        thousands(rows)
    ));
    demo.screen.say(&format!(
        "  rows that merging still has to fold away: {} (workers insert nothing twice unless they fail)",
        thousands(plain.saturating_sub(rows))
    ));
    demo.screen.say(&format!("  {} more are the order service's, compared by request id", thousands(orders.events())));
    let unheard = verdict.unheard.saturating_sub(orders.events());
    if unheard > 0 {
        demo.screen.say(&format!("  {} rows belong to no acknowledged event of this demo", thousands(unheard)));
    }
    let (orders_lost, orders_double) = orders.faults();
    name_faults(demo.screen, &verdict);
    Ok(Figures {
        events_per_second: round(drained.events_per_second(), 1.0),
        rest_p50_ms: round(freshness.p50_ms, 10.0),
        rest_p99_ms: round(freshness.p99_ms, 10.0),
        worker_rss_mib: round(drained.peak_rss as f64 / 1_048_576.0, 10.0),
        worker_cpu_s_per_million: round(drained.per_million(drained.worker_cpu), 1000.0),
        rows,
        dead_letters,
        lost: verdict.lost.len() as u64 + u64::from(poisoned == 0) + orders_lost,
        double: verdict.double.len() as u64 + poisoned.saturating_sub(1) + orders_double,
        orders,
    })
}

/// The ids of dead letters that are whole events (refused by ClickHouse); what can't be decoded has none.
fn ids_in(letters: &Table) -> Result<Vec<Uuid>> {
    let schemas = Schemas::builtin().context("the built-in schema is broken")?;
    let value = |hex: &String| -> Option<Vec<u8>> {
        (0..hex.len() / 2).map(|byte| u8::from_str_radix(hex.get(2 * byte..2 * byte + 2)?, 16).ok()).collect()
    };
    let values = letters.rows.iter().filter_map(|row| value(row.first()?));
    Ok(values
        .filter_map(|value| auditstream_schemas::decode(&schemas, &value).ok())
        .map(|event| event.event_id)
        .collect())
}

fn name_faults(screen: &Screen, verdict: &Verdict) {
    for (what, ids) in [("LOST", &verdict.lost), ("DOUBLE", &verdict.double)] {
        for id in ids.iter().take(5) {
            screen.say(&format!("  {what}: {id}"));
        }
        if ids.len() > 5 {
            screen.say(&format!("  {what}: {} in all", thousands(ids.len() as u64)));
        }
    }
}

fn round(value: f64, to: f64) -> f64 {
    (value * to).round() / to
}

impl Figures {
    pub(crate) fn show(&self, screen: &Screen) {
        let row = |name: &str, value: String, means: &str| vec![name.to_owned(), value, means.to_owned()];
        let wanted = |good: bool, target: &str| format!("{target}: {}", if good { "reached" } else { "NOT REACHED" });
        let table = Table {
            names: ["figure", "value", "what it should be"].map(str::to_owned).to_vec(),
            rows: vec![
                row(
                    "events_per_second",
                    thousands(self.events_per_second as u64),
                    &wanted(self.events_per_second >= 300_000.0, "at least 300,000"),
                ),
                row("rest_p50_ms", self.rest_p50_ms.to_string(), ""),
                row("rest_p99_ms", self.rest_p99_ms.to_string(), &wanted(self.rest_p99_ms <= 1500.0, "at most 1500")),
                row(
                    "worker_rss_mib",
                    self.worker_rss_mib.to_string(),
                    &wanted(self.worker_rss_mib <= 512.0, "at most 512"),
                ),
                row("worker_cpu_s_per_million", self.worker_cpu_s_per_million.to_string(), ""),
                row("rows", thousands(self.rows), ""),
                row("dead_letters", thousands(self.dead_letters), ""),
                row("lost", thousands(self.lost), &wanted(self.lost == 0, "0")),
                row("double", thousands(self.double), &wanted(self.double == 0, "0")),
            ],
        };
        screen.say("");
        screen.say(&table.render(2));
    }

    /// Writes one JSON object.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
    }

    /// 0 when nothing is lost and nothing double, else 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.lost == 0 && self.double == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
