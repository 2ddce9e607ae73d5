//! Whether the live tables hold what this version inserts. Asked at start, and before a refused batch is blamed on its rows.

use clickhouse::Row;
use serde::Deserialize;

use crate::client::{Store, quoted};
use crate::columns::EVENT_COLUMNS;
use crate::ddl::add_column;
use crate::errors::{CallError, ErrorClass};
use crate::faults;

/// Columns of the `ledger` table that an insert writes: name and type.
pub(crate) const LEDGER_COLUMNS: &[(&str, &str)] = &[
    ("topic", "LowCardinality(String)"),
    ("partition", "Int32"),
    ("first_offset", "Int64"),
    ("last_offset", "Int64"),
    ("rows", "UInt64"),
    ("dead_letters", "UInt64"),
    ("hash", "FixedString(16)"),
    ("token", "String"),
    ("worker", "LowCardinality(String)"),
    ("inserted_at", "DateTime64(3, 'UTC')"),
    ("topic_id", "LowCardinality(String)"),
];

/// Columns of the `dead_letters` table that an insert writes: name and type.
pub(crate) const DEAD_LETTER_COLUMNS: &[(&str, &str)] = &[
    ("topic", "LowCardinality(String)"),
    ("partition", "Int32"),
    ("offset", "Int64"),
    ("timestamp", "DateTime64(3, 'UTC')"),
    ("key", "String"),
    ("value", "String"),
    ("headers", "Array(Tuple(name String, value String))"),
    ("error_class", "LowCardinality(String)"),
    ("error_code", "LowCardinality(String)"),
    ("error_message", "String"),
    ("schema", "LowCardinality(String)"),
    ("worker", "LowCardinality(String)"),
    ("dlq_topic", "LowCardinality(String)"),
    ("dlq_partition", "Int32"),
    ("dlq_offset", "Int64"),
    ("column_name", "LowCardinality(String)"),
    ("attempts", "UInt32"),
    ("first_failed_at", "DateTime64(3, 'UTC')"),
    ("last_failed_at", "DateTime64(3, 'UTC')"),
    ("traceparent", "String"),
    ("worker_version", "LowCardinality(String)"),
];

/// Why the tables can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// ClickHouse could not be asked.
    #[error("the tables could not be checked: {0}")]
    Ask(#[source] CallError),
    /// A table is not there, or this user may not see it.
    #[error("table {database}.{table} does not exist or is hidden from user {user}; `auditstream migrate` makes it")]
    NoTable {
        /// The database.
        database: String,
        /// The table.
        table: &'static str,
        /// Who asked.
        user: String,
    },
    /// Columns are missing or of another type.
    #[error("table {database}.{table} is not of the shape this version writes: {}. To mend it: {}", problems.join("; "), ddl.join(" "))]
    Columns {
        /// The database.
        database: String,
        /// The table.
        table: &'static str,
        /// One sentence a column.
        problems: Vec<String>,
        /// Statements that bring the columns.
        ddl: Vec<String>,
    },
}

impl ShapeError {
    /// Whether it may pass by itself: ClickHouse is away, not wrong.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Ask(error) if error.class == ErrorClass::Retry)
    }
}

#[derive(Row, Deserialize)]
pub(crate) struct LiveColumn {
    pub(crate) table: String,
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) clickhouse_type: String,
}

impl Store {
    /// When the table of events was altered last, in seconds since 1970: a table that was altered is another one for deduplication. What an insert left in
    /// a column that was too narrow must not make ClickHouse drop the same rows when the column is wide again.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout, or there is no such table.
    pub async fn events_altered_at(&self) -> Result<u64, CallError> {
        self.fetch_one(&format!(
            "SELECT toUInt64(toUnixTimestamp(metadata_modification_time)) FROM system.tables WHERE database = {} AND name = 'events'",
            quoted(self.database()),
        ))
        .await
    }

    /// Checks that the live tables hold every column that this version inserts, with its type. Columns beyond those are fine.
    ///
    /// # Errors
    /// The first table that does not fit, with all its problems and the statements that mend them.
    pub async fn check_tables(&self) -> Result<(), ShapeError> {
        let sql = format!("SELECT table, name, type FROM system.columns {}", self.our_tables());
        let live: Vec<LiveColumn> = self.fetch(&sql).await.map_err(ShapeError::Ask)?;
        self.judge(&live).into_iter().next().map_or(Ok(()), Err)
    }

    /// The condition on `system.columns` for the tables that inserts write.
    pub(crate) fn our_tables(&self) -> String {
        format!("WHERE database = {} AND table IN ('events', 'ledger', 'dead_letters')", quoted(self.database()))
    }

    /// Every table that does not fit.
    pub(crate) fn judge(&self, live: &[LiveColumn]) -> Vec<ShapeError> {
        let columns = EVENT_COLUMNS.iter().chain(faults::later_columns());
        let events: Vec<_> = columns.map(|column| (column.name, column.clickhouse_type)).collect();
        let tables = [("events", &*events), ("ledger", LEDGER_COLUMNS), ("dead_letters", DEAD_LETTER_COLUMNS)];
        let one = |(table, expected): (&'static str, &[(&str, &str)])| {
            let live: Vec<_> = live
                .iter()
                .filter(|column| column.table == table)
                .map(|column| (&*column.name, &*column.clickhouse_type))
                .collect();
            if live.is_empty() {
                let (database, user) = (self.database().to_owned(), self.inner.user.clone());
                return Err(ShapeError::NoTable { database, table, user });
            }
            compare(self.database(), table, expected, &live)
        };
        tables.into_iter().filter_map(|table| one(table).err()).collect()
    }
}

fn compare(
    database: &str,
    table: &'static str,
    expected: &[(&str, &str)],
    live: &[(&str, &str)],
) -> Result<(), ShapeError> {
    let mut problems = Vec::new();
    let mut ddl = Vec::new();
    for (name, wanted) in expected {
        match live.iter().find(|(live_name, _)| live_name == name) {
            None => {
                problems.push(format!("column {name} is missing"));
                ddl.push(add_column(database, table, name, wanted));
            }
            Some((_, found)) if found != wanted => {
                problems.push(format!("column {name} is {found}, expected {wanted}"));
                ddl.push(format!("ALTER TABLE `{database}`.`{table}` MODIFY COLUMN `{name}` {wanted};"));
            }
            Some(_) => {}
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(ShapeError::Columns { database: database.to_owned(), table, problems, ddl })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn more_columns_and_another_order_are_fine() {
        compare("d", "events", &[("a", "String"), ("b", "Int64")], &[("z", "UUID"), ("b", "Int64"), ("a", "String")])
            .unwrap();
    }

    #[test]
    fn every_problem_comes_with_its_statement() {
        let error = compare("d", "events", &[("a", "String"), ("b", "Int64")], &[("b", "Int32")]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("column a is missing; column b is Int32, expected Int64"), "{text}");
        assert!(
            text.contains(
                "ALTER TABLE `d`.`events` ADD COLUMN IF NOT EXISTS `a` String; ALTER TABLE `d`.`events` MODIFY COLUMN `b` Int64;"
            ),
            "{text}"
        );
        assert!(!error.is_passing());
    }
}
