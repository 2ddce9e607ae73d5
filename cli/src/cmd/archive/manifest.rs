//! What lies at an archive's place: `manifest.json`, written last, and the files that it names.

use anyhow::{Context as _, ensure};
use auditstream_store::{ArchivedColumn, Fingerprint, Piece, Staging, Store};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::place::Place;

/// The file's name.
pub(super) const FILE: &str = "manifest.json";
/// The format that this version writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// A partition of the table of events, as it was archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// `DATABASE.events`.
    pub(super) table: String,
    pub(super) partition: String,
    /// Name and type of each column, in the files' order.
    pub(super) columns: Vec<(String, String)>,
    pub(super) rows: u64,
    /// Sum modulo 2^128 of a 128-bit SipHash over all columns of each row, in decimal digits.
    pub(super) hash: String,
    pub(super) files: Vec<ArchivedFile>,
    pub(super) archived_at: String,
    pub(super) archived_by: String,
    pub(super) written_by: String,
}

/// One Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArchivedFile {
    pub(super) name: String,
    /// Day of `occurred_at` of its rows.
    pub(super) day: String,
    /// The day's rows are in so many files, by a hash of the event id ...
    pub(super) of: u64,
    /// ... of which this is the one with this number, from 0.
    pub(super) number: u64,
    pub(super) rows: u64,
    pub(super) hash: String,
    pub(super) bytes: u64,
    /// In hexadecimal digits.
    pub(super) sha256: String,
}

