//! Where archives lie: a folder on disk, or objects below a prefix of a bucket. One is written, read and checked like the other.
//!
//! Promises: an archive is there once its `manifest.json` is, which is written last; a folder's files are on disk before it; no file is held in memory
//! whole, neither on its way out nor when it is read; nothing in a bucket is ever deleted.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::ObjectStoreExt as _;
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::manifest::{self, digits};
use super::s3::{Bucket, told};
use crate::config::Settings;

/// A file goes to a bucket in parts of so many bytes. S3 takes 10,000 of them, so a file has at most 78 GiB; a larger one is refused by the storage.
const PART: usize = 8 << 20;
/// So many parts are on their way at once, and one is being filled.
const PARTS_AT_ONCE: usize = 2;
/// Read from disk at once.
const CHUNK: usize = 1 << 20;
/// What giving up an upload may take.
const GRACE: Duration = Duration::from_secs(5);

/// A place as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    Folder(PathBuf),
    S3 { bucket: String, prefix: Key },
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("s3://") else {
            return Ok(Self::Folder(text.into()));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bucket.is_empty() || !bucket.chars().all(is_legal) {
            return Err("a place in S3 is written s3://BUCKET/PREFIX".to_owned());
        }
        let prefix = Key::parse(prefix.trim_end_matches('/'))
            .map_err(|_| "a prefix in S3 is made of names with one / between them".to_owned())?;
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix })
    }
}

/// A place that can be used; where archives are, or one of them.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Folder(PathBuf),
    S3(Arc<Bucket>, Key),
}

/// What is at an archive's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// Files without a manifest: whoever wrote them was killed, or could not go on.
    Torn,
    Whole,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::S3(bucket, key) if key.as_ref().is_empty() => write!(f, "s3://{}", bucket.name),
            Self::S3(bucket, key) => write!(f, "s3://{}/{key}", bucket.name),
        }
    }
}

impl Place {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// A `ConfigError` when the configuration lacks what S3 needs.
    pub(super) fn new(location: &Location, settings: &Settings) -> anyhow::Result<Self> {
        match location {
            Location::Folder(folder) => Ok(Self::Folder(folder.clone())),
            Location::S3 { bucket, prefix } => {
                Ok(Self::S3(Arc::new(Bucket::new(bucket, &settings.s3()?)?), prefix.clone()))
            }
        }
    }

    /// The place called `name` in this one.
    pub(super) fn join(&self, name: &str) -> Self {
        match self {
            Self::Folder(folder) => Self::Folder(folder.join(name)),
            Self::S3(bucket, key) => Self::S3(Arc::clone(bucket), key.clone().join(name)),
        }
    }

    /// Whether it is there: the folder, or the bucket, which must let us list it.
    pub(super) async fn is_usable(&self) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => ensure!(folder.is_dir(), "{} is no folder", folder.display()),
            Self::S3(bucket, key) => {
                let first = bucket.once.list(Some(key)).next().await.transpose();
                first.map_err(|error| told(&error)).with_context(|| format!("can't use {self}"))?;
            }
        }
        Ok(())
    }

    /// What is at this archive's place.
    pub(super) async fn found(&self) -> anyhow::Result<Found> {
        match self {
            Self::Folder(folder) if folder.join(manifest::FILE).exists() => Ok(Found::Whole),
            Self::Folder(folder) => Ok(if partial(folder).exists() { Found::Torn } else { Found::Nothing }),
            Self::S3(bucket, key) => {
                let (mut objects, whole) = (bucket.objects.list(Some(key)), key.clone().join(manifest::FILE));
                let mut found = Found::Nothing;
                while let Some(object) = objects.next().await {
                    let object = object.map_err(|error| told(&error)).with_context(|| format!("can't list {self}"))?;
                    found = if object.location == whole { Found::Whole } else { Found::Torn };
                    if found == Found::Whole {
                        break;
                    }
                }
                Ok(found)
            }
        }
    }

    /// Where this archive's files are written to until [`Self::publish`]. What a torn one left is out of the way, or is written over.
    pub(super) fn begin(&self) -> anyhow::Result<Self> {
        let Self::Folder(folder) = self else { return Ok(self.clone()) };
        let partial = partial(folder);
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("can't remove {}", partial.display()))?;
        }
        fs::create_dir(&partial).with_context(|| format!("can't make {}", partial.display()))?;
        Ok(Self::Folder(partial))
    }

    /// Writes the manifest of the archive that was begun in `begun`: from now on it is there.
    pub(super) async fn publish(&self, begun: &Self, manifest: String) -> anyhow::Result<()> {
        let mut writer = begun.writer(manifest::FILE)?;
        writer.write(manifest.into()).await?;
        writer.finish().await?;
        let (Self::Folder(folder), Self::Folder(partial)) = (self, begun) else { return Ok(()) };
        let sync = |folder: &Path| {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.with_context(|| format!("can't sync {}", folder.display()))
        };
        sync(partial)?;
        fs::rename(partial, folder).with_context(|| format!("can't make {}", folder.display()))?;
        sync(folder.parent().context("a folder has a parent")?)
    }

    /// Begins a file called `name`.
    pub(super) fn writer(&self, name: &str) -> anyhow::Result<Writer> {
        let place = self.join(name);
        let sink = match &place {
            Self::Folder(path) => Sink::File(File::create_new(path).with_context(|| format!("can't write {place}"))?),
            Self::S3(bucket, key) => {
                let objects = Arc::clone(&bucket.objects);
                let upload = BufWriter::with_capacity(objects, key.clone(), PART).with_max_concurrency(PARTS_AT_ONCE);
                Sink::Upload(Box::new(upload))
            }
        };
        Ok(Writer { place, sink, hasher: Sha256::new(), bytes: 0 })
    }

    /// Begins to read the file called `name`.
    pub(super) async fn reader(&self, name: &str) -> anyhow::Result<Reader> {
        let place = self.join(name);
        let context = || format!("can't read {place}");
        let source = match &place {
            Self::Folder(path) => Source::File(File::open(path).with_context(context)?),
            Self::S3(bucket, key) => {
                let got = bucket.objects.get(key).await.map_err(|error| told(&error)).with_context(context)?;
                Source::Download(got.into_stream())
            }
        };
        Ok(Reader { place, source, hasher: Sha256::new(), bytes: 0 })
    }

    /// The text of the file called `name`, which is small.
    pub(super) async fn text(&self, name: &str) -> anyhow::Result<String> {
        let (mut reader, mut text) = (self.reader(name).await?, Vec::new());
        while let Some(chunk) = reader.next().await? {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).with_context(|| format!("{} is no text", reader.place))
    }
}

