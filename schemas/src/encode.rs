//! An event to Avro bytes: straight-line code for schema v1, with no schema walk and no allocation beside the output.
//!
//! The bytes are those any Avro implementation writes for `audit_event.v1.avsc`; the tests compare with apache-avro
//! and fastavro.

use crate::event::{AuditEvent, Change};
use crate::framing::{CONFLUENT_MAGIC, Framing, SINGLE_OBJECT_MAGIC};
use crate::schemas::V1_FINGERPRINT;

/// What most events take: one allocation into an empty output.
const USUAL_BYTES: usize = 512;

/// Appends the framed event to `out`. The event is not checked: see [`AuditEvent::validate`].
pub fn encode(event: &AuditEvent, framing: Framing, out: &mut Vec<u8>) {
    out.reserve(USUAL_BYTES);
    match framing {
        Framing::SingleObject => {
            out.extend_from_slice(&SINGLE_OBJECT_MAGIC);
            out.extend_from_slice(&V1_FINGERPRINT.to_le_bytes());
        }
        Framing::Confluent { schema_id } => {
            out.push(CONFLUENT_MAGIC);
            out.extend_from_slice(&schema_id.to_be_bytes());
        }
    }
    encode_body(event, out);
}

/// Appends the event's Avro body without a frame.
pub(crate) fn encode_body(event: &AuditEvent, out: &mut Vec<u8>) {
    encode_content::<false>(event, out);
    text(&event.producer.id, out);
    long(event.producer.epoch, out);
    long(event.producer.seq, out);
}

/// Appends the body's part in front of `producer`. `CANONICAL`: with empty optional texts as null, so that what means the same has the same bytes.
pub(crate) fn encode_content<const CANONICAL: bool>(event: &AuditEvent, out: &mut Vec<u8>) {
    let optional = |value: &Option<String>, out: &mut Vec<u8>| {
        optional(value.as_deref().filter(|text| !CANONICAL || !text.is_empty()), out);
    };
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    text(event.event_id.hyphenated().encode_lower(&mut id), out);
    long(event.occurred_at.as_micros(), out);
    text(&event.tenant_id, out);
    text(&event.service, out);
    text(&event.environment, out);
    text(&event.action, out);
    symbol(event.operation as u8, out);
    text(&event.entity_type, out);
    text(&event.entity_id, out);
    optional(&event.entity_name, out);
    symbol(event.actor.kind as u8, out);
    optional(&event.actor.id, out);
    optional(&event.actor.name, out);
    optional(&event.actor.email, out);
    optional(&event.actor.session_id, out);
    optional(&event.on_behalf_of, out);
    symbol(event.outcome as u8, out);
    optional(&event.error_message, out);
    if !event.changes.is_empty() {
        long(event.changes.len() as i64, out);
        for change in &event.changes {
            text(&change.path, out);
            optional(&change.old, out);
            optional(&change.new, out);
        }
    }
    out.push(0);
    optional(&event.ip, out);
    optional(&event.user_agent, out);
    optional(&event.request_id, out);
    optional(&event.correlation_id, out);
    optional(&event.trace_id, out);
    optional(&event.http_method, out);
    optional(&event.http_path, out);
    symbol(event.priority as u8, out);
    text(&event.details, out);
}

/// The exact length of the event's Avro body in bytes, without a frame.
pub fn encoded_len(event: &AuditEvent) -> usize {
    let actor = &event.actor;
    let texts = [
        &event.tenant_id,
        &event.service,
        &event.environment,
        &event.action,
        &event.entity_type,
        &event.entity_id,
        &event.details,
        &event.producer.id,
    ];
    let optionals = [
        &event.entity_name,
        &actor.id,
        &actor.name,
        &actor.email,
        &actor.session_id,
        &event.on_behalf_of,
        &event.error_message,
        &event.ip,
        &event.user_agent,
        &event.request_id,
        &event.correlation_id,
        &event.trace_id,
        &event.http_method,
        &event.http_path,
    ];
    let longs = [event.occurred_at.as_micros(), event.producer.epoch, event.producer.seq];
    let id_and_symbols = 1 + uuid::fmt::Hyphenated::LENGTH + 4;
    id_and_symbols
        + texts.into_iter().map(|t| text_len(t)).sum::<usize>()
        + optionals.into_iter().map(optional_len).sum::<usize>()
        + longs.into_iter().map(|n| varint_len(zigzag(n))).sum::<usize>()
        + changes_len(&event.changes)
}

fn changes_len(changes: &[Change]) -> usize {
    let items: usize = changes.iter().map(|c| text_len(&c.path) + optional_len(&c.old) + optional_len(&c.new)).sum();
    if changes.is_empty() { 1 } else { varint_len(zigzag(changes.len() as i64)) + items + 1 }
}

#[inline]
fn text(value: &str, out: &mut Vec<u8>) {
    bytes(value.as_bytes(), out);
}

#[inline]
pub(crate) fn bytes(value: &[u8], out: &mut Vec<u8>) {
    long(value.len() as i64, out);
    out.extend_from_slice(value);
}

fn text_len(value: &str) -> usize {
    varint_len(zigzag(value.len() as i64)) + value.len()
}

/// The union `["null", "string"]`: branch 0, or branch 1 (zigzag 2) and the text.
#[inline]
fn optional(value: Option<&str>, out: &mut Vec<u8>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(2);
            text(value, out);
        }
    }
}

fn optional_len(value: &Option<String>) -> usize {
    1 + value.as_deref().map_or(0, text_len)
}

/// An enum index below 64: zigzag fits one byte.
#[inline]
pub(crate) fn symbol(index: u8, out: &mut Vec<u8>) {
    out.push(index << 1);
}

#[inline]
pub(crate) fn long(value: i64, out: &mut Vec<u8>) {
    let mut n = zigzag(value);
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[inline]
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
const fn varint_len(n: u64) -> usize {
    // 7 bits a byte; most lengths fit one.
    if n < 0x80 { 1 } else { (70 - n.leading_zeros() as usize) / 7 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints() {
        for (value, bytes) in [
            (0, vec![0]),
            (-1, vec![1]),
            (1, vec![2]),
            (63, vec![0x7e]),
            (64, vec![0x80, 1]),
            (i64::MAX, vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            (i64::MIN, vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut out = Vec::new();
            long(value, &mut out);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(varint_len(zigzag(value)), bytes.len(), "{value}");
        }
    }
}
