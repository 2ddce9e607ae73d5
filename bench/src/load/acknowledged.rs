//! The list of event ids that the broker has acknowledged: what the oracle holds against the table.
//!
//! 16 bytes an id in memory, and in a file when one is named, so that a test may kill this very process and still know.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use auditstream_producer::{Fate, Observer};
use uuid::Uuid;

/// Grows from the producer's delivery thread. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    list: Arc<Mutex<List>>,
}

#[derive(Debug, Default)]
struct List {
    ids: Vec<Uuid>,
    file: Option<BufWriter<File>>,
    problem: Option<std::io::Error>,
}

impl Acknowledged {
    /// An empty list in memory with room for `events`.
    #[must_use]
    pub fn with_capacity(events: usize) -> Self {
        let list = List { ids: Vec::with_capacity(events), ..List::default() };
        Self { list: Arc::new(Mutex::new(list)) }
    }

    /// A list that is also written to `path`, 16 bytes an id in RFC 4122 byte order. An older file there is replaced.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn with_file(path: &Path) -> std::io::Result<Self> {
        let list = List { file: Some(BufWriter::new(File::create(path)?)), ..List::default() };
        Ok(Self { list: Arc::new(Mutex::new(list)) })
    }

    /// Puts an id on the list.
    pub fn add(&self, id: Uuid) {
        let mut list = self.lock();
        list.ids.push(id);
        if let Some(file) = &mut list.file
            && let Err(problem) = file.write_all(id.as_bytes())
        {
            list.file = None;
            list.problem = Some(problem);
        }
    }

    /// The observer for [`auditstream_producer::Producer::with_observer`]: each acknowledged event goes on the list.
    #[must_use]
    pub fn observer(&self) -> Box<Observer> {
        let list = self.clone();
        Box::new(move |id, fate| {
            if matches!(fate, Fate::Acked(_)) {
                list.add(id);
            }
        })
    }

    /// How many ids are on the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().ids.len()
    }

    /// Whether nothing has been acknowledged yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All ids so far, in the order of their acknowledgement.
    #[must_use]
    pub fn ids(&self) -> Vec<Uuid> {
        self.lock().ids.clone()
    }

    /// Writes what is buffered to the file.
    ///
    /// # Errors
    /// The file could not be written, now or earlier.
    pub fn sync(&self) -> std::io::Result<()> {
        let mut list = self.lock();
        match (list.problem.take(), &mut list.file) {
            (Some(problem), _) => Err(problem),
            (None, Some(file)) => file.flush(),
            (None, None) => Ok(()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, List> {
        // The list is whole after every push, also when a holder panicked.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_file_holds_what_the_list_holds() {
        let path = std::env::temp_dir().join(format!("auditstream-acknowledged-{}", std::process::id()));
        let list = Acknowledged::with_file(&path).unwrap();
        let ids = [Uuid::from_u128(7), Uuid::from_u128(u128::MAX)];
        ids.iter().for_each(|id| list.clone().add(*id));
        list.sync().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bytes, [ids[0].into_bytes(), ids[1].into_bytes()].concat());
        assert_eq!(list.ids(), ids);
    }
}
