//! Which event has a given index.
//!
//! Promise: [`Generator::event`] is a pure function of the options and the index. Times grow with the index. An entity belongs to one tenant and one
//! service for ever. About 300 bytes on the wire with the producer's stamp; every optional field is present in some events and absent in others.

use auditstream_schemas::{
    Actor, ActorKind, AuditEvent, Change, Operation, Outcome, Priority, ProducerStamp, Timestamp,
};
use uuid::Uuid;

use super::fill::fit;
use super::random::Random;
use super::vocabulary::{AREAS, Area, Deed, FIRST_NAMES, HOURS, LAST_NAMES};

const HOUR_MICROS: u64 = 3_600_000_000;
const MILLION: u64 = 1_000_000;

/// What a load is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Another seed, other events.
    pub seed: u64,
    /// How many events there are; the time is spread over them. At least 1.
    pub events: u64,
    /// When the last event happened.
    pub until: Timestamp,
    /// How many hours before `until` the first one happened, 1 to 100,000.
    pub hours: u32,
    /// How many tenants, at least 1.
    pub tenants: u64,
    /// How many entities over all tenants, at least 1. A few of them see most of the events.
    pub entities: u64,
    /// How many people work at each tenant, at least 1.
    pub actors: u64,
    /// Mean bytes of an event on the topic, without key and headers; `None`: what the fields that everybody sends come to, about 300. Below 150 there is
    /// nothing more to leave out.
    pub bytes: Option<u32>,
    /// Field changes of every event; `None`: what its action changes, one or two.
    pub changes: Option<u32>,
}

impl Default for Options {
    /// A million events of the three days up to 2026-01-31T12:00:00Z: 20 tenants, 200,000 entities, 250 people a tenant.
    fn default() -> Self {
        Self {
            seed: 1,
            events: MILLION,
            until: Timestamp::from_micros(1_769_860_800_000_000),
            hours: 72,
            tenants: 20,
            entities: 200_000,
            actors: 250,
            bytes: None,
            changes: None,
        }
    }
}

/// A load. Holds no state: share it between threads by reference.
#[derive(Debug, Clone)]
pub struct Generator {
    options: Options,
    start: i64,
    /// Weight of all hours before each hour, and behind the last one.
    weight_before: Vec<u64>,
}

/// Who is acted upon.
struct Entity {
    number: u64,
    tenant: u64,
    area: &'static Area,
}

