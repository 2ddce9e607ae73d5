//! What was lost is itself an audit event: when events get through again, an `audit.loss` event says how many did not, and why.
//!
//! Lost is what was taken and failed, BEST_EFFORT events that found no room, and events that were damaged on disk. What was given back to a caller
//! who can hand it in again is not.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use auditstream_schemas::{AuditEvent, Operation, Outcome, Priority};

use crate::stats::Losses;

/// How long no further event may be lost before the sum is told.
const QUIET: Duration = Duration::from_secs(1);
/// What did it.
const ACTION: &str = "audit.loss";

/// Knows what was told already.
#[derive(Debug)]
pub(crate) struct LossReporter {
    tenant: Option<String>,
    told: Losses,
    /// The sum that was last seen, when it was first seen so, and the acknowledgements then.
    seen: (u64, Instant, u64),
    /// When the first of the losses that are not told was noticed.
    since: Option<Instant>,
}

impl LossReporter {
    pub(crate) fn new(tenant: Option<String>) -> Self {
        Self { tenant, told: Losses::default(), seen: (0, Instant::now(), 0), since: None }
    }

    /// What to tell now: once the losses have stopped and something was acknowledged since.
    pub(crate) fn due(&mut self, losses: Losses, acked: u64, now: Instant) -> Option<Losses> {
        let total = losses.total();
        if total != self.seen.0 {
            self.seen = (total, now, acked);
            self.since.get_or_insert(now);
        }
        let (_, at, acked_then) = self.seen;
        let recovered = acked > acked_then && now.duration_since(at) >= QUIET;
        (self.since.is_some() && recovered && self.tenant.is_some()).then_some(losses)
    }

    /// Something is to be told as soon as events get through.
    pub(crate) fn is_pending(&self) -> bool {
        self.since.is_some() && self.tenant.is_some()
    }

    /// The event that tells them. `None` when the tenant's name is none.
    pub(crate) fn event(&self, losses: &Losses, producer_id: &str, service: &str, now: Instant) -> Option<AuditEvent> {
        let mut details = String::from("{\"failed\":{");
        for (index, (reason, count)) in losses.failed.since(&self.told.failed).iter().enumerate() {
            // Writing to a String can't fail; the names need no quoting.
            let _ = write!(details, "{}\"{}\":{count}", if index == 0 { "" } else { "," }, reason.as_str());
        }
        let best_effort = losses.best_effort - self.told.best_effort;
        let damaged = losses.damaged - self.told.damaged;
        let events = losses.total() - self.told.total();
        let lasted = self.since.map_or(Duration::ZERO, |since| now.duration_since(since)).as_millis();
        let _ = write!(
            details,
            "}},\"best_effort\":{best_effort},\"damaged\":{damaged},\"events\":{events},\"noticed_ms_ago\":{lasted}}}"
        );
        let tenant = self.tenant.as_deref()?;
        let event = AuditEvent::builder(tenant, service, ACTION, "audit.producer", producer_id)
            .operation(Operation::Other)
            .outcome(Outcome::Failure)
            .priority(Priority::Critical)
            .details(details)
            .build();
        // A tenant or a host whose name no event may have: said once, in the log.
        event.inspect_err(|error| tracing::error!("no {ACTION} event: {error}")).ok()
    }

    /// These are told.
    pub(crate) fn told(&mut self, losses: Losses) {
        self.told = losses;
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::FailReason;
    use crate::stats::Failures;

    fn lost(timed_out: u64, best_effort: u64) -> Losses {
        Losses { failed: Failures::of(FailReason::TimedOut, timed_out), best_effort, damaged: 0 }
    }

    #[test]
    fn losses_are_told_once_after_recovery() {
        let mut reporter = LossReporter::new(Some("ops".to_owned()));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(reporter.due(lost(0, 0), 10, at(0)), None, "nothing is lost");
        assert_eq!(reporter.due(lost(5, 0), 10, at(10)), None);
        assert_eq!(reporter.due(lost(5, 0), 10, at(5_000)), None, "nothing gets through yet");
        assert_eq!(reporter.due(lost(7, 1), 11, at(5_001)), None, "it goes on");
        assert_eq!(reporter.due(lost(7, 1), 12, at(6_000)), None, "it may go on");
        let due = reporter.due(lost(7, 1), 12, at(6_001)).unwrap();
        let event = reporter.event(&due, "host-1", "shop", at(6_001)).unwrap();
        assert_eq!(
            (event.action.as_str(), event.tenant_id.as_str(), event.priority),
            (ACTION, "ops", Priority::Critical)
        );
        let details: serde_json::Value = serde_json::from_str(&event.details).unwrap();
        let expected = serde_json::json!({
            "failed": {"timed-out": 7}, "best_effort": 1, "damaged": 0, "events": 8, "noticed_ms_ago": 5_991
        });
        assert_eq!(details, expected);
        reporter.told(due);
        assert_eq!(reporter.due(lost(7, 1), 99, at(60_000)), None, "told once");
        assert_eq!(reporter.due(lost(9, 1), 99, at(60_001)), None);
        let due = reporter.due(lost(9, 1), 100, at(62_000)).unwrap();
        let event = reporter.event(&due, "host-1", "shop", at(62_000)).unwrap();
        assert!(event.details.starts_with("{\"failed\":{\"timed-out\":2},\"best_effort\":0"), "{}", event.details);
        assert_eq!(LossReporter::new(None).due(lost(1, 0), 0, at(0)), None);
    }
}
