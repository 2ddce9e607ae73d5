//! PostgreSQL: started for this alone, filled by COPY, asked in its simple protocol.

use std::io::Read as _;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use auditstream_bench::family::{Family, family};
use auditstream_stack::DatabaseServer;
use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection as _, Row as _};
use tokio::runtime::Handle;

use super::super::cold::{ColdRun, drop_files};
use super::plan::Plan;
use crate::server::Server;

/// For a server with this much to do and memory for it; the rest is PostgreSQL's own, such as jit = on. Not synced to disk, which only the load would feel.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("shared_buffers", "1GB"),
    ("effective_cache_size", "4GB"),
    ("work_mem", "64MB"),
    ("maintenance_work_mem", "512MB"),
    ("max_parallel_workers_per_gather", "2"),
    ("max_parallel_maintenance_workers", "2"),
    ("random_page_cost", "1.1"),
    ("effective_io_concurrency", "200"),
    ("max_wal_size", "4GB"),
    ("autovacuum", "off"),
];
const TABLE: &str = include_str!("table.sql");
const INDEXES: &str = include_str!("indexes.sql");
const COPY: &str = include_str!("copy.sql");
/// Bytes of one message to PostgreSQL.
const PIECE: usize = 1 << 20;

/// The server, and the one connection that everything goes over.
pub(super) struct Database {
    server: DatabaseServer,
    connection: Option<PgConnection>,
    runtime: Handle,
}

/// What a step of the load took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Step {
    pub(super) what: &'static str,
    pub(super) wall_s: f64,
    pub(super) cpu_s: f64,
}

/// Bytes an event takes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sizes {
    /// By column, in the table's order; 0 for an event that has none.
    pub(super) columns: Vec<(String, f64)>,
    /// The rows with their headers and pages, without indexes.
    pub(super) heap: f64,
    pub(super) indexes: Vec<(String, f64)>,
    pub(super) total: f64,
}

impl Database {
    /// Starts a server of its own. Blocks.
    pub(super) fn start() -> Result<Self> {
        let server = DatabaseServer::postgres_with(SETTINGS)?;
        let mut database = Self { server, connection: None, runtime: Handle::current() };
        database.connect()?;
        Ok(database)
    }

    /// A new connection, in UTC as sqlx makes them.
    fn connect(&mut self) -> Result<()> {
        self.connection = None;
        let options = PgConnectOptions::from_str(self.server.url())?;
        let connection = self.runtime.block_on(PgConnection::connect_with(&options));
        self.connection = Some(connection.context("PostgreSQL can't be reached")?);
        Ok(())
    }

    /// Where its files lie.
    pub(super) fn folder(&self) -> &std::path::Path {
        self.server.folder()
    }

    pub(super) fn version(&mut self) -> Result<String> {
        self.text("SHOW server_version")
    }

    /// Runs `sql`: its rows, and how long they took to arrive.
    pub(super) fn ask(&mut self, sql: &str) -> Result<(Vec<PgRow>, Duration)> {
        let connection = self.connection.as_mut().context("PostgreSQL is not connected")?;
        let begun = Instant::now();
        let rows = self.runtime.block_on(sqlx::raw_sql(sql).fetch_all(connection));
        let took = begun.elapsed();
        Ok((rows.with_context(|| format!("PostgreSQL refused: {sql}"))?, took))
    }

    /// The first value that `sql` answers, as text.
    fn text(&mut self, sql: &str) -> Result<String> {
        let (rows, _) = self.ask(sql)?;
        let row = rows.first().with_context(|| format!("PostgreSQL answered nothing to: {sql}"))?;
        row.try_get_unchecked::<String, _>(0).with_context(|| format!("no text: {sql}"))
    }

    fn number(&mut self, sql: &str) -> Result<f64> {
        let text = self.text(sql)?;
        text.parse().with_context(|| format!("PostgreSQL answered `{text}`, no number, to: {sql}"))
    }

    /// Makes the table, copies all rows of ClickHouse's, makes the indexes, and leaves it as autovacuum would. Returns what each step took.
    pub(super) fn load(&mut self, clickhouse: &Server, rows: u64) -> Result<Vec<Step>> {
        self.ask(TABLE)?;
        let mut steps = Vec::new();
        let copied = self.step(&mut steps, "COPY, no index yet", |database| database.copy(clickhouse))?;
        ensure!(copied == rows, "{copied} of {rows} rows were copied");
        self.step(&mut steps, "all indexes, one after the other", |database| {
            INDEXES.split(';').try_for_each(|index| database.ask(index).map(drop))
        })?;
        self.step(&mut steps, "VACUUM ANALYZE", |database| {
            database.ask("VACUUM ANALYZE audit_events")?;
            database.ask("CHECKPOINT").map(drop)
        })?;
        Ok(steps)
    }

