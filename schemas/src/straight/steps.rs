//! What a plan is made of.

use crate::guard::Guard;

/// Text columns with a value for each row: those of v1.
pub(super) const ROW_TEXTS: usize = 22;
/// Text columns of a change: path, old, new.
pub(super) const CHANGE_TEXTS: usize = 3;
/// The first of them.
pub(super) const CHANGE_PATH: usize = ROW_TEXTS;
/// Text columns of v1. Numbers from here on are the texts that a later reader schema adds.
pub(super) const TEXTS: usize = ROW_TEXTS + CHANGE_TEXTS;
/// Those of which there are few different ones: tenant, service, environment, action, entity type, HTTP method, producer.
pub(super) const WORDS: [usize; 7] = [0, 1, 2, 3, 4, 18, 21];
/// Columns of numbers: `occurred_at` and the producer's two.
pub(super) const NUMBERS: usize = 3;
/// Columns of symbols.
pub(super) const SYMBOLS: usize = 4;

/// How to read the records of one writer schema as the reader schema.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) steps: Box<[Step]>,
    /// The canonical body, from its begin to its end.
    pub(super) pieces: Box<[Piece]>,
}

/// One step. Columns are numbered by kind, in the order of the reader schema.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// All fields of v1 in front of `producer`, as v1 has them.
    Content,
    EventId,
    OccurredAt,
    Text {
        column: usize,
        form: Form,
    },
    /// The reader's symbols.
    Symbol(usize),
    /// For each symbol of the writer the reader's number, where there is one.
    Mapped {
        column: usize,
        keys: Box<[Option<i32>]>,
    },
    Long(usize),
    /// An int that becomes a long.
    Int(usize),
    /// The list of changes as v1 has it.
    Changes,
    /// Another list of changes: the steps of each.
    ChangesOf(Box<[Step]>),
    /// A union of null and what the next step reads, which must be that: its branch as it is encoded.
    Branch(u8),
    /// Fields that the reader has not, inside of so many levels.
    Skip {
        guard: Guard,
        depth: u32,
    },
    /// Defaults.
    PutText {
        column: usize,
        text: Box<[u8]>,
    },
    PutSymbol {
        column: usize,
        key: i32,
    },
    PutLong {
        column: usize,
        number: i64,
    },
    PutNoChanges,
}

/// How a text is encoded, and what it must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// A text that is not empty.
    Required,
    Any,
    /// A union of null and text.
    Nullable,
    /// A union of text and null.
    NullLast,
}

/// A piece of the canonical body.
#[derive(Debug)]
pub(super) enum Piece {
    /// What the steps from one on read until another begins: canonical but for empty optional texts.
    Body {
        from: usize,
        to: usize,
    },
    Fixed(Box<[u8]>),
    /// From the row's columns.
    Optional(usize),
    Symbol(usize),
    Changes,
}
