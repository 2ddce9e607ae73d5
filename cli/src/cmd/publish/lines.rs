//! Lines of a file or pipe, numbered, in chunks: a full one from a file, whatever there is from a slow pipe.

use std::io::{self, BufRead, BufReader, Read};

/// Longest line that is taken, in bytes. The largest event is below a quarter of this as JSON.
const MAX_LINE: usize = 8 * 1024 * 1024;
/// Lines of a chunk.
const CHUNK: usize = 512;

/// One line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    /// `None`: longer than [`MAX_LINE`]; it was skipped.
    pub(super) text: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) lines: Vec<Line>,
    /// Bytes that were read for it.
    pub(super) bytes: u64,
}

pub(super) struct Lines {
    input: BufReader<Box<dyn Read + Send>>,
    number: u64,
}

impl Lines {
    pub(super) fn new(input: Box<dyn Read + Send>) -> Lines {
        Lines { input: BufReader::with_capacity(256 * 1024, input), number: 0 }
    }

    /// The next chunk; `None` at the end. Blocks for the first line only.
    pub(super) fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        let mut chunk = Chunk::default();
        while chunk.lines.len() < CHUNK {
            let mut text = Vec::new();
            let mut read = self.input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut text)? as u64;
            if read == 0 {
                break;
            }
            self.number += 1;
            if text.last() == Some(&b'\n') {
                text.pop();
            }
            if text.last() == Some(&b'\r') {
                text.pop();
            }
            let fits = text.len() <= MAX_LINE;
            if !fits {
                read += self.input.skip_until(b'\n')? as u64;
            }
            chunk.bytes += read;
            chunk.lines.push(Line { number: self.number, text: fits.then_some(text) });
            if self.input.buffer().is_empty() {
                break;
            }
        }
        Ok((!chunk.lines.is_empty()).then_some(chunk))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn all(input: &[u8]) -> Vec<(u64, Option<String>)> {
        let mut lines = Lines::new(Box::new(io::Cursor::new(input.to_vec())));
        let mut found = Vec::new();
        while let Some(chunk) = lines.next_chunk().unwrap() {
            found.extend(chunk.lines.into_iter().map(|l| (l.number, l.text.map(|t| String::from_utf8(t).unwrap()))));
        }
        found
    }

    #[test]
    fn ends_of_lines_are_cut_and_the_last_needs_none() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(all(b"a\r\n\nbc"), [(1, text("a")), (2, text("")), (3, text("bc"))]);
        assert_eq!(all(b""), []);
    }

    #[test]
    fn a_line_that_never_ends_is_skipped() {
        let mut input = vec![b'x'; MAX_LINE + 10];
        input.extend(b"\nok\n");
        assert_eq!(all(&input), [(1, None), (2, Some("ok".to_owned()))]);
    }

    #[test]
    fn many_lines_come_in_chunks() {
        let input: Vec<u8> = (0..2000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let found = all(&input);
        assert_eq!(found.len(), 2000);
        assert_eq!(found[1999], (2000, Some("1999".to_owned())));
    }
}
