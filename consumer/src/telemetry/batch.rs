//! The trace of one batch: `audit.batch` with a child for each attempt of its steps, and links to the producers' spans.
//!
//! Names and values follow OpenTelemetry's conventions for messaging and databases
//! (<https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>); what they have no name for begins with `auditstream.`.

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use rdkafka::Message;
use rdkafka::message::Headers as _;

use super::traceparent::{self, TRACEPARENT};
use super::{Identity, MAX_LINKS, MAX_LOOKED_AT};
use crate::core::BatchId;

/// The steps of a batch that have spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Insert,
    DeadLetters,
    Ledger,
}

impl Step {
    /// The metric label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::DeadLetters => "dead_letters",
            Self::Ledger => "ledger",
        }
    }
}

/// Of a sampled batch, from its first record to its end.
pub(crate) struct BatchTrace {
    tracer: SdkTracer,
    identity: Arc<Identity>,
    opened: Option<SystemTime>,
    links: Vec<SpanContext>,
    /// Records whose headers were parsed.
    looked_at: usize,
    /// From the seal on.
    span: Option<Span>,
    /// Of each step: attempts so far, and when the one under way began.
    steps: [(i64, Option<SystemTime>); 3],
    is_stored: bool,
}

impl BatchTrace {
    pub(super) fn new(tracer: SdkTracer, identity: Arc<Identity>) -> Self {
        Self {
            tracer,
            identity,
            opened: None,
            links: Vec::new(),
            looked_at: 0,
            span: None,
            steps: Default::default(),
            is_stored: false,
        }
    }

    /// Takes the producer's span out of a record of the batch, when it is a sampled one.
    pub(crate) fn record(&mut self, record: &impl Message) {
        self.opened.get_or_insert_with(SystemTime::now);
        if self.links.len() >= MAX_LINKS || self.looked_at >= MAX_LOOKED_AT {
            return;
        }
        self.looked_at += 1;
        let Some(headers) = record.headers() else { return };
        let value = headers.iter().find(|header| header.key == TRACEPARENT).and_then(|header| header.value);
        let Some(producer) = value.and_then(traceparent::parse) else { return };
        // One request may record many events.
        if producer.is_sampled() && !self.links.contains(&producer) {
            self.links.push(producer);
        }
    }

    /// The batch is complete: so many records, for that reason.
    pub(crate) fn sealed(&mut self, batch: BatchId, records: u64, reason: &'static str) {
        let links = self.links.drain(..).map(|producer| Link::new(producer, Vec::new(), 0)).collect();
        let attributes = [
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.destination.name", Arc::clone(&self.identity.topic)),
            KeyValue::new("messaging.consumer.group.name", self.identity.group.clone()),
            KeyValue::new("messaging.client.id", Arc::clone(&self.identity.worker_id)),
            KeyValue::new("messaging.batch.message_count", count(records)),
            KeyValue::new("auditstream.batch.id", count(batch.0)),
            KeyValue::new("auditstream.batch.seal_reason", reason),
        ];
        let builder = self
            .tracer
            .span_builder("audit.batch")
            .with_kind(SpanKind::Consumer)
            .with_start_time(self.opened.unwrap_or_else(SystemTime::now))
            .with_attributes(attributes)
            .with_links(links);
        // Not a part of whatever this thread is doing.
        self.span = Some(builder.start_with_context(&self.tracer, &Context::new()));
    }

    /// An attempt of `step` begins.
    pub(crate) fn began(&mut self, step: Step) {
        let (attempts, began) = &mut self.steps[step as usize];
        *attempts += 1;
        *began = Some(SystemTime::now());
    }

