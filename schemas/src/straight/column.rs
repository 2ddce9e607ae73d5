//! Columns that grow by a value a row.

use std::mem;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayRef, DictionaryArray, Int32Array, StringArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;

use super::input::{Input, PIECE, Text, append_piece};
use super::words::{self, Words};

/// Values that are given away as one piece of memory, batch after batch.
#[derive(Debug)]
pub(super) struct Values<T> {
    values: Vec<T>,
    /// How many values to make room for when the next ones come. Batches are alike, and growing means copying; but not before they come: the memory
    /// of a batch that was stored meanwhile is used again then, where fresh pages cost more than what is written to them.
    room: usize,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { values: Vec::new(), room: 0 }
    }
}

impl<T> Deref for Values<T> {
    type Target = Vec<T>;

    #[inline(always)]
    fn deref(&self) -> &Vec<T> {
        &self.values
    }
}

impl<T> DerefMut for Values<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.values
    }
}

impl<T> Values<T> {
    /// Moves the values of `from` behind its own.
    pub(super) fn append(&mut self, from: &mut Self) {
        self.make_room();
        self.values.append(&mut from.values);
    }

    fn make_room(&mut self) {
        if self.room > self.values.capacity() {
            self.values.reserve_exact(self.room - self.values.len());
        }
    }

    /// All values.
    pub(super) fn take(&mut self) -> Vec<T> {
        let len = self.values.len();
        self.room = (len + len / 8 + 1).max(self.room - self.room / 8);
        mem::take(&mut self.values)
    }
}

/// Where each value begins and, last, where all end.
#[derive(Debug)]
pub(super) struct Offsets(Values<i32>);

impl Default for Offsets {
    fn default() -> Self {
        Self(Values { values: vec![0], room: 0 })
    }
}

impl Offsets {
    pub(super) fn len(&self) -> usize {
        self.0.len() - 1
    }

    /// Where all end.
    pub(super) fn end(&self) -> usize {
        self.0.last().map_or(0, |&end| usize::try_from(end).unwrap_or(0))
    }

    /// What belongs to a value; nothing when there is no such value.
    pub(super) fn range(&self, value: usize) -> Range<usize> {
        let at = |index: usize| self.0.get(index).map_or(0, |&at| usize::try_from(at).unwrap_or(0));
        at(value)..at(value + 1)
    }

    /// One more value, which ends at `end`.
    #[inline(always)]
    pub(super) fn push(&mut self, end: usize) -> Option<()> {
        self.0.push(i32::try_from(end).ok()?);
        Some(())
    }

    /// Moves the values of `from` behind its own. A lane is sealed at half of what offsets can say, so nothing saturates.
    pub(super) fn append(&mut self, from: &mut Offsets) {
        let base = self.0.last().copied().unwrap_or(i32::MAX);
        self.0.make_room();
        self.0.extend(from.0.drain(1..).map(|end| end.saturating_add(base)));
    }

    pub(super) fn truncate(&mut self, values: usize) {
        self.0.truncate(values + 1);
    }

    pub(super) fn take(&mut self) -> OffsetBuffer<i32> {
        let offsets = self.0.take();
        self.0.push(0);
        OffsetBuffer::new(ScalarBuffer::from(offsets))
    }
}

/// A column of strings.
#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: Values<u8>,
    offsets: Offsets,
    /// Of a column of words the rows in front of these.
    words: Option<Box<Words>>,
}

