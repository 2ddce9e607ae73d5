//! `auditstream relay`: moves an outbox to Kafka, until it is asked to stop or needs a human.

use anyhow::Context;
use auditstream_producer::outbox::{self, RelayError};

use crate::config::Settings;
use crate::signals::Signals;
use crate::{exit, log, notify, output};

/// Move events from a service's outbox to Kafka, in order per entity, at least once.
///
/// Reads the table that the service's record_in_tx writes (outbox.url, outbox.table; made by `auditstream outbox migrate`). Start as many
/// as you like: they share the entities, and when one dies the others take over after outbox.lease_ms. SIGTERM or SIGINT: settles what is
/// under way and ends within outbox.drain_deadline_ms. A second signal ends at once; nothing is lost then either.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream relay
  AUDITSTREAM_OUTBOX__URL_FILE=/run/secrets/outbox-url auditstream relay

Exit codes: 0 stopped and drained, 1 failure, 2 wrong configuration, 3 halted (a human is
needed: no table, no right, wrong login), 4 the drain deadline passed first, 130 or 143 ended
at once by a second SIGINT or SIGTERM. After 4, 130 and 143 some events may be sent again;
nothing is lost, and nothing counts twice.")]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let config = settings.relay()?;
    let probes = config.http_listen;
    log::init(settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let signals = Signals::listen().context("no signal handler")?;
        let shutdown = async move {
            let code = signals.first("stopping: what is under way is settled first").await;
            notify::stopping();
            tracing::info!(code, "asked to stop");
        };
        notify::start(probes);
        anyhow::Ok(outbox::run(config, shutdown).await)
    })?;
    // A connection that hangs must not hold the process.
    runtime.shutdown_background();
    match result {
        Ok(summary) => {
            output::line(&format!(
                "{} events sent, {} failed{}",
                output::grouped(summary.sent),
                output::grouped(summary.failed),
                if summary.drained { "" } else { "; the drain deadline passed first" }
            ))?;
            Ok(if summary.drained { exit::OK } else { exit::NOT_DRAINED })
        }
        Err(error @ RelayError::Database(_)) => {
            exit::chain(&error.into());
            Ok(exit::HALTED)
        }
        Err(error) => Err(error.into()),
    }
}
