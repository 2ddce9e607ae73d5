//! The compatibility checker: each rule at its place, and the same verdict as apache-avro's on schemas that chance makes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use auditstream_schemas::compatibility::incompatibilities;
use auditstream_schemas::gate::{Carrier, Named, compare_with};
use auditstream_schemas::{AUDIT_EVENT_V1, SchemaError};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value as Json, json};

/// `PATH RULE` of each problem.
fn problems(reader: &Json, writer: &Json) -> Vec<String> {
    let found = incompatibilities(&reader.to_string(), &writer.to_string()).unwrap();
    found.into_iter().map(|problem| format!("{} {}", problem.path, problem.rule.as_str())).collect()
}

fn v1() -> Json {
    serde_json::from_str(AUDIT_EVENT_V1).unwrap()
}

fn field<'a>(schema: &'a mut Json, name: &str) -> &'a mut Json {
    schema["fields"].as_array_mut().unwrap().iter_mut().find(|field| field["name"] == name).unwrap()
}

/// v1 after a change.
fn changed(change: impl FnOnce(&mut Json)) -> Json {
    let mut schema = v1();
    change(&mut schema);
    schema
}

#[test]
fn each_change_of_the_event_is_judged_in_both_directions() {
    let add = |new: Json| changed(|schema| schema["fields"].as_array_mut().unwrap().push(new));
    let remove = |name: &'static str| {
        changed(|schema| schema["fields"].as_array_mut().unwrap().retain(|field| field["name"] != name))
    };
    let kind =
        |symbols: Json| changed(|schema| field(schema, "actor")["type"]["fields"][0]["type"]["symbols"] = symbols);
    let with_type = |name: &'static str, to: Json| changed(|schema| field(schema, name)["type"] = to);
    let renamed = |aliases: Json| {
        changed(|schema| {
            let field = field(schema, "service");
            field["name"] = "source".into();
            field["aliases"] = aliases;
        })
    };
    // (what changed, new schema, what the new one can't read of v1, what v1 can't read of the new one)
    let cases: Vec<(&str, Json, &[&str], &[&str])> = vec![
        ("nothing", v1(), &[], &[]),
        ("a field with a default", add(json!({"name": "zone", "type": "string", "default": ""})), &[], &[]),
        (
            "a field without a default",
            add(json!({"name": "zone", "type": "string"})),
            &["/fields/zone READER_FIELD_MISSING_DEFAULT_VALUE"],
            &[],
        ),
        ("a field with a default removed", remove("ip"), &[], &[]),
        ("a needed field removed", remove("action"), &[], &["/fields/action READER_FIELD_MISSING_DEFAULT_VALUE"]),
        (
            "a symbol more",
            kind(json!(["USER", "SERVICE", "API_KEY", "SYSTEM", "ANONYMOUS", "ROBOT"])),
            &[],
            &["/fields/actor/kind MISSING_ENUM_SYMBOLS"],
        ),
        (
            "a symbol less",
            kind(json!(["USER", "SERVICE", "API_KEY", "SYSTEM"])),
            &["/fields/actor/kind MISSING_ENUM_SYMBOLS"],
            &[],
        ),
        (
            "a symbol of an enum with a default",
            changed(|schema| field(schema, "operation")["type"]["symbols"] = json!(["CREATE", "MERGE", "OTHER"])),
            &[],
            &[],
        ),
        (
            "text to number",
            with_type("action", json!("long")),
            &["/fields/action TYPE_MISMATCH"],
            &["/fields/action TYPE_MISMATCH"],
        ),
        ("text to bytes", with_type("action", json!("bytes")), &[], &[]),
        (
            "text to nullable text",
            with_type("action", json!(["null", "string"])),
            &[],
            &["/fields/action TYPE_MISMATCH"],
        ),
        (
            "another branch",
            with_type("ip", json!(["null", "string", "long"])),
            &[],
            &["/fields/ip MISSING_UNION_BRANCH"],
        ),
        (
            "the null branch gone",
            changed(|schema| *field(schema, "ip") = json!({"name": "ip", "type": "string", "default": ""})),
            &["/fields/ip TYPE_MISMATCH"],
            &[],
        ),
        (
            "another unit of time",
            with_type("occurred_at", json!({"type": "long", "logicalType": "timestamp-millis"})),
            &["/fields/occurred_at LOGICAL_TYPE_MISMATCH"],
            &["/fields/occurred_at LOGICAL_TYPE_MISMATCH"],
        ),
        (
            "a name changed, with an alias",
            renamed(json!(["service"])),
            &[],
            &["/fields/service READER_FIELD_MISSING_DEFAULT_VALUE"],
        ),
        (
            "a name changed, without one",
            renamed(json!([])),
            &["/fields/source READER_FIELD_MISSING_DEFAULT_VALUE"],
            &["/fields/service READER_FIELD_MISSING_DEFAULT_VALUE"],
        ),
        (
            "inside of an array",
            changed(|schema| field(schema, "changes")["type"]["items"]["fields"][0]["type"] = "int".into()),
            &["/fields/changes/items/path TYPE_MISMATCH"],
            &["/fields/changes/items/path TYPE_MISMATCH"],
        ),
        (
            "the type's name",
            changed(|schema| field(schema, "actor")["type"]["name"] = "Who".into()),
            &["/fields/actor NAME_MISMATCH"],
            &["/fields/actor NAME_MISMATCH"],
        ),
        (
            "the type's name, with an alias",
            changed(|schema| {
                let actor = &mut field(schema, "actor")["type"];
                actor["name"] = "Who".into();
                actor["aliases"] = json!(["Actor"]);
            }),
            &[],
            &["/fields/actor NAME_MISMATCH"],
        ),
    ];
    for (what, new, backward, forward) in cases {
        assert_eq!(problems(&new, &v1()), backward, "{what}: the new one reads v1");
        assert_eq!(problems(&v1(), &new), forward, "{what}: v1 reads the new one");
    }
}

