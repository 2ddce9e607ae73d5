//! The effective configuration as TOML, each value with where it comes from. Secrets are redacted.

use std::fmt::Write;

use super::keys::{Default as KeyDefault, KEYS, Kind, PROPERTIES};
use super::properties;
use super::raw::{Origin, Raw, Value};

const REDACTED: &str = "[redacted]";

pub(super) fn effective(raw: &Raw) -> String {
    let mut out = String::new();
    let mut section = "";
    for key in KEYS {
        let (in_section, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if in_section != section {
            if section == "kafka" {
                pass_through(&mut out, raw);
            }
            section = in_section;
            line(&mut out, &format!("[{section}]"), None);
        }
        let said = raw.values.get(key.path);
        let origin = said.map_or(Origin::Default, |(_, origin)| origin.clone());
        let quoted = |text: &str| if matches!(key.kind, Kind::Ratio) { text.to_owned() } else { quoted(text) };
        let value = match (said, key.default) {
            (Some(_), _) if key.secret => quoted(REDACTED),
            (Some((Value::Text(text), _)), _) => quoted(text),
            (Some((Value::Integer(number), _)), _) => number.to_string(),
            (None, Some(KeyDefault::Text(text))) => quoted(text),
            (None, Some(KeyDefault::Integer(number))) => number.to_string(),
            (None, None) => {
                line(&mut out, &format!("# {name} is not set"), None);
                continue;
            }
        };
        line(&mut out, &format!("{name} = {value}"), Some(&origin));
    }
    out
}

fn pass_through(out: &mut String, raw: &Raw) {
    if raw.properties.is_empty() {
        return;
    }
    line(out, &format!("[{PROPERTIES}]"), None);
    for (name, (value, origin)) in &raw.properties {
        let value = if properties::is_secret(name) { REDACTED } else { value };
        line(out, &format!("{} = {}", quoted(name), quoted(value)), Some(origin));
    }
}

fn line(out: &mut String, text: &str, origin: Option<&Origin>) {
    // Writing to a String can't fail.
    let _ = match origin {
        None => writeln!(out, "{text}"),
        Some(origin) => writeln!(out, "{text:<45} # {origin}"),
    };
}

/// As a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
