//! A connection pool to whichever database holds the outbox. Every statement is written once; this file knows what differs.

use std::fmt;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::Row as _;

#[cfg(feature = "relay")]
pub(crate) use crate::error::chain;

/// Connections of one relay: rows, leases, and what a person asks beside them.
const CONNECTIONS: u32 = 4;
/// How long one connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// SQLite only: how long another writer may hold the file.
#[cfg(feature = "outbox-sqlite")]
const BUSY: Duration = Duration::from_secs(10);

/// Whose SQL is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL 12 or later.
    Postgres,
    /// MySQL 8 or MariaDB 10.3, or later: numbers of deleted rows are not given again.
    Mysql,
    /// SQLite 3.24 or later.
    Sqlite,
}

impl Dialect {
    /// What a URL names, by its scheme.
    ///
    /// # Errors
    /// The scheme is none of the known ones; the message does not repeat the URL, which may hold a password.
    pub fn of_url(url: &str) -> Result<Self, DatabaseError> {
        match url.split_once(':').map_or("", |(scheme, _)| scheme) {
            "postgres" | "postgresql" => Ok(Self::Postgres),
            "mysql" | "mariadb" => Ok(Self::Mysql),
            "sqlite" => Ok(Self::Sqlite),
            _ => Err(DatabaseError::Url("begins with another scheme, expected postgres://, mysql:// or sqlite://")),
        }
    }

    /// The database's clock, in milliseconds since 1970.
    pub(crate) fn now(self) -> &'static str {
        match self {
            Self::Postgres => "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint",
            Self::Mysql => "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
            Self::Sqlite => "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
        }
    }
}

/// The file of a SQLite database; `None` for another database, or one in memory.
///
/// # Errors
/// The URL is of no known kind, or sqlx can't read it. No message holds the URL.
pub fn sqlite_file(url: &str) -> Result<Option<std::path::PathBuf>, DatabaseError> {
    if Dialect::of_url(url)? != Dialect::Sqlite {
        return Ok(None);
    }
    #[cfg(feature = "outbox-sqlite")]
    {
        let options: sqlx::sqlite::SqliteConnectOptions =
            url.parse().map_err(DatabaseError::at("can't read the outbox's url"))?;
        let is_memory = url.contains(":memory:") || url.contains("mode=memory");
        Ok((!is_memory).then(|| options.get_filename().to_owned()))
    }
    #[cfg(not(feature = "outbox-sqlite"))]
    Err(DatabaseError::NotBuilt("outbox-sqlite"))
}

/// The database can't be used, or refused a statement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The URL is not one of the known kinds.
    #[error("the outbox's url {0}")]
    Url(&'static str),
    /// This program was built without that database.
    #[error("this program was built without the feature `{0}`")]
    NotBuilt(&'static str),
    /// The database can't be reached, or refused.
    #[error("the outbox's database: {what}")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// The database's words.
        source: sqlx::Error,
    },
}

impl DatabaseError {
    /// For `map_err`.
    pub(crate) fn at(what: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Sql { what, source }
    }

    /// Whether the table is missing, or the login: waiting does not mend it.
    #[cfg(feature = "relay")]
    pub(crate) fn needs_a_human(&self) -> bool {
        match self {
            Self::Url(_) | Self::NotBuilt(_) => true,
            Self::Sql { source: sqlx::Error::Configuration(_), .. } => true,
            Self::Sql { source: sqlx::Error::Database(error), .. } => {
                let code = error.code().unwrap_or_default();
                // PostgreSQL: no table, column, database, right or login. MySQL's SQLSTATEs for the same.
                let known = ["42P01", "42703", "3D000", "42501", "28000", "28P01", "42S02", "42S22", "42000"];
                known.contains(&code.as_ref()) || error.message().contains("no such table")
            }
            Self::Sql { .. } => false,
        }
    }
}

/// A value in a statement.
#[derive(Debug, Clone)]
pub(crate) enum Arg<'a> {
    #[cfg(feature = "relay")]
    Int(i64),
    Text(&'a str),
}

