//! Redacting inside of JSON texts. What no rule means is copied as it stands.

use super::rules::{Places, Rules};
use super::{Action, MASK};
use crate::json::{MAX_DEPTH, Opened, open};

/// What became of a text.
pub(super) enum Fate {
    Same,
    Other(String),
}

impl Rules {
    /// A field's text. `None`: dropped. A rule without a key can't have come to be; if it did, nothing is shown.
    pub(super) fn replaced_text(&self, action: Action, text: &str) -> Option<String> {
        replace_text(action, self.key.as_ref(), text)
    }

    /// A JSON text. Dropped, it is null: whoever can remove it does so.
    pub(super) fn replaced_json(&self, action: Action, json: &str) -> String {
        replace_json(action, self.key.as_ref(), json)
    }

    /// The text with everything replaced that a rule means, below the place reached, which itself is not meant.
    pub(super) fn walk(&self, text: &str, places: &Places, depth: usize) -> Fate {
        if places.is_empty() {
            return Fate::Same;
        }
        let opened = match open(text) {
            Some(Opened::Scalar) => return Fate::Same,
            Some(opened) if depth < MAX_DEPTH => opened,
            // A rule might match in there and nobody can tell.
            _ => return Fate::Other(self.replaced_json(Action::Mask, text)),
        };
        let mut out = String::with_capacity(text.len());
        let mut changed = false;
        match opened {
            Opened::Object(members) => {
                out.push('{');
                for (name, value) in members {
                    let below = self.step(places, &name);
                    match self.matched(&below) {
                        Some(Action::Drop) => changed = true,
                        Some(action) => {
                            changed = true;
                            push_member(&mut out, &name, &self.replaced_json(action, value));
                        }
                        None => match self.walk(value, &below, depth + 1) {
                            Fate::Same => push_member(&mut out, &name, value),
                            Fate::Other(value) => {
                                changed = true;
                                push_member(&mut out, &name, &value);
                            }
                        },
                    }
                }
                out.push('}');
            }
            Opened::Array(elements) => {
                out.push('[');
                for (index, value) in elements.into_iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    let below = self.step(places, &index.to_string());
                    let fate = match self.matched(&below) {
                        Some(action) => Fate::Other(self.replaced_json(action, value)),
                        None => self.walk(value, &below, depth + 1),
                    };
                    match fate {
                        Fate::Same => out.push_str(value),
                        Fate::Other(value) => {
                            changed = true;
                            out.push_str(&value);
                        }
                    }
                }
                out.push(']');
            }
            Opened::Scalar => {}
        }
        if changed { Fate::Other(out) } else { Fate::Same }
    }

    /// Each member of an object replaced, names kept unless they are dropped.
    pub(super) fn each_member(&self, action: Action, text: &str) -> Fate {
        let Some(Opened::Object(members)) = open(text) else { return Fate::Other("{\"redacted\":true}".to_owned()) };
        let mut out = String::from("{");
        if action != Action::Drop {
            for (name, value) in members {
                push_member(&mut out, &name, &self.replaced_json(action, value));
            }
        }
        out.push('}');
        Fate::Other(out)
    }
}

/// A text after an action. `None`: dropped, or to be hashed without a key.
fn replace_text(action: Action, key: Option<&super::HmacKey>, text: &str) -> Option<String> {
    match action {
        Action::Drop => None,
        Action::Mask => Some(MASK.to_owned()),
        Action::Hmac => Some(key.map_or_else(|| MASK.to_owned(), |key| key.token(text.as_bytes()))),
    }
}

/// A JSON text after an action, as JSON; null when dropped.
pub(crate) fn replace_json(action: Action, key: Option<&super::HmacKey>, json: &str) -> String {
    let text = json.trim_matches([' ', '\t', '\n', '\r']);
    // A string is hashed as its text, so that it has the token of a field with the same text.
    let decoded = if text.starts_with('"') { serde_json::from_str::<String>(text).ok() } else { None };
    match replace_text(action, key, decoded.as_deref().unwrap_or(text)) {
        // Neither the mask nor a token has anything to escape.
        Some(text) => format!("\"{text}\""),
        None => "null".to_owned(),
    }
}

/// Appends to an object that was begun with its brace.
fn push_member(out: &mut String, name: &str, value: &str) {
    if out.len() > 1 {
        out.push(',');
    }
    // Writing a string to memory can't fail; should it ever, the member stands without its name.
    out.push_str(&serde_json::to_string(name).unwrap_or_else(|_| "\"\"".to_owned()));
    out.push(':');
    out.push_str(value);
}
