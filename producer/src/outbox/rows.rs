//! The relay's statements on the rows: take, settle, refuse, purge, look.

use std::collections::BTreeSet;

use super::config::Sent;
use super::database::{Arg, Database, DatabaseError, list};
use super::ddl::Table;
use super::faults::{Point, crash_point};
use super::status;

/// Numbers in one statement: short enough that no database minds its text.
const CHUNK: usize = 5_000;

/// A row to be sent.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) seq: i64,
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) source: String,
    pub(crate) time: String,
    pub(crate) traceparent: Option<String>,
    pub(crate) attempts: i64,
    pub(crate) created_at: i64,
    /// It has an idempotency key, so it stays a while after it was sent.
    pub(crate) is_keyed: bool,
}

impl Row {
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len() + self.key.len() + self.source.len() + 512
    }
}

/// What a round may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// The rows of one outbox.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    pub(crate) database: Database,
    pub(crate) table: Table,
}

impl Rows {
    /// Fails when the tables are not there.
    pub(crate) async fn check(&self) -> Result<(), DatabaseError> {
        let (table, leases) = (&self.table, self.table.leases());
        let what = "can't read the outbox's tables; `auditstream outbox migrate` makes them";
        let sql = format!("SELECT seq FROM {table} WHERE status = 0 AND shard = 0 AND attempts < 0");
        self.database.fetch(what, &sql, &[], |row| row.int(0), |_| true).await?;
        let sql = format!("SELECT expires_at FROM {leases} WHERE owner = 'nobody'");
        self.database.fetch(what, &sql, &[], |row| row.int(0), |_| true).await.map(|_| ())
    }

    /// Rows whose time has come are pending from now on.
    pub(crate) async fn wake_delayed(&self) -> Result<u64, DatabaseError> {
        let (table, now) = (&self.table, self.database.dialect.now());
        let (pending, delayed) = (status::PENDING, status::DELAYED);
        let what = "can't wake delayed rows";
        let due = format!("WHERE status = {delayed} AND available_at <= {now}");
        // A look first: on SQLite even an UPDATE of nothing keeps the service's writers waiting.
        let sql = format!("SELECT seq FROM {table} {due} LIMIT 1");
        if self.database.fetch(what, &sql, &[], |row| row.int(0), |_| true).await?.is_empty() {
            return Ok(0);
        }
        let sql = format!("UPDATE {table} SET status = {pending} {due}");
        self.database.execute(what, &sql, &[]).await
    }

    /// Pending rows of these shards in order, as many as the bound lets through, and at least one.
    pub(crate) async fn take(&self, shards: &BTreeSet<u32>, bound: Bound) -> Result<Vec<Row>, DatabaseError> {
        if shards.is_empty() {
            return Ok(Vec::new());
        }
        let (table, pending, limit) = (&self.table, status::PENDING, bound.rows);
        let of_ours = if shards.len() == super::SHARDS as usize {
            String::new()
        } else {
            let shards: Vec<i64> = shards.iter().map(|shard| i64::from(*shard)).collect();
            format!(" AND shard IN ({})", list(&shards))
        };
        let sql = format!(
            "SELECT seq, CAST(id AS CHAR(36)), aggregateid, payload, ce_source, ce_time, traceparent, attempts, created_at, \
             idempotency_key FROM {table} WHERE status = {pending}{of_ours} ORDER BY seq LIMIT {limit}"
        );
        let mut bytes = 0;
        self.database
            .fetch(
                "can't read pending rows",
                &sql,
                &[],
                |row| {
                    Ok(Row {
                        seq: row.int(0)?,
                        id: row.text(1)?,
                        key: row.text(2)?,
                        payload: row.bytes(3)?,
                        source: row.text(4)?,
                        time: row.text(5)?,
                        traceparent: row.optional(6)?,
                        attempts: row.int(7)?,
                        created_at: row.int(8)?,
                        is_keyed: row.optional(9)?.is_some(),
                    })
                },
                |row| {
                    bytes += row.bytes();
                    bytes >= bound.bytes
                },
            )
            .await
    }

