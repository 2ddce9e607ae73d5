//! Writer schemas made of v1 by small changes anywhere in it, and values of them.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{Name, ResolvedSchema, UuidSchema};
use auditstream_schemas::AUDIT_EVENT_V1;
use serde_json::{Value as Json, json};

use super::entropy::Entropy;

fn v1() -> Json {
    serde_json::from_str(AUDIT_EVENT_V1).unwrap()
}

/// Fields that a reader knows by another name too; the last one is of the actor.
const ALIASES: [(&str, &str); 4] =
    [("entity_name", "label"), ("details", "payload"), ("tenant_id", "customer"), ("email", "mail")];

/// v1 with aliases, and v1 with texts behind it.
pub(crate) fn readers() -> [String; 2] {
    let (mut aliases, mut newer) = (v1(), v1());
    let fields = aliases["fields"].as_array_mut().unwrap();
    for field in &mut *fields {
        if let Some(inner) = field["type"].get_mut("fields").and_then(Json::as_array_mut) {
            inner.iter_mut().for_each(with_alias);
        }
        with_alias(field);
    }
    let fields = newer["fields"].as_array_mut().unwrap();
    fields.push(json!({"name": "added0", "type": "string", "default": ""}));
    fields.push(json!({"name": "added1", "type": ["null", "string"], "default": null}));
    [aliases.to_string(), newer.to_string()]
}

fn with_alias(field: &mut Json) {
    if let Some((_, alias)) = ALIASES.iter().find(|(name, _)| field["name"] == *name) {
        field["aliases"] = json!([alias]);
    }
}

/// One fixed writer that differs in most ways that are allowed.
pub(crate) fn other() -> String {
    let mut schema = v1();
    let fields = schema["fields"].as_array_mut().unwrap();
    fields.retain(|field| !["environment", "changes", "priority"].contains(&field["name"].as_str().unwrap()));
    for field in &mut *fields {
        match field["name"].as_str().unwrap() {
            "details" => field["type"] = json!("bytes"),
            "request_id" => field["type"] = json!(["string", "null"]),
            "operation" => {
                field["type"] = json!({"type": "enum", "name": "Operation", "symbols": ["NEWER", "READ", "DELETE"]});
            }
            _ => continue,
        }
        field.as_object_mut().unwrap().remove("default");
    }
    fields.insert(3, json!({"name": "scores", "type": {"type": "array", "items": ["null", "double"]}}));
    fields.push(json!({"name": "labels", "type": {"type": "map", "values": "bytes"}}));
    schema.to_string()
}

/// The fields of one of the event's records.
fn some_fields<'s>(schema: &'s mut Json, entropy: &mut Entropy<'_>) -> &'s mut Vec<Json> {
    let nested = ["actor", "changes", "producer"];
    let which = entropy.below(2 * nested.len());
    let fields = schema["fields"].as_array_mut().unwrap();
    let inner = nested.get(which).and_then(|name| fields.iter().position(|f| f["name"] == *name));
    let inner = inner.filter(|at| {
        let kind = &fields[*at]["type"];
        kind["fields"].is_array() || kind["items"]["fields"].is_array()
    });
    match inner {
        Some(at) => {
            let kind = &mut fields[at]["type"];
            let kind = if kind["fields"].is_array() { kind } else { &mut kind["items"] };
            kind["fields"].as_array_mut().unwrap()
        }
        None => fields,
    }
}

