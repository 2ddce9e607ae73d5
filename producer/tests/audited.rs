//! `derive(Audited)` as a service uses it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::cell::Cell;

use auditstream_producer::audited::{Audited, Trail};
use auditstream_producer::redaction::{Action, HmacKey, Redaction};
use auditstream_schemas::Operation;
use serde::{Serialize, Serializer};

/// Fails when it is looked at.
#[derive(Clone)]
struct NotToBeSeen(Cell<bool>);

impl Serialize for NotToBeSeen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.set(true);
        serializer.serialize_str("seen")
    }
}

#[derive(Clone, Audited)]
#[audit(entity = "customer", id = "number")]
struct Customer<'a> {
    number: u64,
    name: &'a str,
    #[audit(redact = "hmac")]
    email: String,
    #[audit(redact = "drop")]
    password: String,
    #[audit(redact = "mask", rename = "pay/card")]
    card: Option<Vec<u8>>,
    #[audit(skip)]
    cache: NotToBeSeen,
    r#type: u8,
}

fn customer() -> Customer<'static> {
    Customer {
        number: 7,
        name: "A",
        email: "a@example.org".into(),
        password: "p".into(),
        card: None,
        cache: NotToBeSeen(Cell::new(false)),
        r#type: 1,
    }
}

#[test]
fn one_line_makes_an_event_and_shows_no_more_than_it_may() {
    let trail = Trail::new("acme", "shop").environment("test").key(HmacKey::new([1; 16]));
    let before = customer();
    let mut after = Customer { r#type: 2, name: "B", password: "q".into(), card: Some(vec![4, 1]), ..customer() };
    after.email = "b@example.org".into();
    let event = trail.update(&before, &after).unwrap().build().unwrap();
    assert_eq!((event.action.as_str(), event.operation), ("customer.update", Operation::Update));
    assert_eq!((event.tenant_id.as_str(), event.environment.as_str()), ("acme", "test"));
    assert_eq!((event.entity_type.as_str(), event.entity_id.as_str()), ("customer", "7"));
    let found: Vec<_> =
        event.changes.iter().map(|c| (c.path.as_str(), c.old.as_deref().unwrap(), c.new.as_deref().unwrap())).collect();
    let rules = Redaction::builder().key(HmacKey::new([1; 16])).rule("/ip", Action::Hmac).build().unwrap();
    let token = |text: &str| format!("\"{}\"", rules.token(text).unwrap());
    let (old, new) = (token("a@example.org"), token("b@example.org"));
    let expected = [
        ("/email", old.as_str(), new.as_str()),
        ("/name", "\"A\"", "\"B\""),
        ("/pay~1card", "\"***\"", "\"***\""),
        ("/type", "1", "2"),
    ];
    assert_eq!(found, expected);
    assert!(!after.cache.0.get());

    let created = trail.create(&after).unwrap().build().unwrap();
    let paths: Vec<_> = created.changes.iter().map(|c| c.path.as_str()).collect();
    assert_eq!(paths, ["/email", "/name", "/number", "/pay~1card", "/type"]);
    assert!(created.changes.iter().all(|c| c.old.is_none() && c.new.is_some()));
    assert_eq!(trail.delete(&after).unwrap().build().unwrap().operation, Operation::Delete);
    assert!(trail.read(&after).build().unwrap().changes.is_empty());
    assert!(trail.update(&after, &after).unwrap().build().unwrap().changes.is_empty());
    assert_eq!(trail.tenant("other").read(&after).build().unwrap().tenant_id, "other");
}

#[test]
fn without_a_good_key_the_values_are_masked() {
    for trail in [Trail::new("acme", "shop"), Trail::new("acme", "shop").key(HmacKey::new("short"))] {
        let event = trail.create(&customer()).unwrap().build().unwrap();
        let email = event.changes.iter().find(|change| change.path == "/email").unwrap();
        assert_eq!(email.new.as_deref(), Some("\"***\""));
    }
}
