//! The migrations for a cluster, out of the same text: each server holds `TABLE_local`, replicated, and `TABLE` is the way to all of them.
//!
//! | one server | a cluster |
//! |---|---|
//! | `CREATE TABLE t … ENGINE = xMergeTree(…)` | the same as `t_local`, `ENGINE = ReplicatedxMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}', …)`; and `t AS t_local ENGINE = Distributed` |
//! | `ALTER TABLE t …` | the same on `t_local`; what is about columns on `t` too |
//! | `CREATE MATERIALIZED VIEW v TO t AS … FROM s` | on each server, from `s_local` to `t_local` |
//! | `CREATE VIEW`, `CREATE FUNCTION` | as they are: they ask `t`, and so all servers |
//!
//! All `ON CLUSTER`. A row's shard is a hash of the tenant and the entity, or of what comes first in the table's sorting key. Columns of the sorting key
//! are a row's identity, so duplicates of a row always meet on one shard, where `ReplacingMergeTree` makes them one.

use std::collections::BTreeSet;

use crate::client::quoted;
use crate::migrations::Migration;
use crate::target::Target;

/// Where a replicated table keeps its state in Keeper, and the replica's name there. The braces are ClickHouse's macros; `{uuid}` is the table's.
const REPLICA: &str = "'/clickhouse/tables/{uuid}/{shard}', '{replica}'";

/// Why a statement has no form for a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("statement {statement} of migration {version} has no form for a cluster")]
pub struct NoClusterForm {
    /// The migration.
    pub version: u32,
    /// Which of its statements, from 1.
    pub statement: usize,
}

/// The statements of a migration for `target`, each with the number, from 1, of the one that it comes from.
///
/// # Errors
/// A statement is of a kind that this module does not know.
pub fn statements_for(
    all: &[Migration],
    migration: &Migration,
    target: &Target<'_>,
) -> Result<Vec<(usize, String)>, NoClusterForm> {
    let plain = migration.statements(target.database);
    let Some(cluster) = target.cluster else {
        return Ok(plain.into_iter().enumerate().map(|(index, sql)| (index + 1, sql)).collect());
    };
    let sharded: BTreeSet<String> = all
        .iter()
        .flat_map(|migration| migration.statements(target.database))
        .filter(|sql| engine(sql).is_some())
        .filter_map(|sql| Some(created(&sql, "CREATE TABLE")?.0.to_owned()))
        .collect();
    let scribe = Scribe { database: target.database, cluster, on_cluster: target.on_cluster(), sharded };
    let mut statements = Vec::new();
    for (index, sql) in plain.iter().enumerate() {
        let error = || NoClusterForm { version: migration.version, statement: index + 1 };
        statements.extend(scribe.write(sql).ok_or_else(error)?.into_iter().map(|sql| (index + 1, sql)));
    }
    Ok(statements)
}

struct Scribe<'a> {
    database: &'a str,
    cluster: &'a str,
    on_cluster: String,
    /// Tables, with their database, that each server holds a part of.
    sharded: BTreeSet<String>,
}

