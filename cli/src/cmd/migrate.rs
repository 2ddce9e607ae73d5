//! `auditstream migrate`: brings the tables in ClickHouse to this version's shape.

use std::time::Duration;

use auditstream_store::{MigrateOptions, RolesOutcome, Store};

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
  AUDITSTREAM_CLICKHOUSE__USER=admin \\
    AUDITSTREAM_CLICKHOUSE__PASSWORD_FILE=/run/secrets/admin auditstream migrate")]
pub(crate) struct Args {
    /// Leave roles and settings profiles as they are.
    #[arg(long)]
    no_roles: bool,

    /// Longest wait for another migration to end, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    lock_wait: u64,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let store = Store::new(&settings.store())?;
    let options = MigrateOptions {
        lock_wait: Duration::from_secs(args.lock_wait),
        roles: !args.no_roles,
        ..MigrateOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
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
