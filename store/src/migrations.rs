//! The migrations, in order. A migration that was released is never changed; what is to be different comes as the next one.

use sha2::{Digest, Sha256};

/// One step of the tables' history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// 1, 2, 3, ….
    pub version: u32,
    /// Short name.
    pub name: &'static str,
    /// Statements, each ending in `;` at the end of a line, each safe to run twice; `{database}` stands for the database.
    pub sql: &'static str,
}

/// All migrations, by version from 1 without a gap.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "tables", sql: include_str!("../migrations/0001_tables.sql") },
    Migration {
        version: 2,
        name: "dead_letter_details",
        sql: include_str!("../migrations/0002_dead_letter_details.sql"),
    },
    Migration { version: 3, name: "ledger_topic_id", sql: include_str!("../migrations/0003_ledger_topic_id.sql") },
    Migration { version: 4, name: "indexes", sql: include_str!("../migrations/0004_indexes.sql") },
    Migration { version: 5, name: "views", sql: include_str!("../migrations/0005_views.sql") },
    Migration {
        version: 6,
        name: "dead_letter_actions",
        sql: include_str!("../migrations/0006_dead_letter_actions.sql"),
    },
    Migration { version: 7, name: "retention", sql: include_str!("../migrations/0007_retention.sql") },
    Migration { version: 8, name: "consumer_pauses", sql: include_str!("../migrations/0008_consumer_pauses.sql") },
    Migration { version: 9, name: "newest", sql: include_str!("../migrations/0009_newest.sql") },
];

impl Migration {
    /// SHA-256 of the text, in hexadecimal digits: a migration that was applied must not be changed afterwards.
    #[must_use]
    pub fn checksum(&self) -> String {
        Sha256::digest(self.sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The statements for a database whose name needs no quotes, without comments and the closing `;`.
    #[must_use]
    pub fn statements(&self, database: &str) -> Vec<String> {
        let lines: Vec<_> = self.sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        lines
            .join("\n")
            .split(";\n")
            .map(|statement| statement.trim().trim_end_matches(';').replace("{database}", database))
            .filter(|statement| !statement.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::EVENT_COLUMNS;
    use crate::shape::{DEAD_LETTER_COLUMNS, LEDGER_COLUMNS};

    /// Name and type of each column in statements of this repository's own style: one column a line, added ones behind the others.
    fn columns_of(table: &str) -> Vec<(String, String)> {
        let statements = MIGRATIONS.iter().flat_map(|migration| migration.statements("audit"));
        let of_table =
            statements.filter(|sql| sql.contains(&format!("audit.{table}\n"))).collect::<Vec<_>>().join("\n");
        of_table
            .lines()
            .filter_map(|line| {
                let line = line.strip_prefix("    ")?;
                let line = line.strip_prefix("ADD COLUMN IF NOT EXISTS ").unwrap_or(line);
                let (name, rest) = line.split_once(' ')?;
                let clickhouse_type = rest.split(" COMMENT ").next()?.split(" DEFAULT ").next()?;
                Some((name.trim_matches('`').to_owned(), clickhouse_type.to_owned()))
            })
            .collect()
    }

    #[test]
    fn versions_count_from_one() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, index + 1);
        }
    }

    #[test]
    fn every_statement_is_safe_to_run_twice() {
        for statement in MIGRATIONS.iter().flat_map(|migration| migration.statements("audit")) {
            let again = ["IF NOT EXISTS", "IF EXISTS", " MODIFY SETTING "];
            assert!(again.iter().any(|safe| statement.contains(safe)), "{statement}");
            assert!(!statement.contains("{database}") && !statement.ends_with(';'), "{statement}");
        }
    }

    #[test]
    fn the_tables_have_the_columns_that_inserts_write() {
        let events: Vec<_> = EVENT_COLUMNS.iter().map(|column| (column.name, column.clickhouse_type)).collect();
        for (table, expected) in
            [("events", &*events), ("ledger", LEDGER_COLUMNS), ("dead_letters", DEAD_LETTER_COLUMNS)]
        {
            let found = columns_of(table);
            let found: Vec<_> = found.iter().map(|(name, clickhouse_type)| (&**name, &**clickhouse_type)).collect();
            assert_eq!(found, expected, "{table}");
        }
    }
}
