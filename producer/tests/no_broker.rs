//! The producer with nobody to talk to: bounds, deadlines and the way back of every event. No async runtime here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod common;

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use auditstream_producer::{
    Config, DeliveryError, FailReason, Fate, Lanes, Producer, ProducerError, RecordOptions, RejectReason,
    idempotent_event_id,
};
use auditstream_schemas::Priority;
use common::{block_on, config, event};

/// Every lane may fill the whole queue.
const ALL: Lanes = Lanes { standard: 100, best_effort: 100 };

/// A loopback port that refuses connections while the listener is held only to reserve it.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn nowhere() -> Config {
    config(&closed_port())
}

#[test]
fn a_full_queue_gives_the_event_back_by_count() {
    let producer =
        Producer::new(Config { queue_events: 50, lanes: ALL, drop_deadline: Duration::ZERO, ..nowhere() }).unwrap();
    for index in 0..50 {
        producer.record(event(&index.to_string())).unwrap();
    }
    let one_more = event("one-more");
    let rejected = producer.record(one_more.clone()).unwrap_err();
    assert_eq!(*rejected.event, one_more);
    assert!(matches!(rejected.reason, RejectReason::QueueFull { events: 50, .. }), "{:?}", rejected.reason);
    let stats = producer.stats();
    assert_eq!((stats.submitted, stats.queue_events, stats.rejected.queue_full), (50, 50, 1));
}

#[test]
fn a_full_queue_gives_the_event_back_by_bytes() {
    let config = Config { queue_bytes: 64 * 1024, lanes: ALL, drop_deadline: Duration::ZERO, ..nowhere() };
    let producer = Producer::new(config).unwrap();
    let large = |index: usize| {
        let details = format!("{{\"pad\":\"{}\"}}", "x".repeat(20_000));
        let mut event = event(&index.to_string());
        event.details = details;
        event
    };
    let taken = (0..10).take_while(|index| producer.record(large(*index)).is_ok()).count();
    assert_eq!(taken, 3);
    assert!(producer.stats().queue_bytes <= 64 * 1024);
    // A small one still fits.
    producer.record(event("small")).unwrap();
}

#[test]
fn failed_events_are_told_and_their_room_comes_back() {
    let (told, outcomes) = mpsc::channel();
    let config = Config { queue_events: 20, lanes: ALL, delivery_timeout: Duration::from_millis(300), ..nowhere() };
    let observer = move |id, fate: Fate<'_>| {
        let failed = match fate {
            Fate::Failed(failure) => Some(failure.reason),
            Fate::Acked(_) | Fate::Spilled => None,
        };
        told.send((id, failed)).unwrap();
    };
    let producer = Producer::with_observer(config, Box::new(observer)).unwrap();
    for round in 0..2 {
        let mut ids = Vec::new();
        for _ in 0..20 {
            let event = event("same");
            ids.push(event.event_id);
            producer.record(event).unwrap();
        }
        let report = block_on(producer.flush(Duration::from_secs(20)));
        assert!(report.complete && !report.all_acked(), "{report:?}");
        assert_eq!(report.failed.get(FailReason::TimedOut), 20 * (round + 1));
        assert_eq!((report.acked, report.outstanding), (0, 0));
        let mut told: Vec<_> = outcomes.try_iter().collect();
        assert!(told.iter().all(|(_, reason)| *reason == Some(FailReason::TimedOut)));
        told.sort_unstable();
        ids.sort_unstable();
        assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
        assert_eq!(producer.stats().queue_bytes, 0);
    }
}

/// More than librdkafka is given at once.
const MANY: usize = 20_000;

