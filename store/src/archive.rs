//! Partitions of `events` out to files and back: what is read, how it is compared, and how a partition leaves the table.
//!
//! A partition goes in pieces: one for each day of `occurred_at`, or several by a hash of the event id when the day has many rows. A piece is chosen by
//! its rows alone, so that a restore finds the same rows again. Two sides are compared by the number of rows and the sum of a 128-bit hash over every
//! column of every row, which does not depend on the rows' order.
//!
//! A partition is dropped by moving it, at once and whole, to a table of its own; only when that one holds exactly what was archived is it dropped.
//! What was inserted in the meantime is thus either seen, and then the partition moves back, or lands in a new part of `events`.

use bytes::Bytes;
use clickhouse::Row;
use clickhouse::query::BytesCursor;
use serde::Deserialize;

use crate::client::{Store, quoted};
use crate::errors::CallError;
use crate::retention::{HoldScope, Retention, held};

/// A piece has at most about so many rows: ClickHouse holds a whole Parquet file in memory while it reads it.
pub const PIECE_ROWS: u64 = 1_000_000;

/// A column of `events`.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct ArchivedColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub clickhouse_type: String,
}

/// A partition on disk.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct PartitionOnDisk {
    /// Its id: the month `202611`, or the day `20261122`, whichever the table is divided by.
    pub id: String,
    /// Rows, duplicates that were not merged yet among them.
    pub rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Rows of a partition that go to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The partition.
    pub partition: String,
    /// Day of `occurred_at`, `YYYY-MM-DD`.
    pub day: String,
    /// The day's rows are in so many pieces.
    pub of: u64,
    /// Which of them, from 0.
    pub number: u64,
}

/// Rows, and the sum of their hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub struct Fingerprint {
    /// How many.
    pub rows: u64,
    /// Sum of the hashes, modulo 2^128, in decimal digits.
    pub hash: String,
}

/// A table of its own that holds one file's rows, to be compared.
#[derive(Debug)]
pub struct Staging {
    table: String,
}

impl Piece {
    /// The condition for its rows. Columns of the sorting key only: a row and its duplicates are in one piece.
    fn condition(&self) -> String {
        let mut condition = format!(
            "_partition_id = {} AND toString(toDate32(occurred_at)) = {}",
            quoted(&self.partition),
            quoted(&self.day)
        );
        if self.of > 1 {
            condition.push_str(&format!(" AND cityHash64(event_id) % {} = {}", self.of, self.number));
        }
        condition
    }
}

/// What makes `FINAL` cheap: rows of one identity have one `occurred_at`, and so one partition.
const FINAL: &str = "SETTINGS final = 0, do_not_merge_across_partitions_select_final = 1";

fn names(columns: &[ArchivedColumn]) -> String {
    columns.iter().map(|column| format!("`{}`", column.name)).collect::<Vec<_>>().join(", ")
}

fn fingerprint(columns: &[ArchivedColumn]) -> String {
    format!("count() AS rows, toString(sum(reinterpretAsUInt128(sipHash128({})))) AS hash", names(columns))
}

impl Store {
    fn events_table(&self) -> String {
        format!("`{}`.`events`", self.database())
    }

