//! Whether events of a writer schema can be read with a reader schema, by Avro's rules of resolution
//! (<https://avro.apache.org/docs/1.12.0/specification/#schema-resolution>), and if not: where, and which rule is broken.
//!
//! The rules have the names that Java's `SchemaCompatibility` and the registries give them. Own code, because `apache_avro::schema_compatibility`
//! stops at the first error, says of a union or an enum only "partial" without a place, and follows neither references nor a type's aliases. A
//! property test holds both to the same verdict where that one has one.
//!
//! Promises: every problem is named, not only the first; recursive types end; time and memory are bounded for any two schemas.

use std::collections::{HashMap, HashSet};
use std::fmt;

use apache_avro::Schema;
use apache_avro::schema::{
    Alias, EnumSchema, FixedSchema, InnerDecimalSchema, Name, RecordField, RecordSchema, ResolvedSchema, UnionSchema,
    UuidSchema,
};

use crate::json_form::{self, branch_name, is_tagged};
use crate::kind::Kind;
use crate::schemas::SchemaError;

/// Pairs of types that are compared at the most; schemas of people need some hundreds.
const MAX_STEPS: usize = 100_000;
/// Pairs of types inside of each other: two cycles of named types go around until both are at their start, deeper than any stack.
const MAX_DEPTH: usize = 200;

/// The rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The types have different names, and the reader's has no alias for the writer's.
    NameMismatch,
    /// Two `fixed` of different size.
    FixedSizeMismatch,
    /// The writer has symbols that the reader's enum lacks, and that enum has no default.
    MissingEnumSymbols,
    /// The reader has a field that the writer lacks, without a default.
    ReaderFieldMissingDefaultValue,
    /// The writer's type can't become the reader's.
    TypeMismatch,
    /// A type that the writer may write has no branch in the reader's union.
    MissingUnionBranch,
    /// The bytes can be read, but mean another value: milliseconds as microseconds, or a decimal of another scale.
    LogicalTypeMismatch,
    /// Avro resolves the types, but their values are written otherwise in JSON: base64 as text, a bare value as a union's branch.
    JsonFormMismatch,
    /// The reader's field is the writer's by an alias, and in JSON it has the writer's name.
    JsonKeyMismatch,
}

/// What carries the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Avro's bytes.
    Avro,
    /// The JSON text of custom fields (`custom`), where an alias and a promotion mean nothing. Avro's own rules hold too: a registry demands them.
    Json,
}

impl Rule {
    /// As registries write it, such as `READER_FIELD_MISSING_DEFAULT_VALUE`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NameMismatch => "NAME_MISMATCH",
            Self::FixedSizeMismatch => "FIXED_SIZE_MISMATCH",
            Self::MissingEnumSymbols => "MISSING_ENUM_SYMBOLS",
            Self::ReaderFieldMissingDefaultValue => "READER_FIELD_MISSING_DEFAULT_VALUE",
            Self::TypeMismatch => "TYPE_MISMATCH",
            Self::MissingUnionBranch => "MISSING_UNION_BRANCH",
            Self::LogicalTypeMismatch => "LOGICAL_TYPE_MISMATCH",
            Self::JsonFormMismatch => "JSON_FORM_MISMATCH",
            Self::JsonKeyMismatch => "JSON_KEY_MISMATCH",
        }
    }
}

/// One reason why a reader schema can't read what a writer schema wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incompatibility {
    /// Where in the reader schema: `/fields/actor/kind`, `/fields/changes/items/path`; `/` for the schema itself.
    pub path: String,
    /// Which rule is broken.
    pub rule: Rule,
    /// What the two sides have there.
    pub message: String,
}

impl fmt::Display for Incompatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.path, self.rule.as_str(), self.message)
    }
}

/// Every reason why `reader` can't read all that `writer` writes; none when it can. Both are Avro's JSON.
///
/// # Errors
/// One of them is no schema.
pub fn incompatibilities(reader: &str, writer: &str) -> Result<Vec<Incompatibility>, SchemaError> {
    let parse = |json| Schema::parse_str(json).map_err(|error| SchemaError::Parse(Box::new(error)));
    compare(&parse(reader)?, &parse(writer)?, Carrier::Avro)
}

