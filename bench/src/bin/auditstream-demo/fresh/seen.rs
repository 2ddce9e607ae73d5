//! From what was seen when, and what lies in the table, to how long each event took. No clock and no server here.
//!
//! A batch's rows become queryable at once, and its spans of offsets come into the ledger some time later. So each answer of the watcher holds two things:
//! how many rows there are, and which spans the ledger has. The ledger says which events a batch has; the growth of the number says when its rows were
//! there: it is the sum of the batches that came meanwhile. Where it is the sum of none, the ledger's time counts, which is later. So every time is an
//! upper bound, by the pause between two answers.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// So many batches may be on their way at once: two inserts of each worker, and those whose ledger entry follows.
const UNDER_WAY: usize = 8;

/// A span of offsets of a partition, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Span {
    pub(super) partition: usize,
    pub(super) first: u64,
    pub(super) last: u64,
    /// The batch that it is a part of, and its rows.
    pub(super) batch: i64,
    pub(super) rows: u64,
}

/// An answer of the watcher's question.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    /// When it had arrived, in microseconds since 1970.
    pub(super) at: i64,
    /// Rows that the table held.
    pub(super) rows: u64,
    /// Spans that it held and those before did not.
    pub(super) spans: Vec<Span>,
}

/// A row: where its record lay, and when it was due, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) partition: usize,
    pub(super) offset: u64,
    pub(super) due: i64,
}

/// How long events took, sorted, and by how much that is too long.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) events: Vec<Duration>,
    /// By how much rows were there before the times that count here, on average: 0 where every batch's growth was recognised.
    pub(super) too_long: Duration,
}

/// A batch, when the ledger had it first, and its rows.
struct Batch {
    id: i64,
    rows: i64,
    at: i64,
}

/// When each batch's rows were there.
fn there(looks: &[Look]) -> Result<HashMap<i64, i64>> {
    let mut waiting: Vec<Batch> = Vec::new();
    for look in looks {
        for span in &look.spans {
            let rows = i64::try_from(span.rows)?;
            match waiting.iter_mut().rev().find(|batch| batch.id == span.batch) {
                Some(batch) => batch.rows += rows,
                None => waiting.push(Batch { id: span.batch, rows, at: look.at }),
            }
        }
    }
    let mut there = HashMap::with_capacity(waiting.len());
    // Rows that came and belong to no batch yet; below 0 when the ledger was quicker.
    let (mut count, mut owed) = (looks.first().map_or(0, |look| look.rows), 0_i64);
    // From the back: the next batch is the last.
    waiting.reverse();
    for look in looks {
        owed += i64::try_from(look.rows.saturating_sub(count))?;
        count = count.max(look.rows);
        for place in adding_up_to(&waiting, owed) {
            let batch = waiting.remove(place);
            there.insert(batch.id, look.at);
            owed -= batch.rows;
        }
        while let Some(batch) = waiting.pop_if(|batch| batch.at <= look.at) {
            there.insert(batch.id, batch.at);
            owed -= batch.rows;
        }
    }
    Ok(there)
}

/// Which of the next batches have so many rows together; the higher place first. Those that the ledger had first are preferred.
fn adding_up_to(waiting: &[Batch], rows: i64) -> Vec<usize> {
    let next: Vec<(usize, i64)> =
        waiting.iter().enumerate().rev().take(UNDER_WAY).map(|(place, batch)| (place, batch.rows)).collect();
    let chosen =
        |mask: u32| next.iter().enumerate().filter(move |(bit, _)| mask & (1 << bit) != 0).map(|(_, next)| *next);
    let found =
        (1..1_u32 << next.len()).find(|mask| rows > 0 && chosen(*mask).map(|(_, rows)| rows).sum::<i64>() == rows);
    // `next` goes down from the back.
    found.map_or_else(Vec::new, |mask| chosen(mask).map(|(place, _)| place).collect())
}

