//! A view that shows a service's own fields, which travel in `details`, as typed columns: `details.amount` as a Decimal.
//!
//! `details` stays one text: the JSON type would double the cost of an insert, and one number out of a text is read at 20 M rows a second and core.
//! So the types are made at the query, by the record's Avro schema; a column that a query does not name costs nothing. Every column is Nullable (but
//! for arrays, maps, and tuples in them): an event of another version that has no such field shows NULL, never a zero that nobody wrote.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordSchema, ResolvedSchema};
use clickhouse::Row;
use serde::Deserialize;

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
    /// The name is that of a table which this product keeps.
    #[error("{0} is a table of auditstream, which a view would replace: give the view another name")]
    Reserved(String),
    /// Something of that name is there, and it is no view of this subject.
    #[error(
        "{name} is there and is {found}, not a view of subject {subject}: give the view another name, or drop that one first"
    )]
    Taken {
        /// Database and name.
        name: String,
        /// What it is, such as `a table (engine MergeTree)`.
        found: String,
        /// Whose view was wanted.
        subject: String,
    },
    /// ClickHouse refused, or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Tables that `CREATE OR REPLACE VIEW` must never meet: ClickHouse drops a table for a view of its name. On a cluster each has its rows in a local table
/// of the same name and `_local`.
const TABLES: [&str; 4] = ["events", "ledger", "dead_letters", "schema_migrations"];
/// Columns of a view, with the elements of tuples in them. Records that hold one another a few times each would be millions.
const MAX_COLUMNS: usize = 1_000;

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
    if TABLES.contains(&view.strip_suffix("_local").unwrap_or(view)) {
        return Err(CustomViewError::Reserved(view.to_owned()));
    }
    let bad = |error: apache_avro::Error| CustomViewError::Schema(error.to_string());
    let schema = Schema::parse_str(schema).map_err(bad)?;
    let Schema::Record(record) = &schema else {
        return Err(CustomViewError::Schema("it is no record".to_owned()));
    };
    let names = ResolvedSchema::new(&schema).map_err(bad)?;
    let mut columns = Columns { names: names.get_names(), lines: Vec::new(), open: Vec::new(), count: 0 };
    columns.record(record, &[]);
    if columns.count > MAX_COLUMNS {
        let too_many = format!(
            "record {} has more than {MAX_COLUMNS} fields, counting those of records in it",
            record.name.fullname(None)
        );
        return Err(CustomViewError::Schema(too_many));
    }
    Ok(format!(
        "CREATE OR REPLACE VIEW `{database}`.`{view}`\nSQL SECURITY INVOKER\nAS SELECT\n    events.*{}\nFROM `{database}`.`events`\nWHERE {} AND {}",
        columns.lines.concat(),
        of_subject(subject),
        // A subject may hold a colon: `orders:eu:1` is not of the subject `orders`. ClickHouse counts bytes, from 1.
        format_args!("match(substring(JSONExtractString(details, '$schema'), {}), '^[0-9]+$')", subject.len() + 2)
    ))
}

/// The condition that marks a view as this subject's, as ClickHouse writes it back in `as_select` too.
fn of_subject(subject: &str) -> String {
    format!("startsWith(JSONExtractString(details, '$schema'), {})", quoted(&format!("{subject}:")))
}

#[derive(Row, Deserialize)]
struct Found {
    engine: String,
    as_select: String,
}

/// The statement that may be run, where `found` has the view's name: ClickHouse's `CREATE OR REPLACE VIEW` drops whatever has it, a table as well, with
/// its rows. Where there is nothing it is `CREATE VIEW`, which fails if something comes, or was only hidden from this user.
fn allowed(sql: &str, found: Option<&Found>, subject: &str) -> Result<String, String> {
    match found {
        None => Ok(sql.replacen("CREATE OR REPLACE VIEW", "CREATE VIEW", 1)),
        Some(Found { engine, as_select }) if engine == "View" && as_select.contains(&of_subject(subject)) => {
            Ok(sql.to_owned())
        }
        Some(Found { engine, .. }) if engine == "View" => Err("another view".to_owned()),
        Some(Found { engine, .. }) => Err(format!("a table (engine {engine})")),
    }
}

impl Store {
    /// Makes the view of [`custom_view`] in the store's database, or replaces it by that of another version of the subject.
    ///
    /// # Errors
    /// See [`CustomViewError`]; also when the name is taken by anything but a view of this subject.
    pub async fn create_view(&self, view: &str, subject: &str, schema: &str) -> Result<(), CustomViewError> {
        let database = self.database();
        let sql = custom_view(database, view, subject, schema)?;
        let found: Vec<Found> = self
            .fetch(&format!(
                "SELECT engine, as_select FROM system.tables WHERE database = {} AND name = {}",
                quoted(database),
                quoted(view)
            ))
            .await?;
        let sql = allowed(&sql, found.first(), subject).map_err(|found| CustomViewError::Taken {
            name: format!("{database}.{view}"),
            found,
            subject: subject.to_owned(),
        })?;
        Ok(self.execute(&sql).await?)
    }
}