impl Generator {
    /// A load with `options`; values out of their range are moved into it.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let options = Options {
            events: options.events.max(1),
            hours: options.hours.clamp(1, 100_000),
            tenants: options.tenants.max(1),
            entities: options.entities.max(1),
            actors: options.actors.max(1),
            ..options
        };
        let start = options.until.as_micros().saturating_sub_unsigned(u64::from(options.hours) * HOUR_MICROS);
        let first_hour = start.div_euclid(HOUR_MICROS as i64);
        let mut weight = 0;
        let mut weight_before = vec![0];
        for hour in 0..i64::from(options.hours) {
            weight += HOURS[(first_hour + hour).rem_euclid(24) as usize];
            weight_before.push(weight);
        }
        Self { options, start, weight_before }
    }

    /// How many events there are.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.options.events
    }

    /// Which of `lanes` an event belongs to. Events of one entity share a lane, so that one sender a lane keeps their order.
    #[must_use]
    pub fn lane(&self, index: u64, lanes: u64) -> u64 {
        self.entity_number(&mut Random::new(self.options.seed, index)) % lanes.max(1)
    }

    /// The id of the event at `index`, without the event.
    #[must_use]
    pub fn event_id(&self, index: u64) -> Uuid {
        let mut random = Random::new(!self.options.seed, index);
        let mut tail = [0; 10];
        tail.copy_from_slice(&((u128::from(random.next()) << 64) | u128::from(random.next())).to_be_bytes()[..10]);
        let millis = u64::try_from(self.occurred_at(index) / 1000).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid()
    }

    /// The event at `index`, which is below [`Generator::events`]. It passes validation and carries no producer's stamp.
    #[must_use]
    pub fn event(&self, index: u64) -> AuditEvent {
        let mut random = Random::new(self.options.seed, index);
        let entity = self.entity(&mut random);
        let area = entity.area;
        let deed = deed(area, &mut random);
        let outcome = match random.below(1000) {
            share if share < deed.failures => Outcome::Failure,
            share if share < deed.failures + deed.denials => Outcome::Denied,
            _ => Outcome::Success,
        };
        let entity_id = format!("{}{}", area.prefix, entity.number);
        let request = random.next();
        let mut event = AuditEvent {
            event_id: self.event_id(index),
            occurred_at: Timestamp::from_micros(self.occurred_at(index)),
            tenant_id: format!("tenant-{:02}", entity.tenant),
            service: area.service.to_owned(),
            environment: "prod".to_owned(),
            action: deed.action.to_owned(),
            operation: Operation::of_action(deed.action),
            entity_type: area.entity_type.to_owned(),
            entity_name: random.percent(8).then(|| format!("{} no. {}", area.entity_type, entity.number)),
            actor: self.actor(&mut random),
            on_behalf_of: random.percent(2).then(|| format!("u-{}", random.below(self.options.actors))),
            outcome,
            error_message: match outcome {
                Outcome::Success => None,
                Outcome::Failure => Some(area.error.to_owned()),
                Outcome::Denied => Some("the role does not allow it".to_owned()),
            },
            changes: if outcome == Outcome::Success { changes(deed, &mut random) } else { Vec::new() },
            ip: random.percent(90).then(|| format!("203.0.113.{}", random.below(255))),
            user_agent: random.percent(10).then(|| "shop-app/7.2 (Android 15)".to_owned()),
            request_id: Some(format!("{request:016x}")),
            correlation_id: random.percent(10).then(|| format!("cart-{:08x}", request >> 32)),
            trace_id: random.percent(25).then(|| format!("{:016x}{request:016x}", random.next())),
            http_method: Some(deed.method.to_owned()),
            http_path: Some(format!("{}{entity_id}", area.path)),
            priority: match deed.method {
                "GET" => Priority::BestEffort,
                "DELETE" => Priority::Critical,
                _ => Priority::Standard,
            },
            details: format!("{{\"region\":\"eu-{}\",\"ms\":{}}}", random.below(4), random.skewed_below(900)),
            producer: ProducerStamp::default(),
            entity_id,
        };
        fit(&mut event, &self.options, index);
        event
    }

    /// The first number of an event's stream says which entity it is about.
    fn entity_number(&self, random: &mut Random) -> u64 {
        random.skewed_below(self.options.entities)
    }

    fn entity(&self, random: &mut Random) -> Entity {
        let number = self.entity_number(random);
        let mut fixed = Random::new(self.options.seed, number);
        Entity {
            number,
            tenant: fixed.below(self.options.tenants),
            area: &AREAS[fixed.skewed_below(AREAS.len() as u64) as usize],
        }
    }

    fn actor(&self, random: &mut Random) -> Actor {
        match random.below(100) {
            0..85 => {
                let number = random.skewed_below(self.options.actors);
                let first = FIRST_NAMES[number as usize % FIRST_NAMES.len()];
                let last = LAST_NAMES[number as usize / FIRST_NAMES.len() % LAST_NAMES.len()];
                Actor {
                    name: random.percent(60).then(|| format!("{first} {last}")),
                    email: random.percent(10).then(|| format!("u{number}@example.org")),
                    session_id: random.percent(20).then(|| format!("{:012x}", random.next() >> 16)),
                    ..Actor::user(format!("u-{number}"))
                }
            }
            85..93 => Actor { id: Some("checkout-worker".to_owned()), ..Actor::new(ActorKind::Service) },
            93..98 => Actor { id: Some(format!("key-{}", random.below(40))), ..Actor::new(ActorKind::ApiKey) },
            98 => Actor { id: Some("nightly-cleanup".to_owned()), ..Actor::new(ActorKind::System) },
            _ => Actor::new(ActorKind::Anonymous),
        }
    }

    /// Microseconds since 1970: spread over the hours by their weight, evenly within an hour.
    fn occurred_at(&self, index: u64) -> i64 {
        let total = self.weight_before.last().copied().unwrap_or(0);
        let place = u128::from(index.min(self.options.events)) * u128::from(total) * u128::from(MILLION)
            / u128::from(self.options.events);
        // In millionths of a weight; fits, since all weights together stay far below 2^32.
        let place = place as u64;
        let hour = self
            .weight_before
            .partition_point(|before| before * MILLION <= place)
            .saturating_sub(1)
            .min(self.options.hours as usize - 1);
        let weight = self.weight_before[hour + 1] - self.weight_before[hour];
        let into = (place - self.weight_before[hour] * MILLION) * (HOUR_MICROS / MILLION) / weight;
        self.start.saturating_add_unsigned(hour as u64 * HOUR_MICROS + into)
    }
}

