//! One record to an [`AuditEvent`], for tools and dead letters: apache-avro behind the same guard as the hot path.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use uuid::Uuid;

use crate::batch::unknown_schema;
use crate::event::{Actor, AuditEvent, Change, ProducerStamp, Timestamp};
use crate::framing::{Poison, PoisonCode, WriterId, split};
use crate::schemas::{Known, Schemas};

/// Decodes one framed record of any known writer schema, resolved to the reader schema.
///
/// # Errors
/// The record is poison, for the same reason that [`crate::BatchDecoder::push`] would give.
pub fn decode(schemas: &Schemas, record: &[u8]) -> Result<AuditEvent, Poison> {
    let (id, body) = split(record)?;
    let known = schemas.get(id).ok_or_else(|| unknown_schema(id))?;
    known.guard.check(body)?;
    event(resolved(id, known, schemas.bare_reader(), body)?)
        .map_err(|field| refused(id, &format!("field {field} has another type")))
}

/// The value that the reader schema makes of a body that the guard has passed.
fn resolved(id: WriterId, known: &Known, reader: &Schema, body: &[u8]) -> Result<Value, Poison> {
    let refused_by_avro = |error: apache_avro::Error| refused(id, &error.to_string());
    let resolver = GenericDatumReader::builder(&known.writer).reader_schema(reader).build();
    let mut rest = body;
    let value = resolver.and_then(|resolver| resolver.read_value(&mut rest)).map_err(refused_by_avro)?;
    if !rest.is_empty() {
        return Err(refused(id, &format!("{} bytes were left over", rest.len())));
    }
    Ok(value)
}

/// The same, as the body that a writer with the reader schema would have written.
pub(crate) fn as_reader_writes(id: WriterId, known: &Known, reader: &Schema, body: &[u8]) -> Result<Vec<u8>, Poison> {
    let value = resolved(id, known, reader, body)?;
    let writer = GenericDatumWriter::builder(reader).build();
    writer.and_then(|writer| writer.write_value_to_vec(value)).map_err(|error| refused(id, &error.to_string()))
}

/// Poison: well-formed, but not to be read as the reader schema.
pub(crate) fn refused(id: WriterId, reason: &str) -> Poison {
    Poison::new(PoisonCode::Unresolvable, format!("events of schema {id} can't be read here: {reason}"))
}

/// A field whose value is not what the reader schema says.
type Wrong = &'static str;

fn event(value: Value) -> Result<AuditEvent, Wrong> {
    let mut f = Fields::of(value, "the event")?;
    Ok(AuditEvent {
        event_id: f.uuid("event_id")?,
        occurred_at: Timestamp::from_micros(f.long("occurred_at")?),
        tenant_id: f.text("tenant_id")?,
        service: f.text("service")?,
        environment: f.text("environment")?,
        action: f.text("action")?,
        operation: f.symbol("operation")?,
        entity_type: f.text("entity_type")?,
        entity_id: f.text("entity_id")?,
        entity_name: f.optional("entity_name")?,
        actor: {
            let mut f = Fields::of(f.take("actor")?, "actor")?;
            Actor {
                kind: f.symbol("kind")?,
                id: f.optional("id")?,
                name: f.optional("name")?,
                email: f.optional("email")?,
                session_id: f.optional("session_id")?,
            }
        },
        on_behalf_of: f.optional("on_behalf_of")?,
        outcome: f.symbol("outcome")?,
        error_message: f.optional("error_message")?,
        changes: match f.take("changes")? {
            Value::Array(items) => items.into_iter().map(change).collect::<Result<_, _>>()?,
            _ => return Err("changes"),
        },
        ip: f.optional("ip")?,
        user_agent: f.optional("user_agent")?,
        request_id: f.optional("request_id")?,
        correlation_id: f.optional("correlation_id")?,
        trace_id: f.optional("trace_id")?,
        http_method: f.optional("http_method")?,
        http_path: f.optional("http_path")?,
        priority: f.symbol("priority")?,
        details: f.text("details")?,
        producer: {
            let mut f = Fields::of(f.take("producer")?, "producer")?;
            ProducerStamp { id: f.text("id")?, epoch: f.long("epoch")?, seq: f.long("seq")? }
        },
    })
}

fn change(value: Value) -> Result<Change, Wrong> {
    let mut f = Fields::of(value, "changes")?;
    Ok(Change { path: f.text("path")?, old: f.optional("old")?, new: f.optional("new")? })
}

/// The fields of a record, taken out by name.
struct Fields(Vec<(String, Value)>);

impl Fields {
    fn of(value: Value, name: Wrong) -> Result<Self, Wrong> {
        match value {
            Value::Record(fields) => Ok(Self(fields)),
            _ => Err(name),
        }
    }

    fn take(&mut self, name: Wrong) -> Result<Value, Wrong> {
        let field = self.0.iter_mut().find(|(n, _)| n == name).ok_or(name)?;
        Ok(std::mem::replace(&mut field.1, Value::Null))
    }

    fn text(&mut self, name: Wrong) -> Result<String, Wrong> {
        match self.take(name)? {
            Value::String(text) => Ok(text),
            _ => Err(name),
        }
    }

    /// Null and the empty string are the same: absent.
    fn optional(&mut self, name: Wrong) -> Result<Option<String>, Wrong> {
        match self.take(name)? {
            Value::Union(_, value) => match *value {
                Value::Null => Ok(None),
                Value::String(text) => Ok(Some(text).filter(|t| !t.is_empty())),
                _ => Err(name),
            },
            _ => Err(name),
        }
    }

    fn long(&mut self, name: Wrong) -> Result<i64, Wrong> {
        match self.take(name)? {
            Value::Long(n) => Ok(n),
            _ => Err(name),
        }
    }

    fn uuid(&mut self, name: Wrong) -> Result<Uuid, Wrong> {
        match self.take(name)? {
            Value::String(text) => Uuid::parse_str(&text).map_err(|_| name),
            _ => Err(name),
        }
    }

    fn symbol<T: std::str::FromStr>(&mut self, name: Wrong) -> Result<T, Wrong> {
        match self.take(name)? {
            Value::Enum(_, symbol) => symbol.parse().map_err(|_| name),
            _ => Err(name),
        }
    }
}
