//! The file under damage: whatever happens to its bytes, what is not damaged is found, and the rest is counted.
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use super::entry::tests::record;
use super::file::{Chunk, SpillFile};
use super::raw::PAGE;
use super::{SpillError, entry, inspect};

const CHUNKS: i64 = 40;
/// Events of a chunk: about 40 KiB, ten pages.
const EACH: i64 = 128;
const TOTAL: u64 = (CHUNKS * EACH) as u64;

fn chunk(first: i64) -> Chunk {
    let mut chunk = Chunk { number: first, last: first + EACH - 1, events: EACH as u64, body: Vec::new() };
    (first..first + EACH).for_each(|number| entry::append(&mut chunk.body, record(number).parts()));
    chunk
}

/// A spill of [`TOTAL`] events, 1 and up.
fn filled(folder: &Path) -> Vec<Chunk> {
    let (mut file, _) = SpillFile::open(folder).unwrap();
    let chunks: Vec<Chunk> = (0..CHUNKS).map(|index| chunk(1 + index * EACH)).collect();
    chunks.chunks(7).for_each(|some| file.append(some).unwrap());
    chunks
}

/// Every number that can be read, in order, and how many events are said to be damaged.
fn drained(folder: &Path) -> (Vec<i64>, u64) {
    let (mut file, salvaged) = SpillFile::open(folder).unwrap();
    let (mut damaged, mut numbers, mut after) = (salvaged.damaged, Vec::new(), 0);
    loop {
        let chunks = match file.take(after, 100_000) {
            Ok(chunks) => chunks,
            Err(error) => {
                assert!(error.is_damage(), "{error:?}");
                damaged += file.salvage().unwrap().damaged;
                (after, numbers) = (0, Vec::new());
                continue;
            }
        };
        let Some(last) = chunks.last() else { break };
        after = last.last;
        for chunk in &chunks {
            let found: Vec<i64> = chunk.entries().map(|record| record.number).collect();
            damaged += chunk.events - found.len() as u64;
            numbers.extend(found);
        }
    }
    (numbers, damaged)
}

fn database(folder: &Path) -> std::path::PathBuf {
    SpillFile::path(folder)
}

#[test]
fn what_is_appended_is_there_after_a_restart_and_gone_when_removed() {
    let folder = tempfile::tempdir().unwrap();
    let chunks = filled(folder.path());
    let (mut file, _) = SpillFile::open(folder.path()).unwrap();
    assert_eq!((file.events(), file.next_number()), (TOTAL, TOTAL as i64 + 1));
    let first = file.take(0, 1).unwrap();
    assert_eq!(first, chunks[..1]);
    file.remove(&[first[0].to_remove()]).unwrap();
    assert_eq!(file.take(0, 1).unwrap(), chunks[1..2]);
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let full = size(&database(folder.path()));
    for chunk in &chunks[1..] {
        file.remove(&[chunk.to_remove()]).unwrap();
    }
    assert_eq!((file.events(), file.bytes()), (0, 0));
    assert!(size(&database(folder.path())) < full / 10, "the disk's room comes back");
    drop(file);
    let (file, _) = SpillFile::open(folder.path()).unwrap();
    assert_eq!((file.events(), file.next_number()), (0, TOTAL as i64 + 1), "numbers go on");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&database(folder.path())), 0o600);
}

#[test]
fn one_owner_and_any_number_of_readers() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let _owner = SpillFile::open(folder.path()).unwrap();
    assert!(matches!(SpillFile::open(folder.path()), Err(SpillError::InUse(_))));
    let seen = inspect(folder.path()).unwrap();
    assert_eq!((seen.events, seen.damaged, seen.unreadable), (TOTAL, 0, false));
    assert!(inspect(&folder.path().join("elsewhere")).is_err());
}

#[test]
fn a_damaged_page_costs_what_stands_on_it() {
    let origin = tempfile::tempdir().unwrap();
    filled(origin.path());
    let pages = fs::metadata(database(origin.path())).unwrap().len() / PAGE as u64;
    let (mut tried, mut salvaged, mut exact) = (0, 0, 0);
    // The first ones, which hold the tree, and a sample of the others.
    for page in (0..pages).filter(|page| *page < 12 || page % 17 == 0) {
        for fill in [0x00, 0x5a] {
            let folder = tempfile::tempdir().unwrap();
            fs::copy(database(origin.path()), database(folder.path())).unwrap();
            let file = OpenOptions::new().write(true).open(database(folder.path())).unwrap();
            file.write_all_at(&[fill; PAGE], page * PAGE as u64).unwrap();
            let (numbers, damaged) = drained(folder.path());
            assert!(numbers.is_sorted_by(|one, next| one < next), "page {page}: in order, none twice");
            // An entry is 290 bytes and more: fifteen on a page, and the two at its edges.
            assert!(numbers.len() as u64 >= TOTAL - 18, "page {page}, {fill:#x}: {} of {TOTAL}", numbers.len());
            assert!(numbers.len() as u64 + damaged <= TOTAL, "page {page}, {fill:#x}: {damaged} damaged");
            exact += u64::from(numbers.len() as u64 + damaged == TOTAL);
            tried += 1;
            salvaged += u64::from(!inspect(folder.path()).unwrap().aside.is_empty());
        }
    }
    assert!(tried > 50 && salvaged > 3, "{tried} tried, {salvaged} set aside");
    assert_eq!(exact, tried, "all are accounted for");
}

#[test]
fn a_torn_file_gives_its_beginning() {
    let origin = tempfile::tempdir().unwrap();
    filled(origin.path());
    let length = fs::metadata(database(origin.path())).unwrap().len();
    for part in 1..8 {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(database(origin.path()), database(folder.path())).unwrap();
        // Not at a page's end.
        let cut = length * part / 8 + 1_234;
        OpenOptions::new().write(true).open(database(folder.path())).unwrap().set_len(cut).unwrap();
        let seen = inspect(folder.path()).unwrap();
        let (numbers, damaged) = drained(folder.path());
        assert_eq!(seen.events, numbers.len() as u64, "what the check says is what comes out");
        let most = TOTAL * cut / length;
        assert!((most.saturating_sub(60)..=most + 60).contains(&(numbers.len() as u64)), "{} of {most}", numbers.len());
        assert!(numbers.is_sorted_by(|one, next| one < next), "in order, none twice");
        assert_eq!(numbers.len() as u64 + damaged, TOTAL, "all are accounted for");
    }
}

#[test]
fn what_was_sent_does_not_come_back_out_of_freed_pages() {
    let folder = tempfile::tempdir().unwrap();
    let chunks = filled(folder.path());
    let (mut file, _) = SpillFile::open(folder.path()).unwrap();
    let sent: Vec<_> = chunks[..20].iter().map(Chunk::to_remove).collect();
    file.remove(&sent).unwrap();
    let salvaged = file.salvage().unwrap();
    assert_eq!((salvaged.found, salvaged.damaged), (TOTAL / 2, 0));
    drop(file);
    let (numbers, damaged) = drained(folder.path());
    assert_eq!((numbers.first(), numbers.len() as u64, damaged), (Some(&(20 * EACH + 1)), TOTAL / 2, 0));
}

#[test]
fn no_database_at_all_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(database(folder.path()), "neither a database nor a spill").unwrap();
    let (file, salvaged) = SpillFile::open(folder.path()).unwrap();
    assert_eq!((file.events(), salvaged.found, salvaged.damaged), (0, 0, 0));
    assert_eq!(inspect(folder.path()).unwrap().aside.len(), 1);
}