/// [`incompatibilities`] of parsed schemas.
pub(crate) fn compare(reader: &Schema, writer: &Schema, carrier: Carrier) -> Result<Vec<Incompatibility>, SchemaError> {
    let names = |schema| ResolvedSchema::new(schema).map_err(|error| SchemaError::Parse(Box::new(error)));
    let (reader_names, writer_names) = (names(reader)?, names(writer)?);
    let mut comparison = Comparison {
        carrier,
        reader_names: reader_names.get_names(),
        writer_names: writer_names.get_names(),
        accepted: HashSet::new(),
        order: Vec::new(),
        depth: 0,
        steps: 0,
        found: Vec::new(),
    };
    comparison.check(reader, writer, "");
    if comparison.steps >= MAX_STEPS {
        let message = format!(
            "the schemas are too complex to compare: more than {MAX_STEPS} pairs of types, or {MAX_DEPTH} inside of each other"
        );
        comparison.problem("", Rule::TypeMismatch, message);
    }
    Ok(comparison.found)
}

struct Comparison<'s> {
    carrier: Carrier,
    reader_names: &'s HashMap<Name, &'s Schema>,
    writer_names: &'s HashMap<Name, &'s Schema>,
    /// Pairs of named types under way, or found to fit: met again, they are taken for fitting. Taken back when they don't.
    accepted: HashSet<(&'s Name, &'s Name)>,
    /// The same, as they came.
    order: Vec<(&'s Name, &'s Name)>,
    depth: usize,
    /// At MAX_STEPS the comparison has ended without a verdict.
    steps: usize,
    found: Vec<Incompatibility>,
}

impl<'s> Comparison<'s> {
    fn problem(&mut self, path: &str, rule: Rule, message: String) {
        let path = if path.is_empty() { "/" } else { path }.to_owned();
        self.found.push(Incompatibility { path, rule, message });
    }

    /// Adds what is wrong at `path`.
    fn check(&mut self, reader: &'s Schema, writer: &'s Schema, path: &str) {
        self.steps += 1;
        if self.depth >= MAX_DEPTH {
            self.steps = MAX_STEPS;
        }
        if self.steps >= MAX_STEPS {
            return;
        }
        self.depth += 1;
        let reader = resolved(self.reader_names, reader);
        let writer = resolved(self.writer_names, writer);
        let found = self.found.len();
        match (reader, writer) {
            (Schema::Union(readers), Schema::Union(writers))
                if self.carrier == Carrier::Json && is_tagged(readers) && is_tagged(writers) =>
            {
                self.tagged(readers, writers, path);
            }
            (Schema::Union(readers), Schema::Union(writers)) => {
                for branch in writers.variants() {
                    self.branch(readers, branch, path);
                }
            }
            (Schema::Union(readers), writer) => self.branch(readers, writer, path),
            (reader, Schema::Union(writers)) => {
                for branch in writers.variants() {
                    self.check(reader, branch, path);
                }
            }
            _ => self.plain(reader, writer, path),
        }
        if self.carrier == Carrier::Json && self.found.len() == found && is_one_tagged(reader, writer) {
            self.untagged(reader, writer, path);
        }
        self.depth -= 1;
    }

    /// A type of the writer that a branch of the reader's union must take.
    fn branch(&mut self, readers: &'s UnionSchema, writer: &'s Schema, path: &str) {
        if readers.variants().iter().any(|reader| self.fits(reader, writer, path)) {
            return;
        }
        let writer = resolved(self.writer_names, writer);
        let alike = readers.variants().iter().find(|reader| {
            let reader = resolved(self.reader_names, reader);
            Kind::of(reader) == Kind::of(writer) && reader.name().map(Name::name) == writer.name().map(Name::name)
        });
        match alike {
            // The branch is there; what is wrong is inside of it.
            Some(reader) if writer.is_named() => self.check(reader, writer, path),
            _ => {
                let message = format!("the reader's union has no branch for {}", describe(writer));
                self.problem(path, Rule::MissingUnionBranch, message);
            }
        }
    }

    /// Two unions that JSON has as `{"BRANCH": value}`: what is written must be a branch of the same name.
    fn tagged(&mut self, readers: &'s UnionSchema, writers: &'s UnionSchema, path: &str) {
        for branch in writers.variants() {
            let name = branch_name(branch);
            if let Some(reader) = readers.variants().iter().find(|reader| branch_name(reader) == name) {
                self.check(reader, branch, path);
                continue;
            }
            let found = self.found.len();
            self.branch(readers, branch, path);
            if self.found.len() == found {
                let message = format!(
                    "the writer's JSON is {{\"{name}\": …}}, and the reader's union has no branch of that name"
                );
                self.problem(path, Rule::JsonFormMismatch, message);
            }
        }
    }

