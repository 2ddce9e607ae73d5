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
#[path = "resolution/table.rs"]
mod table;
use common::{AT, typical, value};

use table::table;

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

/// Both decoders, and of the batches' one both ways.
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
    let neighbour = common::record(&typical());
    for mut decoder in [BatchDecoder::new(Arc::clone(&schemas)), BatchDecoder::reference(Arc::clone(&schemas))] {
        decoder.push(&neighbour, common::at(0)).unwrap();
        // Each case of the table that can be read has a plan; the reference has none.
        let is_straight = decoder.straight_rows() > 0;
        let taken = decoder.push(&record, common::at(1));
        decoder.push(&neighbour, common::at(2)).unwrap();
        let straight = decoder.straight_rows();
        let done = decoder.finish().unwrap();
        let rows = common::rows(&schemas, &done);
        let offsets: Vec<_> = rows.iter().map(|row| row.offset).collect();
        match &case.outcome {
            Refused(code) => {
                assert_eq!(taken.as_ref().unwrap_err().code, *code, "{name}");
                assert_eq!(one.as_ref().unwrap_err(), &taken.unwrap_err(), "{name}");
                assert_eq!(offsets, [0, 2], "{name}: neighbours");
            }
            _ => {
                taken.unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(straight, if is_straight { 3 } else { 0 }, "{name}: which way");
                assert_eq!(offsets, [0, 1, 2], "{name}");
                assert_eq!(&rows[1].event, one.as_ref().unwrap(), "{name}");
                let is_it = |done: &&Decoded| done.positions.iter().any(|at| at.offset == 1);
                let batch = done.iter().find(is_it).unwrap();
                let row = batch.positions.iter().position(|at| at.offset == 1).unwrap();
                let plain = without_words(&batch.batch, schemas.arrow_schema()).unwrap();
                assert_eq!(json_of_row(&plain, row), case.expected().unwrap(), "{name}");
            }
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
    let class_path = std::env::var("AUDITSTREAM_JAVA_CLASS_PATH");
    let class_path =
        class_path.expect("AUDITSTREAM_JAVA_CLASS_PATH is not set: run `cargo xtask test`, which installs Avro");
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
