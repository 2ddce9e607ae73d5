//! One event in the spill, as bytes that prove themselves: a mark, a length and a checksum in front of a finished record.
//!
//! ```text
//! mark (4) │ length (4) │ CRC-32 of the rest (4) │ number (8) │ id (16) │ key │ source │ time │ traceparent │ payload
//! ```
//! Numbers are little-endian; a text has its length in front, 4 bytes. Entries stand one behind the other in a chunk, which is one row's value.
//! The mark is what lets a reader go on behind a damaged one, and find entries in a file that SQLite can no longer read.

use uuid::Uuid;

/// Rare in text and in Avro: two of the bytes are never in UTF-8.
pub(crate) const MARK: [u8; 4] = [0xf7, b'a', 0xfe, b's'];
/// Mark, length and checksum.
pub(crate) const HEAD: usize = 12;
/// Longest rest: what SQLite takes as one value, with room to spare.
const LONGEST: usize = 900_000_000;

/// A finished record, ready for Kafka in this or another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The place in the order of everything this spill ever held.
    pub(crate) number: i64,
    pub(crate) id: Uuid,
    pub(crate) key: String,
    /// `ce_source` and `ce_time`.
    pub(crate) source: String,
    pub(crate) time: String,
    pub(crate) traceparent: Option<String>,
    /// The framed Avro record.
    pub(crate) payload: Vec<u8>,
}

/// The parts of a record, wherever they stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) number: i64,
    pub(crate) id: Uuid,
    pub(crate) key: &'a [u8],
    pub(crate) source: &'a [u8],
    pub(crate) time: &'a [u8],
    pub(crate) traceparent: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl Record {
    /// As [`append`] takes them.
    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts {
            number: self.number,
            id: self.id,
            key: self.key.as_bytes(),
            source: self.source.as_bytes(),
            time: self.time.as_bytes(),
            traceparent: self.traceparent.as_deref().unwrap_or_default().as_bytes(),
            payload: &self.payload,
        }
    }
}

/// Appends an entry to a chunk.
pub(crate) fn append(chunk: &mut Vec<u8>, parts: Parts<'_>) {
    let begin = chunk.len();
    chunk.extend_from_slice(&MARK);
    chunk.extend_from_slice(&[0; HEAD - MARK.len()]);
    chunk.extend_from_slice(&parts.number.to_le_bytes());
    chunk.extend_from_slice(parts.id.as_bytes());
    for text in [parts.key, parts.source, parts.time, parts.traceparent, parts.payload] {
        // A message is below 1 GB: the producer's settings see to it.
        chunk.extend_from_slice(&(text.len() as u32).to_le_bytes());
        chunk.extend_from_slice(text);
    }
    let rest = begin + HEAD;
    let length = (chunk.len() - rest) as u32;
    let checksum = crc32fast::hash(&chunk[rest..]);
    chunk[begin + 4..begin + 8].copy_from_slice(&length.to_le_bytes());
    chunk[begin + 8..rest].copy_from_slice(&checksum.to_le_bytes());
}

/// Entries of a chunk in their order. What is no entry is stepped over, to the next mark that begins one.
pub(crate) struct Entries<'a> {
    chunk: &'a [u8],
    at: usize,
}

impl<'a> Entries<'a> {
    pub(crate) fn of(chunk: &'a [u8]) -> Self {
        Self { chunk, at: 0 }
    }
}

impl Iterator for Entries<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            let rest = self.chunk.get(self.at..)?;
            let begin = self.at + find(rest)?;
            if let Some((record, length)) = whole(&self.chunk[begin..]) {
                self.at = begin + length;
                return Some(record);
            }
            self.at = begin + 1;
        }
    }
}

/// Where the next mark is.
pub(crate) fn find(bytes: &[u8]) -> Option<usize> {
    bytes.windows(MARK.len()).position(|four| four == MARK)
}

/// How many bytes the entry that begins here says it takes; `None` when it can't be one.
pub(crate) fn length(head: &[u8]) -> Option<usize> {
    let head = head.first_chunk::<HEAD>()?;
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    (head[..4] == MARK && length <= LONGEST).then_some(HEAD + length)
}

/// The entry that begins here, and its length, when it is whole and its checksum right.
pub(crate) fn whole(bytes: &[u8]) -> Option<(Record, usize)> {
    let length = length(bytes)?;
    let rest = bytes.get(HEAD..length)?;
    let checksum = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if crc32fast::hash(rest) != checksum {
        return None;
    }
    let mut reader = Reader(rest);
    let number = i64::from_le_bytes(*reader.take::<8>()?);
    let id = Uuid::from_bytes(*reader.take::<16>()?);
    let (key, source, time, traceparent) = (reader.text()?, reader.text()?, reader.text()?, reader.text()?);
    let payload = reader.bytes()?.to_vec();
    let traceparent = (!traceparent.is_empty()).then_some(traceparent);
    Some((Record { number, id, key, source, time, traceparent, payload }, length))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(head)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(*self.take::<4>()?) as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        Some(String::from_utf8_lossy(self.bytes()?).into_owned())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    pub(crate) fn record(number: i64) -> Record {
        Record {
            number,
            id: Uuid::from_u128(number as u128),
            key: format!("acme/order/{number}"),
            source: "/default/shop".to_owned(),
            time: "2026-11-21T10:00:00Z".to_owned(),
            traceparent: (number % 2 == 0).then(|| "00-a-b-01".to_owned()),
            payload: vec![number as u8; 200 + (number % 50) as usize],
        }
    }

    fn chunk(numbers: std::ops::Range<i64>) -> Vec<u8> {
        let mut chunk = Vec::new();
        numbers.for_each(|number| append(&mut chunk, record(number).parts()));
        chunk
    }

    #[test]
    fn what_goes_in_comes_out() {
        let found: Vec<Record> = Entries::of(&chunk(0..20)).collect();
        assert_eq!(found, (0..20).map(record).collect::<Vec<_>>());
        assert_eq!(Entries::of(&[]).count(), 0);
    }

    #[test]
    fn damage_anywhere_costs_one_entry() {
        let good = chunk(0..5);
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 0x41;
            let found: Vec<i64> = Entries::of(&bad).map(|record| record.number).collect();
            assert_eq!(found.len(), 4, "byte {place}: {found:?}");
            assert!(found.is_sorted());
        }
    }

    #[test]
    fn a_torn_chunk_gives_its_beginning() {
        let good = chunk(0..5);
        for cut in 0..good.len() {
            let found: Vec<Record> = Entries::of(&good[..cut]).collect();
            assert!(found.len() < 5 && found.iter().enumerate().all(|(index, found)| *found == record(index as i64)));
        }
    }
}