/// The folder's name until it is whole.
fn partial(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// A file that is being written.
pub(super) struct Writer {
    place: Place,
    sink: Sink,
    hasher: Sha256,
    bytes: u64,
}

enum Sink {
    File(File),
    Upload(Box<BufWriter>),
}

impl Writer {
    /// Adds a piece; waits while too much is on its way.
    pub(super) async fn write(&mut self, chunk: Bytes) -> anyhow::Result<()> {
        self.hasher.update(&chunk);
        self.bytes += chunk.len() as u64;
        let written = match &mut self.sink {
            Sink::File(file) => file.write_all(&chunk).map_err(anyhow::Error::from),
            Sink::Upload(upload) => upload.put(chunk).await.map_err(|error| told(&error)),
        };
        written.with_context(|| format!("can't write {}", self.place))
    }

    /// Writes what is left, for good. Answers the size and the SHA-256 in hexadecimal digits.
    pub(super) async fn finish(mut self) -> anyhow::Result<(u64, String)> {
        let written = match &mut self.sink {
            Sink::File(file) => file.sync_all().map_err(anyhow::Error::from),
            Sink::Upload(upload) => upload.shutdown().await.map_err(|error| told(&error)),
        };
        written.with_context(|| format!("can't write {}", self.place))?;
        Ok((self.bytes, digits(&self.hasher.finalize())))
    }

    /// Leaves nothing behind of an upload that can't be ended, if the storage still answers.
    pub(super) async fn give_up(mut self) {
        if let Sink::Upload(upload) = &mut self.sink {
            // The error that led here is the one to tell.
            let _ = tokio::time::timeout(GRACE, upload.abort()).await;
        }
    }
}

/// A file that is being read.
pub(super) struct Reader {
    place: Place,
    source: Source,
    hasher: Sha256,
    bytes: u64,
}

enum Source {
    File(File),
    Download(BoxStream<'static, object_store::Result<Bytes>>),
}

impl Reader {
    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        let chunk = match &mut self.source {
            Source::File(file) => {
                let mut chunk = Vec::with_capacity(CHUNK);
                let read = file.take(CHUNK as u64).read_to_end(&mut chunk);
                read.map(|length| (length > 0).then(|| Bytes::from(chunk))).map_err(anyhow::Error::from)
            }
            Source::Download(stream) => stream.next().await.transpose().map_err(|error| told(&error)),
        };
        let chunk: Option<Bytes> = chunk.with_context(|| format!("can't read {}", self.place))?;
        if let Some(chunk) = &chunk {
            self.hasher.update(chunk);
            self.bytes += chunk.len() as u64;
        }
        Ok(chunk)
    }

    /// Reads what is left, and wants the whole to have been these bytes.
    pub(super) async fn expect(mut self, bytes: u64, sha256: &str) -> anyhow::Result<()> {
        while self.next().await?.is_some() {}
        if self.bytes != bytes || digits(&self.hasher.finalize()) != sha256 {
            bail!("{} is not the file that was archived: its size or its SHA-256 is another", self.place);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_folders_unless_they_say_s3() {
        let s3 = |bucket: &str, prefix: &str| Location::S3 { bucket: bucket.to_owned(), prefix: prefix.into() };
        for (text, expected) in [
            ("/archive", Location::Folder("/archive".into())),
            ("s3/x", Location::Folder("s3/x".into())),
            ("s3://b", s3("b", "")),
            ("s3://b/", s3("b", "")),
            ("s3://my-bucket.x/a/b/", s3("my-bucket.x", "a/b")),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["s3://", "s3:///x", "s3://b?/x", "s3://user:secret@b/x", "s3://b/x//y", "s3://b/../x"] {
            assert!(text.parse::<Location>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_folder_is_there_when_its_manifest_is() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Folder(folder.path().join("audit.events-1"));
        assert_eq!(place.found().await.unwrap(), Found::Nothing);
        for expected in [Found::Torn, Found::Torn] {
            let begun = place.begin().unwrap();
            let mut writer = begun.writer("x").unwrap();
            writer.write(Bytes::from_static(b"da")).await.unwrap();
            writer.write(Bytes::from_static(b"ta")).await.unwrap();
            let (bytes, sha256) = writer.finish().await.unwrap();
            assert_eq!(place.found().await.unwrap(), expected);
            begun.reader("x").await.unwrap().expect(bytes, &sha256).await.unwrap();
        }
        let begun = place.begin().unwrap();
        place.publish(&begun, "{}".to_owned()).await.unwrap();
        assert_eq!(place.found().await.unwrap(), Found::Whole);
        assert_eq!(place.text(manifest::FILE).await.unwrap(), "{}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "and nothing else is left");
    }
}
