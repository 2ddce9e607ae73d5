//! The closed loop that sizes batches: how many rows an insert should have, and how long a record may wait for company.
//!
//! | what it sees | what it does | why |
//! |---|---|---|
//! | a batch was full and there is still more to read, or to fetch | twice the rows, up to the ceiling; at once to the ceiling when the lag is many batches | an insert costs ClickHouse a part and the merges of it: behind, few and large ones catch up soonest |
//! | what would fill the open batch waits in the topic | it may wait for all of [`Targets::freshness`] | it is full soon; a part of it would only be one more insert |
//! | several batches in a row were closed for age or for want of records, far from full | half the rows, down to the floor | a batch that is full early is queryable early |
//! | inserts take long | shorter waiting | waiting and insert together are what a reader sees as delay: they share [`Targets::freshness`] |
//! | too many parts, refused (252) or counted | longer waiting, up to eight times | fewer parts; being late is better than being refused |
//! | an insert needs more memory than ClickHouse gives (241) | at most half of the refused rows from now on; the refused batch goes in pieces | the same rows again would be refused again |
//! | inserts succeed again | back, step by step | |
//!
//! No clock and no source of chance in here: time comes with the caller's words.

use std::time::Duration;

use super::SealReason;

/// Small batches in a row that make the rows fewer: one quiet moment is none.
const QUIET_BATCHES: u32 = 4;
/// A lag of so many batches is answered with the ceiling at once.
const FAR_BEHIND: u64 = 16;
/// Waiting is never stretched beyond so many times its usual bound.
const LONGEST_HOLD: u32 = 8;
/// A change of the waiting time by less than this part is not worth a decision.
const STEADY_PART: u32 = 4;

/// What the loop aims at, and its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// An insert should have so many rows at least, when there are as many.
    pub floor_rows: usize,
    /// An insert has at most so many rows.
    pub ceiling_rows: usize,
    /// A record waits at most so long for others, unless ClickHouse has too many parts.
    pub max_age: Duration,
    /// From the arrival of a record to its being queryable, at low traffic.
    pub freshness: Duration,
    /// Parts of one partition of the table above which there should be fewer inserts.
    pub max_parts: u64,
}

/// What ClickHouse has too much of, or too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overload {
    /// Parts: merges do not keep up with inserts.
    Parts,
    /// Memory for this insert.
    Memory,
}

/// Why the loop decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Records come faster than they are stored.
    Backlog,
    /// Few records come.
    LowTraffic,
    /// Inserts take long.
    SlowInserts,
    /// Inserts are quick again.
    QuickInserts,
    /// ClickHouse has too many parts.
    TooManyParts,
    /// ClickHouse has too little memory for such an insert.
    MemoryLimit,
    /// An overload is over.
    Recovered,
}

impl Cause {
    /// The metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backlog => "backlog",
            Self::LowTraffic => "low_traffic",
            Self::SlowInserts => "slow_inserts",
            Self::QuickInserts => "quick_inserts",
            Self::TooManyParts => "too_many_parts",
            Self::MemoryLimit => "memory_limit",
            Self::Recovered => "recovered",
        }
    }
}

/// What holds from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Rows of an insert.
    pub rows: usize,
    /// How long a record waits for others.
    pub age: Duration,
    /// Why it is not as before.
    pub cause: Cause,
}

/// The loop's state.
#[derive(Debug)]
pub struct Governor {
    targets: Targets,
    rows: usize,
    age: Duration,
    /// Highest time of an insert, forgotten slowly.
    insert_time: Duration,
    /// More rows than this met a memory limit.
    rows_cap: usize,
    /// How often waiting was doubled for want of merges.
    holds: u32,
    small_batches: u32,
}

impl Governor {
    /// Starts at the floor: a backlog shows itself within some batches.
    #[must_use]
    pub fn new(targets: Targets) -> Self {
        let floor = targets.floor_rows.clamp(1, targets.ceiling_rows.max(1));
        let targets = Targets { floor_rows: floor, ..targets };
        Self {
            rows: floor,
            age: targets.max_age,
            insert_time: Duration::ZERO,
            rows_cap: targets.ceiling_rows,
            holds: 0,
            small_batches: 0,
            targets,
        }
    }

    /// Rows that close a batch now.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The age that closes a batch now. When records that would fill it are known to wait in the topic, closing it early makes nothing queryable
    /// sooner but its own few rows, and the rest later.
    #[must_use]
    pub fn age(&self, will_be_full: bool) -> Duration {
        if will_be_full { self.age.max(self.targets.freshness) } else { self.age }
    }

