//! What a person sees who writes an event's JSON by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use auditstream_schemas::*;

const MUST: &str =
    r#""tenant_id":"acme","service":"billing","action":"order.update","entity_type":"order","entity_id":"42""#;

fn read(more: &str) -> Result<AuditEvent, EventError> {
    AuditEvent::from_json(format!("{{{MUST}{more}}}").as_bytes())
}

/// The problems as people see them, one a line.
fn problems(result: Result<AuditEvent, EventError>) -> String {
    result.unwrap_err().problems.iter().map(|p| p.to_string()).collect::<Vec<_>>().join("\n")
}

#[test]
fn defaults() {
    let before = Timestamp::now();
    let event = read("").unwrap();
    assert!(before <= event.occurred_at && event.occurred_at <= Timestamp::now());
    assert_eq!(event.event_id.get_version_num(), 7);
    assert_ne!(event.event_id, read("").unwrap().event_id);
    let built = AuditEvent::builder("acme", "billing", "order.update", "order", "42")
        .event_id(event.event_id)
        .occurred_at(event.occurred_at)
        .build()
        .unwrap();
    assert_eq!(event, built);
    assert_eq!(event.operation, Operation::Update);
    assert_eq!((event.environment.as_str(), event.details.as_str()), ("default", "{}"));
}

#[test]
fn values() {
    let event = read(
        r#", "event_id": "01900000-0000-7000-8000-000000000001", "occurred_at": "2026-01-31T10:30:00+01:00", "ip": null,
           "operation": "READ", "actor": {"kind": "USER", "id": "u-1", "email": null}, "details": { "a" : [1, {"b": null}] },
           "changes": [{"path": "/a", "old": null, "new": {"x": "y"}}, {"path": "/b", "new": 1.50}], "producer": {"seq": 7}"#,
    )
    .unwrap();
    assert_eq!(event.occurred_at.to_string(), "2026-01-31T09:30:00Z");
    assert_eq!((event.ip, event.operation), (None, Operation::Read));
    assert_eq!(event.actor, Actor::user("u-1"));
    assert_eq!(event.details, r#"{ "a" : [1, {"b": null}] }"#);
    assert_eq!(
        event.changes[0],
        Change { path: "/a".into(), old: Some("null".into()), new: Some(r#"{"x": "y"}"#.into()) }
    );
    assert_eq!(event.changes[1], Change { path: "/b".into(), old: None, new: Some("1.50".into()) });
    assert_eq!(event.producer, ProducerStamp { id: String::new(), epoch: 0, seq: 7 });
}

#[test]
fn what_is_missing() {
    assert_eq!(
        problems(AuditEvent::from_json(b"{}")),
        "tenant_id: found nothing, expected text\n\
         service: found nothing, expected text\n\
         action: found nothing, expected text\n\
         entity_type: found nothing, expected text\n\
         entity_id: found nothing, expected text"
    );
}

#[test]
fn wrong_types_and_values_all_at_once() {
    assert_eq!(
        problems(read(
            r#","event_id":"12","occurred_at":1700000000,"environment":"","operation":"update","actor":{"kind":"HUMAN","id":7},"outcome":true,
               "changes":[{"path":"/a"},{"old":1},"x"],"ip":["10.0.0.1"],"details":"text","producer":{"seq":1.5}"#
        )),
        "event_id: found other text, expected a hyphenated UUID\n\
         occurred_at: found a number, expected an RFC 3339 time with an offset, such as 2026-01-31T09:30:00.125Z\n\
         operation: found other text, expected CREATE, READ, UPDATE, DELETE or OTHER\n\
         actor.kind: found other text, expected USER, SERVICE, API_KEY, SYSTEM or ANONYMOUS\n\
         actor.id: found a number, expected text\n\
         outcome: found a boolean, expected SUCCESS, FAILURE or DENIED\n\
         changes[1].path: found nothing, expected text\n\
         changes[2]: found a string, expected an object\n\
         ip: found an array, expected text\n\
         producer.seq: found a number, expected an integer of 64 bits\n\
         environment: found an empty string, expected 1 to 512 bytes of text\n\
         details: found a string, expected a JSON object"
    );
    assert_eq!(problems(read(r#","changes":{}"#)), "changes: found an object, expected an array of {path, old, new}");
    assert_eq!(
        problems(read(r#","occurred_at":"1850-01-01T00:00:00Z""#)),
        "occurred_at: found a time before 1900, expected a time from 1900-01-01T00:00:00Z to 2299-12-31T23:59:59.999999Z"
    );
}

#[test]
fn unknown_and_repeated_fields() {
    assert_eq!(
        problems(read(r#","entityId":"43","actor":{"mail":"x"},"ip":"::1","ip":"::2""#)),
        "entityId: found an unknown field, expected no such field; did you mean entity_id?\n\
         ip: found the field twice, expected it once\n\
         actor.mail: found an unknown field, expected no such field; did you mean email?"
    );
    let far = problems(read(r#","colour":"red""#));
    assert!(
        far.starts_with("colour: found an unknown field, expected one of the known fields: event_id, occurred_at,"),
        "{far}"
    );
}

#[test]
fn no_json_at_all() {
    for (line, said) in [
        ("", "the event: found text that ends within a value, expected a JSON object"),
        ("{\"tenant_id\": ", "the event: found text that ends within a value, expected a JSON object"),
        ("tenant=acme", "the event: found text that is not JSON (line 1, column 2), expected a JSON object"),
        ("[1]", "the event: found an array, expected an object"),
        ("{} {}", "the event: found text that is not JSON (line 1, column 4), expected a JSON object"),
    ] {
        let all = problems(AuditEvent::from_json(line.as_bytes()));
        assert_eq!(all, said, "{line}");
    }
    let bytes = problems(AuditEvent::from_json(b"{\"a\xff\":1}"));
    assert_eq!(bytes, "the event: found bytes that are not UTF-8 (from byte 3), expected a JSON object");
}

#[test]
fn no_value_is_ever_repeated() {
    let text = problems(read(
        r#","event_id":"hunter2","occurred_at":"hunter2","operation":"hunter2","details":"hunter2","changes":"hunter2","actor":"hunter2""#,
    ));
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn odd_strings() {
    assert_eq!(
        read(r#","entity_name":"\ud800""#).unwrap_err().problems[0].found,
        "a string with an unpaired surrogate"
    );
    assert_eq!(read(r#","entity_name":"\u0000\n""#).unwrap().entity_name.as_deref(), Some("\0\n"));
    let deep = format!(",\"details\":{{\"a\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(read(&deep).unwrap().details.len(), 40_006);
}
