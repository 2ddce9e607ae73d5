//! The worker: Kafka to ClickHouse, nothing lost, nothing double.
//!
//! [`run`] joins a consumer group, decodes records to columns, inserts them in batches, sends what can't be stored to a dead-letter topic, and
//! commits an offset only when everything below it is inserted or acknowledged as a dead letter.
//!
//! - `core`: all decisions, without I/O;
//! - `kafka`, `dead_letters`, `sink`, `http`: thin adapters;
//! - `metrics`, `telemetry`: what the worker tells about itself;
//! - `worker`: the one loop between them.

mod certificates;
mod config;
pub mod core;
mod dead_letters;
mod fetch;
mod http;
mod kafka;
mod metrics;
mod quiet;
mod refetch;
mod sink;
mod telemetry;
mod time_lag;
pub mod topic_id;
mod watch;
mod worker;

use std::future::Future;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use auditstream_schemas::BatchDecoder;
use auditstream_store::{ErrorClass, Pause, ShapeError, Store};
use rdkafka::error::KafkaError;

pub use certificates::CertificateFile;
pub use config::{CLASSIC_ONLY, CONSUMER_DEFAULTS, Config, GroupProtocol};
pub use dead_letters::headers;
pub use telemetry::{Telemetry, TelemetryError};

use crate::core::Worker;
use crate::dead_letters::DeadLetterSender;
use crate::http::Health;
use crate::kafka::Reader;
use crate::metrics::Metrics;
use crate::refetch::Refetcher;
use crate::sink::{Completion, Sink};
use crate::telemetry::{Identity, Traces};
use crate::time_lag::TimeLag;
use crate::worker::{Loop, LoopState, UnknownSchemas};

/// Wait between two attempts to reach a server at the start.
const START_RETRY: Duration = Duration::from_secs(1);
/// A topic that was just made is not known to every broker at once: so often it is looked for before it counts as missing.
const TOPIC_LOOKUPS: u32 = 5;
/// So many look-ups one after the other must fail after a refusal before it is believed: a broker that is just starting may refuse what it takes a
/// second later.
const REFUSALS: u32 = 3;

/// What a worker did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records read.
    pub records: u64,
    /// Rows that ClickHouse acknowledged.
    pub rows: u64,
    /// Dead letters that the broker acknowledged.
    pub dead_letters: u64,
    /// Batches stored: rows, dead letters and ledger.
    pub batches: u64,
    /// Whether everything that was read is stored and committed; if not, it will be read again.
    pub drained: bool,
}

