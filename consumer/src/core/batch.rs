//! A batch as the core sees it: its spans, its size, and how far each of its steps has come.

use super::{Epoch, Now};

/// A batch goes in at most so many inserts: each of a two-hundredth of the largest batch needs little memory anywhere.
const MAX_PIECES: u32 = 256;

/// Numbers the batches of one worker process in the order in which they were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// Why a batch was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SealReason {
    /// It holds as many rows as one insert should.
    Rows,
    /// Its records have as many bytes as one insert should.
    Bytes,
    /// Its first record has waited long enough.
    Age,
    /// There is nothing more to read.
    CaughtUp,
    /// A partition in it is going to another worker.
    Revoke,
    /// The worker stops.
    Drain,
}

impl SealReason {
    /// The metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::CaughtUp => "caught_up",
            Self::Revoke => "revoke",
            Self::Drain => "drain",
        }
    }
}

/// The part of one partition that a batch holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub partition: i32,
    /// The assignment under which it was read.
    pub epoch: Epoch,
    /// Offset of the first record.
    pub first: i64,
    /// Offset of the last record; between them only what compaction and transactions left out is missing.
    pub last: i64,
    /// Records that are rows of the batch.
    pub rows: u64,
    /// Records that are dead letters.
    pub dead_letters: u64,
}

/// How far one step of a sealed batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Its turn has not come.
    Open,
    /// Under way; exactly one completion will answer.
    Running { attempt: u32 },
    /// Failed; the next attempt is due at this time.
    Waiting { attempt: u32, due: Now },
    /// Acknowledged, or there was nothing to do.
    Done,
}

impl Step {
    /// The attempt that a failure just ended.
    pub(super) fn attempt(self) -> u32 {
        match self {
            Self::Running { attempt } | Self::Waiting { attempt, .. } => attempt,
            Self::Open | Self::Done => 0,
        }
    }

    /// The attempt to start now: the first, or the next one that is due.
    pub(super) fn startable(self, now: Now) -> Option<u32> {
        match self {
            Self::Open => Some(0),
            Self::Waiting { attempt, due } if due <= now => Some(attempt),
            _ => None,
        }
    }
}

/// A batch, filling or sealed.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: BatchId,
    pub(super) opened: Now,
    pub(super) spans: Vec<Span>,
    pub(super) rows: usize,
    pub(super) dead_letters: usize,
    pub(super) bytes: usize,
    pub(super) insert: Step,
    pub(super) insert_started: Now,
    /// Inserts that one attempt is made of.
    pub(super) pieces: u32,
    pub(super) delivery: Step,
    pub(super) ledger: Step,
    /// There was always more to read while it was open.
    pub(super) is_behind: bool,
    /// Dead letters were added while a delivery was under way, which does not hold them.
    pub(super) deliver_again: bool,
    /// Index into `spans` of the last record's partition: records come in runs of one partition.
    current: usize,
}

impl Batch {
    pub(super) fn new(id: BatchId, opened: Now) -> Self {
        Self {
            id,
            opened,
            spans: Vec::new(),
            rows: 0,
            dead_letters: 0,
            bytes: 0,
            insert: Step::Open,
            insert_started: opened,
            pieces: 1,
            delivery: Step::Open,
            ledger: Step::Open,
            is_behind: true,
            deliver_again: false,
            current: 0,
        }
    }

    /// Adds one record.
    pub(super) fn add(&mut self, partition: i32, epoch: Epoch, offset: i64, bytes: usize, is_row: bool) {
        let at = |span: &Span| span.partition == partition && span.epoch == epoch;
        if !self.spans.get(self.current).is_some_and(at) {
            self.current = self.spans.iter().position(at).unwrap_or_else(|| {
                self.spans.push(Span { partition, epoch, first: offset, last: offset, rows: 0, dead_letters: 0 });
                self.spans.len() - 1
            });
        }
        if let Some(span) = self.spans.get_mut(self.current) {
            span.last = offset;
            span.rows += u64::from(is_row);
            span.dead_letters += u64::from(!is_row);
        }
        self.rows += usize::from(is_row);
        self.dead_letters += usize::from(!is_row);
        self.bytes += bytes;
    }

    /// Rows of a partition became dead letters.
    pub(super) fn refuse(&mut self, partition: i32, mut rows: u64) {
        // A partition has two spans when it was lost and came back while the batch was open; which of them a row was in does not matter for the sums.
        for span in self.spans.iter_mut().filter(|span| span.partition == partition) {
            let moved = rows.min(span.rows);
            span.rows -= moved;
            span.dead_letters += moved;
            rows -= moved;
        }
        match self.delivery {
            Step::Done => self.delivery = Step::Open,
            Step::Running { .. } => self.deliver_again = true,
            Step::Open | Step::Waiting { .. } => {}
        }
    }

    /// Records in it.
    pub(super) fn len(&self) -> usize {
        self.rows + self.dead_letters
    }

    /// No insert without rows, no delivery without dead letters.
    pub(super) fn skip_what_is_empty(&mut self) {
        if self.rows == 0 {
            self.insert = Step::Done;
        }
        if self.dead_letters == 0 {
            self.delivery = Step::Done;
        }
    }

    /// ClickHouse has too little memory for the insert: the next attempt is made of more and smaller ones.
    pub(super) fn divide(&mut self) {
        let rows = u32::try_from(self.rows).unwrap_or(u32::MAX);
        self.pieces = self.pieces.saturating_mul(2).min(MAX_PIECES).min(rows.max(1));
    }

    /// The delivery under way was acknowledged.
    pub(super) fn delivered(&mut self) {
        self.delivery = if std::mem::take(&mut self.deliver_again) { Step::Open } else { Step::Done };
    }

    /// Rows are stored and dead letters acknowledged: the spans may be written.
    pub(super) fn is_stored(&self) -> bool {
        self.insert == Step::Done && self.delivery == Step::Done
    }

    pub(super) fn steps(&self) -> [Step; 3] {
        [self.insert, self.delivery, self.ledger]
    }

    /// Whether some task still works on it and will answer.
    pub(super) fn is_running(&self) -> bool {
        self.steps().iter().any(|step| matches!(step, Step::Running { .. }))
    }
}
