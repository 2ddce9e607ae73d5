//! Rows that can't be sent, as a person looks at them and decides: list, show, retry, remove.

use super::database::{Arg, Database, DatabaseError, list};
use super::ddl::Table;
use super::status;

/// A row that was refused as often as allowed. Holds no payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRow {
    /// Its place in the outbox's order.
    pub seq: i64,
    /// The event's id.
    pub id: String,
    /// The Kafka record's key: tenant, entity type and entity id.
    pub key: String,
    /// The action.
    pub action: String,
    /// Times it was tried.
    pub attempts: i64,
    /// Recorded at, milliseconds since 1970.
    pub created_at: i64,
    /// Why it was refused, the last time.
    pub last_error: String,
    /// The payload's length, bytes.
    pub payload_bytes: i64,
}

/// How many rows an outbox holds that are not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Rows that wait for a relay, those that wait for their time among them.
    pub waiting: i64,
    /// Rows that were refused as often as allowed.
    pub failed: i64,
}

impl Database {
    /// How many rows of `table` are not sent.
    ///
    /// # Errors
    /// The database refused.
    pub async fn depth(&self, table: &Table) -> Result<Depth, DatabaseError> {
        let count = async |statuses: &str| {
            let sql = format!("SELECT COUNT(*) FROM {table} WHERE status IN ({statuses})");
            let rows = self.fetch("can't count the rows", &sql, &[], |row| row.int(0), |_| false).await?;
            Ok(rows.first().copied().unwrap_or(0))
        };
        let waiting = count(&format!("{}, {}", status::PENDING, status::DELAYED)).await?;
        Ok(Depth { waiting, failed: count(&status::FAILED.to_string()).await? })
    }

    /// Failed rows in the order in which they were recorded, at most `limit`.
    ///
    /// # Errors
    /// The database refused.
    pub async fn failed_rows(&self, table: &Table, limit: u32) -> Result<Vec<FailedRow>, DatabaseError> {
        self.failed_where(table, "1 = 1", &[], limit).await
    }

    /// The failed row of an event; `None` when there is none.
    ///
    /// # Errors
    /// The database refused.
    pub async fn failed_row(&self, table: &Table, id: uuid::Uuid) -> Result<Option<FailedRow>, DatabaseError> {
        let id = id.to_string();
        Ok(self.failed_where(table, "CAST(id AS CHAR(36)) = ?", &[Arg::Text(&id)], 1).await?.pop())
    }

    async fn failed_where(
        &self,
        table: &Table,
        condition: &str,
        args: &[Arg<'_>],
        limit: u32,
    ) -> Result<Vec<FailedRow>, DatabaseError> {
        let failed = status::FAILED;
        let integer = if self.dialect == super::Dialect::Mysql { "SIGNED" } else { "BIGINT" };
        let sql = format!(
            "SELECT seq, CAST(id AS CHAR(36)), aggregateid, type, attempts, created_at, last_error, \
             CAST(OCTET_LENGTH(payload) AS {integer}) FROM {table} WHERE status = {failed} AND {condition} ORDER BY seq LIMIT {limit}"
        );
        // SQLite knows the length of a blob by another name in its older versions.
        let sql = if self.dialect == super::Dialect::Sqlite { sql.replace("OCTET_LENGTH", "LENGTH") } else { sql };
        self.fetch(
            "can't read the failed rows",
            &sql,
            args,
            |row| {
                Ok(FailedRow {
                    seq: row.int(0)?,
                    id: row.text(1)?,
                    key: row.text(2)?,
                    action: row.text(3)?,
                    attempts: row.int(4)?,
                    created_at: row.int(5)?,
                    last_error: row.optional(6)?.unwrap_or_default(),
                    payload_bytes: row.int(7)?,
                })
            },
            |_| false,
        )
        .await
    }

    /// Makes failed rows pending again, with all their tries; gives back how many there were.
    ///
    /// # Errors
    /// The database refused.
    pub async fn retry_failed(&self, table: &Table, rows: &[FailedRow]) -> Result<u64, DatabaseError> {
        let (pending, failed) = (status::PENDING, status::FAILED);
        self.on_failed(rows, "can't make failed rows pending again", |seqs| {
            format!("UPDATE {table} SET status = {pending}, attempts = 0 WHERE status = {failed} AND seq IN ({seqs})")
        })
        .await
    }

    /// Removes failed rows for good: their events are lost. Gives back how many there were.
    ///
    /// # Errors
    /// The database refused.
    pub async fn remove_failed(&self, table: &Table, rows: &[FailedRow]) -> Result<u64, DatabaseError> {
        let failed = status::FAILED;
        self.on_failed(rows, "can't remove failed rows", |seqs| {
            format!("DELETE FROM {table} WHERE status = {failed} AND seq IN ({seqs})")
        })
        .await
    }

    async fn on_failed(
        &self,
        rows: &[FailedRow],
        what: &'static str,
        sql: impl Fn(&str) -> String,
    ) -> Result<u64, DatabaseError> {
        let mut done = 0;
        for chunk in rows.chunks(1_000) {
            let seqs: Vec<i64> = chunk.iter().map(|row| row.seq).collect();
            done += self.execute(what, &sql(&list(&seqs)), &[]).await?;
        }
        Ok(done)
    }
}