impl Scribe<'_> {
    fn write(&self, sql: &str) -> Option<Vec<String>> {
        let on_cluster = &self.on_cluster;
        if let Some((name, rest)) = created(sql, "CREATE TABLE") {
            let Some((head, family, arguments, tail)) = engine(rest) else {
                return Some(vec![format!("CREATE TABLE IF NOT EXISTS {name}{on_cluster}{rest}")]);
            };
            let arguments = if arguments.is_empty() { REPLICA.to_owned() } else { format!("{REPLICA}, {arguments}") };
            let tail = tail.replace("non_replicated_deduplication_window", "replicated_deduplication_window");
            let table = name.split_once('.')?.1;
            let comment = tail.lines().find(|line| line.starts_with("COMMENT ")).unwrap_or_default();
            return Some(vec![
                format!(
                    "CREATE TABLE IF NOT EXISTS {name}_local{on_cluster}{head}ENGINE = Replicated{family}MergeTree({arguments}){tail}"
                ),
                format!(
                    "CREATE TABLE IF NOT EXISTS {name}{on_cluster} AS {name}_local\nENGINE = Distributed({}, {}, {}, {})\n{comment}",
                    quoted(self.cluster),
                    quoted(self.database),
                    quoted(&format!("{table}_local")),
                    shard_key(&tail)?
                )
                .trim_end()
                .to_owned(),
            ]);
        }
        if let Some((name, actions)) =
            sql.strip_prefix("ALTER TABLE ").and_then(|rest| rest.split_once(char::is_whitespace))
        {
            if !self.sharded.contains(name) {
                return Some(vec![format!("ALTER TABLE {name}{on_cluster} {}", actions.trim_start())]);
            }
            let actions =
                actions.trim().replace("non_replicated_deduplication_window", "replicated_deduplication_window");
            let mut statements = vec![format!("ALTER TABLE {name}_local{on_cluster}\n    {actions}")];
            let of_columns: Vec<&str> = items(&actions).into_iter().filter(|action| is_of_columns(action)).collect();
            if !of_columns.is_empty() {
                statements.push(format!("ALTER TABLE {name}{on_cluster}\n    {}", of_columns.join(",\n    ")));
            }
            return Some(statements);
        }
        if let Some((name, rest)) = created(sql, "CREATE MATERIALIZED VIEW") {
            // It fills a table of ours from one of ours, row by row as they come: both on the same server.
            let rest = self.sharded.iter().fold(rest.to_owned(), |rest, table| local(&rest, table));
            return Some(vec![format!("CREATE MATERIALIZED VIEW IF NOT EXISTS {name}{on_cluster}{rest}")]);
        }
        for head in [
            "CREATE VIEW IF NOT EXISTS ",
            "CREATE OR REPLACE VIEW ",
            "CREATE FUNCTION IF NOT EXISTS ",
            "DROP VIEW IF EXISTS ",
            "DROP TABLE IF EXISTS ",
        ] {
            if let Some(rest) = sql.strip_prefix(head) {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let (name, rest) = rest.split_at(end);
                return Some(vec![format!("{head}{name}{on_cluster}{rest}")]);
            }
        }
        None
    }
}

/// Name and what follows it of `KIND IF NOT EXISTS name …`.
fn created<'a>(sql: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    let rest = sql.strip_prefix(kind)?.strip_prefix(" IF NOT EXISTS ")?;
    Some(rest.split_at(rest.find(char::is_whitespace)?))
}

/// What stands before the engine of the MergeTree family, the family's member, its arguments, and what stands behind.
fn engine(sql: &str) -> Option<(&str, &str, &str, &str)> {
    let at = sql.find("\nENGINE = ")? + 1;
    let (head, rest) = sql.split_at(at);
    let rest = rest.strip_prefix("ENGINE = ")?;
    let (family, rest) = rest.split_once("MergeTree")?;
    if !family.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    let (arguments, tail) = match rest.strip_prefix('(') {
        Some(rest) => rest.split_once(')')?,
        None => ("", rest),
    };
    Some((head, family, arguments, tail))
}

/// The hash that chooses the shard, out of the sorting key.
fn shard_key(tail: &str) -> Option<String> {
    let key = tail.lines().find_map(|line| line.strip_prefix("ORDER BY "))?.trim();
    let columns: Vec<&str> = key.trim_start_matches('(').trim_end_matches(')').split(", ").collect();
    let has = |column: &&str| columns.contains(column);
    let wanted: &[&str] = if ["tenant_id", "entity_type", "entity_id"].iter().all(has) {
        &["tenant_id", "entity_type", "entity_id"]
    } else if has(&"tenant_id") {
        &["tenant_id"]
    } else if has(&"topic") && has(&"partition") {
        &["topic", "partition"]
    } else {
        columns.get(..1)?
    };
    Some(format!("cityHash64({})", wanted.join(", ")))
}

