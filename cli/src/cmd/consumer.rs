//! `auditstream consumer`: where the workers go on reading, and whether they read.

pub(crate) mod pause;

use anyhow::bail;
use auditstream_schemas::Timestamp;
use clap::Subcommand;
use serde_json::json;

use crate::admin::{Admin, NewOffset, PartitionLag};
use crate::audit::{Auditor, Deed, INSTALLATION};
use crate::config::Settings;
use crate::confirm::Consent;
use crate::{exit, output};

/// The workers' consumer group.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    Reset(ResetArgs),
}

/// Set where the workers of consumer.group_id go on reading. Refused while the group has members: stop all workers first.
///
/// Backwards, records are read and stored again, even where the ledger says that they have landed, up to where the topic ends
/// now: what is stored already stays one row, because a row's identity is its event's. Start as many workers as you like:
/// each commit carries on that all is to be read again, so a rebalance or a restart in between changes nothing. Forwards,
/// records are skipped: they are never stored unless somebody sets the offsets back. Afterwards the offsets are read back, and
/// a partition that did not take its own is named. Audited as audit.consumer_reset.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream consumer reset --to-time 2026-01-31T09:30:00Z --dry-run
  auditstream consumer reset --to-earliest --partition 3
  auditstream consumer reset --to-latest --yes")]
struct ResetArgs {
    /// To the first records of this time (RFC 3339) or later, by the records' timestamps.
    #[arg(long, value_name = "TIME", required_unless_present_any = ["to_earliest", "to_latest"], conflicts_with_all = ["to_earliest", "to_latest"])]
    to_time: Option<Timestamp>,

    /// To the first records that are still on the topic.
    #[arg(long, conflicts_with = "to_latest")]
    to_earliest: bool,

    /// Behind the last records: what is not committed now is skipped.
    #[arg(long)]
    to_latest: bool,

    /// Only these partitions; default: all.
    #[arg(long, value_name = "PARTITION", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,

    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    match &args.command {
        Command::Pause(args) => pause::pause(args, settings),
        Command::Resume(args) => pause::resume(args, settings),
        Command::Reset(args) => reset(args, settings),
    }
}

fn reset(args: &ResetArgs, settings: &Settings) -> anyhow::Result<u8> {
    let (group, topic) = (&settings.consumer.group_id, &settings.kafka.topic);
    let admin = Admin::connect(settings)?;
    let lags = admin.lag(group, topic)?;
    if lags.is_empty() {
        bail!("there is no topic {topic}; `auditstream topics create` makes it");
    }
    if let Some(wrong) = args.partition.iter().find(|&&wanted| !lags.iter().any(|lag| lag.partition == wanted)) {
        bail!("topic {topic} has no partition {wrong}");
    }
    let members = admin.members(group, topic)?;
    if !members.is_empty() && !args.consent.dry_run {
        let hosts: Vec<_> = members.iter().map(|member| format!("{} on {}", member.client_id, member.host)).collect();
        bail!("group {group} has {} members; stop them first: {}", members.len(), hosts.join(", "));
    }
    let offsets = new_offsets(args, &admin, settings, &lags)?;
    show(&offsets)?;
    let (again, skipped) = moved(&offsets, &lags);
    let what = format!("{} records read again, {} skipped", output::grouped(again), output::grouped(skipped));
    if args.consent.dry_run {
        let members =
            if members.is_empty() { String::new() } else { format!("; the group has {} members", members.len()) };
        output::line(&format!("it would be: {what}; nothing was done (dry run){members}"))?;
        return Ok(exit::OK);
    }
    if offsets.iter().all(|new| new.from == Some(new.to)) {
        output::line("nothing to do: the group is there already")?;
        return Ok(exit::OK);
    }
    if !args.consent.given(&format!("{what}. Go on?"))? {
        return Ok(exit::FAILURE);
    }
    let deed = Deed {
        action: "audit.consumer_reset",
        tenant: INSTALLATION.to_owned(),
        entity_type: "consumer_group",
        entity_id: group.clone(),
        details: json!({
            "topic": topic, "read_again": again, "skipped": skipped,
            "offsets": offsets.iter().map(|new| json!([new.partition, new.from, new.to])).collect::<Vec<_>>(),
        }),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let auditor = Auditor::new(settings).await?;
        let result = auditor.audited(deed, async || admin.set_offsets(group, topic, &offsets)).await;
        auditor.close().await;
        result
    })?;
    output::line(&format!("done: {what}"))?;
    Ok(exit::OK)
}

fn new_offsets(
    args: &ResetArgs,
    admin: &Admin,
    settings: &Settings,
    lags: &[PartitionLag],
) -> anyhow::Result<Vec<NewOffset>> {
    let is_chosen = |partition| args.partition.is_empty() || args.partition.contains(&partition);
    let lags: Vec<PartitionLag> = lags.iter().copied().filter(|lag| is_chosen(lag.partition)).collect();
    let at = match args.to_time {
        Some(time) => {
            let time_ms = time.as_micros().div_euclid(1_000);
            admin.offsets_at(&settings.consumer.group_id, &settings.kafka.topic, &lags, time_ms)?
        }
        None => lags.iter().map(|lag| (lag.partition, if args.to_earliest { lag.low } else { lag.high })).collect(),
    };
    let new = |lag: &PartitionLag| NewOffset {
        partition: lag.partition,
        from: lag.committed,
        to: at.get(&lag.partition).copied().unwrap_or(lag.high),
        end: lag.high,
    };
    Ok(lags.iter().map(new).collect())
}

/// Records that will be read again, and those that will be skipped. Where nothing was committed reading would begin at the log's start.
fn moved(offsets: &[NewOffset], lags: &[PartitionLag]) -> (i64, i64) {
    let mut sums = (0, 0);
    for new in offsets {
        let low = lags.iter().find(|lag| lag.partition == new.partition).map_or(0, |lag| lag.low);
        let by = new.to - new.from.unwrap_or(low).max(low);
        if by < 0 {
            sums.0 -= by;
        } else {
            sums.1 += by;
        }
    }
    sums
}

fn show(offsets: &[NewOffset]) -> anyhow::Result<()> {
    output::line(&format!("{:>9} {:>18} {:>18}", "partition", "committed", "new"))?;
    for new in offsets {
        let from = new.from.map_or("-".to_owned(), |offset| offset.to_string());
        output::line(&format!("{:>9} {from:>18} {:>18}", new.partition, new.to))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_is_counted() {
        let lag = |partition, low| PartitionLag { partition, committed: None, low, high: 100 };
        let new = |partition, from, to| NewOffset { partition, from, to, end: 100 };
        let lags = [lag(0, 0), lag(1, 50), lag(2, 10)];
        assert_eq!(moved(&[new(0, Some(70), 20), new(1, None, 100), new(2, Some(5), 10)], &lags), (50, 50));
    }
}
