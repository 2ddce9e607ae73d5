//! Schemas that others refer to, written into them: what reads Avro here takes one complete text.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

/// Deeper than any schema of an event.
const MAX_DEPTH: usize = 64;

const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

/// `schema` with each name that one of `definitions` defines replaced, at its first use, by that definition.
pub(super) fn inline(schema: &str, definitions: &[String]) -> Result<String, String> {
    let mut walk = Walk { definitions: HashMap::new(), defined: HashSet::new() };
    for text in definitions {
        let json: Json = serde_json::from_str(text).map_err(|error| format!("a schema it refers to: {error}"))?;
        if let Some((name, _)) = full_name(&json, "") {
            walk.definitions.insert(name, json);
        }
    }
    let mut json: Json = serde_json::from_str(schema).map_err(|error| error.to_string())?;
    walk.visit(&mut json, "", 0)?;
    Ok(json.to_string())
}

struct Walk {
    definitions: HashMap<String, Json>,
    defined: HashSet<String>,
}

impl Walk {
    fn visit(&mut self, schema: &mut Json, namespace: &str, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested deeper than {MAX_DEPTH}"));
        }
        let next = depth + 1;
        match schema {
            Json::String(name) => {
                let name = qualified(name, namespace);
                if PRIMITIVES.contains(&name.as_str()) || self.defined.contains(&name) {
                    return Ok(());
                }
                if let Some(mut definition) = self.definitions.get(&name).cloned() {
                    // Where it is put it must keep its own name, not take its surroundings' namespace.
                    let (own, simple) = name.rsplit_once('.').unwrap_or(("", &name));
                    definition["name"] = simple.into();
                    definition["namespace"] = own.into();
                    self.visit(&mut definition, "", next)?;
                    *schema = definition;
                }
                Ok(())
            }
            Json::Array(branches) => branches.iter_mut().try_for_each(|branch| self.visit(branch, namespace, next)),
            Json::Object(_) => {
                let inner = match full_name(schema, namespace) {
                    Some((name, inner)) => {
                        self.defined.insert(name);
                        inner
                    }
                    None => namespace.to_owned(),
                };
                if let Some(fields) = schema.get_mut("fields").and_then(Json::as_array_mut) {
                    for field in fields {
                        if let Some(kind) = field.get_mut("type") {
                            self.visit(kind, &inner, next)?;
                        }
                    }
                }
                for part in ["items", "values"] {
                    if let Some(part) = schema.get_mut(part) {
                        self.visit(part, &inner, next)?;
                    }
                }
                match schema.get_mut("type") {
                    Some(kind @ (Json::Object(_) | Json::Array(_))) => self.visit(kind, &inner, next),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// The full name of a record, an enum or a fixed, and the namespace of what is inside of it.
fn full_name(schema: &Json, namespace: &str) -> Option<(String, String)> {
    matches!(schema["type"].as_str()?, "record" | "error" | "enum" | "fixed").then_some(())?;
    let name = schema["name"].as_str()?;
    if let Some((own, _)) = name.rsplit_once('.') {
        return Some((name.to_owned(), own.to_owned()));
    }
    let own = schema["namespace"].as_str().unwrap_or(namespace);
    Some((qualified(name, own), own.to_owned()))
}

fn qualified(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() || PRIMITIVES.contains(&name) {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use apache_avro::Schema;

    #[test]
    fn each_name_is_defined_once_where_it_is_used_first() {
        let color = r#"{"type":"enum","name":"Color","namespace":"shop","symbols":["RED"]}"#;
        let item = r#"{"type":"record","name":"shop.Item","fields":[{"name":"color","type":"Color"},{"name":"next","type":["null","Item"]}]}"#;
        let order = r#"{"type":"record","name":"Order","namespace":"sales","fields":[
            {"name":"items","type":{"type":"array","items":"shop.Item"}},
            {"name":"by_name","type":{"type":"map","values":"shop.Item"}},
            {"name":"color","type":["null","shop.Color"],"default":null},
            {"name":"id","type":"string"}]}"#;
        let complete = inline(order, &[item.to_owned(), color.to_owned()]).unwrap();
        let schema = Schema::parse_str(&complete).unwrap();
        let expected = Schema::parse_list([color, item, order]).unwrap();
        let Schema::Record(order) = &schema else { unreachable!("a record") };
        let Schema::Record(wanted) = &expected[2] else { unreachable!("a record") };
        assert_eq!(order.name, wanted.name);
        assert_eq!(complete.matches(r#""symbols""#).count(), 1);
        assert!(Schema::parse_str(&inline(item, &[]).unwrap()).is_err(), "without the definition it is no schema");
    }

    #[test]
    fn definitions_that_need_each_other_end() {
        let a = r#"{"type":"record","name":"A","fields":[{"name":"b","type":"B"}]}"#;
        let b = r#"{"type":"record","name":"B","fields":[{"name":"a","type":["null","A"]}]}"#;
        Schema::parse_str(&inline(a, &[a.to_owned(), b.to_owned()]).unwrap()).unwrap();
        let mut deep = r#""int""#.to_owned();
        for _ in 0..100 {
            deep = format!(r#"{{"type":"array","items":{deep}}}"#);
        }
        assert!(inline(&deep, &[]).unwrap_err().contains("deeper"));
    }
}
