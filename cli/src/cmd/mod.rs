//! The commands: one file each, with its arguments, its help and what it does.

mod analyst;
mod archive;
mod config;
mod consume;
mod consumer;
mod dlq;
mod doctor;
mod hold;
mod lag;
mod manual;
mod migrate;
mod outbox;
mod publish;
mod relay;
mod retention;
mod round_trip;
mod schema;
mod service;
mod spill;
mod stats;
mod topics;
mod watch;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::Loaded;
use crate::exit;

/// An audit trail over Kafka and ClickHouse: nothing lost, nothing double.
///
/// Services publish audit events to Kafka; workers (`consume`) store them in ClickHouse.
#[derive(Debug, Parser)]
#[command(name = "auditstream", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP), max_term_width = 100)]
pub(crate) struct Cli {
    /// Configuration file (TOML); default ./auditstream.toml if it exists.
    #[arg(short, long, global = true, env = "AUDITSTREAM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Migrate(migrate::Args),
    Analyst(analyst::Args),
    Retention(retention::Args),
    Hold(hold::Args),
    Archive(archive::Args),
    Restore(archive::restore::Args),
    Topics(topics::Args),
    Publish(publish::Args),
    Consume(consume::Args),
    Relay(relay::Args),
    Outbox(outbox::Args),
    Spill(spill::Args),
    Schema(schema::Args),
    Doctor(doctor::Args),
    Stats(stats::Args),
    RoundTrip(round_trip::Args),
    Lag(lag::Args),
    Dlq(dlq::Args),
    Consumer(consumer::Args),
    Service(service::Args),
    Config(config::Args),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

const EXAMPLES: &str = "\
Examples:
  auditstream config check
  auditstream migrate && auditstream topics create
  auditstream consume
  auditstream publish events.ndjson
  auditstream stats";

/// Runs the command and answers the exit code.
pub(crate) fn run(cli: Cli) -> anyhow::Result<u8> {
    let load = || Loaded::read(cli.config.as_deref());
    match cli.command {
        Command::Config(args) => config::run(&args, load()),
        Command::Publish(args) if args.dry_run() => publish::dry_run(&args),
        Command::Migrate(args) => migrate::run(&args, &load()?.settings),
        Command::Analyst(args) => analyst::run(&args, &load()?.settings),
        Command::Retention(args) => retention::run(&args, &load()?.settings),
        Command::Hold(args) => hold::run(&args, &load()?.settings),
        Command::Archive(args) => archive::run(&args, &load()?.settings),
        Command::Restore(args) => archive::restore::run(&args, &load()?.settings),
        Command::Topics(args) => topics::run(&args, &load()?.settings),
        Command::Publish(args) => publish::run(&args, &load()?.settings),
        Command::Consume(args) => consume::run(&args, &load()?.settings),
        Command::Relay(args) => relay::run(&args, &load()?.settings),
        Command::Outbox(args) => outbox::run(&args, load),
        Command::Spill(args) => spill::run(&args, load),
        Command::Schema(args) => schema::run(&args, load),
        Command::Doctor(args) => doctor::run(&args, &load()?.settings),
        Command::Stats(args) => stats::run(&args, &load()?.settings),
        Command::RoundTrip(args) => round_trip::run(&args, &load()?.settings),
        Command::Lag(args) => lag::run(&args, &load()?.settings),
        Command::Dlq(args) => dlq::run(&args, &load()?.settings),
        Command::Consumer(args) => consumer::run(&args, &load()?.settings),
        Command::Service(args) => service::run(&args, cli.config.as_deref(), load),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use clap::error::ErrorKind;

    use super::*;

    const OPERATIONS: &str = include_str!("../../../docs/operations.md");

    /// A command may be named without all that it needs, but nothing of it may be unknown.
    #[test]
    fn what_the_operators_page_tells_to_type_is_there() {
        let code = OPERATIONS.split('`').skip(1).step_by(2);
        let commands: Vec<&str> = code.filter(|code| code.starts_with("auditstream ")).collect();
        assert!(commands.len() > 20, "{commands:?}");
        for command in commands {
            let Err(error) = Cli::try_parse_from(command.split_whitespace()) else { continue };
            let is_short = matches!(
                error.kind(),
                ErrorKind::MissingSubcommand
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    | ErrorKind::MissingRequiredArgument
                    | ErrorKind::ValueValidation
            );
            assert!(is_short, "`{command}`: {error}");
        }
    }
}
