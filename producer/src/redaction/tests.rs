#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says so by failing")]

use auditstream_schemas::{Actor, Change};
use proptest::prelude::*;

use super::*;

const KEY: &[u8] = b"0123456789abcdef";

fn rules(rules: &[(&str, Action)]) -> Redaction {
    let mut builder = Redaction::builder().key(HmacKey::new(KEY));
    for (path, action) in rules {
        builder = builder.rule(*path, *action);
    }
    builder.build().unwrap()
}

fn event() -> AuditEvent {
    let actor = Actor { email: Some("a@example.org".into()), name: Some("A".into()), ..Actor::user("u-7") };
    AuditEvent::builder("acme", "shop", "order.update", "order", "42").actor(actor).ip("192.0.2.1").build().unwrap()
}

fn details(redaction: &Redaction, text: &str) -> String {
    let mut event = event();
    event.details = text.to_owned();
    redaction.apply(&mut event);
    event.validate().unwrap();
    event.details
}

fn change(redaction: &Redaction, path: &str, old: Option<&str>, new: Option<&str>) -> Option<Change> {
    let mut event = event();
    event.changes = vec![Change { path: path.into(), old: old.map(str::to_owned), new: new.map(str::to_owned) }];
    redaction.apply(&mut event);
    event.validate().unwrap();
    event.changes.pop()
}

#[test]
fn fields_are_dropped_masked_and_hashed() {
    let redaction = rules(&[
        ("/ip", Action::Hmac),
        ("/actor/email", Action::Drop),
        ("/actor/*", Action::Mask),
        ("/user_agent", Action::Mask),
    ]);
    let mut redacted = event();
    redaction.apply(&mut redacted);
    redacted.validate().unwrap();
    assert_eq!(redacted.ip, redaction.token("192.0.2.1"));
    assert_eq!((redacted.actor.email, redacted.actor.name.as_deref()), (None, Some("***")));
    assert_eq!(redacted.actor.id.as_deref(), Some("***"));
    assert_eq!((redacted.actor.kind, redacted.actor.session_id, redacted.user_agent), (event().actor.kind, None, None));
    // Without rules nothing changes.
    let mut same = event();
    let untouched = same.clone();
    rules(&[]).apply(&mut same);
    assert_eq!(same, untouched);
}

#[test]
fn every_field_has_its_place() {
    let full = AuditEvent::builder("acme", "shop", "order.update", "order", "42");
    for (path, field) in FIELDS {
        let redaction = rules(&[(&format!("/{}", path.join("/")), Action::Mask)]);
        let mut event = full.clone().build().unwrap();
        for (_, other) in FIELDS {
            *other(&mut event) = Some("x".into());
        }
        redaction.apply(&mut event);
        let masked = FIELDS.iter().filter(|(_, other)| other(&mut event).as_deref() == Some("***")).count();
        assert_eq!((field(&mut event).as_deref(), masked), (Some("***"), 1), "{path:?}");
    }
}

#[test]
fn values_are_found_however_the_change_is_cut() {
    let redaction = rules(&[("/changes/customer/email", Action::Hmac), ("/changes/**/password", Action::Drop)]);
    let token = format!("\"{}\"", redaction.token("a@b").unwrap());
    let found = change(&redaction, "/customer/email", Some("\"a@b\""), Some("null")).unwrap();
    assert_eq!(found.old.as_deref(), Some(token.as_str()));
    assert_eq!(found.new, redaction.token("null").map(|token| format!("\"{token}\"")));
    // Inside of a whole, the whole entity, and below what is meant.
    let found = change(&redaction, "/customer", None, Some("{\"n\": 1e99, \"email\":\"\\u0061@b\"}")).unwrap();
    assert_eq!((found.old, found.new), (None, Some(format!("{{\"n\":1e99,\"email\":{token}}}"))));
    let found = change(&redaction, "", None, Some("{\"customer\":{\"email\":\"a@b\",\"password\":1}}")).unwrap();
    assert_eq!(found.new, Some(format!("{{\"customer\":{{\"email\":{token}}}}}")));
    let found = change(&redaction, "/customer/email/domain", None, Some("\"a@b\"")).unwrap();
    assert_eq!(found.new, Some(token.clone()));
    // Paths that are no pointers are one segment.
    assert_eq!(change(&redaction, "password", Some("1"), Some("2")), None);
    assert_eq!(change(&redaction, "/a/0/password", Some("1"), Some("2")), None);
    let others = [("/customer/name", "\"a@b\""), ("/customer", "\"a@b\""), ("/x", "[ {\"email\":1} ]"), ("/", "1")];
    for (path, value) in others {
        assert_eq!(change(&redaction, path, None, Some(value)).unwrap().new.as_deref(), Some(value), "{path}");
    }
}

