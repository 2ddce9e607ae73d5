//! What the tests and tools of this crate share: events of every shape, and a row of a batch as an event.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

use std::sync::{Arc, LazyLock};

use auditstream_schemas::*;
use proptest::prelude::*;
use uuid::Uuid;

pub mod rows;
pub mod spoil;

#[allow(unused_imports)]
pub use rows::{event_at, rows, value};

pub const AT: Position = Position { partition: 3, offset: 42, timestamp_ms: 1_700_000_000_000 };

/// At an offset.
pub const fn at(offset: i64) -> Position {
    Position { offset, ..AT }
}

/// An event with only what it must have, the same on every call.
pub fn minimal() -> AuditEvent {
    AuditEvent::builder("t", "s", "a", "e", "1")
        .event_id(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001))
        .occurred_at(Timestamp::from_micros(1_700_000_000_000_000))
        .build()
        .unwrap()
}

/// An event with everything set, about 300 bytes without its changes: what the benchmarks call typical.
pub fn typical() -> AuditEvent {
    let mut event = AuditEvent::builder("tenant-0042", "billing", "invoice.update", "invoice", "inv-2024-000123")
        .event_id(Uuid::from_u128(0x0190_1234_5678_7abc_8def_0123_4567_89ab))
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
        .unwrap();
    event.producer = ProducerStamp { id: "billing-6d5f".into(), epoch: 3, seq: 123_456 };
    event
}

/// The events behind `schemas/golden`, by file name.
pub fn golden() -> Vec<(&'static str, AuditEvent)> {
    let full = AuditEvent {
        entity_name: Some("Invoice 123".into()),
        actor: Actor {
            kind: ActorKind::ApiKey,
            id: Some("key-9".into()),
            name: Some("Reporting".into()),
            email: Some("reports@example.com".into()),
            session_id: Some("sess-1".into()),
        },
        on_behalf_of: Some("user-7".into()),
        outcome: Outcome::Denied,
        error_message: Some("not allowed on a closed invoice".into()),
        correlation_id: Some("corr-5".into()),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        http_method: Some("PUT".into()),
        http_path: Some("/invoices/123?draft=false".into()),
        priority: Priority::Critical,
        ..typical()
    };
    let unicode = AuditEvent {
        tenant_id: "Bäckerei/Müller".into(),
        entity_id: "注文-42 🧾".into(),
        entity_name: Some("\u{202e}right to left, \0 nul, \u{7f} del, \t tab".into()),
        details: "{\"näme\": \"\\u00e9 \\ud83e\\uddfe\",\n \"deep\": [[{}], 1e-7]}".into(),
        changes: vec![
            Change { path: "/名前".into(), old: Some("null".into()), new: Some("\"ő\"".into()) },
            Change { path: String::new(), old: None, new: Some("[1, 2.50, true]".into()) },
        ],
        ..minimal()
    };
    let at = |time| AuditEvent {
        occurred_at: time,
        priority: Priority::BestEffort,
        operation: Operation::Delete,
        ..minimal()
    };
    let many = AuditEvent {
        changes: (0..300)
            .map(|i| Change {
                path: format!("/items/{i}/price"),
                old: (i % 3 > 0).then(|| i.to_string()),
                new: Some((i * i).to_string()),
            })
            .collect(),
        producer: ProducerStamp { id: "p".into(), epoch: i64::MIN, seq: i64::MAX },
        ..minimal()
    };
    vec![
        ("minimal", minimal()),
        ("full", full),
        ("unicode", unicode),
        ("earliest", at(Timestamp::MIN_STORABLE)),
        ("latest", at(Timestamp::MAX_STORABLE)),
        ("many_changes", many),
    ]
}

/// The framings of the golden files, by the ending of their names.
pub const GOLDEN_FRAMINGS: [(&str, Framing); 2] =
    [("single.bin", Framing::SingleObject), ("confluent.bin", Framing::Confluent { schema_id: 258 })];

/// One framed record.
pub fn record(event: &AuditEvent) -> Vec<u8> {
    let mut out = Vec::new();
    encode(event, Framing::SingleObject, &mut out);
    out
}

