//! What happens to an event between `record` and its encoding: the request's context goes in, what the rules name goes out.
//!
//! It happens on the sender thread: on the caller's, redaction alone would cost more than the rest of `record`. Whatever
//! writes an event anywhere else than to Kafka (a file, an outbox) calls this first: nothing unredacted leaves the process.

use auditstream_schemas::AuditEvent;

use crate::ForEvent;
use crate::config::Config;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prepare {
    #[cfg(feature = "redaction")]
    redaction: Option<std::sync::Arc<crate::redaction::Redaction>>,
}

impl Prepare {
    /// As the configuration says.
    #[cfg_attr(not(feature = "redaction"), expect(unused_variables, reason = "only redaction is configured"))]
    pub(crate) fn new(config: &Config) -> Prepare {
        Prepare {
            #[cfg(feature = "redaction")]
            redaction: config.redaction.clone(),
        }
    }

    /// By these rules.
    #[cfg(all(feature = "redaction", feature = "outbox"))]
    pub(crate) fn by(redaction: Option<std::sync::Arc<crate::redaction::Redaction>>) -> Prepare {
        Prepare { redaction }
    }

    /// Once an event: a keyed hash of a keyed hash is searchable by nobody.
    pub(crate) fn apply(&self, event: &mut AuditEvent, context: Option<&ForEvent>) {
        if let Some(context) = context {
            context.apply(event);
        }
        #[cfg(feature = "redaction")]
        if let Some(redaction) = &self.redaction {
            redaction.apply(event);
        }
    }
}
