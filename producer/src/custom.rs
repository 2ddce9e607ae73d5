//! Custom fields: a service's own Avro record in an event's `details`, registered, checked and typed.
//!
//! ```no_run
//! use auditstream_producer::custom::CustomFields;
//! use auditstream_schemas::AuditEvent;
//! use auditstream_schemas::registry::{Registry, RegistryConfig};
//!
//! #[derive(serde::Serialize)]
//! struct Order { amount: String, lines: u32 }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = Registry::new(&RegistryConfig { urls: vec!["http://registry:8081".into()], ..RegistryConfig::default() })?;
//! // Once, at the start: a schema that is wrong or not registered ends the service here, not its first event.
//! let schema = r#"{"type":"record","name":"OrderDetails","namespace":"shop","fields":[
//!     {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":2}},
//!     {"name":"lines","type":"int"}]}"#;
//! let orders = CustomFields::connect(&registry, "order-details", schema).await?;
//!
//! let event = AuditEvent::builder("acme", "shop", "order.create", "order", "42")
//!     .details(orders.details(&Order { amount: "12.30".into(), lines: 2 })?)
//!     .build()?;
//! # Ok(()) }
//! ```
//!
//! How each type looks in `details`, and that nothing is lost on the way, is told in [`auditstream_schemas::custom`]; how an analyst finds the fields in
//! `docs/custom-fields.md`.

use auditstream_schemas::custom::{CustomFault, CustomSchema, CustomSchemaError};
use auditstream_schemas::registry::{Registry, RegistryError};
use serde::Serialize;

/// A record of a service's own, under a subject of the registry. Cheap to share by reference; asks nobody once it is made.
#[derive(Clone, Debug)]
pub struct CustomFields {
    schema: CustomSchema,
    /// `SUBJECT:VERSION`.
    mark: String,
}

/// Why custom fields can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CustomFieldsError {
    /// The schema can't be used.
    #[error("the schema of subject {subject}")]
    Schema {
        /// The subject.
        subject: String,
        /// Why.
        #[source]
        source: CustomSchemaError,
    },
    /// The registry does not have the schema and nothing may be registered, it refuses the schema (incompatible with earlier versions), or it
    /// can't be asked.
    #[error("subject {subject} at the schema registry")]
    Registry {
        /// The subject.
        subject: String,
        /// What the registry says.
        #[source]
        source: RegistryError,
    },
}

impl CustomFields {
    /// Finds out which version of `subject` the record's schema (Avro's JSON) is. A subject without it gets it only if the client may register
    /// ([`RegistryConfig::may_register`](auditstream_schemas::registry::RegistryConfig::may_register)), and then the registry checks it against the
    /// earlier versions. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// See [`CustomFieldsError`].
    pub async fn connect(registry: &Registry, subject: &str, schema: &str) -> Result<Self, CustomFieldsError> {
        let parsed = CustomSchema::parse(schema);
        let parsed = parsed.map_err(|source| CustomFieldsError::Schema { subject: subject.to_owned(), source })?;
        let refused = |source| CustomFieldsError::Registry { subject: subject.to_owned(), source };
        let found = match registry.lookup_version(subject, schema, &[]).await {
            Err(missing @ RegistryError::NotFound { .. }) => match registry.register(subject, schema, &[]).await {
                Err(RegistryError::RegisteringIsOff) => Err(missing),
                Err(error) => Err(error),
                Ok(_) => registry.lookup_version(subject, schema, &[]).await,
            },
            found => found,
        };
        let (_, version) = found.map_err(refused)?;
        Ok(Self { schema: parsed, mark: format!("{subject}:{version}") })
    }

    /// The event's details for a value, for [`EventBuilder::details`](auditstream_schemas::EventBuilder::details). Does no I/O.
    ///
    /// # Errors
    /// The first field that does not fit the schema, by its path, with the value's kind and what would be right.
    pub fn details<T: Serialize>(&self, value: &T) -> Result<String, CustomFault> {
        self.schema.details(&self.mark, value)
    }

    /// `SUBJECT:VERSION`, as it stands in the details under `$schema`.
    #[must_use]
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// The record's schema, for reading details back.
    #[must_use]
    pub fn schema(&self) -> &CustomSchema {
        &self.schema
    }
}
