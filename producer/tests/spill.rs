//! The spill, against librdkafka's own mock cluster: on disk while Kafka is away, in order when it is back, nothing lost on the way. No async runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use auditstream_producer::spill::{SpillConfig, inspect};
use auditstream_producer::{
    Config, Critical, DeliveryError, Durable, FailReason, Lanes, Producer, ProducerError, RejectReason,
};
use auditstream_schemas::{AuditEvent, Priority, Schemas, decode};
use common::{block_on, config, event};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const TOPIC: &str = "audit.events";
const PARTITIONS: i32 = 3;
const WAIT: Duration = Duration::from_secs(60);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
    cluster
}

fn spilling(bootstrap: &str, folder: &Path) -> Config {
    let spill = SpillConfig { after: Duration::from_millis(150), ..SpillConfig::new(folder) };
    Config { spill: Some(spill), ..config(bootstrap) }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let give_up = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < give_up, "{what} did not come about");
        thread::sleep(Duration::from_millis(5));
    }
}

/// An event of an entity that knows its place.
fn numbered(entity: usize, number: usize) -> AuditEvent {
    let mut event = event(&entity.to_string());
    event.details = format!("{{\"n\":{number}}}");
    event
}

/// Hands it in as often as it takes.
fn insist(producer: &Producer, event: AuditEvent) {
    let mut next = Some(event);
    while let Some(event) = next.take() {
        if let Err(rejected) = producer.record(event) {
            assert!(matches!(rejected.reason, RejectReason::QueueFull { .. }), "{rejected:?}");
            next = Some(*rejected.event);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Everything on the topic, in order within each partition.
fn read(bootstrap: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", "test").create().unwrap();
    let mut assignment = TopicPartitionList::new();
    let mut left = 0;
    for partition in 0..PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(TOPIC, partition, WAIT).unwrap();
        left += high - low;
        assignment.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut found, give_up) = (Vec::new(), Instant::now() + WAIT);
    while (found.len() as i64) < left && Instant::now() < give_up {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            found.push(message.unwrap().detach());
        }
    }
    found
}

/// The first copy of each event, by entity, in order; the audit trail's own events left out.
fn first_copies(bootstrap: &str) -> BTreeMap<String, Vec<AuditEvent>> {
    let schemas = Schemas::builtin().unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut found: BTreeMap<String, Vec<AuditEvent>> = BTreeMap::new();
    for message in read(bootstrap) {
        let event = decode(&schemas, message.payload().unwrap()).unwrap();
        let id = message.headers().unwrap().iter().find(|header| header.key == "ce_id").unwrap().value.unwrap();
        assert_eq!(id, event.event_id.to_string().as_bytes());
        assert_eq!(message.key().unwrap(), event.key().as_bytes());
        if event.action != "audit.loss" && seen.insert(event.event_id) {
            found.entry(event.entity_id.clone()).or_default().push(event);
        }
    }
    found
}

/// Each of `entities` has the numbers 0 to `each`, in order.
fn assert_in_order(bootstrap: &str, entities: usize, each: usize) {
    let found = first_copies(bootstrap);
    assert_eq!(found.len(), entities);
    for (entity, events) in found {
        let numbers: Vec<_> = events.iter().map(|event| event.details.clone()).collect();
        let expected: Vec<_> = (0..each).map(|number| format!("{{\"n\":{number}}}")).collect();
        assert!(numbers == expected, "entity {entity}: {} of {each} events, or out of order", numbers.len());
    }
}

#[test]
fn kafka_goes_away_and_nothing_is_lost_or_overtaken() {
    const EACH: usize = 3_000;
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    let bootstrap = cluster.bootstrap_servers();
    let producer = Producer::new(spilling(&bootstrap, folder.path())).unwrap();
    let rounds = [(0, false), (1, true), (2, false)];
    for (round, away) in rounds {
        if away {
            cluster.broker_down(1).unwrap();
        }
        thread::scope(|scope| {
            for entity in 0..3 {
                let producer = &producer;
                scope.spawn(move || {
                    for number in round * EACH / 3..(round + 1) * EACH / 3 {
                        insist(producer, numbered(entity, number));
                    }
                });
            }
        });
        if away {
            wait_until("the events to be on disk", || producer.stats().queue_events == 0);
            let stats = producer.stats();
            assert!(stats.spill_events >= EACH as u64, "{stats:?}");
            assert_eq!(inspect(folder.path()).unwrap().events, stats.spill_events);
            cluster.broker_up(1).unwrap();
        }
    }
    let report = block_on(producer.shutdown(WAIT));
    assert!(report.all_acked(), "{report:?}");
    let stats = producer.stats();
    assert!(stats.spilled >= EACH as u64 && stats.drained == stats.spilled && stats.damaged == 0, "{stats:?}");
    assert_eq!((stats.acked, stats.failed.total()), (3 * EACH as u64, 0));
    assert_in_order(&bootstrap, 3, EACH);
}

#[test]
fn a_full_queue_goes_to_disk_and_keeps_the_order() {
    const EACH: usize = 4_000;
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    let bootstrap = cluster.bootstrap_servers();
    cluster.broker_round_trip_time(1, Duration::from_millis(200)).unwrap();
    let producer = Producer::new(Config { queue_events: 200, ..spilling(&bootstrap, folder.path()) }).unwrap();
    for number in 0..EACH {
        insist(&producer, numbered(number % 2, number / 2));
    }
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    let report = block_on(producer.shutdown(WAIT));
    assert!(report.all_acked() && producer.stats().spilled > 0, "{report:?} {:?}", producer.stats());
    assert_in_order(&bootstrap, 2, EACH / 2);
}

#[test]
fn the_next_producer_sends_what_the_last_one_left() {
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    let bootstrap = cluster.bootstrap_servers();
    cluster.broker_down(1).unwrap();
    let before = Producer::new(spilling(&bootstrap, folder.path())).unwrap();
    for number in 0..500 {
        insist(&before, numbered(0, number));
    }
    // Straight from memory to disk: nothing has waited long enough for the spill to begin by itself.
    let report = block_on(before.shutdown(Duration::from_millis(1)));
    assert_eq!((report.spilled, report.outstanding, report.failed.total()), (500, 0, 0), "{report:?}");
    assert!(!report.all_acked());
    let other = Producer::new(spilling(&bootstrap, folder.path()));
    drop(before);
    drop(other);
    cluster.broker_up(1).unwrap();
    let after = Producer::new(spilling(&bootstrap, folder.path())).unwrap();
    for number in 500..600 {
        insist(&after, numbered(0, number));
    }
    assert!(block_on(after.shutdown(WAIT)).all_acked());
    assert_eq!(after.stats().drained, 500 + after.stats().spilled);
    assert_in_order(&bootstrap, 1, 600);
    let left = inspect(folder.path()).unwrap();
    assert_eq!((left.events, left.damaged, left.unreadable), (0, 0, false));
}

#[test]
fn one_producer_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Producer::new(spilling("127.0.0.1:1", folder.path())).unwrap();
    match Producer::new(spilling("127.0.0.1:1", folder.path())) {
        Err(ProducerError::Spill(error)) => assert!(error.to_string().contains("in use"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_limit_holds_and_the_loss_is_told() {
    const LIMIT: u64 = 1 << 20;
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    let bootstrap = cluster.bootstrap_servers();
    cluster.broker_down(1).unwrap();
    let mut config = Config { queue_events: 1_000, ..spilling(&bootstrap, folder.path()) };
    config.spill.as_mut().unwrap().max_bytes = LIMIT;
    let producer = Producer::new(config).unwrap();
    let (mut taken, mut full_since) = (0, None);
    // Until nothing is taken any more for half a second.
    while full_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(500)) {
        match producer.record(numbered(0, taken)) {
            Ok(()) => (taken, full_since) = (taken + 1, None),
            Err(_) => {
                full_since.get_or_insert_with(Instant::now);
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    let stats = producer.stats();
    assert!(stats.spill_bytes <= LIMIT && stats.spill_bytes > LIMIT / 2, "{stats:?}");
    assert_eq!(stats.spill_events as usize + stats.queue_events, taken);
    // STANDARD events left room for the critical one, which waits in memory; no disk, no Kafka: it is not safe.
    let mut best_effort = event("9");
    best_effort.priority = Priority::BestEffort;
    assert!(producer.record(best_effort).is_err());
    let mut critical = event("8");
    critical.priority = Priority::Critical;
    producer.record(critical).unwrap();
    cluster.broker_up(1).unwrap();
    wait_until("the spill to drain", || producer.stats().spill_events == 0 && producer.stats().queue_events == 0);
    insist(&producer, event("7"));
    let schemas = Schemas::builtin().unwrap();
    let is_loss = |message: &OwnedMessage| {
        let event = decode(&schemas, message.payload().unwrap()).unwrap();
        (event.action == "audit.loss").then_some(event)
    };
    wait_until("the loss to be told", || read(&bootstrap).iter().any(|message| is_loss(message).is_some()));
    let told: Vec<AuditEvent> = read(&bootstrap).iter().filter_map(is_loss).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].details.contains("\"best_effort\":1,"), "{}", told[0].details);
    assert!(block_on(producer.shutdown(WAIT)).all_acked());
    let found = first_copies(&bootstrap);
    assert_eq!((found["0"].len(), found["8"].len(), found["7"].len()), (taken, 1, 1));
    assert_eq!(inspect(folder.path()).unwrap().events, 0);
}

#[test]
fn best_effort_gets_half_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { queue_events: 500, ..spilling("127.0.0.1:1", folder.path()) };
    config.spill.as_mut().unwrap().max_bytes = 1 << 20;
    let producer = Producer::new(config).unwrap();
    let begun = Instant::now();
    while producer.stats().failed.get(FailReason::Dropped) == 0 {
        assert!(begun.elapsed() < WAIT, "{:?}", producer.stats());
        let mut event = event("1");
        event.priority = Priority::BestEffort;
        let _ = producer.record(event);
    }
    let stats = producer.stats();
    assert!((400 << 10..700 << 10).contains(&stats.spill_bytes), "{stats:?}");
}

#[test]
fn a_critical_event_is_safe_or_says_that_it_is_not() {
    let (cluster, folder) = (cluster(), tempfile::tempdir().unwrap());
    let bootstrap = cluster.bootstrap_servers();
    let producer = Producer::new(spilling(&bootstrap, folder.path())).unwrap();
    assert!(matches!(block_on(producer.record_critical(event("1"))), Ok(Durable::Replicated(_))));
    cluster.broker_down(1).unwrap();
    assert_eq!(block_on(producer.record_critical(event("1"))).unwrap(), Durable::OnDisk);
    // What it said is so: the file holds it.
    assert_eq!(inspect(folder.path()).unwrap().events, 1);
    assert!(matches!(block_on(producer.record_acked(event("1"))), Err(DeliveryError::Spilled)));

    let nowhere = |critical| {
        let config = config(&bootstrap);
        Producer::new(Config {
            critical,
            critical_deadline: Duration::from_millis(100),
            drop_deadline: Duration::ZERO,
            queue_events: 2,
            ..config
        })
        .unwrap()
    };
    let (closed, open) = (nowhere(Critical::FailClosed), nowhere(Critical::FailOpen));
    let begun = Instant::now();
    assert!(matches!(block_on(closed.record_critical(event("1"))), Err(DeliveryError::Late)));
    assert!((Duration::from_millis(100)..Duration::from_secs(5)).contains(&begun.elapsed()));
    assert_eq!(block_on(open.record_critical(event("1"))).unwrap(), Durable::NotYet);
    // Full: one is an error, the other goes on.
    for producer in [&closed, &open] {
        assert!(block_on(producer.record_critical(event("2"))).is_err() || producer.stats().submitted == 2);
    }
    assert!(matches!(block_on(closed.record_critical(event("3"))), Err(DeliveryError::Rejected(_))));
    assert_eq!(block_on(open.record_critical(event("3"))).unwrap(), Durable::NotYet);
    // An event that can never be written is the caller's error, whatever the setting.
    let mut bad = event("1");
    bad.entity_id.clear();
    assert!(matches!(block_on(open.record_critical(bad)), Err(DeliveryError::Rejected(_))));
}

#[test]
fn wrong_settings_are_named() {
    let with = |spill| Config { spill: Some(spill), ..config("127.0.0.1:1") };
    let good = || SpillConfig::new("somewhere");
    for (spill, name) in [
        (SpillConfig::new(""), "spill.folder"),
        (SpillConfig { max_bytes: 5, ..good() }, "spill.max_bytes"),
        (SpillConfig { after: Duration::ZERO, ..good() }, "spill.after"),
    ] {
        let error = with(spill).validate().unwrap_err().to_string();
        assert!(error.starts_with(&format!("setting `{name}`")), "{error}");
    }
    assert_eq!(Lanes::default(), Lanes { standard: 90, best_effort: 50 });
}
