//! What one event takes: in memory, for the byte bound, and at most on the wire, for the message limit.
//!
//! Called for each event on the caller's thread, so it only adds lengths.

use auditstream_schemas::{AuditEvent, Change, encoded_len};

use crate::headers;

/// What an event takes beside its text once librdkafka has it: its message, seven headers, our ticket, and the allocator's
/// share. Measured with 65,536 events and no broker: 1,340 bytes each resident, of which about 330 were text.
const OVERHEAD: usize = 1_024;
/// The frame in front of a record, and the producer's epoch and sequence number that are written in later.
const FRAME_AND_STAMP: usize = 10 + 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Bytes held while the event is on its way.
    pub(crate) memory: usize,
    /// Bytes of the Kafka message with key and headers, at most.
    pub(crate) message: usize,
}

impl Size {
    /// `producer_id` is the length of the id that will be written into an event that has none.
    pub(crate) fn of(event: &AuditEvent, producer_id: usize) -> Size {
        Size::with_body(event, encoded_len(event), producer_id)
    }

    /// The same for whoever knows the length of the encoded event, without its frame.
    pub(crate) fn with_body(event: &AuditEvent, body: usize, producer_id: usize) -> Size {
        let key = event.tenant_id.len() + event.entity_type.len() + event.entity_id.len();
        let source = event.service.len() + event.environment.len();
        // Percent-encoding makes three bytes of one in the key and in ce_source.
        let around = 3 * (key + source) + headers::FIXED_BYTES;
        Size {
            memory: OVERHEAD.max(size_of::<AuditEvent>()) + body + event.changes.len() * size_of::<Change>(),
            message: body + producer_id + FRAME_AND_STAMP + around,
        }
    }
}

impl Size {
    /// The same when this many bytes are added to the event later.
    pub(crate) fn plus(self, bytes: usize) -> Size {
        Size { memory: self.memory + bytes, message: self.message + bytes }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use auditstream_schemas::{Framing, encode};

    use super::*;

    #[test]
    fn the_message_bound_holds_and_is_not_far_off() {
        let small = AuditEvent::builder("t", "s", "a", "e", "i");
        let mut large = AuditEvent::builder("tenant/%/1", "service", "order.update", "order%%%%", "42////")
            .details(format!("{{\"a\":\"{}\"}}", "y".repeat(9_000)));
        for index in 0..50 {
            large = large.change(format!("/items/{index}/price"), Some("1"), Some("\"two\""));
        }
        for event in [small.build().unwrap(), large.build().unwrap()] {
            let bound = Size::of(&event, 4).message;
            let mut stamped = event;
            stamped.producer.id = "host".to_owned();
            stamped.producer.epoch = i64::MAX;
            stamped.producer.seq = i64::MIN;
            let mut wire = Vec::new();
            encode(&stamped, Framing::SingleObject, &mut wire);
            let actual = wire.len() + stamped.key().len() + headers::FIXED_BYTES;
            assert!((actual..actual + 200).contains(&bound), "{actual} {bound}");
        }
    }
}
