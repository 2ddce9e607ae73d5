//! The words of a column: its different texts, each under a number.
//!
//! Tenants, services and actions are few beside the rows that hold them. A row's number takes two bytes here and one or two on the way to ClickHouse,
//! which keeps such columns as numbers too (`LowCardinality`) and would have to find them for each row.
//!
//! Numbers are given in the order in which the words came first, so the same records give the same numbers. Where numbers are not worth it, they end for
//! the rest of the batch: too many words, or words that were made to meet in the table. The next texts come as they are: [`super::column::Texts`].

use std::sync::Arc;

use arrow_array::types::UInt16Type;
use arrow_array::{ArrayRef, DictionaryArray, StringArray, UInt16Array};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::ArrowError;

use super::column::{Offsets, Values};
use super::input::{PIECE, Text};

/// Words of a column in one batch, at most: what ClickHouse takes into one dictionary of a part (`low_cardinality_max_dictionary_size`).
const MOST: usize = 8192;
/// Bytes of them, at most.
const MOST_BYTES: usize = 256 * 1024;
/// Places of the table for each word, at least: so few words meet that a search nearly always ends at its first place.
const PLACES: usize = 4;
const FIRST_PLACES: usize = 256;
/// Places that a search looks at. Words of chance need less than half of that with [`MOST`] of them.
const LOOKS: usize = 32;

/// Of a word what is compared first.
#[derive(Debug)]
struct Known {
    head: u128,
    len: usize,
    hash: usize,
}

/// The words, and the rows' numbers.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) keys: Values<u16>,
    /// No row was too much yet.
    is_open: bool,
    /// The words by number; 0 is the empty one, which stands for the absent too.
    bytes: Values<u8>,
    offsets: Offsets,
    known: Vec<Known>,
    /// Numbers by hash, 0 where there is none. As many places as a power of two says.
    table: Vec<u16>,
    /// Words of the rows that were moved on.
    moved_on: usize,
}

impl Words {
    pub(super) fn new() -> Self {
        let mut words = Self {
            keys: Values::default(),
            is_open: true,
            bytes: Values::default(),
            offsets: Offsets::default(),
            known: Vec::new(),
            table: Vec::new(),
            moved_on: 0,
        };
        words.forget();
        words
    }

    /// Without words, for another batch.
    pub(super) fn forget(&mut self) {
        self.is_open = true;
        self.keys.clear();
        self.bytes.clear();
        self.offsets.truncate(0);
        self.offsets.push(0);
        self.known.clear();
        self.known.push(Known { head: 0, len: 0, hash: 0 });
        self.table.clear();
        self.table.resize(FIRST_PLACES, 0);
        self.moved_on = 1;
    }

    /// One more row, unless that is not worth it any more.
    #[inline(always)]
    pub(super) fn push(&mut self, text: Text<'_>) -> bool {
        if !self.is_open {
            return false;
        }
        match self.number(text) {
            Some(number) => self.keys.push(number),
            None => self.is_open = false,
        }
        self.is_open
    }

    #[inline(always)]
    fn number(&mut self, text: Text<'_>) -> Option<u16> {
        let len = text.value.len();
        if len == 0 {
            return Some(0);
        }
        let head = text.head();
        let hash = if len <= PIECE { hash(head, len) } else { hash_of_long(text.value) };
        let mut at = hash;
        for _ in 0..LOOKS {
            at &= self.table.len() - 1;
            let number = *self.table.get(at)?;
            if number == 0 {
                return self.add(text.value, Known { head, len, hash }, at);
            }
            let known = self.known.get(usize::from(number))?;
            if known.head == head && known.len == len && (len <= PIECE || self.word(number) == text.value) {
                return Some(number);
            }
            at += 1;
        }
        None
    }

    #[cold]
    #[inline(never)]
    fn add(&mut self, word: &[u8], known: Known, at: usize) -> Option<u16> {
        if self.known.len() > MOST || self.bytes.len() + word.len() > MOST_BYTES {
            return None;
        }
        let number = u16::try_from(self.known.len()).ok()?;
        self.bytes.extend_from_slice(word);
        self.offsets.push(self.bytes.len())?;
        self.known.push(known);
        *self.table.get_mut(at)? = number;
        if self.known.len() * PLACES > self.table.len() {
            self.table = self.larger_table()?;
        }
        Some(number)
    }

