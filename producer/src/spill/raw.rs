//! Reading events out of a damaged SQLite file, page by page, with nothing but the file format
//! (<https://www.sqlite.org/fileformat2.html>): table leaves and the overflow pages behind them, wherever they are.
//!
//! Two ways, together: cells of leaf pages give whole chunks, with their overflow chains; and every page is searched for entries, so that a chunk whose
//! leaf is lost still gives what stands on its overflow pages. An entry counts only when its checksum is right, so nothing here has to be
//! trusted. Pages that were freed may hold events that were sent before: those that the mark says were sent are left out.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::SpillError;
use super::entry::{self, Entries, HEAD, Record};
use super::file::Chunk;

/// Bytes of a page: set when the file is made, SQLite's own default.
pub(crate) const PAGE: usize = 4096;
const TABLE_LEAF: u8 = 0x0d;
/// Overflow pages that one value may have; more is damage.
const LONGEST_CHAIN: usize = 250_000;

/// A file to be searched.
pub(crate) struct Scan {
    file: File,
    pages: u32,
}

/// A cell of our table.
struct Cell {
    events: i64,
    total: i64,
    upto: i64,
    body: Vec<u8>,
}

impl Scan {
    pub(crate) fn of(path: &Path) -> Result<Self, SpillError> {
        let fail = |error| SpillError::io("can't read", path, error);
        let file = File::open(path).map_err(fail)?;
        let length = file.metadata().map_err(fail)?.len();
        Ok(Self { file, pages: u32::try_from(length.div_ceil(PAGE as u64)).unwrap_or(u32::MAX) })
    }

    /// Gives every run of entries that is found to `take`, once. Answers how many events the file says it held, as far as its account can be read.
    pub(crate) fn read(&self, take: &mut dyn FnMut(Chunk) -> Result<(), SpillError>) -> Result<u64, SpillError> {
        let (mut sent, mut removed, mut appended) = (0, 0, 0);
        self.each_cell(&mut |cell| {
            if cell.events == 0 {
                (sent, removed) = (sent.max(cell.upto), removed.max(cell.total));
                let total = cell.body.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
                appended = appended.max(total);
            } else {
                appended = appended.max(cell.total);
            }
            Ok(())
        })?;
        let mut seen = HashSet::new();
        let mut give = |records: Vec<Record>| {
            let fresh: Vec<Record> =
                records.into_iter().filter(|record| record.number > sent && seen.insert(record.number)).collect();
            match chunk_of(&fresh) {
                Some(chunk) => take(chunk),
                None => Ok(()),
            }
        };
        self.each_cell(&mut |cell| give(Entries::of(&cell.body).collect()))?;
        for number in 1..=self.pages {
            give(self.search(number))?;
        }
        Ok((appended - removed).max(0) as u64)
    }

    fn page(&self, number: u32) -> Option<Vec<u8>> {
        if !(1..=self.pages).contains(&number) {
            return None;
        }
        let mut page = vec![0; PAGE];
        let mut filled = 0;
        // The last page may be cut short.
        while filled < PAGE {
            match self.file.read_at(&mut page[filled..], u64::from(number - 1) * PAGE as u64 + filled as u64) {
                Ok(0) | Err(_) => break,
                Ok(read) => filled += read,
            }
        }
        Some(page)
    }

    /// Every cell that looks like a row of ours.
    fn each_cell(&self, take: &mut dyn FnMut(Cell) -> Result<(), SpillError>) -> Result<(), SpillError> {
        for number in 1..=self.pages {
            let Some(page) = self.page(number) else { continue };
            let header = if number == 1 { 100 } else { 0 };
            if page[header] != TABLE_LEAF {
                continue;
            }
            let cells = usize::from(u16::from_be_bytes([page[header + 3], page[header + 4]]));
            let pointers = page[header + 8..].chunks_exact(2).take(cells);
            for pointer in pointers {
                let at = usize::from(u16::from_be_bytes([pointer[0], pointer[1]]));
                if let Some(cell) = self.cell(&page, at) {
                    take(cell)?;
                }
            }
        }
        Ok(())
    }

