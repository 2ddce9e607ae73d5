//! The Kafka headers of an event: CloudEvents 1.0, binary content mode of its Kafka binding
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>), and W3C trace context.
//!
//! | header | value |
//! |---|---|
//! | `ce_specversion` | `1.0` |
//! | `ce_id` | the event's id |
//! | `ce_type` | `auditstream.v1.AuditEvent` for every event: what a router needs to know is which contract the payload follows; the action, which anyone may invent, is in the payload |
//! | `ce_source` | `/environment/service`, each percent-encoded |
//! | `ce_time` | when it happened, RFC 3339 |
//! | `content-type` | `application/avro` |
//! | `traceparent` | only if the caller gave one |
//!
//! Without [`Config::cloud_events`](crate::Config::cloud_events) there is the last one alone.

use std::fmt::Write;

use auditstream_schemas::{AuditEvent, Timestamp};
use rdkafka::message::{Header, OwnedHeaders};
use uuid::Uuid;

/// The value of `ce_type`.
pub const CE_TYPE: &str = "auditstream.v1.AuditEvent";

/// Upper bound of what the headers take, without `ce_source`'s text: names, values and their lengths.
pub(crate) const FIXED_BYTES: usize = 320;

/// A W3C `traceparent` of version 00, such as `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent([u8; 55]);

impl TraceParent {
    /// Takes the header's text; `None` when it is not a valid version-00 `traceparent`.
    pub fn parse(text: &str) -> Option<TraceParent> {
        let bytes: [u8; 55] = text.as_bytes().try_into().ok()?;
        let hex = |range: std::ops::Range<usize>| {
            let digits = &bytes[range];
            digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let some = |range: std::ops::Range<usize>| bytes[range].iter().any(|b| *b != b'0');
        let dashes = bytes[2] == b'-' && bytes[35] == b'-' && bytes[52] == b'-';
        let digits = hex(0..2) && hex(3..35) && hex(36..52) && hex(53..55);
        let valid = dashes && digits && &bytes[..2] == b"00" && some(3..35) && some(36..52);
        valid.then_some(TraceParent(bytes))
    }

    /// The trace's id: 32 lower-case hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        // All 55 bytes are ASCII: `parse` has looked.
        std::str::from_utf8(&self.0[3..35]).unwrap_or_default()
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for TraceParent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Only ASCII digits and dashes came through `parse`.
        self.0.iter().try_for_each(|byte| f.write_char(char::from(*byte)))
    }
}

/// The value of `ce_source`.
#[cfg(feature = "outbox")]
pub(crate) fn source(event: &AuditEvent) -> String {
    let mut source = String::new();
    push_source(&mut source, event);
    source
}

fn push_source(out: &mut String, event: &AuditEvent) {
    for part in [&event.environment, &event.service] {
        out.push('/');
        push_percent_encoded(out, part);
    }
}

/// What the CloudEvents headers say that differs from event to event.
pub(crate) struct CloudEvent<'a> {
    pub(crate) id: &'a str,
    pub(crate) source: &'a str,
    pub(crate) time: &'a str,
}

/// Makes the headers; keeps its texts between events: most come from one service on one day.
#[derive(Debug, Default)]
pub(crate) struct HeaderWriter {
    /// Whether they are CloudEvents.
    pub(crate) cloud_events: bool,
    source: Source,
    time: Time,
}

impl HeaderWriter {
    /// The values of `ce_source` and `ce_time`.
    pub(crate) fn texts(&mut self, event: &AuditEvent) -> (&str, &str) {
        (self.source.of(event), self.time.of(event.occurred_at))
    }

    pub(crate) fn headers(&mut self, event: &AuditEvent, traceparent: Option<&TraceParent>) -> Option<OwnedHeaders> {
        // All 55 bytes are ASCII: `parse` has looked.
        let traceparent =
            traceparent.map(|traceparent| std::str::from_utf8(traceparent.as_bytes()).unwrap_or_default());
        if !self.cloud_events {
            return headers(None, traceparent);
        }
        let mut buffer = id_buffer();
        let (source, time) = self.texts(event);
        let id = id_text(&event.event_id, &mut buffer);
        headers(Some(&CloudEvent { id, source, time }), traceparent)
    }
}

pub(crate) fn id_buffer() -> [u8; uuid::fmt::Hyphenated::LENGTH] {
    [0; uuid::fmt::Hyphenated::LENGTH]
}

/// An event's id as text.
pub(crate) fn id_text<'a>(id: &Uuid, buffer: &'a mut [u8; uuid::fmt::Hyphenated::LENGTH]) -> &'a str {
    id.hyphenated().encode_lower(buffer)
}

/// The headers of an event whose parts are known; `None` when it has none.
pub(crate) fn headers(cloud_event: Option<&CloudEvent<'_>>, traceparent: Option<&str>) -> Option<OwnedHeaders> {
    let count = cloud_event.map_or(0, |_| 6) + usize::from(traceparent.is_some());
    if count == 0 {
        return None;
    }
    let mut headers = OwnedHeaders::new_with_capacity(count);
    if let Some(CloudEvent { id, source, time }) = cloud_event {
        headers = headers
            .insert(text("ce_specversion", "1.0"))
            .insert(text("ce_id", id))
            .insert(text("ce_type", CE_TYPE))
            .insert(text("ce_source", source))
            .insert(text("ce_time", time))
            .insert(text("content-type", "application/avro"));
    }
    Some(match traceparent {
        Some(traceparent) => headers.insert(text("traceparent", traceparent)),
        None => headers,
    })
}

/// The last event's `ce_source`.
#[derive(Debug, Default)]
struct Source {
    environment: String,
    service: String,
    text: String,
}

