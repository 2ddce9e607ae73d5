//! The writer schemas a reader knows, each proven at the door: parsed, resolvable to the reader schema, and compiled
//! to a guard. What is in here decodes; what does not is refused when it is added, with the reason.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::Schema;
use arrow_avro::reader::Decoder;
use arrow_schema::{ArrowError, SchemaRef};
use serde_json::Value as Json;

use crate::batch::{new_decoder, unknown_schema};
use crate::columns::plain_schema;
use crate::framing::{Poison, WriterId, split};
use crate::guard::Guard;
use crate::misread::misreads;
use crate::straight::Plan;

/// The usual reader schema, and the writer schema of [`crate::encode`]: `schemas/avro/audit_event.v1.avsc`.
pub const AUDIT_EVENT_V1: &str = include_str!("../avro/audit_event.v1.avsc");

/// CRC-64-AVRO of the parsing canonical form of [`AUDIT_EVENT_V1`] (a test compares).
pub const V1_FINGERPRINT: u64 = 0x0e1d_bc26_200f_999f;

const READER: &str = "auditstream.v1.AuditEvent";

/// The writer schemas known here.
#[derive(Clone, Debug)]
pub struct Schemas {
    reader: Arc<Schema>,
    /// The same without logical types: see [`bare_form`].
    bare_reader: Arc<Schema>,
    reader_json: Arc<str>,
    arrow: SchemaRef,
    known: HashMap<WriterId, Arc<Known>>,
}

/// One writer schema.
#[derive(Debug)]
pub struct Known {
    json: String,
    /// For arrow-avro: see [`arrow_form`].
    pub(crate) arrow_json: String,
    /// For apache-avro: see [`bare_form`].
    pub(crate) writer: Schema,
    pub(crate) guard: Guard,
    /// How records go straight to columns, where they can.
    pub(crate) plan: Option<Plan>,
    /// Whether arrow-avro gets bodies as the reader schema would have written them, because it would misread this writer's: see `misread.rs`.
    pub(crate) is_misread: bool,
    reader_json: Arc<str>,
}

impl Known {
    /// arrow-avro's decoder for bare bodies of this writer, resolved to the reader schema.
    pub(crate) fn decoder(&self) -> Result<Decoder, ArrowError> {
        let writer = if self.is_misread { &*self.reader_json } else { &*self.arrow_json };
        new_decoder(writer, &self.reader_json)
    }

    /// The schema's JSON text as it was added.
    pub fn json(&self) -> &str {
        &self.json
    }
}

/// Why a writer schema can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The text is no Avro schema.
    #[error("not a valid Avro schema")]
    Parse(#[source] Box<apache_avro::Error>),
    /// The schema is valid, but events written with it can't be read as the current event.
    #[error("events of this schema can't be read as {reader}: {reason}")]
    Incompatible {
        /// The reader schema's full name.
        reader: String,
        /// The path and the rule.
        reason: String,
    },
}

impl Schemas {
    /// Schema v1 under its fingerprint: what a laptop needs, without a registry.
    ///
    /// # Errors
    /// None in a build whose tests pass: the schema is compiled in.
    pub fn builtin() -> Result<Self, SchemaError> {
        Self::reading_as(AUDIT_EVENT_V1)
    }

    /// Schema v1 under its fingerprint, read as another reader schema: all of v1's fields, and later ones, each a string whose default is empty or a
    /// nullable string whose default is null.
    ///
    /// # Errors
    /// The text is no such schema.
    pub fn reading_as(reader_json: &str) -> Result<Self, SchemaError> {
        let reader = Schema::parse_str(reader_json).map_err(|e| SchemaError::Parse(Box::new(e)))?;
        let unfit = |reason| SchemaError::Incompatible { reader: READER.to_owned(), reason };
        only_texts_are_added(reader_json).map_err(unfit)?;
        let decoder = new_decoder(reader_json, reader_json).map_err(|e| unfit(e.to_string()))?;
        let arrow = Arc::new(plain_schema(&decoder.schema()));
        let bare_reader = Arc::new(bare_form(reader_json).unwrap_or_else(|| reader.clone()));
        let (reader, reader_json) = (Arc::new(reader), Arc::from(reader_json));
        let mut schemas = Self { reader, bare_reader, reader_json, arrow, known: HashMap::new() };
        schemas.add(WriterId::Rabin(V1_FINGERPRINT), AUDIT_EVENT_V1)?;
        Ok(schemas)
    }

