//! From a writer schema and the reader schema to a [`Plan`].
//!
//! By Avro's rules of resolution, as the guard and arrow-avro follow them: a field of the reader is the writer's of the same name, or the one that an alias of
//! the reader's names. What is rare or could be read in two ways gets no plan, and goes the long way.

use apache_avro::Schema;
use apache_avro::schema::{EnumSchema, RecordField, RecordSchema, ResolvedSchema, UnionSchema, UuidSchema};
use serde_json::Value as Json;

use super::steps::{CHANGE_PATH, CHANGE_TEXTS, Form, Piece, Plan, Step, TEXTS};
use super::target::{LEAVES, ReaderField, Target, fields_of};
use crate::compile::Names;
use crate::encode::{bytes, long};
use crate::guard::Guard;
use crate::hash::optional;

impl Plan {
    /// How records of `writer` are read as `reader`, which has v1's fields and perhaps texts behind them; `None` where nothing but the long way does.
    pub(crate) fn compile(writer: &Schema, reader: &Schema) -> Option<Self> {
        let (Schema::Record(event), Schema::Record(reader)) = (writer, reader) else { return None };
        let names = ResolvedSchema::new(writer).ok()?;
        let targets = fields_of(reader)?;
        let mut compiler = Compiler::new(names.get_names(), Vec::new(), 0);
        compiler.record(event, &targets)?;
        compiler.done()
    }
}

/// Content that stands in the body as the canonical body has it.
struct Run {
    first: usize,
    /// The leaf that would go on with it.
    next: usize,
    /// Where its steps begin.
    step: usize,
}

struct Compiler<'s> {
    names: &'s Names<'s>,
    /// Full names of the records around.
    open: Vec<String>,
    depth: u32,
    steps: Vec<Step>,
    /// Defaults: behind all other steps.
    defaults: Vec<Step>,
    /// Of each leaf of the canonical body, unless it is in a piece that begins before.
    pieces: [Option<Piece>; LEAVES],
    run: Option<Run>,
    skipped: Vec<&'s RecordField>,
}

impl<'s> Compiler<'s> {
    fn new(names: &'s Names<'s>, open: Vec<String>, depth: u32) -> Self {
        Self {
            names,
            open,
            depth,
            steps: Vec::new(),
            defaults: Vec::new(),
            pieces: [const { None }; LEAVES],
            run: None,
            skipped: Vec::new(),
        }
    }

    fn done(mut self) -> Option<Plan> {
        self.end_run();
        self.steps.append(&mut self.defaults);
        let pieces = self.pieces.into_iter().flatten().collect();
        Some(Plan { steps: self.steps.into_boxed_slice(), pieces })
    }

