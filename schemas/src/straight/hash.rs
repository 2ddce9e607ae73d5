//! The content hash of a row on the straight way: over its canonical body, which `crate::hash` defines.
//!
//! A record whose content stands in one piece, as v1 has it, is hashed as it came. Otherwise its canonical body is put together of the pieces that are
//! canonical, of defaults, and of what the row's columns hold where the writer's bytes are others.

use std::mem;

use super::columns::Columns;
use super::steps::{CHANGE_PATH, Piece, Plan};
use crate::encode::{bytes, long};
use crate::hash::{HASH_BYTES, digest, optional};

impl Columns {
    /// Of the row that was just appended. In front of each of `empties` so many bytes of the body were left: there is an optional text that is empty.
    #[inline]
    pub(super) fn content_hash(&mut self, body: &[u8], plan: &Plan, empties: &[usize]) -> [u8; HASH_BYTES] {
        if let [Piece::Body { from, to }] = &*plan.pieces
            && empties.is_empty()
            && self.later.is_empty()
        {
            return digest([&body[self.at(body, *from)..self.at(body, *to)]]);
        }
        let mut canonical = mem::take(&mut self.canonical);
        canonical.clear();
        for piece in &plan.pieces {
            self.write(piece, body, empties, &mut canonical);
        }
        for (number, texts) in (1..).zip(&self.later) {
            let value = texts.value(self.rows);
            if !value.is_empty() {
                long(number, &mut canonical);
                bytes(value, &mut canonical);
            }
        }
        let hash = digest([&canonical[..]]);
        self.canonical = canonical;
        hash
    }

    /// Where a mark was set in the body.
    fn at(&self, body: &[u8], mark: usize) -> usize {
        body.len().saturating_sub(self.marks.get(mark).copied().unwrap_or(0))
    }

    fn write(&self, piece: &Piece, body: &[u8], empties: &[usize], out: &mut Vec<u8>) {
        let row = self.rows;
        match piece {
            Piece::Body { from, to } => {
                let (begin, to) = (self.at(body, *from), self.at(body, *to));
                let mut from = begin;
                for empty in empties.iter().map(|left| body.len() - left).filter(|at| (begin..to).contains(at)) {
                    out.extend_from_slice(&body[from..empty]);
                    // Null instead of a branch and a length of nothing.
                    out.push(0);
                    from = empty + 2;
                }
                out.extend_from_slice(&body[from..to]);
            }
            Piece::Fixed(fixed) => out.extend_from_slice(fixed),
            Piece::Optional(column) => optional(self.texts[*column].value(row), out),
            Piece::Symbol(column) => long(self.symbols[*column].key(row).into(), out),
            Piece::Changes => {
                let items = self.changes.range(row);
                if !items.is_empty() {
                    long(items.len() as i64, out);
                }
                for item in items {
                    let [path, old, new] = [0, 1, 2].map(|text| self.texts[CHANGE_PATH + text].value(item));
                    bytes(path, out);
                    optional(old, out);
                    optional(new, out);
                }
                out.push(0);
            }
        }
    }
}
