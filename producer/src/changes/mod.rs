//! An event's `changes` as the difference of two values.
//!
//! ```
//! use auditstream_producer::changes::diff;
//! use auditstream_schemas::AuditEvent;
//! # #[derive(serde::Serialize)]
//! # struct Item { price: u32 }
//! # #[derive(serde::Serialize)]
//! # struct Order { status: &'static str, items: Vec<Item> }
//!
//! let before = Order { status: "open", items: vec![Item { price: 5 }] };
//! let after = Order { status: "open", items: vec![Item { price: 7 }] };
//! let changes = diff(&before, &after)?;
//! assert_eq!(changes.list[0].path, "/items/0/price");
//! assert_eq!((changes.list[0].old.as_deref(), changes.list[0].new.as_deref()), (Some("5"), Some("7")));
//!
//! let event = AuditEvent::builder("acme", "shop", "order.update", "order", "42").with(|e| changes.write_to(e)).build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - Paths are JSON pointers (RFC 6901) to the smallest thing that changed: members of objects by name, elements of arrays
//!   by index. What came or went as a whole (a member, the end of an array) is one change with its whole value.
//! - Values are JSON text as `serde_json` writes it, digit for digit: 128-bit integers and floats are not converted. NaN and
//!   the infinities are `null`, which is what JSON has for them.
//! - The order is that of application: members by name, elements by index, and the end of an array from its last element.
//!   Whoever sets and removes in this order makes the new value of the old one.
//! - Bounds ([`Limits`]) are kept whatever comes. A value beyond them is replaced, a change beyond them is left out, and
//!   both are counted; [`Changes::write_to`] notes it in the event's details: `"changes_cut":{"left_out":3,"shortened":1}`.

mod write;

use std::collections::BTreeMap;

use auditstream_schemas::{AuditEvent, Change, limits};
use serde::Serialize;

use crate::json::{MAX_DEPTH, Opened, note_cut, open};

/// How much of a difference is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most changes. Default 1,000; an event takes 10,000.
    pub changes: usize,
    /// Most bytes of one old or new value. Default and maximum 65,536. A longer one becomes the text `"[70000 bytes]"`.
    pub value_bytes: usize,
    /// Most bytes of all paths and values together. Default 524,288.
    pub total_bytes: usize,
    /// Most bytes of each of the two values as JSON text; beyond it there is an error. Default 16 MiB.
    pub input_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            changes: 1_000,
            value_bytes: limits::CHANGE_VALUE_BYTES,
            total_bytes: 512 * 1024,
            input_bytes: 16 * 1024 * 1024,
        }
    }
}

/// A difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What changed; empty when nothing did.
    pub list: Vec<Change>,
    /// Changes that are not in the list because it would be too long.
    pub left_out: usize,
    /// Values that stand in the list as their length because they were too long.
    pub shortened: usize,
}

/// Why there is no difference. Never repeats a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// Its `Serialize` failed, or it has map keys that are no JSON names.
    #[error("the {0} value can't be written as JSON")]
    NotJson(Side),
    /// It is nested more than 128 levels deep.
    #[error("the {0} value is nested more than 128 levels deep")]
    TooDeep(Side),
    /// Its JSON text is longer than [`Limits::input_bytes`].
    #[error("the {0} value is longer than {1} bytes as JSON")]
    TooLong(Side, usize),
}

/// Which of the two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one before.
    Old,
    /// The one after.
    New,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Side::Old => "old",
            Side::New => "new",
        })
    }
}

/// What changed from one value to another, within the default [`Limits`].
///
/// # Errors
/// A value that can't be written as JSON, or is too deep or too long for it.
pub fn diff<A, B>(old: &A, new: &B) -> Result<Changes, DiffError>
where
    A: Serialize + ?Sized,
    B: Serialize + ?Sized,
{
    Limits::default().diff(old, new)
}

/// The changes of something that came to be: one for each of its members.
///
/// # Errors
/// As [`diff`].
pub fn created<T: Serialize + ?Sized>(new: &T) -> Result<Changes, DiffError> {
    Limits::default().created(new)
}

/// The changes of something that was removed: one for each of its members.
///
/// # Errors
/// As [`diff`].
pub fn deleted<T: Serialize + ?Sized>(old: &T) -> Result<Changes, DiffError> {
    Limits::default().deleted(old)
}

impl Limits {
    /// [`diff`] within these limits.
    ///
    /// # Errors
    /// As [`diff`].
    pub fn diff<A, B>(&self, old: &A, new: &B) -> Result<Changes, DiffError>
    where
        A: Serialize + ?Sized,
        B: Serialize + ?Sized,
    {
        let old = write::to_text(old, Side::Old, self.input_bytes)?;
        let new = write::to_text(new, Side::New, self.input_bytes)?;
        Ok(self.compare(&old, &new))
    }

    /// [`created`] within these limits.
    ///
    /// # Errors
    /// As [`diff`].
    pub fn created<T: Serialize + ?Sized>(&self, new: &T) -> Result<Changes, DiffError> {
        let new = write::to_text(new, Side::New, self.input_bytes)?;
        Ok(self.one_side(&new, Side::New))
    }

