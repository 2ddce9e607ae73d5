//! What stands in for the request context when the feature `tower` is off: there never is one.

use auditstream_schemas::AuditEvent;

use crate::headers::TraceParent;

/// Has no values, so that it costs nothing.
#[derive(Debug)]
pub(crate) enum ForEvent {}

impl ForEvent {
    pub(crate) fn current() -> Option<ForEvent> {
        None
    }

    pub(crate) fn traceparent(&self) -> Option<TraceParent> {
        match *self {}
    }

    pub(crate) fn bytes(&self) -> usize {
        match *self {}
    }

    pub(crate) fn apply(&self, _: &mut AuditEvent) {
        match *self {}
    }
}
