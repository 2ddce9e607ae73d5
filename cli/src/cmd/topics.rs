//! `auditstream topics create`: the two topics, with settings that lose nothing.

use std::collections::BTreeMap;

use clap::Subcommand;

use crate::admin::{Admin, Created, Topic};
use crate::config::Settings;
use crate::{exit, output};

/// Kafka's default `max.message.bytes` (<https://kafka.apache.org/documentation/#topicconfigs_max.message.bytes>).
const KAFKA_MAX_MESSAGE_BYTES: usize = 1_048_588;
/// A dead letter is its source record and headers that say where and why; so much more fits.
const DEAD_LETTER_HEADROOM: usize = 64 * 1024;
const DAY_MS: u64 = 86_400_000;

/// Work with the Kafka topics.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(CreateArgs),
}

/// Create the topics for events and dead letters.
///
/// Topics that exist are left as they are, and it is said where they differ from what was asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream topics create
  auditstream topics create --partitions 24 --replication-factor 3 --min-insync-replicas 2")]
struct CreateArgs {
    /// Partitions of each topic; bounds how many workers can share the work. Can't be lowered later.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    partitions: u32,

    /// Copies of each partition; default: the broker's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    replication_factor: Option<u32>,

    /// Copies that must have a record before it counts as written; default: 2 with three copies or more, otherwise the broker's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    min_insync_replicas: Option<u32>,

    /// Days that events stay on the topic; at least as long as an outage of ClickHouse may last.
    #[arg(long, default_value_t = 7, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    retention_days: u32,

    /// Days that dead letters stay.
    #[arg(long, default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    dead_letter_retention_days: u32,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let Command::Create(args) = &args.command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = Admin::connect(settings)?;
    for warning in warnings(args, admin.brokers()?) {
        output::complain(&format!("warning: {warning}"));
    }
    for topic in topics(args, settings) {
        let name = &topic.name;
        match runtime.block_on(admin.create(&topic))? {
            Created::New => output::line(&format!("{name}: created, {} partitions", topic.partitions))?,
            Created::Existing(differences) if differences.is_empty() => {
                output::line(&format!("{name}: exists already, as it should be"))?;
            }
            Created::Existing(differences) => {
                output::line(&format!("{name}: exists already, and was not changed; it differs:"))?;
                for difference in differences {
                    let (setting, is, wanted) = (&difference.setting, &difference.is, &difference.wanted);
                    output::line(&format!("  {setting}: is {is}, asked for {wanted}"))?;
                }
            }
        }
    }
    Ok(exit::OK)
}

/// What is asked for, and loses events some day.
fn warnings(args: &CreateArgs, brokers: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    if args.retention_days < 7 {
        warnings.push(format!(
            "--retention-days {}: what is not stored by then is gone; 7 days leave a week to mend ClickHouse",
            args.retention_days
        ));
    }
    let factor = args.replication_factor;
    if brokers >= 3 && factor.is_some_and(|factor| factor < 3) {
        warnings.push(format!(
            "--replication-factor {} on {brokers} brokers: the loss of a disk can lose events; 3 is right",
            factor.unwrap_or(1)
        ));
    }
    match (args.min_insync_replicas, factor) {
        (Some(1), Some(factor)) if factor >= 3 => warnings
            .push("--min-insync-replicas 1: a record counts as written when one broker has it; 2 is right".to_owned()),
        (Some(least), Some(factor)) if least >= factor && factor > 1 => warnings.push(format!(
            "--min-insync-replicas {least} of {factor} copies: no event is taken while one broker is away"
        )),
        _ => {}
    }
    warnings
}

fn topics(args: &CreateArgs, settings: &Settings) -> [Topic; 2] {
    let topic = |name: &str, days: u32, max_message_bytes: usize| {
        let mut settings = BTreeMap::from([
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", (u64::from(days) * DAY_MS).to_string()),
            ("max.message.bytes", max_message_bytes.to_string()),
            // received_at is the record's timestamp: the producer's, so that it is the same whoever reads it.
            ("message.timestamp.type", "CreateTime".to_owned()),
            // A replica that lags must not become the leader: what it lacks would be gone though it was acknowledged.
            ("unclean.leader.election.enable", "false".to_owned()),
        ]);
        let safe = args.replication_factor.filter(|factor| *factor >= 3).map(|_| 2);
        if let Some(replicas) = args.min_insync_replicas.or(safe) {
            settings.insert("min.insync.replicas", replicas.to_string());
        }
        Topic {
            name: name.to_owned(),
            partitions: args.partitions as usize,
            replication: args.replication_factor.map(|factor| factor as usize),
            settings,
        }
    };
    let kafka = &settings.kafka;
    [
        topic(&kafka.topic, args.retention_days, KAFKA_MAX_MESSAGE_BYTES),
        topic(
            &kafka.dead_letter_topic,
            args.dead_letter_retention_days,
            KAFKA_MAX_MESSAGE_BYTES + DEAD_LETTER_HEADROOM,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(days: u32, factor: Option<u32>, least: Option<u32>) -> CreateArgs {
        CreateArgs {
            partitions: 6,
            replication_factor: factor,
            min_insync_replicas: least,
            retention_days: days,
            dead_letter_retention_days: 30,
        }
    }

    #[test]
    fn who_asks_for_less_is_warned() {
        assert!(warnings(&args(7, None, None), 3).is_empty());
        assert!(warnings(&args(7, Some(3), None), 3).is_empty());
        assert!(warnings(&args(7, Some(1), None), 1).is_empty(), "one broker has room for one copy");
        let said = |days, factor, least, word: &str| {
            let warnings = warnings(&args(days, factor, least), 3);
            assert!(warnings.len() == 1 && warnings.iter().all(|warning| warning.contains(word)), "{warnings:?}");
        };
        said(6, None, None, "--retention-days 6");
        said(7, Some(2), None, "--replication-factor 2");
        said(7, Some(3), Some(1), "--min-insync-replicas 1");
        said(7, Some(3), Some(3), "--min-insync-replicas 3 of 3");
    }
}