#[test]
fn every_problem_is_named_with_what_the_two_sides_have() {
    let new = changed(|schema| {
        field(schema, "tenant_id")["type"] = "long".into();
        field(schema, "actor")["type"]["fields"][0]["type"]["symbols"] = json!(["USER"]);
        schema["fields"].as_array_mut().unwrap().push(json!({"name": "zone", "type": "string"}));
    });
    let found = incompatibilities(&new.to_string(), AUDIT_EVENT_V1).unwrap();
    let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "/fields/tenant_id TYPE_MISMATCH: the writer has string, the reader long",
            "/fields/actor/kind MISSING_ENUM_SYMBOLS: the reader's enum has neither SERVICE, API_KEY, SYSTEM, ANONYMOUS nor a default",
            "/fields/zone READER_FIELD_MISSING_DEFAULT_VALUE: the writer has no field zone, and the reader's has no default",
        ]
    );
    assert!(matches!(incompatibilities("{}", AUDIT_EVENT_V1), Err(SchemaError::Parse(_))));
}

#[test]
fn fixed_maps_decimals_and_unions_of_records() {
    let record = |kind: Json| json!({"type": "record", "name": "R", "fields": [{"name": "x", "type": kind}]});
    let fixed = |size: u32| json!({"type": "fixed", "name": "F", "size": size});
    let decimal = |scale: u32| json!({"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": scale});
    let map = |values: Json| json!({"type": "map", "values": values});
    let part = |kind: &str| json!({"type": "record", "name": "Part", "fields": [{"name": "n", "type": kind}]});
    let cases = [
        (fixed(4), fixed(8), vec!["/fields/x FIXED_SIZE_MISMATCH"]),
        (decimal(2), decimal(3), vec!["/fields/x LOGICAL_TYPE_MISMATCH"]),
        (decimal(2), json!("bytes"), vec![]),
        (map(json!("long")), map(json!("int")), vec![]),
        (map(json!("int")), map(json!("long")), vec!["/fields/x/values TYPE_MISMATCH"]),
        (json!(["null", part("long")]), json!(["null", part("int")]), vec![]),
        // The branch is there: what is wrong is named inside of it.
        (json!(["null", part("int")]), json!(["null", part("string")]), vec!["/fields/x/n TYPE_MISMATCH"]),
        (json!(["null", "double"]), json!("int"), vec![]),
        (json!(["null", "int"]), json!("double"), vec!["/fields/x MISSING_UNION_BRANCH"]),
    ];
    for (reader, writer, expected) in cases {
        assert_eq!(problems(&record(reader.clone()), &record(writer.clone())), expected, "{reader} reads {writer}");
    }
}