impl Manifest {
    pub(super) fn new(table: String, partition: &str, columns: &[ArchivedColumn]) -> Self {
        Self {
            format: FORMAT,
            table,
            partition: partition.to_owned(),
            columns: columns.iter().map(|column| (column.name.clone(), column.clickhouse_type.clone())).collect(),
            rows: 0,
            hash: "0".to_owned(),
            files: Vec::new(),
            archived_at: auditstream_schemas::Timestamp::now().to_string(),
            archived_by: crate::audit::os_user(),
            written_by: concat!("auditstream ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Adds a file and its rows.
    pub(super) fn push(&mut self, file: ArchivedFile) -> anyhow::Result<()> {
        let sum = |text: &str| text.parse::<u128>().with_context(|| format!("{text:?} is no hash"));
        self.hash = sum(&self.hash)?.wrapping_add(sum(&file.hash)?).to_string();
        self.rows = self.rows.checked_add(file.rows).context("too many rows")?;
        self.files.push(file);
        Ok(())
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint { rows: self.rows, hash: self.hash.clone() }
    }

    pub(super) fn columns(&self) -> Vec<ArchivedColumn> {
        let column = |(name, clickhouse_type): &(String, String)| ArchivedColumn {
            name: name.clone(),
            clickhouse_type: clickhouse_type.clone(),
        };
        self.columns.iter().map(column).collect()
    }

    /// Reads and checks it: its own sums, and that its names stay at its place.
    pub(super) async fn read(place: &Place) -> anyhow::Result<Self> {
        let (path, text) = (place.join(FILE), place.text(FILE).await?);
        let manifest: Self = serde_json::from_str(&text).with_context(|| format!("{path} is no manifest"))?;
        ensure!(manifest.format == FORMAT, "{path} has format {}, this version reads {FORMAT}", manifest.format);
        let is_plain = |text: &str, more: &[char]| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
        };
        ensure!(is_plain(&manifest.partition, &[]), "{path}: partition is no partition's id");
        let mut sums = Self { rows: 0, hash: "0".to_owned(), files: Vec::new(), ..manifest.clone() };
        for file in &manifest.files {
            ensure!(
                is_plain(&file.name, &['-', '.']) && !file.name.starts_with('.') && is_plain(&file.day, &['-']),
                "{path}: {:?} is no file of an archive",
                file.name
            );
            ensure!(file.of > 0 && file.number < file.of, "{path}: {} is no piece", file.name);
            sums.push(file.clone())?;
        }
        ensure!(sums == manifest, "{path}: its sums are not those of its files");
        for (name, clickhouse_type) in &manifest.columns {
            ensure!(is_plain(name, &['_', '.']), "{path}: {name:?} is no column");
            ensure!(
                is_plain(clickhouse_type, &['(', ')', ',', ' ', '\'', '_']),
                "{path}: {clickhouse_type:?} is no type"
            );
        }
        Ok(manifest)
    }

    /// As it is written.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl ArchivedFile {
    pub(super) fn piece(&self, partition: &str) -> Piece {
        Piece { partition: partition.to_owned(), day: self.day.clone(), of: self.of, number: self.number }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint { rows: self.rows, hash: self.hash.clone() }
    }

    /// Reads its bytes, which must be those that were archived.
    pub(super) async fn check(&self, place: &Place) -> anyhow::Result<()> {
        place.reader(&self.name).await?.expect(self.bytes, &self.sha256).await
    }

    /// Puts its rows into the staging table, if its bytes are those that were archived, and answers what the table then holds.
    pub(super) async fn stage(
        &self,
        store: &Store,
        staging: &Staging,
        place: &Place,
        columns: &[ArchivedColumn],
    ) -> anyhow::Result<Fingerprint> {
        let mut reader = place.reader(&self.name).await?;
        let staged = store.stage(staging, columns, async || reader.next().await).await;
        // First: over bytes that are damaged ClickHouse stumbles in words that don't say so.
        reader.expect(self.bytes, &self.sha256).await?;
        staged?;
        Ok(store.staged(staging, columns).await?)
    }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    digits(&Sha256::digest(bytes))
}

pub(super) fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn manifest() -> Manifest {
        let column = ArchivedColumn { name: "a.b".to_owned(), clickhouse_type: "DateTime64(6, 'UTC')".to_owned() };
        let mut manifest = Manifest::new("audit.events".to_owned(), "202611", &[column]);
        let file = |number: u64, hash: u128| ArchivedFile {
            name: format!("2026-11-22-{number:03}.parquet"),
            day: "2026-11-22".to_owned(),
            of: 2,
            number,
            rows: 3,
            hash: hash.to_string(),
            bytes: 4,
            sha256: sha256(b"data"),
        };
        manifest.push(file(0, u128::MAX)).unwrap();
        manifest.push(file(1, 5)).unwrap();
        manifest
    }

    #[tokio::test]
    async fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Folder(folder.path().to_owned());
        let manifest = manifest();
        assert_eq!(manifest.fingerprint(), Fingerprint { rows: 6, hash: "4".to_owned() });
        std::fs::write(folder.path().join(FILE), manifest.text().unwrap()).unwrap();
        assert_eq!(Manifest::read(&place).await.unwrap(), manifest);
        std::fs::write(folder.path().join(&manifest.files[0].name), b"data").unwrap();
        manifest.files[0].check(&place).await.unwrap();
        std::fs::write(folder.path().join(&manifest.files[1].name), b"dato").unwrap();
        assert!(manifest.files[1].check(&place).await.unwrap_err().to_string().contains("SHA-256"));
    }

    #[tokio::test]
    async fn a_manifest_that_was_tampered_with_is_refused() {
        let changes: [fn(&mut Manifest); 6] = [
            |manifest| manifest.rows += 1,
            |manifest| manifest.hash = "5".to_owned(),
            |manifest| manifest.files[0].name = "../x.parquet".to_owned(),
            |manifest| manifest.files[0].day = "' OR 1".to_owned(),
            |manifest| manifest.columns[0].1 = "String; DROP TABLE x".to_owned(),
            |manifest| manifest.format = 2,
        ];
        for change in changes {
            let folder = tempfile::tempdir().unwrap();
            let mut manifest = manifest();
            change(&mut manifest);
            std::fs::write(folder.path().join(FILE), manifest.text().unwrap()).unwrap();
            assert!(Manifest::read(&Place::Folder(folder.path().to_owned())).await.is_err(), "{manifest:?}");
        }
    }
}
