//! When ClickHouse refuses a body for its data: halves, and halves of halves, until the rows at fault stand alone.
//!
//! Everything else lands. With `k` rows at fault among `n`, about `2 k log2(n / k) + 2 k` inserts are made, so the number of rows at fault is bounded: beyond
//! [`MAX_REFUSED`] it is no longer the rows' fault, and a human has to look.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};

use crate::body::{EventBody, body_of};
use crate::client::Store;
use crate::errors::{CallError, ErrorClass, InsertError};

/// Rows of one batch that may be refused; more than that, and the table is at fault or the producer, not a row.
pub const MAX_REFUSED: usize = 1_000;

/// A row that ClickHouse refuses for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// Partition of its record.
    pub partition: i32,
    /// Offset of its record.
    pub offset: i64,
    /// ClickHouse's error code.
    pub code: Option<u32>,
    /// For people. Holds no value of the row.
    pub message: String,
    /// The columns that ClickHouse blames, where it names some.
    pub column: Option<Box<str>>,
    /// How many inserts held the row in this search, the last with the row alone.
    pub inserts: u32,
    /// When ClickHouse refused it alone: milliseconds since 1970.
    pub refused_at_ms: i64,
}

impl Store {
    /// Inserts `body` in so many inserts of about equal size, one after the other: for a ClickHouse that has too little memory for one. The pieces have
    /// tokens of their own, the same ones at every call with the same number.
    ///
    /// # Errors
    /// As [`Store::insert_events`], of the first piece that fails; those before it are stored.
    pub async fn insert_in_pieces(&self, body: &EventBody, token: &str, pieces: u32) -> Result<(), InsertError> {
        if pieces <= 1 {
            return self.insert_events(body, token).await;
        }
        let batches = body.batches();
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let size = rows.div_ceil(usize::try_from(pieces).unwrap_or(1)).max(1);
        for start in (0..rows).step_by(size) {
            let range = start..rows.min(start + size);
            let part = part_of(body, &range)?;
            self.insert_events(&part, &part_token(token, &range)).await?;
        }
        Ok(())
    }

    /// Inserts all rows of `body` but those that ClickHouse refuses for themselves, and answers which those are. For a body whose whole was refused with
    /// [`ErrorClass::Bisect`].
    ///
    /// Each part has a token of its own made from `token`, the same ones at every call, so that a second try skips what already landed.
    ///
    /// # Errors
    /// With the class that says what to do; never [`ErrorClass::Bisect`].
    pub async fn insert_all_but_refused(&self, body: &EventBody, token: &str) -> Result<Vec<RefusedRow>, InsertError> {
        let batches = body.batches();
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        let mut refused = Vec::new();
        let mut pending: Vec<_> = halves(0..rows).into_iter().map(|range| (range, 1)).collect();
        while let Some((range, inserts)) = pending.pop() {
            let part_body = part_of(body, &range)?;
            match self.insert_events(&part_body, &part_token(token, &range)).await {
                Ok(()) => {}
                Err(error) if error.class == ErrorClass::Bisect && range.len() > 1 => {
                    pending.extend(halves(range).into_iter().map(|range| (range, inserts + 1)));
                }
                Err(error) if error.class == ErrorClass::Bisect => {
                    refused.extend(part_body.batches().first().and_then(position).map(|(partition, offset)| {
                        RefusedRow {
                            partition,
                            offset,
                            code: error.code,
                            message: error.message,
                            column: error.column,
                            inserts,
                            refused_at_ms: now_ms(),
                        }
                    }));
                    if refused.len() > MAX_REFUSED {
                        return Err(CallError::halt(format!(
                            "clickhouse refuses more than {MAX_REFUSED} rows of one batch: the table or a producer is at fault, not single rows"
                        )));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        refused.sort_by_key(|row| (row.partition, row.offset));
        Ok(refused)
    }
}

fn part_of(body: &EventBody, range: &Range<usize>) -> Result<EventBody, InsertError> {
    body_of(slice(body.batches(), range), body.hash)
        .map_err(|error| CallError::halt(format!("a body could not be split: {error}")))
}

/// The body's hash in `token` names the whole; the range beside it the part.
fn part_token(token: &str, range: &Range<usize>) -> String {
    format!("{token}/{}-{}", range.start, range.end)
}

/// Milliseconds since 1970 on this machine's clock.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The second half first, so that a stack yields the rows in order. One row has no halves: it stays whole.
fn halves(range: Range<usize>) -> Vec<Range<usize>> {
    if range.len() <= 1 {
        return vec![range];
    }
    let middle = range.start + range.len() / 2;
    vec![middle..range.end, range.start..middle]
}

/// The rows `range`, counted over all batches.
fn slice(batches: &[RecordBatch], range: &Range<usize>) -> Vec<RecordBatch> {
    let mut parts = Vec::new();
    let mut start = 0;
    for batch in batches {
        let end = start + batch.num_rows();
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            parts.push(batch.slice(from - start, to - from));
        }
        start = end;
    }
    parts
}

/// Partition and offset of the first row.
fn position(row: &RecordBatch) -> Option<(i32, i64)> {
    let partition = row.column_by_name("_partition")?.as_primitive_opt::<Int32Type>()?;
    let offset = row.column_by_name("_offset")?.as_primitive_opt::<Int64Type>()?;
    (row.num_rows() > 0).then(|| (partition.value(0), offset.value(0)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int32Array, Int64Array, StringArray};
    use arrow_ipc::reader::StreamReader;

    use super::*;

    fn batch(offsets: Range<i64>) -> RecordBatch {
        let partitions = Int32Array::from_iter_values(offsets.clone().map(|_| 2));
        let texts = StringArray::from_iter_values(offsets.clone().map(|offset| format!("text {offset}")));
        let columns: [(&str, ArrayRef); 3] = [
            ("_partition", Arc::new(partitions)),
            ("_offset", Arc::new(Int64Array::from_iter_values(offsets))),
            ("text", Arc::new(texts)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn offsets(batches: &[RecordBatch]) -> Vec<i64> {
        batches.iter().flat_map(|batch| batch["_offset"].as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn every_row_is_in_exactly_one_half_down_to_single_rows() {
        let batches = [batch(0..5), batch(5..6), batch(6..13)];
        let mut pending = halves(0..13);
        let mut seen = Vec::new();
        while let Some(range) = pending.pop() {
            let part = slice(&batches, &range);
            assert_eq!(part.iter().map(RecordBatch::num_rows).sum::<usize>(), range.len());
            if range.len() > 1 {
                pending.extend(halves(range));
            } else {
                // Through the wire: a slice must not carry its neighbours.
                let stream = body_of(part, [0; 16]).unwrap().chunks().concat();
                let again: Vec<_> = StreamReader::try_new(&*stream, None).unwrap().map(Result::unwrap).collect();
                seen.extend(offsets(&again));
                assert_eq!(position(&again[0]), Some((2, range.start as i64)));
            }
        }
        assert_eq!(seen, (0..13).collect::<Vec<_>>());
    }

    #[test]
    fn one_row_stays_whole() {
        assert_eq!(halves(7..8), std::slice::from_ref(&(7..8)));
    }
}