    /// One of them has the names of its branches in JSON, and the other has not.
    fn untagged(&mut self, reader: &Schema, writer: &Schema, path: &str) {
        let form = |schema: &Schema| match schema {
            Schema::Union(union) if is_tagged(union) => "{\"BRANCH\": value}",
            _ => "the bare value",
        };
        let message = format!("the writer's JSON is {}, the reader's {}", form(writer), form(reader));
        self.problem(path, Rule::JsonFormMismatch, message);
    }

    /// Tries without adding anything.
    fn fits(&mut self, reader: &'s Schema, writer: &'s Schema, path: &str) -> bool {
        let (found, accepted) = (self.found.len(), self.order.len());
        self.check(reader, writer, path);
        let fits = self.found.len() == found && self.steps < MAX_STEPS;
        if !fits {
            self.found.truncate(found);
            self.take_back(accepted);
        }
        fits
    }

    /// Forgets the pairs that were accepted after the first `keep`.
    fn take_back(&mut self, keep: usize) {
        for pair in self.order.drain(keep.min(self.order.len())..) {
            self.accepted.remove(&pair);
        }
    }

    /// Two types, neither of them a union or a reference.
    fn plain(&mut self, reader: &'s Schema, writer: &'s Schema, path: &str) {
        let takes = match (Kind::of(writer), Kind::of(reader)) {
            (Kind::Record, Kind::Record)
            | (Kind::Enum, Kind::Enum)
            | (Kind::Fixed, Kind::Fixed)
            | (Kind::Array, Kind::Array)
            | (Kind::Map, Kind::Map) => return self.composite(reader, writer, path),
            (writer, reader) => writer == reader || writer.is_promoted_to(reader),
        };
        if takes {
            self.logical(reader, writer, path);
        } else {
            let message = format!("the writer has {}, the reader {}", describe(writer), describe(reader));
            self.problem(path, Rule::TypeMismatch, message);
        }
    }

    fn composite(&mut self, reader: &'s Schema, writer: &'s Schema, path: &str) {
        let (found, accepted) = (self.found.len(), self.order.len());
        if let (Some(reader_name), Some(writer_name)) = (reader.name(), writer.name()) {
            if !self.accepted.insert((reader_name, writer_name)) {
                return;
            }
            self.order.push((reader_name, writer_name));
            let aliases: &[Alias] = reader.aliases().map_or(&[], Vec::as_slice);
            let full = writer_name.fullname(None);
            if reader_name.name() != writer_name.name() && !aliases.iter().any(|alias| alias.fullname(None) == full) {
                let message = format!("the writer's type is {full}, the reader's {}", reader_name.fullname(None));
                self.problem(path, Rule::NameMismatch, message);
            }
        }
        match (reader, writer) {
            (Schema::Record(reader), Schema::Record(writer)) => self.record(reader, writer, path),
            (Schema::Enum(reader), Schema::Enum(writer)) => self.symbols(reader, writer, path),
            (Schema::Array(reader), Schema::Array(writer)) => {
                self.check(&reader.items, &writer.items, &format!("{path}/items"));
            }
            (Schema::Map(reader), Schema::Map(writer)) => {
                self.check(&reader.types, &writer.types, &format!("{path}/values"));
            }
            _ => {
                if let (Some(reader), Some(writer)) = (fixed(reader), fixed(writer))
                    && reader.size != writer.size
                {
                    let message = format!("the writer has {} bytes, the reader {}", writer.size, reader.size);
                    self.problem(path, Rule::FixedSizeMismatch, message);
                }
                self.logical(reader, writer, path);
            }
        }
        if self.found.len() > found {
            self.take_back(accepted);
        }
    }

