//! The handle on ClickHouse. Every call has a timeout and ends in a [`CallError`] that says what to do.

use std::sync::Arc;
use std::time::Duration;

use clickhouse::{Client, RowOwned, RowRead};

use crate::config::{Config, ConfigError};
use crate::errors::CallError;
use crate::tls;

/// ClickHouse over HTTP, with one pool of connections. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) insert_timeout: Duration,
    pub(crate) query_timeout: Duration,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("client", &self.inner.client)
            .field("database", &self.inner.database)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// A store for a configuration. Connects at the first call, not here.
    ///
    /// # Errors
    /// Every wrong field of the configuration.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.validate()?;
        let inner = Inner {
            client: config.client()?,
            url: config.url.clone(),
            database: config.database.clone(),
            user: config.user.clone(),
            insert_timeout: config.insert_timeout,
            query_timeout: config.query_timeout,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The database that holds the tables.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.inner.database
    }

    /// Whether ClickHouse answers to this user.
    ///
    /// # Errors
    /// When it does not answer within the query timeout, or refuses the user.
    pub async fn ping(&self) -> Result<(), CallError> {
        self.execute("SELECT 1").await
    }

    /// Runs a statement that answers nothing of interest. `sql` is sent as it is.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), CallError> {
        self.execute_within(sql, self.inner.query_timeout).await
    }

    /// The same with another limit.
    pub(crate) async fn execute_within(&self, sql: &str, limit: Duration) -> Result<(), CallError> {
        let query = self.inner.client.query_raw(sql);
        self.within(limit, query.execute()).await
    }

    /// All rows that `sql` answers.
    pub(crate) async fn fetch<T: RowOwned + RowRead>(&self, sql: &str) -> Result<Vec<T>, CallError> {
        let query = self.inner.client.query_raw(sql);
        self.within(self.inner.query_timeout, query.fetch_all()).await
    }

    /// The one row that `sql` answers.
    pub(crate) async fn fetch_one<T: RowOwned + RowRead>(&self, sql: &str) -> Result<T, CallError> {
        let query = self.inner.client.query_raw(sql);
        self.within(self.inner.query_timeout, query.fetch_one()).await
    }

    /// The one row that `sql` answers, within the time of an insert: for what reads whole partitions.
    pub(crate) async fn fetch_one_slowly<T: RowOwned + RowRead>(&self, sql: &str) -> Result<T, CallError> {
        let query = self.inner.client.query_raw(sql);
        self.within(self.inner.insert_timeout, query.fetch_one()).await
    }

    /// Dropping the call at the limit closes its connection.
    async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(limit, call).await {
            Ok(result) => result.map_err(|error| self.call_error(&error, limit)),
            Err(_) => Err(CallError::timed_out(limit)),
        }
    }

    /// What `error`, met while waiting at most `limit`, means.
    pub(crate) fn call_error(&self, error: &clickhouse::error::Error, limit: Duration) -> CallError {
        match tls::refusal(error, &self.inner.url) {
            Some(message) => CallError::halt(message),
            None => CallError::new(error, limit),
        }
    }
}

/// `text` as an SQL string literal.
pub(crate) fn quoted(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('\'');
    for c in text.chars() {
        match c {
            '\'' | '\\' => literal.extend(['\\', c]),
            '\0' => literal.push_str("\\0"),
            _ => literal.push(c),
        }
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_quoted_text_can_not_leave_its_quotes() {
        assert_eq!(quoted(r"a'b\c"), r"'a\'b\\c'");
        assert_eq!(quoted("nul\0"), r"'nul\0'");
    }
}
