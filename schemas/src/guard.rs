//! A strict walk over an encoded event before any decoder sees it.
//!
//! The decoders behind it trust their input more than an audit trail can: one accepts a union branch that is not there,
//! notices bad UTF-8 only when the whole batch is lost, and keeps half a row after an error. What passes here they
//! decode, each record by itself; what does not is poison, with the field and the byte where it went wrong.
//!
//! The walk never panics, allocates nothing for a good record, takes time linear in the record's length and bounded stack.
//! It is compiled once per writer schema (`compile.rs`).

use std::ops::RangeInclusive;

use crate::event::Timestamp;
use crate::framing::{Poison, PoisonCode};

/// Nesting beyond this is no honest event.
pub(crate) const MAX_DEPTH: u32 = 64;
/// A length or count above this is a bomb ([`PoisonCode::LengthOutOfRange`]); below it a record that is merely too
/// short for it was cut ([`PoisonCode::Truncated`]). No Kafka record of this system comes near it.
pub(crate) const PLAUSIBLE_LENGTH: i64 = 16 * 1024 * 1024;
/// Array items that take no bytes: so many in one record at the most, as the record's length does not bound them.
pub(crate) const ZERO_SIZE_ITEMS: u64 = 65_536;

/// The times a table row can hold, in microseconds.
const STORABLE: RangeInclusive<i64> = Timestamp::MIN_STORABLE.as_micros()..=Timestamp::MAX_STORABLE.as_micros();

/// A compiled writer schema.
#[derive(Debug, PartialEq)]
pub(crate) struct Guard {
    pub(crate) root: Box<[Step]>,
    /// Records that contain themselves, by number.
    pub(crate) named: Vec<Box<[Step]>>,
}

/// One value of the body, and its path relative to the enclosing array item or the root.
#[derive(Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) path: Box<str>,
}

/// How to walk one value. Records are laid flat into their parent's steps.
#[derive(Debug, PartialEq)]
pub(crate) enum Op {
    Null,
    Boolean,
    Int,
    Long,
    /// A long that must be a time the table can hold.
    Time,
    /// Float, double, fixed.
    Skip(usize),
    /// Bytes that nobody reads as text.
    Bytes,
    Text,
    RequiredText,
    Uuid,
    /// The union of null and string, the null branch's zigzag value first.
    OptionalText {
        null: u8,
    },
    /// For each symbol, whether the reader has a place for it.
    Enum(Box<[bool]>),
    Union(Box<[Branch]>),
    Array {
        items: Box<[Step]>,
        min_item_len: usize,
    },
    Map {
        values: Box<[Step]>,
    },
    Named(usize),
}

/// One branch of a union.
#[derive(Debug, PartialEq)]
pub(crate) enum Branch {
    /// The reader takes it.
    Read(Box<[Step]>),
    /// The reader has no place for it.
    Unreadable,
    /// It is null, but the reader's field is a required string.
    NullOfRequired,
}

/// What went wrong; boxed so that the good path moves one pointer.
#[derive(Debug)]
struct Fault {
    code: PoisonCode,
    what: String,
    path: String,
    /// Bytes left in the body when it went wrong.
    left: usize,
}

type Walk<T> = Result<T, Box<Fault>>;

impl Guard {
    /// Walks the whole body.
    pub(crate) fn check(&self, body: &[u8]) -> Result<(), Poison> {
        let mut cursor = Cursor { rest: body, zero_size_items: ZERO_SIZE_ITEMS, named: &self.named };
        let result = cursor.steps(&self.root, 0).and_then(|()| {
            if cursor.rest.is_empty() {
                Ok(())
            } else {
                Err(cursor.fault(PoisonCode::TrailingBytes, || {
                    format!("the event ends {} bytes before the record does", cursor.rest.len())
                }))
            }
        });
        result.map_err(|fault| {
            let at = body.len() - fault.left;
            let place = if fault.path.is_empty() { String::new() } else { format!("{}: ", fault.path) };
            let poison = Poison::new(fault.code, format!("{place}{} (byte {at} of the body)", fault.what));
            Poison { field: (!fault.path.is_empty()).then(|| fault.path.into()), ..poison }
        })
    }
}

