//! Looking into a spill from outside: what it holds, whether it is whole, and its events.

use std::fs;
use std::path::{Path, PathBuf};

use super::SpillError;
use super::file::{Chunk, SpillFile};
use super::raw::Scan;

/// Bytes that are read at a time.
const READ: usize = 1 << 20;

/// What a spill holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Events that are whole.
    pub events: u64,
    /// Bytes of the file's chunks.
    pub bytes: u64,
    /// Events that the file says it holds and that are not whole.
    pub damaged: u64,
    /// SQLite could not read the file; what is counted was found page by page, as the next producer that opens it will find it.
    pub unreadable: bool,
    /// When the first event happened (`ce_time`, RFC 3339), and the last.
    pub first: Option<String>,
    /// See `first`.
    pub last: Option<String>,
    /// Files of earlier damage that are kept in the folder.
    pub aside: Vec<PathBuf>,
}

/// Looks at every event of the spill in `folder`. Blocks. May run beside the producer that owns it.
///
/// # Errors
/// There is no spill, or it can't be read for another reason than damage.
pub fn inspect(folder: &Path) -> Result<Inspection, SpillError> {
    let mut seen = Inspection { aside: aside(folder), ..Inspection::default() };
    let mut note = |chunk: &Chunk| {
        let mut whole = 0;
        for record in chunk.entries() {
            whole += 1;
            // Empty where the record has no CloudEvents headers and came back from librdkafka.
            if !record.time.is_empty() {
                seen.first.get_or_insert_with(|| record.time.clone());
                seen.last = Some(record.time);
            }
        }
        seen.events += whole;
        seen.bytes += chunk.body.len() as u64;
        seen.damaged += chunk.events.saturating_sub(whole);
        Ok::<_, SpillError>(())
    };
    match each(folder, &mut note) {
        Ok(()) => Ok(seen),
        Err(error) if error.is_damage() => {
            seen = Inspection { aside: aside(folder), unreadable: true, ..Inspection::default() };
            let account = Scan::of(&SpillFile::path(folder))?.read(&mut |chunk| {
                seen.events += chunk.events;
                seen.bytes += chunk.body.len() as u64;
                Ok(())
            })?;
            seen.damaged = account.saturating_sub(seen.events);
            Ok(seen)
        }
        Err(error) => Err(error),
    }
}

/// Gives each whole event of the spill in `folder` to `take`, in order: its framed Avro bytes, as
/// [`decode`](auditstream_schemas::decode) reads them. Blocks. Changes nothing.
///
/// # Errors
/// The spill can't be read; after damage, open it with a producer once, which takes over what can be found.
pub fn read<E: From<SpillError>>(folder: &Path, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    each(folder, &mut |chunk| chunk.entries().try_for_each(|record| take(&record.payload)))
}

fn each<E: From<SpillError>>(folder: &Path, take: &mut dyn FnMut(&Chunk) -> Result<(), E>) -> Result<(), E> {
    let mut file = SpillFile::open_to_read(folder)?;
    let mut after = 0;
    loop {
        let chunks = file.take(after, READ)?;
        let Some(last) = chunks.last() else { return Ok(()) };
        after = last.last;
        chunks.iter().try_for_each(&mut *take)?;
    }
}

fn aside(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut aside: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("damaged-")))
        .collect();
    aside.sort();
    aside
}
