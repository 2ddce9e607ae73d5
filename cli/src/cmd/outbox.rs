//! `auditstream outbox`: the outbox's tables, and the rows that could not be sent.

use anyhow::bail;
use auditstream_producer::outbox::{Database, Dialect, FailedRow, Table, ddl};
use auditstream_schemas::Timestamp;
use clap::{Subcommand, ValueEnum};
use serde_json::json;
use uuid::Uuid;

use crate::audit::{Auditor, Deed, INSTALLATION};
use crate::config::{ConfigError, Loaded, Settings};
use crate::confirm::Consent;
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
    Retry(RetryArgs),
    Remove(RemoveArgs),
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

/// Make failed rows pending again, with all their tries.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream outbox failed retry --all
  auditstream outbox failed retry --dry-run 0198c1d0-0000-7000-8000-000000000000")]
struct RetryArgs {
    #[command(flatten)]
    which: Which,

    /// Only say which rows it would be.
    #[arg(long)]
    dry_run: bool,
}

/// Remove failed rows for good: their events are lost. Each is audited as audit.outbox_remove before it goes, so Kafka must be there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream outbox failed remove --dry-run 0198c1d0-0000-7000-8000-000000000000
  auditstream outbox failed remove --all --yes")]
struct RemoveArgs {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    consent: Consent,
}

/// Which failed rows.
#[derive(Debug, clap::Args)]
struct Which {
    /// The events' ids.
    #[arg(required_unless_present = "all")]
    ids: Vec<Uuid>,

    /// Every failed row.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
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
            on_database(&settings, async |database, table| failed(&args.command, &settings, database, table).await)
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

async fn failed(command: &Failed, settings: &Settings, database: &Database, table: &Table) -> anyhow::Result<u8> {
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
            let rows = chosen(&args.which, database, table).await?;
            if args.dry_run {
                tell(&rows, "would be tried again")?;
            } else {
                let count = database.retry_failed(table, &rows).await?;
                output::line(&format!("{} pending again", counted(count)))?;
            }
        }
        Failed::Remove(args) => {
            let rows = chosen(&args.which, database, table).await?;
            if args.consent.dry_run {
                tell(&rows, "would be removed; their events would be lost")?;
            } else if rows.is_empty() {
                output::line("nothing to do: no failed row was chosen")?;
            } else if args
                .consent
                .given(&format!("{} will be removed, and their events are lost. Go on?", counted(rows.len() as u64)))?
            {
                return remove(&rows, settings, database, table).await;
            } else {
                return Ok(exit::FAILURE);
            }
        }
    }
    Ok(exit::OK)
}

/// Removes the rows, each audited; one that can't be is said, and the others go on.
async fn remove(rows: &[FailedRow], settings: &Settings, database: &Database, table: &Table) -> anyhow::Result<u8> {
    let auditor = Auditor::new(settings).await?;
    let (mut removed, mut failed) = (0, 0);
    for row in rows {
        let deed = Deed {
            action: "audit.outbox_remove",
            tenant: INSTALLATION.to_owned(),
            entity_type: "outbox_row",
            entity_id: row.id.clone(),
            details: json!({
                "table": table.to_string(), "action": row.action, "recorded": recorded(row).to_string(), "tries": row.attempts,
            }),
        };
        let work = async || Ok(database.remove_failed(table, std::slice::from_ref(row)).await?);
        match auditor.audited(deed, work).await {
            Ok(count) => removed += count,
            Err(error) => {
                failed += 1;
                exit::chain(&error.context(format!("event {}", row.id)));
            }
        }
    }
    auditor.close().await;
    output::line(&format!("{} removed", counted(removed)))?;
    Ok(if failed == 0 { exit::OK } else { exit::FAILURE })
}

/// The rows that were asked for; an id that is no failed row's is an error, and then nothing is done.
async fn chosen(args: &Which, database: &Database, table: &Table) -> anyhow::Result<Vec<FailedRow>> {
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

/// Only says what would be done.
fn tell(rows: &[FailedRow], what: &str) -> anyhow::Result<()> {
    rows.iter().try_for_each(|row| output::line(&summary(row)))?;
    output::line(&format!("{} {what}; nothing was done (dry run)", counted(rows.len() as u64)))
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