/// One record's body, without the frame.
pub fn body(event: &AuditEvent) -> Vec<u8> {
    record(event).split_off(10)
}

pub fn schemas() -> Schemas {
    Schemas::builtin().unwrap()
}

/// So many cases, or as many as `PROPTEST_CASES` says.
pub fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The builtin schemas, made once.
pub fn shared() -> Arc<Schemas> {
    static SHARED: LazyLock<Arc<Schemas>> = LazyLock::new(|| Arc::new(schemas()));
    SHARED.clone()
}

fn text(max: usize) -> BoxedStrategy<String> {
    prop_oneof![
        5 => "[a-zA-Z0-9_./-]{1,24}",
        2 => proptest::collection::vec(any::<char>(), 1..12).prop_map(String::from_iter),
        1 => Just("\0\u{1}\u{7f}\r\n\t\"\\%/".to_owned()),
        1 => (1..=max).prop_map(|n| "x".repeat(n)),
    ]
    .prop_map(move |s: String| if s.len() > max { "x".repeat(max) } else { s })
    .boxed()
}

fn optional(max: usize) -> impl Strategy<Value = Option<String>> {
    proptest::option::of(text(max))
}

fn json_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        Just(" 1.50e+3 ".to_owned()),
        text(40).prop_map(|s| serde_json::to_string(&s).unwrap()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(|v| format!("[{}]", v.join(", "))),
            object(inner),
        ]
    })
}

fn object(values: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    proptest::collection::vec((text(20), values), 0..3).prop_map(|pairs| {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{}:{v}", serde_json::to_string(k).unwrap())).collect();
        format!("{{{}}}", pairs.join(","))
    })
}

fn change() -> impl Strategy<Value = Change> {
    let json = || proptest::option::of(json_value());
    (prop_oneof![Just(String::new()), text(64)], json(), json()).prop_map(|(path, old, new)| Change { path, old, new })
}

fn symbol<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

/// Any event that validates.
pub fn events() -> impl Strategy<Value = AuditEvent> {
    let id = limits::ID_BYTES;
    let time = prop_oneof![
        Just(Timestamp::MIN_STORABLE.as_micros()),
        Just(Timestamp::MAX_STORABLE.as_micros()),
        Just(0),
        Timestamp::MIN_STORABLE.as_micros()..=Timestamp::MAX_STORABLE.as_micros(),
    ];
    let who = (symbol(ActorKind::ALL), optional(id), optional(1024), optional(1024), optional(id))
        .prop_map(|(kind, id, name, email, session_id)| Actor { kind, id, name, email, session_id });
    let stamp = (prop_oneof![Just(String::new()), text(id)], any::<i64>(), any::<i64>())
        .prop_map(|(id, epoch, seq)| ProducerStamp { id, epoch, seq });
    let symbols = (symbol(Operation::ALL), symbol(Outcome::ALL), symbol(Priority::ALL));
    let changes =
        prop_oneof![4 => proptest::collection::vec(change(), 0..4), 1 => proptest::collection::vec(change(), 60..70)];
    let must = (any::<u128>(), time, text(id), text(id), text(id), text(256), text(id), text(id), optional(1024));
    let may = (
        optional(64),
        optional(2048),
        optional(id),
        optional(id),
        optional(id),
        optional(64),
        optional(4096),
        optional(id),
        optional(8192),
    );
    (must, who, stamp, symbols, changes, may, object(json_value())).prop_map(
        |(must, actor, producer, symbols, changes, may, details)| AuditEvent {
            event_id: Uuid::from_u128(must.0),
            occurred_at: Timestamp::from_micros(must.1),
            tenant_id: must.2,
            service: must.3,
            environment: must.4,
            action: must.5,
            operation: symbols.0,
            entity_type: must.6,
            entity_id: must.7,
            entity_name: must.8,
            actor,
            on_behalf_of: may.7,
            outcome: symbols.1,
            error_message: may.8,
            changes,
            ip: may.0,
            user_agent: may.1,
            request_id: may.2,
            correlation_id: may.3,
            trace_id: may.4,
            http_method: may.5,
            http_path: may.6,
            priority: symbols.2,
            details,
            producer,
        },
    )
}
