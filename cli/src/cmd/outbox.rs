//! `auditstream outbox`: the outbox's tables, and the rows that could not be sent.

use anyhow::bail;
use auditstream_producer::outbox::{Database, Dialect, FailedRow, Table, ddl};
use auditstream_schemas::Timestamp;
use clap::{Subcommand, ValueEnum};
use uuid::Uuid;

use crate::config::{ConfigError, Loaded, Settings};
use crate::{exit, output};

/// Work with the outbox in a service's database.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Migrate(MigrateArgs),
    Failed(FailedArgs),
}

/// Create the outbox's two tables in the service's database (outbox.url); what is there is left as it is.
///
/// The user needs the right to create tables. With --print nothing is connected: the statements go to standard output, for the service's own
/// migrations.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream outbox migrate
  auditstream outbox migrate --print
  auditstream outbox migrate --print --database mysql")]
struct MigrateArgs {
    /// Only print the statements.
    #[arg(long)]
    print: bool,

    /// Whose SQL is printed; default: that of outbox.url.
    #[arg(long, requires = "print", value_name = "DATABASE")]
    database: Option<Sql>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sql {
    Postgres,
    /// MariaDB too.
    Mysql,
    Sqlite,
}

/// Rows that Kafka refused as often as outbox.max_tries allows, such as too large ones.
#[derive(Debug, clap::Args)]
struct FailedArgs {
    #[command(subcommand)]
    command: Failed,
}

#[derive(Debug, Subcommand)]
enum Failed {
    List(ListArgs),
    Show(ShowArgs),
    /// Make failed rows pending again, with all their tries.
    Retry(WhichArgs),
    /// Remove failed rows for good: their events are lost.
    Remove(WhichArgs),
}

/// List failed rows in the order in which they were recorded.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream outbox failed list
  auditstream outbox failed list --limit 10")]
struct ListArgs {
    /// Most rows shown.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// Show one failed row: everything but its payload.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream outbox failed show 0198c1d0-0000-7000-8000-000000000000")]
struct ShowArgs {
    /// The event's id.
    id: Uuid,
}

/// Which failed rows.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream outbox failed retry --all
  auditstream outbox failed remove --dry-run 0198c1d0-0000-7000-8000-000000000000")]
struct WhichArgs {
    /// The events' ids.
    #[arg(required_unless_present = "all")]
    ids: Vec<Uuid>,

    /// Every failed row.
    #[arg(long, conflicts_with = "ids")]
    all: bool,

    /// Only say which rows it would be.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &Args, load: impl FnOnce() -> Result<Loaded, ConfigError>) -> anyhow::Result<u8> {
    let settings = load()?.settings;
    match &args.command {
        Command::Migrate(args) if args.print => print(args, &settings),
        Command::Migrate(_) => on_database(&settings, async |database, table| {
            database.migrate(table).await?;
            output::line(&format!("the tables {table} and {table}_leases are in place"))?;
            Ok(exit::OK)
        }),
        Command::Failed(args) => {
            on_database(&settings, async |database, table| failed(&args.command, database, table).await)
        }
    }
}

fn print(args: &MigrateArgs, settings: &Settings) -> anyhow::Result<u8> {
    let dialect = match args.database {
        Some(Sql::Postgres) => Dialect::Postgres,
        Some(Sql::Mysql) => Dialect::Mysql,
        Some(Sql::Sqlite) => Dialect::Sqlite,
        None => Dialect::of_url(settings.outbox_url()?)?,
    };
    for statement in ddl(dialect, &settings.outbox.table) {
        output::line(&format!("{statement};"))?;
    }
    Ok(exit::OK)
}

fn on_database(
    settings: &Settings,
    work: impl AsyncFnOnce(&Database, &Table) -> anyhow::Result<u8>,
) -> anyhow::Result<u8> {
    let url = settings.outbox_url()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let database = Database::connect(url).await?;
        let result = work(&database, &settings.outbox.table).await;
        database.close().await;
        result
    })
}

async fn failed(command: &Failed, database: &Database, table: &Table) -> anyhow::Result<u8> {
    match command {
        Failed::List(args) => {
            let rows = database.failed_rows(table, args.limit).await?;
            if rows.is_empty() {
                output::line("no failed rows")?;
            }
            for row in &rows {
                output::line(&summary(row))?;
            }
        }
        Failed::Show(args) => match database.failed_row(table, args.id).await? {
            None => bail!("no failed row of event {}", args.id),
            Some(row) => show(&row)?,
        },
        Failed::Retry(args) => {
            let rows = chosen(args, database, table).await?;
            if !told(args, &rows, "would be tried again")? {
                let count = database.retry_failed(table, &rows).await?;
                output::line(&format!("{} pending again", counted(count)))?;
            }
        }
        Failed::Remove(args) => {
            let rows = chosen(args, database, table).await?;
            if !told(args, &rows, "would be removed; their events would be lost")? {
                let count = database.remove_failed(table, &rows).await?;
                output::line(&format!("{} removed", counted(count)))?;
            }
        }
    }
    Ok(exit::OK)
}

/// The rows that were asked for; an id that is no failed row's is an error, and then nothing is done.
async fn chosen(args: &WhichArgs, database: &Database, table: &Table) -> anyhow::Result<Vec<FailedRow>> {
    if args.all {
        return Ok(database.failed_rows(table, u32::MAX / 2).await?);
    }
    let mut rows = Vec::new();
    for id in &args.ids {
        match database.failed_row(table, *id).await? {
            Some(row) => rows.push(row),
            None => bail!("no failed row of event {id}; nothing was done"),
        }
    }
    Ok(rows)
}

/// Whether it was only to be said.
fn told(args: &WhichArgs, rows: &[FailedRow], what: &str) -> anyhow::Result<bool> {
    if args.dry_run {
        rows.iter().try_for_each(|row| output::line(&summary(row)))?;
        output::line(&format!("{} {what}", counted(rows.len() as u64)))?;
    }
    Ok(args.dry_run)
}

fn counted(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{} rows", output::grouped(rows)) }
}

fn summary(row: &FailedRow) -> String {
    format!("{}  {}  {}  {} tries  {}", row.id, recorded(row), row.action, row.attempts, row.last_error)
}

fn recorded(row: &FailedRow) -> Timestamp {
    Timestamp::from_micros(row.created_at.saturating_mul(1_000))
}

fn show(row: &FailedRow) -> anyhow::Result<()> {
    for (name, value) in [
        ("event id", row.id.clone()),
        ("key", row.key.clone()),
        ("action", row.action.clone()),
        ("recorded", recorded(row).to_string()),
        ("place", row.seq.to_string()),
        ("payload bytes", row.payload_bytes.to_string()),
        ("tries", row.attempts.to_string()),
        ("last error", row.last_error.clone()),
    ] {
        output::line(&format!("{name:<14} {value}"))?;
    }
    Ok(())
}
