//! A view that shows a service's own fields, which travel in `details`, as typed columns: `details.amount` as a Decimal.
//!
//! `details` stays one text: the JSON type would double the cost of an insert, and one number out of a text is read at 20 M rows a second and core.
//! So the types are made at the query, by the record's Avro schema; a column that a query does not name costs nothing. Every column is Nullable (but
//! for arrays, maps, and tuples in them): an event of another version that has no such field shows NULL, never a zero that nobody wrote.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordSchema, ResolvedSchema};

use crate::client::{Store, quoted};
use crate::errors::CallError;

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
pub enum CustomViewError {
    /// The schema can't be used.
    #[error("the schema can't be used for custom fields: {0}")]
    Schema(String),
    /// The name of the view or of the database would need quotes.
    #[error("{0} is no name for a view: letters, digits and underscores")]
    Name(String),
}

/// Records in records become columns down to this depth; what is deeper is shown as JSON text.
const MAX_DEPTH: usize = 8;
/// Digits that ClickHouse's Decimal can have.
const MAX_PRECISION: usize = 76;

/// `CREATE OR REPLACE VIEW` over the events of `database` whose details are of `subject`: all their columns, and one for each field of the record
/// `schema` (Avro's JSON). It runs with the rights of who asks, so row policies of the table hold.
///
/// # Errors
/// See [`CustomViewError`].
pub fn custom_view(database: &str, view: &str, subject: &str, schema: &str) -> Result<String, CustomViewError> {
    let plain = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if let Some(name) = [database, view].into_iter().find(|name| !plain(name)) {
        return Err(CustomViewError::Name(name.to_owned()));
    }
    let bad = |error: apache_avro::Error| CustomViewError::Schema(error.to_string());
    let schema = Schema::parse_str(schema).map_err(bad)?;
    let Schema::Record(record) = &schema else {
        return Err(CustomViewError::Schema("it is no record".to_owned()));
    };
    let names = ResolvedSchema::new(&schema).map_err(bad)?;
    let mut columns = Columns { names: names.get_names(), lines: Vec::new(), open: Vec::new() };
    columns.record(record, &[]);
    let mark = quoted(&format!("{subject}:"));
    Ok(format!(
        "CREATE OR REPLACE VIEW `{database}`.`{view}`\nSQL SECURITY INVOKER\nAS SELECT\n    events.*{}\nFROM `{database}`.`events`\n\
         WHERE startsWith(JSONExtractString(details, '$schema'), {mark})",
        columns.lines.concat()
    ))
}

impl Store {
    /// Runs a statement of [`custom_view`].
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn create_view(&self, sql: &str) -> Result<(), CallError> {
        self.execute(sql).await
    }
}

struct Columns<'s> {
    names: &'s HashMap<Name, &'s Schema>,
    lines: Vec<String>,
    /// Records that are laid flat right now.
    open: Vec<&'s Name>,
}

/// What JSONExtract makes of a value, and what is still to be done to it.
struct Extracted {
    /// Type for `JSONExtract`, not Nullable.
    json: String,
    /// Around the extracted `{}`.
    around: Option<&'static str>,
    can_be_null: bool,
}

impl Extracted {
    fn plain(json: impl Into<String>) -> Self {
        Self { json: json.into(), around: None, can_be_null: true }
    }

    fn text(around: &'static str) -> Self {
        Self { json: "String".to_owned(), around: Some(around), can_be_null: true }
    }
}

const RAW: &str = "nullIf(nullIf(JSONExtractRaw(details, {}), ''), 'null')";