    fn cell(&self, page: &[u8], at: usize) -> Option<Cell> {
        let mut at = at;
        let length = usize::try_from(varint(page, &mut at)?).ok()?;
        varint(page, &mut at)?;
        // How much of a value stands in the leaf: the format's own formula, with no reserved bytes in a page.
        let (most, least) = (PAGE - 35, (PAGE - 12) * 32 / 255 - 23);
        let mut local = length;
        if length > most {
            local = least + (length - least) % (PAGE - 4);
            local = if local <= most { local } else { least };
        }
        let mut value = page.get(at..at + local)?.to_vec();
        if length > local {
            let next = page.get(at + local..at + local + 4)?;
            let next = u32::from_be_bytes([next[0], next[1], next[2], next[3]]);
            self.follow(next, length, &mut value);
        }
        let mut at = 0;
        let header = usize::try_from(varint(&value, &mut at)?).ok()?;
        let mut columns = header;
        let mut whole = [0_i64; 4];
        for number in &mut whole {
            let kind = varint(&value, &mut at)?;
            *number = integer(&value, kind, &mut columns)?;
        }
        let kind = varint(&value, &mut at)?;
        let is_blob = kind >= 12 && kind % 2 == 0;
        let [_, events, total, upto] = whole;
        (is_blob && at == header && events >= 0).then(|| Cell {
            events,
            total,
            upto,
            body: value.get(columns..).unwrap_or_default().to_vec(),
        })
    }

    /// Appends overflow pages until `value` has `length` bytes or the chain breaks.
    fn follow(&self, first: u32, length: usize, value: &mut Vec<u8>) {
        let mut next = first;
        for _ in 0..LONGEST_CHAIN {
            if value.len() >= length {
                return;
            }
            let Some(page) = self.page(next) else { return };
            next = u32::from_be_bytes([page[0], page[1], page[2], page[3]]);
            value.extend_from_slice(&page[4..PAGE.min(4 + length - value.len())]);
        }
    }

    /// Entries that begin on this page, as if it were an overflow page.
    fn search(&self, number: u32) -> Vec<Record> {
        let mut found = Vec::new();
        let Some(page) = self.page(number) else { return found };
        let next = u32::from_be_bytes([page[0], page[1], page[2], page[3]]);
        let mut at = 4;
        while let Some(step) = page.get(at..).and_then(entry::find) {
            at += step;
            let mut bytes = page[at..].to_vec();
            if bytes.len() < HEAD {
                self.follow(next, HEAD, &mut bytes);
            }
            let Some(length) = entry::length(&bytes) else {
                at += 1;
                continue;
            };
            if bytes.len() < length {
                self.follow_on(next, page.len() - at, length, &mut bytes);
            }
            match entry::whole(&bytes) {
                Some((record, length)) => {
                    found.push(record);
                    at += length;
                }
                None => at += 1,
            }
        }
        found
    }

    /// As [`Scan::follow`], anew from the end of the first page.
    fn follow_on(&self, next: u32, on_page: usize, length: usize, bytes: &mut Vec<u8>) {
        bytes.truncate(on_page);
        self.follow(next, length, bytes);
    }
}

fn chunk_of(records: &[Record]) -> Option<Chunk> {
    let (first, last) = (records.first()?, records.last()?);
    let mut chunk = Chunk { number: first.number, last: last.number, events: records.len() as u64, body: Vec::new() };
    for record in records {
        entry::append(&mut chunk.body, record.parts());
    }
    Some(chunk)
}

/// SQLite's variable-length integer: seven bits a byte, the ninth whole.
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..9 {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if place == 8 {
            return Some((value << 8) | u64::from(byte));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// An integer column (or NULL, as the row's number is stored) of this serial type.
fn integer(bytes: &[u8], kind: u64, at: &mut usize) -> Option<i64> {
    let length = match kind {
        0 | 8 => return Some(0),
        9 => return Some(1),
        1..=4 => kind as usize,
        5 => 6,
        6 => 8,
        _ => return None,
    };
    let bytes = bytes.get(*at..*at + length)?;
    *at += length;
    let sign = if bytes[0] & 0x80 != 0 { -1_i64 } else { 0 };
    Some(bytes.iter().fold(sign, |value, byte| (value << 8) | i64::from(*byte)))
}
