//! A serde value as JSON text, bounded in depth and length while it is being written.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::{DiffError, Side};
use crate::json::MAX_DEPTH;

/// The compact text that `serde_json` writes.
pub(super) fn to_text<T: Serialize + ?Sized>(value: &T, side: Side, max_bytes: usize) -> Result<String, DiffError> {
    let mut out = Bounded { text: Vec::new(), max_bytes, full: false };
    let mut levels = Levels { depth: 0, deep: false };
    let result = value.serialize(&mut Serializer::with_formatter(&mut out, Watched(&mut levels)));
    match result {
        Ok(()) => String::from_utf8(out.text).map_err(|_| DiffError::NotJson(side)),
        Err(_) if levels.deep => Err(DiffError::TooDeep(side)),
        Err(_) if out.full => Err(DiffError::TooLong(side, max_bytes)),
        // The error's text may be the type's own and quote the value.
        Err(_) => Err(DiffError::NotJson(side)),
    }
}

struct Bounded {
    text: Vec<u8>,
    max_bytes: usize,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > self.max_bytes {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Levels {
    depth: usize,
    deep: bool,
}

/// The compact form, with the levels counted: serde_json itself would go down until the stack ends.
struct Watched<'a>(&'a mut Levels);

impl Watched<'_> {
    fn enter(&mut self) -> io::Result<()> {
        self.0.depth += 1;
        if self.0.depth > MAX_DEPTH {
            self.0.deep = true;
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }
}

impl Formatter for Watched<'_> {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter()?;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.depth -= 1;
        writer.write_all(b"]")
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter()?;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.depth -= 1;
        writer.write_all(b"}")
    }
}