    fn record(&mut self, reader: &'s RecordSchema, writer: &'s RecordSchema, path: &str) {
        let base = if path.is_empty() { "/fields" } else { path };
        for field in &reader.fields {
            let path = format!("{base}/{}", field.name);
            match written(writer, field) {
                Some(writer) if self.carrier == Carrier::Json && writer.name != field.name => {
                    let message =
                        format!("the writer's JSON has the key {}, and an alias means nothing there", writer.name);
                    self.problem(&path, Rule::JsonKeyMismatch, message);
                }
                Some(writer) => self.check(&field.schema, &writer.schema, &path),
                None if field.default.is_none() => {
                    let message = format!("the writer has no field {}, and the reader's has no default", field.name);
                    self.problem(&path, Rule::ReaderFieldMissingDefaultValue, message);
                }
                None => {}
            }
        }
    }

    fn symbols(&mut self, reader: &EnumSchema, writer: &EnumSchema, path: &str) {
        let missing: Vec<_> = writer.symbols.iter().filter(|symbol| !reader.symbols.contains(symbol)).collect();
        if reader.default.is_none() && !missing.is_empty() {
            let missing = missing.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("the reader's enum has neither {missing} nor a default");
            self.problem(path, Rule::MissingEnumSymbols, message);
        }
    }

    fn logical(&mut self, reader: &Schema, writer: &Schema, path: &str) {
        if let (Some(reader), Some(writer)) = (logical(reader), logical(writer))
            && reader != writer
        {
            let message = format!("the writer means {writer}, the reader {reader}");
            self.problem(path, Rule::LogicalTypeMismatch, message);
        } else if self.carrier == Carrier::Json && !json_form::reads(reader, writer) {
            let (reader, writer) = (json_form::form(reader), json_form::form(writer));
            let message = format!("the writer's JSON is {writer}, the reader's {reader}");
            self.problem(path, Rule::JsonFormMismatch, message);
        }
    }
}

/// The writer's field for one of the reader's: by its name, or by its aliases in their order.
fn written<'s>(writer: &'s RecordSchema, field: &RecordField) -> Option<&'s RecordField> {
    let mut names = std::iter::once(&field.name).chain(&field.aliases);
    names.find_map(|name| writer.fields.iter().find(|candidate| candidate.name == *name))
}

/// Whether one of them, and not the other, is a union that JSON has with its branches' names. Null is the same in both.
fn is_one_tagged(reader: &Schema, writer: &Schema) -> bool {
    let tagged = |schema: &Schema| matches!(schema, Schema::Union(union) if is_tagged(union));
    *writer != Schema::Null && tagged(reader) != tagged(writer)
}

/// What a reference stands for.
fn resolved<'s>(names: &HashMap<Name, &'s Schema>, schema: &'s Schema) -> &'s Schema {
    match schema {
        Schema::Ref { name } => names.get(name).copied().unwrap_or(schema),
        other => other,
    }
}

fn fixed(schema: &Schema) -> Option<&FixedSchema> {
    match schema {
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => Some(fixed),
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Fixed(fixed) => Some(fixed),
            InnerDecimalSchema::Bytes => None,
        },
        _ => None,
    }
}

/// The logical type, where it changes what the bytes mean.
fn logical(schema: &Schema) -> Option<String> {
    Some(match schema {
        Schema::Decimal(decimal) => format!("decimal({},{})", decimal.precision, decimal.scale),
        Schema::BigDecimal => "big-decimal".to_owned(),
        Schema::Uuid(_) => "uuid".to_owned(),
        Schema::Date => "date".to_owned(),
        Schema::TimeMillis => "time-millis".to_owned(),
        Schema::TimeMicros => "time-micros".to_owned(),
        Schema::TimestampMillis => "timestamp-millis".to_owned(),
        Schema::TimestampMicros => "timestamp-micros".to_owned(),
        Schema::TimestampNanos => "timestamp-nanos".to_owned(),
        Schema::LocalTimestampMillis => "local-timestamp-millis".to_owned(),
        Schema::LocalTimestampMicros => "local-timestamp-micros".to_owned(),
        Schema::LocalTimestampNanos => "local-timestamp-nanos".to_owned(),
        Schema::Duration(_) => "duration".to_owned(),
        _ => return None,
    })
}

/// A type in a few words.
fn describe(schema: &Schema) -> String {
    let kind = Kind::of(schema).name();
    match (schema.name(), logical(schema)) {
        (_, Some(logical)) => format!("{kind} ({logical})"),
        (Some(name), None) => format!("{kind} {}", name.fullname(None)),
        (None, None) => kind,
    }
}
