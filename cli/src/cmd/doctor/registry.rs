//! The schema registry: does it answer, and has it the event's schema?

use auditstream_schemas::AUDIT_EVENT_V1;
use auditstream_schemas::registry::{Registry, RegistryError};

use super::{Context, Finding};

pub(super) async fn answers(context: &Context<'_>) -> Vec<Finding> {
    let Some(config) = &context.settings.registry else {
        return vec![Finding::fine("none is configured: events carry their schema's fingerprint")];
    };
    let registry = match Registry::new(config) {
        Ok(registry) => registry,
        Err(error) => return vec![Finding::wrong(error.to_string(), "mend the keys schema.registry_*")],
    };
    let subject = format!("{}-value", context.settings.kafka.topic);
    vec![match registry.lookup(&subject, AUDIT_EVENT_V1, &[]).await {
        Ok(id) => Finding::fine(format!("it has the event's schema under subject {subject}, id {id}")),
        // Producers that frame for the registry can't start without it.
        Err(RegistryError::NotFound { .. }) if context.settings.asks_for_id && !config.may_register => Finding::wrong(
            format!("it answers, and has not got the event's schema under subject {subject}"),
            format!("register schemas/avro/audit_event.v1.avsc under {subject}, or set schema.register = \"on\""),
        ),
        Err(RegistryError::NotFound { .. }) => Finding::note(
            format!("it answers, and has not got the event's schema under subject {subject}"),
            format!(
                "needed when producers use schema.framing = \"confluent\": register schemas/avro/audit_event.v1.avsc under {subject}"
            ),
        ),
        Err(error @ RegistryError::Refused { status: 401 | 403, .. }) => Finding::wrong(
            error.to_string(),
            "set schema.registry_username and registry_password, or registry_token_file, to who may read",
        ),
        Err(error) => Finding::wrong(
            error.to_string(),
            "start it, or set schema.registry_url; base URLs may have a path such as /apis/ccompat/v7",
        ),
    }]
}
