//! `dlq list` and `dlq show`.

use std::path::PathBuf;

use anyhow::Context;
use auditstream_schemas::Timestamp;
use auditstream_store::{DeadLetter, Store};
use serde_json::{Value as Json, json};

use super::{Place, Which, find, find_one};
use crate::admin::Admin;
use crate::config::Settings;
use crate::{exit, output};

/// Longest header value that is shown, in characters.
const SHOWN: usize = 100;

/// List dead letters, newest first; those about which nothing was done, unless told otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream dlq list
  auditstream dlq list --code wrong-magic --since 24h
  auditstream dlq list --all --json | jq '.[].error_code'")]
pub(super) struct ListArgs {
    #[command(flatten)]
    which: Which,

    /// Also those that were retried or discarded.
    #[arg(long)]
    all: bool,

    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

/// Show one dead letter: the reason, its headers and sizes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream dlq show 3/1042
  auditstream dlq show audit.events/3/1042 --payload record.bin")]
pub(super) struct ShowArgs {
    /// Partition and offset of the source record, with its topic if it is not kafka.topic.
    #[arg(value_name = "[TOPIC/]PARTITION/OFFSET")]
    place: Place,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,

    /// Write the record's value, as it lies on the dead-letter topic, to this new file. It may hold personal data.
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
}

pub(super) async fn list(args: &ListArgs, store: &Store) -> anyhow::Result<u8> {
    let letters = find(store, &args.which.filter(!args.all)).await?;
    if args.json {
        let all: Vec<_> = letters.iter().map(to_json).collect();
        output::line(&Json::from(all).to_string())?;
        return Ok(exit::OK);
    }
    if letters.is_empty() {
        output::line(if args.all { "no dead letters" } else { "no open dead letters" })?;
        return Ok(exit::OK);
    }
    output::line(&header())?;
    letters.iter().try_for_each(|letter| output::line(&row(letter)))?;
    if letters.len() == args.which.limit as usize {
        output::complain(&format!("the newest {}; --limit shows more", letters.len()));
    }
    Ok(exit::OK)
}

fn header() -> String {
    format!("{:<20} {:<24} {:<18} {:>5} {:<9}", "FAILED", "PARTITION/OFFSET", "CODE", "TRIED", "STATE")
}

/// At most 80 columns. The topic is left out: nearly always there is one.
fn row(letter: &DeadLetter) -> String {
    let failed = letter.last_failed_at_ms.max(letter.timestamp_ms);
    format!(
        "{:<20} {:<24} {:<18} {:>5} {:<9}",
        seconds(failed),
        format!("{}/{}", letter.partition, letter.offset),
        cut(&letter.error_code, 18),
        letter.retries + 1,
        state(letter)
    )
    .trim_end()
    .to_owned()
}

fn state(letter: &DeadLetter) -> &'static str {
    match letter.action.as_str() {
        "" => "open",
        "retry" => "retried",
        _ => "discarded",
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_micros(ms.saturating_mul(1_000)).to_string()
}

/// To the second.
fn seconds(ms: i64) -> String {
    time(ms.div_euclid(1_000).saturating_mul(1_000))
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

fn to_json(letter: &DeadLetter) -> Json {
    json!({
        "topic": letter.topic, "partition": letter.partition, "offset": letter.offset, "timestamp": time(letter.timestamp_ms),
        "key_bytes": letter.key_bytes, "value_bytes": letter.value_bytes,
        "error_class": letter.error_class, "error_code": letter.error_code, "error_message": letter.error_message,
        "column": letter.column_name, "schema": letter.schema, "attempts": letter.attempts,
        "first_failed_at": time(letter.first_failed_at_ms), "last_failed_at": time(letter.last_failed_at_ms), "worker": letter.worker,
        "dead_letter": { "topic": letter.dlq_topic, "partition": letter.dlq_partition, "offset": letter.dlq_offset },
        "retries": letter.retries,
        "state": state(letter),
        "decided_at": (!letter.is_open()).then(|| time(letter.action_at_ms)),
        "decided_by": (!letter.is_open()).then_some(&letter.actor),
    })
}

pub(super) async fn show(args: &ShowArgs, store: &Store, settings: &Settings) -> anyhow::Result<u8> {
    let letter = find_one(store, &args.place, settings).await?;
    if let Some(file) = &args.payload {
        let records = Admin::connect(settings)?.records()?;
        let record = records.read(&letter.dlq_topic, letter.dlq_partition, letter.dlq_offset)?;
        let mut new = std::fs::File::create_new(file).with_context(|| format!("can't make {}", file.display()))?;
        let value = record.value.unwrap_or_default();
        std::io::Write::write_all(&mut new, &value).with_context(|| format!("can't write {}", file.display()))?;
        output::complain(&format!("{} bytes written to {}", output::grouped(value.len() as u64), file.display()));
    }
    if args.json {
        let mut json = to_json(&letter);
        json["headers"] = letter.headers.iter().map(|(name, value)| json!([name, value])).collect();
        output::line(&json.to_string())?;
        return Ok(exit::OK);
    }
    let mut rows = vec![
        ("record", letter.place()),
        ("timestamp", time(letter.timestamp_ms)),
        ("reason", format!("{} ({})", letter.error_code, letter.error_class)),
        ("message", letter.error_message.clone()),
        ("column", letter.column_name.clone()),
        ("schema", letter.schema.clone()),
        ("attempts", letter.attempts.to_string()),
        ("first failed", time(letter.first_failed_at_ms)),
        ("last failed", time(letter.last_failed_at_ms)),
        ("worker", letter.worker.clone()),
        ("dead letter", format!("{}/{}/{}", letter.dlq_topic, letter.dlq_partition, letter.dlq_offset)),
        ("key", format!("{} bytes", output::grouped(letter.key_bytes))),
        ("value", format!("{} bytes", output::grouped(letter.value_bytes))),
        ("sent again", format!("{} times", letter.retries)),
        ("state", state(&letter).to_owned()),
    ];
    if !letter.is_open() {
        rows.push(("decided", format!("{} by {}", time(letter.action_at_ms), letter.actor)));
    }
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        output::line(&format!("{name:<14} {}", value.escape_debug()))?;
    }
    output::line("headers")?;
    for (name, value) in &letter.headers {
        output::line(&format!("  {} = {}", name.escape_debug(), cut(&value.escape_debug().to_string(), SHOWN)))?;
    }
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_eighty_columns() {
        let letter = DeadLetter {
            topic: "t".to_owned(),
            partition: 9_999,
            offset: 1_234_567_890_123_456_789,
            timestamp_ms: 1_700_000_000_123,
            key_bytes: 1,
            value_bytes: 2,
            headers: Vec::new(),
            error_class: "decode".to_owned(),
            error_code: "a-code-that-is-longer-than-any".to_owned(),
            error_message: String::new(),
            column_name: String::new(),
            schema: String::new(),
            attempts: 1,
            first_failed_at_ms: 0,
            last_failed_at_ms: 1_700_000_001_999,
            worker: String::new(),
            dlq_topic: String::new(),
            dlq_partition: 0,
            dlq_offset: 0,
            retries: 41,
            action: "discard".to_owned(),
            action_at_ms: 0,
            actor: String::new(),
        };
        assert_eq!(row(&letter), "2023-11-14T22:13:21Z 9999/1234567890123456789 a-code-that-is-lo…    42 discarded");
        assert!(row(&letter).chars().count() <= 80 && header().chars().count() <= 80);
    }
}
