//! Columns that grow by a value a row.

use std::mem;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, Int32Array, StringArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;

use super::input::{Input, Text};
use crate::hash::{Frame, PIECE, symbol_frame};

/// Offsets from where each value ends.
pub(super) fn offsets(mut ends: Vec<i32>) -> OffsetBuffer<i32> {
    ends.insert(0, 0);
    OffsetBuffer::new(ScalarBuffer::from(ends))
}

/// What a column holds, leaving room for as much again: batches are alike, and growing means copying.
pub(super) fn renewed<T>(column: &mut Vec<T>) -> Vec<T> {
    let room = column.len() + column.len() / 8;
    mem::replace(column, Vec::with_capacity(room))
}

/// A column of strings.
#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<i32>,
}

impl Texts {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    #[inline(never)]
    pub(super) fn non_empty(&mut self, input: &mut Input<'_>, frame: &mut Frame, tag: u8) -> Option<()> {
        let text = input.text()?;
        if text.value.is_empty() {
            return None;
        }
        frame.field_from(tag, text.value, text.piece);
        self.append(text)
    }

    /// Any text; the frame leaves out the default.
    #[inline(never)]
    pub(super) fn unless(&mut self, input: &mut Input<'_>, frame: &mut Frame, tag: u8, default: &[u8]) -> Option<()> {
        let text = input.text()?;
        if text.value != default {
            frame.field_from(tag, text.value, text.piece);
        }
        self.append(text)
    }

    /// A union of null and string; the frame leaves out what is null or empty.
    #[inline(never)]
    pub(super) fn nullable(&mut self, input: &mut Input<'_>, frame: &mut Frame, tag: u8) -> Option<()> {
        let text = input.nullable()?;
        if !text.value.is_empty() {
            frame.field_from(tag, text.value, text.piece);
        }
        self.append(text)
    }

    #[inline(always)]
    pub(super) fn append(&mut self, text: Text<'_>) -> Option<()> {
        match text.piece {
            // Of fixed size this is one move; a call that copies so few bytes costs more than the bytes.
            Some(piece) if text.value.len() <= PIECE => {
                let end = self.bytes.len() + text.value.len();
                self.bytes.extend_from_slice(piece);
                self.bytes.truncate(end);
            }
            _ => self.bytes.extend_from_slice(text.value),
        }
        self.ends.push(i32::try_from(self.bytes.len()).ok()?);
        Some(())
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.bytes.truncate(self.ends.last().map_or(0, |&end| usize::try_from(end).unwrap_or(0)));
    }

    pub(super) fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let bytes = Buffer::from_vec(renewed(&mut self.bytes));
        Ok(Arc::new(StringArray::try_new(offsets(renewed(&mut self.ends)), bytes, None)?))
    }
}

/// A column of an enum's symbols.
#[derive(Debug)]
pub(super) struct Symbols {
    keys: Vec<i32>,
    names: Arc<StringArray>,
    /// What each symbol adds to the frame.
    frames: Vec<Vec<u8>>,
}

impl Symbols {
    /// The symbols `names`, which go into the frame under `tag`; `default` does not.
    pub(super) fn new<'a>(tag: u8, default: &str, names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let frames = names.clone().map(|name| symbol_frame(tag, name.as_bytes(), default)).collect();
        Self { keys: Vec::new(), names: Arc::new(StringArray::from_iter_values(names)), frames }
    }

    #[inline]
    pub(super) fn symbol(&mut self, input: &mut Input<'_>, frame: &mut Frame) -> Option<()> {
        let key = i32::try_from(input.long()?).ok()?;
        frame.append(self.frames.get(usize::try_from(key).ok()?)?);
        self.keys.push(key);
        Some(())
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.keys.truncate(rows);
    }

    pub(super) fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let keys = Int32Array::new(ScalarBuffer::from(renewed(&mut self.keys)), None);
        let names: ArrayRef = Arc::clone(&self.names) as ArrayRef;
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, names)?))
    }
}
