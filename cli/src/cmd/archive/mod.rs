//! `auditstream archive`: partitions of the table of events into Parquet files, verified, and dropped if asked.

mod manifest;
mod place;
pub(super) mod restore;
mod s3;

use anyhow::{Context as _, bail, ensure};
use auditstream_store::{ArchivedColumn, Fingerprint, PIECE_ROWS, PartitionOnDisk, Piece, Staging, Store};
use uuid::Uuid;

use crate::audit::{self, Deed, INSTALLATION};
use crate::config::Settings;
use crate::confirm::Consent;
use crate::{exit, output};

use manifest::{ArchivedFile, Manifest, sha256};
use place::{Found, Location, Place, Writer};

/// Write partitions of the table of events to Parquet files in a folder or in S3-compatible storage, each with a manifest and SHA-256 hashes.
///
/// Each file is read back and compared with the table, column by column, before the manifest is written. A partition that is archived already as it is
/// now is left alone, so that an archive may be repeated. Needs a user that may make tables (audit_admin). An audit event, audit.archive, tells of it.
///
/// For s3:// the keys archive.s3_* of the configuration say which storage it is and who asks; what is not set is taken from AWS_ACCESS_KEY_ID,
/// AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream archive --to /archive --month 2026-03 --dry-run
  auditstream archive --to /archive --before 2026-01
  auditstream archive --to s3://backup/audit --before 2026-01
  auditstream archive --to /archive --before 2026-01 --drop")]
pub(crate) struct Args {
    /// The folder for archives, or s3://BUCKET/PREFIX; the folder or the bucket must be there.
    #[arg(long, value_name = "DIR", required_unless_present = "put_back")]
    to: Option<Location>,

    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    consent: Consent,

    /// Then drop each partition, if it still holds exactly what is archived and no legal hold keeps any of it.
    #[arg(long)]
    drop: bool,

    /// Most rows in a file, about.
    #[arg(long, default_value_t = PIECE_ROWS, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=20_000_000))]
    file_rows: u64,
}

/// Which partitions: exactly one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The partition with this id.
    #[arg(long, value_name = "ID")]
    partition: Option<String>,

    /// Every partition of this month.
    #[arg(long, value_name = "YYYY-MM", value_parser = month)]
    month: Option<String>,

    /// Every partition of the months before this one.
    #[arg(long, value_name = "YYYY-MM", value_parser = month)]
    before: Option<String>,

    /// Put partitions back into the table that a `--drop` had set aside when it was killed. None must be running.
    #[arg(long)]
    put_back: bool,
}

/// `2026-03` as partitions' ids begin: `202603`.
fn month(text: &str) -> Result<String, String> {
    let is_month = text.len() == 7
        && text.bytes().enumerate().all(|(at, byte)| if at == 4 { byte == b'-' } else { byte.is_ascii_digit() })
        && (1..=12).contains(&text.get(5..).and_then(|month| month.parse().ok()).unwrap_or(0));
    if is_month { Ok(text.replace('-', "")) } else { Err("a month is written YYYY-MM, such as 2026-03".to_owned()) }
}

impl Which {
    fn has(&self, id: &str) -> bool {
        let of_month = id.get(..6).unwrap_or(id);
        self.partition.as_deref() == Some(id)
            || self.month.as_deref() == Some(of_month)
            || self.before.as_deref().is_some_and(|before| of_month < before)
    }
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let store = Store::new(&settings.store())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(archive(args, &store, settings)))
}

