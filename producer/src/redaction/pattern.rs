//! Patterns of paths: `*` stands for one segment, `**` for any number of them, none included.
//!
//! A pattern is a small automaton: the set of its positions that a path has reached, as bits of one word. Walking down a
//! value steps it once for each name, so no path is ever put together or matched twice.

use std::borrow::Cow;

/// A pattern has at most this many segments: one bit each, and one for the end.
const MAX_SEGMENTS: usize = 63;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Name(String),
    One,
    Any,
}

/// A checked pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    segments: Vec<Segment>,
}

/// Where a walk stands in a pattern; no bit set: nowhere below can it match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    pub(super) fn is_dead(self) -> bool {
        self.0 == 0
    }
}

impl Pattern {
    /// A pattern such as `/changes/**/password`; segments escaped as in a JSON pointer, and `~2` is a literal `*`.
    pub(super) fn parse(text: &str) -> Result<Pattern, &'static str> {
        let rest = text.strip_prefix('/').ok_or("it must begin with /, such as /changes/**/password")?;
        let mut segments = Vec::new();
        for part in rest.split('/') {
            segments.push(match part {
                "" => return Err("it has an empty segment"),
                "*" => Segment::One,
                "**" => Segment::Any,
                part if part.contains('*') => {
                    return Err("* and ** stand for whole segments; a literal * is written ~2");
                }
                part => Segment::Name(unescape(&part.replace("~2", "*")).into_owned()),
            });
        }
        if segments.len() > MAX_SEGMENTS {
            return Err("it has more than 63 segments");
        }
        Ok(Pattern { segments })
    }

    /// Before the first segment of a path.
    pub(super) fn start(&self) -> Place {
        Place(self.skip_any(1))
    }

    /// After one more segment.
    pub(super) fn step(&self, place: Place, segment: &str) -> Place {
        let mut next = 0;
        for (index, expected) in self.segments.iter().enumerate() {
            if place.0 & (1 << index) == 0 {
                continue;
            }
            match expected {
                Segment::Name(name) if name != segment => {}
                Segment::Name(_) | Segment::One => next |= 1 << (index + 1),
                Segment::Any => next |= 1 << index,
            }
        }
        Place(self.skip_any(next))
    }

    /// Whether the path so far is one that was meant.
    pub(super) fn is_match(&self, place: Place) -> bool {
        place.0 & (1 << self.segments.len()) != 0
    }

    /// `**` may stand for nothing.
    fn skip_any(&self, mut bits: u64) -> u64 {
        for (index, segment) in self.segments.iter().enumerate() {
            if *segment == Segment::Any && bits & (1 << index) != 0 {
                bits |= 1 << (index + 1);
            }
        }
        bits
    }
}

/// One segment of a JSON pointer as it was meant.
pub(super) fn unescape(segment: &str) -> Cow<'_, str> {
    if segment.contains('~') {
        // In this order: `~01` is `~1`.
        Cow::Owned(segment.replace("~1", "/").replace("~0", "~"))
    } else {
        Cow::Borrowed(segment)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let pattern = Pattern::parse(pattern).unwrap();
        let mut place = pattern.start();
        for segment in path.split('/').skip(1) {
            place = pattern.step(place, &unescape(segment));
        }
        pattern.is_match(place)
    }

    #[test]
    fn patterns_match_what_they_say() {
        for (pattern, path, expected) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a", false),
            ("/a/b", "/a/b/c", false),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a", false),
            ("/a/*", "/a/b/c", false),
            ("/a/*/c", "/a/3/c", true),
            ("/**", "", true),
            ("/**", "/a/b", true),
            ("/a/**", "/a", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/b", false),
            ("/**/p", "/p", true),
            ("/**/p", "/a/b/p", true),
            ("/**/p", "/a/b/p/q", false),
            ("/a/**/b/**/c", "/a/x/b/c", true),
            ("/a/**/b/**/c", "/a/b/x/y/c", true),
            ("/a/**/b/**/c", "/a/x/y/c", false),
            ("/**/*", "/a", true),
            ("/**/*", "", false),
            ("/a~1b/~0/~2", "/a~1b/~0/*", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
        assert!(Pattern::parse(&"/*".repeat(63)).is_ok());
        for bad in ["", "a", "/", "/a//b", "/a/", "/a*", "/***", &"/*".repeat(64)] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dead_place_is_known() {
        let pattern = Pattern::parse("/a/b").unwrap();
        assert!(pattern.step(pattern.start(), "x").is_dead());
        assert!(!pattern.step(pattern.start(), "a").is_dead());
    }
}
