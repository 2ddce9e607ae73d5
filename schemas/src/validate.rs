//! What an event must be so that it can be encoded, sent through Kafka and stored in ClickHouse exactly.
//!
//! [`AuditEvent::validate`] finds every problem at once. A problem names the field, the kind of the value found and
//! what would be right; it never repeats the value, so that it can be logged.

use std::fmt;

use crate::encode::encoded_len;
use crate::event::{AuditEvent, Timestamp};
use crate::json_scan::is_json;

/// Limits on an event's parts, in bytes of UTF-8 unless said otherwise.
pub mod limits {
    /// Ids: tenant, entity, actor, session, request, correlation, trace, producer; and service, environment, entity type.
    pub const ID_BYTES: usize = 512;
    /// Names people read: entity, actor, e-mail.
    pub const NAME_BYTES: usize = 1024;
    /// The action.
    pub const ACTION_BYTES: usize = 256;
    /// The client's address (an IPv6 address with a zone fits) and the HTTP method.
    pub const SHORT_BYTES: usize = 64;
    /// The User-Agent header.
    pub const USER_AGENT_BYTES: usize = 2048;
    /// The HTTP path, and the path of a change.
    pub const PATH_BYTES: usize = 4096;
    /// The error message.
    pub const ERROR_MESSAGE_BYTES: usize = 8192;
    /// The old or the new value of one change.
    pub const CHANGE_VALUE_BYTES: usize = 64 * 1024;
    /// Changes in one event.
    pub const CHANGES: usize = 10_000;
    /// The details object.
    pub const DETAILS_BYTES: usize = 256 * 1024;
    /// The encoded event without its frame: with key and headers it stays below Kafka's default `max.message.bytes` of 1 MiB.
    pub const ENCODED_BYTES: usize = 900 * 1024;
}

/// One thing wrong with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field's path, such as `entity_id` or `changes[3].old`; empty when it is the event as a whole.
    pub field: String,
    /// The kind of the value found, never the value: `an empty string`.
    pub found: String,
    /// What would be right: `1 to 512 bytes of text`.
    pub expected: String,
}

impl Problem {
    pub(crate) fn new(field: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { field: field.into(), found: found.into(), expected: expected.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() { "the event" } else { &self.field };
        write!(f, "{field}: found {}, expected {}", self.found, self.expected)
    }
}

/// Why an event is refused: all of its problems, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventError {
    /// In the order of the fields.
    pub problems: Vec<Problem>,
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for EventError {}

impl AuditEvent {
    /// Whether the event can be encoded, sent and stored exactly.
    ///
    /// # Errors
    /// Every problem, in field order.
    pub fn validate(&self) -> Result<(), EventError> {
        self.checked_len().map(|_| ())
    }

    /// The same, and what [`encoded_len`] answers, which the check needs anyway.
    ///
    /// # Errors
    /// Every problem, in field order.
    pub fn checked_len(&self) -> Result<usize, EventError> {
        let mut check = Check::default();
        check.time("occurred_at", self.occurred_at);
        check.required("tenant_id", &self.tenant_id, limits::ID_BYTES);
        check.required("service", &self.service, limits::ID_BYTES);
        check.required("environment", &self.environment, limits::ID_BYTES);
        check.required("action", &self.action, limits::ACTION_BYTES);
        check.required("entity_type", &self.entity_type, limits::ID_BYTES);
        check.required("entity_id", &self.entity_id, limits::ID_BYTES);
        check.optional("entity_name", &self.entity_name, limits::NAME_BYTES);
        check.optional("actor.id", &self.actor.id, limits::ID_BYTES);
        check.optional("actor.name", &self.actor.name, limits::NAME_BYTES);
        check.optional("actor.email", &self.actor.email, limits::NAME_BYTES);
        check.optional("actor.session_id", &self.actor.session_id, limits::ID_BYTES);
        check.optional("on_behalf_of", &self.on_behalf_of, limits::ID_BYTES);
        check.optional("error_message", &self.error_message, limits::ERROR_MESSAGE_BYTES);
        check.changes(self);
        check.optional("ip", &self.ip, limits::SHORT_BYTES);
        check.optional("user_agent", &self.user_agent, limits::USER_AGENT_BYTES);
        check.optional("request_id", &self.request_id, limits::ID_BYTES);
        check.optional("correlation_id", &self.correlation_id, limits::ID_BYTES);
        check.optional("trace_id", &self.trace_id, limits::ID_BYTES);
        check.optional("http_method", &self.http_method, limits::SHORT_BYTES);
        check.optional("http_path", &self.http_path, limits::PATH_BYTES);
        check.details(&self.details);
        check.at_most("producer.id", &self.producer.id, limits::ID_BYTES);
        let len = check.whole(self);
        if check.problems.is_empty() { Ok(len) } else { Err(EventError { problems: check.problems }) }
    }
}

/// Gathers problems.
#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn add(&mut self, field: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) {
        self.problems.push(Problem::new(field, found, expected));
    }

    fn time(&mut self, field: &str, at: Timestamp) {
        if !at.is_storable() {
            let found = if at < Timestamp::MIN_STORABLE { "a time before 1900" } else { "a time after 2299" };
            self.add(field, found, "a time from 1900-01-01T00:00:00Z to 2299-12-31T23:59:59.999999Z");
        }
    }

    fn required(&mut self, field: &str, value: &str, max: usize) {
        if value.is_empty() || value.len() > max {
            self.add(field, text_kind(value), format!("1 to {max} bytes of text"));
        }
    }

    fn at_most(&mut self, field: &str, value: &str, max: usize) {
        if value.len() > max {
            self.add(field, text_kind(value), format!("at most {max} bytes of text"));
        }
    }

    fn optional(&mut self, field: &str, value: &Option<String>, max: usize) {
        if let Some(value) = value
            && (value.is_empty() || value.len() > max)
        {
            self.add(field, text_kind(value), format!("1 to {max} bytes of text, or nothing"));
        }
    }

    fn changes(&mut self, event: &AuditEvent) {
        if event.changes.len() > limits::CHANGES {
            let found = format!("{} changes", event.changes.len());
            self.add("changes", found, format!("at most {} changes", limits::CHANGES));
            return;
        }
        for (i, change) in event.changes.iter().enumerate() {
            if change.path.len() > limits::PATH_BYTES {
                let expected = format!("at most {} bytes of text", limits::PATH_BYTES);
                self.add(format!("changes[{i}].path"), text_kind(&change.path), expected);
            }
            for (name, value) in [("old", &change.old), ("new", &change.new)] {
                let Some(value) = value else { continue };
                let field = || format!("changes[{i}].{name}");
                if value.len() > limits::CHANGE_VALUE_BYTES {
                    let expected = format!("JSON text of at most {} bytes", limits::CHANGE_VALUE_BYTES);
                    self.add(field(), text_kind(value), expected);
                } else if !is_json(value) {
                    let found = if value.is_empty() { "an empty string" } else { "text that is not JSON" };
                    self.add(field(), found, "JSON text (a string value carries its quotes), or nothing");
                }
            }
        }
    }

    fn details(&mut self, details: &str) {
        if details.len() > limits::DETAILS_BYTES {
            self.add(
                "details",
                text_kind(details),
                format!("a JSON object of at most {} bytes", limits::DETAILS_BYTES),
            );
        } else if !is_json(details) {
            let found = if details.is_empty() { "an empty string" } else { "text that is not JSON" };
            self.add("details", found, "a JSON object");
        } else if !details.trim_start().starts_with('{') {
            self.add("details", json_kind(details), "a JSON object");
        }
    }

    fn whole(&mut self, event: &AuditEvent) -> usize {
        let len = encoded_len(event);
        if self.problems.is_empty() && len > limits::ENCODED_BYTES {
            let expected = format!("at most {} bytes; shorten details or changes", limits::ENCODED_BYTES);
            self.add("", format!("{len} encoded bytes"), expected);
        }
        len
    }
}

