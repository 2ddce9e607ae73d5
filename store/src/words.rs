//! The dictionaries of a body: one for each column of words, whatever batches the body is made of.
//!
//! ClickHouse keeps such a column as numbers (`LowCardinality`), takes a dictionary for what it is, and would have to look each row's text up otherwise. It
//! moves the words about unless the empty one is the first. Batches of one stream with dictionaries of their own were not tried: there is one dictionary a
//! column, which begins with the empty word. Keys take a byte where that is enough.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt8Type, UInt16Type};
use arrow_array::{Array, ArrayRef, DictionaryArray, RecordBatch, StringArray, UInt8Array, UInt16Array};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{ArrowError, DataType, Field, Schema};

/// Words of one dictionary, at most; where there are more the column is sent as texts. Half of what the keys can tell apart, so that no reader's way of
/// counting from one comes near the end.
const MOST: usize = 1 << 15;
/// The same for keys of a byte.
const MOST_IN_A_BYTE: usize = 1 << 7;

/// The same rows, each column either without dictionaries or with one and the same.
pub(crate) fn unite(batches: &[RecordBatch]) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut columns: Vec<_> = batches.iter().map(|batch| batch.columns().to_vec()).collect();
    let numbers = batches.iter().map(RecordBatch::num_columns).min().unwrap_or(0);
    for number in 0..numbers {
        let column: Vec<_> = batches.iter().map(|batch| batch.column(number)).collect();
        if column.iter().any(|array| is_dictionary(array)) {
            for (columns, array) in columns.iter_mut().zip(of_one_dictionary(&column)?) {
                columns[number] = array;
            }
        }
    }
    let mut schema: Option<Arc<Schema>> = None;
    let fitted = batches.iter().zip(columns).map(|(batch, columns)| {
        let schema = schema.get_or_insert_with(|| {
            let typed = |(field, array): (&Arc<Field>, &ArrayRef)| {
                field.as_ref().clone().with_data_type(array.data_type().clone())
            };
            Arc::new(Schema::new(batch.schema().fields().iter().zip(&columns).map(typed).collect::<Vec<_>>()))
        });
        RecordBatch::try_new(Arc::clone(schema), columns)
    });
    fitted.collect()
}

fn is_dictionary(array: &ArrayRef) -> bool {
    matches!(array.data_type(), DataType::Dictionary(..))
}

/// A column of texts, with a dictionary or without.
pub(crate) enum Texts<'a> {
    Plain(&'a StringArray),
    Words(&'a [u16], &'a StringArray),
    Symbols(&'a [i32], &'a StringArray),
}

impl<'a> Texts<'a> {
    /// `None` for columns of other types.
    pub(crate) fn of(array: &'a ArrayRef) -> Option<Self> {
        if let Some(words) = array.as_dictionary_opt::<UInt16Type>() {
            return Some(Self::Words(words.keys().values(), words.values().as_string_opt()?));
        }
        if let Some(symbols) = array.as_dictionary_opt::<Int32Type>() {
            return Some(Self::Symbols(symbols.keys().values(), symbols.values().as_string_opt()?));
        }
        array.as_string_opt().map(Self::Plain)
    }

    pub(crate) fn value(&self, row: usize) -> &'a str {
        match *self {
            Self::Plain(texts) => texts.value(row),
            Self::Words(keys, words) => words.value(keys[row].into()),
            Self::Symbols(keys, words) => words.value(keys[row].try_into().unwrap_or(usize::MAX)),
        }
    }

    /// The number of each row's word, with every word known afterwards; `None` when there are too many.
    fn numbers(&self, known: &mut Known<'a>) -> Option<Vec<u16>> {
        match *self {
            Self::Plain(texts) => (0..texts.len()).map(|row| known.number(texts.value(row))).collect(),
            Self::Words(keys, words) => {
                let numbers = known.numbers(words)?;
                keys.iter().map(|key| numbers.get(usize::from(*key)).copied()).collect()
            }
            Self::Symbols(keys, words) => {
                let numbers = known.numbers(words)?;
                keys.iter().map(|key| numbers.get(usize::try_from(*key).ok()?).copied()).collect()
            }
        }
    }
}

/// The words of a column by number; the first is the empty one.
struct Known<'a> {
    words: Vec<&'a str>,
    numbers: HashMap<&'a str, u16>,
}

impl<'a> Known<'a> {
    fn number(&mut self, word: &'a str) -> Option<u16> {
        if let Some(number) = self.numbers.get(word) {
            return Some(*number);
        }
        let number = u16::try_from(self.words.len()).ok().filter(|_| self.words.len() < MOST)?;
        self.words.push(word);
        self.numbers.insert(word, number);
        Some(number)
    }

    fn numbers(&mut self, words: &'a StringArray) -> Option<Vec<u16>> {
        (0..words.len()).map(|word| self.number(words.value(word))).collect()
    }
}

