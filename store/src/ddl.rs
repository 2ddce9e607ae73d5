//! The statement that brings a missing column, as the migrations have it: type, comment, codec and place.

use crate::migrations::MIGRATIONS;

/// `ALTER TABLE … ADD COLUMN …` for a column of this version. Safe to run twice.
pub(crate) fn add_column(database: &str, table: &str, name: &str, clickhouse_type: &str) -> String {
    let columns = columns_of(table);
    let at = columns.iter().position(|column| column.name == name);
    let definition = at.and_then(|at| columns.get(at)).map(|column| column.definition.as_str());
    // A definition of another type is not this version's: the list of columns counts.
    let definition = definition.filter(|text| text.starts_with(clickhouse_type)).unwrap_or(clickhouse_type);
    let place = match at {
        Some(0) => " FIRST".to_owned(),
        Some(at) => columns.get(at - 1).map(|before| format!(" AFTER `{}`", before.name)).unwrap_or_default(),
        None => String::new(),
    };
    format!("ALTER TABLE `{database}`.`{table}` ADD COLUMN IF NOT EXISTS `{name}` {definition}{place};")
}

struct Column {
    name: String,
    /// Type and what follows it.
    definition: String,
}

/// The columns of a table after all migrations, in its order. The migrations have one style: one column a line.
fn columns_of(table: &str) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    let statements = MIGRATIONS.iter().flat_map(|migration| migration.statements("x"));
    for sql in statements.filter(|sql| sql.contains(&format!("x.{table}\n"))) {
        for line in sql.lines() {
            let Some(line) = line.strip_prefix("    ") else { continue };
            let line = line.strip_prefix("ADD COLUMN IF NOT EXISTS ").unwrap_or(line).trim_end_matches(',');
            let Some((name, definition)) = line.split_once(' ') else { continue };
            let (definition, after) = match definition.rsplit_once(" AFTER ") {
                Some((definition, after)) if !after.contains('\'') => (definition, Some(after)),
                _ => (definition, None),
            };
            let column = Column { name: name.trim_matches('`').to_owned(), definition: definition.to_owned() };
            let place = after.and_then(|after| columns.iter().position(|column| column.name == after));
            columns.insert(place.map_or(columns.len(), |place| place + 1), column);
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::EVENT_COLUMNS;
    use crate::shape::{DEAD_LETTER_COLUMNS, LEDGER_COLUMNS};

    #[test]
    fn a_column_comes_back_as_the_migrations_made_it() {
        assert_eq!(
            add_column("d", "events", "ip", "String"),
            "ALTER TABLE `d`.`events` ADD COLUMN IF NOT EXISTS `ip` String COMMENT 'Address of the client' CODEC(ZSTD(1)) AFTER `changes.new`;"
        );
        assert_eq!(
            add_column("d", "dead_letters", "attempts", "UInt32"),
            "ALTER TABLE `d`.`dead_letters` ADD COLUMN IF NOT EXISTS `attempts` UInt32 COMMENT 'How many decodes or inserts of the record were tried' AFTER `schema`;"
        );
        assert_eq!(
            add_column("d", "events", "unheard_of", "Int64"),
            "ALTER TABLE `d`.`events` ADD COLUMN IF NOT EXISTS `unheard_of` Int64;"
        );
    }

    #[test]
    fn every_column_that_is_written_has_its_definition() {
        let events: Vec<_> = EVENT_COLUMNS.iter().map(|column| (column.name, column.clickhouse_type)).collect();
        for (table, expected) in
            [("events", &*events), ("ledger", LEDGER_COLUMNS), ("dead_letters", DEAD_LETTER_COLUMNS)]
        {
            for (name, clickhouse_type) in expected {
                let ddl = add_column("d", table, name, clickhouse_type);
                assert!(ddl.contains(&format!("`{name}` {clickhouse_type} COMMENT '")), "{ddl}");
                assert!(ddl.contains(" AFTER `") || ddl.contains(" FIRST"), "{ddl}");
            }
        }
    }
}
