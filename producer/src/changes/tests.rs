#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says so by failing")]

use std::collections::HashMap;

use proptest::prelude::*;
use serde::Serializer;
use serde_json::{Value, json};

use super::*;

fn list(changes: &Changes) -> Vec<(&str, Option<&str>, Option<&str>)> {
    changes.list.iter().map(|c| (c.path.as_str(), c.old.as_deref(), c.new.as_deref())).collect()
}

#[test]
fn paths_go_to_the_smallest_thing() {
    let old = json!({"a": 1, "items": [{"price": 5, "n": 1}, {"price": 6}, 3, 4], "gone": {"x": 1}, "same": [1]});
    let new = json!({"a": 1, "items": [{"price": 7, "n": 1}, "text"], "came": null, "same": [1]});
    let expected = [
        ("/came", None, Some("null")),
        ("/gone", Some("{\"x\":1}"), None),
        ("/items/0/price", Some("5"), Some("7")),
        ("/items/1", Some("{\"price\":6}"), Some("\"text\"")),
        ("/items/3", Some("4"), None),
        ("/items/2", Some("3"), None),
    ];
    assert_eq!(list(&diff(&old, &new).unwrap()), expected);
    assert!(diff(&old, &old).unwrap().is_empty());
    assert_eq!(
        list(&diff(&json!([1]), &json!([1, 2, [3]])).unwrap()),
        [("/1", None, Some("2")), ("/2", None, Some("[3]"))]
    );
    let odd = json!({"a/b": {"~": {"": 1}}});
    assert_eq!(list(&diff(&odd, &json!({"a/b": {"~": {"": 2}}})).unwrap()), [("/a~1b/~0/", Some("1"), Some("2"))]);
    assert_eq!(list(&diff(&1, &"x").unwrap()), [("", Some("1"), Some("\"x\""))]);
    assert_eq!(list(&created(&json!({"a": 1, "b": []})).unwrap()), [("/a", None, Some("1")), ("/b", None, Some("[]"))]);
    assert_eq!(list(&deleted(&json!({"a": 1})).unwrap()), [("/a", Some("1"), None)]);
    assert_eq!(list(&created(&[1]).unwrap()), [("", None, Some("[1]"))]);
}

#[test]
fn numbers_keep_their_digits() {
    let old = (u64::MAX, i128::MIN, 0.1_f32, 1e300, f64::NAN, 9_007_199_254_740_993_i64);
    let new = (u64::MAX - 1, i128::MAX, 0.2_f32, 0.30000000000000004, 1.0, 9_007_199_254_740_992_i64);
    let expected = [
        ("/0", Some("18446744073709551615"), Some("18446744073709551614")),
        ("/1", Some("-170141183460469231731687303715884105728"), Some("170141183460469231731687303715884105727")),
        ("/2", Some("0.1"), Some("0.2")),
        ("/3", Some("1e+300"), Some("0.30000000000000004")),
        ("/4", Some("null"), Some("1.0")),
        ("/5", Some("9007199254740993"), Some("9007199254740992")),
    ];
    let changes = diff(&old, &new).unwrap();
    let found = list(&changes);
    assert_eq!(found[3].1.unwrap().parse::<f64>(), Ok(1e300));
    assert_eq!(found[..3], expected[..3]);
    assert_eq!((found[3].2, &found[4..]), (expected[3].2, &expected[4..]));
}

#[test]
fn the_order_of_a_map_is_no_change() {
    let names: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let old: HashMap<&String, u32> = names.iter().map(|name| (name, 1)).collect();
    let new: HashMap<&String, u32> = names.iter().rev().map(|name| (name, 1)).collect();
    assert!(diff(&[old], &[new]).unwrap().is_empty());
}

