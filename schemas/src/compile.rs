//! From a writer schema (and the reader schema it is read as) to a [`Guard`].
//!
//! The reader schema decides what a value must also be: which enum symbols and union branches have a place, that bytes
//! read as a string are UTF-8, and the rules of the fields without which an event can't be stored.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, RecordField, RecordSchema, ResolvedSchema, UuidSchema};

use crate::guard::{Branch, Guard, MAX_DEPTH, Op, Step};
use crate::kind::Kind;

/// Values in a flattened schema, at the most.
const MAX_STEPS: usize = 10_000;
/// Fields of the event whose strings may not be empty.
pub(crate) const REQUIRED: [&str; 5] = ["tenant_id", "service", "action", "entity_type", "entity_id"];

impl Guard {
    /// Compiles the guard of a writer schema; the reader schema has no recursive types.
    ///
    /// # Errors
    /// Why events of this schema can never be read, with the path.
    pub(crate) fn compile(writer: &Schema, reader: &Schema) -> Result<Self, String> {
        let Schema::Record(event) = writer else {
            return Err("the schema is not a record".to_owned());
        };
        let names = |schema| ResolvedSchema::new(schema).map_err(|e| e.to_string());
        let writer_names = names(writer)?;
        let reader_names = names(reader)?;
        let mut compiler = Compiler::new(writer_names.get_names(), reader_names.get_names());
        let mut root = Vec::new();
        compiler.record(event, Some(reader), "", &mut root)?;
        Ok(compiler.done(root))
    }

    /// The guard of fields that the reader has not, one behind the other, inside of records of these names.
    ///
    /// # Errors
    /// Why such a thing can never be read, with the path.
    pub(crate) fn of_fields<'s>(
        names: &'s Names<'s>,
        open: &[String],
        fields: &[&'s RecordField],
    ) -> Result<Self, String> {
        let mut compiler = Compiler::new(names, names);
        compiler.open.extend_from_slice(open);
        let mut root = Vec::new();
        for field in fields {
            compiler.value(&field.schema, None, Rule::None, &field.name, &mut root)?;
        }
        Ok(compiler.done(root))
    }
}

pub(crate) type Names<'s> = HashMap<Name, &'s Schema>;

struct Compiler<'s> {
    writer_names: &'s Names<'s>,
    reader_names: &'s Names<'s>,
    /// Full names of the records being laid flat right now.
    open: Vec<String>,
    /// Numbers of the records that contain themselves.
    numbers: HashMap<String, usize>,
    named: Vec<Vec<Step>>,
    steps: usize,
}

impl<'s> Compiler<'s> {
    fn new(writer_names: &'s Names<'s>, reader_names: &'s Names<'s>) -> Self {
        Self { writer_names, reader_names, open: Vec::new(), numbers: HashMap::new(), named: Vec::new(), steps: 0 }
    }

    fn done(self, root: Vec<Step>) -> Guard {
        let named = self.named.into_iter().map(Vec::into_boxed_slice).collect();
        Guard { root: root.into_boxed_slice(), named }
    }

    fn record(
        &mut self,
        record: &'s RecordSchema,
        reader: Option<&'s Schema>,
        path: &str,
        out: &mut Vec<Step>,
    ) -> Result<(), String> {
        let reader = match reader {
            Some(Schema::Record(reader)) => Some(reader),
            Some(_) => return Err(at(path, "a record, but the reader schema has no record there")),
            None => None,
        };
        let top = path.is_empty() && self.open.is_empty();
        self.open.push(record.name.fullname(None));
        if self.open.len() > MAX_DEPTH as usize {
            return Err(at(path, "records nested too deep"));
        }
        let name_of = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let reads = |r: &RecordField, w: &RecordField| r.name == w.name || r.aliases.contains(&w.name);
        for needed in reader.iter().flat_map(|reader| &reader.fields).filter(|r| r.default.is_none()) {
            if !record.fields.iter().any(|w| reads(needed, w)) {
                return Err(at(&name_of(&needed.name), "missing, and the reader schema has no default for it"));
            }
        }
        for field in &record.fields {
            let target = reader.and_then(|reader| {
                let by_name = reader.fields.iter().find(|r| r.name == field.name);
                by_name.or_else(|| reader.fields.iter().find(|r| reads(r, field)))
            });
            let rule = target.filter(|_| top).map_or(Rule::None, |t| Rule::of(&t.name));
            let field_path = name_of(&field.name);
            self.value(&field.schema, target.map(|t| &t.schema), rule, &field_path, out)?;
        }
        self.open.pop();
        Ok(())
    }