async fn archive(args: &Args, store: &Store, settings: &Settings) -> anyhow::Result<u8> {
    let aside = store.set_aside().await?;
    if args.which.put_back {
        for (table, partition) in &aside {
            store.put_back(partition, table).await?;
            output::line(&format!("{partition} is back"))?;
        }
        if aside.is_empty() {
            output::line("nothing was set aside")?;
        }
        return Ok(exit::OK);
    }
    if let Some((table, partition)) = aside.first() {
        bail!(
            "the partition {partition} stands aside in the table {table}, from an archive that runs or was killed; if none runs, \
             `auditstream archive --put-back` puts it back"
        );
    }
    let to = Place::new(args.to.as_ref().context("--to is missing")?, settings)?;
    to.is_usable().await?;
    if args.drop && store.cluster_of_events().await?.is_some() {
        bail!(
            "--drop works on one server only: here `events` is on a cluster, whose servers would each drop their part"
        );
    }
    let partitions: Vec<_> = store.partitions().await?.into_iter().filter(|it| args.which.has(&it.id)).collect();
    ensure!(!partitions.is_empty(), "no partition of the table of events is meant");
    if args.drop && !args.consent.dry_run {
        let each: Vec<_> = partitions.iter().map(|it| it.id.as_str()).collect();
        if !args.consent.given(&format!("Drop {} from the table, once archived?", each.join(", ")))? {
            return Ok(exit::FAILURE);
        }
    }
    let holds: Vec<_> = store.holds().await?.into_iter().map(|hold| hold.scope).collect();
    for PartitionOnDisk { id, rows, bytes } in &partitions {
        let held = store.held_in_partition(id, &holds).await?;
        if args.consent.dry_run {
            let (rows, mib) = (output::grouped(*rows), output::grouped(bytes.div_ceil(1 << 20)));
            let keeps = if args.drop && held > 0 { ", under a legal hold: it would not be dropped" } else { "" };
            output::line(&format!("{id:<10} {rows:>14} rows {mib:>9} MiB{keeps}"))?;
            continue;
        }
        // Before anything is written: whoever wants it dropped should not wait for hours to hear this.
        if args.drop && held > 0 {
            bail!(
                "{id} has {} rows under a legal hold: it can't be dropped (`auditstream hold list`)",
                output::grouped(held)
            );
        }
        let done = partition(args, store, settings, &to, id).await.with_context(|| format!("partition {id}"))?;
        output::line(&done)?;
    }
    if args.consent.dry_run {
        output::line("nothing was written")?;
    }
    Ok(exit::OK)
}

async fn partition(args: &Args, store: &Store, settings: &Settings, to: &Place, id: &str) -> anyhow::Result<String> {
    let columns = store.archived_columns().await?;
    let now = store.partition_in_events(id, &columns).await?;
    let table = format!("{}.events", settings.clickhouse.database);
    let empty = Manifest::new(table.clone(), id, &columns);
    // One content, one folder: what is there is not written again, and later rows of the partition go to another one.
    let name = sha256(format!("{table} {id} {:?} {} {}", empty.columns, now.rows, now.hash).as_bytes());
    let place = to.join(&format!("{table}-{id}-{}", name.get(..16).unwrap_or(&name)));
    let deed = |action: &'static str| Deed {
        action,
        tenant: INSTALLATION.to_owned(),
        entity_type: "partition",
        entity_id: format!("{table}/{id}"),
        details: serde_json::json!({ "rows": now.rows, "hash": now.hash, "folder": place.to_string() }),
    };
    let rows = output::grouped(now.rows);
    let found = place.found().await?;
    if found == Found::Torn {
        output::complain(&format!("{place} has files of an archive that broke off; they are written anew"));
    }
    let mut done = if found == Found::Whole {
        format!("{id}: {rows} rows were archived before, in {place}")
    } else {
        let work = async || {
            let staging = store.make_staging(&format!("archive_staging_{}", Uuid::now_v7().simple()), &columns).await?;
            let written = write(args, store, &staging, &place, empty.clone(), &now).await;
            store.drop_staging(staging).await?;
            written
        };
        audit::around(settings, deed("audit.archive"), work).await?;
        format!("{id}: {rows} rows archived and verified, in {place}")
    };
    // From the place itself, also what was written just now: nothing is dropped on trust.
    if found == Found::Whole || args.drop {
        let manifest = Manifest::read(&place).await?;
        ensure!(manifest.fingerprint() == now && manifest.columns == empty.columns, "{place} holds something else");
        for file in &manifest.files {
            file.check(&place).await?;
        }
    }
    if args.drop {
        let aside = format!("archive_aside_{id}_{}", Uuid::now_v7().simple());
        let work = async || {
            // A hold may have been set while the files were written.
            let holds: Vec<_> = store.holds().await?.into_iter().map(|hold| hold.scope).collect();
            ensure!(
                store.held_in_partition(id, &holds).await? == 0,
                "a legal hold keeps rows of it; nothing was dropped"
            );
            match store.drop_partition_if(id, &aside, &columns, &now).await? {
                Ok(()) => Ok(()),
                Err(found) => bail!(
                    "{} rows were there when it was to be dropped, not the {rows} that are archived: it stays; archive it again",
                    output::grouped(found.rows)
                ),
            }
        };
        audit::around(settings, deed("audit.archive_drop"), work).await?;
        done.push_str("; dropped");
    }
    Ok(done)
}

