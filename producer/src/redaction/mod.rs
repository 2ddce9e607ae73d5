//! Taking values out of events by rule, before they leave the process.
//!
//! ```
//! use auditstream_producer::redaction::{Action, HmacKey, Redaction};
//! use auditstream_schemas::{Actor, AuditEvent};
//!
//! let redaction = Redaction::builder()
//!     .key(HmacKey::new(b"32 bytes out of the secret store"))
//!     .rule("/**/password", Action::Drop)
//!     .rule("/changes/customer/email", Action::Hmac)
//!     .rule("/details/card/number", Action::Mask)
//!     .rule("/ip", Action::Hmac)
//!     .build()?;
//!
//! let mut event = AuditEvent::builder("acme", "shop", "order.update", "order", "42")
//!     .change("/customer", None, Some(r#"{"email":"a@example.org","password":"x"}"#))
//!     .details(r#"{"card":{"number":4111111111111111}}"#)
//!     .build()?;
//! redaction.apply(&mut event); // a producer with `Config::redaction` does this by itself
//! let email = redaction.token("a@example.org").unwrap_or_default();
//! assert_eq!(event.changes[0].new, Some(format!(r#"{{"email":"{email}"}}"#)));
//! assert_eq!(event.details, r#"{"card":{"number":"***"}}"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Paths.** An event is seen as one document: its own fields (`/ip`, `/actor/email`), `/details/...`, and `/changes/...`
//! followed by the entity's own path, whichever way that came: a rule for `/changes/customer/email` reaches a change of
//! `/customer/email`, the member of a whole new `/customer`, and so on. `*` is one segment, `**` any number, none included.
//! What a rule names is replaced with everything in it. Of several rules the shallowest match counts, then the first.
//!
//! **Actions** ([`Action`]). What is absent stays absent.
//!
//! **What can't be redacted**: what says which entity it is and what happened when (`tenant_id`, `entity_type`,
//! `entity_id`, `action` and the like). A rule that could reach one of these is refused, so that a key is not lost by a
//! careless `/**`. Names in paths (`/emails/a@example.org`) are not values: drop these with a rule above them.
//!
//! **Bounds.** What can't be read, or is nested more than 128 levels deep where a rule might still match, is masked as a
//! whole. Should tokens make an event too large, its last changes are left out, and its details say so (`changes_cut`).

mod hmac;
mod pattern;
mod rules;
mod value;

use std::fmt;

use auditstream_schemas::{AuditEvent, encoded_len, limits};

pub use self::hmac::HmacKey;
pub use rules::RuleError;

use crate::json::note_cut;
use rules::{FIELDS, Rules};
use value::Fate;
#[cfg(feature = "derive")]
pub(crate) use value::replace_json;

/// What happens to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes, with its name: a field becomes none, a member of an object is removed, and so is the whole change of a path.
    /// An element of an array becomes null, so that the others keep their index.
    Drop,
    /// It becomes the text `***`.
    Mask,
    /// It becomes `hmac:` and 32 hexadecimal digits, the first half of its HMAC-SHA-256. Equal values have equal tokens:
    /// text is hashed as it is, whether it stands in a field or in JSON, anything else as its JSON text.
    Hmac,
}

/// What a masked value looks like.
pub(crate) const MASK: &str = "***";

/// Rules, ready to be applied. Make it once and share it.
pub struct Redaction {
    rules: Rules,
    /// What happens to each of [`FIELDS`].
    fields: Vec<Option<Action>>,
}

impl Redaction {
    /// Begins with no rules.
    pub fn builder() -> RedactionBuilder {
        RedactionBuilder { rules: Vec::new(), key: None }
    }

    /// What a text looks like after [`Action::Hmac`], to search for it. `None` without a key.
    pub fn token(&self, text: &str) -> Option<String> {
        self.rules.key.as_ref().map(|key| key.token(text.as_bytes()))
    }

    /// Applies the rules. Once an event: applied again it makes tokens of tokens.
    pub fn apply(&self, event: &mut AuditEvent) {
        for ((_, field), action) in FIELDS.iter().zip(&self.fields) {
            let Some(action) = action else { continue };
            let value = field(event);
            *value = value.take().and_then(|text| self.rules.replaced_text(*action, &text));
        }
        let at_changes = self.rules.at("changes");
        if !at_changes.is_empty() {
            event.changes.retain_mut(|change| {
                let path = change.path.strip_prefix('/').unwrap_or(&change.path);
                let mut places = at_changes.clone();
                let mut matched = self.rules.matched(&places);
                // The root's path is empty; `/` alone is a member without a name.
                if !change.path.is_empty() {
                    for segment in path.split('/') {
                        if matched.is_some() || places.is_empty() {
                            break;
                        }
                        places = self.rules.step(&places, &pattern::unescape(segment));
                        matched = self.rules.matched(&places);
                    }
                }
                if matched == Some(Action::Drop) {
                    return false;
                }
                if matched.is_none() && places.is_empty() {
                    return true;
                }
                for side in [&mut change.old, &mut change.new] {
                    let Some(text) = side else { continue };
                    let replaced = match matched {
                        Some(action) => self.rules.replaced_json(action, text),
                        None => match self.rules.walk(text, &places, 0) {
                            Fate::Same => continue,
                            Fate::Other(text) => text,
                        },
                    };
                    *text = bounded(replaced, limits::CHANGE_VALUE_BYTES);
                }
                true
            });
        }
        let at_details = self.rules.at("details");
        if !at_details.is_empty() {
            let replaced = match self.rules.matched(&at_details) {
                // The details stay an object: the rule means each of its members.
                Some(action) => self.rules.each_member(action, &event.details),
                None => self.rules.walk(&event.details, &at_details, 0),
            };
            if let Fate::Other(text) = replaced {
                let fits = text.len() <= limits::DETAILS_BYTES && text.starts_with('{');
                event.details = if fits { text } else { "{\"redacted\":true}".to_owned() };
            }
        }
        keep_sendable(event);
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redaction").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

/// A token may be longer than what it stands for.
fn bounded(text: String, limit: usize) -> String {
    if text.len() <= limit { text } else { format!("\"{MASK}\"") }
}

fn keep_sendable(event: &mut AuditEvent) {
    let mut left_out = 0;
    while encoded_len(event) > limits::ENCODED_BYTES && !event.changes.is_empty() {
        let keep = event.changes.len() / 2;
        left_out += event.changes.len() - keep;
        event.changes.truncate(keep);
    }
    note_cut(&mut event.details, left_out, 0);
}

/// Gathers rules; see [`Redaction::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct RedactionBuilder {
    rules: Vec<(String, Action)>,
    key: Option<HmacKey>,
}

impl RedactionBuilder {
    /// Adds a rule.
    pub fn rule(mut self, path: impl Into<String>, action: Action) -> RedactionBuilder {
        self.rules.push((path.into(), action));
        self
    }

    /// The key of [`Action::Hmac`].
    pub fn key(mut self, key: HmacKey) -> RedactionBuilder {
        self.key = Some(key);
        self
    }

    /// Checks the rules.
    ///
    /// # Errors
    /// The first rule that is no path, names no field, or could reach what must not be redacted; no key, or one
    /// shorter than 16 bytes, when a rule needs it.
    pub fn build(self) -> Result<Redaction, RuleError> {
        let rules = Rules::new(self.rules, self.key)?;
        let fields = FIELDS.iter().map(|(path, _)| rules.at_or_above(path)).collect();
        Ok(Redaction { rules, fields })
    }
}

#[cfg(test)]
mod tests;
