//! `auditstream schema new-version`: a field more, as the next `.avsc`, the migration for its column, and golden files.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use auditstream_schemas::gate::{self, Carrier, Named};
use auditstream_schemas::golden::{self, GOLDEN_FILES};
use auditstream_store::EVENT_COLUMNS;
use serde_json::{Value as Json, json};

use super::files::{self, SchemaFile};
use crate::{exit, output};

const AVRO: &str = "schemas/avro";
const MIGRATIONS: &str = "store/migrations";
const GOLDEN: &str = "schemas/golden";
const STEM: &str = "audit_event";

/// Make the event's next schema version: the field, the migration that adds its column, and the golden files.
///
/// For a checkout of auditstream. Refuses what some worker could not read: a field needs a default, for events that were
/// written without it, and its column needs a type in ClickHouse. Says what is left to do by hand.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream schema new-version --field region --type string --default '' --dry-run
  auditstream schema new-version --field risk --type int --default 0 --doc 'Score, 0 to 100.'
  auditstream schema new-version --field seen_at --type timestamp-micros --default 0
  auditstream schema new-version --field note --type '[\"null\",\"string\"]'

Exit codes: 0 written (or it would be), 1 refused or not possible, 2 the command line is wrong.")]
pub(crate) struct Args {
    /// The field's name: lower case letters, digits and underscores.
    #[arg(long, value_name = "NAME")]
    field: String,

    /// Avro type: string, boolean, int, long, float, double, uuid, date, timestamp-millis, timestamp-micros, or JSON.
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,

    /// What events have that were written without the field: JSON, or text for a text. Not needed for ["null", ...].
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    default: Option<String>,

    /// One sentence for readers of the schema and of the table.
    #[arg(long, value_name = "TEXT")]
    doc: Option<String>,

    /// The checkout.
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,

    /// Only say what would be written.
    #[arg(long)]
    dry_run: bool,
}

/// What is to be written.
#[derive(Debug)]
struct Plan {
    schema: (PathBuf, String),
    migration: (PathBuf, String),
    column_type: String,
    /// What events look like on the wire from this version on.
    golden: Vec<(PathBuf, Vec<u8>)>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let plan = plan(args)?;
    let texts = [&plan.schema, &plan.migration].map(|(path, text)| (path, text.as_bytes()));
    let golden = plan.golden.iter().map(|(path, bytes)| (path, bytes.as_slice()));
    for (path, bytes) in texts.into_iter().chain(golden) {
        let is_golden = path.starts_with(GOLDEN);
        if args.dry_run && is_golden {
            output::line(&format!("would write {} ({} bytes)", path.display(), bytes.len()))?;
        } else if args.dry_run {
            output::line(&format!("would write {}:", path.display()))?;
            let text = String::from_utf8_lossy(bytes);
            let mut added = text.lines().filter(|line| line.contains(&args.field));
            added.try_for_each(|line| output::line(&format!("  {}", line.trim())))?;
        } else {
            let whole = args.root.join(path);
            let cannot = || format!("can't write {}", whole.display());
            if let Some(folder) = whole.parent() {
                fs::create_dir_all(folder).with_context(cannot)?;
            }
            // Never over a file that somebody has.
            let mut file = OpenOptions::new().write(true).create_new(true).open(&whole).with_context(cannot)?;
            file.write_all(bytes).and_then(|()| file.sync_all()).with_context(cannot)?;
            output::line(&format!("wrote {}", path.display()))?;
        }
    }
    output::line(&steps(args, &plan))?;
    Ok(exit::OK)
}