#[derive(Debug, Clone)]
pub(crate) enum Pool {
    #[cfg(feature = "outbox-postgres")]
    Postgres(sqlx::PgPool),
    #[cfg(feature = "outbox-mysql")]
    Mysql(sqlx::MySqlPool),
    #[cfg(feature = "outbox-sqlite")]
    Sqlite(sqlx::SqlitePool),
}

/// The same statement for whichever pool there is.
macro_rules! on {
    ($database:expr, $pool:ident => $body:expr) => {
        match &$database.pool {
            #[cfg(feature = "outbox-postgres")]
            Pool::Postgres($pool) => $body,
            #[cfg(feature = "outbox-mysql")]
            Pool::Mysql($pool) => $body,
            #[cfg(feature = "outbox-sqlite")]
            Pool::Sqlite($pool) => $body,
        }
    };
}

/// A query with its values.
macro_rules! query {
    ($sql:expr, $args:expr) => {{
        let mut query = sqlx::query($sql).persistent($args.len() > 0);
        for arg in $args {
            query = match arg {
                #[cfg(feature = "relay")]
                Arg::Int(number) => query.bind(*number),
                Arg::Text(text) => query.bind((*text).to_owned()),
            };
        }
        query
    }};
}

/// The database that holds an outbox. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    pub(crate) pool: Pool,
    pub(crate) dialect: Dialect,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

/// A field of a row, as what it is stored as.
pub(crate) trait Fields {
    fn int(&self, index: usize) -> Result<i64, sqlx::Error>;
    fn text(&self, index: usize) -> Result<String, sqlx::Error>;
    fn optional(&self, index: usize) -> Result<Option<String>, sqlx::Error>;
    #[cfg(feature = "relay")]
    fn bytes(&self, index: usize) -> Result<Vec<u8>, sqlx::Error>;
}

/// Unchecked: MySQL calls text of a binary collation binary, PostgreSQL has three kinds of text.
macro_rules! fields_of {
    ($row:ty) => {
        impl Fields for $row {
            fn int(&self, index: usize) -> Result<i64, sqlx::Error> {
                self.try_get(index)
            }
            fn text(&self, index: usize) -> Result<String, sqlx::Error> {
                self.try_get_unchecked(index)
            }
            fn optional(&self, index: usize) -> Result<Option<String>, sqlx::Error> {
                self.try_get_unchecked(index)
            }
            #[cfg(feature = "relay")]
            fn bytes(&self, index: usize) -> Result<Vec<u8>, sqlx::Error> {
                self.try_get_unchecked(index)
            }
        }
    };
}
#[cfg(feature = "outbox-postgres")]
fields_of!(sqlx::postgres::PgRow);
#[cfg(feature = "outbox-mysql")]
fields_of!(sqlx::mysql::MySqlRow);
#[cfg(feature = "outbox-sqlite")]
fields_of!(sqlx::sqlite::SqliteRow);

impl Database {
    /// Connects. `url` is sqlx's: `postgres://user:password@host/database`, `mysql://...`, `sqlite://file` (or `sqlite:file`).
    ///
    /// # Errors
    /// The URL can't be used, or the database can't be reached. No message holds the URL, which may hold a password.
    pub async fn connect(url: &str) -> Result<Self, DatabaseError> {
        let dialect = Dialect::of_url(url)?;
        let connecting = DatabaseError::at("can't connect");
        let pool = match dialect {
            #[cfg(feature = "outbox-postgres")]
            Dialect::Postgres => Pool::Postgres(
                sqlx::postgres::PgPoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(CONNECT)
                    .connect(url)
                    .await
                    .map_err(connecting)?,
            ),
            #[cfg(feature = "outbox-mysql")]
            Dialect::Mysql => Pool::Mysql(
                sqlx::mysql::MySqlPoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(CONNECT)
                    .after_connect(|connection, _| {
                        Box::pin(async move {
                            // Under InnoDB's default a relay's DELETE would lock gaps that the service's INSERTs need.
                            let sql = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
                            sqlx::Executor::execute(connection, sql).await.map(|_| ())
                        })
                    })
                    .connect(url)
                    .await
                    .map_err(connecting)?,
            ),
            #[cfg(feature = "outbox-sqlite")]
            Dialect::Sqlite => {
                let options: sqlx::sqlite::SqliteConnectOptions = url.parse().map_err(&connecting)?;
                let pool = sqlx::sqlite::SqlitePoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(CONNECT)
                    .after_connect(|connection, _| Box::pin(quick_commits(connection)));
                Pool::Sqlite(pool.connect_with(options.busy_timeout(BUSY)).await.map_err(connecting)?)
            }
            #[allow(unreachable_patterns, reason = "depends on the features")]
            _ => {
                return Err(DatabaseError::NotBuilt(match dialect {
                    Dialect::Postgres => "outbox-postgres",
                    Dialect::Mysql => "outbox-mysql",
                    Dialect::Sqlite => "outbox-sqlite",
                }));
            }
        };
        Ok(Self { pool, dialect })
    }

