//! The schema's id from a schema registry, so that any client of the Confluent wire format can read the events.

use auditstream_schemas::registry::{Registry, RegistryError};
use auditstream_schemas::{AUDIT_EVENT_V1, Framing};

/// The framing by which a registry's clients find the compiled-in schema: its id under the subject `<topic>-value`, which is where Confluent's default
/// (`TopicNameStrategy`) looks. Ask once, before the producer is made, for [`Config::framing`](crate::Config::framing); the id of a schema never
/// changes, so the registry may be away afterwards.
///
/// A subject without this schema gets it only if the client may register
/// ([`RegistryConfig::may_register`](auditstream_schemas::registry::RegistryConfig::may_register)). Needs a tokio runtime with I/O and time.
///
/// # Errors
/// [`RegistryError::NotFound`] when the subject does not have the schema and nothing may be registered; [`RegistryError::Refused`] when the subject's own
/// rule of compatibility refuses it; the registry can't be reached.
pub async fn framing(registry: &Registry, topic: &str) -> Result<Framing, RegistryError> {
    let subject = format!("{topic}-value");
    let schema_id = match registry.lookup(&subject, AUDIT_EVENT_V1, &[]).await {
        Err(missing @ RegistryError::NotFound { .. }) => match registry.register(&subject, AUDIT_EVENT_V1, &[]).await {
            Err(RegistryError::RegisteringIsOff) => return Err(missing),
            registered => registered?,
        },
        found => found?,
    };
    Ok(Framing::Confluent { schema_id })
}
