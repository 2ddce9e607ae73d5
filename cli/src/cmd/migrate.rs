//! `auditstream migrate`: brings the tables in ClickHouse to this version's shape.

use std::time::Duration;

use auditstream_schemas::Timestamp;
use auditstream_store::{MigrateOptions, MigrationState, RolesOutcome, Store};

use crate::config::Settings;
use crate::{exit, output};

/// Create or upgrade the tables and roles in ClickHouse.
///
/// Idempotent, and safe to run twice at once: the second one waits for the first. Needs a user that may create the
/// database, its tables and roles (audit_admin).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream migrate
  auditstream migrate --status
  auditstream migrate --cluster main
  AUDITSTREAM_CLICKHOUSE__USER=admin \\
    AUDITSTREAM_CLICKHOUSE__PASSWORD_FILE=/run/secrets/admin auditstream migrate")]
pub(crate) struct Args {
    /// Leave roles and settings profiles as they are.
    #[arg(long)]
    no_roles: bool,

    /// Only show which migrations are applied, which wait, and which failed at which statement; exit code 1 when one failed.
    #[arg(long)]
    status: bool,

    /// On every server of this cluster: replicated tables TABLE_local, and Distributed ones in front of them. Needs Keeper, the macros {shard}
    /// and {replica} on each server, and a secret of the cluster, by which users and their row policies reach the other shards.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,

    /// Longest wait for another migration to end, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    lock_wait: u64,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let store = Store::new(&settings.store())?;
    let options = MigrateOptions {
        lock_wait: Duration::from_secs(args.lock_wait),
        roles: !args.no_roles,
        cluster: args.cluster.clone(),
        ..MigrateOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if args.status {
        return status(&runtime.block_on(store.migration_states())?);
    }
    let report = runtime.block_on(store.migrate(&options))?;
    for (version, name) in &report.applied {
        output::line(&format!("applied {version} {name}"))?;
    }
    if report.applied.is_empty() {
        output::line(&format!("nothing to do: all {} migrations were applied before", report.already))?;
    }
    if let Some(roles) = &report.roles {
        match roles {
            RolesOutcome::Applied => output::line("roles and settings profiles are in place")?,
            RolesOutcome::NotPossible { reason } => {
                output::line(&format!("roles are left as they are: {reason}"))?;
            }
        }
    }
    Ok(exit::OK)
}

fn status(migrations: &[auditstream_store::MigrationStatus]) -> anyhow::Result<u8> {
    let time = |ms: i64| Timestamp::from_micros(ms.saturating_mul(1_000));
    let mut code = exit::OK;
    for migration in migrations {
        let (word, more) = match &migration.state {
            MigrationState::Applied { at_ms, .. } => ("applied", format!("{}", time(*at_ms))),
            MigrationState::Pending => ("pending", String::new()),
            MigrationState::Failed { statement, at_ms, .. } => {
                code = exit::FAILURE;
                ("failed", format!("{}, statement {statement}", time(*at_ms)))
            }
        };
        output::line(format!("{:>4} {:<24} {word:<8} {more}", migration.version, migration.name).trim_end())?;
        if let MigrationState::Failed { error, .. } = &migration.state {
            output::line(&format!("     {error}"))?;
        }
    }
    Ok(code)
}
