//! The golden files, compiled in: what events looked like on the wire when a schema version was released. Whatever comes later must read them.
//! Those of a version that is being made are the same events, written with its schema: [`of_version`].

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::UuidSchema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm};
use serde_json::{Value as Json, json};

use crate::decode::decode;
use crate::framing::{CONFLUENT_MAGIC, SINGLE_OBJECT_MAGIC, WriterId, split};
use crate::hash::V1_COLUMNS;
use crate::schemas::{AUDIT_EVENT_V1, Schemas};

/// The registry's id in golden files with Confluent framing.
const REGISTRY_ID: u32 = 258;

/// One event, as it was encoded once and for ever.
#[derive(Clone, Copy, Debug)]
pub struct GoldenFile {
    /// Its name in `schemas/golden`.
    pub name: &'static str,
    /// The record, framed as a single object.
    pub single: &'static [u8],
    /// The event it stands for, in JSON.
    pub json: &'static str,
}

macro_rules! golden {
    ($($name:literal),+ $(,)?) => {
        &[$(GoldenFile {
            name: $name,
            single: include_bytes!(concat!("../golden/", $name, ".single.bin")),
            json: include_str!(concat!("../golden/", $name, ".json")),
        }),+]
    };
}

/// Every golden file.
pub const GOLDEN_FILES: &[GoldenFile] = golden!["minimal", "full", "unicode", "earliest", "latest", "many_changes"];

/// A golden file that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGoldenFile {
    /// Its name: `minimal.json`, `minimal.single.bin`, `minimal.confluent.bin`.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The golden files of a later version of the event's schema, which adds `field`: each event of [`GOLDEN_FILES`] with the field at its default, and
/// `with_FIELD`, the first of them with another value there. In JSON the added fields stand behind the others.
///
/// # Errors
/// In one sentence: the schema is no version of the event's, the field is not there or of a type that there is no example of, or this program does not
/// read from the files the events that they were made of.
pub fn of_version(schema: &str, field: &str) -> Result<Vec<NewGoldenFile>, String> {
    let version = Version::new(schema)?;
    let mut files = Vec::new();
    for golden in GOLDEN_FILES {
        version.write(golden.name, golden, version.read(golden)?, &mut files)?;
    }
    let first = GOLDEN_FILES.first().ok_or("there are no golden files")?;
    let Value::Record(mut fields) = version.read(first)? else { return Err("the schema is no record".to_owned()) };
    let added = fields.iter_mut().find(|(name, _)| name == field);
    let (_, value) = added.ok_or_else(|| format!("the schema has no field {field}"))?;
    *value = version.example(field)?;
    version.write(&format!("with_{field}"), first, Value::Record(fields), &mut files)?;
    Ok(files)
}

/// A version that is being made.
struct Version {
    schema: Schema,
    v1: Schema,
    fingerprint: [u8; 8],
    schemas: Schemas,
}

impl Version {
    fn new(json: &str) -> Result<Self, String> {
        let parse = |json: &str| Schema::parse_str(json).map_err(|error| error.to_string());
        let schema = parse(json)?;
        // apache-avro's canonical form keeps the logical type of a UUID, so its fingerprint is another than everybody's.
        let fingerprint = match AvroSchema::new(json.to_owned()).fingerprint(FingerprintAlgorithm::Rabin) {
            Ok(Fingerprint::Rabin(number)) => number.to_le_bytes(),
            Ok(other) => return Err(format!("a Rabin fingerprint is a number, found {other:?}")),
            Err(error) => return Err(error.to_string()),
        };
        let mut schemas = Schemas::builtin().map_err(|error| error.to_string())?;
        for id in [WriterId::Rabin(u64::from_le_bytes(fingerprint)), WriterId::Confluent(REGISTRY_ID)] {
            schemas.add(id, json).map_err(|error| error.to_string())?;
        }
        Ok(Self { schema, v1: parse(AUDIT_EVENT_V1)?, fingerprint, schemas })
    }

    /// A golden event as this version has it.
    fn read(&self, golden: &GoldenFile) -> Result<Value, String> {
        let (_, mut body) = split(golden.single).map_err(|poison| poison.to_string())?;
        let reader = GenericDatumReader::builder(&self.v1).reader_schema(&self.schema).build();
        let value = reader.and_then(|reader| reader.read_value(&mut body));
        value.map_err(|error| format!("golden file {}: {error}", golden.name))
    }