impl Texts {
    /// A column of words.
    pub(super) fn of_words() -> Self {
        Self { words: Some(Box::new(Words::new())), ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.numbered() + self.offsets.len()
    }

    /// Rows that are numbers of words.
    #[inline]
    fn numbered(&self) -> usize {
        self.words.as_ref().map_or(0, |words| words.keys.len())
    }

    #[inline(never)]
    pub(super) fn non_empty(&mut self, input: &mut Input<'_>) -> Option<()> {
        let text = input.text()?;
        if text.value.is_empty() { None } else { self.push(text) }
    }

    /// Any text.
    #[inline(never)]
    pub(super) fn text(&mut self, input: &mut Input<'_>) -> Option<()> {
        self.push(input.text()?)
    }

    /// A union of null and string.
    #[inline(never)]
    pub(super) fn nullable(&mut self, input: &mut Input<'_>) -> Option<()> {
        self.push(input.nullable()?)
    }

    /// A union of string and null.
    #[inline(never)]
    pub(super) fn null_last(&mut self, input: &mut Input<'_>) -> Option<()> {
        self.push(input.null_last()?)
    }

    /// A text that does not come from the record.
    #[inline(never)]
    pub(super) fn put(&mut self, text: &[u8]) -> Option<()> {
        self.push(Text { value: text, piece: None })
    }

    /// A value; empty when there is no such value.
    pub(super) fn value(&self, number: usize) -> &[u8] {
        match (&self.words, number.checked_sub(self.numbered())) {
            (Some(words), None) => words.value(number),
            (_, text) => self.bytes.get(self.offsets.range(text.unwrap_or(number))).unwrap_or_default(),
        }
    }

    #[inline(always)]
    fn push(&mut self, text: Text<'_>) -> Option<()> {
        if let Some(words) = &mut self.words
            && words.push(text)
        {
            return Some(());
        }
        self.push_text(text)
    }

    /// A text of a column that is not one of words, or not any more.
    #[inline(always)]
    pub(super) fn push_text(&mut self, text: Text<'_>) -> Option<()> {
        match text.piece {
            Some(piece) if text.value.len() <= PIECE => append_piece(piece, text.value.len(), &mut self.bytes),
            _ => self.bytes.extend_from_slice(text.value),
        }
        self.offsets.push(self.bytes.len())
    }

    /// Moves the values of `from` behind its own.
    pub(super) fn append(&mut self, from: &mut Texts) {
        if let (Some(words), Some(from)) = (&mut self.words, &mut from.words) {
            words.append(from);
        }
        self.offsets.append(&mut from.offsets);
        self.bytes.append(&mut from.bytes);
    }

    /// Takes values away that came since the last [`Texts::append`] from here.
    pub(super) fn take_back(&mut self, to: usize) {
        let numbered = self.numbered();
        self.offsets.truncate(to.saturating_sub(numbered).min(self.offsets.len()));
        self.bytes.truncate(self.offsets.end());
        if let Some(words) = &mut self.words {
            words.take_back(to.min(numbered));
        }
    }

    /// Starts with other words: for another batch.
    pub(super) fn forget_words(&mut self) {
        if let Some(words) = &mut self.words {
            words.forget();
        }
    }

    /// All values: words as a dictionary, unless there were too many.
    pub(super) fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        if let Some(words) = &mut self.words {
            let (keys, words) = words.take()?;
            if self.offsets.len() == 0 {
                return words::array(keys, words);
            }
            self.unfold(&keys, &words)?;
        }
        let bytes = Buffer::from_vec(self.bytes.take());
        Ok(Arc::new(StringArray::try_new(self.offsets.take(), bytes, None)?))
    }

    /// Puts texts in front instead of their numbers. They are no longer than the records that they come from, as if they had come as texts.
    #[cold]
    fn unfold(&mut self, keys: &[u16], words: &StringArray) -> Result<(), ArrowError> {
        let mut all = Self::default();
        for key in keys {
            let word = words.value(usize::from(*key)).as_bytes();
            all.bytes.extend_from_slice(word);
            all.offsets.push(all.bytes.len()).ok_or(ArrowError::OffsetOverflowError(all.bytes.len()))?;
        }
        all.offsets.append(&mut self.offsets);
        all.bytes.append(&mut self.bytes);
        (self.offsets, self.bytes) = (all.offsets, all.bytes);
        Ok(())
    }
}

/// A column of an enum's symbols.
#[derive(Debug)]
pub(super) struct Symbols {
    keys: Values<i32>,
    names: Arc<StringArray>,
}

impl Symbols {
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self { keys: Values::default(), names: Arc::new(StringArray::from_iter_values(names)) }
    }

    #[inline]
    pub(super) fn symbol(&mut self, input: &mut Input<'_>) -> Option<()> {
        let key = i32::try_from(input.long()?).ok()?;
        if usize::try_from(key).ok()? >= self.names.len() {
            return None;
        }
        self.keys.push(key);
        Some(())
    }

    /// A symbol by its number, which is below that of the names.
    pub(super) fn put(&mut self, key: i32) {
        self.keys.push(key);
    }

    /// The number of a row's symbol.
    pub(super) fn key(&self, row: usize) -> i32 {
        self.keys.get(row).copied().unwrap_or(0)
    }

    /// Moves the values of `from` behind its own.
    pub(super) fn append(&mut self, from: &mut Symbols) {
        self.keys.append(&mut from.keys);
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.keys.truncate(rows);
    }

    pub(super) fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let keys = Int32Array::new(ScalarBuffer::from(self.keys.take()), None);
        let names: ArrayRef = Arc::clone(&self.names) as ArrayRef;
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, names)?))
    }
}