struct Columns<'s> {
    names: &'s HashMap<Name, &'s Schema>,
    lines: Vec<String>,
    /// Records that are laid flat right now.
    open: Vec<&'s Name>,
    /// Fields met, up to one more than there may be.
    count: usize,
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

    /// Whether one more field may be looked at.
    fn counts(&mut self) -> bool {
        self.count = (self.count + 1).min(MAX_COLUMNS + 1);
        self.count <= MAX_COLUMNS
    }

    fn field(&mut self, schema: &'s Schema, path: &[&'s str]) {
        if !self.counts() {
            return;
        }
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
    fn extracted(&mut self, schema: &'s Schema, depth: usize) -> Option<Extracted> {
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
            Schema::Bytes | Schema::Fixed(_) => Extracted::text("tryBase64Decode({})"),
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
    fn inside(&mut self, schema: &'s Schema, depth: usize) -> Option<String> {
        let nullable = matches!(schema, Schema::Union(union) if union.variants().contains(&Schema::Null));
        let inner = self.without_null(schema);
        if let Schema::Record(record) = inner {
            if depth > MAX_DEPTH || self.open.contains(&&record.name) || record.fields.is_empty() {
                return None;
            }
            let fields: Option<Vec<String>> = record
                .fields
                .iter()
                .map(|field| {
                    let inside = if self.counts() { self.inside(&field.schema, depth + 1)? } else { return None };
                    Some(format!("`{}` {inside}", field.name))
                })
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
            r"WHERE startsWith(JSONExtractString(details, '$schema'), 'shop\'s order:') AND match(substring(JSONExtractString(details, '$schema'), 14), '^[0-9]+$')",
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

    #[test]
    fn a_subject_is_measured_in_bytes() {
        assert!(custom_view("audit", "v", "größe", ORDER).unwrap().contains("'$schema'), 9), '^[0-9]+$')"));
    }

    #[test]
    fn bytes_that_are_no_base64_do_not_fail_the_query() {
        let schema = r#"{"type":"record","name":"R","fields":[{"name":"b","type":"bytes"}]}"#;
        let sql = custom_view("audit", "v", "s", schema).unwrap();
        assert!(sql.contains("tryBase64Decode(JSONExtract(details, 'b', 'Nullable(String)')) AS `details.b`"), "{sql}");
    }

    #[test]
    fn a_table_is_never_replaced() {
        for table in TABLES {
            for name in [table.to_owned(), format!("{table}_local")] {
                let refused = custom_view("audit", &name, "s", ORDER);
                assert!(matches!(&refused, Err(CustomViewError::Reserved(view)) if *view == name), "{refused:?}");
            }
        }
        let sql = custom_view("audit", "v", "shop", ORDER).unwrap();
        let found =
            |engine: &str, as_select: &str| Found { engine: engine.to_owned(), as_select: as_select.to_owned() };
        let may = |found: Option<Found>| allowed(&sql, found.as_ref(), "shop");
        assert!(may(None).unwrap().starts_with("CREATE VIEW `audit`.`v`"));
        let own = "SELECT events.* FROM audit.events WHERE startsWith(JSONExtractString(details, '$schema'), 'shop:')";
        assert_eq!(may(Some(found("View", own))).unwrap(), sql);
        assert_eq!(may(Some(found("View", &own.replace("shop:", "b2b:")))).unwrap_err(), "another view");
        assert_eq!(may(Some(found("View", &own.replace("shop:", "shop:eu:")))).unwrap_err(), "another view");
        assert_eq!(may(Some(found("MergeTree", ""))).unwrap_err(), "a table (engine MergeTree)");
        assert_eq!(may(Some(found("MaterializedView", own))).unwrap_err(), "a table (engine MaterializedView)");
    }

    /// Each record holds the next one ten times.
    fn wide(around: impl Fn(&str) -> String, bottom: &str) -> String {
        let mut inner = format!(r#"{{"type":"record","name":"R0","fields":[{bottom}]}}"#);
        for level in 1..8 {
            let fields: Vec<String> = (0..10)
                .map(|number| {
                    let kind = if number == 0 { inner.clone() } else { format!("\"R{}\"", level - 1) };
                    let kind = if level == 7 { around(&kind) } else { kind };
                    format!(r#"{{"name":"f{number}","type":{kind}}}"#)
                })
                .collect();
            inner = format!(r#"{{"type":"record","name":"R{level}","fields":[{}]}}"#, fields.join(","));
        }
        inner
    }

    #[test]
    fn the_columns_of_a_view_are_bounded() {
        let int = r#"{"name":"x","type":"int"}"#;
        for schema in [
            wide(str::to_owned, int),
            // No column at all, and ten million records to look at.
            wide(str::to_owned, ""),
            wide(|kind| format!(r#"{{"type":"array","items":{kind}}}"#), int),
        ] {
            let refused = custom_view("audit", "v", "s", &schema);
            assert!(
                matches!(&refused, Err(CustomViewError::Schema(text)) if text.contains("more than 1000 fields")),
                "{refused:?}"
            );
        }
        let fields = |count: usize| {
            let fields: Vec<String> =
                (0..count).map(|number| format!(r#"{{"name":"f{number}","type":"int"}}"#)).collect();
            format!(r#"{{"type":"record","name":"R","fields":[{}]}}"#, fields.join(","))
        };
        assert!(custom_view("audit", "v", "s", &fields(1_000)).is_ok());
        assert!(custom_view("audit", "v", "s", &fields(1_001)).is_err());
    }
}
