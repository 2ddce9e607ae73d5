//! The event as one line of JSON: what `auditstream publish` reads and tools print.
//!
//! Fields are named as in the Avro schema, enums are upper case, `occurred_at` is RFC 3339, `details` is a JSON object,
//! `old` and `new` are any JSON value (a missing key is "no value", `null` is a JSON null). Unknown fields are refused.
//! Absent: event_id (a new one), occurred_at (now), environment (`default`), operation (from the action's last word),
//! actor (SYSTEM), outcome (SUCCESS), priority (STANDARD), details (`{}`) and everything optional.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::event::{Actor, ActorKind, AuditEvent, Change, ProducerStamp};
use crate::json_text::Object;
use crate::nearest::{nearest, shown};
use crate::validate::{EventError, Problem, json_kind};

const FIELDS: &[&str] = &[
    "event_id",
    "occurred_at",
    "tenant_id",
    "service",
    "environment",
    "action",
    "operation",
    "entity_type",
    "entity_id",
    "entity_name",
    "actor",
    "on_behalf_of",
    "outcome",
    "error_message",
    "changes",
    "ip",
    "user_agent",
    "request_id",
    "correlation_id",
    "trace_id",
    "http_method",
    "http_path",
    "priority",
    "details",
    "producer",
];
const ACTOR_FIELDS: &[&str] = &["kind", "id", "name", "email", "session_id"];
const CHANGE_FIELDS: &[&str] = &["path", "old", "new"];
const PRODUCER_FIELDS: &[&str] = &["id", "epoch", "seq"];

impl AuditEvent {
    /// Reads the event's JSON form and validates it.
    ///
    /// ```
    /// use auditstream_schemas::AuditEvent;
    ///
    /// let line = br#"{"tenant_id":"acme","service":"billing","action":"order.update","entity_type":"order","entity_id":"42",
    ///                 "changes":[{"path":"/status","old":"open","new":"paid"}]}"#;
    /// let event = AuditEvent::from_json(line)?;
    /// assert_eq!(event.changes[0].new.as_deref(), Some("\"paid\""));
    /// # Ok::<(), auditstream_schemas::EventError>(())
    /// ```
    ///
    /// # Errors
    /// Every problem at once: the field's path, the kind of value found, what would be right; never a value.
    pub fn from_json(json: &[u8]) -> Result<Self, EventError> {
        let whole = |found: String, expected: &str| EventError { problems: vec![Problem::new("", found, expected)] };
        let text = std::str::from_utf8(json)
            .map_err(|e| whole(format!("bytes that are not UTF-8 (from byte {})", e.valid_up_to()), "a JSON object"))?;
        let raw: &RawValue = serde_json::from_str(text).map_err(|e| whole(not_json(&e), "a JSON object"))?;
        let mut problems = Vec::new();
        let event = event(raw, &mut problems);
        // What is out of range shows only in a whole event; what is missing or of the wrong type shows first.
        if problems.is_empty() {
            event.validate()?;
            return Ok(event);
        }
        if let Err(more) = event.validate() {
            let known: HashSet<String> = problems.iter().map(|p| p.field.clone()).collect();
            let new = |p: &Problem| !known.contains("") && !known.contains(&p.field);
            problems.extend(more.problems.into_iter().filter(new));
        }
        Err(EventError { problems })
    }

