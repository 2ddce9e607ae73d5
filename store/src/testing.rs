//! Decoded batches for this crate's tests.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use auditstream_schemas::{AuditEvent, BatchDecoder, Decoded, Framing, Position, Schemas, Timestamp, encode};

/// An event with nothing optional in it, the same one at every call with the same number.
pub(crate) fn event(number: u128) -> AuditEvent {
    AuditEvent::builder("tenant", "service", "order.update", "order", format!("id-{number}"))
        .event_id(uuid::Uuid::from_u128(number))
        .occurred_at(Timestamp::from_micros(1_790_000_000_000_000))
        .build()
        .unwrap()
}

/// `events` as the consumer decodes them, read from partition 3 at offsets from `offset`.
pub(crate) fn decoded(events: &[AuditEvent], offset: i64) -> Decoded {
    let mut decoder = BatchDecoder::new(Arc::new(Schemas::builtin().unwrap()));
    for (at, event) in (offset..).zip(events) {
        let mut record = Vec::new();
        encode(event, Framing::SingleObject, &mut record);
        decoder.push(&record, Position { partition: 3, offset: at, timestamp_ms: 1_790_000_000_000 + at }).unwrap();
    }
    decoder.finish().unwrap().remove(0)
}
