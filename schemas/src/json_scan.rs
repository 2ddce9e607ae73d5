//! Whether a text is JSON (RFC 8259), in one pass over its bytes: this runs on the thread of whoever records an event.
//!
//! Promise: the answer is serde_json's for every text; the tests compare. No recursion and no memory, whatever the text.

use serde::de::IgnoredAny;

/// Nesting that is followed here; what is deeper goes to serde_json. One bit a level.
const LEVELS: u32 = u64::BITS;

/// Bytes that end a run of plain ones inside a string: the quote, the backslash, control characters.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        special[byte] = true;
        byte += 1;
    }
    special[b'"' as usize] = true;
    special[b'\\' as usize] = true;
    special
};

/// How many of the eight bytes, from the lowest, stand in front of the first [`SPECIAL`] one.
fn plain_bytes(word: u64) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    // The lowest marked byte is right; above it a borrow may mark others. The bytes of other scripts have the high bit and are plain.
    let less_than = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & HIGH;
    let equal = |byte: u8| less_than(word ^ (ONES * u64::from(byte)), 1);
    let special = less_than(word, 0x20) | equal(b'"') | equal(b'\\');
    (special.trailing_zeros() / u8::BITS) as usize
}

/// Whether the text is one JSON value with nothing but space around it.
pub(crate) fn is_json(text: &str) -> bool {
    is_plain_scalar(text.as_bytes()) || is_document(text)
}