#[test]
fn details_keep_what_no_rule_means() {
    let redaction = rules(&[("/details/*/card", Action::Mask), ("/**/pin", Action::Drop)]);
    for (text, expected) in [
        ("{}", "{}"),
        ("{ \"a\" : 1 }", "{ \"a\" : 1 }"),
        ("{\"a\":{\"card\":[1,2]},\"pin\":1}", "{\"a\":{\"card\":\"***\"}}"),
        ("{\"a\":[{\"pin\":1,\"x\":1.50},\"pin\"]}", "{\"a\":[{\"x\":1.50},\"pin\"]}"),
        ("{\"pin\":1,\"pin\":2}", "{}"),
        ("{\"p\\u0069n\":1}", "{}"),
        ("{\"card\":1}", "{\"card\":1}"),
        ("{\"\":{\"\":{\"pin\":1}}}", "{\"\":{\"\":{}}}"),
        ("{\"x\":{\"\\ud800\":1}}", "{\"x\":\"***\"}"),
        ("{\"\\ud800\":1}", "{\"redacted\":true}"),
    ] {
        assert_eq!(details(&redaction, text), expected, "{text}");
    }
    let whole = |action| details(&rules(&[("/details", action)]), "{\"a\":1,\"b\":{}}");
    assert_eq!((whole(Action::Drop), whole(Action::Mask)), ("{}".into(), "{\"a\":\"***\",\"b\":\"***\"}".into()));
    let nulls = rules(&[("/details/a/*", Action::Drop)]);
    assert_eq!(details(&nulls, "{\"a\":[1,2]}"), "{\"a\":[null,null]}");
}

#[test]
fn the_shallowest_match_counts_then_the_first() {
    let redaction = rules(&[
        ("/details/a/b", Action::Drop),
        ("/details/a", Action::Mask),
        ("/details/c", Action::Drop),
        ("/**/c", Action::Mask),
    ]);
    assert_eq!(
        details(&redaction, "{\"a\":{\"b\":1},\"c\":1,\"d\":{\"c\":1}}"),
        "{\"a\":\"***\",\"d\":{\"c\":\"***\"}}"
    );
}

#[test]
fn rules_that_would_do_harm_are_refused() {
    let refused = |path: &str| Redaction::builder().rule(path, Action::Mask).build().unwrap_err();
    for path in ["/**", "/*", "/entity_id", "/**/entity_id", "/tenant_id/**", "/**/tenant_id", "/entity_type"] {
        assert!(matches!(refused(path), RuleError::ReachesKept { .. }), "{path}");
    }
    for path in ["/email", "/actor/mail", "/ip/x", "/customer/email"] {
        assert!(matches!(refused(path), RuleError::Nowhere { .. }), "{path}");
    }
    assert!(matches!(refused("ip"), RuleError::NotAPath { .. }));
    for path in ["/**/id", "/changes/entity_id", "/changes/**", "/actor", "/*/email"] {
        Redaction::builder().rule(path, Action::Mask).build().unwrap();
    }
    let no_key = Redaction::builder().rule("/ip", Action::Hmac).build().unwrap_err();
    assert_eq!(no_key, RuleError::NoKey { path: "/ip".into() });
    let short = Redaction::builder().key(HmacKey::new("fifteen bytes..")).build().unwrap_err();
    assert_eq!(short, RuleError::ShortKey);
    let shown = format!("{:?}", rules(&[("/ip", Action::Hmac)]));
    assert!(!shown.contains("0123456789abcdef") && !shown.contains("48, 49"), "{shown}");
}

#[test]
fn what_grows_or_can_not_be_seen_through_stays_sendable() {
    let redaction = rules(&[("/details/a/*", Action::Hmac), ("/changes/**/x", Action::Hmac)]);
    let many = format!("{{\"a\":[{}1]}}", "1,".repeat(100_000));
    assert_eq!(details(&redaction, &many), "{\"redacted\":true}");
    let mut event = event();
    event.changes = vec![Change { path: "/x".into(), old: Some("1".into()), new: Some("2".into()) }; 10_000];
    event.changes.push(Change { path: "/y".into(), old: None, new: Some("3".into()) });
    event.changes.rotate_right(1);
    event.changes.truncate(10_000);
    for change in &mut event.changes {
        change.path.push_str(&"/x".repeat(20));
    }
    event.validate().unwrap();
    redaction.apply(&mut event);
    event.validate().unwrap();
    assert!(event.changes.len() < 10_000 && event.details.contains("changes_cut"), "{}", event.details);

    // Too deep to be seen through, but only where a rule could match.
    let deep = format!("{{\"a\":{}\"x\"{}}}", "[".repeat(1_000), "]".repeat(1_000));
    let everywhere = rules(&[("/details/**/x", Action::Drop)]);
    let redacted = details(&everywhere, &deep);
    assert!(redacted.contains("***") && redacted.len() < 500, "{redacted}");
    assert_eq!(details(&rules(&[("/details/b/x", Action::Drop)]), &deep), deep);
}

proptest! {
    /// Wherever a secret stands under its name, it does not leave.
    #[test]
    fn a_named_value_never_leaves(
        above in prop::collection::vec("[ab/~*0]{0,3}", 0..5),
        cut in 0_usize..5,
        in_array: bool,
    ) {
        let redaction = rules(&[("/**/secret", Action::Hmac)]);
        let mut value = "{\"secret\":[\"hidden\"]}".to_owned();
        let cut = cut.min(above.len());
        for name in above[cut..].iter().rev() {
            value = format!("{{{}:{value}}}", serde_json::to_string(name).unwrap());
            if in_array {
                value = format!("[0, {value}]");
            }
        }
        let path: String = above[..cut].iter().map(|s| format!("/{}", s.replace('~', "~0").replace('/', "~1"))).collect();
        let mut event = event();
        event.details = format!("{{\"in\":{value}}}");
        event.changes = vec![Change { path, old: Some(value.clone()), new: Some(value) }];
        redaction.apply(&mut event);
        event.validate().unwrap();
        let shown = format!("{event:?}");
        prop_assert!(!shown.contains("hidden"));
        prop_assert!(event.details.contains("hmac:"));
    }
}