fn plan(args: &Args) -> anyhow::Result<Plan> {
    let all = files::read_all(&[args.root.join(AVRO)])
        .with_context(|| format!("{} is no checkout of auditstream: name one with --root", args.root.display()))?;
    let versions: Vec<&SchemaFile> =
        all.iter().filter(|file| file.version().is_some_and(|(stem, _)| stem == STEM)).collect();
    let last = versions.last().ok_or_else(|| anyhow!("{AVRO} holds no {STEM}.vN.avsc"))?;
    let number = last.version().map_or(0, |(_, number)| number) + 1;
    let schema: Json = serde_json::from_str(&last.json).with_context(|| format!("{} is no JSON", last.name))?;
    check_name(&args.field, &schema)?;
    let kind = avro_type(&args.kind)?;
    let column_type = column_type(&kind).ok_or_else(|| {
        anyhow!(
            "--type {}: there is no column type for it; use text, a number, a boolean, a time, a uuid, an enum, an array of text, \
             or put it into `details` (auditstream schema custom-view)",
            args.kind
        )
    })?;
    let default = default(args, &kind)?;
    let clause = default_clause(&args.field, &column_type, &default)?;
    let mut field = format!("{{\"name\": {}, \"type\": {kind}, \"default\": {default}", json!(args.field));
    if let Some(doc) = &args.doc {
        // Writing to a String can't fail.
        let _ = write!(field, ", \"doc\": {}", json!(doc));
    }
    field.push('}');
    let text = with_field(&last.json, &schema, &field)?;
    let earlier: Vec<Named> =
        versions.iter().map(|file| Named { name: file.name.clone(), json: file.json.clone() }).collect();
    judge(&text, &earlier)?;
    let migration = next_migration(&args.root)?;
    let migration = PathBuf::from(MIGRATIONS).join(format!("{migration:04}_event_{}.sql", args.field));
    let sql = migration_text(args, &column_type, &clause);
    let avsc = PathBuf::from(AVRO).join(format!("{STEM}.v{number}.avsc"));
    let folder = PathBuf::from(GOLDEN).join(format!("v{number}"));
    let golden = golden::of_version(&text, &args.field).map_err(|reason| anyhow!("golden files: {reason}"))?;
    let golden = golden.into_iter().map(|file| (folder.join(file.name), file.bytes)).collect();
    Ok(Plan { schema: (avsc, text), migration: (migration, sql), column_type, golden })
}

fn check_name(name: &str, schema: &Json) -> anyhow::Result<()> {
    let mut letters = name.bytes();
    let first = letters.next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !first || !letters.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
        bail!("--field {name}: a name is of lower case letters, digits and underscores, and begins with a letter");
    }
    let fields = schema["fields"].as_array().into_iter().flatten();
    for field in fields {
        let aliases = field["aliases"].as_array().into_iter().flatten();
        if field["name"] == name || aliases.into_iter().any(|alias| alias == name) {
            bail!("--field {name}: the schema has a field of that name or alias");
        }
    }
    if EVENT_COLUMNS.iter().any(|column| column.name == name) {
        bail!("--field {name}: the table events has a column of that name");
    }
    Ok(())
}

/// A type's JSON from what the user wrote.
fn avro_type(text: &str) -> anyhow::Result<Json> {
    let logical = |base: &str| json!({ "type": base, "logicalType": text });
    Ok(match text {
        "string" | "boolean" | "int" | "long" | "float" | "double" | "bytes" => json!(text),
        "uuid" => logical("string"),
        "date" => logical("int"),
        "timestamp-millis" | "timestamp-micros" => logical("long"),
        json if json.trim_start().starts_with(['[', '{', '"']) => {
            serde_json::from_str(json).with_context(|| format!("--type {json}: it begins as JSON and is none"))?
        }
        other => bail!(
            "--type {other}: expected string, boolean, int, long, float, double, uuid, date, timestamp-millis, timestamp-micros, or JSON"
        ),
    })
}