    /// The event's JSON form on one line, without a line break at its end. Absent values have no key.
    ///
    /// [`AuditEvent::from_json`] gives the same event back; only line breaks between the tokens of `details`, `old`
    /// and `new` become spaces. An event that does not validate may give text that is not JSON.
    pub fn to_json(&self) -> String {
        let mut out = Object::new(String::with_capacity(512));
        out.string("event_id", &self.event_id.to_string());
        out.string("occurred_at", &self.occurred_at.to_string());
        out.string("tenant_id", &self.tenant_id);
        out.string("service", &self.service);
        out.string("environment", &self.environment);
        out.string("action", &self.action);
        out.string("operation", self.operation.as_str());
        out.string("entity_type", &self.entity_type);
        out.string("entity_id", &self.entity_id);
        out.optional("entity_name", &self.entity_name);
        out.object("actor", |out| {
            out.string("kind", self.actor.kind.as_str());
            out.optional("id", &self.actor.id);
            out.optional("name", &self.actor.name);
            out.optional("email", &self.actor.email);
            out.optional("session_id", &self.actor.session_id);
        });
        out.optional("on_behalf_of", &self.on_behalf_of);
        out.string("outcome", self.outcome.as_str());
        out.optional("error_message", &self.error_message);
        if !self.changes.is_empty() {
            out.array("changes", &self.changes, |out, change| {
                out.string("path", &change.path);
                out.raw("old", change.old.as_deref());
                out.raw("new", change.new.as_deref());
            });
        }
        out.optional("ip", &self.ip);
        out.optional("user_agent", &self.user_agent);
        out.optional("request_id", &self.request_id);
        out.optional("correlation_id", &self.correlation_id);
        out.optional("trace_id", &self.trace_id);
        out.optional("http_method", &self.http_method);
        out.optional("http_path", &self.http_path);
        out.string("priority", self.priority.as_str());
        out.raw("details", Some(&self.details));
        if self.producer != ProducerStamp::default() {
            out.object("producer", |out| {
                out.string("id", &self.producer.id);
                out.raw("epoch", Some(&self.producer.epoch.to_string()));
                out.raw("seq", Some(&self.producer.seq.to_string()));
            });
        }
        out.end()
    }
}

fn not_json(error: &serde_json::Error) -> String {
    if error.is_eof() {
        "text that ends within a value".to_owned()
    } else {
        format!("text that is not JSON (line {}, column {})", error.line(), error.column())
    }
}

fn event(raw: &RawValue, problems: &mut Vec<Problem>) -> AuditEvent {
    let mut f = Fields::of(raw, "", FIELDS, problems);
    let tenant_id = f.required("tenant_id");
    let service = f.required("service");
    let action = f.required("action");
    let entity_type = f.required("entity_type");
    let entity_id = f.required("entity_id");
    // Starts from the builder's defaults and overwrites what is given.
    let mut event = AuditEvent::builder(tenant_id, service, action, entity_type, entity_id).into_unchecked();
    f.parsed("event_id", &mut event.event_id, "a hyphenated UUID", hyphenated);
    f.parsed(
        "occurred_at",
        &mut event.occurred_at,
        "an RFC 3339 time with an offset, such as 2026-01-31T09:30:00.125Z",
        |t| t.parse().ok(),
    );
    f.parsed("environment", &mut event.environment, "text", |t| Some(t.to_owned()));
    f.symbol("operation", &mut event.operation, "CREATE, READ, UPDATE, DELETE or OTHER");
    event.entity_name = f.optional("entity_name");
    if let Some(raw) = f.take("actor") {
        event.actor = actor(raw, f.problems);
    }
    event.on_behalf_of = f.optional("on_behalf_of");
    f.symbol("outcome", &mut event.outcome, "SUCCESS, FAILURE or DENIED");
    event.error_message = f.optional("error_message");
    if let Some(raw) = f.take("changes") {
        event.changes = changes(raw, f.problems);
    }
    event.ip = f.optional("ip");
    event.user_agent = f.optional("user_agent");
    event.request_id = f.optional("request_id");
    event.correlation_id = f.optional("correlation_id");
    event.trace_id = f.optional("trace_id");
    event.http_method = f.optional("http_method");
    event.http_path = f.optional("http_path");
    f.symbol("priority", &mut event.priority, "CRITICAL, STANDARD or BEST_EFFORT");
    if let Some(raw) = f.take("details") {
        event.details = raw.get().to_owned();
    }
    if let Some(raw) = f.take("producer") {
        let mut p = Fields::of(raw, "producer", PRODUCER_FIELDS, f.problems);
        p.parsed("id", &mut event.producer.id, "text", |t| Some(t.to_owned()));
        p.integer("epoch", &mut event.producer.epoch);
        p.integer("seq", &mut event.producer.seq);
    }
    event
}

fn actor(raw: &RawValue, problems: &mut Vec<Problem>) -> Actor {
    let mut f = Fields::of(raw, "actor", ACTOR_FIELDS, problems);
    let mut actor = Actor::new(ActorKind::System);
    f.symbol("kind", &mut actor.kind, "USER, SERVICE, API_KEY, SYSTEM or ANONYMOUS");
    actor.id = f.optional("id");
    actor.name = f.optional("name");
    actor.email = f.optional("email");
    actor.session_id = f.optional("session_id");
    actor
}

