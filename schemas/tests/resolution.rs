//! The table of how schemas may change, each line read by four: a batch, a single record, apache-avro alone, and Avro's own implementation in Java.
//! All must say what is written here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use auditstream_schemas::*;
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

mod common;
use common::{AT, event_at, typical, value};

const ID: WriterId = WriterId::Confluent(7);

/// What must become of a record.
enum Outcome {
    /// It is the typical event, but for these fields.
    Reads(Vec<(&'static str, Json)>),
    /// The record is refused.
    Refused(PoisonCode),
    /// The writer schema is refused, for the field at this path.
    Unusable(&'static str),
}
use Outcome::{Reads, Refused, Unusable};

/// Where Avro's rules would allow what is refused here, or an implementation does not do what they say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    Agree,
    /// The table demands more than the type: Avro alone would read it.
    Read,
    /// The specification allows it and Java does it; apache-avro 0.22 does not.
    ApacheRefuses,
}

struct Case {
    name: &'static str,
    writer: Json,
    reader: Json,
    values: Vec<(&'static str, Value)>,
    outcome: Outcome,
    others: Others,
}

impl Case {
    /// Schema v1 writes and reads.
    fn new(name: &'static str, outcome: Outcome) -> Self {
        Self { name, writer: v1(), reader: v1(), values: Vec::new(), outcome, others: Others::Agree }
    }

    fn writer(mut self, change: impl FnOnce(&mut Vec<Json>)) -> Self {
        change(self.writer["fields"].as_array_mut().unwrap());
        self
    }

    fn reader(mut self, change: impl FnOnce(&mut Vec<Json>)) -> Self {
        change(self.reader["fields"].as_array_mut().unwrap());
        self
    }

    /// What the writer writes where it is not the typical event.
    fn writes(mut self, name: &'static str, value: Value) -> Self {
        self.values.push((name, value));
        self
    }

    fn others(self, others: Others) -> Self {
        Self { others, ..self }
    }

    fn body(&self) -> Vec<u8> {
        let schema = Schema::parse(&self.writer).unwrap();
        let Schema::Record(shape) = &schema else { panic!("a record") };
        let Value::Record(mut fields) = value(&typical()) else { panic!("a record") };
        for (name, value) in &self.values {
            fields.retain(|(other, _)| other != name);
            fields.push(((*name).to_owned(), value.clone()));
        }
        let take = |name: &String| fields.iter().find(|(other, _)| other == name).cloned();
        let fields = shape.fields.iter().map(|f| take(&f.name).unwrap_or_else(|| panic!("{}: {}", self.name, f.name)));
        let value = Value::Record(fields.collect());
        GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
    }

    /// The row that the others must make of it, when there is one.
    fn expected(&self) -> Option<Json> {
        let Reads(changes) = &self.outcome else { return None };
        let mut row = json_of_value(&value(&typical()));
        for (name, value) in changes {
            match name.split_once('.') {
                Some((record, field)) => row[record][field] = value.clone(),
                None => row[name] = value.clone(),
            }
        }
        Some(row)
    }
}

fn v1() -> Json {
    serde_json::from_str(AUDIT_EVENT_V1).unwrap()
}

fn at<'f>(fields: &'f mut [Json], name: &str) -> &'f mut Json {
    fields.iter_mut().find(|field| field["name"] == name).unwrap()
}

fn remove(fields: &mut Vec<Json>, name: &str) {
    fields.retain(|field| field["name"] != name);
}

/// Gives a field another type, without a default.
fn retype(fields: &mut [Json], name: &str, kind: Json) {
    let field = at(fields, name).as_object_mut().unwrap();
    field.insert("type".to_owned(), kind);
    field.remove("default");
}

/// The fields of the record in field `name`, or of the records in its list.
fn inside<'f>(fields: &'f mut [Json], name: &str) -> &'f mut Vec<Json> {
    let kind = &mut at(fields, name)["type"];
    let record = if kind["type"] == "array" { &mut kind["items"] } else { kind };
    record["fields"].as_array_mut().unwrap()
}