/// The column's type. Nothing is Nullable there: an absent text is ''.
fn column_type(kind: &Json) -> Option<String> {
    if let Some(branches) = kind.as_array() {
        let [one, other] = branches.as_slice() else { return None };
        let texts = [(one, other), (other, one)].into_iter().any(|(null, text)| null == "null" && text == "string");
        return texts.then(|| "String".to_owned());
    }
    let name = kind.as_str().or_else(|| kind["logicalType"].as_str()).or_else(|| kind["type"].as_str())?;
    Some(
        match name {
            "string" => "String",
            "boolean" => "Bool",
            "int" => "Int32",
            "long" => "Int64",
            "float" => "Float32",
            "double" => "Float64",
            "uuid" => "UUID",
            "date" => "Date32",
            "timestamp-millis" => "DateTime64(3, 'UTC')",
            "timestamp-micros" => "DateTime64(6, 'UTC')",
            "enum" => "LowCardinality(String)",
            "array" if kind["items"] == "string" => "Array(String)",
            _ => return None,
        }
        .to_owned(),
    )
}

fn default(args: &Args, kind: &Json) -> anyhow::Result<Json> {
    let nullable = kind.as_array().is_some_and(|branches| branches.iter().any(|branch| branch == "null"));
    let Some(text) = &args.default else {
        if kind.as_array().is_some_and(|branches| branches.first().is_some_and(|first| first == "null")) {
            return Ok(Json::Null);
        }
        bail!(
            "--default is missing: a reader of the new version must know what events have that were written without {}",
            args.field
        );
    };
    let name = kind.as_str().or_else(|| kind["type"].as_str()).unwrap_or_default();
    let parsed: Option<Json> = serde_json::from_str(text).ok();
    let fits = |json: &Json| match name {
        "boolean" => json.is_boolean(),
        "int" => json.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        "long" => json.as_i64().is_some(),
        "float" | "double" => json.is_number(),
        "array" => json.as_array().is_some_and(|items| items.iter().all(Json::is_string)),
        "enum" => kind["symbols"].as_array().is_some_and(|symbols| symbols.contains(json)),
        "string" => json.is_string(),
        // A union: its default is of its first branch.
        _ => nullable && if kind[0] == "null" { json.is_null() } else { json.is_string() },
    };
    let as_text = || Some(json!(text)).filter(|json| fits(json));
    parsed.filter(fits).or_else(as_text).ok_or_else(|| {
        let first = kind.as_array().map_or_else(|| kind.to_string(), |_| format!("{} (the first branch)", kind[0]));
        anyhow!("--default: the text is no value of type {first}")
    })
}

/// The file's text with the field behind the last one: its layout stays, so that a review shows one line.
fn with_field(text: &str, schema: &Json, field: &str) -> anyhow::Result<String> {
    let mut wanted = schema.clone();
    let parsed: Json = serde_json::from_str(field)?;
    wanted["fields"].as_array_mut().ok_or_else(|| anyhow!("the schema has no list of fields"))?.push(parsed);
    let end = text.trim_end();
    if let Some(head) = end.strip_suffix("\n  ]\n}") {
        let text = format!("{head},\n    {field}\n  ]\n}}\n");
        if serde_json::from_str::<Json>(&text).is_ok_and(|json| json == wanted) {
            return Ok(text);
        }
    }
    Ok(serde_json::to_string_pretty(&wanted)? + "\n")
}

/// Refuses what the gate would refuse.
fn judge(text: &str, earlier: &[Named]) -> anyhow::Result<()> {
    let comparisons = gate::compare_with(text, earlier, Carrier::Avro).map_err(|(_, error)| anyhow!(error))?;
    if let Some(problem) = comparisons.iter().flat_map(|comparison| &comparison.problems).next() {
        bail!("the new version would be incompatible: {problem}");
    }
    for golden in GOLDEN_FILES {
        gate::check_golden(text, golden).map_err(|reason| anyhow!("golden file {}: {reason}", golden.name))?;
    }
    Ok(())
}

/// The next migration's number.
fn next_migration(root: &Path) -> anyhow::Result<u32> {
    let folder = root.join(MIGRATIONS);
    let cannot = || format!("can't read {}", folder.display());
    let mut last = 0;
    for entry in fs::read_dir(&folder).with_context(cannot)? {
        let name = entry.with_context(cannot)?.file_name().to_string_lossy().into_owned();
        let number = name.split_once('_').and_then(|(number, _)| number.parse().ok());
        last = last.max(number.unwrap_or(0));
    }
    Ok(last + 1)
}