    /// A batch of `rows` was closed; `is_behind`: there was always more to read while it was open, or a batch of records still waits.
    pub fn sealed(&mut self, reason: SealReason, rows: usize, is_behind: bool) -> Option<Decision> {
        match reason {
            SealReason::Rows if is_behind => {
                self.small_batches = 0;
                self.set_rows(self.rows.saturating_mul(2), Cause::Backlog)
            }
            SealReason::Age | SealReason::CaughtUp if rows < self.rows / 4 => {
                self.small_batches += 1;
                if self.small_batches < QUIET_BATCHES {
                    return None;
                }
                self.small_batches = 0;
                self.set_rows(self.rows / 2, Cause::LowTraffic)
            }
            _ => {
                self.small_batches = 0;
                None
            }
        }
    }

    /// An insert was acknowledged `took` after it was sent.
    pub fn inserted(&mut self, took: Duration) -> Option<Decision> {
        let was_capped = self.rows_cap < self.targets.ceiling_rows;
        self.rows_cap = (self.rows_cap + self.rows_cap / 16 + 1).min(self.targets.ceiling_rows);
        self.insert_time = took.max(self.insert_time * 7 / 8);
        if was_capped && self.rows_cap == self.targets.ceiling_rows {
            return Some(self.decision(Cause::Recovered));
        }
        let slower = self.fitting_age() < self.age;
        self.set_age(if slower { Cause::SlowInserts } else { Cause::QuickInserts })
    }

    /// ClickHouse refused an insert of `rows` for what it is short of.
    pub fn overloaded(&mut self, overload: Overload, rows: usize) -> Option<Decision> {
        match overload {
            Overload::Parts => self.hold(),
            Overload::Memory => {
                // Below the floor too: what ClickHouse can't take at all must become small enough.
                self.rows_cap = self.rows_cap.min((rows / 2).max(1));
                self.set_rows(self.rows, Cause::MemoryLimit)
            }
        }
    }

    /// So many records wait in the topic.
    pub fn backlog(&mut self, unread: u64) -> Option<Decision> {
        if unread / FAR_BEHIND >= self.rows as u64 { self.set_rows(self.rows_cap, Cause::Backlog) } else { None }
    }

    /// The fullest partition of the table has so many parts.
    pub fn parts(&mut self, parts: u64) -> Option<Decision> {
        if parts > self.targets.max_parts {
            return self.hold();
        }
        if self.holds == 0 || parts > self.targets.max_parts / 2 {
            return None;
        }
        self.holds -= 1;
        self.set_age(Cause::Recovered)
    }

    fn hold(&mut self) -> Option<Decision> {
        self.holds = (self.holds + 1).min(LONGEST_HOLD.ilog2());
        self.set_age(Cause::TooManyParts)
    }

    fn set_rows(&mut self, wanted: usize, cause: Cause) -> Option<Decision> {
        let rows = wanted.max(self.targets.floor_rows).min(self.rows_cap);
        let has_changed = rows != self.rows;
        self.rows = rows;
        has_changed.then(|| self.decision(cause))
    }

    /// A quarter of the time to be fresh is for what is neither waiting nor insert: fetching, decoding, a slow moment.
    fn fitting_age(&self) -> Duration {
        let left = (self.targets.freshness * 3 / 4).saturating_sub(self.insert_time);
        let shortest = (self.targets.freshness / 20).min(self.targets.max_age);
        left.clamp(shortest, self.targets.max_age)
    }

    fn set_age(&mut self, cause: Cause) -> Option<Decision> {
        let age = if self.holds > 0 { self.targets.max_age * (1 << self.holds) } else { self.fitting_age() };
        let is_steady = age.abs_diff(self.age) < self.age / STEADY_PART && age != self.targets.max_age;
        if age == self.age || is_steady {
            return None;
        }
        self.age = age;
        Some(self.decision(cause))
    }