#[test]
fn recursive_types_end_and_the_fault_inside_is_found() {
    let tree = |kind: &str| {
        json!({"type": "record", "name": "Tree", "fields": [
            {"name": "value", "type": kind},
            {"name": "children", "type": {"type": "array", "items": "Tree"}},
            {"name": "next", "type": ["null", "Tree"], "default": null}]})
    };
    assert!(problems(&tree("long"), &tree("int")).is_empty());
    assert_eq!(problems(&tree("int"), &tree("long"))[0], "/fields/value TYPE_MISMATCH");
    // Two types that need each other, the fault in the second: what was assumed of the first while it was under way must not stand.
    let pair = |kind: &str| {
        json!({"type": "record", "name": "A", "fields": [
            {"name": "b", "type": ["null", {"type": "record", "name": "B", "fields": [
                {"name": "a", "type": ["null", "A"]}, {"name": "n", "type": kind}]}]},
            {"name": "again", "type": ["null", "B"]}]})
    };
    assert_eq!(problems(&pair("int"), &pair("string")), ["/fields/b/n TYPE_MISMATCH", "/fields/again/n TYPE_MISMATCH"]);
}

#[test]
fn schemas_made_to_take_long_end_soon() {
    // Each level has a union of records that all fit only at the very end: tried one by one, that doubles with each level.
    let level = |side: &str| {
        let mut inner = json!(if side == "reader" { "int" } else { "string" });
        for level in 0..24 {
            let branches: Vec<Json> = (0..3)
                .map(|branch| {
                    let name = format!("L{level}B{branch}");
                    let again = if branch == 0 { inner.clone() } else { json!(format!("L{level}B0")) };
                    json!({"type": "record", "name": name, "fields": [{"name": "x", "type": again}]})
                })
                .collect();
            inner = Json::Array(branches);
        }
        json!({"type": "record", "name": "Top", "fields": [{"name": "x", "type": inner}]})
    };
    let started = Instant::now();
    assert!(!problems(&level("reader"), &level("writer")).is_empty());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

/// Records that refer to each other in a circle, `length` of them. The fields that hold the definitions are not in the other schema, so only `x` is
/// compared.
fn circle(side: &str, length: usize) -> Json {
    let mut fields: Vec<Json> = (1..length)
        .map(|number| {
            let next = if number == 1 { "Top".to_owned() } else { format!("R{}", number - 1) };
            let record =
                json!({"type": "record", "name": format!("R{number}"), "fields": [{"name": "x", "type": next}]});
            json!({"name": format!("{side}{number}"), "type": ["null", record], "default": null})
        })
        .collect();
    fields.push(json!({"name": "x", "type": format!("R{}", length - 1)}));
    json!({"type": "record", "name": "Top", "fields": fields})
}

#[test]
fn circles_of_types_do_not_use_up_the_stack() {
    // They are at their start together after 300 * 299 pairs, each inside of the one before.
    let compared = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(|| incompatibilities(&circle("reader", 300).to_string(), &circle("writer", 299).to_string()).unwrap());
    let found = compared.unwrap().join().unwrap();
    assert!(found.iter().any(|problem| problem.message.contains("too complex to compare")), "{found:?}");
    // Small ones have a verdict.
    let small = problems(&circle("reader", 5), &circle("writer", 4));
    assert!(!small.is_empty() && small.iter().all(|problem| problem.ends_with("NAME_MISMATCH")), "{small:?}");
}

/// A type: primitives, and of named ones each once, so that none comes by reference.
fn any_type() -> impl Strategy<Value = Json> {
    let primitive = prop::sample::select(vec!["null", "boolean", "int", "long", "float", "double", "bytes", "string"]);
    let leaf = prop_oneof![
        4 => primitive.prop_map(Json::from),
        1 => (1_u32..3).prop_map(|size| json!({"type": "fixed", "name": "F", "size": size})),
        1 => (prop::sample::subsequence(vec!["A", "B", "C"], 1..=3), any::<bool>()).prop_map(|(symbols, default)| {
            let mut schema = json!({"type": "enum", "name": "E", "symbols": symbols});
            if default {
                schema["default"] = schema["symbols"][0].clone();
            }
            schema
        }),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let field = |name: &'static str, kind: Json, default: bool| {
            let mut field = json!({"name": name, "type": kind});
            // A default that fits any type is none: only its being there counts, so fields with one are null.
            if default {
                field = json!({"name": name, "type": ["null", "long"], "default": null});
            }
            field
        };
        prop_oneof![
            inner.clone().prop_map(|items| json!({"type": "array", "items": items})),
            inner.clone().prop_map(|values| json!({"type": "map", "values": values})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(Json::Array),
            prop::collection::vec((prop::sample::select(vec!["a", "b", "c"]), inner, any::<bool>()), 0..3).prop_map(
                move |fields| {
                    let mut seen = Vec::new();
                    let fields: Vec<Json> = fields
                        .into_iter()
                        .filter(|(name, ..)| {
                            if seen.contains(name) {
                                false
                            } else {
                                seen.push(*name);
                                true
                            }
                        })
                        .map(|(name, kind, default)| field(name, kind, default))
                        .collect();
                    json!({"type": "record", "name": "R", "fields": fields})
                }
            ),
        ]
    })
}

