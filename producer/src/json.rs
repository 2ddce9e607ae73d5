//! One level of a JSON text at a time, its parts as they stand: numbers keep their digits, whatever their size, and what
//! is not looked at costs nothing but the scan.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deeper than this nobody looks.
pub(crate) const MAX_DEPTH: usize = 128;

/// A JSON text, opened by one level.
#[derive(Debug)]
pub(crate) enum Opened<'a> {
    /// Members in their order, also those that come twice.
    Object(Vec<(String, &'a str)>),
    Array(Vec<&'a str>),
    /// Text, number, boolean or null.
    Scalar,
}

/// Opens a JSON text. `None` when it is none (a lone surrogate in a member's name included).
pub(crate) fn open(text: &str) -> Option<Opened<'_>> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    match text.as_bytes().first()? {
        b'{' => {
            let Members(members) = serde_json::from_str(text).ok()?;
            Some(Opened::Object(members))
        }
        b'[' => {
            let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            Some(Opened::Array(elements.into_iter().map(RawValue::get).collect()))
        }
        _ => Some(Opened::Scalar),
    }
}

struct Members<'a>(Vec<(String, &'a str)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'a>, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((name, value.get()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Puts the note that something is missing into the text of a JSON object, as its first member.
pub(crate) fn note_cut(details: &mut String, left_out: usize, shortened: usize) {
    if left_out == 0 && shortened == 0 {
        return;
    }
    let note = format!("\"changes_cut\":{{\"left_out\":{left_out},\"shortened\":{shortened}}}");
    match details.trim_start().strip_prefix('{') {
        Some(rest) if rest.trim_start().starts_with('}') => *details = format!("{{{note}}}"),
        Some(rest) => *details = format!("{{{note},{rest}"),
        // Not an object: `validate` will say so, and the note must not hide it.
        None => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn parts_stand_as_they_are() {
        let text = " { \"a\" : 1e400 , \"b\\u0041\":[1, {\"c\":null}],\"a\":340282366920938463463374607431768211456 } ";
        let Some(Opened::Object(members)) = open(text) else { panic!() };
        let members: Vec<_> = members.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let expected = [("a", "1e400"), ("bA", "[1, {\"c\":null}]"), ("a", "340282366920938463463374607431768211456")];
        assert_eq!(members, expected);
        let Some(Opened::Array(elements)) = open("[1 , \"x\"]") else { panic!() };
        assert_eq!(elements, ["1", "\"x\""]);
        assert!(matches!(open(" -0.10 "), Some(Opened::Scalar)));
        for bad in ["", "{", "{\"a\"}", "[1,]", "{\"\\ud800\":1}"] {
            assert!(open(bad).is_none(), "{bad}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(open(&deep), Some(Opened::Array(inner)) if inner.len() == 1));
    }
}