    /// With room for as many words again. None when some word would not be found in it.
    fn larger_table(&self) -> Option<Vec<u16>> {
        let mut table = vec![0; self.table.len() * 2];
        for (number, known) in (0..).zip(&self.known).skip(1) {
            let at = place_of(&table, known.hash, 0)?;
            *table.get_mut(at)? = number;
        }
        Some(table)
    }

    /// The text of a row.
    pub(super) fn value(&self, row: usize) -> &[u8] {
        self.keys.get(row).map_or(&[], |number| self.word(*number))
    }

    fn word(&self, number: u16) -> &[u8] {
        self.bytes.get(self.offsets.range(usize::from(number))).unwrap_or_default()
    }

    /// Takes rows away, and the words that came with them: not for rows that were moved on.
    pub(super) fn take_back(&mut self, rows: usize) {
        self.keys.truncate(rows);
        let used = self.keys.iter().max().map_or(0, |number| usize::from(*number) + 1).max(self.moved_on);
        // The newest first: no other word's search goes past its place.
        while self.is_open && self.known.len() > used {
            let Some(known) = self.known.pop() else { return };
            let number = u16::try_from(self.known.len()).unwrap_or(0);
            if let Some(place) = place_of(&self.table, known.hash, number).and_then(|at| self.table.get_mut(at)) {
                *place = 0;
            }
        }
        self.offsets.truncate(used.min(self.offsets.len()));
        self.bytes.truncate(self.offsets.end());
    }

    /// Moves the rows of `from` behind its own, and learns what words there are by now.
    pub(super) fn append(&mut self, from: &mut Words) {
        self.keys.append(&mut from.keys);
        from.moved_on = from.known.len();
        for number in self.offsets.len()..from.offsets.len() {
            self.bytes.extend_from_slice(from.bytes.get(from.offsets.range(number)).unwrap_or_default());
            self.offsets.push(self.bytes.len());
        }
    }

    /// All rows' numbers, and the words.
    pub(super) fn take(&mut self) -> Result<(Vec<u16>, StringArray), ArrowError> {
        let keys = self.keys.take();
        let words = StringArray::try_new(self.offsets.take(), Buffer::from_vec(self.bytes.take()), None)?;
        self.forget();
        Ok((keys, words))
    }
}

/// The first place from a hash on that holds the number.
fn place_of(table: &[u16], hash: usize, number: u16) -> Option<usize> {
    (0..LOOKS).map(|look| hash.wrapping_add(look) & (table.len() - 1)).find(|at| table.get(*at) == Some(&number))
}

/// As a column.
pub(super) fn array(keys: Vec<u16>, words: StringArray) -> Result<ArrayRef, ArrowError> {
    let keys = UInt16Array::new(ScalarBuffer::from(keys), None);
    Ok(Arc::new(DictionaryArray::<UInt16Type>::try_new(keys, Arc::new(words))?))
}

/// Of a text that is no longer than a piece.
#[inline(always)]
fn hash(head: u128, len: usize) -> usize {
    mix(head, len as u64) as usize
}

#[inline(never)]
fn hash_of_long(text: &[u8]) -> usize {
    let piece = |at: usize| text.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |p| u128::from_le_bytes(*p));
    // The last piece may overlap the one before.
    let last = text.len().saturating_sub(PIECE);
    let all = (0..last).step_by(PIECE).fold(text.len() as u64, |hash, at| mix(piece(at), hash));
    mix(piece(last), all) as usize
}

