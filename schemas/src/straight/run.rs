//! A record's pass through the steps of its plan.

use std::mem;

use uuid::Uuid;

use super::column::{Offsets, Symbols, Texts};
use super::columns::Columns;
use super::input::Input;
use super::steps::{CHANGE_PATH, Form, Plan, Step};
use crate::event::Timestamp;

impl Columns {
    /// Appends a body as a row, or answers `None` and is as before.
    pub(super) fn push(&mut self, body: &[u8], plan: &Plan) -> Option<()> {
        let mut input = Input::new(body);
        let mut marks = mem::take(&mut self.marks);
        if marks.len() <= plan.steps.len() {
            marks.resize(plan.steps.len() + 1, 0);
        }
        let read = self.read(&plan.steps, &mut marks, &mut input);
        if read.is_some() {
            self.hash_content(body, plan, &marks, input.empties());
            self.rows += 1;
        } else {
            self.take_back();
        }
        self.marks = marks;
        read
    }

    /// All of the body, by all steps; what was left before each goes to `marks`, for that costs less than steps of its own.
    fn read(&mut self, steps: &[Step], marks: &mut [usize], input: &mut Input<'_>) -> Option<()> {
        let (before, behind) = marks.split_at_mut_checked(steps.len())?;
        for (step, mark) in steps.iter().zip(before) {
            *mark = input.left();
            self.step(step, input)?;
        }
        *behind.first_mut()? = 0;
        if input.left() == 0 { Some(()) } else { None }
    }

    /// The steps of a change.
    fn run(&mut self, steps: &[Step], input: &mut Input<'_>) -> Option<()> {
        for step in steps {
            self.step(step, input)?;
        }
        Some(())
    }

    #[inline(always)]
    fn step(&mut self, step: &Step, input: &mut Input<'_>) -> Option<()> {
        match step {
            Step::Text { column, form } => self.text(*column)?.read(*form, input)?,
            Step::Content => self.content(input)?,
            Step::Symbol(column) => self.symbols.get_mut(*column)?.symbol(input)?,
            Step::Mapped { column, keys } => self.symbols.get_mut(*column)?.mapped(keys, input)?,
            Step::Long(column) => self.numbers.get_mut(*column)?.push(input.long()?),
            Step::Int(column) => {
                self.numbers.get_mut(*column)?.push(i64::from(i32::try_from(input.long()?).ok()?));
            }
            Step::Skip { guard, depth } => input.skip(guard, *depth)?,
            Step::EventId => self.event_id(input)?,
            Step::OccurredAt => self.occurred_at(input)?,
            Step::Changes => {
                let [.., path, old, new] = &mut self.texts;
                changes(&mut self.changes, [path, old, new], input)?;
            }
            Step::ChangesOf(steps) => self.changes_of(steps, input)?,
            Step::Branch(branch) => input.branch(*branch)?,
            Step::PutText { column, text } => self.text(*column)?.put(text)?,
            Step::PutSymbol { column, key } => self.symbols.get_mut(*column)?.put(*key),
            Step::PutLong { column, number } => self.numbers.get_mut(*column)?.push(*number),
            Step::PutNoChanges => self.changes.push(self.changes.end())?,
        }
        Some(())
    }

    /// The fields in front of `producer`, in the order of `audit_event.v1.avsc`. What the single steps do, without the way from one to the next.
    fn content(&mut self, input: &mut Input<'_>) -> Option<()> {
        self.event_id(input)?;
        self.occurred_at(input)?;
        let [operation, actor_kind, outcome, priority] = &mut self.symbols;
        let [tenant_id, service, environment, action, entity_type, entity_id, entity_name, more @ ..] = &mut self.texts;
        let [actor_id, actor_name, actor_email, actor_session, on_behalf_of, error_message, more @ ..] = more;
        let [ip, user_agent, request_id, correlation_id, trace_id, http_method, http_path, details, _, path, old, new] =
            more;
        tenant_id.non_empty(input)?;
        service.non_empty(input)?;
        environment.text(input)?;
        action.non_empty(input)?;
        operation.symbol(input)?;
        entity_type.non_empty(input)?;
        entity_id.non_empty(input)?;
        entity_name.nullable(input)?;
        actor_kind.symbol(input)?;
        for text in [actor_id, actor_name, actor_email, actor_session, on_behalf_of] {
            text.nullable(input)?;
        }
        outcome.symbol(input)?;
        error_message.nullable(input)?;
        changes(&mut self.changes, [path, old, new], input)?;
        for text in [ip, user_agent, request_id, correlation_id, trace_id, http_method, http_path] {
            text.nullable(input)?;
        }
        priority.symbol(input)?;
        details.text(input)
    }

    #[inline]
    fn event_id(&mut self, input: &mut Input<'_>) -> Option<()> {
        let event_id = Uuid::try_parse_ascii(input.uuid()?).ok()?;
        self.event_id.extend_from_slice(event_id.as_bytes());
        Some(())
    }

    #[inline]
    fn occurred_at(&mut self, input: &mut Input<'_>) -> Option<()> {
        let [occurred_at, ..] = &mut self.numbers;
        let time = input.long()?;
        Timestamp::from_micros(time).is_storable().then(|| occurred_at.push(time))
    }

    /// One block of changes, or none, whatever a change is made of. Each has a path at least, so the input bounds their number.
    fn changes_of(&mut self, steps: &[Step], input: &mut Input<'_>) -> Option<()> {
        let count = usize::try_from(input.long()?).ok()?;
        if count > 0 {
            for _ in 0..count {
                self.run(steps, input)?;
            }
            if input.long()? != 0 {
                return None;
            }
        }
        self.changes.push(self.texts[CHANGE_PATH].len())
    }
}

/// One block of changes, or none. Each change takes bytes, so the input bounds their number. More blocks, and blocks that tell their size, are
/// rare: they go the long way.
fn changes(offsets: &mut Offsets, [path, old, new]: [&mut Texts; 3], input: &mut Input<'_>) -> Option<()> {
    let count = usize::try_from(input.long()?).ok()?;
    if count > 0 {
        for _ in 0..count {
            path.push_text(input.text()?)?;
            old.push_text(input.nullable()?)?;
            new.push_text(input.nullable()?)?;
        }
        if input.long()? != 0 {
            return None;
        }
    }
    offsets.push(path.len())
}

impl Texts {
    #[inline]
    fn read(&mut self, form: Form, input: &mut Input<'_>) -> Option<()> {
        match form {
            Form::Nullable => self.nullable(input),
            Form::Required => self.non_empty(input),
            Form::Any => self.text(input),
            Form::NullLast => self.null_last(input),
        }
    }
}

impl Symbols {
    fn mapped(&mut self, keys: &[Option<i32>], input: &mut Input<'_>) -> Option<()> {
        let key = keys.get(usize::try_from(input.long()?).ok()?)?;
        self.put((*key)?);
        Some(())
    }
}