fn changes(raw: &RawValue, problems: &mut Vec<Problem>) -> Vec<Change> {
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
        problems.push(Problem::new("changes", json_kind(raw.get()), "an array of {path, old, new}"));
        return Vec::new();
    };
    let change = |(i, raw)| {
        let mut f = Fields::of(raw, &format!("changes[{i}]"), CHANGE_FIELDS, problems);
        Change {
            path: f.required("path"),
            old: f.take("old").map(|raw| raw.get().to_owned()),
            new: f.take("new").map(|raw| raw.get().to_owned()),
        }
    };
    items.into_iter().enumerate().map(change).collect()
}

fn hyphenated(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| text.len() == uuid::fmt::Hyphenated::LENGTH)
}

/// The fields of one JSON object, taken out by name; problems are noted with the object's path.
struct Fields<'a, 'p> {
    path: String,
    /// Whether it is an object at all.
    object: bool,
    fields: Vec<(String, &'a RawValue)>,
    problems: &'p mut Vec<Problem>,
}

impl<'a, 'p> Fields<'a, 'p> {
    /// Unknown and repeated keys are problems.
    fn of(raw: &'a RawValue, path: &str, known: &[&str], problems: &'p mut Vec<Problem>) -> Self {
        let mut this = Self { path: path.to_owned(), object: false, fields: Vec::new(), problems };
        let Ok(Pairs(fields)) = serde_json::from_str(raw.get()) else {
            this.problems.push(Problem::new(path, json_kind(raw.get()), "an object"));
            return this;
        };
        let mut seen = HashSet::new();
        for (name, _) in &fields {
            if !known.contains(&name.as_str()) {
                let expected = match nearest(name, known) {
                    Some(near) => format!("no such field; did you mean {near}?"),
                    None => format!("one of the known fields: {}", known.join(", ")),
                };
                this.problem(&shown(name), "an unknown field", expected);
            } else if !seen.insert(name.as_str()) {
                this.problem(name, "the field twice", "it once");
            }
        }
        this.object = true;
        this.fields = fields;
        this
    }

    fn problem(&mut self, name: &str, found: impl Into<String>, expected: impl Into<String>) {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.problems.push(Problem::new(format!("{}{dot}{name}", self.path), found, expected));
    }

    fn take(&self, name: &str) -> Option<&'a RawValue> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, raw)| *raw)
    }

    /// A text, or nothing with the problem noted.
    fn text_of(&mut self, name: &str, raw: &RawValue, expected: &str) -> Option<String> {
        let text = serde_json::from_str(raw.get()).ok();
        if text.is_none() {
            let found = match json_kind(raw.get()) {
                "a string" => "a string with an unpaired surrogate",
                other => other,
            };
            self.problem(name, found, expected);
        }
        text
    }

    fn required(&mut self, name: &str) -> String {
        match self.take(name) {
            Some(raw) => self.text_of(name, raw, "text").unwrap_or_default(),
            None => {
                if self.object {
                    self.problem(name, "nothing", "text");
                }
                String::new()
            }
        }
    }

    fn optional(&mut self, name: &str) -> Option<String> {
        let raw = self.take(name).filter(|raw| raw.get() != "null")?;
        self.text_of(name, raw, "text")
    }

    fn parsed<T>(&mut self, name: &str, to: &mut T, expected: &str, parse: impl FnOnce(&str) -> Option<T>) {
        let Some(raw) = self.take(name) else { return };
        let Some(text) = self.text_of(name, raw, expected) else { return };
        match parse(&text) {
            Some(value) => *to = value,
            None => self.problem(name, "other text", expected),
        }
    }

    fn symbol<T: FromStr>(&mut self, name: &str, to: &mut T, symbols: &str) {
        self.parsed(name, to, symbols, |text| text.parse().ok());
    }

    fn integer(&mut self, name: &str, to: &mut i64) {
        let Some(raw) = self.take(name) else { return };
        match serde_json::from_str(raw.get()) {
            Ok(n) => *to = n,
            Err(_) => self.problem(name, json_kind(raw.get()), "an integer of 64 bits"),
        }
    }
}

/// An object's pairs in order, repeated keys included.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}