#[test]
fn the_verdict_is_apache_avros() {
    let mut runner = TestRunner::new(Config { cases: 20_000, max_global_rejects: 200_000, ..Config::default() });
    let (mut compatible, mut not) = (0, 0);
    runner
        .run(&(any_type(), any_type()), |(reader, writer)| {
            let parse = |json: &Json| Schema::parse_str(&json.to_string());
            // Unions in unions, and names that are there twice, are no schemas.
            let (Ok(reader_schema), Ok(writer_schema)) = (parse(&reader), parse(&writer)) else {
                return Err(TestCaseError::reject("no schema"));
            };
            let theirs = SchemaCompatibility::can_read(&writer_schema, &reader_schema) == Ok(Compatibility::Full);
            let Ok(found) = incompatibilities(&reader.to_string(), &writer.to_string()) else {
                return Err(TestCaseError::reject("a name twice"));
            };
            prop_assert_eq!(found.is_empty(), theirs, "reader {} writer {} {:?}", reader, writer, found);
            Ok(())
        })
        .unwrap();
    // That both verdicts come up, counted on the same kind of schemas.
    for _ in 0..2_000 {
        let mut draw = || any_type().new_tree(&mut runner).unwrap().current();
        let (reader, writer) = (draw(), draw());
        if let Ok(found) = incompatibilities(&reader.to_string(), &writer.to_string()) {
            *(if found.is_empty() { &mut compatible } else { &mut not }) += 1;
        }
    }
    assert!(compatible > 50 && not > 50, "{compatible} compatible, {not} not");
}

