//! The writer schemas a reader knows, each proven at the door: parsed, resolvable to the reader schema, and compiled
//! to a guard. What is in here decodes; what does not is refused when it is added, with the reason.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::Schema;
use arrow_schema::SchemaRef;
use serde_json::Value as Json;

use crate::batch::{new_decoder, unknown_schema};
use crate::columns::plain_schema;
use crate::framing::{Poison, WriterId, split};
use crate::guard::Guard;

/// The reader schema, and the writer schema of [`crate::encode`]: `schemas/avro/audit_event.v1.avsc`.
pub const AUDIT_EVENT_V1: &str = include_str!("../avro/audit_event.v1.avsc");

/// CRC-64-AVRO of the parsing canonical form of [`AUDIT_EVENT_V1`] (a test compares).
pub const V1_FINGERPRINT: u64 = 0x0e1d_bc26_200f_999f;

const READER: &str = "auditstream.v1.AuditEvent";

/// The writer schemas known here.
#[derive(Clone, Debug)]
pub struct Schemas {
    reader: Arc<Schema>,
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
}

impl Known {
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
        let reader = Schema::parse_str(AUDIT_EVENT_V1).map_err(|e| SchemaError::Parse(Box::new(e)))?;
        let decoder = new_decoder(AUDIT_EVENT_V1)
            .map_err(|e| SchemaError::Incompatible { reader: READER.to_owned(), reason: e.to_string() })?;
        let arrow = Arc::new(plain_schema(&decoder.schema()));
        let mut schemas = Self { reader: Arc::new(reader), arrow, known: HashMap::new() };
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
        let arrow_json = arrow_form(json);
        new_decoder(&arrow_json).map_err(|e| incompatible(e.to_string()))?;
        let writer = bare_form(json).unwrap_or(writer);
        self.known.insert(id, Arc::new(Known { json: json.to_owned(), arrow_json, writer, guard }));
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

    pub(crate) fn reader(&self) -> &Schema {
        &self.reader
    }
}

/// A writer schema as arrow-avro should see it: without aliases, which it would follow although the specification gives a
/// writer's aliases no meaning, and without docs; when that is all in which it differs from the reader schema, it is the
/// reader schema, and nothing is to be resolved.
fn arrow_form(writer: &str) -> String {
    let plain = |text: &str| {
        let mut json = serde_json::from_str(text).ok()?;
        drop_keys(&mut json, &["aliases", "doc"]);
        Some(json)
    };
    match plain(writer) {
        json if json == plain(AUDIT_EVENT_V1) => AUDIT_EVENT_V1.to_owned(),
        Some(json) => json.to_string(),
        None => writer.to_owned(),
    }
}

/// A writer schema as apache-avro should see it: without logical types. A writer's logical type does not change what its bytes mean, but apache-avro
/// refuses a text that is no UUID in a field that the reader takes as text, or not at all.
fn bare_form(writer: &str) -> Option<Schema> {
    let mut json = serde_json::from_str(writer).ok()?;
    drop_keys(&mut json, &["logicalType"]);
    Schema::parse(&json).ok()
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
        assert_eq!(arrow_form(&json.to_string()), AUDIT_EVENT_V1);
        json["fields"][2]["aliases"] = Json::from(vec!["customer"]);
        assert_eq!(arrow_form(&json.to_string()), AUDIT_EVENT_V1);
        json["fields"][4]["default"] = Json::from("production");
        assert_ne!(arrow_form(&json.to_string()), AUDIT_EVENT_V1);
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
