//! `auditstream restore`: an archive's rows back into the table of events.

use anyhow::{Context as _, bail, ensure};
use auditstream_store::{HoldScope, Retention, Staging, Store};
use uuid::Uuid;

use super::manifest::{ArchivedFile, Manifest};
use super::place::{Location, Place};
use crate::audit::{self, Deed, INSTALLATION};
use crate::config::Settings;
use crate::{exit, output};

/// Put archived partitions back into the table of events: every row as it was, and those that are there already not again.
///
/// The hashes of all files are checked before anything is inserted, and each row is looked up afterwards. Rows that the applied retention would delete
/// again are refused: set a legal hold first. Needs a user that may make tables (audit_admin). An audit event, audit.restore, tells of it first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream restore --dry-run /archive/audit.events-202603-5f0c6d2e91ab8c34
  auditstream restore /archive/audit.events-2026*
  auditstream restore s3://backup/audit/audit.events-202603-5f0c6d2e91ab8c34")]
pub(crate) struct Args {
    /// Folders that hold a manifest.json, or s3://BUCKET/PREFIX, as `archive` has named them.
    #[arg(required = true, value_name = "FOLDER")]
    folders: Vec<Location>,

    /// Read and compare everything, and say how many rows are missing in the table.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let store = Store::new(&settings.store())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything is restored: what the configuration lacks.
    let places = args.folders.iter().map(|location| Place::new(location, settings));
    let places = places.collect::<anyhow::Result<Vec<_>>>()?;
    runtime.block_on(async {
        for place in &places {
            let restored = Box::pin(restore(args, &store, settings, place)).await;
            output::line(&restored.with_context(|| place.to_string())?)?;
        }
        Ok(exit::OK)
    })
}

async fn restore(args: &Args, store: &Store, settings: &Settings, place: &Place) -> anyhow::Result<String> {
    place.is_usable().await?;
    let manifest = Manifest::read(place).await?;
    let table = format!("{}.events", settings.clickhouse.database);
    ensure!(manifest.table == table, "it is of {}, not of {table}", manifest.table);
    fits(store, &manifest).await?;
    for file in &manifest.files {
        file.check(place).await?;
    }
    let staging_name = format!("archive_staging_{}", Uuid::now_v7().simple());
    let work = async || {
        let staging = store.make_staging(&staging_name, &manifest.columns()).await?;
        let result = files(args.dry_run, store, &staging, place, &manifest).await;
        store.drop_staging(staging).await?;
        result
    };
    let (id, rows) = (&manifest.partition, output::grouped(manifest.rows));
    if args.dry_run {
        let missing = work().await?;
        return Ok(format!("{id}: {rows} rows are whole, {} of them missing in the table", output::grouped(missing)));
    }
    let deed = Deed {
        action: "audit.restore",
        tenant: INSTALLATION.to_owned(),
        entity_type: "partition",
        entity_id: format!("{table}/{id}"),
        details: serde_json::json!({
            "rows": manifest.rows, "hash": manifest.hash, "folder": place.to_string()
        }),
    };
    let restored = audit::around(settings, deed, work).await?;
    Ok(format!("{id}: {} of {rows} rows restored, the others were there", output::grouped(restored)))
}

/// Whether the table has the archive's columns; further ones take their defaults.
async fn fits(store: &Store, manifest: &Manifest) -> anyhow::Result<()> {
    let live = store.archived_columns().await?;
    for column in manifest.columns() {
        match live.iter().find(|there| there.name == column.name) {
            None => bail!("the table has no column {}", column.name),
            Some(there) if there.clickhouse_type != column.clickhouse_type => {
                bail!(
                    "the column {} is {} in the table and {} in the archive",
                    column.name,
                    there.clickhouse_type,
                    column.clickhouse_type
                )
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Answers how many rows were missing.
async fn files(
    dry_run: bool,
    store: &Store,
    staging: &Staging,
    place: &Place,
    manifest: &Manifest,
) -> anyhow::Result<u64> {
    let retention = store.applied_retention().await?.unwrap_or_default();
    let holds: Vec<_> = store.holds().await?.into_iter().map(|hold| hold.scope).collect();
    if !dry_run {
        // All of them before the first row goes in: half a partition helps nobody.
        for file in &manifest.files {
            stage(store, staging, place, manifest, file).await?;
            stays(store, staging, &retention, &holds).await?;
        }
    }
    let (columns, mut missing) = (manifest.columns(), 0);
    for file in &manifest.files {
        stage(store, staging, place, manifest, file).await?;
        let piece = file.piece(&manifest.partition);
        let of_file = store.missing(staging, &piece, &columns).await?;
        missing += of_file;
        if dry_run || of_file == 0 {
            continue;
        }
        store.insert_missing(staging, &piece, &columns).await?;
        let left = store.missing(staging, &piece, &columns).await?;
        ensure!(left == 0, "{left} rows of {} are not in the table after they were inserted", file.name);
    }
    Ok(missing)
}

async fn stage(
    store: &Store,
    staging: &Staging,
    place: &Place,
    manifest: &Manifest,
    file: &ArchivedFile,
) -> anyhow::Result<()> {
    let found = file.stage(store, staging, place, &manifest.columns()).await?;
    ensure!(found == file.fingerprint(), "{} holds other rows than the manifest says", file.name);
    Ok(())
}

async fn stays(store: &Store, staging: &Staging, retention: &Retention, holds: &[HoldScope]) -> anyhow::Result<()> {
    let past = store.staged_past_their_time(staging, retention, holds).await?;
    ensure!(
        past == 0,
        "{} rows are past the retention that is applied, which would delete them again; set a legal hold first (`auditstream hold add`)",
        output::grouped(past)
    );
    Ok(())
}
