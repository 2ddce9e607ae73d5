//! `auditstream stats`: what is stored, what was refused, and how far behind the workers are.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use auditstream_producer::outbox::{Database, Depth};
use auditstream_producer::spill;
use auditstream_schemas::Timestamp;
use auditstream_store::{Recent, Store, StoreStats};
use serde_json::Value as Json;

use super::consumer::pause;
use super::watch::{Look, Watch};
use crate::admin::{Admin, PartitionLag};
use crate::config::Settings;
use crate::{exit, output};

/// The throughput is that of so many seconds.
const WINDOW_S: u32 = 60;

/// Show what is stored and how fast, duplicates, dead letters by reason, the ledger, the lag of the workers, a pause, and what waits in
/// the spill (producer.spill_folder) and in the outbox (outbox.url) where they are set.
///
/// When Kafka or ClickHouse can't be reached, the other one's part is shown all the same and the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream stats
  auditstream stats --watch --interval 5
  auditstream stats --json | jq .lag.total")]
pub(crate) struct Args {
    /// Print one JSON object; with --watch one a line.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    watch: Watch,
}

/// What waits before Kafka, where it is configured.
#[derive(Debug, Default)]
struct Waiting {
    /// Events in the spill.
    spill: Option<u64>,
    outbox: Option<Depth>,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    args.watch.run(args.json, || {
        let stored = stored(settings, &runtime);
        let lag = Admin::connect(settings)
            .and_then(|admin| admin.lag(&settings.consumer.group_id, &settings.kafka.topic))
            .context("kafka");
        let waiting = waiting(settings, &runtime);
        // Without ClickHouse there is nobody to ask, which is said already.
        let paused = if stored.is_ok() { pause::seen(settings) } else { Err(anyhow!("clickhouse is away")) };
        let told = stored.as_ref().ok().and_then(|_| pause::told(&paused));
        let shown = (stored.as_ref().ok(), lag.as_deref().ok(), waiting.as_ref().ok());
        let full = if args.json {
            let mut all = json(shown.0, shown.1, shown.2);
            all["paused"] = pause::to_json(&paused);
            all.to_string()
        } else {
            let mut all = table(shown.0, shown.1, shown.2, settings, |then_ms| now_ms() - then_ms);
            all.extend(told.iter().map(|told| format!("{told}\n")));
            all
        };
        let line = [Some(line(shown.0, shown.1)), told].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let errors = [stored.err(), lag.err(), waiting.err()];
        errors.iter().flatten().for_each(exit::chain);
        let code = if errors.iter().all(Option::is_none) { exit::OK } else { exit::FAILURE };
        Ok(Look { full, line, code })
    })
}

fn stored(settings: &Settings, runtime: &tokio::runtime::Runtime) -> anyhow::Result<(StoreStats, Recent)> {
    let store = Store::new(&settings.store())?;
    runtime
        .block_on(async { Ok((store.stats().await?, store.recent(WINDOW_S).await?)) })
        .map_err(|error: auditstream_store::CallError| anyhow::Error::from(error).context("clickhouse"))
}

fn waiting(settings: &Settings, runtime: &tokio::runtime::Runtime) -> anyhow::Result<Waiting> {
    // A folder that no producer has used yet holds nothing.
    let folder = settings.producer.spill.as_ref().map(|spill| &spill.folder).filter(|folder| folder.exists());
    let spill = folder.map(|folder| spill::inspect(folder)).transpose().context("spill")?.map(|seen| seen.events);
    let outbox = match &settings.outbox.url {
        None => None,
        Some(_) => Some(
            runtime
                .block_on(async {
                    let database = Database::connect(settings.outbox_url()?).await?;
                    let depth = database.depth(&settings.outbox.table).await;
                    database.close().await;
                    anyhow::Ok(depth?)
                })
                .context("outbox")?,
        ),
    };
    Ok(Waiting { spill, outbox })
}

/// The share of the records of the last minute that became rows, in percent.
fn success(recent: &Recent) -> Option<f64> {
    let all = recent.rows + recent.dead_letters;
    (all > 0).then(|| recent.rows as f64 * 100.0 / all as f64)
}

fn per_second(recent: &Recent) -> u64 {
    recent.rows / u64::from(WINDOW_S)
}

fn line(stored: Option<&(StoreStats, Recent)>, lag: Option<&[PartitionLag]>) -> String {
    let mut parts = Vec::new();
    if let Some((s, recent)) = stored {
        let dead = s.dead_letters.iter().map(|(_, count)| *count).sum::<u64>();
        parts.push(format!("events {}", output::grouped(s.rows_final)));
        parts.push(format!("{} a second", output::grouped(per_second(recent))));
        let age = s.newest_received_at_ms.map_or("never".to_owned(), |ms| span(now_ms() - ms));
        parts.push(format!("newest {age}"));
        parts.push(format!("dead letters {}", output::grouped(dead)));
        parts.push(format!("parts {}", output::grouped(s.parts)));
    }
    if let Some(lag) = lag {
        parts.push(format!("lag {}", output::grouped(total(lag))));
    }
    parts.join(", ")
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    since.as_millis().try_into().unwrap_or(i64::MAX)
}