/// Days from 1970 to the first and the last day that Date32 and DateTime64 hold, 1900-01-01 and 2299-12-31.
const DAYS: std::ops::RangeInclusive<i64> = -25_567..=120_529;

/// The column's ` DEFAULT …`; nothing where the type has the value anyway.
fn default_clause(field: &str, column_type: &str, default: &Json) -> anyhow::Result<String> {
    // Units of a day, and what makes a time of them: a bare number would be seconds to DateTime64.
    let time = match column_type {
        "Date32" => Some((1, "")),
        "DateTime64(3, 'UTC')" => Some((86_400_000, "fromUnixTimestamp64Milli")),
        "DateTime64(6, 'UTC')" => Some((86_400_000_000, "fromUnixTimestamp64Micro")),
        _ => None,
    };
    Ok(match (default, time) {
        (Json::String(text), _) if !text.is_empty() => format!(" DEFAULT '{}'", escaped(text)),
        (Json::Number(number), _) if number.as_f64() == Some(0.0) => String::new(),
        (Json::Number(number), Some((day, make))) => {
            let units = number.as_i64().filter(|units| DAYS.contains(&units.div_euclid(day)));
            let units = units.ok_or_else(|| {
                anyhow!("--default {number}: column {field} of type {column_type} holds 1900-01-01 to 2299-12-31 (0 is 1970-01-01)")
            })?;
            if make.is_empty() {
                format!(" DEFAULT {units}")
            } else {
                format!(" DEFAULT {make}(toInt64({units}), 'UTC')")
            }
        }
        (Json::Number(number), None) => format!(" DEFAULT {number}"),
        (Json::Bool(true), _) => " DEFAULT true".to_owned(),
        (Json::Array(items), _) if !items.is_empty() => {
            let items = items.iter().filter_map(Json::as_str).map(|item| format!("'{}'", escaped(item)));
            format!(" DEFAULT [{}]", items.collect::<Vec<_>>().join(", "))
        }
        _ => String::new(),
    })
}

fn migration_text(args: &Args, column_type: &str, clause: &str) -> String {
    let doc = args.doc.as_deref().unwrap_or(&args.field);
    let codec = match column_type {
        "String" | "Array(String)" | "UUID" => " CODEC(ZSTD(1))",
        "Int32" | "Int64" | "Date32" => " CODEC(T64, LZ4)",
        other if other.starts_with("DateTime64") => " CODEC(T64, LZ4)",
        _ => "",
    };
    let line = doc.lines().next().unwrap_or_default();
    format!(
        "-- {line} Rows from before have the default.\n\
         ALTER TABLE {{database}}.events\n    \
         ADD COLUMN IF NOT EXISTS {} {column_type}{clause} COMMENT '{}'{codec};\n",
        args.field,
        escaped(line.trim_end_matches('.')),
    )
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

fn steps(args: &Args, plan: &Plan) -> String {
    let (field, column_type) = (&args.field, &plan.column_type);
    let (schema, migration) = (plan.schema.0.display(), plan.migration.0.display());
    let stem = plan.migration.0.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let (number, name) = stem.split_once('_').unwrap_or(("", &stem));
    format!(
        "What is left:
  1. schemas/src/schemas.rs, gate.rs: {schema} as a constant with its fingerprint, in AUDIT_EVENT_VERSIONS, known in Schemas::builtin
  2. schemas/src/event.rs, encode.rs, decode.rs, json.rs, hash.rs: the field {field}; at its default it must not change the content hash
  3. schemas/src/straight: the field's column, where it is no text: records that have it go the long way until then
  4. store/src/columns.rs: the column {field} {column_type}, behind the others
  5. store/src/migrations.rs: version {number}, name {name}, text of {migration}
  6. schemas/tests/golden.rs reads the golden files that were made; they never change from now on
  7. auditstream schema check {AVRO}; then cargo xtask test
Roll out in this order: auditstream migrate, then the workers, then the producers."
    )
}
