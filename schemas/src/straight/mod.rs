//! The straight way from a record's body to Arrow columns.
//!
//! A writer schema and the reader schema are compiled once to a list of steps (`plan.rs`): read this into that column, skip that, put a default. A
//! record is then one pass over its bytes that checks and appends (`run.rs`), in a third of the time of the guard and arrow-avro together. Columns do
//! not depend on each other, so each is appended to in the writer's order of fields; all writers share them, and a batch of many versions costs what one does.
//! What is not perfectly regular here is not judged here: the row is taken back and the record goes the long way, by the guard, which names what is wrong, and
//! by arrow-avro. So does every record of a schema that no plan can be made for.
//!
//! Whatever is accepted here the guard accepts too, and arrow-avro makes the same row of it; the tests and the fuzzer hold both to that. Two things
//! differ in form: an absent text is an empty one, as the table has it, and columns of few words are dictionaries (`words.rs`). The content hash of each row
//! is made on the way (`hash.rs`), of the bytes as they came where they are canonical.

mod column;
mod columns;
mod hash;
mod input;
mod plan;
mod run;
mod steps;
mod target;
#[cfg(test)]
mod tests;
mod words;

use arrow_array::{FixedSizeBinaryArray, RecordBatch};
use arrow_schema::{ArrowError, SchemaRef};

use self::columns::Columns;
pub(crate) use self::steps::Plan;

/// Rows that are decoded before they move on together. Written one event after the other, sixty columns are sixty places in memory, more than the
/// processor fetches ahead; of so many rows all of them stay in its cache (a third less time than without; 500 to 2,000 rows make no difference).
const STAGE_ROWS: usize = 1024;

/// The events taken since the last [`StraightLane::take`].
#[derive(Debug)]
pub(crate) struct StraightLane {
    stage: Columns,
    rest: Columns,
}

/// What a lane gives out.
pub(crate) struct Taken {
    pub(crate) batch: RecordBatch,
    /// Of each row, as [`crate::content_hash`] has it.
    pub(crate) content_hashes: FixedSizeBinaryArray,
}

impl StraightLane {
    /// For events of a reader schema, which has v1's fields and perhaps texts behind them.
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        Self { stage: Columns::new(schema), rest: Columns::new(schema) }
    }

    /// Appends a body as a row, or answers `None` and is as before. The plan is for the same reader schema.
    pub(crate) fn push(&mut self, body: &[u8], plan: &Plan) -> Option<()> {
        if self.stage.rows() == STAGE_ROWS {
            self.rest.append(&mut self.stage);
        }
        self.stage.push(body, plan)
    }

    /// The rows as a batch of `schema`, which is the reader's, but that columns of words may be dictionaries; empty afterwards.
    ///
    /// # Errors
    /// The schema is another one.
    pub(crate) fn take(&mut self, schema: &SchemaRef) -> Result<Taken, ArrowError> {
        self.rest.append(&mut self.stage);
        self.stage.forget_words();
        self.rest.take(schema)
    }
}