/// A schema a few changes away from v1. Not each is valid, or can be read as v1.
pub(crate) fn made(entropy: &mut Entropy<'_>) -> Json {
    let mut schema = v1();
    for number in 0..entropy.below(6) {
        let fields = some_fields(&mut schema, entropy);
        if fields.is_empty() {
            continue;
        }
        let at = entropy.below(fields.len());
        match entropy.below(12) {
            0 => drop(fields.remove(at)),
            1 | 2 => {
                let field = json!({"name": format!("added{number}"), "type": some_type(entropy, number, 0)});
                let at = if entropy.chance(2) { fields.len() } else { at };
                fields.insert(at, field);
            }
            3 => set_type(&mut fields[at], some_type(entropy, number, 0)),
            4 => {
                let kind = fields[at]["type"].clone();
                if !kind.is_array() {
                    let order = if entropy.chance(2) { json!([kind, "null"]) } else { json!(["null", kind]) };
                    set_type(&mut fields[at], order);
                }
            }
            5 => {
                if let Some([first, second]) = fields[at]["type"].as_array().map(Vec::as_slice) {
                    let swapped = json!([second, first]);
                    set_type(&mut fields[at], swapped);
                }
            }
            6 => {
                let old = fields[at]["name"].take();
                fields[at]["aliases"] = json!([old]);
                // By the name that a reader has for it, or by one that nobody has.
                let known = ALIASES.iter().find(|(name, _)| old == *name).map(|(_, alias)| json!(alias));
                fields[at]["name"] = known.unwrap_or_else(|| json!(format!("renamed{number}")));
            }
            7 => {
                let other = fields[entropy.below(fields.len())]["name"].clone();
                fields[at]["aliases"] = json!([other]);
            }
            8 => change_symbols(&mut fields[at], entropy),
            9 => {
                let other = entropy.below(fields.len());
                fields.swap(at, other);
            }
            10 => {
                // A plain type in place of a logical one.
                let kind = fields[at]["type"]["type"].clone();
                if kind.is_string() && fields[at]["type"]["logicalType"].is_string() {
                    set_type(&mut fields[at], kind);
                }
            }
            _ => {
                let promoted = json!(*entropy.pick(&["int", "bytes", "string", "long"]));
                let kind = if fields[at]["type"].is_array() && entropy.chance(2) {
                    json!(["null", promoted])
                } else {
                    promoted
                };
                set_type(&mut fields[at], kind);
            }
        }
    }
    schema
}

fn set_type(field: &mut Json, kind: Json) {
    field["type"] = kind;
    // A writer's default says nothing, and would have to be of the new type.
    field.as_object_mut().unwrap().remove("default");
}

fn change_symbols(field: &mut Json, entropy: &mut Entropy<'_>) {
    let Some(symbols) = field["type"].get_mut("symbols").and_then(Json::as_array_mut) else { return };
    match entropy.below(4) {
        0 => symbols.insert(entropy.below(symbols.len() + 1), json!("NEWER")),
        1 => drop(symbols.pop()),
        2 => symbols.reverse(),
        _ => symbols.insert(0, json!("FIRST")),
    }
    let kind = field["type"].as_object_mut().unwrap();
    kind.remove("default");
    field.as_object_mut().unwrap().remove("default");
}

fn some_type(entropy: &mut Entropy<'_>, number: usize, depth: usize) -> Json {
    const PLAIN: [&str; 8] = ["string", "null", "boolean", "int", "long", "float", "double", "bytes"];
    let plain = json!(*entropy.pick(&PLAIN));
    if depth >= 3 {
        return plain;
    }
    match entropy.below(12) {
        0 => json!({"type": "array", "items": some_type(entropy, number, depth + 1)}),
        1 => json!({"type": "map", "values": some_type(entropy, number, depth + 1)}),
        2 => json!({"type": "record", "name": format!("Added{number}x{depth}"), "fields": [
            {"name": "a", "type": some_type(entropy, number, depth + 1)}]}),
        3 => json!(["null", plain.as_str().filter(|name| *name != "null").unwrap_or("string")]),
        4 => json!({"type": "fixed", "name": format!("Added{number}x{depth}"), "size": entropy.below(40)}),
        5 => json!({"type": "enum", "name": format!("Added{number}x{depth}"), "symbols": ["A", "B"]}),
        6 => {
            json!({"type": "long", "logicalType": *entropy.pick(&["timestamp-micros", "timestamp-millis", "time-micros"])})
        }
        7 => json!({"type": "string", "logicalType": "uuid"}),
        _ => plain,
    }
}