/// The same column with one dictionary, or with none when there are too many words for one.
fn of_one_dictionary(column: &[&ArrayRef]) -> Result<Vec<ArrayRef>, ArrowError> {
    if let [array] = column
        && let Some(words) = array.as_dictionary_opt::<UInt16Type>()
        && words.values().as_string_opt::<i32>().is_some_and(|words| !words.is_empty() && words.value(0).is_empty())
        && words.values().len() <= MOST
    {
        return Ok(vec![with_short_keys(words.keys().values().clone(), words.values())?]);
    }
    let kind = || ArrowError::SchemaError("a column of words is neither texts nor a dictionary of them".to_owned());
    let texts: Vec<_> = column.iter().map(|array| Texts::of(array).ok_or_else(kind)).collect::<Result<_, _>>()?;
    let mut known = Known { words: vec![""], numbers: HashMap::from([("", 0)]) };
    let Some(numbers) = texts.iter().map(|texts| texts.numbers(&mut known)).collect::<Option<Vec<_>>>() else {
        let plain = |(texts, array): (&Texts<'_>, &&ArrayRef)| -> ArrayRef {
            Arc::new(StringArray::from_iter_values((0..array.len()).map(|row| texts.value(row))))
        };
        return Ok(texts.iter().zip(column).map(plain).collect());
    };
    let words: ArrayRef = Arc::new(StringArray::from_iter_values(known.words));
    numbers.into_iter().map(|numbers| with_short_keys(ScalarBuffer::from(numbers), &words)).collect()
}

fn with_short_keys(keys: ScalarBuffer<u16>, words: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if words.len() <= MOST_IN_A_BYTE {
        let keys = UInt8Array::from_iter_values(keys.iter().map(|key| *key as u8));
        return Ok(Arc::new(DictionaryArray::<UInt8Type>::try_new(keys, Arc::clone(words))?));
    }
    let keys = UInt16Array::new(keys, None);
    Ok(Arc::new(DictionaryArray::<UInt16Type>::try_new(keys, Arc::clone(words))?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn words(keys: &[u16], words: &[&str]) -> ArrayRef {
        let keys = UInt16Array::from(keys.to_vec());
        Arc::new(DictionaryArray::<UInt16Type>::new(keys, Arc::new(StringArray::from(words.to_vec()))))
    }

    fn symbols(keys: &[i32], symbols: &[&str]) -> ArrayRef {
        let keys = keys.iter().copied().collect();
        Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::new(StringArray::from(symbols.to_vec()))))
    }

    fn texts(texts: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(texts.to_vec()))
    }

    fn united(columns: &[ArrayRef]) -> Vec<ArrayRef> {
        let batch = |column: &ArrayRef| RecordBatch::try_from_iter([("service", Arc::clone(column))]).unwrap();
        let batches: Vec<_> = columns.iter().map(batch).collect();
        let united = unite(&batches).unwrap();
        assert!(united.iter().all(|batch| batch.schema() == united[0].schema()));
        united.iter().map(|batch| Arc::clone(batch.column(0))).collect()
    }

    /// The texts, whatever the keys are.
    fn read(array: &ArrayRef) -> Vec<String> {
        let Some(words) = array.as_any_dictionary_opt() else {
            return array.as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect();
        };
        let values = words.values().as_string::<i32>();
        assert_eq!(values.value(0), "");
        words.normalized_keys().into_iter().map(|key| values.value(key).to_owned()).collect()
    }

    #[test]
    fn all_batches_have_the_words_of_all() {
        let columns = [
            words(&[1, 2, 1, 0], &["", "a", "b"]),
            texts(&["c", "", "a"]),
            symbols(&[1, 0], &["d", "b"]),
            words(&[2, 0, 1], &["b", "d", "c"]),
        ];
        let united = united(&columns);
        let rows: Vec<_> = united.iter().map(read).collect();
        assert_eq!(rows, [vec!["a", "b", "a", ""], vec!["c", "", "a"], vec!["b", "d"], vec!["c", "b", "d"]]);
        let dictionaries: Vec<_> = united.iter().map(|array| array.as_any_dictionary().values()).collect();
        assert!(dictionaries.iter().all(|words| Arc::ptr_eq(words, dictionaries[0])));
        assert_eq!(read(dictionaries[0]), ["", "a", "b", "c", "d"]);
    }

    #[test]
    fn what_is_no_dictionary_in_any_batch_stays_as_it_is() {
        let columns = [texts(&["a", "b"]), texts(&["a"])];
        assert_eq!(united(&columns), columns);
    }

    #[test]
    fn keys_are_as_long_as_they_must_be_and_too_many_words_are_texts() {
        for count in [1, MOST_IN_A_BYTE, MOST_IN_A_BYTE + 1, MOST, MOST + 1] {
            let all: Vec<String> =
                (0..count).map(|n| if n == 0 { String::new() } else { format!("word {n}") }).collect();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let keys: Vec<u16> = (0..count).map(|n| u16::try_from(n).unwrap()).collect();
            let expected = match count {
                _ if count <= MOST_IN_A_BYTE => DataType::UInt8,
                _ if count <= MOST => DataType::UInt16,
                _ => DataType::Utf8,
            };
            for columns in
                [vec![words(&keys, &all)], vec![words(&keys, &all), texts(&all)], vec![texts(&all), words(&keys, &all)]]
            {
                for array in united(&columns) {
                    let of = array.as_any_dictionary_opt().map_or(array.data_type(), |words| words.keys().data_type());
                    assert_eq!(of, &expected, "{count} words");
                    assert_eq!(read(&array), all);
                }
            }
        }
    }
}
