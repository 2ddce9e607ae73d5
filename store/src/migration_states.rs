//! What became of each migration: applied, waiting, or failed, and at which statement.

use clickhouse::Row;
use serde::Deserialize;

use crate::client::Store;
use crate::errors::CallError;
use crate::migrations::MIGRATIONS;

/// A migration and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// 1, 2, 3, ….
    pub version: u32,
    /// Short name.
    pub name: String,
    /// What became of it.
    pub state: MigrationState,
}

/// What became of a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MigrationState {
    /// It is applied.
    Applied {
        /// Milliseconds since 1970, by the server's clock.
        at_ms: i64,
        /// By whom.
        by: String,
    },
    /// Nobody has tried it yet.
    Pending,
    /// It is not applied: a statement failed when it was tried last. Those before it are done, and may be done again.
    Failed {
        /// Which statement, from 1.
        statement: u32,
        /// Why.
        error: String,
        /// Milliseconds since 1970, by the server's clock.
        at_ms: i64,
        /// Who tried.
        by: String,
    },
}

#[derive(Row, Deserialize)]
struct Applied {
    version: u32,
    name: String,
    at_ms: i64,
    by: String,
}

#[derive(Row, Deserialize)]
struct Failed {
    version: u32,
    statement: u32,
    error: String,
    at_ms: i64,
    by: String,
}

/// `UNKNOWN_TABLE`, `UNKNOWN_DATABASE`: nothing was ever migrated, or not since failures are recorded.
const NOTHING_THERE: [Option<u32>; 2] = [Some(60), Some(81)];

impl Store {
    /// Every migration of this version, and those of a newer one that the database has, in order.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn migration_states(&self) -> Result<Vec<MigrationStatus>, CallError> {
        let database = self.database();
        let applied: Vec<Applied> = or_none(
            self.fetch(&format!(
                "SELECT version, any(name) AS name, toUnixTimestamp64Milli(min(applied_at)) AS at_ms, argMin(applied_by, applied_at) AS by \
                 FROM `{database}`.`schema_migrations` GROUP BY version ORDER BY version"
            ))
            .await,
        )?;
        let failed: Vec<Failed> = or_none(
            self.fetch(&format!(
                "SELECT version, argMax(f.statement, f.failed_at) AS statement, argMax(f.error, f.failed_at) AS error, \
                 toUnixTimestamp64Milli(max(f.failed_at)) AS at_ms, argMax(f.failed_by, f.failed_at) AS by \
                 FROM `{database}`.`schema_migration_failures` AS f GROUP BY version"
            ))
            .await,
        )?;
        let known = MIGRATIONS.iter().map(|migration| (migration.version, migration.name.to_owned()));
        let newer = applied.iter().filter(|row| MIGRATIONS.iter().all(|known| known.version != row.version));
        let all = known.chain(newer.map(|row| (row.version, row.name.clone())));
        let state = |version: u32| {
            if let Some(row) = applied.iter().find(|row| row.version == version) {
                return MigrationState::Applied { at_ms: row.at_ms, by: row.by.clone() };
            }
            match failed.iter().find(|row| row.version == version) {
                None => MigrationState::Pending,
                Some(Failed { statement, error, at_ms, by, .. }) => MigrationState::Failed {
                    statement: *statement,
                    error: error.clone(),
                    at_ms: *at_ms,
                    by: by.clone(),
                },
            }
        };
        Ok(all.map(|(version, name)| MigrationStatus { version, name, state: state(version) }).collect())
    }
}

fn or_none<T>(answer: Result<Vec<T>, CallError>) -> Result<Vec<T>, CallError> {
    match answer {
        Err(error) if NOTHING_THERE.contains(&error.code) => Ok(Vec::new()),
        other => other,
    }
}