    /// [`deleted`] within these limits.
    ///
    /// # Errors
    /// As [`diff`].
    pub fn deleted<T: Serialize + ?Sized>(&self, old: &T) -> Result<Changes, DiffError> {
        let old = write::to_text(old, Side::Old, self.input_bytes)?;
        Ok(self.one_side(&old, Side::Old))
    }

    fn one_side(&self, text: &str, side: Side) -> Changes {
        let nothing = matches!(open(text), Some(Opened::Object(_))).then_some("{}");
        let mut walk = Walk::new(self);
        match (nothing, side) {
            (Some(nothing), Side::Old) => walk.compare(text, nothing, 0),
            (Some(nothing), Side::New) => walk.compare(nothing, text, 0),
            (None, Side::Old) => walk.push(Some(text), None),
            (None, Side::New) => walk.push(None, Some(text)),
        }
        walk.found
    }

    fn compare(&self, old: &str, new: &str) -> Changes {
        let mut walk = Walk::new(self);
        walk.compare(old, new, 0);
        walk.found
    }
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.left_out == 0
    }

    /// Whether something is missing.
    pub fn is_cut(&self) -> bool {
        self.left_out > 0 || self.shortened > 0
    }

    /// Appends the changes to an event's, and a note to its details if something is missing.
    pub fn write_to(self, event: &mut AuditEvent) {
        note_cut(&mut event.details, self.left_out, self.shortened);
        if event.changes.is_empty() {
            event.changes = self.list;
        } else {
            event.changes.extend(self.list);
        }
    }
}

/// One segment of a JSON pointer, escaped (RFC 6901, section 3).
fn push_segment(path: &mut String, segment: &str) {
    path.push('/');
    for c in segment.chars() {
        match c {
            '~' => path.push_str("~0"),
            '/' => path.push_str("~1"),
            c => path.push(c),
        }
    }
}

struct Walk<'l> {
    limits: &'l Limits,
    /// The pointer to where the walk is.
    path: String,
    found: Changes,
    bytes: usize,
}

impl<'l> Walk<'l> {
    fn new(limits: &'l Limits) -> Walk<'l> {
        Walk { limits, path: String::new(), found: Changes::default(), bytes: 0 }
    }

    fn compare(&mut self, old: &str, new: &str, depth: usize) {
        if old == new {
            return;
        }
        // Only raw values that the caller's types write by themselves can be deeper: the writer has counted the others.
        let opened = if depth < MAX_DEPTH { open(old).zip(open(new)) } else { None };
        match opened {
            Some((Opened::Object(old), Opened::Object(new))) => self.members(old, new, depth),
            Some((Opened::Array(old), Opened::Array(new))) => self.elements(&old, &new, depth),
            _ => self.push(Some(old), Some(new)),
        }
    }

    fn members(&mut self, old: Vec<(String, &str)>, new: Vec<(String, &str)>, depth: usize) {
        // Of a name that comes twice the last one counts, as for most who read JSON.
        let mut names: BTreeMap<String, (Option<&str>, Option<&str>)> = BTreeMap::new();
        for (name, value) in old {
            names.entry(name).or_default().0 = Some(value);
        }
        for (name, value) in new {
            names.entry(name).or_default().1 = Some(value);
        }
        for (name, sides) in names {
            self.at(&name, |walk| walk.sides(sides, depth));
        }
    }

    fn elements(&mut self, old: &[&str], new: &[&str], depth: usize) {
        for (index, new) in new.iter().enumerate() {
            self.at(&index.to_string(), |walk| walk.sides((old.get(index).copied(), Some(new)), depth));
        }
        for (index, old) in old.iter().enumerate().skip(new.len()).rev() {
            self.at(&index.to_string(), |walk| walk.push(Some(old), None));
        }
    }

    fn sides(&mut self, sides: (Option<&str>, Option<&str>), depth: usize) {
        match sides {
            (Some(old), Some(new)) => self.compare(old, new, depth + 1),
            (old, new) => self.push(old, new),
        }
    }

    fn at(&mut self, segment: &str, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        push_segment(&mut self.path, segment);
        visit(self);
        self.path.truncate(length);
    }

    fn push(&mut self, old: Option<&str>, new: Option<&str>) {
        let bound = self.limits.value_bytes.min(limits::CHANGE_VALUE_BYTES);
        let mut shortened = 0;
        let mut bounded = |value: Option<&str>| {
            value.map(|text| {
                if text.len() <= bound {
                    return text.to_owned();
                }
                shortened += 1;
                format!("\"[{} bytes]\"", text.len())
            })
        };
        let has_room = self.found.list.len() < self.limits.changes.min(limits::CHANGES);
        if !has_room || self.path.len() > limits::PATH_BYTES {
            self.found.left_out += 1;
            return;
        }
        let change = Change { path: self.path.clone(), old: bounded(old), new: bounded(new) };
        let bytes =
            [&change.old, &change.new].into_iter().flatten().map(String::len).sum::<usize>() + change.path.len();
        if self.bytes + bytes > self.limits.total_bytes {
            self.found.left_out += 1;
            return;
        }
        self.bytes += bytes;
        self.found.shortened += shortened;
        self.found.list.push(change);
    }
}

#[cfg(test)]
mod tests;