    fn step<T>(
        &mut self,
        steps: &mut Vec<Step>,
        what: &'static str,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let (begun, cpu) = (Instant::now(), self.family()?.cpu);
        let done = work(self)?;
        let cpu_s = self.family()?.cpu.saturating_sub(cpu).as_secs_f64();
        steps.push(Step { what, wall_s: begun.elapsed().as_secs_f64(), cpu_s });
        Ok(done)
    }

    /// Streams the rows from one server to the other, a piece at a time.
    fn copy(&mut self, clickhouse: &Server) -> Result<u64> {
        let mut rows = clickhouse.stream(COPY)?;
        let connection = self.connection.as_mut().context("PostgreSQL is not connected")?;
        self.runtime.block_on(async {
            let mut copy = connection.copy_in_raw("COPY audit_events FROM STDIN").await?;
            let mut piece = vec![0; PIECE];
            loop {
                // It blocks, and so does this thread, which has nothing else to do.
                match rows.read(&mut piece) {
                    Ok(0) => break,
                    Ok(length) => {
                        copy.send(&piece[..length]).await?;
                    }
                    Err(error) => {
                        copy.abort("the rows ended early").await?;
                        return Err(error).context("ClickHouse's rows ended early");
                    }
                }
            }
            copy.finish().await.context("PostgreSQL refused a row")
        })
    }

    /// What the server's processes have used.
    fn family(&self) -> Result<Family> {
        let pid = self.server.pid().context("PostgreSQL does not run")?;
        family(pid).context("PostgreSQL's process is not there")
    }

    /// Its rows and what they took with nothing of the table in memory: neither in shared buffers nor in the page cache. The connection
    /// is there, and knows the table's columns.
    pub(super) fn ask_cold(&mut self, sql: &str) -> Result<(Vec<PgRow>, ColdRun)> {
        // What is in shared buffers leaves them with the process only.
        self.connection = None;
        self.server.restart()?;
        self.connect()?;
        self.ask("SELECT * FROM audit_events LIMIT 0")?;
        drop_files(self.server.folder())?;
        let before = self.family()?.disk_bytes;
        let (rows, took) = self.ask(sql)?;
        let disk_bytes = self.family()?.disk_bytes.zip(before).map(|(after, before)| after.saturating_sub(before));
        Ok((rows, ColdRun { took, disk_bytes }))
    }

    /// What the server does for `sql`.
    pub(super) fn plan(&mut self, sql: &str) -> Result<Plan> {
        let plan = self.text(&format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}"))?;
        Plan::read(&plan)
    }

    pub(super) fn sizes(&mut self) -> Result<Sizes> {
        let rows = self.number("SELECT count(*) FROM audit_events")?;
        let columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'audit_events'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        let columns: Vec<String> =
            self.ask(columns)?.0.iter().map(|row| row.try_get_unchecked(0)).collect::<Result<_, _>>()?;
        let sums: Vec<_> = columns.iter().map(|column| format!("coalesce(sum(pg_column_size({column})), 0)")).collect();
        // One pass over the table.
        let (bytes, _) = self.ask(&format!("SELECT {} FROM audit_events", sums.join(", ")))?;
        let bytes = bytes.first().context("a sum has a row")?;
        let columns = columns.into_iter().enumerate().map(|(place, column)| Ok((column, value(bytes, place)? / rows)));
        let columns = columns.collect::<Result<_>>()?;
        let indexes = "SELECT indexrelid::regclass, pg_relation_size(indexrelid) FROM pg_index WHERE indrelid = 'audit_events'::regclass ORDER BY indexrelid";
        let (indexes, _) = self.ask(indexes)?;
        let indexes = indexes.iter().map(|row| Ok((row.try_get_unchecked(0)?, value(row, 1)? / rows)));
        let indexes = indexes.collect::<Result<_>>()?;
        Ok(Sizes {
            columns,
            heap: self.number("SELECT pg_table_size('audit_events')")? / rows,
            indexes,
            total: self.number("SELECT pg_total_relation_size('audit_events')")? / rows,
        })
    }
}

/// A number of the simple protocol, which is a text.
fn value(row: &PgRow, place: usize) -> Result<f64> {
    let text: String = row.try_get_unchecked(place)?;
    text.parse().with_context(|| format!("`{text}` is no number"))
}