    /// It ended, well or with `error`, a sentence without any value of a record.
    pub(crate) fn ended(&mut self, step: Step, error: Option<&str>) {
        let (attempts, began) = &mut self.steps[step as usize];
        let (Some(span), Some(began)) = (&self.span, began.take()) else { return };
        let (name, kind, mut attributes) = match step {
            Step::Insert => ("audit.insert", SpanKind::Client, clickhouse("events")),
            Step::Ledger => ("audit.ledger", SpanKind::Client, clickhouse("ledger")),
            Step::DeadLetters => (
                "audit.dead_letters",
                SpanKind::Producer,
                Vec::from([
                    KeyValue::new("messaging.system", "kafka"),
                    KeyValue::new("messaging.operation.name", "send"),
                    KeyValue::new("messaging.operation.type", "send"),
                ]),
            ),
        };
        attributes.push(KeyValue::new("auditstream.attempt", *attempts));
        Child { name, kind, began, attributes, error: error.map(str::to_owned) }
            .export(&self.tracer, span.span_context());
        self.is_stored |= step == Step::Ledger && error.is_none();
    }

    /// Nothing of the batch is needed any more. Answers its context when its rows and dead letters are stored.
    pub(crate) fn close(mut self, rows: u64, dead_letters: u64) -> Option<SpanContext> {
        let mut span = self.span.take()?;
        span.set_attribute(KeyValue::new("auditstream.batch.rows", count(rows)));
        span.set_attribute(KeyValue::new("auditstream.batch.dead_letters", count(dead_letters)));
        if !self.is_stored {
            span.set_status(Status::error("given up: its partitions went to another worker"));
        }
        span.end();
        self.is_stored.then(|| span.span_context().clone())
    }
}

fn clickhouse(table: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("db.system.name", "clickhouse"),
        KeyValue::new("db.operation.name", "INSERT"),
        KeyValue::new("db.collection.name", table),
    ]
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A span that ends now.
pub(super) struct Child {
    pub(super) name: &'static str,
    pub(super) kind: SpanKind,
    pub(super) began: SystemTime,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) error: Option<String>,
}

impl Child {
    pub(super) fn export(self, tracer: &SdkTracer, parent: &SpanContext) {
        let builder = tracer
            .span_builder(self.name)
            .with_kind(self.kind)
            .with_start_time(self.began)
            .with_attributes(self.attributes);
        let context = Context::new().with_remote_span_context(parent.clone());
        let mut span = builder.start_with_context(tracer, &context);
        if let Some(error) = self.error {
            span.set_status(Status::error(error));
        }
        span.end();
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use rdkafka::Timestamp;
    use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};

    use super::*;

    fn record(number: usize, flags: &str) -> OwnedMessage {
        let value = format!("00-{:032x}-{:016x}-{flags}", number + 1, number + 1);
        let headers = OwnedHeaders::new()
            .insert(Header { key: "ce_id", value: Some("1") })
            .insert(Header { key: TRACEPARENT, value: Some(&value) });
        OwnedMessage::new(None, None, "t".into(), Timestamp::NotAvailable, 0, 0, Some(headers))
    }

    fn trace() -> BatchTrace {
        let identity = Identity { topic: "t".into(), group: "g".into(), worker_id: "w".into() };
        BatchTrace::new(SdkTracerProvider::builder().build().tracer("test"), Arc::new(identity))
    }

    #[test]
    fn a_large_batch_is_looked_at_in_part() {
        let mut trace = trace();
        let plain = OwnedMessage::new(None, None, "t".into(), Timestamp::NotAvailable, 0, 0, None);
        (1..MAX_LOOKED_AT).for_each(|_| trace.record(&plain));
        trace.record(&record(1, "01"));
        trace.record(&record(2, "01"));
        assert_eq!(trace.links.len(), 1, "the last one that is looked at, and not the next");
    }

    #[test]
    fn links_are_sampled_distinct_and_bounded() {
        let mut trace = trace();
        trace.record(&OwnedMessage::new(None, None, "t".into(), Timestamp::NotAvailable, 0, 0, None));
        trace.record(&record(7, "00"));
        assert!(trace.links.is_empty(), "not sampled");
        trace.record(&record(7, "01"));
        trace.record(&record(7, "01"));
        assert_eq!(trace.links.len(), 1, "one producer's span");
        assert_eq!(trace.links[0].span_id().to_string(), format!("{:016x}", 8));
        (0..1_000).for_each(|number| trace.record(&record(number, "01")));
        assert_eq!(trace.links.len(), MAX_LINKS);
    }
}
