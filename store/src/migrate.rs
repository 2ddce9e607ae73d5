//! Brings the tables to this version: every migration once, in order, recorded with its checksum, one migrator at a time.
//!
//! A statement and its record are not one transaction, so a migration that failed half-way is run again from its start; its statements are
//! written to allow that.

use std::time::Duration;

use clickhouse::Row;
use serde::Deserialize;

use crate::client::{Store, quoted};
use crate::errors::CallError;
use crate::lock::Lock;
use crate::migrations::{MIGRATIONS, Migration};
use crate::roles::{self, RolesOutcome};

/// Longest time for one statement of a migration.
const STATEMENT_LIMIT: Duration = Duration::from_secs(3600);

/// How to migrate.
#[derive(Clone, Debug)]
pub struct MigrateOptions {
    /// Who migrates: shown to whoever finds the lock taken.
    pub owner: String,
    /// Longest wait for another migrator.
    pub lock_wait: Duration,
    /// Whether to make the roles and settings profiles too.
    pub roles: bool,
}

impl Default for MigrateOptions {
    /// Owner: this process's number. Waits 60 s, longer than a lock outlives its owner. With roles.
    fn default() -> Self {
        Self {
            owner: format!("auditstream {} process {}", env!("CARGO_PKG_VERSION"), std::process::id()),
            lock_wait: Duration::from_secs(60),
            roles: true,
        }
    }
}

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrateReport {
    /// Versions and names that were applied now, in order; empty when everything was there.
    pub applied: Vec<(u32, &'static str)>,
    /// How many had been applied before.
    pub already: usize,
    /// What became of the roles; `None` when they were not asked for.
    pub roles: Option<RolesOutcome>,
}

/// Why a migration stopped. What was applied before stays recorded; it can be run again.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// ClickHouse refused or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A statement of a migration failed.
    #[error("migration {version} ({name}), statement {statement}: {error}")]
    Statement {
        /// The migration.
        version: u32,
        /// Its name.
        name: &'static str,
        /// Which of its statements, from 1.
        statement: usize,
        /// Why.
        #[source]
        error: CallError,
    },
    /// The text of an applied migration is not the one that was applied.
    #[error(
        "migration {version} ({name}) was changed after it had been applied: recorded checksum {recorded}, now {now}; undo the change and add a new migration"
    )]
    Changed {
        /// The migration.
        version: u32,
        /// Its name.
        name: &'static str,
        /// The checksum in the database.
        recorded: String,
        /// The checksum of this program's text.
        now: String,
    },
    /// The database was migrated by a newer version of this program.
    #[error("the database is at migration {recorded}, this program knows {known}: use a newer version of auditstream")]
    Newer {
        /// Highest version in the database.
        recorded: u32,
        /// Highest version of this program.
        known: u32,
    },
    /// Somebody else migrates.
    #[error("another migration holds the lock: {owner}, last sign of life {} s ago", age.as_secs())]
    Locked {
        /// Who.
        owner: String,
        /// Since its last sign of life.
        age: Duration,
    },
    /// The lock was taken over, because this process gave no sign of life for too long.
    #[error("the migration lock was lost to somebody else; run the migration again")]
    LockLost,
}

#[derive(Debug, Row, Deserialize)]
struct Recorded {
    version: u32,
    checksum: String,
}

impl Store {
    /// Makes the database if it is missing, and applies every migration that was not applied yet.
    ///
    /// # Errors
    /// See [`MigrateError`]; running it again is always safe.
    pub async fn migrate(&self, options: &MigrateOptions) -> Result<MigrateReport, MigrateError> {
        self.execute(&format!("CREATE DATABASE IF NOT EXISTS `{}`", self.database())).await?;
        let lock = Lock::acquire(self, &options.owner, options.lock_wait).await?;
        let result = lock.keep(self, Box::pin(self.migrate_locked(options, &lock))).await;
        match (result, lock.release(self).await) {
            (Ok(report), Ok(())) => Ok(report),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        }
    }

