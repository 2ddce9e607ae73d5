//! What operators ask about the server itself: its clock, its version, its disks, what it lets this user do, how the tables were made, and how much
//! landed lately.

use clickhouse::Row;
use serde::Deserialize;

use crate::client::{Store, quoted};
use crate::errors::CallError;
use crate::ingest::INSERT_SETTINGS;

/// The server that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct ServerState {
    /// Such as `25.8.1.1`.
    pub version: String,
    /// Its clock, milliseconds since 1970.
    pub now_ms: i64,
}

/// One of the server's disks.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct Disk {
    /// Its name in the server's configuration.
    pub name: String,
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A setting as it is for this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingState {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether this user may not change it.
    pub is_fixed: bool,
    /// The value that inserts send along; empty for the setting `readonly`.
    pub wanted: String,
}

/// How a table was made.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct TableState {
    /// Its name.
    pub name: String,
    /// The engine, such as `ReplacingMergeTree`.
    pub engine: String,
    /// The engine with its parameters, keys and settings.
    pub engine_full: String,
}

/// What landed lately, as the ledger says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub struct Recent {
    /// Rows of `events`.
    pub rows: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Batches.
    pub batches: u64,
}

impl Store {
    /// The server's version and clock.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn server(&self) -> Result<ServerState, CallError> {
        self.fetch_one("SELECT version() AS version, toUnixTimestamp64Milli(now64(3)) AS now_ms").await
    }

    /// The disks on which the server keeps data.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn disks(&self) -> Result<Vec<Disk>, CallError> {
        // A disk in an object store has no end.
        self.fetch("SELECT name, unreserved_space AS free, total_space AS total FROM system.disks WHERE total_space < 1152921504606846976").await
    }

    /// The setting `readonly`, and those that inserts send along.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn insert_settings(&self) -> Result<Vec<SettingState>, CallError> {
        let names: Vec<_> = INSERT_SETTINGS.iter().map(|(name, _)| quoted(name)).collect();
        let sql = format!(
            "SELECT name, value, toBool(readonly) AS is_fixed FROM system.settings WHERE name IN ('readonly', {}) ORDER BY name",
            names.join(", ")
        );
        let settings: Vec<(String, String, bool)> = self.fetch(&sql).await?;
        let one = |(name, value, is_fixed): (String, String, bool)| {
            let wanted = INSERT_SETTINGS.iter().find(|(known, _)| *known == name);
            let wanted = wanted.map(|(_, value)| (*value).to_owned()).unwrap_or_default();
            SettingState { name, value, is_fixed, wanted }
        };
        Ok(settings.into_iter().map(one).collect())
    }

    /// How the tables that workers write were made; those that are there and may be seen.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn table_states(&self) -> Result<Vec<TableState>, CallError> {
        self.fetch(&format!(
            "SELECT name, engine, engine_full FROM system.tables WHERE database = {} AND name IN ('events', 'ledger', 'dead_letters') ORDER BY name",
            quoted(self.database())
        ))
        .await
    }

    /// What landed in the last `seconds`, by ClickHouse's clock against the workers'.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn recent(&self, seconds: u32) -> Result<Recent, CallError> {
        self.fetch_one(&format!(
            "SELECT sum(l.rows) AS rows, sum(l.dead_letters) AS dead_letters, uniqExact(l.token) AS batches FROM `{}`.ledger AS l FINAL \
             WHERE l.inserted_at >= now64(3) - toIntervalSecond({seconds})",
            self.database()
        ))
        .await
    }
}
