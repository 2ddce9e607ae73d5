//! Freshness at rest: how long after `record` an analyst's query sees an event, when nothing else happens.
//!
//! The clock starts when `record_acked` is called and stops when the answer of a query that holds the event has arrived: the time of that query and
//! the wait for it count. Events do not wait for each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use auditstream_producer::Producer;
use auditstream_schemas::{Actor, AuditEvent};
use uuid::Uuid;

use crate::run::Demo;

/// How many events.
const EVENTS: usize = 200;
/// From one to the next.
const SPACING: Duration = Duration::from_millis(75);
/// From an answer to the next query.
const POLL: Duration = Duration::from_millis(5);
/// The longest wait for the last one.
const PATIENCE: Duration = Duration::from_secs(30);
const ENTITY: &str = "freshness-probe";

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Freshness {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

pub(crate) async fn measure(demo: &Demo<'_>) -> Result<Freshness> {
    let producer = Producer::with_observer(demo.target.producer(), demo.acknowledged.observer())?;
    // The first event of a connection pays for making it, as at the start of a service: not counted, but sent and proven like all others.
    producer.record_acked(probe()?).await.context("the first event was not acknowledged")?;
    let pending: Arc<Mutex<HashMap<Uuid, Instant>>> = Arc::default();
    let sender = tokio::spawn(send(producer, Arc::clone(&pending)));
    let bar = demo.screen.bar("recording one by one", EVENTS as u64);
    let mut took = Vec::with_capacity(EVENTS);
    let begun = Instant::now();
    let mut queries = 0_u64;
    while took.len() < EVENTS {
        if begun.elapsed() > PATIENCE + SPACING * EVENTS as u32 {
            bail!("{} of {EVENTS} events can't be seen", EVENTS - took.len());
        }
        tokio::time::sleep(POLL).await;
        let waiting: Vec<String> = lock(&pending).keys().map(|id| format!("'{id}'")).collect();
        if waiting.is_empty() {
            continue;
        }
        let sql = format!(
            "SELECT event_id FROM events WHERE tenant_id = 'this-machine' AND entity_type = '{ENTITY}' AND event_id IN ({})",
            waiting.join(",")
        );
        let seen = demo.analyst.uuids(&sql).await?;
        let now = Instant::now();
        queries += 1;
        let mut pending = lock(&pending);
        took.extend(seen.iter().filter_map(|id| pending.remove(id)).map(|recorded| now - recorded));
        bar.set(took.len() as u64);
    }
    drop(bar);
    let acknowledged = sender.await.context("the sender ended badly")??;
    took.sort_unstable();
    let freshness = Freshness { p50_ms: millis(rank(&took, 50)), p99_ms: millis(rank(&took, 99)) };
    demo.screen.say(&format!(
        "  {EVENTS} events, one every {} ms; acknowledged by Kafka after {:.1} ms (p50) and {:.1} ms (p99)",
        SPACING.as_millis(),
        millis(rank(&acknowledged, 50)),
        millis(rank(&acknowledged, 99))
    ));
    demo.screen.say(&format!(
        "  queryable after {:.0} ms (p50), {:.0} ms (p99), {:.0} ms (worst), asked {queries} times",
        freshness.p50_ms,
        freshness.p99_ms,
        millis(rank(&took, 100))
    ));
    Ok(freshness)
}

/// Records the events, each at its time whether or not the one before is acknowledged; answers how long each acknowledgement took, sorted.
async fn send(producer: Producer, pending: Arc<Mutex<HashMap<Uuid, Instant>>>) -> Result<Vec<Duration>> {
    let mut tick = tokio::time::interval(SPACING);
    let mut acks = Vec::with_capacity(EVENTS);
    for _ in 0..EVENTS {
        tick.tick().await;
        let event = probe()?;
        let producer = producer.clone();
        let recorded = Instant::now();
        lock(&pending).insert(event.event_id, recorded);
        acks.push(tokio::spawn(async move { producer.record_acked(event).await.map(|_| recorded.elapsed()) }));
    }
    let mut took = Vec::with_capacity(EVENTS);
    for ack in acks {
        took.push(ack.await.context("a task ended badly")?.context("an event was not acknowledged")?);
    }
    took.sort_unstable();
    Ok(took)
}

fn probe() -> Result<AuditEvent> {
    let event = AuditEvent::builder("this-machine", "auditstream-demo", "probe.read", ENTITY, "probe")
        .actor(Actor::user("demo"));
    event.build().context("the probe is no event")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The map is whole after every change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The value that `percent` of all do not exceed (nearest rank). Zero when there is none.
fn rank(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(place).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let all: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(rank(&all, 50), Duration::from_millis(100));
        assert_eq!(rank(&all, 99), Duration::from_millis(198));
        assert_eq!(rank(&all, 100), Duration::from_millis(200));
        assert_eq!(rank(&all[..1], 50), Duration::from_millis(1));
        assert_eq!(rank(&[], 99), Duration::ZERO);
    }
}
