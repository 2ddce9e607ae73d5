//! Custom fields: whatever a schema allows comes back from `details` equal, and what does not fit is named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;

use apache_avro::schema::{InnerDecimalSchema, Name, ResolvedSchema};
use apache_avro::types::Value;
use apache_avro::{Decimal, Schema};
use auditstream_schemas::AuditEvent;
use auditstream_schemas::custom::{CustomSchema, CustomSchemaError, mark_of};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::Serialize;
use serde_json::{Value as Json, json};

const MARK: &str = "order-details:7";

/// Gives each named type a name of its own.
fn rename(json: &mut Json, next: &mut u32) {
    match json {
        Json::Object(object) => {
            let named =
                object.get("type").and_then(Json::as_str).is_some_and(|t| matches!(t, "record" | "enum" | "fixed"));
            if named {
                *next += 1;
                object.insert("name".to_owned(), format!("T{next}").into());
            }
            object.values_mut().for_each(|value| rename(value, next));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| rename(item, next)),
        _ => {}
    }
}

fn any_type() -> impl Strategy<Value = Json> {
    let logical = |base: &str, name: &str| json!({"type": base, "logicalType": name});
    let simple = vec![
        json!("boolean"),
        json!("int"),
        json!("long"),
        json!("float"),
        json!("double"),
        json!("bytes"),
        json!("string"),
        logical("string", "uuid"),
        logical("int", "date"),
        logical("int", "time-millis"),
        logical("long", "time-micros"),
        logical("long", "timestamp-millis"),
        logical("long", "timestamp-micros"),
        logical("long", "timestamp-nanos"),
        logical("long", "local-timestamp-millis"),
        logical("long", "local-timestamp-micros"),
        json!({"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 4}),
        json!({"type": "fixed", "name": "x", "size": 9, "logicalType": "decimal", "precision": 20, "scale": 0}),
        json!({"type": "fixed", "name": "x", "size": 5}),
        json!({"type": "fixed", "name": "x", "size": 16, "logicalType": "uuid"}),
        json!({"type": "enum", "name": "x", "symbols": ["A", "B", "C"]}),
    ];
    prop::sample::select(simple).prop_recursive(3, 20, 3, |inner| {
        let nullable = (inner.clone(), any::<bool>())
            .prop_map(|(kind, first)| if first { json!(["null", kind]) } else { json!([kind, "null"]) });
        prop_oneof![
            nullable,
            prop::collection::vec(inner.clone(), 1..4).prop_map(Json::Array),
            inner.clone().prop_map(|items| json!({"type": "array", "items": items})),
            inner.clone().prop_map(|values| json!({"type": "map", "values": values})),
            prop::collection::vec(inner, 1..4).prop_map(|kinds| record(&kinds)),
        ]
    })
}

fn record(kinds: &[Json]) -> Json {
    let fields: Vec<Json> =
        kinds.iter().enumerate().map(|(at, kind)| json!({"name": format!("f{at}"), "type": kind})).collect();
    json!({"type": "record", "name": "x", "fields": fields})
}

type Names = HashMap<Name, Schema>;

fn names_of(schema: &Schema) -> Names {
    let resolved = ResolvedSchema::new(schema).unwrap();
    resolved.get_names().iter().map(|(name, schema)| (name.clone(), (*schema).clone())).collect()
}

/// Any value of a schema, in Avro's exact form; named types are referred to `depth` times in each other.
fn value_of(schema: &Schema, names: &Names, depth: u32) -> BoxedStrategy<Value> {
    // Years 1 to 9998, in seconds.
    let seconds = -62_135_596_800_i64..253_370_764_800;
    match schema {
        Schema::Ref { name } => value_of(&names[name], names, depth.saturating_sub(1)),
        Schema::Null => Just(Value::Null).boxed(),
        Schema::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        Schema::Int => any::<i32>().prop_map(Value::Int).boxed(),
        Schema::Long => any::<i64>().prop_map(Value::Long).boxed(),
        Schema::Float => any::<f32>().prop_filter("NaN", |n| !n.is_nan()).prop_map(Value::Float).boxed(),
        Schema::Double => any::<f64>().prop_filter("NaN", |n| !n.is_nan()).prop_map(Value::Double).boxed(),
        Schema::Bytes => any::<Vec<u8>>().prop_map(Value::Bytes).boxed(),
        Schema::String => any::<String>().prop_map(Value::String).boxed(),
        Schema::Uuid(_) => any::<u128>().prop_map(|n| Value::Uuid(uuid::Uuid::from_u128(n))).boxed(),
        Schema::Date => (-719_162..2_932_530).prop_map(Value::Date).boxed(),
        Schema::TimeMillis => (0..86_400_000).prop_map(Value::TimeMillis).boxed(),
        Schema::TimeMicros => (0..86_400_000_000_i64).prop_map(Value::TimeMicros).boxed(),
        Schema::TimestampMillis => {
            (seconds, 0..1_000_i64).prop_map(|(s, f)| Value::TimestampMillis(s * 1_000 + f)).boxed()
        }
        Schema::TimestampMicros => {
            (seconds, 0..1_000_000_i64).prop_map(|(s, f)| Value::TimestampMicros(s * 1_000_000 + f)).boxed()
        }
        Schema::TimestampNanos => any::<i64>().prop_map(Value::TimestampNanos).boxed(),
        Schema::LocalTimestampMillis => {
            (seconds, 0..1_000_i64).prop_map(|(s, f)| Value::LocalTimestampMillis(s * 1_000 + f)).boxed()
        }
        Schema::LocalTimestampMicros => {
            (seconds, 0..1_000_000_i64).prop_map(|(s, f)| Value::LocalTimestampMicros(s * 1_000_000 + f)).boxed()
        }
        Schema::Decimal(decimal) => {
            let bound = 10_i128.pow(u32::try_from(decimal.precision).unwrap()) - 1;
            let bound = match &decimal.inner {
                InnerDecimalSchema::Fixed(fixed) => bound.min((1 << (fixed.size * 8 - 1)) - 1),
                InnerDecimalSchema::Bytes => bound,
            };
            (-bound..=bound).prop_map(|n| Value::Decimal(Decimal::from(n.to_be_bytes()))).boxed()
        }
        Schema::Fixed(fixed) => {
            let size = fixed.size;
            prop::collection::vec(any::<u8>(), size).prop_map(move |bytes| Value::Fixed(size, bytes)).boxed()
        }
        Schema::Enum(of) => {
            let symbols: Vec<_> = of.symbols.iter().cloned().enumerate().collect();
            prop::sample::select(symbols)
                .prop_map(|(at, symbol)| Value::Enum(u32::try_from(at).unwrap(), symbol))
                .boxed()
        }
        Schema::Array(array) => {
            prop::collection::vec(value_of(&array.items, names, depth), 0..4).prop_map(Value::Array).boxed()
        }
        Schema::Map(map) => prop::collection::hash_map(any::<String>(), value_of(&map.types, names, depth), 0..4)
            .prop_map(Value::Map)
            .boxed(),
        Schema::Union(union) => {
            let branches = union.variants().iter().enumerate();
            let branches = branches.filter(|(_, branch)| depth > 0 || !matches!(branch, Schema::Ref { .. }));
            let branches = branches.map(|(at, branch)| {
                value_of(branch, names, depth)
                    .prop_map(move |value| Value::Union(u32::try_from(at).unwrap(), Box::new(value)))
                    .boxed()
            });
            proptest::strategy::Union::new(branches.collect::<Vec<_>>()).boxed()
        }
        Schema::Record(record) => record
            .fields
            .iter()
            .map(|field| {
                let name = field.name.clone();
                value_of(&field.schema, names, depth).prop_map(move |value| (name.clone(), value)).boxed()
            })
            .collect::<Vec<_>>()
            .prop_map(Value::Record)
            .boxed(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whatever_a_schema_allows_comes_back_equal() {
    let schemas = prop::collection::vec(any_type(), 1..4).prop_map(|kinds| {
        let mut json = record(&kinds);
        rename(&mut json, &mut 0);
        json.to_string()
    });
    // Unions in unions and of two alike are refused, by Avro or by us.
    let usable = schemas.prop_filter_map("a schema", |json| Some((CustomSchema::parse(&json).ok()?, json)));
    let cases = usable.prop_flat_map(|(schema, json)| {
        let avro = Schema::parse_str(&json).unwrap();
        let values = value_of(&avro, &names_of(&avro), 0);
        (Just(schema), Just(json), values)
    });
    let config = Config { cases: 3_000, max_local_rejects: 1_000_000, ..Config::default() };
    TestRunner::new(config)
        .run(&cases, |(schema, json, value)| {
            let details = schema
                .details_of(MARK, &value)
                .map_err(|fault| TestCaseError::fail(format!("{json} {value:?} {fault}")))?;
            let back =
                schema.read(&details).map_err(|fault| TestCaseError::fail(format!("{json} {details} {fault}")))?;
            prop_assert_eq!(&back, &value, "{} {}", json, details);
            prop_assert_eq!(mark_of(&details), Some(("order-details".to_owned(), 7)));
            // What goes over the wire as an event's details.
            let event = AuditEvent::builder("t", "s", "a", "e", "1").details(details).build();
            prop_assert!(event.is_ok(), "{:?}", event);
            Ok(())
        })
        .unwrap();
}

#[derive(Serialize)]
enum Payment {
    #[serde(rename = "shop.Card")]
    Card { last_four: String },
    #[serde(rename = "string")]
    Voucher(String),
}

#[derive(Serialize)]
struct Order {
    id: u64,
    amount: &'static str,
    paid_at: Option<&'static str>,
    state: &'static str,
    payload: Vec<u8>,
    rate: f32,
    lines: Vec<Line>,
    payment: Payment,
    key: uuid::Uuid,
}

#[derive(Serialize)]
struct Line {
    sku: String,
    count: u8,
}

const ORDER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
    {"name":"id","type":"long"},
    {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":2}},
    {"name":"paid_at","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"default":null},
    {"name":"state","type":{"type":"enum","name":"State","symbols":["OPEN","PAID"]}},
    {"name":"payload","type":"bytes"},
    {"name":"rate","type":"double"},
    {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
        {"name":"sku","type":"string"},{"name":"count","type":"int"}]}}},
    {"name":"payment","type":["null",{"type":"record","name":"Card","fields":[{"name":"last_four","type":"string"}]},"string"]},
    {"name":"key","type":{"type":"string","logicalType":"uuid"}},
    {"name":"channel","type":"string","default":"web"}]}"#;

fn order() -> Order {
    Order {
        id: 9_007_199_254_740_993,
        amount: "1234567890123456.7",
        paid_at: Some("2026-11-21T21:35:48.1+01:00"),
        state: "PAID",
        payload: vec![0, 255],
        rate: 0.1,
        lines: vec![Line { sku: "a\"b".to_owned(), count: 3 }],
        payment: Payment::Voucher("v".to_owned()),
        key: uuid::Uuid::from_u128(1),
    }
}

#[test]
fn a_struct_is_written_as_the_table_says() {
    let schema = CustomSchema::parse(ORDER).unwrap();
    let details = schema.details(MARK, &order()).unwrap();
    let expected =
        r#"{"$schema":"order-details:7","amount":"1234567890123456.70","channel":"web","id":9007199254740993,"#
            .to_owned()
            + r#""key":"00000000-0000-0000-0000-000000000001","lines":[{"count":3,"sku":"a\"b"}],"paid_at":"2026-11-21T20:35:48.100000Z","#
            + r#""payload":"AP8=","payment":{"string":"v"},"rate":0.10000000149011612,"state":"PAID"}"#;
    assert_eq!(details, expected);
    let card = Order { payment: Payment::Card { last_four: "1234".to_owned() }, paid_at: None, ..order() };
    let details = schema.details(MARK, &card).unwrap();
    assert!(details.contains(r#""payment":{"shop.Card":{"last_four":"1234"}}"#), "{details}");
    assert!(details.contains(r#""paid_at":null"#), "{details}");
    // What the record gave back is written again the same.
    assert_eq!(schema.details_of(MARK, &schema.read(&details).unwrap()).unwrap(), details);
}

#[test]
fn what_does_not_fit_is_named_with_its_kind_and_not_with_its_value() {
    let schema = CustomSchema::parse(ORDER).unwrap();
    let mut cases: Vec<(&str, Json, &str)> = vec![
        (
            "amount",
            json!("12.345"),
            "amount: found text, expected a decimal as text, of at most 18 digits, 2 of them behind the point",
        ),
        ("amount", json!(12.5), "amount: found a floating-point number, expected a decimal as text"),
        ("amount", json!("12345678901234567.00"), "amount: found text, expected a decimal"),
        ("id", json!("1"), "id: found text, expected a whole number of 64 bits"),
        ("id", json!(u64::MAX), "id: found a whole number of 64 bits without sign"),
        ("state", json!("LOST"), "state: found text, expected one of OPEN, PAID"),
        ("paid_at", json!("2026-11-21T20:35:48.1234567Z"), "paid_at: found text, expected a time with its offset"),
        ("paid_at", json!("yesterday"), "paid_at: found text, expected a time"),
        (
            "lines",
            json!([{"sku": "x", "count": 1}, {"sku": "x", "count": 3_000_000_000_u32}]),
            "lines[1].count: found a whole number",
        ),
        ("lines", json!([{"sku": "x"}]), "lines[0].count: found nothing, expected a whole number of 32 bits"),
        ("colour", json!("hunter2"), "colour: found a field, expected none of that name in shop.Order"),
        ("key", json!("hunter2"), "key: found text, expected a uuid"),
        ("payment", json!(5), "payment: found a whole number, expected one of null, shop.Card, string"),
        ("rate", json!(9_007_199_254_740_993_i64), "rate: found a whole number, expected a number"),
    ];
    let mut good = json!({"id": 1, "amount": "1", "state": "OPEN", "payload": [1], "rate": 1, "lines": [], "payment": null,
        "key": "00000000-0000-0000-0000-000000000001"});
    schema.details(MARK, &good).unwrap();
    for (field, value, expected) in cases.drain(..) {
        let mut bad = good.clone();
        bad[field] = value;
        let fault = schema.details(MARK, &bad).unwrap_err().to_string();
        assert!(fault.starts_with(expected), "{fault}");
        assert!(!fault.contains("hunter2") && !fault.contains("12.3"), "{fault}");
    }
    good.as_object_mut().unwrap().remove("id");
    assert_eq!(
        schema.details(MARK, &good).unwrap_err().to_string(),
        "id: found nothing, expected a whole number of 64 bits"
    );
    assert_eq!(
        schema.details(MARK, &5).unwrap_err().to_string(),
        "the record: found a whole number, expected a record shop.Order"
    );
    assert_eq!(
        schema.read("{\"id\":\"1\"}").unwrap_err().to_string(),
        "id: found text, expected a whole number of 64 bits"
    );
    assert_eq!(schema.read("[]").unwrap_err().found, "an array");
}

#[test]
fn numbers_that_are_none_and_the_ends_of_time() {
    let one = |kind: &str| CustomSchema::parse(&record(&[serde_json::from_str(kind).unwrap()]).to_string()).unwrap();
    let details = |schema: &CustomSchema, value: Value| {
        schema.details_of(MARK, &Value::Record(vec![("f0".to_owned(), value)])).map_err(|fault| fault.to_string())
    };
    let doubles = one("\"double\"");
    for (number, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "Infinity"), (f64::NEG_INFINITY, "-Infinity")] {
        let text_of = details(&doubles, Value::Double(number)).unwrap();
        assert!(text_of.contains(&format!("\"f0\":\"{text}\"")), "{text_of}");
        let Value::Record(fields) = doubles.read(&text_of).unwrap() else { panic!() };
        let Value::Double(back) = fields[0].1 else { panic!() };
        assert_eq!(back.to_bits(), number.to_bits());
    }
    let times = one(r#"{"type":"long","logicalType":"timestamp-millis"}"#);
    for (millis, text) in
        [(-62_135_596_800_000, "0001-01-01T00:00:00.000Z"), (253_402_300_799_999, "9999-12-31T23:59:59.999Z")]
    {
        assert!(details(&times, Value::TimestampMillis(millis)).unwrap().contains(text));
    }
    for millis in [-62_135_596_800_001, 253_402_300_800_000, i64::MIN, i64::MAX] {
        assert!(
            details(&times, Value::TimestampMillis(millis))
                .unwrap_err()
                .starts_with("f0: found a time, expected a time")
        );
    }
    let clock = one(r#"{"type":"int","logicalType":"time-millis"}"#);
    assert!(details(&clock, Value::TimeMillis(86_400_000)).is_err() && details(&clock, Value::TimeMillis(-1)).is_err());
}

#[test]
fn schemas_that_can_not_be_used_and_values_without_end() {
    let refused = |json: &str| CustomSchema::parse(json).unwrap_err();
    assert!(matches!(refused("{"), CustomSchemaError::Parse(_)));
    assert!(matches!(refused("\"int\""), CustomSchemaError::NotARecord));
    let of = |kind: Json| record(&[json!({"type": "array", "items": kind})]).to_string();
    let duration = json!({"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"});
    assert!(refused(&of(duration)).to_string().starts_with("f0[]: a duration has no form"));
    let tree = r#"{"type":"record","name":"Tree","fields":[{"name":"next","type":["null","Tree"],"default":null}]}"#;
    let schema = CustomSchema::parse(tree).unwrap();
    let mut deep = Value::Union(0, Box::new(Value::Null));
    for _ in 0..1_000 {
        deep = Value::Union(1, Box::new(Value::Record(vec![("next".to_owned(), deep)])));
    }
    let fault = schema.details_of(MARK, &Value::Record(vec![("next".to_owned(), deep)])).unwrap_err();
    assert!(fault.found.contains("nested deeper"), "{fault}");
    let text = format!("{}null{}", "{\"next\":".repeat(100), "}".repeat(100));
    assert!(schema.read(&text).unwrap_err().found.contains("nested deeper"));
}

/// Unions of themselves, whose branches are alike: numbers, records of the same fields, and one that looks like serde's enums.
const UNIONS: &str = r#"{"type":"record","name":"Node","namespace":"shop","fields":[
    {"name":"next","type":["null","float","double","int","long","string","bytes",
        {"type":"enum","name":"Kind","symbols":["string","Node","A"]},
        {"type":"fixed","name":"Eight","size":8},
        {"type":"map","values":["double","long","Node"]},
        {"type":"record","name":"Text","fields":[{"name":"type","type":"string"},{"name":"value","type":"string"}]},
        {"type":"record","name":"Pair","fields":[{"name":"type","type":"Kind"},
            {"name":"value","type":["null","string","Node","Pair","Text","double","long"]}]},
        "Node",
        {"type":"record","name":"Twin","fields":[
            {"name":"next","type":["Twin","null","long","double","Text","Pair","Node","Kind","Eight","bytes","int"]}]}]}]}"#;

#[test]
fn unions_of_themselves_keep_their_branches() {
    let schema = CustomSchema::parse(UNIONS).unwrap();
    let avro = Schema::parse_str(UNIONS).unwrap();
    let values = value_of(&avro, &names_of(&avro), 4);
    let config = Config { cases: 3_000, ..Config::default() };
    TestRunner::new(config)
        .run(&values, |value| {
            let details = schema.details_of(MARK, &value).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
            let back = schema.read(&details).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
            prop_assert_eq!(&back, &value, "{}", details);
            Ok(())
        })
        .unwrap();
}
