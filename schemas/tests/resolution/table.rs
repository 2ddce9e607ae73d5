//! The table itself: writer, reader, what is written, what must be read.

use super::*;

pub(crate) fn table() -> Vec<Case> {
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
        Case::new("bytes are not read as a UUID", Unusable("event_id"))
            .writer(|f| retype(f, "event_id", json!("bytes")))
            .writes("event_id", Value::Bytes(typical().event_id.to_string().into_bytes()))
            .others(Others::Read),
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