fn region(default: Option<&str>) -> Json {
    match default {
        Some(default) => json!({"name": "region", "type": "string", "default": default}),
        None => json!({"name": "region", "type": ["null", "string"], "default": null}),
    }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn some(value: Value) -> Value {
    Value::Union(1, Box::new(value))
}

fn null() -> Value {
    Value::Union(0, Box::new(Value::Null))
}

fn symbol(index: u32, symbol: &str) -> Value {
    Value::Enum(index, symbol.to_owned())
}

/// The typical event's record in field `name`, with one of its values changed or left out.
fn record_with(name: &str, field: &str, new: Option<Value>) -> Value {
    let Value::Record(fields) = value(&typical()) else { panic!("a record") };
    let (_, Value::Record(mut inner)) = fields.into_iter().find(|(other, _)| other == name).unwrap() else {
        panic!("a record")
    };
    match new {
        Some(new) => inner.iter_mut().find(|(other, _)| other == field).unwrap().1 = new,
        None => inner.retain(|(other, _)| other != field),
    }
    Value::Record(inner)
}

fn table() -> Vec<Case> {
    let same = || Reads(Vec::new());
    let reads = |name, value: &str| Reads(vec![(name, json!(value))]);
    let symbols = |fields: &mut [Json], name: &str, all: &[&str]| at(fields, name)["type"]["symbols"] = json!(all);
    vec![
        Case::new("one schema for both", same()),
        Case::new("field added with a default: newer writer", same())
            .writer(|f| f.push(region(Some(""))))
            .writes("region", text("eu")),
        Case::new("field added with a default: newer reader", reads("region", "")).reader(|f| f.push(region(Some("")))),
        Case::new("field added with a default: both newer", reads("region", "eu"))
            .writer(|f| f.push(region(Some(""))))
            .reader(|f| f.push(region(Some(""))))
            .writes("region", text("eu")),
        Case::new("field added in the middle: newer writer", same())
            .writer(|f| f.insert(3, region(Some(""))))
            .writes("region", text("eu")),
        Case::new("field added in the middle, newer reader has it at its end", reads("region", "eu"))
            .writer(|f| f.insert(3, region(Some(""))))
            .reader(|f| f.push(region(Some(""))))
            .writes("region", text("eu")),
        Case::new("nullable field added: newer writer", same())
            .writer(|f| f.push(region(None)))
            .writes("region", some(text("eu"))),
        Case::new("nullable field added: newer reader", reads("region", "")).reader(|f| f.push(region(None))),
        Case::new("nullable field added: both newer", reads("region", "eu"))
            .writer(|f| f.push(region(None)))
            .reader(|f| f.push(region(None)))
            .writes("region", some(text("eu"))),
        Case::new("field made nullable by a newer reader", reads("region", "eu"))
            .writer(|f| f.push(region(Some(""))))
            .reader(|f| f.push(region(None)))
            .writes("region", text("eu")),
        Case::new("field removed that has a default", reads("details", "{}")).writer(|f| remove(f, "details")),
        Case::new("nullable field removed", reads("ip", "")).writer(|f| remove(f, "ip")),
        Case::new(
            "record removed that has a default",
            Reads(vec![("producer", json!({"id": "", "epoch": 0, "seq": 0}))]),
        )
        .writer(|f| remove(f, "producer")),
        Case::new("list removed that has a default", Reads(vec![("changes", json!([]))]))
            .writer(|f| remove(f, "changes")),
        Case::new("field removed that has no default", Unusable("tenant_id")).writer(|f| remove(f, "tenant_id")),
        Case::new("nested field removed", reads("actor.name", ""))
            .writer(|f| remove(inside(f, "actor"), "name"))
            .writes("actor", record_with("actor", "name", None)),
        Case::new("nested field removed that has no default", Unusable("actor.kind"))
            .writer(|f| remove(inside(f, "actor"), "kind"))
            .writes("actor", record_with("actor", "kind", None)),
        Case::new("nested field added", same())
            .writer(|f| inside(f, "changes").push(json!({"name": "why", "type": "string"})))
            .writes("changes", with_why()),
        Case::new("symbol added by the writer, the reader has a default: the new one", reads("operation", "OTHER"))
            .writer(|f| symbols(f, "operation", &["CREATE", "READ", "UPDATE", "DELETE", "OTHER", "MERGE"]))
            .writes("operation", symbol(5, "MERGE")),
        Case::new("symbol added by the writer in front: an old one", same())
            .writer(|f| symbols(f, "operation", &["MERGE", "CREATE", "READ", "UPDATE", "DELETE", "OTHER"]))
            .writes("operation", symbol(3, "UPDATE")),
        Case::new("symbol added by the reader: the writer's are fewer", same())
            .writer(|f| symbols(f, "operation", &["OTHER", "UPDATE"]))
            .writes("operation", symbol(1, "UPDATE")),
        Case::new(
            "symbol added by the writer, the reader has no default: the new one",
            Refused(PoisonCode::BadEnumSymbol),
        )
        .writer(|f| symbols(f, "outcome", &["SUCCESS", "FAILURE", "DENIED", "PARTIAL"]))
        .writes("outcome", symbol(3, "PARTIAL")),
        Case::new("symbol added by the writer, the reader has no default: an old one", same())
            .writer(|f| symbols(f, "outcome", &["PARTIAL", "SUCCESS", "FAILURE", "DENIED"]))
            .writes("outcome", symbol(1, "SUCCESS")),
        Case::new("int is read as long", Reads(vec![("producer.epoch", json!(-7))]))
            .writer(|f| retype(inside(f, "producer"), "epoch", json!("int")))
            .writes("producer", record_with("producer", "epoch", Some(Value::Int(-7)))),
        Case::new("bytes are read as string", same())
            .writer(|f| retype(f, "details", json!("bytes")))
            .writes("details", Value::Bytes(typical().details.into_bytes())),
        Case::new("bytes in a union are read as string", reads("ip", "::1"))
            .writer(|f| retype(f, "ip", json!(["null", "bytes"])))
            .writes("ip", some(Value::Bytes(b"::1".to_vec()))),
        Case::new("a long without its logical type", same())
            .writer(|f| retype(f, "occurred_at", json!("long")))
            .writes("occurred_at", Value::Long(typical().occurred_at.as_micros())),
        Case::new("a string without its logical type", same())
            .writer(|f| retype(f, "event_id", json!("string")))
            .writes("event_id", text(&typical().event_id.to_string())),
        Case::new("long is not read as string", Unusable("tenant_id"))
            .writer(|f| retype(f, "tenant_id", json!("long")))
            .writes("tenant_id", Value::Long(1)),
        Case::new("double is not read as long", Unusable("producer.epoch"))
            .writer(|f| retype(inside(f, "producer"), "epoch", json!("double")))
            .writes("producer", record_with("producer", "epoch", Some(Value::Double(1.0)))),
        Case::new("a string is not read as record", Unusable("actor"))
            .writer(|f| retype(f, "actor", json!("string")))
            .writes("actor", text("a")),
        Case::new("a time in milliseconds is not one in microseconds", Unusable("occurred_at"))
            .writer(|f| retype(f, "occurred_at", json!({"type": "long", "logicalType": "timestamp-millis"})))
            .writes("occurred_at", Value::TimestampMillis(typical().occurred_at.as_micros()))
            .others(Others::Read),
        Case::new("renamed: the reader has the writer's name as an alias", reads("tenant_id", "tenant-9"))
            .writer(|f| at(f, "tenant_id")["name"] = json!("customer"))
            .reader(|f| at(f, "tenant_id")["aliases"] = json!(["customer"]))
            .writes("customer", text("tenant-9"))
            .others(Others::ApacheRefuses),
        Case::new("renamed: nobody knows the name", Unusable("tenant_id"))
            .writer(|f| at(f, "tenant_id")["name"] = json!("customer"))
            .writes("customer", text("tenant-9")),
        Case::new("an alias of the writer's means nothing", reads("error_message", ""))
            .writer(|f| {
                remove(f, "error_message");
                f.push(json!({"name": "note", "type": "string", "aliases": ["error_message"]}));
            })
            .writes("note", text("no error")),
        Case::new("nullable the other way round", same())
            .writer(|f| retype(f, "request_id", json!(["string", "null"])))
            .writes("request_id", Value::Union(0, Box::new(text("req-7f3a9c1e")))),
        Case::new("never null in the writer", same())
            .writer(|f| retype(f, "ip", json!("string")))
            .writes("ip", text("203.0.113.42")),
        Case::new("nullable in the writer only: there", same())
            .writer(|f| retype(f, "service", json!(["null", "string"])))
            .writes("service", some(text(&typical().service))),
        Case::new("nullable in the writer only: null", Refused(PoisonCode::MissingField))
            .writer(|f| retype(f, "service", json!(["null", "string"])))
            .writes("service", null()),
        Case::new("nullable in the writer only, not required: null", Refused(PoisonCode::BadUnionBranch))
            .writer(|f| retype(f, "details", json!(["null", "string"])))
            .writes("details", null()),
        Case::new("a branch that the reader has not", Refused(PoisonCode::BadUnionBranch))
            .writer(|f| retype(f, "ip", json!(["null", "string", "long"])))
            .writes("ip", Value::Union(2, Box::new(Value::Long(1)))),
        Case::new("fields in another order", same()).writer(|f| f.reverse()),
        Case::new("empty where the table wants a text", Refused(PoisonCode::MissingField))
            .writes("action", text(""))
            .others(Others::Read),
        Case::new("a text that is no UUID", Refused(PoisonCode::InvalidUuid))
            .writer(|f| retype(f, "event_id", json!("string")))
            .writes("event_id", text("no uuid"))
            .others(Others::Read),
    ]
}

/// The typical event's changes, each with a reason.
fn with_why() -> Value {
    let Value::Record(fields) = value(&typical()) else { panic!("a record") };
    let (_, Value::Array(items)) = fields.into_iter().find(|(name, _)| name == "changes").unwrap() else {
        panic!("a list")
    };
    let with = |item: Value| {
        let Value::Record(mut fields) = item else { panic!("a record") };
        fields.push(("why".to_owned(), text("because")));
        Value::Record(fields)
    };
    Value::Array(items.into_iter().map(with).collect())
}

/// Null is the empty text, as the table has it.
fn json_of_value(value: &Value) -> Json {
    match value {
        Value::Null => json!(""),
        Value::String(text) | Value::Enum(_, text) => json!(text),
        Value::Uuid(id) => json!(id.to_string()),
        Value::Int(n) => json!(n),
        Value::Long(n) | Value::TimestampMicros(n) => json!(n),
        Value::Union(_, value) => json_of_value(value),
        Value::Array(items) => items.iter().map(json_of_value).collect(),
        Value::Record(fields) => {
            Json::Object(fields.iter().map(|(name, value)| (name.clone(), json_of_value(value))).collect())
        }
        other => panic!("the reader schema has no {other:?}"),
    }
}

fn json_of_row(batch: &RecordBatch, row: usize) -> Json {
    let fields =
        batch.schema().fields().iter().zip(batch.columns()).map(|(f, c)| (f.name().clone(), cell(c, row))).collect();
    Json::Object(fields)
}

fn cell(column: &ArrayRef, row: usize) -> Json {
    match column.data_type() {
        DataType::Utf8 if column.is_null(row) => json!(""),
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::Dictionary(..) => {
            let keys = column.as_dictionary::<Int32Type>();
            json!(keys.values().as_string::<i32>().value(keys.keys().value(row) as usize))
        }
        DataType::FixedSizeBinary(_) => {
            json!(Uuid::from_slice(column.as_fixed_size_binary().value(row)).unwrap().to_string())
        }
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::Timestamp(..) => json!(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            Json::Object(
                fields.iter().zip(columns).map(|(f, c)| (f.name().clone(), cell(c, row))).collect::<Map<_, _>>(),
            )
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            (0..items.len()).map(|item| cell(&items, item)).collect()
        }
        other => panic!("no column is {other}"),
    }
}

/// Both of our ways.
fn check_ours(case: &Case) {
    let name = case.name;
    let mut schemas = Schemas::reading_as(&case.reader.to_string()).unwrap_or_else(|e| panic!("{name}: {e}"));
    match (&case.outcome, schemas.add(ID, &case.writer.to_string())) {
        (Unusable(path), Err(SchemaError::Incompatible { reason, .. })) => {
            assert!(reason.starts_with(path), "{name}: {reason}");
            return;
        }
        (_, added) => added.unwrap_or_else(|e| panic!("{name}: {e}")),
    }
    let schemas = Arc::new(schemas);
    let record = [&[0, 0, 0, 0, 7][..], &case.body()].concat();
    let one = decode(&schemas, &record);
    let mut decoder = BatchDecoder::new(Arc::clone(&schemas));
    let neighbour = common::record(&typical());
    decoder.push(&neighbour, AT).unwrap();
    let taken = decoder.push(&record, AT);
    decoder.push(&neighbour, AT).unwrap();
    let done = decoder.finish().unwrap();
    let rows: usize = done.iter().map(|done| done.positions.len()).sum();
    let of_others = done[0].batch.column_by_name("event_id").unwrap().len();
    assert_eq!((rows, of_others), (2 + usize::from(taken.is_ok()), 2), "{name}: neighbours");
    match &case.outcome {
        Refused(code) => {
            assert_eq!(taken.as_ref().unwrap_err().code, *code, "{name}");
            assert_eq!(one.unwrap_err(), taken.unwrap_err(), "{name}");
        }
        _ => {
            taken.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(json_of_row(&done[1].batch, 0), case.expected().unwrap(), "{name}");
            assert_eq!(event_at(&done[1].batch, 0), one.unwrap(), "{name}");
            assert_eq!(done[1].content_hashes, content_hash(&done[1].batch).unwrap(), "{name}");
        }
    }
}

fn check_apache(case: &Case) {
    let (writer, reader) = (Schema::parse(&case.writer).unwrap(), Schema::parse(&case.reader).unwrap());
    let theirs = GenericDatumReader::builder(&writer).reader_schema(&reader).build();
    let theirs = theirs.and_then(|theirs| theirs.read_value(&mut &*case.body())).map(|value| json_of_value(&value));
    match case.others {
        Others::Agree => assert_eq!(theirs.ok(), case.expected(), "apache-avro: {}", case.name),
        // It has its own mind about logical types.
        Others::Read => {}
        Others::ApacheRefuses => assert!(theirs.is_err(), "apache-avro has learned it: {}", case.name),
    }
}

#[test]
fn our_two_ways_and_apache_avro_read_each_case_as_the_table_says() {
    for case in table() {
        check_ours(&case);
        check_apache(&case);
    }
}

/// The same text added later is part of the content, and its default is not: who reads as v1 gives a record of v1 the same hash.
#[test]
fn a_later_field_at_its_default_leaves_the_content_hash_alone() {
    let mut newer = v1();
    newer["fields"].as_array_mut().unwrap().push(region(Some("")));
    let hash = |region: &str| {
        let mut schemas = Schemas::reading_as(&newer.to_string()).unwrap();
        schemas.add(ID, &newer.to_string()).unwrap();
        let mut decoder = BatchDecoder::new(Arc::new(schemas));
        let body = common::body(&typical());
        let record = [&[0, 0, 0, 0, 7][..], &body, &[region.len() as u8 * 2], region.as_bytes()].concat();
        decoder.push(&record, AT).unwrap();
        decoder.finish().unwrap()[0].content_hashes.value(0).to_vec()
    };
    assert_eq!(hash(""), content_hash_of(&typical()));
    assert_ne!(hash("eu"), content_hash_of(&typical()));
    assert_ne!(hash("eu"), hash("us"));
}

/// Java's class path with Avro on it, from the variable that `cargo xtask test` sets.
fn java(cases: &[Case]) -> HashMap<String, Result<Json, String>> {
    let class_path = std::env::var("AUDITSTREAM_AVRO_CLASS_PATH");
    let class_path =
        class_path.expect("AUDITSTREAM_AVRO_CLASS_PATH is not set: run `cargo xtask test`, which installs Avro");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/Resolve.java");
    let mut java = Command::new(std::env::var_os("AUDITSTREAM_JAVA").unwrap_or_else(|| "java".into()))
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &class_path])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("java can be started");
    let mut input = String::new();
    for case in cases {
        let Case { name, writer, reader, .. } = case;
        let body: String = case.body().iter().map(|byte| format!("{byte:02x}")).collect();
        input.push_str(&format!("{name}\t{writer}\t{reader}\t{body}\n"));
    }
    let mut stdin = java.stdin.take().unwrap();
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = java.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers = String::from_utf8(output.stdout).unwrap();
    let answer = |line: &str| {
        let parts: Vec<&str> = line.splitn(3, '\t').collect();
        let said =
            if parts[1] == "ok" { Ok(serde_json::from_str(parts[2]).unwrap()) } else { Err(parts[2].to_owned()) };
        (parts[0].to_owned(), said)
    };
    answers.lines().map(answer).collect()
}

#[test]
fn avro_in_java_reads_each_case_as_the_table_says() {
    let cases = table();
    let answers = java(&cases);
    assert_eq!(answers.len(), cases.len());
    for case in cases {
        let theirs = &answers[case.name];
        match case.others {
            Others::Read => assert!(theirs.is_ok(), "Java: {}: {theirs:?}", case.name),
            _ => assert_eq!(theirs.as_ref().ok(), case.expected().as_ref(), "Java: {}: {theirs:?}", case.name),
        }
    }
}
