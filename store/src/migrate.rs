//! Brings the tables to this version: every migration once, in order, recorded with its checksum, one migrator at a time.
//!
//! A statement and its record are not one transaction, so a migration that failed half-way is run again from its start; its statements are
//! written to allow that.

use std::time::Duration;

use clickhouse::Row;
use serde::Deserialize;

use crate::client::{Store, quoted};
use crate::cluster::{NoClusterForm, statements_for};
use crate::errors::CallError;
use crate::lock::Lock;
use crate::migrations::{MIGRATIONS, Migration};
use crate::roles::{self, RolesOutcome};
use crate::target::Target;

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
    /// The cluster whose servers all get the tables; see `cluster.rs`. `None` for a server on its own.
    pub cluster: Option<String>,
}

impl Default for MigrateOptions {
    /// Owner: this process's number. Waits 60 s, longer than a lock outlives its owner. With roles.
    fn default() -> Self {
        Self {
            owner: format!("auditstream {} process {}", env!("CARGO_PKG_VERSION"), std::process::id()),
            lock_wait: Duration::from_secs(60),
            roles: true,
            cluster: None,
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
    #[error(
        "migration {version} ({name}) is not applied: its statement {statement} failed; once its cause is gone, run the migration again: {error}"
    )]
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
    /// The tables are those of a cluster, and only one server was meant.
    #[error("the table events is on the cluster {cluster}: run the migration with `--cluster {cluster}`")]
    OnCluster {
        /// The cluster.
        cluster: String,
    },
    /// A migration was not written for a cluster.
    #[error(transparent)]
    NoClusterForm(#[from] NoClusterForm),
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
        self.migrate_with(MIGRATIONS, options).await
    }

    /// [`Self::migrate`] with other migrations than this version's: those of an older or a newer one.
    ///
    /// # Errors
    /// As [`Self::migrate`].
    pub async fn migrate_with(
        &self,
        migrations: &'static [Migration],
        options: &MigrateOptions,
    ) -> Result<MigrateReport, MigrateError> {
        let target = Target { database: self.database(), cluster: options.cluster.as_deref() };
        if target.cluster.is_none()
            && let Some(cluster) = self.cluster_of_events().await?
        {
            return Err(MigrateError::OnCluster { cluster });
        }
        self.execute(&format!("CREATE DATABASE IF NOT EXISTS `{}`{}", self.database(), target.on_cluster())).await?;
        let lock = Lock::acquire(self, &options.owner, options.lock_wait).await?;
        let result = lock.keep(self, Box::pin(self.migrate_locked(migrations, options, &lock))).await;
        match (result, lock.release(self).await) {
            (Ok(report), Ok(())) => Ok(report),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        }
    }

    async fn migrate_locked(
        &self,
        migrations: &'static [Migration],
        options: &MigrateOptions,
        lock: &Lock,
    ) -> Result<MigrateReport, MigrateError> {
        let target = Target { database: self.database(), cluster: options.cluster.as_deref() };
        for sql in records_sql(&target) {
            self.execute(&sql).await?;
        }
        let recorded: Vec<Recorded> = self
            .fetch(&format!("SELECT version, any(checksum) AS checksum FROM `{}`.`schema_migrations` GROUP BY version ORDER BY version", self.database()))
            .await?;
        let todo = pending(migrations, &recorded)?;
        let mut applied = Vec::with_capacity(todo.len());
        for migration in todo {
            let statements = statements_for(migrations, migration, &target)?;
            self.apply(migration, &statements, options, lock).await?;
            applied.push((migration.version, migration.name));
        }
        let roles = if options.roles { Some(roles::apply(self, &target).await?) } else { None };
        Ok(MigrateReport { applied, already: recorded.len(), roles })
    }

    async fn apply(
        &self,
        migration: &'static Migration,
        statements: &[(usize, String)],
        options: &MigrateOptions,
        lock: &Lock,
    ) -> Result<(), MigrateError> {
        let Migration { version, name, .. } = *migration;
        let database = self.database();
        for (statement, sql) in statements {
            lock.renew(self).await?;
            if let Err(error) = self.execute_within(sql, STATEMENT_LIMIT).await {
                let record = format!(
                    "INSERT INTO `{database}`.`schema_migration_failures` SETTINGS async_insert = 0 VALUES ({version}, {}, {statement}, {}, {}, now64(3))",
                    quoted(name),
                    quoted(&error.to_string()),
                    quoted(&options.owner)
                );
                // The caller hears of the failure in any case; the record is for those who ask later.
                if let Err(unrecorded) = self.execute(&record).await {
                    tracing::warn!(version, error = %unrecorded, "the failure of a migration could not be recorded");
                }
                return Err(MigrateError::Statement { version, name, statement: *statement, error });
            }
        }
        lock.renew(self).await?;
        let record = format!(
            "INSERT INTO `{database}`.`schema_migrations` SETTINGS async_insert = 0 VALUES ({version}, {}, {}, {}, now64(3))",
            quoted(name),
            quoted(&migration.checksum()),
            quoted(&options.owner)
        );
        self.execute(&record).await?;
        tracing::info!(version, name, "migration applied");
        Ok(())
    }
}

/// The tables that say what was applied and what failed. On a cluster every server is a replica of the same ones.
fn records_sql(target: &Target<'_>) -> [String; 2] {
    let (database, on_cluster) = (target.database, target.on_cluster());
    let engine = |family: &str, table: &str| match target.cluster {
        None => format!("{family}MergeTree"),
        Some(_) => {
            format!(
                "Replicated{family}MergeTree('/clickhouse/auditstream/{database}/{table}', '{{shard}}-{{replica}}')"
            )
        }
    };
    [
        format!(
            "CREATE TABLE IF NOT EXISTS `{database}`.`schema_migrations`{on_cluster} (version UInt32, name String, checksum String, applied_by String, \
             applied_at DateTime64(3, 'UTC')) ENGINE = {} ORDER BY version COMMENT 'Migrations that were applied'",
            engine("Replacing", "schema_migrations")
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS `{database}`.`schema_migration_failures`{on_cluster} (version UInt32, name String, statement UInt32, error String, \
             failed_by String, failed_at DateTime64(3, 'UTC')) ENGINE = {} ORDER BY (version, failed_at) COMMENT 'Statements of migrations that failed'",
            engine("", "schema_migration_failures")
        ),
    ]
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