/// Two halves to one, with what was before: spread over all bits. Whoever makes words that meet gets a column of texts, see [`LOOKS`].
#[inline(always)]
fn mix(piece: u128, before: u64) -> u64 {
    let (low, high) = (piece as u64 ^ 0x9e37_79b9_7f4a_7c15, (piece >> 64) as u64 ^ 0xd1b5_4a32_d192_ed03 ^ before);
    let product = u128::from(low) * u128::from(high);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow_array::Array as _;
    use arrow_array::cast::AsArray;

    use super::super::column::Texts;
    use super::super::input::Input;
    use super::*;
    use crate::encode::bytes;

    /// The texts as a column gives them back, a thousand at a time, and whether as a dictionary.
    fn column(texts: &[String]) -> (Vec<String>, bool) {
        let (mut stage, mut rest) = (Texts::of_words(), Texts::of_words());
        // Twice: the second batch must know nothing of the first.
        for _ in 0..2 {
            for (number, text) in texts.iter().enumerate() {
                if number % 1000 == 0 {
                    rest.append(&mut stage);
                }
                let mut body = Vec::new();
                bytes(text.as_bytes(), &mut body);
                body.extend_from_slice(&[0xff; 20][..number % 20]);
                stage.text(&mut Input::new(&body)).unwrap();
                assert_eq!(stage.value(number % 1000), text.as_bytes());
            }
            rest.append(&mut stage);
            stage.forget_words();
            let array = rest.take().unwrap();
            let Some(dictionary) = array.as_dictionary_opt::<UInt16Type>() else {
                let texts = array.as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect();
                return (texts, false);
            };
            let words = dictionary.values().as_string::<i32>();
            let mut different: Vec<_> = words.iter().map(Option::unwrap).collect();
            assert_eq!(different[0], "");
            different.sort_unstable();
            different.dedup();
            assert_eq!(different.len(), words.len(), "a word has two numbers");
            let read: Vec<_> =
                dictionary.keys().values().iter().map(|key| words.value(usize::from(*key)).to_owned()).collect();
            assert_eq!(read, texts);
        }
        (texts.to_vec(), true)
    }

    fn check(texts: &[String], is_dictionary: bool) {
        let (read, as_dictionary) = column(texts);
        assert_eq!(read, texts);
        assert_eq!(as_dictionary, is_dictionary);
    }

    #[test]
    fn texts_of_all_lengths_come_back_as_they_were() {
        let of_length = |len: usize| -> String { (b'a'..=b'z').cycle().map(char::from).take(len).collect() };
        let texts: Vec<_> = (0..5000).map(|number| of_length(number * 7 % 70)).collect();
        check(&texts, true);
        // They differ in one place only, wherever that is.
        let differ = |number: usize| {
            let mut text = vec![b'-'; number % 50 + 1];
            text[number % (number % 50 + 1)] = b'x';
            String::from_utf8(text).unwrap()
        };
        check(&(0..5000).map(differ).collect::<Vec<_>>(), true);
        check(&vec![String::new(); 3000], true);
        check(&(0..3000).map(|number| "ü€".repeat(number % 9)).collect::<Vec<_>>(), true);
    }

    #[test]
    fn many_words_are_a_dictionary_and_too_many_are_texts() {
        let words = |count: usize| (0..20_000).map(move |row| format!("tenant-{}", row % count)).collect::<Vec<_>>();
        for count in [1, FIRST_PLACES, 2000, MOST] {
            check(&words(count), true);
        }
        check(&words(MOST + 1), false);
        let long = |count: usize| (0..2000).map(move |row| format!("{row}").repeat(count)).collect::<Vec<_>>();
        check(&long(10), true);
        check(&long(100), false);
    }

    #[test]
    fn words_that_were_made_to_meet_are_texts_and_cost_no_more_than_a_few_looks() {
        let places = 1 << 16;
        let hash_of = |word: &str| {
            let mut piece = [0; PIECE];
            piece[..word.len()].copy_from_slice(word.as_bytes());
            hash(u128::from_le_bytes(piece), word.len()) & (places - 1)
        };
        let meeting: Vec<_> =
            (0..).map(|n: u64| format!("{n:x}")).filter(|w| hash_of(w) == 77).take(LOOKS + 1).collect();
        check(&meeting[..LOOKS], true);
        check(&meeting, false);
    }

    #[test]
    fn rows_that_are_taken_back_take_their_words_with_them() {
        let mut words = Words::new();
        let text = |value: &'static str| Text { value: value.as_bytes(), piece: None };
        let (mut rest, mut refused) = (Words::new(), 0);
        for (number, word) in ["a", "b", "a", "c", "b", "d"].into_iter().enumerate() {
            let rows = words.keys.len();
            // Enough of them that the table grows.
            for _ in 0..50 {
                refused += 1;
                assert!(words.push(text(Box::leak(format!("refused {refused}").into_boxed_str()))));
            }
            words.take_back(rows);
            assert!(words.push(text(word)));
            if number == 2 {
                rest.append(&mut words);
            }
        }
        words.take_back(2);
        rest.append(&mut words);
        let (keys, words) = rest.take().unwrap();
        assert_eq!(keys, [1, 2, 1, 3, 2]);
        assert_eq!(words.iter().map(Option::unwrap).collect::<Vec<_>>(), ["", "a", "b", "c"]);
    }
}