impl Guard {
    /// What follows these values inside of so many levels, or `None` where [`Guard::check`] would find a fault.
    pub(crate) fn skip<'a>(&self, rest: &'a [u8], depth: u32, zero_size_items: &mut u64) -> Option<&'a [u8]> {
        let mut cursor = Cursor { rest, zero_size_items: *zero_size_items, named: &self.named };
        cursor.steps(&self.root, depth).ok()?;
        *zero_size_items = cursor.zero_size_items;
        let left = cursor.rest.len();
        rest.get(rest.len() - left..)
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
    zero_size_items: u64,
    named: &'a [Box<[Step]>],
}

impl<'a> Cursor<'a> {
    #[cold]
    fn fault(&self, code: PoisonCode, what: impl FnOnce() -> String) -> Box<Fault> {
        Box::new(Fault { code, what: what(), path: String::new(), left: self.rest.len() })
    }

    #[cold]
    fn ended(&self, within: &str) -> Box<Fault> {
        self.fault(PoisonCode::Truncated, || format!("the record ends within {within}"))
    }

    fn steps(&mut self, steps: &[Step], depth: u32) -> Walk<()> {
        for step in steps {
            if let Err(mut fault) = self.step(&step.op, depth) {
                fault.path = join(&step.path, &fault.path);
                return Err(fault);
            }
        }
        Ok(())
    }

    #[inline]
    fn step(&mut self, op: &Op, depth: u32) -> Walk<()> {
        match op {
            Op::OptionalText { null } => match self.rest {
                [tag, rest @ ..] if tag == null => {
                    self.rest = rest;
                    Ok(())
                }
                [tag, rest @ ..] if *tag == 2 - null => {
                    self.rest = rest;
                    self.text().map(drop)
                }
                _ => self.odd_optional(*null),
            },
            Op::Text => self.text().map(drop),
            Op::RequiredText => {
                if self.text()?.is_empty() {
                    return Err(self.fault(PoisonCode::MissingField, || "empty, but every event has it".to_owned()));
                }
                Ok(())
            }
            Op::Enum(readable) => self.symbol(readable),
            Op::Long => self.long().map(drop),
            Op::Time => {
                if !STORABLE.contains(&self.long()?) {
                    let what = || "a time outside of 1900-01-01 to 2299-12-31".to_owned();
                    return Err(self.fault(PoisonCode::TimeOutOfRange, what));
                }
                Ok(())
            }
            Op::Uuid => {
                if let [72, rest @ ..] = self.rest
                    && let Some((id, rest)) = rest.split_first_chunk()
                    && is_uuid(id)
                {
                    self.rest = rest;
                    return Ok(());
                }
                self.odd_uuid()
            }
            Op::Array { items, min_item_len } => {
                self.blocks(*min_item_len, depth, |cursor, depth| cursor.steps(items, depth))
            }
            Op::Map { values } => self.blocks(1, depth, |cursor, depth| {
                cursor.text()?;
                cursor.steps(values, depth)
            }),
            Op::Union(branches) => self.union(branches, depth),
            Op::Null => Ok(()),
            Op::Boolean => match self.take(1, "a boolean")? {
                [0 | 1] => Ok(()),
                _ => Err(self.fault(PoisonCode::BadVarint, || "a boolean that is neither 0 nor 1".to_owned())),
            },
            Op::Int => self.int().map(drop),
            Op::Skip(len) => self.take(*len, "a value of fixed length").map(drop),
            Op::Bytes => {
                let len = self.len("bytes")?;
                self.take(len, "bytes").map(drop)
            }
            Op::Named(number) => {
                let depth = self.deeper(depth)?;
                match self.named.get(*number) {
                    Some(steps) => self.steps(steps, depth),
                    None => Ok(()),
                }
            }
        }
    }

    /// Text that is not 36 bytes of a UUID after a length of one byte.
    #[cold]
    fn odd_uuid(&mut self) -> Walk<()> {
        match <&[u8; 36]>::try_from(self.text()?) {
            Ok(id) if is_uuid(id) => Ok(()),
            _ => Err(self.fault(PoisonCode::InvalidUuid, || "text that is no hyphenated UUID".to_owned())),
        }
    }

    /// A nullable string whose branch is not one of the two usual bytes: a cut, a padded number, or an error.
    #[cold]
    fn odd_optional(&mut self, null: u8) -> Walk<()> {
        match self.long()? {
            branch @ (0 | 1) if branch * 2 == i64::from(null) => Ok(()),
            0 | 1 => self.text().map(drop),
            branch => Err(self.bad_branch(branch, 2)),
        }
    }