fn text_kind(value: &str) -> String {
    if value.is_empty() { "an empty string".to_owned() } else { format!("a string of {} bytes", value.len()) }
}

/// The kind of a JSON text, told from its first byte: the text is known to be JSON.
pub(crate) fn json_kind(text: &str) -> &'static str {
    match text.trim_start().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::{Actor, ActorKind, Change};

    fn good() -> AuditEvent {
        AuditEvent::builder("acme", "billing", "order.update", "order", "42").build().unwrap()
    }

    fn fields(event: &AuditEvent) -> Vec<String> {
        event.validate().map_or_else(|e| e.problems.into_iter().map(|p| p.field).collect(), |()| Vec::new())
    }

    #[test]
    fn all_problems_at_once_in_field_order() {
        let mut event = good();
        event.occurred_at = Timestamp::from_micros(Timestamp::MAX_STORABLE.as_micros() + 1);
        event.entity_id.clear();
        event.action = "x".repeat(limits::ACTION_BYTES + 1);
        event.actor = Actor { id: Some(String::new()), ..Actor::new(ActorKind::User) };
        event.changes = vec![
            Change { path: "/a".into(), old: None, new: Some("1".into()) },
            Change { path: "/b".into(), old: Some("secret text".into()), new: Some(String::new()) },
        ];
        event.details = "[1]".into();
        assert_eq!(
            fields(&event),
            ["occurred_at", "action", "entity_id", "actor.id", "changes[1].old", "changes[1].new", "details"]
        );
        let text = event.validate().unwrap_err().to_string();
        assert!(text.contains("entity_id: found an empty string, expected 1 to 512 bytes of text"), "{text}");
        assert!(text.contains("details: found an array, expected a JSON object"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn limits_are_inclusive() {
        let mut event = good();
        event.entity_id = "x".repeat(limits::ID_BYTES);
        event.occurred_at = Timestamp::MIN_STORABLE;
        event.details = format!("{{\"a\":\"{}\"}}", "x".repeat(limits::DETAILS_BYTES - 8));
        assert_eq!(event.details.len(), limits::DETAILS_BYTES);
        assert_eq!(fields(&event), [""; 0]);
        event.details.push(' ');
        event.entity_id.push('x');
        event.occurred_at = Timestamp::from_micros(Timestamp::MIN_STORABLE.as_micros() - 1);
        assert_eq!(fields(&event), ["occurred_at", "entity_id", "details"]);
    }

    #[test]
    fn the_whole_event_is_bounded() {
        let mut event = good();
        let value = format!("\"{}\"", "x".repeat(limits::CHANGE_VALUE_BYTES - 2));
        event.changes = vec![Change { path: "/a".into(), old: Some(value.clone()), new: Some(value) }; 7];
        assert_eq!(fields(&event), [""; 0]);
        event.changes.push(event.changes[0].clone());
        assert_eq!(fields(&event), [""]);
        event.changes = vec![Change { path: String::new(), old: None, new: None }; limits::CHANGES + 1];
        assert_eq!(fields(&event), ["changes"]);
    }

    #[test]
    fn control_characters_and_deep_json_are_data() {
        let mut event = good();
        event.entity_id = "a\0b\u{7f}\n".into();
        event.details = format!("{{\"a\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
        assert_eq!(fields(&event), [""; 0]);
        event.details = "{\"a\":1,}".into();
        assert_eq!(fields(&event), ["details"]);
    }
}
