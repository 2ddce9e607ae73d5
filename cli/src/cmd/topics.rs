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

    /// Copies that must have a record before it counts as written; default: the broker's. With three copies, 2 is right.
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

fn topics(args: &CreateArgs, settings: &Settings) -> [Topic; 2] {
    let topic = |name: &str, days: u32, max_message_bytes: usize| {
        let mut settings = BTreeMap::from([
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", (u64::from(days) * DAY_MS).to_string()),
            ("max.message.bytes", max_message_bytes.to_string()),
            // received_at is the record's timestamp: the producer's, so that it is the same whoever reads it.
            ("message.timestamp.type", "CreateTime".to_owned()),
        ]);
        if let Some(replicas) = args.min_insync_replicas {
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
