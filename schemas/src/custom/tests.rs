//! Which branch, which unit, which default: what a value that is not in Avro's exact form, or is not there, becomes.

use std::time::{Duration, Instant};

use apache_avro::types::Value;
use serde_json::{Value as Json, json};

use super::CustomSchema;

const MARK: &str = "order-details:7";

fn record(kind: &Json) -> Json {
    json!({"type": "record", "name": "x", "fields": [{"name": "f0", "type": kind}]})
}

#[test]
fn a_value_goes_to_the_branch_of_its_kind() {
    let one = |kind: &str| {
        CustomSchema::parse(&format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{kind}}}]}}"#))
            .unwrap()
    };
    let of = |schema: &CustomSchema, value: Value| {
        let details = schema.details_of("m:1", &Value::Record(vec![("f".to_owned(), value)])).unwrap();
        serde_json::from_str::<Json>(&details).unwrap()["f"].clone()
    };
    let numbers = one(r#"["null","double","long"]"#);
    for value in [
        apache_avro::to_value(Some(5_i64)),
        apache_avro::to_value(Some(5_i32)),
        apache_avro::to_value(Some(5_u64)),
        apache_avro::to_value(5_i64),
        apache_avro::to_value(json!(5)),
    ] {
        assert_eq!(of(&numbers, value.unwrap()), json!({"long": 5}));
    }
    assert_eq!(of(&numbers, apache_avro::to_value(Some(0.5)).unwrap()), json!({"double": 0.5}));
    assert_eq!(of(&numbers, apache_avro::to_value(Some(None::<i64>)).unwrap()), Json::Null);
    // Somebody's fields called type and value are no enum of serde.
    let text = |text: &str| Value::String(text.to_owned());
    let pair = |kind: Value| Value::Record(vec![("type".to_owned(), kind), ("value".to_owned(), text("x"))]);
    let kinds = |kind: &str| {
        one(&format!(
            r#"["null","string",{{"type":"record","name":"P","fields":[{{"name":"type","type":{kind}}},
            {{"name":"value","type":"string"}}]}}]"#
        ))
    };
    let as_record = json!({"P": {"type": "string", "value": "x"}});
    assert_eq!(of(&kinds("\"string\""), pair(text("string"))), as_record);
    let symbols = kinds(r#"{"type":"enum","name":"E","symbols":["string"]}"#);
    let symbol = pair(Value::Enum(0, "string".to_owned()));
    assert_eq!(of(&symbols, Value::Union(2, Box::new(symbol))), as_record);
    // The record whose fields are of the value's kinds, though the other one takes them too.
    let records = one(r#"["null",{"type":"record","name":"A","fields":[{"name":"n","type":"double"}]},
        {"type":"record","name":"B","fields":[{"name":"n","type":"long"}]}]"#);
    let number = Value::Record(vec![("n".to_owned(), Value::Long(5))]);
    assert_eq!(of(&records, Value::Union(1, Box::new(number))), json!({"B": {"n": 5}}));
}

#[test]
fn a_value_that_fits_no_branch_ends_soon() {
    let schema = CustomSchema::parse(
        r#"{"type":"record","name":"A","fields":[{"name":"next","type":["null","A",
            {"type":"record","name":"B","fields":[{"name":"next","type":["null","A","B"]}]}]}]}"#,
    )
    .unwrap();
    let nested = |levels: usize| {
        let start = Value::Record(vec![("next".to_owned(), Value::Boolean(true))]);
        (0..levels).fold(start, |inner, _| Value::Record(vec![("next".to_owned(), Value::Union(1, Box::new(inner)))]))
    };
    let begin = Instant::now();
    let fault = schema.details_of(MARK, &nested(19)).unwrap_err();
    assert!(fault.found.starts_with("more than 1000000 values"), "{fault}");
    // As deep as may be is told at once, and not once for each way there.
    let fault = schema.details_of(MARK, &nested(500)).unwrap_err();
    assert!(fault.found.contains("nested deeper"), "{fault}");
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[test]
fn defaults_are_what_avro_means() {
    let schema = CustomSchema::parse(
        r#"{"type":"record","name":"Tree","namespace":"shop","fields":[
            {"name":"s1","type":{"type":"enum","name":"State","symbols":["OPEN","PAID"]},"default":"PAID"},
            {"name":"s2","type":"State","default":"OPEN"},
            {"name":"next","type":["null","Tree"],"default":null},
            {"name":"last","type":["State","null"],"default":"PAID"},
            {"name":"none","type":["string","null"],"default":null},
            {"name":"raw","type":"bytes","default":"\u00FF"},
            {"name":"two","type":{"type":"fixed","name":"Two","size":2},"default":"\u00FF\u0000"},
            {"name":"again","type":"Two","default":"\u0000\u00FF"},
            {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2},"default":"\u0004\u00CE"},
            {"name":"line","type":{"type":"record","name":"Line","fields":[{"name":"n","type":"int","default":7},{"name":"s","type":"State"}]},
                "default":{"s":"PAID"}},
            {"name":"lines","type":{"type":"array","items":"Line"},"default":[{"n":1,"s":"OPEN"}]},
            {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"},"default":1}]}"#,
    )
    .unwrap();
    let details = schema.details(MARK, &json!({})).unwrap();
    let expected = json!({"$schema": MARK, "s1": "PAID", "s2": "OPEN", "next": null, "last": "PAID", "none": null, "raw": "/w==", "two": "/wA=",
        "again": "AP8=", "amount": "12.30", "line": {"n": 7, "s": "PAID"}, "lines": [{"n": 1, "s": "OPEN"}], "at": "1970-01-01T00:00:00.001Z"});
    assert_eq!(serde_json::from_str::<Json>(&details).unwrap(), expected);
    // Read from nothing it is the same as read from what was written.
    assert_eq!(schema.read("{}").unwrap(), schema.read(&details).unwrap());
    // A byte a character; more than a byte is none. The parser of schemas does not look.
    let wide = r#"{"type":"record","name":"R","fields":[{"name":"raw","type":"bytes","default":"\u0100"}]}"#;
    let fault = CustomSchema::parse(wide).unwrap().read("{}").unwrap_err();
    assert_eq!(fault.to_string(), "raw: found nothing, and a default that does not fit, expected bytes");
}

