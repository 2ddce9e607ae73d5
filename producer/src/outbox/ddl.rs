//! The outbox's two tables, per database: the rows, and the leases by which relays share the work.
//!
//! The first five columns are those that Debezium's outbox event router reads under their default names
//! (<https://debezium.io/documentation/reference/stable/transformations/outbox-event-router.html>); `aggregateid` is the Kafka record's key.
//! Times are milliseconds since 1970 by the database's clock.

use std::fmt;
use std::fmt::Write;
use std::str::FromStr;

use super::database::Dialect;
use super::{SHARDS, status};

/// The outbox table's name, with a schema in front if need be: `audit_outbox`, `shop.audit_outbox`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table(String);

/// A name that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "found another kind of text, expected the table's name, with a schema and a dot in front if need be: each 1 to 40 of the \
     characters a-z 0-9 _, the first a letter or _"
)]
pub struct TableNameError;

impl Default for Table {
    fn default() -> Self {
        Self("audit_outbox".to_owned())
    }
}

impl FromStr for Table {
    type Err = TableNameError;

    /// # Errors
    /// The text is no such name. Names go into SQL as they are, so nothing that would need quotes is taken.
    fn from_str(text: &str) -> Result<Self, TableNameError> {
        let good = |part: &str| {
            (1..=40).contains(&part.len())
                && part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        let parts = text.split('.').count();
        if parts <= 2 && text.split('.').all(good) { Ok(Self(text.to_owned())) } else { Err(TableNameError) }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Table {
    /// The table of the leases.
    pub(crate) fn leases(&self) -> String {
        format!("{}_leases", self.0)
    }

    /// Without the schema: what indexes and the notification channel are called after.
    pub(crate) fn base(&self) -> &str {
        self.0.rsplit('.').next().unwrap_or(&self.0)
    }
}

/// The statements that make the tables, in order. They change nothing that is there.
#[must_use]
pub fn ddl(dialect: Dialect, table: &Table) -> Vec<String> {
    let leases = table.leases();
    let mut statements = match dialect {
        Dialect::Postgres => postgres(table),
        Dialect::Mysql => mysql(table),
        Dialect::Sqlite => sqlite(table),
    };
    let mut fill = match dialect {
        Dialect::Mysql => format!("INSERT IGNORE INTO {leases} (name, owner, expires_at) VALUES "),
        Dialect::Postgres | Dialect::Sqlite => format!("INSERT INTO {leases} (name, owner, expires_at) VALUES "),
    };
    for shard in 0..SHARDS {
        // Writing to a String can't fail.
        let _ = write!(fill, "{}('shard-{shard:02}', '', 0)", if shard == 0 { "" } else { ", " });
    }
    if dialect != Dialect::Mysql {
        fill.push_str(" ON CONFLICT DO NOTHING");
    }
    statements.push(fill);
    statements
}

fn postgres(table: &Table) -> Vec<String> {
    let (base, leases) = (table.base(), table.leases());
    let pending = status::PENDING;
    vec![
        // Rows come and go: vacuum follows the changes and not the size, and pages keep room for a row's next version.
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (
  seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id UUID NOT NULL UNIQUE,
  aggregatetype TEXT NOT NULL,
  aggregateid TEXT NOT NULL,
  type TEXT NOT NULL,
  payload BYTEA NOT NULL,
  ce_source TEXT NOT NULL,
  ce_time TEXT NOT NULL,
  traceparent TEXT,
  tenant_id TEXT NOT NULL,
  idempotency_key TEXT,
  shard SMALLINT NOT NULL,
  status SMALLINT NOT NULL DEFAULT 0,
  attempts BIGINT NOT NULL DEFAULT 0,
  created_at BIGINT NOT NULL,
  available_at BIGINT NOT NULL,
  last_error TEXT
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000)"
        ),
        format!("CREATE INDEX IF NOT EXISTS {base}_pending ON {table} (seq) WHERE status = {pending}"),
        format!("CREATE INDEX IF NOT EXISTS {base}_others ON {table} (status, available_at) WHERE status <> {pending}"),
        format!(
            "CREATE TABLE IF NOT EXISTS {leases} (name TEXT PRIMARY KEY, owner TEXT NOT NULL, expires_at BIGINT NOT NULL)"
        ),
    ]
}

fn mysql(table: &Table) -> Vec<String> {
    let (base, leases) = (table.base(), table.leases());
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (
  seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  aggregatetype TEXT NOT NULL,
  aggregateid TEXT NOT NULL,
  type TEXT NOT NULL,
  payload MEDIUMBLOB NOT NULL,
  ce_source TEXT NOT NULL,
  ce_time VARCHAR(64) NOT NULL,
  traceparent VARCHAR(64),
  tenant_id TEXT NOT NULL,
  idempotency_key TEXT,
  shard SMALLINT NOT NULL,
  status SMALLINT NOT NULL DEFAULT 0,
  attempts BIGINT NOT NULL DEFAULT 0,
  created_at BIGINT NOT NULL,
  available_at BIGINT NOT NULL,
  last_error TEXT,
  UNIQUE KEY {base}_id (id),
  KEY {base}_pending (status, seq),
  KEY {base}_others (status, available_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {leases} (
  name VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  owner VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  expires_at BIGINT NOT NULL
) ENGINE=InnoDB"
        ),
    ]
}

fn sqlite(table: &Table) -> Vec<String> {
    let (base, leases) = (table.base(), table.leases());
    let pending = status::PENDING;
    vec![
        // AUTOINCREMENT: a number is never given twice, so that a late DELETE can't meet another row.
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  aggregatetype TEXT NOT NULL,
  aggregateid TEXT NOT NULL,
  type TEXT NOT NULL,
  payload BLOB NOT NULL,
  ce_source TEXT NOT NULL,
  ce_time TEXT NOT NULL,
  traceparent TEXT,
  tenant_id TEXT NOT NULL,
  idempotency_key TEXT,
  shard INTEGER NOT NULL,
  status INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  available_at INTEGER NOT NULL,
  last_error TEXT
)"
        ),
        format!("CREATE INDEX IF NOT EXISTS {base}_pending ON {table} (seq) WHERE status = {pending}"),
        format!("CREATE INDEX IF NOT EXISTS {base}_others ON {table} (status, available_at) WHERE status <> {pending}"),
        format!(
            "CREATE TABLE IF NOT EXISTS {leases} (name TEXT PRIMARY KEY, owner TEXT NOT NULL, expires_at INTEGER NOT NULL)"
        ),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn names_that_need_no_quotes_are_taken() {
        for good in ["audit_outbox", "shop.audit_outbox", "_o1"] {
            assert_eq!(good.parse::<Table>().unwrap().to_string(), good);
        }
        for bad in ["", "a b", "a;b", "a.b.c", ".a", "a.", "1a", "Outbox", "a'", &"a".repeat(41)] {
            assert_eq!(bad.parse::<Table>(), Err(TableNameError), "{bad}");
        }
    }

    #[test]
    fn every_database_has_the_routers_columns() {
        for dialect in [Dialect::Postgres, Dialect::Mysql, Dialect::Sqlite] {
            let text = ddl(dialect, &"shop.trail".parse().unwrap()).join(";\n");
            for column in ["\n  id ", "\n  aggregatetype ", "\n  aggregateid ", "\n  type ", "\n  payload "] {
                assert!(text.contains(column), "{dialect:?} {column}");
            }
            assert!(text.contains("shop.trail_leases") && text.contains("'shard-63'"), "{text}");
        }
    }
}