    fn record(&mut self, writer: &'s RecordSchema, readers: &[ReaderField<'s>]) -> Option<()> {
        self.open.push(writer.name.fullname(None));
        let mut found = vec![false; readers.len()];
        for field in &writer.fields {
            let takes = |reader: &ReaderField<'_>| {
                reader.field.name == field.name || reader.field.aliases.contains(&field.name)
            };
            let mut takers = (0..readers.len()).filter(|number| takes(&readers[*number]));
            match (takers.next(), takers.next()) {
                (None, _) => self.skipped.push(field),
                (Some(number), None) if !found[number] => {
                    found[number] = true;
                    self.skip()?;
                    self.value(&field.schema, &readers[number])?;
                }
                // Two fields for one: which it is, only the long way knows.
                _ => return None,
            }
        }
        // With the records around that are open here.
        self.skip()?;
        for (reader, _) in readers.iter().zip(found).filter(|(_, found)| !found) {
            self.default(reader, reader.field.default.as_ref()?)?;
        }
        self.open.pop();
        Some(())
    }

    /// What the writer writes in vain since the last field that is read.
    fn skip(&mut self) -> Option<()> {
        if self.skipped.is_empty() {
            return Some(());
        }
        self.end_run();
        let guard = Guard::of_fields(self.names, &self.open, &self.skipped).ok()?;
        self.skipped.clear();
        self.steps.push(Step::Skip { guard, depth: self.depth });
        Some(())
    }

    fn value(&mut self, writer: &'s Schema, reader: &ReaderField<'s>) -> Option<()> {
        let writer = match writer {
            Schema::Ref { name } if self.open.contains(&name.fullname(None)) => return None,
            Schema::Ref { name } => self.names.get(name).copied()?,
            other => other,
        };
        let step = match (&reader.target, writer) {
            (_, Schema::Union(union)) => return self.union(union, reader),
            (Target::EventId, Schema::String | Schema::Uuid(UuidSchema::String)) => Step::EventId,
            (Target::OccurredAt, Schema::Long | Schema::TimestampMicros) => Step::OccurredAt,
            (Target::Text { column, form: Form::Nullable }, Schema::String | Schema::Bytes) => {
                let step = Step::Text { column: *column, form: Form::Any };
                return self.rebuilt(reader, step, Piece::Optional(*column));
            }
            (Target::Text { column, form }, Schema::String | Schema::Bytes) => {
                Step::Text { column: *column, form: *form }
            }
            (Target::Text { form: Form::Nullable, .. }, Schema::Null) => return self.default(reader, &Json::Null),
            (Target::Symbol { column, symbols }, Schema::Enum(writer)) if writer.symbols == symbols.symbols => {
                Step::Symbol(*column)
            }
            (Target::Symbol { column, symbols }, Schema::Enum(writer)) => {
                let step = Step::Mapped { column: *column, keys: keys(writer, symbols) };
                return self.rebuilt(reader, step, Piece::Symbol(*column));
            }
            (Target::Long(column), Schema::Long) => Step::Long(*column),
            (Target::Long(column), Schema::Int) => Step::Int(*column),
            (Target::Record(fields), Schema::Record(writer)) => return self.record(writer, fields),
            (Target::Changes(fields), Schema::Array(writer)) => match self.changes(&writer.items, fields)? {
                Step::Changes => Step::Changes,
                other => return self.rebuilt(reader, other, Piece::Changes),
            },
            _ => return None,
        };
        self.as_it_is(reader, step);
        Some(())
    }

    fn union(&mut self, writer: &'s UnionSchema, reader: &ReaderField<'s>) -> Option<()> {
        let (value, branch) = match writer.variants() {
            [Schema::Null, value] => (value, 2),
            [value, Schema::Null] => (value, 0),
            _ => return None,
        };
        if let Target::Text { column, form: Form::Nullable } = reader.target {
            if !matches!(value, Schema::String | Schema::Bytes) {
                return None;
            }
            if branch == 2 {
                self.as_it_is(reader, Step::Text { column, form: Form::Nullable });
                return Some(());
            }
            let step = Step::Text { column, form: Form::NullLast };
            return self.rebuilt(reader, step, Piece::Optional(column));
        }
        self.end_run();
        self.steps.push(Step::Branch(branch));
        self.depth += 1;
        self.value(value, reader)?;
        self.depth -= 1;
        Some(())
    }

    /// The list of changes, whatever the writer's have besides.
    fn changes(&self, items: &'s Schema, fields: &[ReaderField<'s>]) -> Option<Step> {
        let items = match items {
            Schema::Ref { name } => self.names.get(name).copied()?,
            other => other,
        };
        let Schema::Record(item) = items else { return None };
        if self.open.contains(&item.name.fullname(None)) {
            return None;
        }
        let mut compiler = Compiler::new(self.names, self.open.clone(), self.depth + 1);
        compiler.record(item, fields)?;
        let steps = compiler.done()?.steps;
        let forms = [Form::Any, Form::Nullable, Form::Nullable];
        let usual = (CHANGE_PATH..CHANGE_PATH + CHANGE_TEXTS).zip(forms);
        let is_usual =
            steps.iter().eq(usual.map(|(column, form)| Step::Text { column, form }).collect::<Vec<_>>().iter());
        Some(if is_usual { Step::Changes } else { Step::ChangesOf(steps) })
    }

    /// A value whose bytes are canonical.
    fn as_it_is(&mut self, reader: &ReaderField<'_>, step: Step) {
        match (reader.leaf, &mut self.run) {
            (Some(leaf), Some(run)) if run.next == leaf => run.next += 1,
            (Some(leaf), _) => {
                self.end_run();
                self.run = Some(Run { first: leaf, next: leaf + 1, step: self.steps.len() });
            }
            (None, _) => self.end_run(),
        }
        self.steps.push(step);
    }

    /// A value whose bytes are others in the canonical body.
    fn rebuilt(&mut self, reader: &ReaderField<'_>, step: Step, piece: Piece) -> Option<()> {
        self.end_run();
        self.steps.push(step);
        if let Some(leaf) = reader.leaf {
            *self.pieces.get_mut(leaf)? = Some(piece);
        }
        Some(())
    }

    fn end_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        if (run.first, run.next) == (0, LEAVES) {
            self.steps.truncate(run.step);
            self.steps.push(Step::Content);
        }
        if let Some(piece) = self.pieces.get_mut(run.first) {
            *piece = Some(Piece::Body { from: run.step, to: self.steps.len() });
        }
    }

    /// What the writer has not.
    fn default(&mut self, reader: &ReaderField<'s>, default: &Json) -> Option<()> {
        let mut fixed = Vec::new();
        let step = match &reader.target {
            Target::EventId | Target::OccurredAt => return None,
            Target::Text { column, form } => {
                let text = if default.is_null() { "" } else { default.as_str()? };
                match form {
                    Form::Nullable => optional(text.as_bytes(), &mut fixed),
                    _ => bytes(text.as_bytes(), &mut fixed),
                }
                Step::PutText { column: *column, text: text.as_bytes().into() }
            }
            Target::Symbol { column, symbols } => {
                let key = number_of(symbols, default.as_str()?)?;
                long(key.into(), &mut fixed);
                Step::PutSymbol { column: *column, key }
            }
            Target::Long(column) => Step::PutLong { column: *column, number: default.as_i64()? },
            Target::Changes(_) => {
                default.as_array().filter(|items| items.is_empty())?;
                fixed.push(0);
                Step::PutNoChanges
            }
            Target::Record(fields) => {
                for field in fields {
                    let given = default.get(&field.field.name).or(field.field.default.as_ref());
                    self.default(field, given?)?;
                }
                return Some(());
            }
        };
        self.defaults.push(step);
        if let Some(leaf) = reader.leaf {
            *self.pieces.get_mut(leaf)? = Some(Piece::Fixed(fixed.into_boxed_slice()));
        }
        Some(())
    }
}

/// The reader's number of each symbol of the writer.
fn keys(writer: &EnumSchema, reader: &EnumSchema) -> Box<[Option<i32>]> {
    let default = reader.default.as_deref().and_then(|symbol| number_of(reader, symbol));
    writer.symbols.iter().map(|symbol| number_of(reader, symbol).or(default)).collect()
}

fn number_of(symbols: &EnumSchema, symbol: &str) -> Option<i32> {
    symbols.symbols.iter().position(|other| other == symbol).and_then(|number| i32::try_from(number).ok())
}

/// A change has no text of a later schema, and the columns of v1 are numbered without gaps.
const _: () = assert!(CHANGE_PATH + CHANGE_TEXTS == TEXTS);