    fn value(
        &mut self,
        writer: &'s Schema,
        reader: Option<&'s Schema>,
        rule: Rule,
        path: &str,
        out: &mut Vec<Step>,
    ) -> Result<(), String> {
        let reader = reader.map(|r| self.reader_type(r));
        let reader = match (writer, reader) {
            (Schema::Union(_), reader) | (_, reader @ None) => reader,
            (plain, Some(reader)) => match self.target_of(plain, reader) {
                None => return Err(at(path, "a type that does not resolve to the reader's")),
                target => target,
            },
        };
        if rule == Rule::Uuid && Kind::of(writer) == Kind::Bytes {
            // arrow-avro does not promote bytes to a text that must be a UUID.
            return Err(at(path, "bytes, but the reader has a UUID as text"));
        }
        let op = match writer {
            Schema::Ref { name } => return self.named(name, reader, rule, path, out),
            Schema::Record(record) => return self.record(record, reader, path, out),
            Schema::Null => Op::Null,
            Schema::Boolean => Op::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => rule.only(Rule::None, Op::Int, path)?,
            Schema::TimestampMicros | Schema::Long => match rule {
                Rule::Time => Op::Time,
                rule => rule.only(Rule::None, Op::Long, path)?,
            },
            Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => rule.only(Rule::None, Op::Long, path)?,
            Schema::Float => Op::Skip(4),
            Schema::Double => Op::Skip(8),
            Schema::Fixed(fixed) | Schema::Duration(fixed) => Op::Skip(fixed.size),
            Schema::Uuid(UuidSchema::Fixed(fixed)) => Op::Skip(fixed.size),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Fixed(fixed) => Op::Skip(fixed.size),
                InnerDecimalSchema::Bytes => Op::Bytes,
            },
            Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Op::Bytes,
            Schema::Bytes | Schema::String | Schema::Uuid(UuidSchema::String) => text(writer, reader, rule),
            Schema::Enum(writer) => Op::Enum(match reader {
                Some(Schema::Enum(reader)) => {
                    writer.symbols.iter().map(|s| reader.default.is_some() || reader.symbols.contains(s)).collect()
                }
                _ => vec![true; writer.symbols.len()].into_boxed_slice(),
            }),
            Schema::Array(array) => {
                let items = match reader {
                    Some(Schema::Array(reader)) => Some(&*reader.items),
                    _ => None,
                };
                let items = self.nested(&array.items, items).map_err(|e| at(&format!("{path}[]"), &e))?;
                Op::Array { min_item_len: items.iter().map(min_len).sum(), items }
            }
            Schema::Map(map) => {
                let values = match reader {
                    Some(Schema::Map(reader)) => Some(&*reader.types),
                    _ => None,
                };
                Op::Map { values: self.nested(&map.types, values).map_err(|e| at(&format!("{path}{{}}"), &e))? }
            }
            Schema::Union(union) => self.union(union.variants(), reader, rule).map_err(|e| at(path, &e))?,
        };
        self.push(Step { op, path: path.into() }, out)
    }

    /// Types used twice are laid flat twice: bounded, so that a small schema can't grow into a huge guard.
    fn push(&mut self, step: Step, out: &mut Vec<Step>) -> Result<(), String> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(at(&step.path, "the schema has too many fields"));
        }
        out.push(step);
        Ok(())
    }

    fn nested(&mut self, writer: &'s Schema, reader: Option<&'s Schema>) -> Result<Box<[Step]>, String> {
        self.nested_rule(writer, reader, Rule::None)
    }

    fn nested_rule(
        &mut self,
        writer: &'s Schema,
        reader: Option<&'s Schema>,
        rule: Rule,
    ) -> Result<Box<[Step]>, String> {
        let mut steps = Vec::new();
        self.value(writer, reader, rule, "", &mut steps)?;
        Ok(steps.into_boxed_slice())
    }

    fn union(&mut self, branches: &'s [Schema], reader: Option<&'s Schema>, rule: Rule) -> Result<Op, String> {
        if rule == Rule::None && self.all_readable(branches, reader) {
            match branches {
                [Schema::Null, Schema::String] => return Ok(Op::OptionalText { null: 0 }),
                [Schema::String, Schema::Null] => return Ok(Op::OptionalText { null: 2 }),
                _ => {}
            }
        }
        let mut compiled = Vec::with_capacity(branches.len());
        for branch in branches {
            let target = reader.map(|reader| self.target_of(branch, reader));
            compiled.push(match target {
                None => Branch::Read(self.nested(branch, None)?),
                Some(Some(target)) => Branch::Read(self.nested_rule(branch, Some(target), rule)?),
                Some(None) if rule != Rule::None && *branch == Schema::Null => Branch::NullOfRequired,
                Some(None) => Branch::Unreadable,
            });
        }
        Ok(Op::Union(compiled.into_boxed_slice()))
    }

    /// A reference to a record, an enum or a fixed defined elsewhere in the writer schema.
    fn named(
        &mut self,
        name: &Name,
        reader: Option<&'s Schema>,
        rule: Rule,
        path: &str,
        out: &mut Vec<Step>,
    ) -> Result<(), String> {
        let Some(target) = self.writer_names.get(name).copied() else {
            return Err(at(path, "a name that the schema does not define"));
        };
        let full = name.fullname(None);
        if !self.open.contains(&full) {
            return self.value(target, reader, rule, path, out);
        }
        // It contains itself: compiled once by number, and walked with a bound on depth. What the reader makes of it
        // is not known here; a reader schema without recursive types can only skip it.
        let number = match self.numbers.get(&full) {
            Some(number) => *number,
            None => {
                let number = self.named.len();
                self.numbers.insert(full.clone(), number);
                self.named.push(Vec::new());
                let open = std::mem::take(&mut self.open);
                let mut steps = Vec::new();
                if let Schema::Record(record) = target {
                    self.open.push(String::new());
                    self.record(record, None, "", &mut steps)?;
                }
                self.open = open;
                self.named[number] = steps;
                number
            }
        };
        self.push(Step { op: Op::Named(number), path: path.into() }, out)
    }

    fn all_readable(&self, branches: &'s [Schema], reader: Option<&'s Schema>) -> bool {
        reader.is_none_or(|reader| branches.iter().all(|b| self.target_of(b, reader).is_some()))
    }

    fn reader_type(&self, schema: &'s Schema) -> &'s Schema {
        match schema {
            Schema::Ref { name } => self.reader_names.get(name).copied().unwrap_or(schema),
            other => other,
        }
    }

    fn writer_type(&self, schema: &'s Schema) -> &'s Schema {
        match schema {
            Schema::Ref { name } => self.writer_names.get(name).copied().unwrap_or(schema),
            other => other,
        }
    }

    /// What a writer's plain type is read as: the reader's type, or that branch of its union which has the same type, else
    /// the first it may be promoted to. Nothing when the reader has no place for it.
    fn target_of(&self, writer: &'s Schema, reader: &'s Schema) -> Option<&'s Schema> {
        let writer = self.writer_type(writer);
        let branches = match reader {
            Schema::Union(union) => union.variants(),
            plain => std::slice::from_ref(plain),
        };
        let find = |promoted| branches.iter().map(|r| self.reader_type(r)).find(|r| fits(writer, r, promoted));
        find(false).or_else(|| find(true))
    }
}

