//! A body as it is read: numbers and texts, checked.

use crate::guard::{Guard, ZERO_SIZE_ITEMS};

/// Short values are copied in one piece of this size, the rest of which is overwritten by what comes next: most fields are short, and a call to copy
/// so few bytes costs more than the bytes.
pub(super) const PIECE: usize = 16;

/// A text in a body.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) value: &'a [u8],
    /// Its first bytes and what follows behind it, where there is as much.
    pub(super) piece: Option<&'a [u8; PIECE]>,
}

impl Text<'_> {
    const EMPTY: Self = Self { value: &[], piece: Some(&[0; PIECE]) };

    /// Its first bytes as a number, and nothing behind its end.
    #[inline(always)]
    pub(super) fn head(&self) -> u128 {
        let len = self.value.len().min(PIECE);
        match self.piece {
            Some(piece) => u128::from_le_bytes(*piece) & u128::MAX.checked_shr(8 * (PIECE - len) as u32).unwrap_or(0),
            None => {
                let mut piece = [0; PIECE];
                piece[..len].copy_from_slice(&self.value[..len]);
                u128::from_le_bytes(piece)
            }
        }
    }

    /// Whether the bytes are UTF-8; nearly all are short and ASCII.
    #[inline(always)]
    fn is_utf8(&self) -> bool {
        const HIGH_BITS: u128 = u128::from_ne_bytes([0x80; PIECE]);
        match self.piece {
            Some(piece) if self.value.len() <= PIECE => {
                // Of a piece as a little-endian number the low bytes are the first ones.
                let unused = 8 * (PIECE - self.value.len()) as u32;
                let high = (u128::from_le_bytes(*piece) & HIGH_BITS).checked_shl(unused).unwrap_or(0);
                high == 0 || std::str::from_utf8(self.value).is_ok()
            }
            _ => self.value.is_ascii() || std::str::from_utf8(self.value).is_ok(),
        }
    }
}

/// Appends the first bytes of a piece.
#[inline(always)]
pub(super) fn append_piece<const N: usize>(piece: &[u8; N], len: usize, out: &mut Vec<u8>) {
    // Of fixed size this is one move; a call that copies so few bytes costs more than the bytes.
    let end = out.len() + len;
    out.extend_from_slice(piece);
    out.truncate(end);
}

/// What is left of a body.
pub(super) struct Input<'a> {
    rest: &'a [u8],
    /// Optional texts that are there but empty, in front of which so many bytes were left: null in the canonical body.
    empties: Vec<usize>,
    /// Items without bytes that may still come.
    zero_size_items: u64,
}

impl<'a> Input<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body, empties: Vec::new(), zero_size_items: ZERO_SIZE_ITEMS }
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn empties(&self) -> &[usize] {
        &self.empties
    }

    /// Passes over what a guard takes, inside of so many levels.
    pub(super) fn skip(&mut self, guard: &Guard, depth: u32) -> Option<()> {
        self.rest = guard.skip(self.rest, depth, &mut self.zero_size_items)?;
        Some(())
    }

    /// One byte, which must be this one.
    #[inline(always)]
    pub(super) fn branch(&mut self, branch: u8) -> Option<()> {
        if self.byte()? == branch { Some(()) } else { None }
    }

    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    /// A zigzag varint of at most ten bytes that fits 64 bits, and not longer than it must be.
    #[inline(always)]
    pub(super) fn long(&mut self) -> Option<i64> {
        let first = self.byte()?;
        let mut value = u64::from(first & 0x7f);
        if first >= 0x80 {
            let mut shift = 7;
            loop {
                let byte = self.byte()?;
                // The tenth byte has room for one bit.
                if shift == 63 && byte > 1 {
                    return None;
                }
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    if byte == 0 {
                        return None;
                    }
                    break;
                }
                shift += 7;
            }
        }
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// A string, which is UTF-8.
    #[inline(always)]
    pub(super) fn text(&mut self) -> Option<Text<'a>> {
        let len = usize::try_from(self.long()?).ok()?;
        let piece = self.rest.first_chunk();
        let (value, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        let text = Text { value, piece };
        // Not `Option::filter`: that is a call, and this is the hottest line of the worker.
        if text.is_utf8() { Some(text) } else { None }
    }

    /// A union of null and string; null is the empty text.
    #[inline(always)]
    pub(super) fn nullable(&mut self) -> Option<Text<'a>> {
        match self.byte()? {
            0 => Some(Text::EMPTY),
            2 => {
                let text = self.text()?;
                if text.value.is_empty() {
                    self.empties.push(self.rest.len() + 2);
                }
                Some(text)
            }
            _ => None,
        }
    }

    /// A union of string and null; null is the empty text.
    pub(super) fn null_last(&mut self) -> Option<Text<'a>> {
        match self.byte()? {
            0 => self.text(),
            2 => Some(Text::EMPTY),
            _ => None,
        }
    }

    /// A uuid's 36 characters, in small letters. Other spellings are for the long way to judge.
    #[inline]
    pub(super) fn uuid(&mut self) -> Option<&'a [u8]> {
        let text = self.text()?.value;
        if text.len() == 36 && !text.iter().fold(false, |any, byte| any | byte.is_ascii_uppercase()) {
            Some(text)
        } else {
            None
        }
    }
}