/// `text` with `_local` behind each mention of `table`.
fn local(text: &str, table: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(table) {
        let (before, found) = rest.split_at(at);
        let after = &found[table.len()..];
        out.push_str(before);
        out.push_str(table);
        let goes_on = after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let is_inside = before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if !goes_on && !is_inside {
            out.push_str("_local");
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The actions of an `ALTER TABLE`: what commas divide outside of brackets and quotes.
fn items(actions: &str) -> Vec<&str> {
    let (mut depth, mut is_quoted, mut is_escaped, mut start) = (0_usize, false, false, 0);
    let mut found = Vec::new();
    for (at, letter) in actions.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '\'' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.push(actions[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(actions[start..].trim());
    found
}

fn is_of_columns(action: &str) -> bool {
    ["ADD COLUMN", "DROP COLUMN", "MODIFY COLUMN", "RENAME COLUMN", "COMMENT COLUMN", "MODIFY COMMENT"]
        .iter()
        .any(|head| action.starts_with(head))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::migrations::MIGRATIONS;

    /// To write it anew: `AUDITSTREAM_WRITE_GOLDEN=1 cargo test`.
    #[test]
    fn the_checked_in_sql_is_what_the_migrations_become() {
        let target = Target::cluster("audit", "main");
        let mut text = String::from(
            "-- The migrations for a cluster called main; a test keeps it equal to store/src/cluster.rs.\n",
        );
        for migration in MIGRATIONS {
            text.push_str(&format!("\n-- {} {}\n", migration.version, migration.name));
            for (_, sql) in statements_for(MIGRATIONS, migration, &target).unwrap() {
                text.push_str(&sql);
                text.push_str(";\n");
            }
        }
        let found = include_str!("../migrations/cluster.golden.sql");
        if std::env::var_os("AUDITSTREAM_WRITE_GOLDEN").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/cluster.golden.sql");
            std::fs::write(path, &text).unwrap();
        }
        assert!(found == text, "store/migrations/cluster.golden.sql is not what the migrations become:\n{text}");
    }

    #[test]
    fn duplicates_meet_on_one_shard() {
        let target = Target::cluster("audit", "main");
        let mut keys = 0;
        for migration in MIGRATIONS {
            for (_, sql) in statements_for(MIGRATIONS, migration, &target).unwrap() {
                let Some((_, rest)) = sql.split_once("ENGINE = Distributed(") else { continue };
                let key = rest.split_once("cityHash64(").unwrap().1.split_once(')').unwrap().0;
                let table = created(&sql, "CREATE TABLE").unwrap().0;
                let local =
                    migration.statements("audit").into_iter().find(|sql| sql.contains(&format!("{table}\n"))).unwrap();
                let sorting = local.lines().find(|line| line.starts_with("ORDER BY ")).unwrap().to_owned();
                for column in key.split(", ") {
                    assert!(sorting.contains(column), "{column} is no part of the identity of {table}: {sorting}");
                }
                keys += 1;
            }
        }
        assert!(keys >= 3, "three tables at least");
    }

    #[test]
    fn each_kind_of_statement_has_its_form() {
        let scribe = Scribe {
            database: "a",
            cluster: "c",
            on_cluster: " ON CLUSTER 'c'".to_owned(),
            sharded: ["a.events".to_owned(), "a.hours".to_owned()].into(),
        };
        for (sql, expected) in [
            (
                "ALTER TABLE a.events\n    ADD COLUMN IF NOT EXISTS x String COMMENT 'a, (b' AFTER y,\n  ADD INDEX IF NOT EXISTS i x TYPE bloom_filter(0.01), MODIFY SETTING non_replicated_deduplication_window = 5",
                vec![
                    "ALTER TABLE a.events_local ON CLUSTER 'c'\n    ADD COLUMN IF NOT EXISTS x String COMMENT 'a, (b' AFTER y,\n  ADD INDEX IF NOT EXISTS i x TYPE bloom_filter(0.01), MODIFY SETTING replicated_deduplication_window = 5",
                    "ALTER TABLE a.events ON CLUSTER 'c'\n    ADD COLUMN IF NOT EXISTS x String COMMENT 'a, (b' AFTER y",
                ],
            ),
            (
                "ALTER TABLE a.notes ADD COLUMN IF NOT EXISTS x Int8",
                vec!["ALTER TABLE a.notes ON CLUSTER 'c' ADD COLUMN IF NOT EXISTS x Int8"],
            ),
            (
                "CREATE MATERIALIZED VIEW IF NOT EXISTS a.feed TO a.hours AS SELECT x FROM a.events WHERE a.events_x",
                vec![
                    "CREATE MATERIALIZED VIEW IF NOT EXISTS a.feed ON CLUSTER 'c' TO a.hours_local AS SELECT x FROM a.events_local WHERE a.events_x",
                ],
            ),
            (
                "CREATE VIEW IF NOT EXISTS a.v\nAS SELECT 1 FROM a.events",
                vec!["CREATE VIEW IF NOT EXISTS a.v ON CLUSTER 'c'\nAS SELECT 1 FROM a.events"],
            ),
            (
                "CREATE FUNCTION IF NOT EXISTS f AS x -> x",
                vec!["CREATE FUNCTION IF NOT EXISTS f ON CLUSTER 'c' AS x -> x"],
            ),
            (
                "CREATE TABLE IF NOT EXISTS a.notes\n(x Int8)\nENGINE = Memory",
                vec!["CREATE TABLE IF NOT EXISTS a.notes ON CLUSTER 'c'\n(x Int8)\nENGINE = Memory"],
            ),
        ] {
            assert_eq!(scribe.write(sql).unwrap(), expected, "{sql}");
        }
        assert_eq!(scribe.write("OPTIMIZE TABLE a.events"), None);
    }
}