impl<'s> Columns<'s> {
    fn record(&mut self, record: &'s RecordSchema, path: &[&'s str]) {
        self.open.push(&record.name);
        for field in &record.fields {
            let mut path = path.to_vec();
            path.push(&field.name);
            self.field(&field.schema, &path);
        }
        self.open.pop();
    }

    fn field(&mut self, schema: &'s Schema, path: &[&'s str]) {
        let schema = self.without_null(schema);
        if let Schema::Record(record) = schema
            && self.open.len() < MAX_DEPTH
            && !self.open.contains(&&record.name)
        {
            return self.record(record, path);
        }
        let keys = path.iter().map(|key| quoted(key)).collect::<Vec<_>>().join(", ");
        let expression = match self.extracted(schema, 0) {
            None => RAW.replace("{}", &keys),
            Some(Extracted { json, around, can_be_null }) => {
                let json = match (can_be_null, json.strip_prefix("LowCardinality(").and_then(|t| t.strip_suffix(')'))) {
                    (false, _) => json,
                    (true, Some(inner)) => format!("LowCardinality(Nullable({inner}))"),
                    (true, None) => format!("Nullable({json})"),
                };
                let got = format!("JSONExtract(details, {keys}, {})", quoted(&json));
                around.map_or(got.clone(), |around| around.replace("{}", &got))
            }
        };
        self.lines.push(format!(",\n    {expression} AS `details.{}`", path.join(".")));
    }

    /// The other branch of `["null", T]`, and what a reference stands for.
    fn without_null(&self, schema: &'s Schema) -> &'s Schema {
        let schema = match schema {
            Schema::Union(union) => match union.variants() {
                [Schema::Null, other] | [other, Schema::Null] | [other] => other,
                _ => schema,
            },
            other => other,
        };
        match schema {
            Schema::Ref { name } => self.names.get(name).copied().unwrap_or(schema),
            other => other,
        }
    }

    /// `None`: only as JSON text.
    fn extracted(&self, schema: &'s Schema, depth: usize) -> Option<Extracted> {
        if depth > MAX_DEPTH {
            return None;
        }
        Some(match schema {
            Schema::Boolean => Extracted::plain("Bool"),
            Schema::Int => Extracted::plain("Int32"),
            Schema::Long => Extracted::plain("Int64"),
            Schema::Float => Extracted::plain("Float32"),
            Schema::Double => Extracted::plain("Float64"),
            Schema::Decimal(decimal) if decimal.precision <= MAX_PRECISION => {
                Extracted::plain(format!("Decimal({}, {})", decimal.precision, decimal.scale))
            }
            Schema::String | Schema::Decimal(_) | Schema::TimeMillis | Schema::TimeMicros => Extracted::plain("String"),
            Schema::Enum(_) => Extracted::plain("LowCardinality(String)"),
            Schema::Uuid(_) => Extracted::plain("UUID"),
            Schema::Date => Extracted::plain("Date32"),
            Schema::Bytes | Schema::Fixed(_) => Extracted::text("base64Decode({})"),
            Schema::TimestampMillis | Schema::LocalTimestampMillis => {
                Extracted::text("parseDateTime64BestEffortOrNull({}, 3, 'UTC')")
            }
            Schema::TimestampMicros | Schema::LocalTimestampMicros => {
                Extracted::text("parseDateTime64BestEffortOrNull({}, 6, 'UTC')")
            }
            Schema::TimestampNanos | Schema::LocalTimestampNanos => {
                Extracted::text("parseDateTime64BestEffortOrNull({}, 9, 'UTC')")
            }
            Schema::Array(array) => Extracted {
                json: format!("Array({})", self.inside(&array.items, depth)?),
                around: None,
                can_be_null: false,
            },
            Schema::Map(map) => Extracted {
                json: format!("Map(String, {})", self.inside(&map.types, depth)?),
                around: None,
                can_be_null: false,
            },
            _ => return None,
        })
    }

    /// The type of what an array or a map holds: Nullable only where the schema says so, so that lambdas can calculate with it. Times and bytes stay
    /// text there.
    fn inside(&self, schema: &'s Schema, depth: usize) -> Option<String> {
        let nullable = matches!(schema, Schema::Union(union) if union.variants().contains(&Schema::Null));
        let inner = self.without_null(schema);
        if let Schema::Record(record) = inner {
            if depth > MAX_DEPTH || self.open.contains(&&record.name) || record.fields.is_empty() {
                return None;
            }
            let fields: Option<Vec<String>> = record
                .fields
                .iter()
                .map(|field| Some(format!("`{}` {}", field.name, self.inside(&field.schema, depth + 1)?)))
                .collect();
            return Some(format!("Tuple({})", fields?.join(", ")));
        }
        let Extracted { json, can_be_null, .. } = self.extracted(inner, depth + 1)?;
        // LowCardinality can't be inside of everything; as text it is the same.
        let json = if json.starts_with("LowCardinality") { "String".to_owned() } else { json };
        Some(if can_be_null && nullable { format!("Nullable({json})") } else { json })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ORDER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
        {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":2}},
        {"name":"note","type":["null","string"],"default":null},
        {"name":"customer","type":{"type":"record","name":"Customer","fields":[{"name":"id","type":{"type":"string","logicalType":"uuid"}}]}},
        {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[{"name":"sku","type":"string"}]}}},
        {"name":"parent","type":["null","Order"],"default":null}]}"#;

    #[test]
    fn a_column_for_each_field() {
        let sql = custom_view("audit", "events_order", "shop's order", ORDER).unwrap();
        for line in [
            r"JSONExtract(details, 'amount', 'Nullable(Decimal(18, 2))') AS `details.amount`",
            r"JSONExtract(details, 'note', 'Nullable(String)') AS `details.note`",
            r"JSONExtract(details, 'customer', 'id', 'Nullable(UUID)') AS `details.customer.id`",
            r"JSONExtract(details, 'lines', 'Array(Tuple(`sku` String))') AS `details.lines`",
            // It contains itself.
            r"nullIf(nullIf(JSONExtractRaw(details, 'parent'), ''), 'null') AS `details.parent`",
            r"WHERE startsWith(JSONExtractString(details, '$schema'), 'shop\'s order:')",
            "SQL SECURITY INVOKER",
        ] {
            assert!(sql.contains(line), "{line} is missing in {sql}");
        }
    }

    #[test]
    fn names_and_schemas_that_can_not_be_used() {
        assert!(matches!(custom_view("audit", "a`b", "s", ORDER), Err(CustomViewError::Name(name)) if name == "a`b"));
        assert!(matches!(custom_view("audit", "v", "s", "\"int\""), Err(CustomViewError::Schema(_))));
        assert!(matches!(custom_view("audit", "v", "s", "{"), Err(CustomViewError::Schema(_))));
    }
}