    fn decision(&self, cause: Cause) -> Decision {
        Decision { rows: self.rows, age: self.age, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn governor() -> Governor {
        Governor::new(Targets {
            floor_rows: 1_000,
            ceiling_rows: 100_000,
            max_age: 500 * MS,
            freshness: 1_000 * MS,
            max_parts: 300,
        })
    }

    #[test]
    fn grows_while_behind_and_not_beyond_the_ceiling() {
        let mut governor = governor();
        let rows: Vec<_> =
            (0..8).map(|_| governor.sealed(SealReason::Rows, governor.rows(), true).map(|d| d.rows)).collect();
        let grown = [2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 100_000].map(Some);
        assert_eq!((&rows[..7], rows[7]), (&grown[..], None));
    }

    #[test]
    fn a_large_lag_goes_to_the_ceiling_at_once() {
        let mut governor = governor();
        assert_eq!(governor.backlog(15_999), None);
        let decision = governor.backlog(16_000);
        assert_eq!(decision, Some(Decision { rows: 100_000, age: 500 * MS, cause: Cause::Backlog }));
    }

    #[test]
    fn a_full_batch_that_emptied_the_topic_changes_nothing() {
        let mut governor = governor();
        assert_eq!(governor.sealed(SealReason::Rows, 1_000, false), None);
    }

    #[test]
    fn age_closes_no_batch_that_will_be_full_before_the_time_to_be_fresh_is_over() {
        let mut governor = governor();
        assert_eq!((governor.age(false), governor.age(true)), (500 * MS, 1_000 * MS));
        for _ in 0..3 {
            governor.overloaded(Overload::Parts, 500);
        }
        assert_eq!(governor.age(true), 4_000 * MS, "what was stretched is not cut");
    }

    #[test]
    fn shrinks_only_after_several_small_batches_and_not_below_the_floor() {
        let mut governor = governor();
        for _ in 0..3 {
            governor.sealed(SealReason::Rows, governor.rows(), true);
        }
        let mut sizes = Vec::new();
        for _ in 0..40 {
            sizes.extend(governor.sealed(SealReason::Age, 10, false).map(|decision| (decision.rows, decision.cause)));
        }
        assert_eq!(sizes, [4_000, 2_000, 1_000].map(|rows| (rows, Cause::LowTraffic)));
        // A large batch between small ones starts the count anew.
        governor.sealed(SealReason::Rows, 1_000, true);
        for _ in 0..10 {
            assert_eq!(governor.sealed(SealReason::Age, 10, false), None);
            assert_eq!(governor.sealed(SealReason::Age, 10, false), None);
            assert_eq!(governor.sealed(SealReason::Age, 1_500, false), None);
        }
    }

    #[test]
    fn slow_inserts_take_from_the_waiting_until_they_are_quick_again() {
        let mut governor = governor();
        assert_eq!(governor.inserted(100 * MS), None, "both fit into the time");
        let slow = governor.inserted(600 * MS);
        assert_eq!(slow.map(|decision| (decision.age, decision.cause)), Some((150 * MS, Cause::SlowInserts)));
        governor.inserted(5_000 * MS);
        assert_eq!(governor.age(false), 50 * MS, "never no waiting at all");
        let back: Vec<_> = (0..60).filter_map(|_| governor.inserted(20 * MS)).map(|d| (d.age, d.cause)).collect();
        assert_eq!(back.last(), Some(&(500 * MS, Cause::QuickInserts)));
        assert!(back.len() < 12, "small changes are no decisions: {back:?}");
    }

    #[test]
    fn too_many_parts_stretch_the_waiting_and_few_bring_it_back() {
        let mut governor = governor();
        let longest: Vec<_> =
            (0..5).filter_map(|_| governor.overloaded(Overload::Parts, 500)).map(|decision| decision.age).collect();
        assert_eq!(longest, [1_000 * MS, 2_000 * MS, 4_000 * MS]);
        assert_eq!(governor.inserted(20 * MS), None, "an insert that succeeds is not yet the end of it");
        assert_eq!(governor.parts(200), None);
        let back: Vec<_> = (0..5).filter_map(|_| governor.parts(100)).map(|d| (d.age, d.cause)).collect();
        assert_eq!(back, [2_000 * MS, 1_000 * MS, 500 * MS].map(|age| (age, Cause::Recovered)));
        assert_eq!(governor.parts(301).map(|decision| decision.cause), Some(Cause::TooManyParts));
    }

    #[test]
    fn a_memory_limit_caps_the_rows_and_success_lifts_the_cap() {
        let mut governor = governor();
        governor.backlog(1 << 40);
        let decision = governor.overloaded(Overload::Memory, 100_000);
        assert_eq!(decision.map(|d| (d.rows, d.cause)), Some((50_000, Cause::MemoryLimit)));
        assert_eq!(governor.sealed(SealReason::Rows, 50_000, true), None, "the cap holds");
        governor.overloaded(Overload::Memory, 800);
        assert_eq!(governor.rows(), 400, "below the floor, where the floor does not fit");
        let recovered = (0..200).filter_map(|_| governor.inserted(20 * MS)).find(|d| d.cause == Cause::Recovered);
        assert!(recovered.is_some());
        assert!(governor.backlog(1 << 40).is_some_and(|d| d.rows == 100_000));
    }
}