#[test]
fn what_waits_for_librdkafka_keeps_the_deadlines_too() {
    let (told, outcomes) = mpsc::channel();
    let observer = move |id, fate: Fate<'_>| {
        assert!(matches!(fate, Fate::Failed(failure) if failure.reason == FailReason::ShutDown));
        told.send(id).unwrap();
    };
    let producer = Producer::with_observer(Config { lanes: ALL, ..nowhere() }, Box::new(observer)).unwrap();
    let mut ids: Vec<_> = (0..MANY)
        .map(|index| {
            let event = event(&index.to_string());
            let id = event.event_id;
            producer.record(event).unwrap();
            id
        })
        .collect();
    let begun = Instant::now();
    let report = block_on(producer.flush(Duration::from_millis(200)));
    assert!(!report.complete && report.outstanding == MANY as u64, "{report:?}");
    let report = block_on(producer.shutdown(Duration::from_millis(200)));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((report.failed.get(FailReason::ShutDown), report.outstanding), (MANY as u64, 0), "{report:?}");
    let mut told: Vec<_> = outcomes.try_iter().collect();
    told.sort_unstable();
    ids.sort_unstable();
    assert_eq!(told, ids);
}

#[test]
fn what_waits_for_librdkafka_times_out_too() {
    let timeout = Duration::from_millis(500);
    let producer = Producer::new(Config { lanes: ALL, delivery_timeout: timeout, ..nowhere() }).unwrap();
    for index in 0..MANY {
        producer.record(event(&index.to_string())).unwrap();
    }
    let report = block_on(producer.flush(Duration::from_secs(20)));
    assert!(report.complete, "{report:?}");
    assert_eq!(report.failed.get(FailReason::TimedOut), MANY as u64);
}

#[test]
fn record_acked_says_why_not() {
    let producer = Producer::new(Config { delivery_timeout: Duration::from_millis(200), ..nowhere() }).unwrap();
    let error = block_on(producer.record_acked(event("1"))).unwrap_err();
    match error {
        DeliveryError::Failed(failure) => assert_eq!(failure.reason, FailReason::TimedOut),
        other => panic!("{other:?}"),
    }
}

#[test]
fn flush_and_shutdown_keep_their_deadlines() {
    let producer = Producer::new(nowhere()).unwrap();
    for index in 0..30 {
        producer.record(event(&index.to_string())).unwrap();
    }
    let begun = Instant::now();
    let report = block_on(producer.flush(Duration::from_millis(150)));
    assert!((Duration::from_millis(150)..Duration::from_secs(2)).contains(&begun.elapsed()));
    assert_eq!((report.complete, report.outstanding, report.failed.total()), (false, 30, 0));

    let begun = Instant::now();
    let report = block_on(producer.shutdown(Duration::from_millis(150)));
    assert!((Duration::from_millis(150)..Duration::from_secs(3)).contains(&begun.elapsed()));
    assert_eq!((report.complete, report.outstanding, report.submitted), (false, 0, 30));
    assert_eq!(report.failed.get(FailReason::ShutDown), 30);

    let late = event("late");
    let rejected = producer.clone().record(late.clone()).unwrap_err();
    assert_eq!((*rejected.event, rejected.reason), (late, RejectReason::ShutDown));
    // Once more is no error.
    let again = block_on(producer.shutdown(Duration::from_secs(5)));
    assert_eq!(again.failed.total(), 30);
}

#[test]
fn a_pending_acknowledgement_hears_of_the_shutdown() {
    let producer = Producer::new(nowhere()).unwrap();
    let waiting = std::thread::spawn({
        let producer = producer.clone();
        move || block_on(producer.record_acked(event("1")))
    });
    while producer.stats().submitted == 0 {
        std::thread::yield_now();
    }
    block_on(producer.shutdown(Duration::from_millis(50)));
    match waiting.join().unwrap() {
        Err(DeliveryError::Failed(failure)) => assert_eq!(failure.reason, FailReason::ShutDown),
        other => panic!("{other:?}"),
    }
}

