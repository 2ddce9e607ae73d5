//! What became of each event, told by the producer: the list of ids that are safe, and the first failures.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use auditstream_producer::Fate;

/// Failures that are shown one by one; all are counted.
const SHOWN: usize = 20;

/// Shared with the producer's background thread.
pub(super) struct Fates(Mutex<Inner>);

struct Inner {
    ids: Option<BufWriter<File>>,
    error: Option<io::Error>,
    failures: Vec<String>,
}

impl Fates {
    /// `ids`: the file that the ids of events are appended to that Kafka has acknowledged or the spill has on disk.
    pub(super) fn new(ids: Option<&Path>) -> anyhow::Result<Fates> {
        let open = |path: &Path| {
            let file = File::options().append(true).create(true).open(path);
            file.with_context(|| format!("can't open {}", path.display()))
        };
        let ids = ids.map(open).transpose()?.map(BufWriter::new);
        Ok(Fates(Mutex::new(Inner { ids, error: None, failures: Vec::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of one event.
    pub(super) fn hear(&self, id: uuid::Uuid, fate: Fate<'_>) {
        let mut inner = self.lock();
        match fate {
            Fate::Acked(_) | Fate::Spilled => {
                if let Some(ids) = &mut inner.ids
                    && let Err(error) = writeln!(ids, "{id}")
                {
                    inner.error.get_or_insert(error);
                }
            }
            Fate::Failed(failure) if inner.failures.len() < SHOWN => {
                inner.failures.push(format!("event {id}: {failure}"))
            }
            Fate::Failed(_) => {}
        }
    }

    /// The first failures, one line each.
    pub(super) fn failures(&self) -> Vec<String> {
        self.lock().failures.clone()
    }

    /// Puts the list of ids on disk.
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut inner = self.lock();
        if let Some(error) = inner.error.take() {
            return Err(error);
        }
        match &mut inner.ids {
            None => Ok(()),
            Some(ids) => {
                ids.flush()?;
                ids.get_ref().sync_all()
            }
        }
    }
}