    /// The columns of `events` that hold something of their own, in order.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn archived_columns(&self) -> Result<Vec<ArchivedColumn>, CallError> {
        self.fetch(&format!(
            "SELECT name, type FROM system.columns WHERE database = {} AND table = 'events' \
             AND default_kind NOT IN ('ALIAS', 'MATERIALIZED', 'EPHEMERAL') ORDER BY position",
            quoted(self.database())
        ))
        .await
    }

    /// The partitions of `events`, oldest first.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn partitions(&self) -> Result<Vec<PartitionOnDisk>, CallError> {
        self.fetch(&format!(
            "SELECT partition_id AS id, sum(rows) AS rows, sum(bytes_on_disk) AS bytes FROM system.parts \
             WHERE active AND database = {} AND table = 'events' GROUP BY id ORDER BY id",
            quoted(self.database())
        ))
        .await
    }

    /// The pieces of a partition, in the order of their days.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn pieces(&self, partition: &str, piece_rows: u64) -> Result<Vec<Piece>, CallError> {
        let days: Vec<(String, u64)> = self
            .fetch(&format!(
                "SELECT toString(toDate32(occurred_at)) AS day, count() AS rows FROM {} FINAL WHERE _partition_id = {} GROUP BY day ORDER BY day {FINAL}",
                self.events_table(),
                quoted(partition)
            ))
            .await?;
        let pieces = days.into_iter().flat_map(|(day, rows)| {
            let of = rows.div_ceil(piece_rows.max(1)).max(1);
            let partition = partition.to_owned();
            (0..of).map(move |number| Piece { partition: partition.clone(), day: day.clone(), of, number })
        });
        Ok(pieces.collect())
    }

    /// What `events` holds of a piece.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the insert timeout.
    pub async fn piece_in_events(&self, piece: &Piece, columns: &[ArchivedColumn]) -> Result<Fingerprint, CallError> {
        let sql = format!(
            "SELECT {} FROM {} FINAL WHERE {} {FINAL}",
            fingerprint(columns),
            self.events_table(),
            piece.condition()
        );
        self.fetch_one_slowly(&sql).await
    }

    /// What `events` holds of a partition.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the insert timeout.
    pub async fn partition_in_events(
        &self,
        partition: &str,
        columns: &[ArchivedColumn],
    ) -> Result<Fingerprint, CallError> {
        let events = self.events_table();
        let sql = format!(
            "SELECT {} FROM {events} FINAL WHERE _partition_id = {} {FINAL}",
            fingerprint(columns),
            quoted(partition)
        );
        self.fetch_one_slowly(&sql).await
    }

    /// The rows of a piece as a Parquet file, as it comes.
    ///
    /// # Errors
    /// When ClickHouse refuses. What breaks off later is an error of the cursor, or shows when the file is compared.
    pub fn piece_as_parquet(&self, piece: &Piece, columns: &[ArchivedColumn]) -> Result<BytesCursor, CallError> {
        let sql = format!(
            "SELECT {} FROM {} FINAL WHERE {} ORDER BY tenant_id, entity_type, entity_id, occurred_at, event_id, content_hash {FINAL}",
            names(columns),
            self.events_table(),
            piece.condition()
        );
        let mut query = self.inner.client.query_raw(&sql);
        for (name, value) in [
            ("output_format_parquet_compression_method", "zstd"),
            ("output_format_parquet_string_as_string", "1"),
            ("output_format_parquet_fixed_string_as_fixed_byte_array", "1"),
        ] {
            query = query.with_setting(name, value);
        }
        query.fetch_bytes("Parquet").map_err(|error| self.call_error(&error, self.inner.insert_timeout))
    }

    /// An error of a cursor, in the store's words.
    #[must_use]
    pub fn cursor_error(&self, error: &clickhouse::error::Error) -> CallError {
        self.call_error(error, self.inner.insert_timeout)
    }

    /// Makes a staging table called `name`, which nothing else has; drop it with [`Self::drop_staging`].
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn make_staging(&self, name: &str, columns: &[ArchivedColumn]) -> Result<Staging, CallError> {
        let table = format!("`{}`.`{name}`", self.database());
        let definitions: Vec<_> =
            columns.iter().map(|column| format!("`{}` {}", column.name, column.clickhouse_type)).collect();
        self.execute(&format!(
            "CREATE TABLE {table} ({}) ENGINE = MergeTree ORDER BY tuple() COMMENT 'Made by auditstream archive or restore, for its own use'",
            definitions.join(", ")
        ))
        .await?;
        Ok(Staging { table })
    }

    /// Puts the rows of a Parquet file, whose pieces `next` gives until it answers `None`, and no others into the staging table.
    ///
    /// # Errors
    /// `next`'s own; and when ClickHouse refuses the file or does not answer within the insert timeout.
    pub async fn stage<E: From<CallError>>(
        &self,
        staging: &Staging,
        columns: &[ArchivedColumn],
        mut next: impl AsyncFnMut() -> Result<Option<Bytes>, E>,
    ) -> Result<(), E> {
        self.execute(&format!("TRUNCATE TABLE {}", staging.table)).await?;
        let limit = self.inner.insert_timeout;
        let sql = format!("INSERT INTO {} ({}) FORMAT Parquet", staging.table, names(columns));
        let mut insert = self.inner.client.insert_formatted_with(sql).with_timeouts(Some(limit), Some(limit));
        for (name, value) in [("async_insert", "0"), ("wait_end_of_query", "1")] {
            insert = insert.with_setting(name, value);
        }
        while let Some(chunk) = next().await? {
            insert.send(chunk).await.map_err(|error| self.call_error(&error, limit))?;
        }
        Ok(insert.end().await.map_err(|error| self.call_error(&error, limit))?)
    }

    /// What the staging table holds.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the insert timeout.
    pub async fn staged(&self, staging: &Staging, columns: &[ArchivedColumn]) -> Result<Fingerprint, CallError> {
        self.fetch_one_slowly(&format!("SELECT {} FROM {}", fingerprint(columns), staging.table)).await
    }

    /// Staged rows that `events` does not hold, column by column.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the insert timeout.
    pub async fn missing(
        &self,
        staging: &Staging,
        piece: &Piece,
        columns: &[ArchivedColumn],
    ) -> Result<u64, CallError> {
        self.fetch_one_slowly(&format!(
            "SELECT count() FROM {} WHERE {}",
            staging.table,
            self.is_missing(piece, columns)
        ))
        .await
    }

    /// Inserts the staged rows that `events` does not hold.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the insert timeout.
    pub async fn insert_missing(
        &self,
        staging: &Staging,
        piece: &Piece,
        columns: &[ArchivedColumn],
    ) -> Result<(), CallError> {
        let (events, names) = (self.events_table(), names(columns));
        let sql = format!(
            "INSERT INTO {events} ({names}) SELECT {names} FROM {} WHERE {} \
             SETTINGS async_insert = 0, optimize_on_insert = 0, insert_deduplicate = 0, distributed_foreground_insert = 1, max_partitions_per_insert_block = 0",
            staging.table,
            self.is_missing(piece, columns)
        );
        self.execute_within(&sql, self.inner.insert_timeout).await
    }

    fn is_missing(&self, piece: &Piece, columns: &[ArchivedColumn]) -> String {
        let (events, hash) = (self.events_table(), format!("sipHash128({})", names(columns)));
        format!("{hash} NOT IN (SELECT {hash} FROM {events} WHERE {})", piece.condition())
    }

    /// Staged rows that the applied retention would delete again.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the insert timeout.
    pub async fn staged_past_their_time(
        &self,
        staging: &Staging,
        retention: &Retention,
        holds: &[HoldScope],
    ) -> Result<u64, CallError> {
        let not_held = held(holds).map(|held| format!(" AND NOT ({held})")).unwrap_or_default();
        let each = retention.classes().into_iter().filter(|class| class.days > 0).map(|class| {
            let condition = if class.condition.is_empty() { "1" } else { &class.condition };
            format!("(({condition}) AND {} <= now())", class.expiry())
        });
        let past = each.collect::<Vec<_>>().join(" OR ");
        if past.is_empty() {
            return Ok(0);
        }
        self.fetch_one_slowly(&format!("SELECT count() FROM {} WHERE ({past}){not_held}", staging.table)).await
    }

    /// Drops a staging table.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn drop_staging(&self, staging: Staging) -> Result<(), CallError> {
        self.execute(&format!("DROP TABLE IF EXISTS {}", staging.table)).await
    }

    /// Rows of a partition that a hold keeps.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the insert timeout.
    pub async fn held_in_partition(&self, partition: &str, holds: &[HoldScope]) -> Result<u64, CallError> {
        let Some(held) = held(holds) else { return Ok(0) };
        let sql = format!(
            "SELECT count() FROM {} WHERE _partition_id = {} AND ({held}) SETTINGS final = 0",
            self.events_table(),
            quoted(partition)
        );
        self.fetch_one_slowly(&sql).await
    }

    /// Drops a partition if it holds exactly `expected`, and answers whether it did. Otherwise it stays as it was.
    ///
    /// `aside` is the name of a table that nothing else has. When this fails, that table may hold the partition: [`Self::put_back`].
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the insert timeout.
    pub async fn drop_partition_if(
        &self,
        partition: &str,
        aside: &str,
        columns: &[ArchivedColumn],
        expected: &Fingerprint,
    ) -> Result<Result<(), Fingerprint>, CallError> {
        let (events, aside_table) = (self.events_table(), format!("`{}`.`{aside}`", self.database()));
        self.execute(&format!("CREATE TABLE {aside_table} AS {events}")).await?;
        let moved = format!("ALTER TABLE {events} MOVE PARTITION ID {} TO TABLE {aside_table}", quoted(partition));
        self.execute_within(&moved, self.inner.insert_timeout).await?;
        let sql = format!("SELECT {} FROM {aside_table} FINAL {FINAL}", fingerprint(columns));
        let found: Fingerprint = self.fetch_one_slowly(&sql).await?;
        if found == *expected {
            self.execute(&format!("DROP TABLE {aside_table}")).await?;
            return Ok(Ok(()));
        }
        self.put_back(partition, aside).await?;
        Ok(Err(found))
    }

    /// Tables that hold a partition that was to be dropped, and the partition's id.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn set_aside(&self) -> Result<Vec<(String, String)>, CallError> {
        self.fetch(&format!(
            "SELECT name, splitByChar('_', name)[3] AS partition FROM system.tables WHERE database = {} AND startsWith(name, 'archive_aside_') ORDER BY name",
            quoted(self.database())
        ))
        .await
    }

    /// Moves a partition back that was set aside, and drops the empty table.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the insert timeout.
    pub async fn put_back(&self, partition: &str, aside: &str) -> Result<(), CallError> {
        let (events, aside) = (self.events_table(), format!("`{}`.`{aside}`", self.database()));
        let back = format!("ALTER TABLE {aside} MOVE PARTITION ID {} TO TABLE {events}", quoted(partition));
        self.execute_within(&back, self.inner.insert_timeout).await?;
        self.execute(&format!("DROP TABLE {aside}")).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_chosen_by_its_rows_alone() {
        let piece = Piece { partition: "202611".to_owned(), day: "2026-11-22".to_owned(), of: 3, number: 2 };
        assert_eq!(
            piece.condition(),
            "_partition_id = '202611' AND toString(toDate32(occurred_at)) = '2026-11-22' AND cityHash64(event_id) % 3 = 2"
        );
        assert!(!Piece { of: 1, number: 0, ..piece }.condition().contains("cityHash64"));
    }
}
