//! Built events, cheaply: copies of generated ones, each with an id and a time of its own.

use auditstream_bench::load::{Generator, Options};
use auditstream_schemas::{AuditEvent, Priority, Timestamp};

/// So many that no batch holds one twice: what repeats is compressed too well.
const DIFFERENT: u64 = 65_536;

/// Events by number, without end.
pub(crate) struct Events {
    templates: Vec<AuditEvent>,
    generator: Generator,
}

impl Events {
    pub(crate) fn new(seed: u64) -> Self {
        let generator =
            Generator::new(Options { seed, events: DIFFERENT, until: Timestamp::now(), ..Options::default() });
        Self { templates: (0..DIFFERENT).map(|index| generator.event(index)).collect(), generator }
    }

    /// The event of that number; no other number gives its id.
    pub(crate) fn at(&self, number: u64) -> AuditEvent {
        let mut event = self.templates[(number % DIFFERENT) as usize].clone();
        let round = number / DIFFERENT;
        // The low bits of an id are random; the high ones hold its time and version.
        event.event_id = uuid::Uuid::from_u128(event.event_id.as_u128() ^ u128::from(round));
        // One lane of the queue: the bound is met once.
        event.priority = Priority::Standard;
        event.occurred_at = Timestamp::from_micros(event.occurred_at.as_micros() + round as i64);
        event
    }

    /// Which of `lanes` the event of that number belongs to: events of one entity share one.
    pub(crate) fn lane(&self, number: u64, lanes: u64) -> u64 {
        self.generator.lane(number % DIFFERENT, lanes)
    }
}
