//! A lock between two migrations at once. ClickHouse has no advisory locks, but making a table that must not exist is atomic, and so is renaming one.
//!
//! The lock is an empty table `schema_migrations_lock`; its comment names the owner. The owner renews it every [`RENEW`], which moves the table's
//! modification time on the server's clock, so that no two clocks are compared. A lock that was not renewed for [`EXPIRY`] was left behind. It is
//! taken over by renaming it to a name made from its own uuid; of two who try, one finds that name taken and looks again, so nobody can rename a
//! fresh lock away. Renamed locks stay as a trace; they hold nothing. An owner that was only asleep finds out before its next statement.

use std::time::Duration;

use clickhouse::Row;
use serde::Deserialize;
use tokio::time::Instant;

use crate::client::{Store, quoted};
use crate::errors::CallError;
use crate::migrate::MigrateError;

/// After this long without renewal a lock counts as left behind.
const EXPIRY: Duration = Duration::from_secs(30);

/// Between two renewals.
const RENEW: Duration = Duration::from_secs(5);

/// Wait between two looks at a lock that somebody else holds.
const POLL: Duration = Duration::from_millis(250);

/// `TABLE_ALREADY_EXISTS` and `UNKNOWN_TABLE`.
const EXISTS: Option<u32> = Some(57);
const UNKNOWN: Option<u32> = Some(60);

/// The held lock. Not released by dropping it: that needs the server.
#[derive(Debug)]
pub(crate) struct Lock {
    uuid: String,
    owner: String,
}

#[derive(Row, Deserialize)]
struct Held {
    uuid: String,
    comment: String,
    /// Seconds since it was made or renewed.
    age: i64,
}

impl Lock {
    /// Takes the lock, waiting at most `wait` for another owner.
    pub(crate) async fn acquire(store: &Store, owner: &str, wait: Duration) -> Result<Self, MigrateError> {
        let deadline = Instant::now() + wait;
        loop {
            let create =
                format!("CREATE TABLE {} (nothing UInt8) ENGINE = Memory COMMENT {}", table(store), quoted(owner));
            match store.execute(&create).await {
                Ok(()) => {
                    let held = Self::look(store).await?.ok_or(MigrateError::LockLost)?;
                    return if held.comment == owner {
                        Ok(Self { uuid: held.uuid, owner: owner.to_owned() })
                    } else {
                        Err(MigrateError::LockLost)
                    };
                }
                Err(error) if error.code == EXISTS => {}
                Err(error) => return Err(error.into()),
            }
            // None: released in between; at once again.
            if let Some(held) = Self::look(store).await? {
                if held.age > EXPIRY.as_secs() as i64 {
                    Self::set_aside(store, &held).await?;
                } else if Instant::now() >= deadline {
                    return Err(MigrateError::Locked {
                        owner: held.comment,
                        age: Duration::from_secs(held.age.unsigned_abs()),
                    });
                } else {
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }

    /// Does `work` and says every now and then that the owner is alive.
    pub(crate) async fn keep<T>(
        &self,
        store: &Store,
        work: impl Future<Output = Result<T, MigrateError>>,
    ) -> Result<T, MigrateError> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result,
                () = tokio::time::sleep(RENEW) => self.renew(store).await?,
            }
        }
    }

    /// Says that the owner is alive, and learns whether it still is the owner.
    pub(crate) async fn renew(&self, store: &Store) -> Result<(), MigrateError> {
        self.check(store).await?;
        Ok(store.execute(&format!("ALTER TABLE {} MODIFY COMMENT {}", table(store), quoted(&self.owner))).await?)
    }

    /// Gives the lock back.
    pub(crate) async fn release(self, store: &Store) -> Result<(), MigrateError> {
        self.check(store).await?;
        Ok(store.execute(&format!("DROP TABLE {}", table(store))).await?)
    }

    async fn check(&self, store: &Store) -> Result<(), MigrateError> {
        match Self::look(store).await? {
            Some(held) if held.uuid == self.uuid => Ok(()),
            _ => Err(MigrateError::LockLost),
        }
    }

    async fn look(store: &Store) -> Result<Option<Held>, CallError> {
        let sql = format!(
            "SELECT toString(uuid) AS uuid, comment, toInt64(toUnixTimestamp(now())) - toInt64(toUnixTimestamp(metadata_modification_time)) AS age \
             FROM system.tables WHERE database = {} AND name = 'schema_migrations_lock'",
            quoted(store.database())
        );
        Ok(store.fetch::<Held>(&sql).await?.into_iter().next())
    }

    async fn set_aside(store: &Store, stale: &Held) -> Result<(), CallError> {
        tracing::warn!(owner = stale.comment, age_s = stale.age, "taking over a migration lock that was left behind");
        let aside = format!("`{}`.`schema_migrations_lock_{}`", store.database(), stale.uuid.replace('-', ""));
        match store.execute(&format!("RENAME TABLE {} TO {aside}", table(store))).await {
            // Somebody else was faster.
            Err(error) if error.code == EXISTS || error.code == UNKNOWN => Ok(()),
            other => other,
        }
    }
}

fn table(store: &Store) -> String {
    format!("`{}`.`schema_migrations_lock`", store.database())
}
