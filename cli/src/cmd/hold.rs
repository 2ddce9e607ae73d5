//! `auditstream hold`: what must not be forgotten, whatever the retention says.

use auditstream_schemas::Timestamp;
use auditstream_store::{Hold, HoldScope, Store};
use clap::Subcommand;
use uuid::Uuid;

use crate::audit::{self, Deed};
use crate::config::Settings;
use crate::confirm::Consent;
use crate::{exit, output};

/// Legal holds: a tenant's events, those of one kind of entity, or of one entity, stay until the hold is taken off.
///
/// Retention and `archive --drop` leave them; dead letters all stay while any hold is set. Needs a user that may alter the tables (audit_admin).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(AddArgs),
    List(ListArgs),
    Remove(RemoveArgs),
}

/// Set a hold. When this returns nothing of it is deleted any more: merges that had begun are waited for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream hold add --tenant acme --reason 'case 2026-17'
  auditstream hold add --tenant acme --type order --id 4711 --reason audit")]
struct AddArgs {
    /// The tenant.
    #[arg(long)]
    tenant: String,

    /// Only this kind of entity.
    #[arg(long = "type", value_name = "TYPE")]
    entity_type: Option<String>,

    /// Only this entity.
    #[arg(long = "id", value_name = "ID", requires = "entity_type")]
    entity_id: Option<String>,

    /// Why: shown in lists and in the audit event.
    #[arg(long)]
    reason: String,
}

/// List the holds that are set.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream hold list
  auditstream hold list --json | jq '.[].tenant_id'")]
struct ListArgs {
    /// Print one JSON list.
    #[arg(long)]
    json: bool,
}

/// Take a hold off: what is past its time by then goes with the next merges.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream hold remove 0198c1d0-0000-7000-8000-000000000000 --reason closed")]
struct RemoveArgs {
    /// Its id, as `list` shows it.
    id: Uuid,

    /// Why: for the audit event.
    #[arg(long)]
    reason: String,

    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let store = Store::new(&settings.store())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &args.command {
            Command::Add(args) => add(args, &store, settings).await,
            Command::List(args) => list(args, &store).await,
            Command::Remove(args) => remove(args, &store, settings).await,
        }
    })
}

async fn add(args: &AddArgs, store: &Store, settings: &Settings) -> anyhow::Result<u8> {
    let scope = HoldScope {
        tenant_id: args.tenant.clone(),
        entity_type: args.entity_type.clone().unwrap_or_default(),
        entity_id: args.entity_id.clone().unwrap_or_default(),
    };
    for (name, value, may_be_empty) in [
        ("tenant", &scope.tenant_id, false),
        ("type", &scope.entity_type, true),
        ("id", &scope.entity_id, true),
        ("reason", &args.reason, false),
    ] {
        anyhow::ensure!(may_be_empty || !value.trim().is_empty(), "--{name} must not be empty");
    }
    let id = Uuid::now_v7();
    // A hold must be possible while Kafka is away.
    store.add_hold(&id.to_string(), &scope, &args.reason, &audit::os_user()).await?;
    output::line(&format!("{id} holds {scope}"))?;
    audit::done(settings, &deed("audit.hold_add", id, &scope, &args.reason)).await?;
    Ok(exit::OK)
}

async fn list(args: &ListArgs, store: &Store) -> anyhow::Result<u8> {
    let holds = store.holds().await?;
    let time = |hold: &Hold| Timestamp::from_micros(hold.at_ms.saturating_mul(1_000)).to_string();
    if args.json {
        let each = holds.iter().map(|hold| {
            serde_json::json!({
                "id": hold.id, "tenant_id": hold.scope.tenant_id, "entity_type": hold.scope.entity_type,
                "entity_id": hold.scope.entity_id, "reason": hold.reason, "by": hold.by, "at": time(hold),
            })
        });
        output::line(&serde_json::Value::from(each.collect::<Vec<_>>()).to_string())?;
        return Ok(exit::OK);
    }
    if holds.is_empty() {
        output::line("no holds")?;
    }
    for hold in &holds {
        output::line(&format!("{}  {}", hold.id, hold.scope))?;
        output::line(&format!("  by {}, {}: {}", hold.by, time(hold), hold.reason))?;
    }
    Ok(exit::OK)
}

async fn remove(args: &RemoveArgs, store: &Store, settings: &Settings) -> anyhow::Result<u8> {
    let id = args.id.to_string();
    let Some(hold) = store.holds().await?.into_iter().find(|hold| hold.id == id) else {
        anyhow::bail!("there is no hold {id}");
    };
    if args.consent.dry_run {
        output::line(&format!("{id} would be taken off; it holds {}", hold.scope))?;
        return Ok(exit::OK);
    }
    if !args
        .consent
        .given(&format!("Take off {id}? What is past its time then goes for good; it holds {}", hold.scope))?
    {
        return Ok(exit::FAILURE);
    }
    audit::around(settings, deed("audit.hold_remove", args.id, &hold.scope, &args.reason), async || {
        Ok(store.remove_hold(&id, &args.reason, &audit::os_user()).await?)
    })
    .await?;
    output::line(&format!("{id} is taken off; it held {}", hold.scope))?;
    Ok(exit::OK)
}

/// A hold's event is its tenant's.
fn deed(action: &'static str, id: Uuid, scope: &HoldScope, reason: &str) -> Deed {
    Deed {
        action,
        tenant: scope.tenant_id.clone(),
        entity_type: "legal_hold",
        entity_id: id.to_string(),
        details: serde_json::json!({ "scope": scope.to_string(), "reason": reason }),
    }
}