    async fn migrate_locked(&self, options: &MigrateOptions, lock: &Lock) -> Result<MigrateReport, MigrateError> {
        self.execute(&format!(
            "CREATE TABLE IF NOT EXISTS `{}`.`schema_migrations` (version UInt32, name String, checksum String, applied_by String, \
             applied_at DateTime64(3, 'UTC')) ENGINE = ReplacingMergeTree ORDER BY version COMMENT 'Migrations that were applied'",
            self.database()
        ))
        .await?;
        let recorded: Vec<Recorded> = self
            .fetch(&format!("SELECT version, any(checksum) AS checksum FROM `{}`.`schema_migrations` GROUP BY version ORDER BY version", self.database()))
            .await?;
        let todo = pending(MIGRATIONS, &recorded)?;
        let mut applied = Vec::with_capacity(todo.len());
        for migration in todo {
            self.apply(migration, options, lock).await?;
            applied.push((migration.version, migration.name));
        }
        let roles = if options.roles { Some(roles::apply(self).await?) } else { None };
        Ok(MigrateReport { applied, already: recorded.len(), roles })
    }

    async fn apply(
        &self,
        migration: &'static Migration,
        options: &MigrateOptions,
        lock: &Lock,
    ) -> Result<(), MigrateError> {
        let Migration { version, name, .. } = *migration;
        for (index, sql) in migration.statements(self.database()).iter().enumerate() {
            lock.renew(self).await?;
            self.execute_within(sql, STATEMENT_LIMIT).await.map_err(|error| MigrateError::Statement {
                version,
                name,
                statement: index + 1,
                error,
            })?;
        }
        lock.renew(self).await?;
        let record = format!(
            "INSERT INTO `{}`.`schema_migrations` SETTINGS async_insert = 0 VALUES ({version}, {}, {}, {}, now64(3))",
            self.database(),
            quoted(name),
            quoted(&migration.checksum()),
            quoted(&options.owner)
        );
        self.execute(&record).await?;
        tracing::info!(version, name, "migration applied");
        Ok(())
    }
}

/// The migrations that are not recorded yet, if the recorded ones are what they were.
fn pending<'a>(known: &'a [Migration], recorded: &[Recorded]) -> Result<Vec<&'a Migration>, MigrateError> {
    let newest = known.iter().map(|migration| migration.version).max().unwrap_or(0);
    let mut pending = Vec::new();
    if let Some(unknown) = recorded.iter().map(|record| record.version).filter(|version| *version > newest).max() {
        return Err(MigrateError::Newer { recorded: unknown, known: newest });
    }
    for migration in known {
        match recorded.iter().find(|record| record.version == migration.version) {
            None => pending.push(migration),
            Some(record) if record.checksum != migration.checksum() => {
                return Err(MigrateError::Changed {
                    version: migration.version,
                    name: migration.name,
                    recorded: record.checksum.clone(),
                    now: migration.checksum(),
                });
            }
            Some(_) => {}
        }
    }
    Ok(pending)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const KNOWN: &[Migration] =
        &[Migration { version: 1, name: "a", sql: "x;\n" }, Migration { version: 2, name: "b", sql: "y;\n" }];

    fn recorded(migration: &Migration) -> Recorded {
        Recorded { version: migration.version, checksum: migration.checksum() }
    }

    #[test]
    fn what_is_recorded_is_not_applied_again() {
        assert_eq!(pending(KNOWN, &[]).unwrap().len(), 2);
        assert_eq!(pending(KNOWN, &[recorded(&KNOWN[0])]).unwrap(), [&KNOWN[1]]);
        assert!(pending(KNOWN, &[recorded(&KNOWN[0]), recorded(&KNOWN[1])]).unwrap().is_empty());
    }

    #[test]
    fn a_changed_migration_is_an_error() {
        let error = pending(KNOWN, &[Recorded { version: 1, checksum: "other".into() }]).unwrap_err();
        assert!(error.to_string().starts_with("migration 1 (a) was changed after it had been applied"), "{error}");
    }

    #[test]
    fn a_newer_database_is_an_error() {
        let error = pending(KNOWN, &[Recorded { version: 3, checksum: String::new() }]).unwrap_err();
        assert!(matches!(error, MigrateError::Newer { recorded: 3, known: 2 }));
    }
}
