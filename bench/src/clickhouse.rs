//! Questions to ClickHouse over HTTP, by the official client, as one of the stack's users.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use auditstream_stack::Role;
use clickhouse::{Client, Compression};
use uuid::Uuid;

use crate::table::Table;
use crate::target::Target;

/// Longest wait for an answer. Reading a million ids back takes a second.
const LIMIT: Duration = Duration::from_secs(60);

/// Asks as one user. Cheap to clone.
#[derive(Clone)]
pub struct Asker {
    client: Client,
}

impl Asker {
    /// Asks `target` as the user of `role`.
    #[must_use]
    pub fn new(target: &Target, role: Role) -> Self {
        let (user, password) = target.credentials(role);
        let client = Client::default()
            .with_url(target.clickhouse_url())
            .with_database(target.database())
            .with_user(user)
            .with_password(password)
            .with_compression(Compression::None);
        Self { client }
    }

    /// The answer as a table of texts.
    ///
    /// # Errors
    /// No answer, or ClickHouse's own words on what is wrong.
    pub async fn table(&self, sql: &str) -> Result<Table> {
        let bytes = self.bytes(sql, "JSONCompactStringsEachRowWithNames").await?;
        let mut rows = Vec::new();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            rows.push(serde_json::from_slice::<Vec<String>>(line).context("ClickHouse answered in another form")?);
        }
        if rows.is_empty() {
            bail!("ClickHouse answered without column names");
        }
        let names = rows.remove(0);
        Ok(Table { names, rows })
    }

    /// The answer's first row, as texts; `None` when it has no row.
    ///
    /// # Errors
    /// As [`Asker::table`].
    pub async fn row(&self, sql: &str) -> Result<Option<Vec<String>>> {
        Ok(self.table(sql).await?.rows.into_iter().next())
    }

    /// The one number that `sql` answers.
    ///
    /// # Errors
    /// No answer, or no number.
    pub async fn number(&self, sql: &str) -> Result<u64> {
        let bytes = self.bytes(sql, "TabSeparated").await?;
        let text = String::from_utf8_lossy(&bytes);
        text.trim().parse().with_context(|| format!("ClickHouse answered no number to: {sql}"))
    }

    /// All UUIDs that `sql` answers in its only column.
    ///
    /// # Errors
    /// No answer, or another type.
    pub async fn uuids(&self, sql: &str) -> Result<Vec<Uuid>> {
        let bytes = self.bytes(sql, "RowBinary").await?;
        let (ids, rest) = bytes.as_chunks::<16>();
        if !rest.is_empty() {
            bail!("ClickHouse answered {} bytes, which are no whole number of UUIDs", bytes.len());
        }
        Ok(ids.iter().map(uuid).collect())
    }

    /// All rows that `sql` answers in `N` columns of the type Int64.
    ///
    /// # Errors
    /// No answer, or other types.
    pub async fn integers<const N: usize>(&self, sql: &str) -> Result<Vec<[i64; N]>> {
        let bytes = self.bytes(sql, "RowBinary").await?;
        let (numbers, rest) = bytes.as_chunks::<8>();
        let (rows, more) = numbers.as_chunks::<N>();
        if !rest.is_empty() || !more.is_empty() {
            bail!("ClickHouse answered {} bytes, which are no whole rows of {N} numbers", bytes.len());
        }
        Ok(rows.iter().map(|row| row.map(i64::from_le_bytes)).collect())
    }

    /// Runs a statement that answers nothing.
    ///
    /// # Errors
    /// As [`Asker::table`].
    pub async fn run(&self, sql: &str) -> Result<()> {
        match tokio::time::timeout(LIMIT, self.client.query_raw(sql).execute()).await {
            Ok(done) => done.with_context(|| format!("ClickHouse could not run: {sql}")),
            Err(_) => bail!("ClickHouse did not answer within {} s: {sql}", LIMIT.as_secs()),
        }
    }

    async fn bytes(&self, sql: &str, format: &str) -> Result<Vec<u8>> {
        let answer = async {
            let mut cursor = self.client.query_raw(sql).fetch_bytes(format)?;
            cursor.collect().await
        };
        match tokio::time::timeout(LIMIT, answer).await {
            Ok(bytes) => Ok(bytes.with_context(|| format!("ClickHouse could not answer: {sql}"))?.to_vec()),
            Err(_) => bail!("ClickHouse did not answer within {} s: {sql}", LIMIT.as_secs()),
        }
    }
}

/// ClickHouse's RowBinary has a UUID as two little-endian halves, the high one first.
fn uuid(bytes: &[u8; 16]) -> Uuid {
    let mut id = *bytes;
    id[..8].reverse();
    id[8..].reverse();
    Uuid::from_bytes(id)
}

/// `text` as an SQL string literal.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\0', "\\0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_two_turned_halves() {
        let bytes = [7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8];
        assert_eq!(uuid(&bytes).to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }

    #[test]
    fn a_quoted_text_stays_in_its_quotes() {
        assert_eq!(quoted(r"a'b\c"), r"'a\'b\\c'");
    }
}
