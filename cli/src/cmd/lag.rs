//! `auditstream lag`: how far behind the workers are, partition by partition, in records and in time.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use auditstream_store::Pause;
use serde_json::json;

use super::consumer::pause;
use super::stats::{now_ms, span};
use super::watch::{Look, Watch};
use crate::admin::{Admin, Member, PartitionLag};
use crate::config::Settings;
use crate::{exit, output};

/// Longest wait for the oldest unread records.
const READ: Duration = Duration::from_secs(3);

/// Show how far behind the workers are: per partition what is committed, the log's end, the lag in records, the age of the
/// oldest record that is not committed, who reads it, and whether an operator has paused it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Members are shown of groups of the classic protocol (consumer.group_protocol) only.

Examples:
  auditstream lag
  auditstream lag --watch --interval 5
  auditstream lag --json | jq .total")]
pub(crate) struct Args {
    /// Print one JSON object; with --watch one a line.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    watch: Watch,
}

/// What is seen of the group.
struct Seen {
    lags: Vec<PartitionLag>,
    /// Timestamps of the first records that are not committed, milliseconds since 1970.
    oldest_ms: BTreeMap<i32, i64>,
    members: Vec<Member>,
    /// What ClickHouse says of it, which workers obey.
    pause: anyhow::Result<Option<Pause>>,
}

impl Seen {
    fn total(&self) -> i64 {
        self.lags.iter().map(PartitionLag::lag).sum()
    }

    fn age_ms(&self, partition: i32) -> Option<i64> {
        self.oldest_ms.get(&partition).map(|oldest| (now_ms() - oldest).max(0))
    }

    fn host(&self, partition: i32) -> Option<&Member> {
        self.members.iter().find(|member| member.partitions.contains(&partition))
    }
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let admin = Admin::connect(settings)?;
    let (group, topic) = (&settings.consumer.group_id, &settings.kafka.topic);
    args.watch.run(args.json, || {
        let lags = admin.lag(group, topic)?;
        let oldest_ms = admin.oldest_unread(topic, &lags, READ)?;
        let seen = Seen { oldest_ms, members: admin.members(group, topic)?, lags, pause: pause::seen(settings) };
        let code = if seen.lags.is_empty() { exit::FAILURE } else { exit::OK };
        if seen.lags.is_empty() {
            output::complain(&format!("there is no topic {topic}; `auditstream topics create` makes it"));
        }
        Ok(Look { full: if args.json { json(&seen) } else { table(&seen, settings) }, line: line(&seen), code })
    })
}

fn json(seen: &Seen) -> String {
    let each: Vec<_> = seen
        .lags
        .iter()
        .map(|lag| {
            let host = seen.host(lag.partition);
            json!({
                "partition": lag.partition, "committed": lag.committed, "low": lag.low, "high": lag.high, "lag": lag.lag(),
                "oldest_unread_age_ms": seen.age_ms(lag.partition),
                "host": host.map(|member| &member.host), "client_id": host.map(|member| &member.client_id),
            })
        })
        .collect();
    json!({ "total": seen.total(), "members": seen.members.len(), "paused": pause::to_json(&seen.pause), "partitions": each }).to_string()
}

fn line(seen: &Seen) -> String {
    let age = seen.lags.iter().filter_map(|lag| seen.age_ms(lag.partition)).max();
    let paused = pause::told(&seen.pause).map_or(String::new(), |told| format!(", {told}"));
    format!(
        "lag {}, oldest unread {}, {} members{paused}",
        output::grouped(seen.total()),
        age.map_or("-".to_owned(), span),
        seen.members.len()
    )
}

/// Fits 80 columns.
fn table(seen: &Seen, settings: &Settings) -> String {
    let mut out = String::new();
    if seen.lags.is_empty() {
        return out;
    }
    // Writing to a String can't fail.
    let _ = writeln!(out, "topic {}, group {}", settings.kafka.topic, settings.consumer.group_id);
    let _ = writeln!(
        out,
        "{:>9} {:>14} {:>14} {:>12} {:>11} {:<15}",
        "partition", "committed", "end", "lag", "oldest", "host"
    );
    for lag in &seen.lags {
        let row = format!(
            "{:>9} {:>14} {:>14} {:>12} {:>11} {:<15}",
            lag.partition,
            lag.committed.map_or("-".to_owned(), |offset| offset.to_string()),
            lag.high,
            lag.lag(),
            seen.age_ms(lag.partition).map_or("-".to_owned(), span),
            seen.host(lag.partition).map_or("-", |member| member.host.as_str())
        );
        let _ = writeln!(out, "{}", row.trim_end());
    }
    let _ = writeln!(out, "{:>9} {:>14} {:>14} {:>12}", "all", "", "", output::grouped(seen.total()));
    let _ = writeln!(out, "{} members", seen.members.len());
    if let Some(told) = pause::told(&seen.pause) {
        let _ = writeln!(out, "{told}");
    }
    out
}