/// `DIRECTION PATH RULE` of each problem with custom fields.
fn custom(old: Json, new: Json) -> Vec<String> {
    let record =
        |kind: Json| json!({"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]}).to_string();
    let earlier = [Named { name: "old".to_owned(), json: record(old) }];
    let found = compare_with(&record(new), &earlier, Carrier::Json).unwrap();
    let problems =
        found.iter().flat_map(|comparison| comparison.problems.iter().map(move |p| (comparison.direction, p)));
    problems.map(|(direction, p)| format!("{} {} {}", direction.as_str(), p.path, p.rule.as_str())).collect()
}

#[test]
fn custom_fields_are_judged_as_json_too() {
    const FORM: [&str; 2] = ["backward /fields/f JSON_FORM_MISMATCH", "forward /fields/f JSON_FORM_MISMATCH"];
    let logical = |base: &str, logical: &str| json!({"type": base, "logicalType": logical});
    // Either way around: what one reads of the other, it can't in the other direction.
    for (old, new) in [
        (json!("bytes"), json!("string")),
        (json!("long"), logical("long", "timestamp-micros")),
        (json!("int"), logical("int", "date")),
        (json!("bytes"), json!({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2})),
        (json!(["null", "bytes"]), json!(["null", "string"])),
    ] {
        let expected: Vec<String> = FORM.iter().map(|line| (*line).to_owned()).collect();
        let branches = old.is_array();
        let found = custom(old.clone(), new.clone());
        if branches {
            assert!(found.iter().all(|line| line.contains("/fields/f ")) && found.len() == 2, "{old} {new}: {found:?}");
        } else {
            assert_eq!(found, expected, "{old} to {new}");
        }
    }
    assert_eq!(custom(json!("string"), logical("string", "uuid")), FORM[..1]);
    assert_eq!(custom(logical("string", "uuid"), json!("string")), FORM[1..]);
    // A bare value and one with its branch's name.
    for (old, new) in
        [(json!(["null", "string"]), json!(["null", "string", "long"])), (json!("string"), json!(["string", "long"]))]
    {
        assert_eq!(custom(old.clone(), new.clone())[0], FORM[0], "{old} to {new}");
    }
    assert_eq!(custom(json!(["int", "string"]), json!(["long", "string"]))[0], FORM[0], "a branch of another name");
    for (old, new) in [
        (json!("string"), json!(["null", "string"])),
        (json!("int"), json!("long")),
        (json!("float"), json!("double")),
        (json!(["null", "string", "long"]), json!(["long", "null", "string", "boolean"])),
        (logical("long", "timestamp-micros"), logical("long", "timestamp-micros")),
    ] {
        let backward: Vec<_> = custom(old.clone(), new.clone()).into_iter().filter(|p| p.starts_with("back")).collect();
        assert!(backward.is_empty(), "{old} to {new}: {backward:?}");
    }
    let inside = |kind: &str| json!({"type": "array", "items": {"type": "record", "name": "L", "fields": [{"name": "sku", "type": kind}]}});
    assert_eq!(custom(inside("bytes"), inside("string"))[0], "backward /fields/f/items/sku JSON_FORM_MISMATCH");
}

#[test]
fn an_alias_renames_nothing_in_json() {
    let record = |field: Json| json!({"type": "record", "name": "R", "fields": [field]}).to_string();
    let old = record(json!({"name": "amount", "type": "long", "default": 0}));
    let new = record(json!({"name": "total", "type": "long", "default": 0, "aliases": ["amount"]}));
    let earlier = [Named { name: "old".to_owned(), json: old }];
    let of = |carrier| compare_with(&new, &earlier, carrier).unwrap().remove(0).problems;
    assert_eq!(of(Carrier::Avro), []);
    assert_eq!(
        of(Carrier::Json).remove(0).to_string(),
        "/fields/total JSON_KEY_MISMATCH: the writer's JSON has the key amount, and an alias means nothing there"
    );
}
