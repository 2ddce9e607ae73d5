//! Records so many events and ends: `cargo xtask test-instructions` counts what the processor does on the caller's thread meanwhile.
//!
//! No broker takes part: the queue has room for all events.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use auditstream_producer::{Config, Producer};
use auditstream_schemas::{Actor, AuditEvent, Timestamp};
use uuid::Uuid;

fn event(number: usize) -> AuditEvent {
    AuditEvent::builder("tenant-0042", "billing", "invoice.update", "invoice", format!("inv-2024-{number:06}"))
        .event_id(Uuid::from_u128(0x0190_1234_5678_7abc_8def_0123_4567_89ab + number as u128))
        .occurred_at(Timestamp::from_micros(1_716_239_022_123_456))
        .environment("production")
        .actor(Actor { name: Some("Ada Lovelace".into()), ..Actor::user("user-981") })
        .change("/status", Some("\"open\""), Some("\"paid\""))
        .change("/total", Some("1999"), Some("2099"))
        .ip("203.0.113.42")
        .user_agent("Mozilla/5.0 (X11; Linux x86_64)")
        .request_id("req-7f3a9c1e")
        .details(r#"{"amount":2099,"currency":"EUR"}"#)
        .build()
        .unwrap()
}

/// What is counted.
#[inline(never)]
fn counted_record(producer: &Producer, events: Vec<AuditEvent>) {
    for event in events {
        producer.record(event).unwrap();
    }
}

fn main() {
    let events: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).expect("EVENTS");
    let events: Vec<AuditEvent> = (0..events).map(event).collect();
    let config = Config {
        // Nobody listens there.
        bootstrap_servers: "127.0.0.1:9".to_owned(),
        queue_events: events.len() * 4,
        queue_bytes: 1 << 30,
        drop_deadline: Duration::ZERO,
        ..Config::default()
    };
    let producer = Producer::new(config).unwrap();
    counted_record(&producer, events);
    // What was recorded was never meant to arrive.
    std::process::exit(0);
}