    /// Whose SQL it speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Closes its connections.
    pub async fn close(&self) {
        on!(self, pool => pool.close().await);
    }

    /// Makes the outbox's tables; changes nothing that is there.
    ///
    /// # Errors
    /// The database refused.
    pub async fn migrate(&self, table: &super::Table) -> Result<(), DatabaseError> {
        for statement in super::ddl(self.dialect, table) {
            self.execute("can't make the outbox's tables", &statement, &[]).await?;
        }
        Ok(())
    }

    /// `?` as the database writes it. The statements of this crate have none in texts.
    fn placeholders(&self, sql: &str) -> String {
        if self.dialect != Dialect::Postgres {
            return sql.to_owned();
        }
        let mut out = String::with_capacity(sql.len() + 8);
        let mut number = 0;
        for c in sql.chars() {
            if c == '?' {
                number += 1;
                out.push('$');
                out.push_str(&number.to_string());
            } else {
                out.push(c);
            }
        }
        out
    }

    /// Rows affected.
    pub(crate) async fn execute(&self, what: &'static str, sql: &str, args: &[Arg<'_>]) -> Result<u64, DatabaseError> {
        let sql = self.placeholders(sql);
        on!(self, pool => {
            let done = query!(&sql, args).execute(pool).await.map_err(DatabaseError::at(what))?;
            Ok(done.rows_affected())
        })
    }

    /// Rows as `read` makes them, until `enough` of the last one says so.
    pub(crate) async fn fetch<T>(
        &self,
        what: &'static str,
        sql: &str,
        args: &[Arg<'_>],
        read: impl Fn(&dyn Fields) -> Result<T, sqlx::Error>,
        mut enough: impl FnMut(&T) -> bool,
    ) -> Result<Vec<T>, DatabaseError> {
        let sql = self.placeholders(sql);
        let mut rows = Vec::new();
        on!(self, pool => {
            let mut stream = query!(&sql, args).fetch(pool);
            while let Some(row) = stream.try_next().await.map_err(DatabaseError::at(what))? {
                let row = read(&row).map_err(DatabaseError::at(what))?;
                let last = enough(&row);
                rows.push(row);
                if last {
                    break;
                }
            }
        });
        Ok(rows)
    }
}

/// Without a sync to disk at each commit, where SQLite stays whole without it: the service's writers wait for a relay's commit. A crash of the machine
/// then costs at most the note that rows were sent, and they are sent again.
#[cfg(feature = "outbox-sqlite")]
async fn quick_commits(connection: &mut sqlx::SqliteConnection) -> Result<(), sqlx::Error> {
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await?;
    if mode.eq_ignore_ascii_case("wal") {
        sqlx::query("PRAGMA synchronous = NORMAL").execute(connection).await?;
    }
    Ok(())
}

/// Numbers for an `IN (...)`. They are ours, so they stand in the text.
pub(crate) fn list(numbers: &[i64]) -> String {
    let mut out = String::with_capacity(numbers.len() * 8);
    for (index, number) in numbers.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&number.to_string());
    }
    out
}
