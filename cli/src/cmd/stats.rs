//! `auditstream stats`: what is stored, what was refused, and how far behind the workers are.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use auditstream_schemas::Timestamp;
use auditstream_store::{Store, StoreStats};

use crate::admin::{Admin, PartitionLag};
use crate::config::Settings;
use crate::{exit, output};

/// Show what is stored, duplicates, dead letters, the ledger, and the lag of the workers.
///
/// When Kafka or ClickHouse can't be reached, the other one's part is shown all the same and the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream stats
  auditstream stats --json | jq .lag.total")]
pub(crate) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stored = stored(settings, &runtime);
    let lag = Admin::connect(settings)
        .and_then(|admin| admin.lag(&settings.consumer.group_id, &settings.kafka.topic))
        .context("kafka");
    let shown = if args.json {
        json(stored.as_ref().ok(), lag.as_deref().ok())
    } else {
        let age = |then_ms| now_ms() - then_ms;
        table(stored.as_ref().ok(), lag.as_deref().ok(), settings, age)
    };
    if !shown.is_empty() {
        output::line(shown.trim_matches('\n'))?;
    }
    let errors = [stored.err(), lag.err()];
    for error in errors.iter().flatten() {
        exit::chain(error);
    }
    Ok(if errors.iter().all(Option::is_none) { exit::OK } else { exit::FAILURE })
}

fn stored(settings: &Settings, runtime: &tokio::runtime::Runtime) -> anyhow::Result<StoreStats> {
    let store = Store::new(&settings.store())?;
    runtime.block_on(store.stats()).context("clickhouse")
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    since.as_millis().try_into().unwrap_or(i64::MAX)
}

fn json(stored: Option<&StoreStats>, lag: Option<&[PartitionLag]>) -> String {
    let events = stored.map(|s| {
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
    serde_json::json!({ "events": events, "lag": lag }).to_string()
}

fn total(partitions: &[PartitionLag]) -> i64 {
    partitions.iter().map(PartitionLag::lag).sum()
}

fn rfc3339(ms: i64) -> String {
    Timestamp::from_micros(ms.saturating_mul(1000)).to_string()
}

/// Fits 80 columns.
fn table(
    stored: Option<&StoreStats>,
    lag: Option<&[PartitionLag]>,
    settings: &Settings,
    age_ms: impl Fn(i64) -> i64,
) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{name:<26} {value:>18}");
    };
    if let Some(s) = stored {
        row("events", output::grouped(s.rows_final));
        row("duplicates not yet merged", output::grouped(s.rows.saturating_sub(s.rows_final)));
        row(
            "newest received",
            s.newest_received_at_ms.map_or("never".to_owned(), |ms| format!("{} ago", span(age_ms(ms)))),
        );
        row("batches", output::grouped(s.batches));
        row("ledger spans", output::grouped(s.spans));
        row("ledger gaps", output::grouped(s.gaps));
        row("dead letters", output::grouped(s.dead_letters.iter().map(|(_, count)| *count).sum::<u64>()));
        for (code, count) in &s.dead_letters {
            row(&format!("  {code}"), output::grouped(*count));
        }
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
fn span(ms: i64) -> String {
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
