//! `auditstream spill`: look into a producer's spill, send what it holds, print it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use auditstream_producer::Producer;
use auditstream_producer::spill::{self, SpillConfig};
use auditstream_schemas::{AUDIT_EVENT_V1, Schemas, WriterId, decode};
use clap::Subcommand;

use crate::config::{ConfigError, Loaded, Settings};
use crate::signals::Signals;
use crate::{exit, log, output};

/// Work with a producer's spill: the folder on local disk where events wait while Kafka is away.
///
/// The folder is producer.spill_folder, or the one given with --folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,

    /// The spill's folder; default: producer.spill_folder.
    #[arg(long, global = true, value_name = "DIR")]
    folder: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read every event and say whether all are whole; nothing is changed. May run beside the producer.
    ///
    /// The exit code is 1 when events are damaged, or the file is.
    Check,
    Drain(DrainArgs),
    /// Print every event as a line of JSON, in order; `publish` reads it. Events hold personal data.
    Dump,
}

/// Send what the spill holds to Kafka; ends when it is empty.
///
/// For a spill whose service will not start again: a running one drains its own. What was damaged is kept aside in the folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream spill drain
  auditstream spill drain --folder /var/lib/shop/spill --deadline 60")]
struct DrainArgs {
    /// Seconds after which what is left stays in the spill, and the exit code is 1.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    deadline: u64,
}

pub(crate) fn run(args: &Args, load: impl FnOnce() -> Result<Loaded, ConfigError>) -> anyhow::Result<u8> {
    let settings = load()?.settings;
    let configured = settings.producer.spill.as_ref().map(|spill| spill.folder.clone());
    let Some(folder) = args.folder.clone().or(configured) else {
        bail!("which spill? Give --folder, or set producer.spill_folder");
    };
    match &args.command {
        Command::Check => check(&folder),
        Command::Drain(args) => drain(folder, args, &settings),
        Command::Dump => dump(&folder, &settings),
    }
}

fn check(folder: &std::path::Path) -> anyhow::Result<u8> {
    let seen = spill::inspect(folder)?;
    let events = output::grouped(seen.events);
    match (&seen.first, &seen.last) {
        (Some(first), Some(last)) => output::line(&format!("{events} events, of {first} to {last}"))?,
        _ => output::line(&format!("{events} events"))?,
    }
    output::line(&format!("{} bytes", output::grouped(seen.bytes)))?;
    if seen.unreadable {
        output::line("the file is damaged; the next producer that opens it takes over what was counted here")?;
    }
    if seen.damaged > 0 {
        output::line(&format!("{} events are damaged", output::grouped(seen.damaged)))?;
    }
    for path in &seen.aside {
        output::line(&format!("kept aside of earlier damage: {}", path.display()))?;
    }
    Ok(if seen.unreadable || seen.damaged > 0 { exit::FAILURE } else { exit::OK })
}

fn drain(folder: PathBuf, args: &DrainArgs, settings: &Settings) -> anyhow::Result<u8> {
    log::init(settings)?;
    // To make an empty one where none was would only hide a wrong path.
    let before = spill::inspect(&folder)?.events;
    let mut config = settings.producer();
    let spill = config.spill.take().unwrap_or_else(|| SpillConfig::new(&folder));
    config.spill = Some(SpillConfig { folder, ..spill });
    let producer = Producer::new(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stopped = runtime.block_on(async {
        let mut signals = Signals::listen().context("no signal handler")?;
        let shutdown = producer.shutdown(Duration::from_secs(args.deadline));
        tokio::select! {
            code = signals.next() => Ok::<_, anyhow::Error>(Err(code)),
            report = shutdown => Ok(Ok(report)),
        }
    })?;
    let report = match stopped {
        Ok(report) => report,
        // Rows leave the file only when Kafka has them.
        Err(code) => {
            runtime.block_on(producer.shutdown(Duration::ZERO));
            output::complain("interrupted: what is left stays in the spill");
            return Ok(code);
        }
    };
    let stats = producer.stats();
    output::line(&format!(
        "{} of {} events sent and acknowledged, {} left, {} damaged, {} failed",
        output::grouped(stats.drained),
        output::grouped(before),
        output::grouped(report.spilled),
        output::grouped(stats.damaged),
        output::grouped(report.failed.total())
    ))?;
    let is_done = report.spilled == 0 && stats.damaged == 0 && report.failed.total() == 0;
    Ok(if is_done { exit::OK } else { exit::FAILURE })
}

fn dump(folder: &std::path::Path, settings: &Settings) -> anyhow::Result<u8> {
    let mut schemas = Schemas::builtin()?;
    if let Some(id) = settings.confluent_schema_id {
        schemas.add(WriterId::Confluent(id), AUDIT_EVENT_V1)?;
    }
    let mut unreadable = 0_u64;
    spill::read(folder, |payload| {
        match decode(&schemas, payload) {
            Ok(event) => output::line(&event.to_json())?,
            Err(poison) => {
                unreadable += 1;
                output::complain(&format!("an event can't be decoded: {poison}"));
            }
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(if unreadable == 0 { exit::OK } else { exit::FAILURE })
}
