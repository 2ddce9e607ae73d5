//! The content hash of a row on the straight way: over its canonical body, which `crate::hash` defines.
//!
//! A record whose content stands in one piece, as v1 has it, is hashed as it came. Otherwise its canonical body is put together of the pieces that are
//! canonical, of defaults, and of what the row's columns hold where the writer's bytes are others.

use std::mem;

use super::columns::Columns;
use super::input::{PIECE, append_piece};
use super::steps::{CHANGE_PATH, Piece, Plan};
use crate::encode::{bytes, long};
use crate::hash::{digest, optional};
use crate::sha::digest_two;

/// The longest piece of a body that is copied in moves of fixed size, where so much of the body follows.
const LONG_PIECE: usize = 4 * PIECE;

impl Columns {
    /// Hashes the row that was just appended, together with the next one. `marks`: how many bytes of the body were left before each step, and behind the
    /// last. In front of each of `empties` so many were left: there is an optional text that is empty.
    #[inline]
    pub(super) fn hash_content(&mut self, body: &[u8], plan: &Plan, marks: &[usize], empties: &[usize]) {
        let read = Read { body, marks, empties };
        if let [Piece::Body { from, to }] = &*plan.pieces
            && empties.is_empty()
            && self.later.is_empty()
        {
            let canonical = &body[read.at(*from)..read.at(*to)];
            if self.waiting.is_empty() {
                self.waiting.extend_from_slice(canonical);
            } else {
                self.content_hashes.extend_from_slice(digest_two([&self.waiting, canonical]).as_flattened());
                self.waiting.clear();
            }
            return;
        }
        let mut canonical = mem::take(&mut self.canonical);
        for piece in &plan.pieces {
            self.write(piece, &read, &mut canonical);
        }
        for (number, texts) in (1..).zip(&self.later) {
            let value = texts.value(self.rows);
            if !value.is_empty() {
                long(number, &mut canonical);
                bytes(value, &mut canonical);
            }
        }
        if self.waiting.is_empty() {
            mem::swap(&mut self.waiting, &mut canonical);
        } else {
            self.content_hashes.extend_from_slice(digest_two([&self.waiting, &canonical]).as_flattened());
            self.waiting.clear();
            canonical.clear();
        }
        self.canonical = canonical;
    }

    /// Hashes the last row, if it still waits for another one.
    pub(super) fn hash_last(&mut self) {
        if !self.waiting.is_empty() {
            self.content_hashes.extend_from_slice(&digest([&self.waiting[..]]));
            self.waiting.clear();
        }
    }

    #[inline]
    fn write(&self, piece: &Piece, read: &Read<'_>, out: &mut Vec<u8>) {
        let row = self.rows;
        match piece {
            Piece::Body { from, to } => {
                let (from, to) = (read.at(*from), read.at(*to));
                if read.empties.is_empty() {
                    read.copy(from, to, out)
                } else {
                    read.copy_without_empties(from, to, out)
                }
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

/// A body that was read.
struct Read<'a> {
    body: &'a [u8],
    marks: &'a [usize],
    empties: &'a [usize],
}

impl Read<'_> {
    /// Where a step began in the body.
    #[inline(always)]
    fn at(&self, step: usize) -> usize {
        self.body.len().saturating_sub(self.marks.get(step).copied().unwrap_or(0))
    }

    #[inline(always)]
    fn copy(&self, from: usize, to: usize, out: &mut Vec<u8>) {
        let (rest, len) = (&self.body[from..], to - from);
        match (rest.first_chunk::<PIECE>(), rest.first_chunk::<LONG_PIECE>()) {
            (Some(piece), _) if len <= PIECE => append_piece(piece, len, out),
            (_, Some(piece)) if len <= LONG_PIECE => append_piece(piece, len, out),
            _ => out.extend_from_slice(&rest[..len]),
        }
    }

    /// With null instead of a branch and a length of nothing.
    #[cold]
    fn copy_without_empties(&self, begin: usize, to: usize, out: &mut Vec<u8>) {
        let mut from = begin;
        for empty in self.empties.iter().map(|left| self.body.len() - left).filter(|at| (begin..to).contains(at)) {
            out.extend_from_slice(&self.body[from..empty]);
            out.push(0);
            from = empty + 2;
        }
        out.extend_from_slice(&self.body[from..to]);
    }
}