impl Source {
    fn of(&mut self, event: &AuditEvent) -> &str {
        if self.text.is_empty() || self.service != event.service || self.environment != event.environment {
            self.environment.clone_from(&event.environment);
            self.service.clone_from(&event.service);
            self.text.clear();
            push_source(&mut self.text, event);
        }
        &self.text
    }
}

/// The last event's `ce_time`: the text of [`Timestamp`], whose date is the same for a whole day.
#[derive(Debug, Default)]
struct Time {
    text: String,
    /// The day since 1970 whose date, with the `T`, is the first [`Self::DATE`] bytes of the text.
    day: Option<i64>,
}

impl Time {
    const DATE: usize = "2026-01-31T".len();
    const DAY_MICROS: i64 = 86_400_000_000;

    fn of(&mut self, at: Timestamp) -> &str {
        let day = at.as_micros().div_euclid(Self::DAY_MICROS);
        if self.day == Some(day) {
            self.text.truncate(Self::DATE);
            self.push_clock(at.as_micros().rem_euclid(Self::DAY_MICROS) as u64);
        } else {
            self.text.clear();
            // Writing to a String can't fail.
            let _ = write!(self.text, "{at}");
            // Years before 0 and after 9999 have another form.
            self.day = (self.text.as_bytes().get(Self::DATE - 1) == Some(&b'T')).then_some(day);
        }
        &self.text
    }

    /// `09:30:00.125Z`: as few decimals as say it exactly.
    fn push_clock(&mut self, micros: u64) {
        let (seconds, mut fraction) = (micros / 1_000_000, micros % 1_000_000);
        let digit = |number: u64| char::from(b'0' + (number % 10) as u8);
        for (number, end) in [(seconds / 3_600, ":"), (seconds / 60 % 60, ":"), (seconds % 60, "")] {
            self.text.push(digit(number / 10));
            self.text.push(digit(number));
            self.text.push_str(end);
        }
        if fraction > 0 {
            self.text.push('.');
        }
        while fraction > 0 {
            self.text.push(digit(fraction / 100_000));
            fraction = fraction % 100_000 * 10;
        }
        self.text.push('Z');
    }
}

fn text<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header { key, value: Some(value) }
}

/// RFC 3986: everything but unreserved characters is encoded.
fn push_percent_encoded(out: &mut String, part: &str) {
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte as char);
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use rdkafka::message::Headers;

    use super::*;

    #[test]
    fn a_traceparent_is_checked() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(TraceParent::parse(good).unwrap().as_bytes(), good.as_bytes());
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn headers_are_cloudevents_binary_mode() {
        let event = AuditEvent::builder("acme", "über/shop", "order.update", "order", "42").build().unwrap();
        let mut writer = HeaderWriter { cloud_events: true, ..HeaderWriter::default() };
        for _ in 0..2 {
            let headers = writer.headers(&event, None).unwrap();
            let found: Vec<(String, String)> = headers
                .iter()
                .map(|h| (h.key.to_owned(), String::from_utf8(h.value.unwrap().to_vec()).unwrap()))
                .collect();
            let expected = [
                ("ce_specversion", "1.0".to_owned()),
                ("ce_id", event.event_id.to_string()),
                ("ce_type", "auditstream.v1.AuditEvent".to_owned()),
                ("ce_source", "/default/%C3%BCber%2Fshop".to_owned()),
                ("ce_time", event.occurred_at.to_string()),
                ("content-type", "application/avro".to_owned()),
            ];
            assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v)));
            let taken: usize = found.iter().map(|(k, v)| k.len() + v.len() + 4).sum();
            assert!(taken + 13 + 55 <= FIXED_BYTES + event.service.len() * 3 + event.environment.len() * 3, "{taken}");
        }
        let mut other = event.clone();
        other.service = "shop".to_owned();
        for (event, source) in
            [(&event, "/default/%C3%BCber%2Fshop"), (&other, "/default/shop"), (&other, "/default/shop")]
        {
            let headers = writer.headers(event, None).unwrap();
            assert_eq!(headers.get(3).value, Some(source.as_bytes()));
        }
        let traced = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let headers = writer.headers(&event, traced.as_ref()).unwrap();
        assert_eq!(headers.get(6).key, "traceparent");
        let mut without = HeaderWriter::default();
        assert!(without.headers(&event, None).is_none());
        let headers = without.headers(&event, traced.as_ref()).unwrap();
        assert_eq!((headers.count(), headers.get(0).key), (1, "traceparent"));
    }

    #[test]
    fn the_time_is_written_as_the_timestamp_writes_itself() {
        let mut time = Time::default();
        let mut check = |micros: i64| {
            let at = Timestamp::from_micros(micros);
            assert_eq!(time.of(at), at.to_string());
        };
        let day = Time::DAY_MICROS;
        // Around midnight, with and without decimals, in the order in which a cached date would be wrong.
        for start in [0, day, -day, -1, 1_769_860_800_000_000, Timestamp::MIN_STORABLE.as_micros(), day - 1_000_000] {
            for step in [0, 1, 10, 100_000, 120_000, 999_999, 1_000_000, 59_999_999, 3_600_000_000, day - 1, day, 0] {
                check(start + step);
                check(start - step);
            }
        }
        for extreme in [i64::MIN, i64::MAX, i64::MIN, Timestamp::MAX_STORABLE.as_micros(), i64::MAX, i64::MAX - 1] {
            check(extreme);
        }
        for number in 0..100_000_i64 {
            check(number * 86_413_111_337 % (400 * 366 * day) + number);
        }
    }
}
