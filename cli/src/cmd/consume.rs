//! `auditstream consume`: one worker, until it is asked to stop or needs a human.

use anyhow::Context;
use auditstream_consumer::WorkerError;
use auditstream_store::Store;

use crate::config::Settings;
use crate::signals::Signals;
use crate::{exit, log, notify, output};

/// Store events: read from Kafka, insert into ClickHouse, commit.
///
/// Start as many as there are partitions; they share the work. SIGTERM or SIGINT: stops reading, stores and commits what
/// was read, and ends within consumer.drain_deadline_ms. A second signal ends at once; nothing is lost then either.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream consume
  AUDITSTREAM_CONSUMER__HTTP_LISTEN=127.0.0.1:9465 auditstream consume

Exit codes: 0 stopped and drained, 1 failure, 2 wrong configuration, 3 halted (a human is
needed), 4 the drain deadline passed first, 130 or 143 ended at once by a second SIGINT or
SIGTERM. After 4, 130 and 143 what was not committed will be read again; nothing is lost, and
nothing counts twice.")]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    log::init(settings)?;
    let config = settings.worker()?;
    let probes = config.http_listen;
    let store = Store::new(&settings.store())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let signals = Signals::listen().context("no signal handler")?;
        let shutdown = async move {
            let code = signals.first("stopping: what was read is stored and committed first").await;
            notify::stopping();
            tracing::info!(code, "asked to stop");
        };
        notify::start(probes);
        anyhow::Ok(auditstream_consumer::run(config, store, shutdown).await)
    })?;
    // A connection that hangs must not hold the process.
    runtime.shutdown_background();
    match result {
        Ok(summary) => {
            output::line(&format!(
                "{} records: {} rows, {} dead letters, {} batches{}",
                output::grouped(summary.records),
                output::grouped(summary.rows),
                output::grouped(summary.dead_letters),
                output::grouped(summary.batches),
                if summary.drained { "" } else { "; the drain deadline passed first" }
            ))?;
            Ok(if summary.drained { exit::OK } else { exit::NOT_DRAINED })
        }
        Err(error @ (WorkerError::Halted(_) | WorkerError::Tables(_))) => {
            exit::chain(&error.into());
            Ok(exit::HALTED)
        }
        Err(error) => Err(error.into()),
    }
}