    #[cold]
    fn bad_branch(&self, branch: i64, branches: usize) -> Box<Fault> {
        self.fault(PoisonCode::BadUnionBranch, || format!("union branch {branch} of {branches}"))
    }

    fn union(&mut self, branches: &[Branch], depth: u32) -> Walk<()> {
        let number = self.long()?;
        let branch = usize::try_from(number).ok().and_then(|n| branches.get(n));
        match branch {
            Some(Branch::Read(steps)) => {
                let depth = self.deeper(depth)?;
                self.steps(steps, depth)
            }
            Some(Branch::NullOfRequired) => {
                Err(self.fault(PoisonCode::MissingField, || "null, but every event has it".to_owned()))
            }
            Some(Branch::Unreadable) => {
                let what = || format!("union branch {number} has no counterpart in the reader schema");
                Err(self.fault(PoisonCode::BadUnionBranch, what))
            }
            None => Err(self.bad_branch(number, branches.len())),
        }
    }

    fn symbol(&mut self, readable: &[bool]) -> Walk<()> {
        let number = self.int()?;
        match usize::try_from(number).ok().and_then(|n| readable.get(n)) {
            Some(true) => Ok(()),
            Some(false) => {
                let what =
                    || format!("enum symbol {number} is unknown to the reader schema, which has no default for it");
                Err(self.fault(PoisonCode::BadEnumSymbol, what))
            }
            None => {
                Err(self.fault(PoisonCode::BadEnumSymbol, || format!("enum symbol {number} of {}", readable.len())))
            }
        }
    }

