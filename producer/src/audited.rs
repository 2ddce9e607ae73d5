//! One line for an event of two values: `derive(Audited)` says what the entity is, a [`Trail`] who writes.
//!
//! ```
//! use auditstream_producer::audited::{Audited, Trail};
//!
//! #[derive(Audited)]
//! #[audit(entity = "order", id = "id")]
//! struct Order {
//!     id: u64,
//!     status: String,
//!     #[audit(redact = "mask")]
//!     card: String,
//!     #[audit(skip)]
//!     cached_total: f64,
//! }
//!
//! let trail = Trail::new("acme", "shop");
//! let before = Order { id: 42, status: "open".into(), card: "4111".into(), cached_total: 1.0 };
//! let after = Order { id: 42, status: "paid".into(), card: "4242".into(), cached_total: 2.0 };
//! let event = trail.update(&before, &after)?.build()?;
//! assert_eq!((event.action.as_str(), event.entity_id.as_str()), ("order.update", "42"));
//! assert_eq!(event.changes.len(), 2);
//! assert_eq!((event.changes[0].path.as_str(), event.changes[0].new.as_deref()), ("/card", Some("\"***\"")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Attributes of the type: `entity = "..."`, the entity's type, and `id = "..."`, the field that has its id (anything with
//! `Display`). Of a field: `skip` (never looked at), `rename = "..."` (its name in paths), `redact = "drop|mask|hmac"`
//! (as in the module `redaction`; of what is inside of a field, only rules there know). The type itself needs no `Serialize`;
//! its fields do. Serde's own attributes on fields are not read.

use std::sync::Arc;

use auditstream_schemas::{AuditEvent, EventBuilder};
use serde::{Serialize, Serializer};

pub use auditstream_producer_derive::Audited;

use crate::changes::{Changes, DiffError, Limits};
use crate::redaction::{Action, HmacKey, replace_json};

#[doc(hidden)]
pub use serde as __serde;

/// What is audited: an entity with a type, an id and fields. Derive it.
pub trait Audited {
    /// The entity's type, such as `order`.
    const ENTITY_TYPE: &'static str;
    /// Fields whose values are redacted, by their names in paths.
    const REDACTED: &'static [(&'static str, Action)];

    /// The entity's id.
    fn entity_id(&self) -> String;

    /// The fields that are compared, as a map.
    ///
    /// # Errors
    /// The serializer's, or a field's.
    fn serialize_fields<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

struct Fields<'a, T>(&'a T);

impl<T: Audited> Serialize for Fields<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_fields(serializer)
    }
}

/// Begins the events of one tenant in one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trail {
    tenant_id: Arc<str>,
    service: Arc<str>,
    environment: Arc<str>,
    key: Option<HmacKey>,
    limits: Limits,
}

impl Trail {
    /// Environment `default`, no key, the default limits on changes.
    pub fn new(tenant_id: impl Into<Arc<str>>, service: impl Into<Arc<str>>) -> Trail {
        let (tenant_id, service) = (tenant_id.into(), service.into());
        Trail { tenant_id, service, environment: "default".into(), key: None, limits: Limits::default() }
    }

    /// The same for another tenant.
    #[must_use]
    pub fn tenant(&self, tenant_id: impl Into<Arc<str>>) -> Trail {
        Trail { tenant_id: tenant_id.into(), ..self.clone() }
    }

    /// Where the service runs.
    #[must_use]
    pub fn environment(self, environment: impl Into<Arc<str>>) -> Trail {
        Trail { environment: environment.into(), ..self }
    }

    /// The key for fields with `redact = "hmac"`. Without it, or with one shorter than 16 bytes, these are masked.
    /// Don't name the same fields in the producer's rules: a token of a token is searchable by nobody.
    #[must_use]
    pub fn key(self, key: HmacKey) -> Trail {
        Trail { key: Some(key).filter(HmacKey::is_long_enough), ..self }
    }

    /// How much of a difference is kept.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Trail {
        Trail { limits, ..self }
    }

    /// An event of any action on an entity, without changes.
    pub fn event(
        &self,
        action: impl Into<String>,
        entity_type: impl Into<String>,
        entity_id: impl Into<String>,
    ) -> EventBuilder {
        AuditEvent::builder(&*self.tenant_id, &*self.service, action, entity_type, entity_id)
            .environment(&*self.environment)
    }

    /// `<type>.create` with every field as a change.
    ///
    /// # Errors
    /// A field that can't be written as JSON.
    pub fn create<T: Audited>(&self, new: &T) -> Result<EventBuilder, DiffError> {
        Ok(self.with_changes("create", new, self.limits.created(&Fields(new))?))
    }

    /// `<type>.update` with what changed.
    ///
    /// # Errors
    /// A field that can't be written as JSON.
    pub fn update<T: Audited>(&self, old: &T, new: &T) -> Result<EventBuilder, DiffError> {
        Ok(self.with_changes("update", new, self.limits.diff(&Fields(old), &Fields(new))?))
    }

    /// `<type>.delete` with every field as a change.
    ///
    /// # Errors
    /// A field that can't be written as JSON.
    pub fn delete<T: Audited>(&self, old: &T) -> Result<EventBuilder, DiffError> {
        Ok(self.with_changes("delete", old, self.limits.deleted(&Fields(old))?))
    }

    /// `<type>.read` without changes.
    pub fn read<T: Audited>(&self, entity: &T) -> EventBuilder {
        self.with_changes("read", entity, Changes::default())
    }

    fn with_changes<T: Audited>(&self, word: &str, entity: &T, mut changes: Changes) -> EventBuilder {
        redact(&mut changes, T::REDACTED, self.key.as_ref());
        let action = format!("{}.{word}", T::ENTITY_TYPE);
        self.event(action, T::ENTITY_TYPE, entity.entity_id()).with(|event| changes.write_to(event))
    }
}

/// By the first segment of the path; the changes of a type with fields never have an empty one.
fn redact(changes: &mut Changes, redacted: &[(&str, Action)], key: Option<&HmacKey>) {
    if redacted.is_empty() {
        return;
    }
    changes.list.retain_mut(|change| {
        let first = change.path.strip_prefix('/').unwrap_or(&change.path).split('/').next().unwrap_or_default();
        let first = first.replace("~1", "/").replace("~0", "~");
        let Some((_, action)) = redacted.iter().find(|(name, _)| *name == first) else { return true };
        for value in [&mut change.old, &mut change.new].into_iter().flatten() {
            *value = replace_json(*action, key, value);
        }
        *action != Action::Drop
    });
}