    /// A value for a field that is none of the usual defaults.
    fn example(&self, field: &str) -> Result<Value, String> {
        let Schema::Record(record) = &self.schema else { return Err("the schema is no record".to_owned()) };
        let found = record.fields.iter().find(|other| other.name == field);
        let value = found.and_then(|field| example(&field.schema));
        value.ok_or_else(|| format!("there is no example of the type of field {field}"))
    }

    /// The three files of one event, once it is proven that they are read as the event.
    fn write(
        &self,
        name: &str,
        golden: &GoldenFile,
        value: Value,
        files: &mut Vec<NewGoldenFile>,
    ) -> Result<(), String> {
        let Value::Record(fields) = &value else { return Err("the schema is no record".to_owned()) };
        let wrong = |reason: &str| format!("golden file {name}: {reason}");
        let head = golden.json.trim_end().strip_suffix('}').ok_or_else(|| wrong("its JSON is no object"))?;
        let mut text = head.to_owned();
        for (field, value) in fields.iter().skip(V1_COLUMNS) {
            let value = json_of(value).ok_or_else(|| wrong(&format!("there is no JSON for field {field}")))?;
            text.push_str(&format!(",{}:{value}", json!(field)));
        }
        text.push_str("}\n");
        let writer = GenericDatumWriter::builder(&self.schema).build().map_err(|error| wrong(&error.to_string()))?;
        let body = writer.write_value_to_vec(value).map_err(|error| wrong(&error.to_string()))?;
        let single = [&SINGLE_OBJECT_MAGIC[..], &self.fingerprint, &body].concat();
        let confluent = [&[CONFLUENT_MAGIC][..], &REGISTRY_ID.to_be_bytes(), &body].concat();
        let event = decode(&self.schemas, golden.single).map_err(|poison| wrong(&poison.to_string()))?;
        for record in [&single, &confluent] {
            let again = decode(&self.schemas, record).map_err(|poison| wrong(&poison.to_string()))?;
            if again != event {
                return Err(wrong("this program reads another event from it"));
            }
        }
        for (ending, bytes) in [("json", text.into_bytes()), ("single.bin", single), ("confluent.bin", confluent)] {
            files.push(NewGoldenFile { name: format!("{name}.{ending}"), bytes });
        }
        Ok(())
    }
}

fn example(schema: &Schema) -> Option<Value> {
    Some(match schema {
        Schema::String => Value::String("golden \u{e9} \"text\"".to_owned()),
        Schema::Boolean => Value::Boolean(true),
        Schema::Int => Value::Int(-70_000),
        Schema::Long => Value::Long(-5_000_000_000),
        Schema::Float => Value::Float(1.5),
        Schema::Double => Value::Double(0.1),
        Schema::Uuid(UuidSchema::String) => {
            Value::Uuid(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_00ff))
        }
        Schema::Date => Value::Date(20_000),
        Schema::TimestampMillis => Value::TimestampMillis(1_700_000_000_123),
        Schema::TimestampMicros => Value::TimestampMicros(1_700_000_000_123_456),
        Schema::Enum(of) => {
            let last = of.symbols.len().checked_sub(1)?;
            Value::Enum(u32::try_from(last).ok()?, of.symbols.get(last)?.clone())
        }
        Schema::Array(of) => Value::Array(vec![example(&of.items)?, example(&of.items)?]),
        Schema::Union(of) => {
            let at = of.variants().iter().position(|branch| *branch != Schema::Null)?;
            Value::Union(u32::try_from(at).ok()?, Box::new(example(of.variants().get(at)?)?))
        }
        _ => return None,
    })
}

fn json_of(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Null => Json::Null,
        Value::Boolean(value) => json!(value),
        Value::Int(number) | Value::Date(number) => json!(number),
        Value::Long(number) | Value::TimestampMillis(number) | Value::TimestampMicros(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Double(number) => json!(number),
        Value::String(text) | Value::Enum(_, text) => json!(text),
        Value::Uuid(id) => json!(id.to_string()),
        Value::Array(items) => Json::Array(items.iter().map(json_of).collect::<Option<_>>()?),
        Value::Union(_, value) => return json_of(value),
        _ => return None,
    })
}
