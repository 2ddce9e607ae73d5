//! Events at fixed times (an open loop): when one is due does not depend on what became of those before it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use auditstream_producer::{Producer, RejectReason};
use auditstream_schemas::Timestamp;

use super::seen::rank;
use crate::producer::Events;

/// The shortest sleep: whoever is due meanwhile comes right after it. Waking up for each of 100,000 a second would be a load of its own.
const TICK: Duration = Duration::from_micros(500);
/// Before an event that found no room is handed in again.
const FULL: Duration = Duration::from_millis(1);

/// Which events, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// The first event's number; no number is given twice.
    pub(super) first: u64,
    pub(super) events: u64,
    /// Events a second; `None`: all are due at once.
    pub(super) rate: Option<u32>,
    /// When the first is due, by both clocks.
    pub(super) begin: Instant,
    pub(super) begin_micros: i64,
}

impl Plan {
    /// From the first to that event.
    fn due(&self, number: u64) -> Duration {
        let rate = self.rate.map_or(f64::INFINITY, f64::from);
        Duration::from_secs_f64(number as f64 / rate)
    }
}

/// How it went.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Offered {
    /// Events handed in a second.
    pub(super) per_second: f64,
    /// Of 99 in 100 events at most: from when it was due to its `record`, in milliseconds.
    pub(super) late_p99_ms: f64,
    /// How often an event found no room.
    pub(super) waits: u64,
}

/// Hands in all, or those before `stop` was set. An event's `occurred_at` is the time at which it was due. Blocks.
pub(super) fn offer(events: &Events, producer: &Producer, plan: &Plan, stop: &AtomicBool) -> Result<Offered> {
    let mut late = Vec::with_capacity(usize::try_from(plan.events)?);
    let mut waits = 0;
    for number in 0..plan.events {
        let due = plan.due(number);
        let early = due.saturating_sub(plan.begin.elapsed());
        if !early.is_zero() {
            thread::sleep(early.max(TICK));
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut event = events.at(plan.first + number);
        event.occurred_at = Timestamp::from_micros(plan.begin_micros + i64::try_from(due.as_micros())?);
        late.push(plan.begin.elapsed().saturating_sub(due));
        let mut next = Some(event);
        while let Some(event) = next.take() {
            match producer.record(event) {
                Ok(()) => {}
                Err(back) if matches!(back.reason, RejectReason::QueueFull { .. }) => {
                    waits += 1;
                    thread::sleep(FULL);
                    next = Some(*back.event);
                }
                Err(back) => return Err(back.into()),
            }
        }
    }
    let per_second = late.len() as f64 / plan.begin.elapsed().as_secs_f64();
    late.sort_unstable();
    Ok(Offered { per_second, late_p99_ms: rank(&late, 990).as_secs_f64() * 1e3, waits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_at_their_rate() {
        let plan = Plan { first: 7, events: 10, rate: Some(1_000), begin: Instant::now(), begin_micros: 0 };
        assert_eq!([0, 1, 2_500].map(|number| plan.due(number).as_micros()), [0, 1_000, 2_500_000]);
        assert_eq!(Plan { rate: None, ..plan }.due(9), Duration::ZERO);
    }
}