/// A value of the schema, encoded; `None` where the schema has a type that is not made here.
pub(crate) fn body(writer: &Schema, entropy: &mut Entropy<'_>) -> Option<Vec<u8>> {
    let names = ResolvedSchema::new(writer).ok()?;
    let mut out = Vec::new();
    value(writer, names.get_names(), "", entropy, 0, &mut out)?;
    Some(out)
}

fn long(number: i64, out: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    long(value.len() as i64, out);
    out.extend_from_slice(value);
}

fn text(field: &str, entropy: &mut Entropy<'_>) -> String {
    let uuid = "01900000-0000-7000-8000-00000000000A";
    let long = "0123456789abcdef0";
    if field == "event_id" && !entropy.chance(16) {
        return uuid.to_lowercase();
    }
    (*entropy.pick(&["a", "b", long, "", "\u{fc}", "{}", "\u{1f9fe} long and not ASCII", uuid])).to_owned()
}

fn value(
    schema: &Schema,
    names: &HashMap<Name, &Schema>,
    field: &str,
    entropy: &mut Entropy<'_>,
    depth: usize,
    out: &mut Vec<u8>,
) -> Option<()> {
    if depth > 20 {
        return None;
    }
    let depth = depth + 1;
    match schema {
        Schema::Null => {}
        Schema::Boolean => out.push(u8::from(entropy.chance(2))),
        Schema::Int | Schema::Date | Schema::TimeMillis => long(i64::from(entropy.long() as i32), out),
        Schema::Float => out.extend_from_slice(&(entropy.long() as f32).to_le_bytes()),
        Schema::Double => out.extend_from_slice(&(entropy.long() as f64).to_le_bytes()),
        Schema::Bytes if entropy.chance(8) => bytes(&[0xff, 0x80], out),
        Schema::Bytes | Schema::String | Schema::Uuid(UuidSchema::String) => {
            bytes(text(field, entropy).as_bytes(), out)
        }
        Schema::Fixed(fixed) => out.extend((0..fixed.size).map(|_| entropy.byte())),
        Schema::Enum(symbols) => long(entropy.below(symbols.symbols.len()) as i64, out),
        Schema::Ref { name } => value(names.get(name)?, names, field, entropy, depth, out)?,
        Schema::Record(record) => {
            for field in &record.fields {
                value(&field.schema, names, &field.name, entropy, depth, out)?;
            }
        }
        Schema::Array(array) => {
            let count = entropy.below(4);
            if count > 0 {
                let mut block = Vec::new();
                for _ in 0..count {
                    value(&array.items, names, "", entropy, depth, &mut block)?;
                }
                if entropy.chance(4) {
                    long(-(count as i64), out);
                    long(block.len() as i64, out);
                } else {
                    long(count as i64, out);
                }
                out.extend(block);
            }
            out.push(0);
        }
        Schema::Map(map) => {
            let count = entropy.below(3);
            if count > 0 {
                long(count as i64, out);
                for number in 0..count {
                    bytes(&[b'a' + number as u8], out);
                    value(&map.types, names, "", entropy, depth, out)?;
                }
            }
            out.push(0);
        }
        Schema::Union(union) => {
            let branch = entropy.below(union.variants().len());
            long(branch as i64, out);
            value(&union.variants()[branch], names, field, entropy, depth, out)?;
        }
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => long(entropy.long(), out),
        _ => return None,
    }
    Some(())
}

/// Damages a body in a few places.
pub(crate) fn spoil(body: &mut Vec<u8>, entropy: &mut Entropy<'_>) {
    for _ in 0..=entropy.below(3) {
        let at = entropy.index(body.len() + 1);
        match entropy.below(5) {
            0 if at < body.len() => body[at] ^= entropy.byte(),
            1 => body.insert(at, entropy.byte()),
            2 if at < body.len() => drop(body.remove(at)),
            3 => body.truncate(at),
            _ => {
                let mut number = Vec::new();
                long(entropy.long(), &mut number);
                drop(body.splice(at..at, number));
            }
        }
    }
}
