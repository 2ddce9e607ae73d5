//! An event as the JSON that a service would write by serde.

use auditstream_schemas::{Actor, AuditEvent, Change};
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Event<'a> {
    event_id: uuid::Uuid,
    /// Microseconds since 1970.
    occurred_at: i64,
    tenant_id: &'a str,
    service: &'a str,
    environment: &'a str,
    action: &'a str,
    operation: &'static str,
    entity_type: &'a str,
    entity_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_name: Option<&'a str>,
    actor: Who<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_behalf_of: Option<&'a str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'a str>,
    changes: Vec<Field<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_path: Option<&'a str>,
    priority: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Who<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
}

/// Values as texts: the generator's are of JSON already, and nobody needs them parsed.
#[derive(Serialize)]
struct Field<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<&'a str>,
}

/// The event's JSON.
pub(super) fn of(event: &AuditEvent) -> serde_json::Result<Vec<u8>> {
    let Actor { kind, id, name, email, session_id } = &event.actor;
    fn field(Change { path, old, new }: &Change) -> Field<'_> {
        Field { path, old: old.as_deref(), new: new.as_deref() }
    }
    let whole = Event {
        event_id: event.event_id,
        occurred_at: event.occurred_at.as_micros(),
        tenant_id: &event.tenant_id,
        service: &event.service,
        environment: &event.environment,
        action: &event.action,
        operation: event.operation.as_str(),
        entity_type: &event.entity_type,
        entity_id: &event.entity_id,
        entity_name: event.entity_name.as_deref(),
        actor: Who {
            kind: kind.as_str(),
            id: id.as_deref(),
            name: name.as_deref(),
            email: email.as_deref(),
            session_id: session_id.as_deref(),
        },
        on_behalf_of: event.on_behalf_of.as_deref(),
        outcome: event.outcome.as_str(),
        error_message: event.error_message.as_deref(),
        changes: event.changes.iter().map(field).collect(),
        ip: event.ip.as_deref(),
        user_agent: event.user_agent.as_deref(),
        request_id: event.request_id.as_deref(),
        correlation_id: event.correlation_id.as_deref(),
        trace_id: event.trace_id.as_deref(),
        http_method: event.http_method.as_deref(),
        http_path: event.http_path.as_deref(),
        priority: event.priority.as_str(),
        // Checked that it is JSON; what is none is left out, as `record` would refuse it.
        details: serde_json::from_str(&event.details).ok(),
    };
    serde_json::to_vec(&whole)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::super::Events;

    #[test]
    fn it_is_the_events_own_json_but_for_the_form_of_time_and_values() {
        let events = Events::new(1);
        for number in 0..200 {
            let mut event = events.at(number);
            event.changes.clear();
            let mut ours: Value = serde_json::from_str(&event.to_json()).unwrap();
            let mut theirs: Value = serde_json::from_slice(&super::of(&event).unwrap()).unwrap();
            for json in [&mut ours, &mut theirs] {
                let fields = json.as_object_mut().unwrap();
                // What a stamp or an empty list looks like is a matter of taste.
                fields.retain(|name, _| !["occurred_at", "producer", "changes"].contains(&name.as_str()));
            }
            assert_eq!(ours, theirs);
        }
    }
}