/// Of the rows that were due within `counted` (microseconds, the end excluded), how long each took. `begins` is where each partition's records begin.
///
/// # Errors
/// A row twice, or a row that no span has: then something is wrong with the table or the ledger.
pub(super) fn taken(begins: &[u64], looks: &[Look], rows: &[Row], counted: (i64, i64)) -> Result<Taken> {
    let there = there(looks)?;
    // When each offset's row was there, and whether it was met.
    let mut seen: Vec<Vec<Option<(i64, bool)>>> = vec![Vec::new(); begins.len()];
    for span in looks.iter().flat_map(|look| &look.spans) {
        let (begin, of) = begins.get(span.partition).zip(seen.get_mut(span.partition)).context("no partition")?;
        // Spans of earlier runs end before, and none reaches over.
        let Some(first) = span.first.checked_sub(*begin) else { continue };
        let (first, last) = (usize::try_from(first)?, usize::try_from(span.last - begin)?);
        let at = *there.get(&span.batch).context("a batch that no answer held")?;
        if of.len() <= last {
            of.resize(last + 1, None);
        }
        for place in &mut of[first..=last] {
            // A batch that was stored again: the first counts.
            *place = Some((place.map_or(at, |(before, _)| before.min(at)), false));
        }
    }
    let mut events = Vec::with_capacity(rows.len());
    let mut by_batch = 0_i128;
    for Row { partition, offset, due } in rows {
        let place = offset.checked_sub(*begins.get(*partition).context("a row of no partition")?);
        let place = place.and_then(|place| seen[*partition].get_mut(usize::try_from(place).ok()?)?.as_mut());
        let (at, is_met) =
            place.with_context(|| format!("the ledger lacks offset {offset} of partition {partition}"))?;
        ensure!(!std::mem::replace(is_met, true), "offset {offset} of partition {partition} has two rows");
        by_batch += i128::from(*at);
        if (counted.0..counted.1).contains(due) {
            events.push(Duration::from_micros(u64::try_from(*at - due).unwrap_or(0)));
        }
    }
    events.sort_unstable();
    // The sum of the times at which rows were there does not depend on which row it was.
    let before = looks.first().map_or(0, |look| look.rows);
    let (mut by_count, mut count) = (0_i128, before);
    for look in looks {
        by_count += i128::from(look.rows.saturating_sub(count)) * i128::from(look.at);
        count = count.max(look.rows);
    }
    ensure!(count - before == rows.len() as u64, "{} rows were seen to come, {} are there", count - before, rows.len());
    let too_long = (by_batch - by_count).max(0) / (rows.len().max(1) as i128);
    Ok(Taken { events, too_long: Duration::from_micros(u64::try_from(too_long)?) })
}