/// Why a worker could not go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A human is needed. Nothing was skipped and nothing is lost.
    #[error("halted: {0}")]
    Halted(String),
    /// The live tables do not fit this version.
    #[error("halted: the tables do not fit this version")]
    Tables(#[source] ShapeError),
    /// The Kafka client refused its settings or an operation.
    #[error("kafka")]
    Kafka(#[source] KafkaError),
    /// Traces can't be exported with these settings. A collector that is away is no error.
    #[error("telemetry")]
    Telemetry(#[source] TelemetryError),
    /// The address for probes and metrics could not be used.
    #[error("http_listen")]
    Http(#[source] std::io::Error),
    /// The poll thread ended without an answer.
    #[error("the worker's thread ended unexpectedly")]
    Thread,
}

/// Runs one worker until `shutdown` completes and what was read is stored, or until a human is needed.
///
/// Call it inside a multi-thread tokio runtime; it starts one thread of its own for Kafka.
///
/// # Errors
/// See [`WorkerError`]. Passing failures of Kafka or ClickHouse are no errors: the worker waits for them with memory bounded.
pub async fn run(
    config: Config,
    store: Store,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Summary, WorkerError> {
    let metrics = Arc::new(Metrics::new(&config.worker_id, config.certificates.clone()));
    let health = Arc::new(Health::new());
    if let Some(address) = config.http_listen {
        let bound = http::serve(address, Arc::clone(&health), Arc::clone(&metrics)).await.map_err(WorkerError::Http)?;
        tracing::info!(address = %bound, "serving probes and metrics");
    }
    let traces = start_traces(&config, &metrics).map_err(WorkerError::Telemetry)?;
    let (completions, inbox) = mpsc::channel();
    tokio::pin!(shutdown);
    let reader =
        Reader::new(&config.consumer_properties(), &config.topic, config.tokens()).map_err(WorkerError::Kafka)?;
    let ready = async {
        let altered_at = wait_for_tables(&store, &health).await?;
        wait_for_topics(&config, &reader, &health).await?;
        let pause = wait_for_pause(&store, &config, &health).await?;
        Ok((altered_at, pause))
    };
    let (table_altered_at, pause) = tokio::select! {
        () = &mut shutdown => return Ok(Summary { drained: true, ..Summary::default() }),
        result = ready => result?,
    };
    reader.subscribe().map_err(WorkerError::Kafka)?;
    // Before the first assignment. The loop holds the other end and takes it first.
    let _ = completions.send(Completion::Pause(pause));

    let seed = std::process::id().into();
    let sender = DeadLetterSender::new(
        &config.dead_letter_properties(),
        &config.dead_letter_topic,
        &config.topic,
        &config.worker_id,
        config.tokens(),
    )
    .map_err(WorkerError::Kafka)?;
    // They end with this function, also while a server that they ask is away.
    let mut watches = tokio::task::JoinSet::new();
    watches.spawn(watch::parts(store.clone(), completions.clone()));
    let who = (config.group_id.clone(), config.topic.clone());
    watches.spawn(watch::pause(store.clone(), who, completions.clone()));
    watches.spawn(watch::topic(reader.topic_id_looker(), completions.clone()));
    let worker = Loop {
        core: Worker::new(config.limits(seed)),
        fetched: reader.fetched().map_err(WorkerError::Kafka)?,
        reader,
        decoder: BatchDecoder::new(Arc::clone(&config.schemas)),
        unknown: UnknownSchemas::new(config.registry.clone()),
        sink: Sink {
            store,
            sender,
            refetcher: Refetcher {
                properties: config.consumer_properties(),
                tokens: config.tokens(),
                topic: config.topic.clone(),
            },
            topic: config.topic.as_str().into(),
            dead_letter_topic: config.dead_letter_topic.as_str().into(),
            worker_id: config.worker_id.as_str().into(),
            table_altered_at,
            completions: completions.clone(),
        },
        completions: inbox,
        runtime: tokio::runtime::Handle::current(),
        metrics: Arc::clone(&metrics),
        health,
        group: config.group_id,
        state: LoopState::new(TimeLag::new(metrics), traces),
    };
    let (done, mut finished) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("kafka-poll".into())
        .spawn(move || {
            // The receiver is gone only when `run` was dropped.
            let _ = done.send(worker.run());
        })
        .map_err(WorkerError::Http)?;
    tokio::select! {
        () = &mut shutdown => {
            // The loop is gone only when it has answered.
            let _ = completions.send(Completion::Shutdown);
        }
        result = &mut finished => return result.unwrap_or(Err(WorkerError::Thread)),
    }
    finished.await.unwrap_or(Err(WorkerError::Thread))
}

fn start_traces(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Traces>, TelemetryError> {
    let Some(telemetry) = &config.telemetry else { return Ok(None) };
    let identity = Identity {
        topic: config.topic.as_str().into(),
        group: config.group_id.clone(),
        worker_id: config.worker_id.as_str().into(),
    };
    let traces = Traces::start(telemetry, identity, tokio::runtime::Handle::current(), Arc::clone(metrics))?;
    tracing::info!(sample_ratio = telemetry.sample_ratio, "batches are traced");
    Ok(Some(traces))
}

/// Waits until ClickHouse answers, and checks that the tables hold what this version writes. Answers when they were altered last.
async fn wait_for_tables(store: &Store, health: &Health) -> Result<u64, WorkerError> {
    loop {
        health.turn();
        // First, so that what is altered after the check has another time.
        let altered_at = store.events_altered_at().await;
        match store.check_tables().await.and_then(|()| altered_at.map_err(ShapeError::Ask)) {
            Ok(altered_at) => return Ok(altered_at),
            Err(error) if error.is_passing() => tracing::warn!(%error, "waiting for clickhouse"),
            Err(error) => return Err(WorkerError::Tables(error)),
        }
        tokio::time::sleep(START_RETRY).await;
    }
}

/// Waits until ClickHouse says whether an operator has paused the group: a worker that starts while nobody can say must not read.
async fn wait_for_pause(store: &Store, config: &Config, health: &Health) -> Result<Option<Pause>, WorkerError> {
    loop {
        health.turn();
        match store.pause(&config.group_id, &config.topic).await {
            Ok(pause) => return Ok(pause),
            Err(error) if error.class == ErrorClass::Halt => {
                return Err(WorkerError::Halted(format!(
                    "whether the group is paused can't be read: {error}; `auditstream migrate` makes the table consumer_pauses and grants audit_ingest to read it"
                )));
            }
            Err(error) => tracing::warn!(%error, "waiting for clickhouse"),
        }
        tokio::time::sleep(START_RETRY).await;
    }
}

/// Waits until Kafka answers, and checks that both topics are there. Who is refused for good is told so.
async fn wait_for_topics(config: &Config, reader: &Reader, health: &Health) -> Result<(), WorkerError> {
    let (mut missed, mut refused) = (0, 0);
    loop {
        health.turn();
        let names = [config.topic.clone(), config.dead_letter_topic.clone()];
        let looking = reader.clone();
        // The look-up blocks inside librdkafka.
        let missing = tokio::task::spawn_blocking(move || looking.missing_topic(&names)).await;
        match missing.map_err(|_| WorkerError::Thread)? {
            Ok(None) => return Ok(()),
            Ok(Some(_)) if missed + 1 < TOPIC_LOOKUPS => missed += 1,
            Ok(Some(topic)) => {
                return Err(WorkerError::Halted(format!(
                    "topic {topic} does not exist; `auditstream topics create` makes it"
                )));
            }
            Err(error) => match reader.refusal() {
                Some(refusal) if refused + 1 >= REFUSALS => return Err(WorkerError::Halted(refusal.to_string())),
                Some(refusal) => {
                    refused += 1;
                    tracing::warn!(%error, %refusal, "waiting for kafka");
                }
                None => {
                    refused = 0;
                    tracing::warn!(%error, "waiting for kafka");
                }
            },
        }
        tokio::time::sleep(START_RETRY).await;
    }
}