    /// Makes a writer schema known under an id; replaces what was known under it.
    ///
    /// # Errors
    /// The text is no schema, or its events can't be read as the reader schema.
    pub fn add(&mut self, id: WriterId, json: &str) -> Result<(), SchemaError> {
        let writer = Schema::parse_str(json).map_err(|e| SchemaError::Parse(Box::new(e)))?;
        let incompatible = |reason: String| SchemaError::Incompatible { reader: READER.to_owned(), reason };
        let guard = Guard::compile(&writer, &self.reader).map_err(incompatible)?;
        let arrow_json = arrow_form(json, &self.reader_json);
        let plan = Plan::compile(&writer, &self.reader);
        let is_misread = misreads(&writer, &self.reader);
        let writer = bare_writer(json, &self.reader_json).unwrap_or(writer);
        let reader_json = Arc::clone(&self.reader_json);
        let known = Known { json: json.to_owned(), arrow_json, writer, guard, plan, is_misread, reader_json };
        known.decoder().map_err(|e| incompatible(e.to_string()))?;
        self.known.insert(id, Arc::new(known));
        Ok(())
    }

    /// Forgets what is known under an id.
    pub(crate) fn forget(&mut self, id: WriterId) {
        self.known.remove(&id);
    }

    /// What is known under an id.
    pub fn get(&self, id: WriterId) -> Option<&Arc<Known>> {
        self.known.get(&id)
    }

    /// All known ids, in no order.
    pub fn ids(&self) -> impl Iterator<Item = WriterId> + '_ {
        self.known.keys().copied()
    }

    /// Whether a framed record would be taken: only the guard's walk, which decides what is poison.
    ///
    /// # Errors
    /// The record is poison.
    pub fn check(&self, record: &[u8]) -> Result<(), Poison> {
        let (id, body) = split(record)?;
        self.get(id).ok_or_else(|| unknown_schema(id))?.guard.check(body)
    }

    /// The Arrow schema of every batch that [`crate::BatchDecoder`] gives out.
    pub fn arrow_schema(&self) -> &SchemaRef {
        &self.arrow
    }

    pub(crate) fn bare_reader(&self) -> &Arc<Schema> {
        &self.bare_reader
    }
}

/// A writer schema as arrow-avro should see it: without aliases, which it would follow although the specification gives a
/// writer's aliases no meaning, and without docs; when that is all in which it differs from the reader schema, it is the
/// reader schema, and nothing is to be resolved.
fn arrow_form(writer: &str, reader: &str) -> String {
    match without(writer, &["aliases", "doc"]) {
        json if json == without(reader, &["aliases", "doc"]) => reader.to_owned(),
        Some(json) => json.to_string(),
        None => writer.to_owned(),
    }
}

/// What the content hash and the table know how to hold, besides v1.
fn only_texts_are_added(reader: &str) -> Result<(), String> {
    let unreadable = || "not a record".to_owned();
    let parsed = |text: &str| without(text, &["aliases", "doc"]).ok_or_else(unreadable);
    let (reader, v1) = (parsed(reader)?, parsed(AUDIT_EVENT_V1)?);
    let fields = |schema: &Json| schema["fields"].as_array().cloned().ok_or_else(unreadable);
    let (theirs, ours) = (fields(&reader)?, fields(&v1)?);
    if !theirs.starts_with(&ours) {
        return Err("the fields do not begin with those of v1".to_owned());
    }
    for field in theirs.iter().skip(ours.len()) {
        let is_text = field["type"] == "string" && field.get("default") == Some(&Json::from(""));
        let is_nullable =
            field["type"] == serde_json::json!(["null", "string"]) && field.get("default") == Some(&Json::Null);
        if !is_text && !is_nullable {
            return Err(format!("{}: neither a string nor a nullable string with an empty default", field["name"]));
        }
    }
    Ok(())
}

/// A writer schema as apache-avro should see it: without logical types, and with its fields named as the reader does, because apache-avro does not
/// follow the reader's aliases.
fn bare_writer(writer: &str, reader: &str) -> Option<Schema> {
    let mut json = without(writer, &["logicalType", "aliases"])?;
    name_as_reader(&mut json, &serde_json::from_str(reader).ok()?);
    Schema::parse(&json).ok()
}

