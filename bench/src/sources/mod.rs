//! Real input: histories that every developer's machine has, turned into audit events.
//!
//! The conversions are pure functions. An event's id is made from what it tells (UUIDv5), so that the same history read twice is the same events: sent
//! again, they stay one row each.

pub mod dpkg;
pub mod git;

use uuid::Uuid;

/// The tenant that owns what this machine did.
pub const TENANT: &str = "this-machine";

/// Namespace of the ids made from real histories.
const NAMESPACE: Uuid = Uuid::from_u128(0x5f0c_1f5e_0b5c_4a1e_9d0a_6a1d_7c35_20b4);

/// An id that is a function of `parts`. No two lists of parts give the same text.
fn id_of(parts: &[&str]) -> Uuid {
    let mut text = String::new();
    for part in parts {
        text.push_str(&part.len().to_string());
        text.push(':');
        text.push_str(part);
    }
    Uuid::new_v5(&NAMESPACE, text.as_bytes())
}

/// Events read from a history, and what could not be read.
#[derive(Debug, Default)]
pub struct Reading {
    /// In the order of the history, oldest first.
    pub events: Vec<auditstream_schemas::AuditEvent>,
    /// Entries that looked like events but could not be one.
    pub unreadable: u64,
    /// Whether there was more than the limit.
    pub cut: bool,
}

/// `text` as JSON text.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_repeatable_and_parts_do_not_run_together() {
        assert_eq!(id_of(&["a", "b"]), id_of(&["a", "b"]));
        assert_ne!(id_of(&["ab", ""]), id_of(&["a", "b"]));
        assert_ne!(id_of(&["1:a"]), id_of(&["a"]));
    }
}