/// Whether the text is a string without escapes, a whole number, or a word: what most values of changes are. Others may be JSON too.
fn is_plain_scalar(bytes: &[u8]) -> bool {
    match bytes {
        [b'"', inside @ .., b'"'] => !inside.iter().any(|byte| SPECIAL[usize::from(*byte)]),
        [b'0'] | b"true" | b"false" | b"null" => true,
        [b'1'..=b'9', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn is_document(text: &str) -> bool {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    match scan.document() {
        Ok(()) => true,
        Err(Stop::NotJson) => false,
        // It skips ignored values in a loop, with a byte of memory for each level.
        Err(Stop::TooDeep) => serde_json::from_str::<IgnoredAny>(text).is_ok(),
    }
}

/// Why a scan ends early.
enum Stop {
    NotJson,
    TooDeep,
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn document(&mut self) -> Result<(), Stop> {
        // The innermost open level is bit 0: 1 for an object, 0 for an array.
        let (mut levels, mut depth) = (0_u64, 0_u32);
        loop {
            self.space();
            let opened = match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.string()?;
                    false
                }
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    self.space();
                    if self.eat(if open == b'{' { b'}' } else { b']' }) {
                        false
                    } else if depth == LEVELS {
                        return Err(Stop::TooDeep);
                    } else {
                        depth += 1;
                        levels = levels << 1 | u64::from(open == b'{');
                        if open == b'{' {
                            self.key()?;
                        }
                        true
                    }
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                    false
                }
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => return Err(Stop::NotJson),
            };
            if opened {
                continue;
            }
            // A value has ended: on to the next one, or out of as many levels as end here.
            loop {
                self.space();
                if depth == 0 {
                    return if self.at == self.bytes.len() { Ok(()) } else { Err(Stop::NotJson) };
                }
                let in_object = levels & 1 == 1;
                if self.eat(b',') {
                    if in_object {
                        self.space();
                        self.key()?;
                    }
                    break;
                }
                if !self.eat(if in_object { b'}' } else { b']' }) {
                    return Err(Stop::NotJson);
                }
                levels >>= 1;
                depth -= 1;
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, byte: u8) -> Result<(), Stop> {
        if self.eat(byte) { Ok(()) } else { Err(Stop::NotJson) }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// A member's name and its colon.
    fn key(&mut self) -> Result<(), Stop> {
        self.need(b'"')?;
        self.string()?;
        self.space();
        self.need(b':')
    }

    /// What follows an opening quote, and the closing one.
    fn string(&mut self) -> Result<(), Stop> {
        loop {
            while let Some(word) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
                let plain = plain_bytes(u64::from_le_bytes(*word));
                self.at += plain;
                if plain < size_of::<u64>() {
                    break;
                }
            }
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let plain = rest.iter().take_while(|byte| !SPECIAL[usize::from(**byte)]).count();
            let special = rest.get(plain).copied();
            self.at += plain + 1;
            match special {
                Some(b'"') => return Ok(()),
                Some(b'\\') => self.escape()?,
                _ => return Err(Stop::NotJson),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Stop> {
        let escaped = self.peek();
        self.at += 1;
        match escaped {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => {
                let digits = self.bytes.get(self.at..self.at + 4).ok_or(Stop::NotJson)?;
                self.at += 4;
                // Halves of a surrogate pair may stand alone: that is a matter of what reads the string.
                if digits.iter().all(u8::is_ascii_hexdigit) { Ok(()) } else { Err(Stop::NotJson) }
            }
            _ => Err(Stop::NotJson),
        }
    }

    fn number(&mut self) -> Result<(), Stop> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        // A digit behind a leading zero is what follows a value, and nothing that may.
        Ok(())
    }

    /// One or more.
    fn digits(&mut self) -> Result<(), Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits > 0 { Ok(()) } else { Err(Stop::NotJson) }
    }

    /// Answers that nothing was opened.
    fn word(&mut self, word: &[u8]) -> Result<bool, Stop> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(Stop::NotJson);
        }
        self.at += word.len();
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn theirs(text: &str) -> bool {
        serde_json::from_str::<IgnoredAny>(text).is_ok()
    }

    #[test]
    fn known_cases() {
        for (text, expected) in [
            ("{\"a\":[1,2,{\"b\":null}],\"c\":\"x\\u00e9\\n\"}", true),
            (" [ ] ", true),
            ("{}", true),
            ("-0.5e+10", true),
            ("\"\\ud800\"", true),
            ("\"ü\"", true),
            ("", false),
            (" ", false),
            ("01", false),
            ("-", false),
            ("1.", false),
            (".5", false),
            ("1e", false),
            ("+1", false),
            ("NaN", false),
            ("tru", false),
            ("truefalse", false),
            ("\"a", false),
            ("\"\t\"", false),
            ("\"\\x\"", false),
            ("\"\\u12g4\"", false),
            ("\"\\u12", false),
            ("[1,]", false),
            ("[,1]", false),
            ("{\"a\":1,}", false),
            ("{\"a\" 1}", false),
            ("{a:1}", false),
            ("[1}", false),
            ("{\"a\":1]", false),
            ("[", false),
            ("]", false),
            ("1 2", false),
            ("\u{feff}1", false),
            ("1\u{a0}", false),
        ] {
            assert_eq!((is_json(text), theirs(text)), (expected, expected), "{text:?}");
        }
    }

    #[test]
    fn eight_bytes_at_once_are_told_as_one_by_one() {
        for byte in 0..=u8::MAX {
            for (around, at) in [0, 0x1f, b' ', b'!', b'"', b'#', b'[', b'\\', b']', 0x7f, 0x80, 0xff]
                .into_iter()
                .flat_map(|around| (0..8).map(move |at| (around, at)))
            {
                let mut word = [around; 8];
                word[at] = byte;
                let expected = word.iter().position(|byte| SPECIAL[usize::from(*byte)]).unwrap_or(8);
                assert_eq!(plain_bytes(u64::from_le_bytes(word)), expected, "{word:x?}");
            }
        }
    }

    #[test]
    fn deep_nesting_is_answered_too() {
        for depth in [63, 64, 65, 66, 100_000] {
            let (open, close) = ("[{\"a\":".repeat(depth), "}]".repeat(depth));
            assert!(is_json(&format!("{open}1{close}")), "{depth}");
            assert!(!is_json(&format!("{open}1{}", &close[1..])), "{depth}");
            assert!(!is_json(&open), "{depth}");
        }
    }

    /// Texts made of JSON's own pieces: many are JSON, and the others nearly.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = select(
            &[
                "{", "}", "[", "]", ",", ":", "\"a\"", "\"", "\\", "\\n", "\\u00e9", "\\u0", "1", "0", "-", ".5", "e3",
                "E+1", "true", "false", "null", " ", "\n", "\u{1}", "ü", "x",
            ][..],
        );
        vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..5).prop_map(Into::into),
                vec((".*", inner), 0..5).prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn pieces_are_judged_alike(text in pieces()) {
            prop_assert_eq!(is_json(&text), theirs(&text));
        }

        #[test]
        fn values_and_their_mutilations_are_judged_alike(value in value(), pretty: bool, at: prop::sample::Index, with in "[ \"\\\\{}\\[\\],:0a\t]?") {
            let mut text = if pretty { format!("{value:#}") } else { value.to_string() };
            prop_assert!(is_json(&text));
            let cut = at.index(text.len());
            if let Some(byte) = text.get(cut..cut + 1).map(str::len) {
                text.replace_range(cut..cut + byte, &with);
                prop_assert_eq!(is_json(&text), theirs(&text), "{}", text);
            }
        }
    }
}
