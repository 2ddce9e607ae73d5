//! The rules and what they may name.

use auditstream_schemas::AuditEvent;

use super::pattern::{Pattern, Place};
use super::{Action, HmacKey};

type Field = fn(&mut AuditEvent) -> &mut Option<String>;

/// The event's own fields that may be redacted.
pub(super) const FIELDS: [(&[&str], Field); 14] = [
    (&["entity_name"], |event| &mut event.entity_name),
    (&["actor", "id"], |event| &mut event.actor.id),
    (&["actor", "name"], |event| &mut event.actor.name),
    (&["actor", "email"], |event| &mut event.actor.email),
    (&["actor", "session_id"], |event| &mut event.actor.session_id),
    (&["on_behalf_of"], |event| &mut event.on_behalf_of),
    (&["error_message"], |event| &mut event.error_message),
    (&["ip"], |event| &mut event.ip),
    (&["user_agent"], |event| &mut event.user_agent),
    (&["request_id"], |event| &mut event.request_id),
    (&["correlation_id"], |event| &mut event.correlation_id),
    (&["trace_id"], |event| &mut event.trace_id),
    (&["http_method"], |event| &mut event.http_method),
    (&["http_path"], |event| &mut event.http_path),
];

/// What says which entity it is, and what happened when. The actor's kind is nobody's secret and is just left alone.
const KEPT: [&str; 12] = [
    "tenant_id",
    "entity_type",
    "entity_id",
    "event_id",
    "occurred_at",
    "service",
    "environment",
    "action",
    "operation",
    "outcome",
    "priority",
    "producer",
];

/// A rule can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// The text is no pattern of paths.
    #[error("redaction rule `{path}`: {problem}")]
    NotAPath {
        /// The rule's path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It could reach a field without which the event is worth nothing.
    #[error(
        "redaction rule `{path}` would reach {field}, which must stay; begin it with /changes, /details, /actor or a field's name"
    )]
    ReachesKept {
        /// The rule's path.
        path: String,
        /// The first such field.
        field: &'static str,
    },
    /// No event has anything there.
    #[error(
        "redaction rule `{path}` names no field of an event; the entity's own fields stand under /changes, such as /changes/customer/email"
    )]
    Nowhere {
        /// The rule's path.
        path: String,
    },
    /// A rule hashes, and there is no key.
    #[error("redaction rule `{path}` needs a key")]
    NoKey {
        /// The rule's path.
        path: String,
    },
    /// The key can be guessed.
    #[error("the redaction's key must have at least 16 bytes")]
    ShortKey,
}

/// Where a walk stands: the rules that can still match, by number.
pub(super) type Places = Vec<(usize, Place)>;

pub(super) struct Rules {
    list: Vec<(Pattern, Action)>,
    pub(super) key: Option<HmacKey>,
}

impl Rules {
    pub(super) fn new(rules: Vec<(String, Action)>, key: Option<HmacKey>) -> Result<Rules, RuleError> {
        if key.as_ref().is_some_and(|key| !key.is_long_enough()) {
            return Err(RuleError::ShortKey);
        }
        let mut list = Vec::new();
        for (path, action) in rules {
            let pattern = match Pattern::parse(&path) {
                Ok(pattern) => pattern,
                Err(problem) => return Err(RuleError::NotAPath { path, problem }),
            };
            // Alone, so that the question is about this rule.
            let alone = Rules { list: vec![(pattern, action)], key: None };
            if let Some(field) = KEPT.into_iter().find(|field| alone.at_or_above(&[field]).is_some()) {
                return Err(RuleError::ReachesKept { path, field });
            }
            let in_values = !alone.at("changes").is_empty() || !alone.at("details").is_empty();
            if !in_values && FIELDS.iter().all(|(field, _)| alone.at_or_above(field).is_none()) {
                return Err(RuleError::Nowhere { path });
            }
            if action == Action::Hmac && key.is_none() {
                return Err(RuleError::NoKey { path });
            }
            list.extend(alone.list);
        }
        Ok(Rules { list, key })
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    fn start(&self) -> Places {
        self.list.iter().enumerate().map(|(index, (pattern, _))| (index, pattern.start())).collect()
    }

    /// After the first segment.
    pub(super) fn at(&self, field: &str) -> Places {
        self.step(&self.start(), field)
    }

    /// After one more segment, without the rules that can't match any more.
    pub(super) fn step(&self, places: &Places, segment: &str) -> Places {
        let stepped = places.iter().map(|(index, place)| (*index, self.list[*index].0.step(*place, segment)));
        stepped.filter(|(_, place)| !place.is_dead()).collect()
    }

    /// The first rule that means exactly this place.
    pub(super) fn matched(&self, places: &Places) -> Option<Action> {
        let found = places.iter().find(|(index, place)| self.list[*index].0.is_match(*place));
        found.map(|(index, _)| self.list[*index].1)
    }

    /// The rule that means this path, or something that it is in.
    pub(super) fn at_or_above(&self, path: &[&str]) -> Option<Action> {
        let mut places = self.start();
        let mut found = self.matched(&places);
        for segment in path {
            if found.is_some() {
                break;
            }
            places = self.step(&places, segment);
            found = self.matched(&places);
        }
        found
    }
}