/// What the table demands of a field beyond its type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    None,
    Uuid,
    Time,
    Required,
}

impl Rule {
    fn of(field: &str) -> Self {
        match field {
            "event_id" => Self::Uuid,
            "occurred_at" => Self::Time,
            name if REQUIRED.contains(&name) => Self::Required,
            _ => Self::None,
        }
    }

    fn only(self, allowed: Self, op: Op, path: &str) -> Result<Op, String> {
        if self == allowed { Ok(op) } else { Err(at(path, "a type or logical type that is not the reader's")) }
    }
}

fn text(writer: &Schema, reader: Option<&Schema>, rule: Rule) -> Op {
    let read_as_text = matches!(reader, Some(Schema::String | Schema::Uuid(UuidSchema::String)));
    match rule {
        Rule::Uuid => Op::Uuid,
        Rule::Required => Op::RequiredText,
        _ if *writer == Schema::Bytes && !read_as_text => Op::Bytes,
        _ => Op::Text,
    }
}

/// The fewest bytes a value takes.
fn min_len(step: &Step) -> usize {
    match &step.op {
        Op::Null => 0,
        Op::Skip(len) => *len,
        Op::Uuid => 37,
        Op::RequiredText => 2,
        // A record that contains itself does so through a union, an array or a map.
        _ => 1,
    }
}

/// Whether a reader's type takes a writer's, exactly or also by promotion.
fn fits(writer: &Schema, reader: &Schema, promoted: bool) -> bool {
    let (writer, reader) = (Kind::of(writer), Kind::of(reader));
    writer == reader || promoted && writer.is_promoted_to(reader)
}

fn at(path: &str, what: &str) -> String {
    if path.is_empty() { what.to_owned() } else { format!("{path}: {what}") }
}
