//! The service's own database: a file of SQLite's, or PostgreSQL by its URL. What differs stands here, every statement is written once.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use auditstream_producer::outbox::Dialect;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};

/// Connections to PostgreSQL, and readers of SQLite.
const CONNECTIONS: u32 = 8;
/// How long one connection may take to come about, and how long SQLite's file may be held by another process.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Database {
    /// A server.
    Postgres(PgPool),
    /// A file. It has one writer at a time, so its writers queue up for one connection and not for SQLite's lock, which would let them sleep.
    Sqlite {
        /// For transactions.
        write: SqlitePool,
        /// For everything else.
        read: SqlitePool,
    },
}

/// A transaction; what is not committed is undone when it is dropped.
#[derive(Debug)]
pub enum Tx {
    /// A server's.
    Postgres(Transaction<'static, Postgres>),
    /// A file's.
    Sqlite(Transaction<'static, Sqlite>),
}

/// `$body` with a pool to read from, whichever database it is.
macro_rules! reading {
    ($database:expr, $by:ident => $body:expr) => {
        match $database {
            $crate::database::Database::Postgres($by) => $body,
            $crate::database::Database::Sqlite { read: $by, .. } => $body,
        }
    };
}
/// `$body` with a connection inside the transaction, whichever database it is.
macro_rules! within {
    ($tx:expr, $by:ident => $body:expr) => {
        match $tx {
            $crate::database::Tx::Postgres(tx) => {
                let $by = &mut **tx;
                $body
            }
            $crate::database::Tx::Sqlite(tx) => {
                let $by = &mut **tx;
                $body
            }
        }
    };
}
pub(crate) use {reading, within};

impl Database {
    /// Connects; SQLite's file is made if it is not there.
    ///
    /// # Errors
    /// A URL of another kind, or a database that can't be reached.
    pub async fn open(url: &str) -> anyhow::Result<Database> {
        match url.split_once(':').map_or("", |(scheme, _)| scheme) {
            "postgres" | "postgresql" => {
                let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE).connect(url);
                Ok(Database::Postgres(pool.await.context("connecting to PostgreSQL")?))
            }
            "sqlite" => Self::file(url).await,
            _ => bail!("database: found another scheme, expected sqlite: and a file, or postgres://"),
        }
    }

    async fn file(url: &str) -> anyhow::Result<Database> {
        let options = SqliteConnectOptions::from_str(url)
            .context("database: expected a file's URL, such as sqlite:orders.db")?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // SQLite's default: an order that was answered survives a power failure.
            .synchronous(SqliteSynchronous::Full)
            // Copying the log back into the file takes a few syncs. Rarely here, where a request would wait for them; a relay does it on the way.
            .pragma("wal_autocheckpoint", "5000")
            .busy_timeout(PATIENCE);
        let pool = |connections| SqlitePoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE);
        // The writer first: it makes the file.
        let write = pool(1).connect_with(options.clone()).await.context("opening the database's file")?;
        let read = pool(CONNECTIONS).connect_with(options).await.context("opening the database's file")?;
        Ok(Database::Sqlite { write, read })
    }

    /// Whose SQL it speaks, for the outbox.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self {
            Database::Postgres(_) => Dialect::Postgres,
            Database::Sqlite { .. } => Dialect::Sqlite,
        }
    }

    /// Runs statements that make tables.
    ///
    /// # Errors
    /// The database's.
    pub async fn make(&self, statements: &[String]) -> sqlx::Result<()> {
        for statement in statements {
            match self {
                Database::Postgres(pool) => sqlx::query(statement).execute(pool).await.map(|_| ())?,
                Database::Sqlite { write, .. } => sqlx::query(statement).execute(write).await.map(|_| ())?,
            }
        }
        Ok(())
    }

    /// Begins a transaction that will write.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin(&self) -> sqlx::Result<Tx> {
        Ok(match self {
            Database::Postgres(pool) => Tx::Postgres(pool.begin().await?),
            // Another process, such as a relay, is waited for here and not in the middle, where SQLite would refuse.
            Database::Sqlite { write, .. } => Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?),
        })
    }

    /// Closes its connections.
    pub async fn close(&self) {
        match self {
            Database::Postgres(pool) => pool.close().await,
            Database::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
        }
    }
}

impl Tx {
    /// What stands behind a SELECT of a row that will be changed; SQLite's transaction has locked everything already.
    #[must_use]
    pub fn for_update(&self) -> &'static str {
        match self {
            Tx::Postgres(_) => " FOR UPDATE",
            Tx::Sqlite(_) => "",
        }
    }

    /// Makes it so.
    ///
    /// # Errors
    /// The database's.
    pub async fn commit(self) -> sqlx::Result<()> {
        match self {
            Tx::Postgres(tx) => tx.commit().await,
            Tx::Sqlite(tx) => tx.commit().await,
        }
    }
}