fn json(stored: Option<&(StoreStats, Recent)>, lag: Option<&[PartitionLag]>, waiting: Option<&Waiting>) -> Json {
    let events = stored.map(|(s, _)| {
        let dead_letters: serde_json::Map<_, _> =
            s.dead_letters.iter().map(|(code, count)| (code.clone(), (*count).into())).collect();
        serde_json::json!({
            "rows": s.rows_final,
            "duplicates": s.rows.saturating_sub(s.rows_final),
            "conflicts": s.conflicts,
            "parts": s.parts,
            "bytes_on_disk": s.bytes_on_disk,
            "dead_letters": dead_letters,
            "ledger": { "batches": s.batches, "spans": s.spans, "gaps": s.gaps },
            "newest_received_at": s.newest_received_at_ms.map(rfc3339),
        })
    });
    let lag = lag.map(|partitions| {
        let each: Vec<_> = partitions
            .iter()
            .map(|p| serde_json::json!({ "partition": p.partition, "committed": p.committed, "low": p.low, "high": p.high, "lag": p.lag() }))
            .collect();
        serde_json::json!({ "total": total(partitions), "partitions": each })
    });
    let recent = stored.map(|(_, recent)| {
        serde_json::json!({
            "seconds": WINDOW_S, "rows": recent.rows, "dead_letters": recent.dead_letters, "batches": recent.batches,
            "rows_per_second": per_second(recent), "success_percent": success(recent),
        })
    });
    let spill = waiting.and_then(|waiting| waiting.spill).map(|events| serde_json::json!({ "events": events }));
    let outbox = waiting
        .and_then(|waiting| waiting.outbox)
        .map(|depth| serde_json::json!({ "waiting": depth.waiting, "failed": depth.failed }));
    serde_json::json!({ "events": events, "lag": lag, "recent": recent, "spill": spill, "outbox": outbox })
}

fn total(partitions: &[PartitionLag]) -> i64 {
    partitions.iter().map(PartitionLag::lag).sum()
}

fn rfc3339(ms: i64) -> String {
    Timestamp::from_micros(ms.saturating_mul(1000)).to_string()
}

/// Fits 80 columns.
fn table(
    stored: Option<&(StoreStats, Recent)>,
    lag: Option<&[PartitionLag]>,
    waiting: Option<&Waiting>,
    settings: &Settings,
    age_ms: impl Fn(i64) -> i64,
) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{name:<26} {value:>18}");
    };
    if let Some((s, recent)) = stored {
        row("events", output::grouped(s.rows_final));
        row("duplicates not yet merged", output::grouped(s.rows.saturating_sub(s.rows_final)));
        row(
            "newest received",
            s.newest_received_at_ms.map_or("never".to_owned(), |ms| format!("{} ago", span(age_ms(ms)))),
        );
        row("events in the last minute", output::grouped(recent.rows));
        row("  a second", output::grouped(per_second(recent)));
        row("  stored of what was read", success(recent).map_or("-".to_owned(), |percent| format!("{percent:.2} %")));
        row("parts", output::grouped(s.parts));
        row("bytes on disk", output::grouped(s.bytes_on_disk));
        row("batches", output::grouped(s.batches));
        row("ledger spans", output::grouped(s.spans));
        row("ledger gaps", output::grouped(s.gaps));
        row("dead letters", output::grouped(s.dead_letters.iter().map(|(_, count)| *count).sum::<u64>()));
        for (code, count) in &s.dead_letters {
            row(&format!("  {code}"), output::grouped(*count));
        }
    }
    if let Some(events) = waiting.and_then(|waiting| waiting.spill) {
        row("events in the spill", output::grouped(events));
    }
    if let Some(depth) = waiting.and_then(|waiting| waiting.outbox) {
        row("outbox, waiting", output::grouped(depth.waiting));
        row("outbox, failed", output::grouped(depth.failed));
    }
    if let Some(partitions) = lag {
        let _ = writeln!(out, "\ntopic {}, group {}", settings.kafka.topic, settings.consumer.group_id);
        if partitions.is_empty() {
            let _ = writeln!(out, "  there is no such topic; `auditstream topics create` makes it");
            return out;
        }
        let _ = writeln!(out, "{:>9} {:>18} {:>18} {:>16}", "partition", "committed", "end", "lag");
        for p in partitions {
            let committed = p.committed.map_or("-".to_owned(), output::grouped);
            let (end, lag) = (output::grouped(p.high), output::grouped(p.lag()));
            let _ = writeln!(out, "{:>9} {committed:>18} {end:>18} {lag:>16}", p.partition);
        }
        let _ = writeln!(out, "{:>9} {:>18} {:>18} {:>16}", "all", "", "", output::grouped(total(partitions)));
    }
    out
}

/// Milliseconds in words of one unit, two above.
pub(super) fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0 => "under 1 s".to_owned(),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans_are_readable() {
        let cases = [
            (0, "under 1 s"),
            (1_999, "1 s"),
            (61_000, "1 min 1 s"),
            (3_700_000, "1 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ];
        for (ms, text) in cases {
            assert_eq!(span(ms), text);
        }
    }
}