    /// Arrays and maps: blocks of items, a negative count followed by the block's length in bytes, ended by a zero.
    fn blocks(
        &mut self,
        min_item_len: usize,
        depth: u32,
        mut item: impl FnMut(&mut Self, u32) -> Walk<()>,
    ) -> Walk<()> {
        if let [0, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(());
        }
        let depth = self.deeper(depth)?;
        let mut index = 0_u64;
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            let block_len = if count < 0 { Some(self.len("a block")?) } else { None };
            let count = self.count(count, min_item_len)?;
            let before = self.rest.len();
            if min_item_len > 0 {
                for _ in 0..count {
                    if let Err(mut fault) = item(self, depth) {
                        fault.path = join(&format!("[{index}]"), &fault.path);
                        return Err(fault);
                    }
                    index += 1;
                }
            }
            let took = before - self.rest.len();
            if let Some(len) = block_len.filter(|len| *len != took) {
                let what = || format!("a block that says {len} bytes has {took}");
                return Err(self.fault(PoisonCode::LengthOutOfRange, what));
            }
        }
    }

    /// The number of items in a block, once it is proven that they can be there.
    fn count(&mut self, count: i64, min_item_len: usize) -> Walk<u64> {
        let items = count.unsigned_abs();
        if min_item_len == 0 {
            return match self.zero_size_items.checked_sub(items) {
                Some(left) => {
                    self.zero_size_items = left;
                    Ok(items)
                }
                None => Err(self.fault(PoisonCode::LengthOutOfRange, || format!("{items} items without bytes"))),
            };
        }
        let fits = self.rest.len() / min_item_len;
        if items > fits as u64 {
            let code =
                if items > PLAUSIBLE_LENGTH as u64 { PoisonCode::LengthOutOfRange } else { PoisonCode::Truncated };
            return Err(self.fault(code, || format!("{items} items, but bytes for at most {fits}")));
        }
        Ok(items)
    }

    fn deeper(&self, depth: u32) -> Walk<u32> {
        if depth >= MAX_DEPTH {
            return Err(self.fault(PoisonCode::TooDeep, || format!("more than {MAX_DEPTH} levels of nesting")));
        }
        Ok(depth + 1)
    }

    /// A string. Most are short, on one length byte, ASCII, and not at the record's end: one load tells.
    #[inline]
    fn text(&mut self) -> Walk<&'a [u8]> {
        if let Some(head) = self.rest.first_chunk::<16>() {
            let len = usize::from(head[0]);
            // An even length byte below 32: up to 15 bytes follow it.
            if len & 0xe1 == 0 {
                let bits = u128::from_le_bytes(*head);
                let wanted = (HIGH_BITS >> 8) & ((1_u128 << (4 * len)) - 1);
                if (bits >> 8) & wanted == 0 {
                    let (text, rest) = self.rest[1..].split_at(len / 2);
                    self.rest = rest;
                    return Ok(text);
                }
            }
        }
        self.any_text()
    }

    fn any_text(&mut self) -> Walk<&'a [u8]> {
        let len = self.len("a string")?;
        let bytes = self.take(len, "a string")?;
        if !is_utf8(bytes) {
            return Err(self.fault(PoisonCode::InvalidUtf8, || "a string that is not UTF-8".to_owned()));
        }
        Ok(bytes)
    }

    #[inline]
    fn take(&mut self, len: usize, what: &str) -> Walk<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(self.ended(what)),
        }
    }

    /// A length that what is left of the record can hold.
    #[inline]
    fn len(&mut self, what: &str) -> Walk<usize> {
        let len = self.long()?;
        match usize::try_from(len) {
            Ok(len) if len <= self.rest.len() => Ok(len),
            _ => Err(self.bad_len(len, what)),
        }
    }

    #[cold]
    fn bad_len(&self, len: i64, what: &str) -> Box<Fault> {
        let plausible = (0..=PLAUSIBLE_LENGTH).contains(&len);
        let code = if plausible { PoisonCode::Truncated } else { PoisonCode::LengthOutOfRange };
        self.fault(code, || format!("{what} of {len} bytes, but only {} are left", self.rest.len()))
    }

    /// A zigzag varint of at most 10 bytes that fits 64 bits.
    #[inline]
    fn long(&mut self) -> Walk<i64> {
        if let [first, rest @ ..] = self.rest
            && *first < 0x80
        {
            self.rest = rest;
            let n = i64::from(*first);
            return Ok((n >> 1) ^ -(n & 1));
        }
        self.long_slow()
    }

    fn long_slow(&mut self) -> Walk<i64> {
        let mut n = 0_u64;
        for (i, byte) in self.rest.iter().take(10).enumerate() {
            n |= u64::from(byte & 0x7f) << (7 * i);
            if *byte < 0x80 {
                if i == 9 && *byte > 1 {
                    break;
                }
                self.rest = &self.rest[i + 1..];
                return Ok((n >> 1) as i64 ^ -((n & 1) as i64));
            }
        }
        if self.rest.len() < 10 {
            return Err(self.ended("a number"));
        }
        Err(self.fault(PoisonCode::BadVarint, || "a number of more than 64 bits".to_owned()))
    }

    /// A zigzag varint of at most 5 bytes that fits 32 bits.
    #[inline]
    fn int(&mut self) -> Walk<i32> {
        let before = self.rest.len();
        let n = self.long()?;
        match i32::try_from(n) {
            Ok(n) if before - self.rest.len() <= 5 => Ok(n),
            _ => Err(self.fault(PoisonCode::BadVarint, || "a number of more than 32 bits".to_owned())),
        }
    }
}

#[inline]
fn is_utf8(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

/// The bit that no ASCII byte has.
const HIGH_BITS: u128 = u128::from_le_bytes([0x80; 16]);

/// Hexadecimal digits of either case in groups of 8-4-4-4-12.
#[inline]
fn is_uuid(text: &[u8; 36]) -> bool {
    let dashes = [text[8], text[13], text[18], text[23]] == *b"----";
    let mut digits = [0; 32];
    for (to, from) in [(0, 0), (8, 9), (12, 14), (16, 19), (20, 24)] {
        let len = if to == 0 {
            8
        } else if to == 20 {
            12
        } else {
            4
        };
        digits[to..to + len].copy_from_slice(&text[from..from + len]);
    }
    // No early end: the compiler makes vector code of it.
    let hexadecimal =
        digits.iter().fold(true, |good, b| good & (b.is_ascii_digit() | (b'a'..=b'f').contains(&(b | 0x20))));
    dashes & hexadecimal
}

/// `a` and `b`, `a` and `[3].b`: a dot between names.
fn join(outer: &str, inner: &str) -> String {
    let dot = if outer.is_empty() || inner.is_empty() || inner.starts_with('[') { "" } else { "." };
    format!("{outer}{dot}{inner}")
}
