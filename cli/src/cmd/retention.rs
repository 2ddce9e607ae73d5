//! `auditstream retention`: how long rows are kept, as configured and as applied.

use auditstream_store::{Overdue, Retention, Store};
use clap::Subcommand;

use crate::audit::{self, Deed, INSTALLATION};
use crate::config::Settings;
use crate::confirm::Consent;
use crate::{exit, output};

/// How long events and dead letters are kept: see the section [retention] of the configuration.
///
/// What is past its time goes with ClickHouse's merges, within hours. Legal holds are stronger: see `auditstream hold`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the retention that is applied, and how many rows are past their time.
    ///
    /// The exit code is 1 when the configuration says something else.
    #[command(after_help = "\
Examples:
  auditstream retention show")]
    Show,
    Apply(ApplyArgs),
}

/// Make the tables follow the configuration. Rows that are past their time will be deleted for good.
///
/// Needs a user that may alter the tables (audit_admin). An audit event, audit.retention, tells of it first; without it nothing is done.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream retention apply --dry-run
  auditstream retention apply --yes")]
struct ApplyArgs {
    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let store = Store::new(&settings.store())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &args.command {
            Command::Show => show(&store, settings).await,
            Command::Apply(args) => apply(args, &store, settings).await,
        }
    })
}

async fn show(store: &Store, settings: &Settings) -> anyhow::Result<u8> {
    let applied = store.applied_retention().await?;
    match &applied {
        None => output::line("no retention was ever applied: everything stays")?,
        Some(applied) => table(applied, &store.overdue(applied).await?)?,
    }
    let holds = store.holds().await?.len();
    output::line(&format!("legal holds: {holds}"))?;
    if applied.unwrap_or_default() == settings.retention {
        return Ok(exit::OK);
    }
    output::line("the configuration says something else; `auditstream retention apply --dry-run` shows it")?;
    Ok(exit::FAILURE)
}

async fn apply(args: &ApplyArgs, store: &Store, settings: &Settings) -> anyhow::Result<u8> {
    let retention = &settings.retention;
    table(retention, &store.overdue(retention).await?)?;
    if args.consent.dry_run {
        output::line("nothing was changed")?;
        return Ok(exit::OK);
    }
    if !args.consent.given("Apply it? What is past its time goes for good")? {
        return Ok(exit::FAILURE);
    }
    let deed = Deed {
        action: "audit.retention",
        tenant: INSTALLATION.to_owned(),
        entity_type: "retention",
        entity_id: settings.clickhouse.database.clone(),
        details: serde_json::json!({
            "default_days": retention.default_days,
            "rules": retention.rules.to_string(),
            "dead_letter_days": retention.dead_letter_days,
        }),
    };
    audit::around(settings, deed, async || Ok(store.apply_retention(retention, &audit::os_user()).await?)).await?;
    output::line("applied; what is past its time goes with the next merges")?;
    Ok(exit::OK)
}

/// Fits 80 columns, unless a rule is long.
fn table(retention: &Retention, classes: &[Overdue]) -> anyhow::Result<()> {
    output::line(&format!("{:<36} {:>6} {:>13} {:>11} {:>10}", "events", "days", "rows", "past it", "held"))?;
    let days = |days: u32| if days == 0 { "-".to_owned() } else { output::grouped(days) };
    for Overdue { class, rows, overdue, held } in classes {
        output::line(&format!(
            "{:<36} {:>6} {:>13} {:>11} {:>10}",
            class.name.trim_end_matches(&format!(" days={}", class.days)),
            days(class.days),
            output::grouped(*rows),
            output::grouped(*overdue),
            output::grouped(*held)
        ))?;
    }
    output::line(&format!("{:<36} {:>6}", "dead letters", days(retention.dead_letter_days)))
}
