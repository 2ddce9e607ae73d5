//! The fuzzer's bytes as choices. When they are used up every choice is the first one.

pub(crate) struct Entropy<'a>(&'a [u8]);

impl<'a> Entropy<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    /// A number below `end`, which is at most 256; 0 when there is none.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    /// True about once in `times`; false when the bytes are used up.
    pub(crate) fn chance(&mut self, times: u8) -> bool {
        self.byte() % times == times - 1
    }

    pub(crate) fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }

    /// An index into so many bytes, of any number.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        (usize::from(self.byte()) << 8 | usize::from(self.byte())) % len.max(1)
    }

    pub(crate) fn long(&mut self) -> i64 {
        let number = i64::from(self.byte().cast_signed());
        match self.below(4) {
            0 | 1 => number,
            2 => number << self.below(57),
            _ => i64::MAX ^ number,
        }
    }
}
