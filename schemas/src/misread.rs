//! Writer schemas that arrow-avro would misread. Records of theirs that don't go straight are resolved by apache-avro first.
//!
//! Found by tests against apache-avro, arrow-avro 60.1: a record in a branch of a union is read as if the reader schema had written it, so its bytes are
//! taken for other fields; and a union of anything but null and one plain type, where the reader has no such union, ends the whole batch.

use apache_avro::Schema;
use apache_avro::schema::{RecordSchema, ResolvedSchema};

use crate::compile::Names;
use crate::kind::Kind;

/// Whether arrow-avro does not read this writer's events by Avro's rules; of what the reader leaves out nothing is asked.
pub(crate) fn misreads(writer: &Schema, reader: &Schema) -> bool {
    let (Ok(writer_names), Ok(reader_names)) = (ResolvedSchema::new(writer), ResolvedSchema::new(reader)) else {
        return true;
    };
    let mut look = Look { writers: writer_names.get_names(), readers: reader_names.get_names(), depth: 0 };
    look.value(writer, reader)
}

struct Look<'s> {
    writers: &'s Names<'s>,
    readers: &'s Names<'s>,
    depth: u32,
}

/// Deeper than any reader schema of ours; a writer's type that contains itself is not read that deep.
const DEEPEST: u32 = 16;

impl<'s> Look<'s> {
    fn value(&mut self, writer: &'s Schema, reader: &'s Schema) -> bool {
        self.depth += 1;
        let found = self.depth > DEEPEST
            || match (named(self.writers, writer), named(self.readers, reader)) {
                (Schema::Record(writer), Schema::Record(reader)) => self.record(writer, reader),
                (Schema::Array(writer), Schema::Array(reader)) => self.value(&writer.items, &reader.items),
                (Schema::Union(union), _) => {
                    let mut others = union.variants().iter().filter(|branch| **branch != Schema::Null);
                    let one = others.next().map(|branch| Kind::of(named(self.writers, branch)));
                    let is_plain = one.is_some_and(|kind| !matches!(kind, Kind::Record | Kind::Array | Kind::Map));
                    !is_plain || others.next().is_some() || union.variants().len() != 2
                }
                _ => false,
            };
        self.depth -= 1;
        found
    }

    fn record(&mut self, writer: &'s RecordSchema, reader: &'s RecordSchema) -> bool {
        reader.fields.iter().any(|read| {
            let by_name = writer.fields.iter().find(|field| field.name == read.name);
            let written = by_name.or_else(|| writer.fields.iter().find(|field| read.aliases.contains(&field.name)));
            written.is_some_and(|written| self.value(&written.schema, &read.schema))
        })
    }
}

fn named<'s>(names: &'s Names<'s>, schema: &'s Schema) -> &'s Schema {
    match schema {
        Schema::Ref { name } => names.get(name).copied().unwrap_or(schema),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value;
    use apache_avro::writer::datum::GenericDatumWriter;
    use serde_json::{Value as Json, json};

    use super::misreads;
    use crate::batch::BatchDecoder;
    use crate::decode::decode;
    use crate::event::AuditEvent;
    use crate::framing::{Position, WriterId};
    use crate::hash::content_hash_of;
    use crate::schemas::{AUDIT_EVENT_V1, Schemas};

    /// v1 with the actor's type wrapped and its id of another type.
    fn writer(wrap: &str, id: Json) -> String {
        let mut json: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
        let fields = json["fields"].as_array_mut().unwrap();
        let field = fields.iter_mut().find(|field| field["name"] == "actor").unwrap();
        let mut actor = field["type"].clone();
        let of_id = actor["fields"].as_array_mut().unwrap().iter_mut().find(|field| field["name"] == "id").unwrap();
        of_id["type"] = id;
        of_id.as_object_mut().unwrap().remove("default");
        field["type"] = match wrap {
            "null first" => json!(["null", actor]),
            "null last" => json!([actor, "null"]),
            "alone" => json!([actor]),
            _ => actor,
        };
        json.to_string()
    }

    /// What the tests' event is under such a schema: its body of v1 with the branches' numbers put in.
    fn record(json: &str, wrap: &str, id: &Json) -> Vec<u8> {
        let plain = Schema::parse_str(AUDIT_EVENT_V1).unwrap();
        let event = AuditEvent::builder("acme", "shop", "order.update", "order", "o-1").build().unwrap();
        let mut body = Vec::new();
        crate::encode::encode_body(&event, &mut body);
        let reader = GenericDatumReader::builder(&plain).build().unwrap();
        let Value::Record(mut fields) = reader.read_value(&mut &*body).unwrap() else { unreachable!() };
        let (_, actor) = fields.iter_mut().find(|(name, _)| name == "actor").unwrap();
        let Value::Record(of_actor) = actor else { unreachable!() };
        let (_, value) = of_actor.iter_mut().find(|(name, _)| name == "id").unwrap();
        let text = Value::String("u-7".to_owned());
        *value = match id.as_array().map(|branches| branches.iter().position(|branch| branch == "string")) {
            Some(at) => Value::Union(u32::try_from(at.unwrap()).unwrap(), Box::new(text)),
            None => text,
        };
        if wrap != "none" {
            *actor = Value::Union(u32::from(wrap == "null first"), Box::new(actor.clone()));
        }
        let schema = Schema::parse_str(json).unwrap();
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        let body = writer.write_value_to_vec(Value::Record(fields)).unwrap();
        [&[0, 0, 0, 0, 9][..], &body].concat()
    }

    #[test]
    fn unions_around_records_and_of_one_type_are_read_right() {
        let reader = Schema::parse_str(AUDIT_EVENT_V1).unwrap();
        for wrap in ["none", "null first", "null last", "alone"] {
            for id in [json!("string"), json!(["null", "string"]), json!(["string", "null"]), json!(["string"])] {
                let json = writer(wrap, id.clone());
                let expected = wrap != "none" || id == json!(["string"]);
                assert_eq!(misreads(&Schema::parse_str(&json).unwrap(), &reader), expected, "{wrap} {id}");

                let mut schemas = Schemas::builtin().unwrap();
                schemas.add(WriterId::Confluent(9), &json).unwrap();
                let record = record(&json, wrap, &id);
                let event = decode(&schemas, &record).unwrap();
                assert_eq!(event.actor.id.as_deref(), Some("u-7"));
                let known = Arc::new(schemas);
                for mut decoder in [BatchDecoder::new(known.clone()), BatchDecoder::reference(known.clone())] {
                    decoder.push(&record, Position { partition: 0, offset: 0, timestamp_ms: 0 }).unwrap();
                    let decoded = decoder.finish().unwrap();
                    assert_eq!(decoded[0].content_hashes.value(0), content_hash_of(&event), "{wrap} {id}");
                }
            }
        }
    }
}
