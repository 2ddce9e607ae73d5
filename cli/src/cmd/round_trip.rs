//! `auditstream round-trip`: one event through Kafka into ClickHouse, to see that the whole way works.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use auditstream_producer::{Delivery, Producer};
use auditstream_schemas::AuditEvent;
use auditstream_store::Store;

use crate::config::Settings;
use crate::{exit, log, output};

/// Between two looks into ClickHouse.
const LOOK: Duration = Duration::from_millis(100);

/// Publish one event and wait until ClickHouse has it.
///
/// The event is of tenant `auditstream`, entity type `round_trip`, and stays in the trail. Needs a ClickHouse user that may read
/// events (audit_analyst), and a worker that runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream round-trip
  AUDITSTREAM_CLICKHOUSE__USER=audit_analyst \\
    AUDITSTREAM_CLICKHOUSE__PASSWORD_FILE=/run/secrets/analyst auditstream round-trip --json")]
pub(crate) struct Args {
    /// Longest wait for all of it, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    log::init(settings)?;
    let limit = Duration::from_secs(args.timeout);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = Store::new(&settings.store())?;
    let event = AuditEvent::builder("auditstream", "auditstream", "auditstream.round_trip", "round_trip", host())
        .build()
        .context("the event can't be made")?;
    let begun = Instant::now();
    let (delivery, acked) = runtime.block_on(publish(settings, event.clone(), limit))?;
    let found = runtime.block_on(found(&store, &event, begun + limit, delivery))?;
    let (acked_ms, found_ms) = (acked.as_millis() as u64, (found - begun).as_millis() as u64);
    let Delivery { partition, offset } = delivery;
    let id = event.event_id;
    output::line(&if args.json {
        serde_json::json!({ "event_id": id, "partition": partition, "offset": offset, "acked_ms": acked_ms, "found_ms": found_ms })
            .to_string()
    } else {
        format!(
            "event {id}: in Kafka after {acked_ms} ms (partition {partition}, offset {offset}), in ClickHouse after {found_ms} ms"
        )
    })?;
    Ok(exit::OK)
}

/// Where the event is in Kafka, and after which time.
async fn publish(settings: &Settings, event: AuditEvent, limit: Duration) -> anyhow::Result<(Delivery, Duration)> {
    let begun = Instant::now();
    let framing = settings.framing().await?;
    let mut config = auditstream_producer::Config { framing, ..settings.producer() };
    // What waits on a disk has not made the trip.
    config.spill = None;
    config.delivery_timeout = config.delivery_timeout.min(limit).max(Duration::from_secs(1));
    let producer = Producer::new(config)?;
    let delivery = producer.record_acked(event).await.context("Kafka has not taken the event")?;
    Ok((delivery, begun.elapsed()))
}

/// When ClickHouse had it.
async fn found(store: &Store, event: &AuditEvent, until: Instant, delivery: Delivery) -> anyhow::Result<Instant> {
    loop {
        let asked = store.has_event(&event.tenant_id, &event.entity_type, &event.entity_id, event.event_id).await;
        match asked {
            Ok(true) => return Ok(Instant::now()),
            Err(error) if Instant::now() >= until => return Err(error).context("clickhouse"),
            Ok(false) if Instant::now() >= until => bail!(
                "Kafka has the event (partition {}, offset {}), ClickHouse not: does a worker run? `auditstream stats` shows the lag, \
                 `auditstream doctor` what is wrong",
                delivery.partition,
                delivery.offset
            ),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// The machine's name, in Kubernetes the pod's: the event is about it.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown-host".to_owned() } else { name.trim().to_owned() }
}