    /// These were sent: removes or marks them. A row with an idempotency key is always marked, so that the key stays taken; its payload goes.
    pub(crate) async fn sent(&self, rows: &[&Row], mode: Sent) -> Result<(), DatabaseError> {
        let what = "can't note that rows were sent";
        let (table, now, sent) = (&self.table, self.database.dialect.now(), status::SENT);
        let (keep, remove): (Vec<&Row>, Vec<&Row>) =
            rows.iter().copied().partition(|row| mode == Sent::Mark || row.is_keyed);
        for chunk in remove.chunks(CHUNK) {
            let sql = format!("DELETE FROM {table} WHERE seq IN ({})", list(&seqs(chunk)));
            self.database.execute(what, &sql, &[]).await?;
        }
        crash_point(Point::HalfSettled);
        let payload = if mode == Sent::Mark { "" } else { ", payload = ''" };
        for chunk in keep.chunks(CHUNK) {
            let sql = format!(
                "UPDATE {table} SET status = {sent}, available_at = {now}, last_error = NULL{payload} WHERE seq IN ({})",
                list(&seqs(chunk))
            );
            self.database.execute(what, &sql, &[]).await?;
        }
        Ok(())
    }

    /// Refused for itself: tried again after `delay_ms`, or failed for good when that is `None`.
    pub(crate) async fn refused(&self, row: &Row, reason: &str, delay_ms: Option<i64>) -> Result<(), DatabaseError> {
        let (table, now) = (&self.table, self.database.dialect.now());
        let next = if delay_ms.is_some() { status::DELAYED } else { status::FAILED };
        let pending = status::PENDING;
        let sql = format!(
            "UPDATE {table} SET status = {next}, attempts = attempts + 1, last_error = ?, available_at = {now} + ? \
             WHERE seq = ? AND status = {pending}"
        );
        let args = [Arg::Text(reason), Arg::Int(delay_ms.unwrap_or(0)), Arg::Int(row.seq)];
        self.database.execute("can't note that a row was refused", &sql, &args).await.map(|_| ())
    }

    /// Removes rows that were sent longer ago than that.
    pub(crate) async fn purge(&self, older_than_ms: i64) -> Result<u64, DatabaseError> {
        let (table, now, sent) = (&self.table, self.database.dialect.now(), status::SENT);
        let sql = format!(
            "SELECT seq FROM {table} WHERE status = {sent} AND available_at < {now} - ? ORDER BY available_at LIMIT {CHUNK}"
        );
        let what = "can't remove rows that were sent long ago";
        let old = self.database.fetch(what, &sql, &[Arg::Int(older_than_ms)], |row| row.int(0), |_| false).await?;
        if old.is_empty() {
            return Ok(0);
        }
        let sql = format!("DELETE FROM {table} WHERE status = {sent} AND seq IN ({})", list(&old));
        self.database.execute(what, &sql, &[]).await
    }

    /// How many rows failed, and how long the first pending row has waited, in milliseconds.
    pub(crate) async fn look(&self) -> Result<(i64, i64), DatabaseError> {
        let (table, now) = (&self.table, self.database.dialect.now());
        let (pending, failed) = (status::PENDING, status::FAILED);
        let what = "can't look at the outbox";
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE status = {failed}");
        let count = self.database.fetch(what, &sql, &[], |row| row.int(0), |_| true).await?;
        let sql = format!("SELECT {now} - created_at FROM {table} WHERE status = {pending} ORDER BY seq LIMIT 1");
        let age = self.database.fetch(what, &sql, &[], |row| row.int(0), |_| true).await?;
        Ok((count.first().copied().unwrap_or(0), age.first().copied().unwrap_or(0).max(0)))
    }
}

fn seqs(rows: &[&Row]) -> Vec<i64> {
    rows.iter().map(|row| row.seq).collect()
}