/// The value that so many of 1,000 do not exceed (nearest rank). Zero when there is none.
pub(super) fn rank(sorted: &[Duration], of_thousand: usize) -> Duration {
    let place = (sorted.len() * of_thousand).div_ceil(1_000).max(1) - 1;
    sorted.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Spans as partition, first, last and batch.
    fn look(at: i64, rows: u64, spans: &[(usize, u64, u64, i64)]) -> Look {
        let span = |(partition, first, last, batch): &(usize, u64, u64, i64)| Span {
            partition: *partition,
            first: *first,
            last: *last,
            batch: *batch,
            rows: last - first + 1,
        };
        Look { at, rows, spans: spans.iter().map(span).collect() }
    }

    fn row(partition: usize, offset: u64, due: i64) -> Row {
        Row { partition, offset, due }
    }

    fn micros(taken: &Taken) -> Vec<u128> {
        taken.events.iter().map(Duration::as_micros).collect()
    }

    #[test]
    fn rows_are_there_when_their_number_grows_by_their_batch() {
        // Three rows lie there from before. Batch 7 has three rows, 8 has one; 8 comes first, and the ledger has both in one answer.
        let looks = [
            look(1_000, 3, &[]),
            look(2_000, 4, &[]),
            look(3_000, 7, &[]),
            look(4_000, 7, &[(0, 5, 5, 7), (1, 10, 11, 7), (1, 12, 12, 8)]),
        ];
        let rows = [row(0, 5, 1_500), row(1, 10, 1_600), row(1, 11, 1_700), row(1, 12, 1_800)];
        let all = taken(&[5, 10], &looks, &rows, (0, 9_999)).unwrap();
        assert_eq!(micros(&all), [200, 1_300, 1_400, 1_500]);
        assert_eq!(all.too_long, Duration::ZERO);
        // The end is excluded, the begin is not.
        assert_eq!(micros(&taken(&[5, 10], &looks, &rows, (1_500, 1_700)).unwrap()), [1_400, 1_500]);
    }

    #[test]
    fn a_growth_that_is_no_sum_waits_for_the_ledger() {
        // Two rows of a batch of three are counted first, which no insert does: an upper bound is what is left.
        let looks = [look(0, 0, &[]), look(1_000, 2, &[]), look(2_000, 3, &[]), look(3_000, 3, &[(0, 0, 2, 1)])];
        let rows = [row(0, 0, 0), row(0, 1, 0), row(0, 2, 0)];
        assert_eq!(micros(&taken(&[0], &looks, &rows, (0, 9)).unwrap()), [2_000; 3]);
        let looks = [look(0, 0, &[]), look(1_000, 2, &[]), look(2_000, 3, &[(0, 0, 0, 1), (0, 1, 1, 2), (0, 2, 2, 3)])];
        let one_by_one = taken(&[0], &looks, &rows, (0, 9)).unwrap();
        assert_eq!(micros(&one_by_one), [1_000, 1_000, 2_000]);
        let looks =
            [look(0, 0, &[]), look(1_000, 4, &[]), look(2_000, 4, &[(0, 0, 2, 1)]), look(3_000, 4, &[(0, 3, 3, 2)])];
        let rows = [&rows[..], &[row(0, 3, 0)]].concat();
        assert_eq!(micros(&taken(&[0], &looks, &rows, (0, 9)).unwrap()), [1_000; 4]);
    }

    #[test]
    fn where_the_ledger_alone_tells_it_counts_and_is_called_too_long() {
        // Batch 1 has a row more than ever was counted until the last answer.
        let looks = [look(0, 0, &[]), look(1_000, 1, &[]), look(3_000, 1, &[(0, 0, 1, 1)]), look(4_000, 2, &[])];
        let all = taken(&[0], &looks, &[row(0, 0, 0), row(0, 1, 0)], (0, 9)).unwrap();
        assert_eq!(micros(&all), [3_000, 3_000]);
        // Counted at 1 and 4 ms, told at 3 and 3.
        assert_eq!(all.too_long, Duration::from_micros(500));
    }

    #[test]
    fn what_is_wrong_is_no_figure() {
        let looks = [look(0, 0, &[]), look(1_000, 2, &[(0, 0, 1, 1)])];
        let refused = |rows: &[Row]| taken(&[0], &looks, rows, (0, 9)).unwrap_err().to_string();
        assert_eq!(refused(&[row(0, 0, 0), row(0, 0, 0)]), "offset 0 of partition 0 has two rows");
        assert_eq!(refused(&[row(0, 0, 0)]), "2 rows were seen to come, 1 are there");
        assert_eq!(refused(&[row(0, 2, 0)]), "the ledger lacks offset 2 of partition 0");
        assert_eq!(refused(&[row(1, 0, 0)]), "a row of no partition");
    }

    #[test]
    fn ranks_are_the_nearest() {
        let all: Vec<Duration> = (1..=2_000).map(Duration::from_millis).collect();
        assert_eq!([500, 990, 999, 1_000].map(|part| rank(&all, part).as_millis()), [1_000, 1_980, 1_998, 2_000]);
        assert_eq!(rank(&[], 990), Duration::ZERO);
    }
}