#[test]
fn bounds_hold_and_say_so() {
    let long = "x".repeat(100);
    let old = json!({"a": 1, "b": 1, "c": 1, "d": 1});
    let new = json!({"a": long, "b": 2, "c": 2, "d": 2});
    let limits = Limits { changes: 3, value_bytes: 50, ..Limits::default() };
    let changes = limits.diff(&old, &new).unwrap();
    assert_eq!(list(&changes)[0], ("/a", Some("1"), Some("\"[102 bytes]\"")));
    assert_eq!((changes.list.len(), changes.left_out, changes.shortened), (3, 1, 1));
    assert!(changes.is_cut());
    for (details, expected) in [
        ("{}", "{\"changes_cut\":{\"left_out\":1,\"shortened\":1}}"),
        (" { } ", "{\"changes_cut\":{\"left_out\":1,\"shortened\":1}}"),
        ("{\"k\":1}", "{\"changes_cut\":{\"left_out\":1,\"shortened\":1},\"k\":1}"),
    ] {
        let builder = AuditEvent::builder("acme", "shop", "order.update", "order", "42").details(details);
        let event = builder.with(|event| changes.clone().write_to(event)).build().unwrap();
        assert_eq!((event.details.as_str(), event.changes.len()), (expected, 3));
    }
    let total = Limits { total_bytes: 8, ..Limits::default() }.diff(&old, &new).unwrap();
    assert_eq!(list(&total), [("/b", Some("1"), Some("2")), ("/c", Some("1"), Some("2"))]);
    assert_eq!((total.left_out, total.shortened), (2, 0));

    // The default bounds give an event that can be sent, whatever the values are.
    let large = json!((0..200).map(|n| "y".repeat(n * 500)).collect::<Vec<_>>());
    let changes = diff(&json!([]), &large).unwrap();
    let builder = AuditEvent::builder("acme", "shop", "order.update", "order", "42");
    builder.with(|event| changes.write_to(event)).build().unwrap();
}

#[test]
fn what_is_no_json_is_an_error_that_shows_nothing() {
    struct Fails;
    impl Serialize for Fails {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("secret"))
        }
    }
    let error = diff(&1, &Fails).unwrap_err();
    assert_eq!(error, DiffError::NotJson(Side::New));
    assert!(!format!("{error} {error:?}").contains("secret"));
    assert_eq!(diff(&HashMap::from([(vec![1], 1)]), &1), Err(DiffError::NotJson(Side::Old)));
    let short = Limits { input_bytes: 10, ..Limits::default() };
    assert_eq!(short.diff(&1, &"x".repeat(9)), Err(DiffError::TooLong(Side::New, 10)));
    assert!(short.diff(&1, &"x".repeat(8)).is_ok());

    struct Nested(usize);
    impl Serialize for Nested {
        fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            if self.0 == 0 { s.serialize_unit() } else { s.collect_seq([Nested(self.0 - 1)]) }
        }
    }
    assert!(diff(&1, &Nested(128)).is_ok());
    assert_eq!(diff(&1, &Nested(129)), Err(DiffError::TooDeep(Side::New)));
    assert_eq!(diff(&1, &Nested(usize::MAX)), Err(DiffError::TooDeep(Side::New)));

    // A raw value is not walked by the serializer.
    let raw = |end: &str| {
        serde_json::value::RawValue::from_string(format!("{}{end}{}", "[".repeat(5_000), "]".repeat(5_000))).unwrap()
    };
    let changes = diff(&raw("1"), &raw("2")).unwrap();
    assert_eq!(changes.list.len(), 1);
    assert_eq!(changes.list[0].path.len(), 2 * MAX_DEPTH);
}

/// Sets and removes in order, as the module's documentation promises.
fn apply(mut value: Value, changes: &Changes) -> Value {
    for change in &changes.list {
        let new = change.new.as_ref().map(|text| serde_json::from_str::<Value>(text).unwrap());
        let Some((parent, last)) = change.path.rsplit_once('/') else {
            assert_eq!(Some(&value), change.old.as_ref().map(|text| serde_json::from_str(text).unwrap()).as_ref());
            value = new.unwrap();
            continue;
        };
        let last = last.replace("~1", "/").replace("~0", "~");
        let found = match value.pointer_mut(parent).unwrap() {
            Value::Object(members) => match new {
                Some(new) => members.insert(last, new),
                None => members.remove(&last),
            },
            Value::Array(elements) => {
                let index: usize = last.parse().unwrap();
                match new {
                    Some(new) if index == elements.len() => {
                        elements.push(new);
                        None
                    }
                    Some(new) => Some(std::mem::replace(&mut elements[index], new)),
                    None => {
                        assert_eq!(index + 1, elements.len());
                        elements.pop()
                    }
                }
            }
            other => panic!("{other}"),
        };
        assert_eq!(found, change.old.as_ref().map(|text| serde_json::from_str(text).unwrap()));
    }
    value
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[a~/\"é]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[ab~/0]{0,2}", inner, 0..4).prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn applying_the_difference_gives_the_new_value(old in json_values(), new in json_values()) {
        let changes = diff(&old, &new).unwrap();
        prop_assert_eq!(apply(old.clone(), &changes), new.clone());
        prop_assert_eq!(changes.is_empty(), old == new);
        let mut paths: Vec<_> = changes.list.iter().map(|change| &change.path).collect();
        paths.sort();
        paths.dedup();
        prop_assert_eq!(paths.len(), changes.list.len());
    }
}