/// Writes every piece, reads it back, compares it, and then writes the manifest. What a killed attempt left is written anew.
async fn write(
    args: &Args,
    store: &Store,
    staging: &Staging,
    place: &Place,
    mut manifest: Manifest,
    now: &Fingerprint,
) -> anyhow::Result<()> {
    let begun = place.begin()?;
    let columns = manifest.columns();
    for piece in store.pieces(&manifest.partition, args.file_rows).await? {
        let file = write_piece(store, &begun, &piece, &columns).await?;
        // From where it lies now, as a restore would.
        let read_back = file.stage(store, staging, &begun, &columns).await?;
        let there = store.piece_in_events(&piece, &columns).await?;
        ensure!(
            read_back == there,
            "{} holds {} rows that are not the {} rows of the table; were rows inserted meanwhile? Archive again",
            file.name,
            read_back.rows,
            there.rows
        );
        manifest.push(ArchivedFile { rows: read_back.rows, hash: read_back.hash, ..file })?;
    }
    ensure!(
        manifest.fingerprint() == *now,
        "rows were inserted while it was archived: {} rows became {}; archive again",
        now.rows,
        manifest.rows
    );
    place.publish(&begun, manifest.text()?).await
}

async fn write_piece(
    store: &Store,
    place: &Place,
    piece: &Piece,
    columns: &[ArchivedColumn],
) -> anyhow::Result<ArchivedFile> {
    let name = format!("{}-{:03}.parquet", piece.day, piece.number);
    let mut writer = place.writer(&name)?;
    if let Err(error) = copy(store, &mut writer, piece, columns).await {
        writer.give_up().await;
        return Err(error);
    }
    let (bytes, sha256) = writer.finish().await?;
    let Piece { day, of, number, .. } = piece.clone();
    Ok(ArchivedFile { name, day, of, number, rows: 0, hash: "0".to_owned(), bytes, sha256 })
}

async fn copy(store: &Store, writer: &mut Writer, piece: &Piece, columns: &[ArchivedColumn]) -> anyhow::Result<()> {
    let mut cursor = store.piece_as_parquet(piece, columns)?;
    while let Some(chunk) = cursor.next().await.map_err(|error| store.cursor_error(&error))? {
        writer.write(chunk).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_means_its_days_too() {
        let which = |month: Option<&str>, before: Option<&str>| Which {
            partition: None,
            month: month.map(str::to_owned),
            before: before.map(str::to_owned),
            put_back: false,
        };
        assert_eq!(month("2026-03").as_deref(), Ok("202603"));
        for text in ["2026-13", "2026-3", "202603", "2026-0a", "2026-00"] {
            assert!(month(text).is_err(), "{text}");
        }
        assert!(which(Some("202603"), None).has("202603") && which(Some("202603"), None).has("20260331"));
        assert!(!which(Some("202603"), None).has("202604"));
        assert!(which(None, Some("202603")).has("20260228") && !which(None, Some("202603")).has("20260301"));
    }
}
