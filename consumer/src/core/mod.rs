//! The worker's decisions, without I/O: `Worker::handle(input, now, &mut actions)`.
//!
//! No clock, random source, socket or thread lives in here: time is a parameter and jitter comes from a seed, so every order of
//! records, completions, failures and rebalances can be replayed. The loop in `crate::worker` carries the actions out.
//!
//! The way of a record through the core:
//!
//! ```text
//! admit -> Record -> filling batch -> Seal -> Insert        \
//!                                         -> SendDeadLetters -> WriteLedger -> spans done -> Commit
//! ```
//!
//! What holds after every input:
//! - a committed offset never passes a record that is neither inserted nor acknowledged as a dead letter: the committable offset is
//!   computed by [`ledger::PartitionLedger`], nothing assigns it;
//! - work of an older assignment never commits: each span carries the epoch under which it was read;
//! - the wire bytes held are at most [`Limits::in_flight_bytes`] plus one record, however large the backlog.

pub mod backoff;
pub mod batch;
pub mod governor;
pub mod ledger;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
mod worker;

use std::time::Duration;

pub use backoff::Backoff;
pub use batch::{BatchId, SealReason, Span};
pub use governor::{Cause, Decision, Overload, Targets};
pub use worker::Worker;

/// Time since the worker started, from a monotonic clock that the caller owns.
pub type Now = Duration;

/// Counts one assignment of one partition; a later assignment of the same partition has a higher epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// The bounds inside which the worker decides.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What the closed loop of [`governor`] aims at. A batch is sealed when it holds as many rows as the loop says, or when it is as old as the loop
    /// says and an insert slot is free. When there is nothing more to read, a batch of [`Targets::floor_rows`] is sealed at once, and a smaller one if
    /// the last seal is as long ago as that age: so that a single event is queryable at once and parts stay few.
    pub targets: Targets,
    /// A batch is sealed when the records in it have this many bytes on the wire.
    pub batch_max_bytes: usize,
    /// Records are no longer read while this many wire bytes are held, batches being filled, inserted and retried together.
    pub in_flight_bytes: usize,
    /// So many inserts run at once; further sealed batches wait.
    pub max_inserts: usize,
    /// Partitions are paused when reading has been held back for this long; shorter waits just do not poll.
    pub pause_after: Duration,
    /// Work of revoked partitions is finished within this time or dropped.
    pub revoke_deadline: Duration,
    /// A drain ends after this time, finished or not.
    pub drain_deadline: Duration,
    /// Waiting times between attempts of an insert, a dead-letter delivery, a ledger write or a commit.
    pub backoff: Backoff,
}

/// What a decoded record turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A row of the batch being filled.
    Row,
    /// A record that can't be stored; the caller holds it, with the reason, for the batch being filled.
    DeadLetter,
}

/// How a failed step is to be treated; `auditstream_store` classifies ClickHouse's errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Passing, or unknown: the same bytes again after a back-off, for ever.
    Retry,
    /// ClickHouse is short of something: as [`Failure::Retry`], and the loop that sizes batches learns of it.
    Overload(Overload),
    /// Needs a human: stop, lose nothing, say why.
    Halt(String),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The group gave these partitions to this worker; reading starts at the offset beside each.
    Assigned(Vec<(i32, Option<i64>)>),
    /// The ledger says that of these partitions, just assigned, everything below the offset beside each is stored although it is not committed: whoever
    /// owned them did not get so far. It is committed now and not read again.
    Landed(Vec<(i32, i64)>),
    /// The group wants these partitions back. Answered by [`Action::Release`] of the same partitions.
    Revoked(Vec<i32>),
    /// These partitions are already somebody else's: nothing of them may be committed. Answered by [`Action::Release`].
    Lost(Vec<i32>),
    /// A record that [`Worker::admit`] let in was decoded.
    Record {
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// Its length on the wire, key and value.
        bytes: usize,
        /// What it turned out to be.
        verdict: Verdict,
    },
    /// Rows of the batch, so many of each partition, turned out to be refused for themselves: they are dead letters now, which the caller holds.
    /// Comes while the insert is under way, before its [`Input::Inserted`].
    Refused(BatchId, Vec<(i32, u64)>),
    /// An insert was acknowledged: all rows of the batch but refused ones are stored.
    Inserted(BatchId),
    /// An insert failed, or its outcome is unknown.
    InsertFailed(BatchId, Failure),
    /// Every dead letter of the batch was acknowledged by the broker.
    DeadLettersDelivered(BatchId),
    /// At least one dead letter of the batch was not acknowledged.
    DeadLettersFailed(BatchId, Failure),
    /// The batch's ledger rows were acknowledged.
    LedgerWritten(BatchId),
    /// The ledger write failed, or its outcome is unknown.
    LedgerFailed(BatchId, Failure),
    /// The broker stored the offsets of the last [`Action::Commit`].
    Committed,
    /// The broker refused or lost the last [`Action::Commit`].
    CommitFailed,
    /// The log of these partitions begins at the first offset beside each and ends before the second.
    Logs(Vec<(i32, i64, i64)>),
    /// The fullest partition of the events table has so many parts.
    Parts(u64),
    /// Everything that there was has been read: waiting longer brings no more rows into the batch.
    CaughtUp,
    /// Time has passed.
    Tick,
    /// Stop reading, finish what is held, commit, then [`Action::Stop`].
    Drain,
    /// An operator has paused the group, or has ended that: nothing is read, what was read is stored and committed, and membership is kept.
    Suspended(bool),
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Close the batch being filled; following records belong to the next one.
    Seal {
        /// Which batch.
        batch: BatchId,
        /// Why now.
        reason: SealReason,
    },
    /// Insert the batch's rows; `attempt` counts from 0, each with the same bytes and token.
    Insert {
        /// Which batch.
        batch: BatchId,
        /// Where its rows come from.
        spans: Vec<Span>,
        /// 0 for the first try.
        attempt: u32,
        /// In so many inserts one after the other: 1 unless ClickHouse had too little memory for fewer.
        pieces: u32,
    },
    /// Deliver the batch's dead letters that were not acknowledged yet.
    SendDeadLetters {
        /// Which batch.
        batch: BatchId,
        /// 0 for the first try.
        attempt: u32,
    },
    /// Write the batch's spans, and its dead letters for people to query, beside the data.
    WriteLedger {
        /// Which batch.
        batch: BatchId,
        /// What became of its records.
        spans: Vec<Span>,
        /// 0 for the first try.
        attempt: u32,
    },
    /// Nothing of this batch is needed any more.
    Forget(BatchId),
    /// Commit, for each partition, the offset of the next record to read. Answered by one `Committed` or `CommitFailed`.
    Commit(Vec<(i32, i64)>),
    /// Give these partitions back to the group now.
    Release(Vec<i32>),
    /// Stop fetching these partitions.
    Pause(Vec<i32>),
    /// Fetch these partitions again.
    Resume(Vec<i32>),
    /// Batches are sized otherwise from now on. Nothing to carry out: for log and metrics.
    Tuned(Decision),
    /// The worker is done.
    Stop(StopReason),
}

/// Why the worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// All that was read is stored and committed.
    Drained,
    /// The deadline passed first; what was not committed will be read again by whoever gets the partitions.
    DrainDeadline,
    /// A human is needed; nothing was skipped.
    Halted(String),
}