fn deed(area: &'static Area, random: &mut Random) -> &'static Deed {
    let mut left = random.below(area.deeds.iter().map(|deed| deed.weight).sum());
    for deed in area.deeds {
        if left < deed.weight {
            return deed;
        }
        left -= deed.weight;
    }
    // Not reached: `left` began below the sum.
    &area.deeds[0]
}

fn changes(deed: &Deed, random: &mut Random) -> Vec<Change> {
    let operation = Operation::of_action(deed.action);
    let mut changes = Vec::with_capacity(deed.changes.len());
    for (path, values) in deed.changes {
        let mut value = || {
            if values.is_empty() {
                let cents = random.skewed_below(100_000);
                format!("{}.{:02}", cents / 100, cents % 100)
            } else {
                (*random.pick(values)).to_owned()
            }
        };
        let (old, new) = (value(), value());
        changes.push(Change {
            path: (*path).to_owned(),
            old: (operation != Operation::Create).then_some(old),
            new: (operation != Operation::Delete).then_some(new),
        });
    }
    changes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{HashMap, HashSet};

    use auditstream_schemas::encoded_len;

    use super::*;

    fn generator(events: u64) -> Generator {
        Generator::new(Options { events, ..Options::default() })
    }

    #[test]
    fn an_event_is_a_function_of_seed_and_index() {
        let (one, two) = (generator(1000), generator(1000));
        for index in [0, 1, 999] {
            assert_eq!(one.event(index), two.event(index));
            assert_eq!(one.event(index).event_id, one.event_id(index));
        }
        let other = Generator::new(Options { seed: 2, events: 1000, ..Options::default() });
        assert_ne!(one.event(1), other.event(1));
    }

    #[test]
    fn events_are_valid_and_ids_differ() {
        let generator = generator(20_000);
        let mut ids = HashSet::new();
        for index in 0..20_000 {
            let event = generator.event(index);
            event.validate().unwrap();
            assert_eq!(event.event_id.get_version_num(), 7);
            assert!(ids.insert(event.event_id));
        }
    }

    #[test]
    fn an_event_with_its_stamp_has_about_300_bytes() {
        let generator = generator(10_000);
        let total: usize = (0..10_000)
            .map(|index| {
                let mut event = generator.event(index);
                event.producer =
                    ProducerStamp { id: "audit-host-1".to_owned(), epoch: 1_769_860_800_000_000, seq: 500_000 };
                10 + encoded_len(&event)
            })
            .sum();
        assert!((290..=310).contains(&(total / 10_000)), "{} bytes", total / 10_000);
    }

    #[test]
    fn time_grows_and_stays_within_the_hours() {
        for events in [1, 7, 5000] {
            let generator = generator(events);
            let until = generator.options.until.as_micros();
            let times: Vec<i64> = (0..events).map(|index| generator.occurred_at(index)).collect();
            assert!(times.is_sorted());
            assert!(times.iter().all(|time| (until - 72 * HOUR_MICROS as i64..until).contains(time)));
        }
        // An office hour has far more than a night hour.
        let generator = generator(100_000);
        let mut by_hour = HashMap::new();
        for index in 0..100_000 {
            *by_hour
                .entry(generator.occurred_at(index).div_euclid(HOUR_MICROS as i64).rem_euclid(24))
                .or_insert(0_u64) += 1;
        }
        assert!(by_hour[&10] > 8 * by_hour[&2], "{by_hour:?}");
    }

    #[test]
    fn an_entity_keeps_its_tenant_service_and_lane() {
        let generator = generator(50_000);
        let mut homes: HashMap<String, (String, String, u64)> = HashMap::new();
        for index in 0..50_000 {
            let event = generator.event(index);
            let home = (event.tenant_id, event.service, generator.lane(index, 4));
            assert_eq!(*homes.entry(event.entity_id).or_insert_with(|| home.clone()), home);
        }
        assert!(homes.len() > 20_000, "{}", homes.len());
    }

    #[test]
    fn about_three_in_a_hundred_do_not_succeed_and_every_field_varies() {
        let generator = generator(20_000);
        let events: Vec<AuditEvent> = (0..20_000).map(|index| generator.event(index)).collect();
        let bad = events.iter().filter(|event| event.outcome != Outcome::Success).count();
        assert!((500..1000).contains(&bad), "{bad}");
        let both = |present: &dyn Fn(&AuditEvent) -> bool| {
            let count = events.iter().filter(|event| present(event)).count();
            assert!(count > 0 && count < events.len());
        };
        both(&|event| event.entity_name.is_some());
        both(&|event| event.actor.id.is_some());
        both(&|event| event.actor.name.is_some());
        both(&|event| event.actor.email.is_some());
        both(&|event| event.actor.session_id.is_some());
        both(&|event| event.on_behalf_of.is_some());
        both(&|event| event.error_message.is_some());
        both(&|event| event.changes.is_empty());
        both(&|event| event.changes.iter().any(|change| change.old.is_none()));
        both(&|event| event.changes.iter().any(|change| change.new.is_none()));
        both(&|event| event.ip.is_some());
        both(&|event| event.user_agent.is_some());
        both(&|event| event.correlation_id.is_some());
        both(&|event| event.trace_id.is_some());
    }
}
