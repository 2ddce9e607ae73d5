//! Building an event step by step: what must be known comes first, the rest has defaults.
//!
//! [`EventBuilder::build`] gives out only events that can be encoded, sent and stored exactly.

use uuid::Uuid;

use crate::event::{Actor, ActorKind, AuditEvent, Change, Operation, Outcome, Priority, ProducerStamp, Timestamp};
use crate::validate::EventError;

/// Makes an [`AuditEvent`]; see [`AuditEvent::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct EventBuilder {
    event: AuditEvent,
}

impl AuditEvent {
    /// Starts an event from the five things that have no default.
    ///
    /// Defaults: a new UUIDv7, the time now, environment `default`, the operation that the action's last word
    /// names ([`Operation::of_action`]), actor SYSTEM, outcome SUCCESS, priority STANDARD, details `{}`.
    ///
    /// ```
    /// use auditstream_schemas::{Actor, AuditEvent};
    ///
    /// let event = AuditEvent::builder("acme", "billing", "order.update", "order", "42")
    ///     .actor(Actor::user("u-7"))
    ///     .change("/status", Some("\"open\""), Some("\"paid\""))
    ///     .build()?;
    /// assert_eq!(event.key(), "acme/order/42");
    /// # Ok::<(), auditstream_schemas::EventError>(())
    /// ```
    pub fn builder(
        tenant_id: impl Into<String>,
        service: impl Into<String>,
        action: impl Into<String>,
        entity_type: impl Into<String>,
        entity_id: impl Into<String>,
    ) -> EventBuilder {
        let action = action.into();
        EventBuilder {
            event: AuditEvent {
                event_id: Uuid::now_v7(),
                occurred_at: Timestamp::now(),
                tenant_id: tenant_id.into(),
                service: service.into(),
                environment: "default".to_owned(),
                operation: Operation::of_action(&action),
                action,
                entity_type: entity_type.into(),
                entity_id: entity_id.into(),
                entity_name: None,
                actor: Actor::new(ActorKind::System),
                on_behalf_of: None,
                outcome: Outcome::Success,
                error_message: None,
                changes: Vec::new(),
                ip: None,
                user_agent: None,
                request_id: None,
                correlation_id: None,
                trace_id: None,
                http_method: None,
                http_path: None,
                priority: Priority::Standard,
                details: "{}".to_owned(),
                producer: ProducerStamp::default(),
            },
        }
    }
}

/// Setters that take the value as it is.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),+ $(,)?) => {
        $($(#[$doc])* pub fn $name(mut self, $name: $type) -> Self { self.event.$name = $name; self })+
    };
}

/// Setters of optional strings.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        $($(#[$doc])* pub fn $name(mut self, $name: impl Into<String>) -> Self { self.event.$name = Some($name.into()); self })+
    };
}

impl EventBuilder {
    setters! {
        /// The event's identity, when it is already known.
        event_id: Uuid,
        /// When it happened.
        occurred_at: Timestamp,
        /// The kind of the action.
        operation: Operation,
        /// Who did it.
        actor: Actor,
        /// How it ended.
        outcome: Outcome,
        /// All changes at once.
        changes: Vec<Change>,
        /// Which lane carries it.
        priority: Priority,
        /// The producer's stamp; the producer SDK sets it.
        producer: ProducerStamp,
    }

    texts! {
        /// How people call the entity.
        entity_name,
        /// Whom the actor impersonated.
        on_behalf_of,
        /// Why it failed or was denied.
        error_message,
        /// The client's IP address.
        ip,
        /// The client's User-Agent header.
        user_agent,
        /// The request's id.
        request_id,
        /// The business transaction's id.
        correlation_id,
        /// The W3C trace id.
        trace_id,
        /// The HTTP method.
        http_method,
        /// The HTTP path.
        http_path,
    }

    /// Where the service runs.
    pub fn environment(mut self, environment: impl Into<String>) -> Self {
        self.event.environment = environment.into();
        self
    }

    /// Anything else, as the text of a JSON object.
    pub fn details(mut self, json: impl Into<String>) -> Self {
        self.event.details = json.into();
        self
    }

    /// Adds one change; `old` and `new` are JSON texts (a string value carries its quotes).
    pub fn change(mut self, path: impl Into<String>, old: Option<&str>, new: Option<&str>) -> Self {
        self.event.changes.push(Change { path: path.into(), old: old.map(str::to_owned), new: new.map(str::to_owned) });
        self
    }

    /// Changes the event under construction with a function, for what comes from elsewhere.
    pub fn with(mut self, change: impl FnOnce(&mut AuditEvent)) -> Self {
        change(&mut self.event);
        self
    }

    /// The event as it stands, for code of this crate that validates later.
    pub(crate) fn into_unchecked(self) -> AuditEvent {
        self.event
    }

    /// The event, if it can be encoded, sent and stored exactly.
    ///
    /// # Errors
    /// Every problem at once, each with the field's name.
    pub fn build(self) -> Result<AuditEvent, EventError> {
        self.event.validate()?;
        Ok(self.event)
    }
}