fn name_as_reader(writer: &mut Json, reader: &Json) {
    if let (Some(items), Some(read_items)) = (writer.get_mut("items"), reader.get("items")) {
        return name_as_reader(items, read_items);
    }
    let (Some(fields), Some(readers)) = (writer.get_mut("fields"), reader["fields"].as_array()) else { return };
    let Some(fields) = fields.as_array_mut() else { return };
    for reader in readers {
        let aliases = reader["aliases"].as_array().map_or(&[][..], Vec::as_slice);
        let is_named = fields.iter().any(|field| field["name"] == reader["name"]);
        let wanted = |field: &&mut Json| {
            if is_named { field["name"] == reader["name"] } else { aliases.contains(&field["name"]) }
        };
        if let Some(field) = fields.iter_mut().find(wanted) {
            field["name"] = reader["name"].clone();
            if let Some(kind) = field.get_mut("type") {
                name_as_reader(kind, &reader["type"]);
            }
        }
    }
}

fn without(schema: &str, keys: &[&str]) -> Option<Json> {
    let mut json = serde_json::from_str(schema).ok()?;
    drop_keys(&mut json, keys);
    Some(json)
}

/// A schema as apache-avro should see it: without logical types. They do not change what a writer's bytes mean, but apache-avro refuses a text that is
/// no UUID where the reader takes it as text, or not at all, and a UUID that was written as bytes.
fn bare_form(writer: &str) -> Option<Schema> {
    Schema::parse(&without(writer, &["logicalType"])?).ok()
}

fn drop_keys(json: &mut Json, keys: &[&str]) {
    match json {
        Json::Object(object) => {
            object.retain(|key, _| !keys.contains(&key.as_str()));
            object.values_mut().for_each(|value| drop_keys(value, keys));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| drop_keys(item, keys)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm};

    #[test]
    fn the_fingerprint_is_that_of_the_schema() {
        let fingerprint =
            |json: &str| AvroSchema::new(json.to_owned()).fingerprint(FingerprintAlgorithm::Rabin).unwrap();
        assert_eq!(fingerprint(AUDIT_EVENT_V1), Fingerprint::Rabin(V1_FINGERPRINT));
        // A value that is published: Avro's own tests give it for the schema "int".
        assert_eq!(fingerprint("\"int\""), Fingerprint::Rabin(0x7275_d51a_3f39_5c8f));
    }

    #[test]
    fn the_reader_schema_is_known_in_any_layout() {
        let mut json: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
        drop_keys(&mut json, &["doc"]);
        assert_eq!(arrow_form(&json.to_string(), AUDIT_EVENT_V1), AUDIT_EVENT_V1);
        json["fields"][2]["aliases"] = Json::from(vec!["customer"]);
        assert_eq!(arrow_form(&json.to_string(), AUDIT_EVENT_V1), AUDIT_EVENT_V1);
        json["fields"][4]["default"] = Json::from("production");
        assert_ne!(arrow_form(&json.to_string(), AUDIT_EVENT_V1), AUDIT_EVENT_V1);
    }

    #[test]
    fn a_reader_schema_is_v1_with_texts_behind_it() {
        let with = |field: Json| {
            let mut json: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
            json["fields"].as_array_mut().unwrap().push(field);
            Schemas::reading_as(&json.to_string()).map(|schemas| schemas.arrow_schema().fields().len())
        };
        let columns = Schemas::builtin().unwrap().arrow_schema().fields().len();
        assert_eq!(with(serde_json::json!({"name": "a", "type": "string", "default": ""})).unwrap(), columns + 1);
        assert!(with(serde_json::json!({"name": "a", "type": ["null", "string"], "default": null})).is_ok());
        for kind in [serde_json::json!("string"), serde_json::json!("long")] {
            let error = with(serde_json::json!({"name": "a", "type": kind})).unwrap_err();
            assert!(error.to_string().contains("\"a\": neither"), "{error}");
        }
        assert!(Schemas::reading_as("\"string\"").is_err());
    }

    #[test]
    fn ids() {
        let mut schemas = Schemas::builtin().unwrap();
        schemas.add(WriterId::Confluent(3), AUDIT_EVENT_V1).unwrap();
        let mut ids: Vec<_> = schemas.ids().collect();
        ids.sort();
        assert_eq!(ids, [WriterId::Rabin(V1_FINGERPRINT), WriterId::Confluent(3)]);
        assert_eq!(schemas.get(WriterId::Confluent(3)).unwrap().json(), AUDIT_EVENT_V1);
        assert!(schemas.get(WriterId::Confluent(4)).is_none());
    }
}