#[test]
fn a_value_of_another_unit_or_kind_is_refused_and_not_taken_for_its_number() {
    let one = |kind: &Json| CustomSchema::parse(&record(kind).to_string()).unwrap();
    type Make = fn(i64) -> Value;
    let times: [(&str, Make); 8] = [
        ("timestamp-millis", Value::TimestampMillis),
        ("timestamp-micros", Value::TimestampMicros),
        ("timestamp-nanos", Value::TimestampNanos),
        ("local-timestamp-millis", Value::LocalTimestampMillis),
        ("local-timestamp-micros", Value::LocalTimestampMicros),
        ("local-timestamp-nanos", Value::LocalTimestampNanos),
        ("time-micros", Value::TimeMicros),
        ("time-millis", |units| Value::TimeMillis(units as i32)),
    ];
    for (kind, _) in times {
        let base = if kind == "time-millis" { "int" } else { "long" };
        let schema = one(&json!({"type": base, "logicalType": kind}));
        for (other, value) in times {
            let written = schema.details_of(MARK, &Value::Record(vec![("f0".to_owned(), value(1_000))]));
            assert_eq!(written.is_ok(), kind == other, "{kind} {other}");
        }
        assert!(schema.details(MARK, &json!({"f0": 1_000})).is_ok(), "the number that Avro stores: {kind}");
    }
    let fault = |kind: Json, value: Value| {
        one(&kind).details_of(MARK, &Value::Record(vec![("f0".to_owned(), value)])).unwrap_err().to_string()
    };
    // serde's u64 and u128.
    let number = apache_avro::to_value(json!(5)).unwrap();
    assert_eq!(fault(json!("bytes"), number), "f0: found a whole number, expected bytes");
    let uuid = json!({"type": "string", "logicalType": "uuid"});
    assert_eq!(fault(uuid, apache_avro::to_value(1_u128).unwrap()), "f0: found bytes, expected a uuid");
    for (kind, number) in [("double", "1e999"), ("double", "-1e999"), ("float", "1e300"), ("float", "-1e39")] {
        let read = one(&json!(kind)).read(&format!("{{\"f0\":{number}}}"));
        assert!(read.unwrap_err().to_string().starts_with("f0: found a number, expected a number"), "{kind} {number}");
    }
}

#[test]
fn a_decimal_of_any_number_of_digits_is_refused() {
    let of = |precision: u64, scale: u64| {
        let kind = json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale});
        CustomSchema::parse(&record(&json!({"type": "array", "items": kind})).to_string())
    };
    let fault = of(1_000_000_000_000, 999_999_999_999).unwrap_err().to_string();
    assert_eq!(fault, "f0[]: a decimal of 1000000000000 digits is too long; use a precision of at most 10000");
    assert!(of(10_001, 0).is_err());
    let details = of(10_000, 9_999).unwrap().details(MARK, &json!({"f0": ["-1.5"]})).unwrap();
    assert!(details.contains("\"-1.5000") && details.len() > 10_000);
}
