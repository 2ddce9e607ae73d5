//! Inserts: the whole body at once, under a deduplication token, with one limit from the first byte to the answer.
//!
//! A retry sends the same bytes and the same token. The token saves the work of a second insert where ClickHouse still remembers the first;
//! what makes a repeated row one row is its identity in the table, never the token.

use clickhouse::error::Error;
use clickhouse::{Row, RowWrite};
use tokio::time::{Instant, timeout_at};

use crate::body::EventBody;
use crate::client::Store;
use crate::columns::EVENT_COLUMNS;
use crate::errors::{CallError, ErrorClass, InsertError};
use crate::faults;
use crate::rows::{DeadLetterRow, LedgerRow};
use crate::shape::ShapeError;

/// Settings of every insert, each against a default that would break a promise or cost.
pub(crate) const INSERT_SETTINGS: &[(&str, &str)] = &[
    // The answer means: the rows are in the table.
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    // Duplicates of one batch are merged later anyway; sorting them out here costs two thirds of the insert.
    ("optimize_on_insert", "0"),
    // Through a Distributed table too: not before the shard has them.
    ("distributed_foreground_insert", "1"),
    // Events of any time arrive together; refusing a batch of many months would stop the partition for ever.
    ("max_partitions_per_insert_block", "0"),
];

/// A parameter of the request, not a setting: no 200 before the work is done, so that a failure is not hidden behind it.
const WAIT_FOR_THE_END: (&str, &str) = ("wait_end_of_query", "1");

/// One body becomes one block, so that it lands whole or not at all in each partition of the table, under one token.
const EVENT_SETTINGS: &[(&str, &str)] = &[
    ("max_insert_block_size", "10000000"),
    ("min_insert_block_size_rows", "10000000"),
    ("min_insert_block_size_bytes", "10000000000"),
    ("input_format_parallel_parsing", "0"),
    ("max_insert_threads", "1"),
    // Another way to a column than by its exact name would hide that it is missing.
    ("input_format_arrow_allow_missing_columns", "0"),
];

impl Store {
    /// Inserts a body of events; returns when its rows are in the table.
    ///
    /// `token` names this body: the same token with another body would lose it silently, so it must hold the body's hash.
    ///
    /// # Errors
    /// With the class that says what to do. After [`ErrorClass::Retry`] the rows may or may not be in the table.
    pub async fn insert_events(&self, body: &EventBody, token: &str) -> Result<(), InsertError> {
        let limit = self.inner.insert_timeout;
        let mut insert = self.inner.client.insert_formatted_with(self.insert_statement());
        for (name, value) in INSERT_SETTINGS.iter().chain(EVENT_SETTINGS).chain([&WAIT_FOR_THE_END]) {
            insert = insert.with_setting(*name, *value);
        }
        let token = faults::token(token);
        let mut insert =
            insert.with_setting("insert_deduplication_token", token).with_timeouts(Some(limit), Some(limit));
        let deadline = Instant::now() + limit;
        let sent = async {
            let half = body.chunks().len() / 2;
            for (number, chunk) in body.chunks().iter().enumerate() {
                if number == half {
                    faults::crash_half_sent(&mut insert, chunk).await;
                }
                insert.send(chunk.clone()).await?;
            }
            Ok(())
        };
        let result = match timeout_at(deadline, sent).await {
            // On a task of its own: dropped here at the deadline, the client would leave the request running; there it closes it by its own limit.
            Ok(Ok(())) => {
                let answer = tokio::spawn(insert.end());
                faults::crash_unheard().await;
                match timeout_at(deadline, answer).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(_)) => Err(Error::Custom("the insert's task ended".to_owned())),
                    Err(_) => Err(Error::TimedOut),
                }
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::TimedOut),
        };
        match result.map_err(|error| self.call_error(&error, limit)) {
            Err(error) if error.class == ErrorClass::Bisect => Err(self.not_the_table(error).await),
            other => other,
        }
    }

    /// Inserts spans of the ledger.
    ///
    /// # Errors
    /// As [`Store::insert_events`]; [`ErrorClass::Bisect`] does not occur.
    pub async fn insert_ledger(&self, rows: &[LedgerRow], token: &str) -> Result<(), InsertError> {
        self.insert_rows("ledger", rows, token).await
    }

    /// Inserts dead letters, so that people can query them. The dead-letter topic stays their true home.
    ///
    /// # Errors
    /// As [`Store::insert_events`]; [`ErrorClass::Bisect`] does not occur.
    pub async fn insert_dead_letters(&self, rows: &[DeadLetterRow], token: &str) -> Result<(), InsertError> {
        self.insert_rows("dead_letters", rows, token).await
    }

    async fn insert_rows<R>(&self, table: &str, rows: &[R], token: &str) -> Result<(), InsertError>
    where
        R: RowWrite + for<'a> Row<Value<'a> = R>,
    {
        let limit = self.inner.insert_timeout;
        // Validation would ask the server for the table's columns first; `check_tables` has done that.
        let client = self.inner.client.clone().with_database(&self.inner.database).with_validation(false);
        let work = async {
            let mut insert = client.insert::<R>(table).await?.with_timeouts(Some(limit), Some(limit));
            for (name, value) in INSERT_SETTINGS.iter().chain([&WAIT_FOR_THE_END]) {
                insert = insert.with_setting(*name, *value);
            }
            insert = insert.with_setting("insert_deduplication_token", token);
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        };
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result.map_err(|error| {
                let error = self.call_error(&error, limit);
                // The rows are made by this program for its own table: what does not fit is the table.
                if error.class == ErrorClass::Bisect { CallError { class: ErrorClass::Halt, ..error } } else { error }
            }),
            Err(_) => Err(CallError::timed_out(limit)),
        }
    }

    /// An error that blames the data, unless the table has changed under it.
    async fn not_the_table(&self, blamed: CallError) -> CallError {
        match self.check_tables().await {
            Ok(()) => blamed,
            Err(ShapeError::Ask(error)) => CallError {
                message: format!("{}; and the table could not be checked: {error}", blamed.message),
                ..error
            },
            Err(shape) => CallError {
                class: ErrorClass::Halt,
                code: blamed.code,
                message: format!("{}; {shape}", blamed.message),
                column: None,
            },
        }
    }

    /// Names every column, so that columns that were added later take their defaults.
    fn insert_statement(&self) -> String {
        let mut sql = format!("INSERT INTO `{}`.`events` (", self.inner.database);
        for (index, column) in EVENT_COLUMNS.iter().chain(faults::later_columns()).enumerate() {
            if index > 0 {
                sql.push_str(", ");
            }
            sql.push('`');
            sql.push_str(column.name);
            sql.push('`');
        }
        sql.push_str(") FORMAT ArrowStream");
        sql
    }
}
