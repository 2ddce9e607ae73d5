//! An outbox in each of the three databases, as a service has it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use auditstream_integration_tests::Fixture;
use auditstream_producer::outbox::Outbox;
use auditstream_stack::DatabaseServer;
use sqlx::Row as _;
use tokio::runtime::Runtime;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Postgres,
    Mariadb,
    Sqlite,
}

#[derive(Clone, Debug)]
pub(super) enum Pool {
    Postgres(sqlx::PgPool),
    Mariadb(sqlx::MySqlPool),
    Sqlite(sqlx::SqlitePool),
}

/// `$body` with a transaction of whichever database it is.
macro_rules! in_tx {
    ($pool:expr, $tx:ident => $body:expr) => {
        match $pool {
            Pool::Postgres(pool) => {
                let mut $tx = pool.begin().await.unwrap();
                $body
            }
            Pool::Mariadb(pool) => {
                let mut $tx = pool.begin().await.unwrap();
                $body
            }
            Pool::Sqlite(pool) => {
                let mut $tx = pool.begin().await.unwrap();
                $body
            }
        }
    };
}
pub(super) use in_tx;

/// A service's database with its outbox, migrated by the command.
pub(super) struct Outboxed {
    pub(super) kind: Kind,
    pub(super) url: String,
    pub(super) table: String,
    pub(super) pool: Pool,
    pub(super) outbox: Outbox,
    pub(super) runtime: Runtime,
}

fn server(kind: Kind) -> String {
    static POSTGRES: OnceLock<DatabaseServer> = OnceLock::new();
    static MARIADB: OnceLock<DatabaseServer> = OnceLock::new();
    let started = |server: Result<DatabaseServer, auditstream_stack::StackError>| {
        server.unwrap_or_else(|error| panic!("the database server does not start: {error}"))
    };
    match kind {
        Kind::Postgres => POSTGRES.get_or_init(|| started(DatabaseServer::postgres())).url().to_owned(),
        Kind::Mariadb => MARIADB.get_or_init(|| started(DatabaseServer::mariadb())).url().to_owned(),
        Kind::Sqlite => unreachable!("a file needs no server"),
    }
}

async fn sqlite(url: &str) -> sqlx::SqlitePool {
    let options: sqlx::sqlite::SqliteConnectOptions = url.parse().unwrap();
    let options = options
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Off)
        .busy_timeout(std::time::Duration::from_secs(20));
    // One writer at a time: a service would do the same.
    sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap()
}

impl Outboxed {
    pub(super) fn new(fixture: &Fixture, kind: Kind) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let table = format!("audit_outbox_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let runtime = Runtime::new().unwrap();
        let (url, pool) = runtime.block_on(async {
            match kind {
                Kind::Postgres => {
                    let url = server(kind);
                    let pool = Pool::Postgres(sqlx::PgPool::connect(&url).await.unwrap());
                    (url, pool)
                }
                Kind::Mariadb => {
                    let url = server(kind);
                    let pool = Pool::Mariadb(sqlx::MySqlPool::connect(&url).await.unwrap());
                    (url, pool)
                }
                Kind::Sqlite => {
                    let url = format!("sqlite://{}", fixture.folder().join("service.db").display());
                    let pool = sqlite(&url).await;
                    (url, Pool::Sqlite(pool))
                }
            }
        });
        let outbox = Outbox { table: table.parse().unwrap(), ..Outbox::default() };
        let made = Self { kind, url, table, pool, outbox, runtime };
        for _ in 0..2 {
            let said = super::cli(fixture, &made, &["outbox", "migrate"]).success().stdout;
            assert!(said.contains(&made.table), "{said}");
        }
        made
    }

    /// Another process's way to the same database.
    pub(super) fn another_pool(&self) -> Pool {
        match &self.pool {
            Pool::Sqlite(_) => Pool::Sqlite(self.runtime.block_on(sqlite(&self.url))),
            pool => pool.clone(),
        }
    }

    /// Rows for which the condition holds.
    pub(super) fn count(&self, condition: &str) -> i64 {
        let sql = format!("SELECT COUNT(*) FROM {} WHERE {condition}", self.table);
        self.runtime.block_on(async {
            match &self.pool {
                Pool::Postgres(pool) => sqlx::query(&sql).fetch_one(pool).await.unwrap().get(0),
                Pool::Mariadb(pool) => sqlx::query(&sql).fetch_one(pool).await.unwrap().get(0),
                Pool::Sqlite(pool) => sqlx::query(&sql).fetch_one(pool).await.unwrap().get(0),
            }
        })
    }
}