#[test]
fn dropping_is_bounded() {
    let producer = Producer::new(Config { drop_deadline: Duration::from_millis(200), ..nowhere() }).unwrap();
    producer.record(event("1")).unwrap();
    let begun = Instant::now();
    drop(producer);
    assert!((Duration::from_millis(200)..Duration::from_secs(3)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[test]
fn an_idle_producer_shuts_down_at_once() {
    let producer = Producer::new(nowhere()).unwrap();
    let begun = Instant::now();
    let report = block_on(producer.shutdown(Duration::from_secs(60)));
    assert!(report.all_acked());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn bad_and_oversized_events_come_back() {
    let producer = Producer::new(Config { message_max_bytes: 2_000, ..nowhere() }).unwrap();
    let mut bad = event("1");
    bad.entity_id.clear();
    let rejected = producer.record(bad.clone()).unwrap_err();
    assert_eq!(*rejected.event, bad);
    assert!(matches!(&rejected.reason, RejectReason::Invalid(error) if error.problems[0].field == "entity_id"));
    assert!(!format!("{rejected:?}").contains("acme"), "a rejection shows nothing of the event");

    let mut large = event("1");
    large.details = format!("{{\"pad\":\"{}\"}}", "x".repeat(2_000));
    let rejected = producer.record(large).unwrap_err();
    assert!(matches!(rejected.reason, RejectReason::TooLarge { limit: 2_000, .. }), "{:?}", rejected.reason);
    let stats = producer.stats();
    assert_eq!((stats.submitted, stats.rejected.invalid, stats.rejected.too_large), (0, 1, 1));
}

#[test]
fn a_property_that_librdkafka_refuses_is_named_without_its_value() {
    let properties = [("security.protocol".to_owned(), "s3cret".to_owned())].into();
    let error = Producer::new(Config { properties, ..nowhere() }).unwrap_err();
    assert!(matches!(&error, ProducerError::Setting { name, .. } if name == "security.protocol"), "{error:?}");
    assert!(!format!("{error:?} {error}").contains("s3cret"), "{error:?}");
}

#[test]
fn each_priority_has_room_of_its_own() {
    let producer = Producer::new(Config { queue_events: 100, drop_deadline: Duration::ZERO, ..nowhere() }).unwrap();
    let fill = |priority| {
        let mut taken = 0;
        loop {
            let mut event = event("1");
            event.priority = priority;
            if producer.record(event).is_err() {
                return taken;
            }
            taken += 1;
        }
    };
    assert_eq!([Priority::BestEffort, Priority::Standard, Priority::Critical].map(fill), [50, 40, 10]);
    let stats = producer.stats();
    assert_eq!((stats.queue_events, stats.rejected.queue_full, stats.best_effort_dropped), (100, 3, 1));
}

#[test]
fn an_idempotency_key_is_taken_once() {
    let config = Config { queue_events: 2, lanes: ALL, drop_deadline: Duration::ZERO, ..nowhere() };
    let producer = Producer::new(config).unwrap();
    let with = |key: &str| RecordOptions { idempotency_key: Some(key.to_owned()), ..RecordOptions::default() };
    let id = idempotent_event_id("acme", "payment-17");
    producer.record_with(event("1"), with("payment-17")).unwrap();
    let again = event("1");
    let rejected = producer.record_with(again.clone(), with("payment-17")).unwrap_err();
    assert_eq!((*rejected.event, rejected.reason), (again, RejectReason::Duplicate { event_id: id }));
    for bad in ["", "a\0b", &"x".repeat(256)] {
        let rejected = producer.record_with(event("1"), with(bad)).unwrap_err();
        assert_eq!(rejected.reason, RejectReason::IdempotencyKey { bytes: bad.len() });
    }
    // Not taken, so the key is free, and the event is as it was.
    producer.record(event("2")).unwrap();
    let late = event("3");
    for _ in 0..2 {
        let rejected = producer.record_with(late.clone(), with("payment-18")).unwrap_err();
        assert!(matches!(rejected.reason, RejectReason::QueueFull { .. }), "{rejected:?}");
        assert_eq!(*rejected.event, late);
    }
    let stats = producer.stats();
    assert_eq!((stats.submitted, stats.rejected.duplicate, stats.rejected.invalid), (2, 1, 3));
}
