//! Row 22: the dead-letter topic is missing or full (that it refuses is in `poison`). The partition waits, its offset holds, the others go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use auditstream_integration_tests::{FaultReport, Fixture, Options, wait_until};

use super::{PATIENCE, wait_metric};

const EVENTS: u64 = 1_000;

/// Sends events and one record of poison while the dead-letter topic is as `spoil` leaves it, then mends it.
fn dead_letters_meet(name: &'static str, row: &str, spoil: impl Fn(&Fixture), mend: impl Fn(&Fixture)) {
    let mut report = FaultReport::new(row);
    let fixture = Fixture::new(Options::light(name));
    let mut worker = fixture.worker();
    fixture.send(EVENTS);
    fixture.wait_landed(PATIENCE);
    spoil(&fixture);
    report.run();
    fixture.poison().send(Some(b"k"), Some(&[b'x'; 300]), &[]);
    let at = fixture.poison().positions()[0];
    fixture.send(EVENTS);
    // The rows of the other partitions, and the rows beside the poison, do not wait.
    fixture.wait_all_rows(2 * EVENTS, PATIENCE);
    wait_metric(&worker, "failures_total", 2.0);
    let committed = fixture.kafka().committed(fixture.topic()).get(&at.0).copied().unwrap_or(0);
    assert!(committed <= at.1, "offset {committed} is committed, the record at {at:?} is nowhere");
    assert!(worker.runs(), "the worker waits, it does not end");
    mend(&fixture);
    let mended = Instant::now();
    fixture.wait_landed(PATIENCE);
    report.recovered(mended.elapsed());
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(2 * EVENTS + 1, 1);
    report.passed();
}

#[test]
fn a_dead_letter_topic_that_is_missing_holds_the_offset() {
    dead_letters_meet(
        "missing-dlq",
        "22 dead-letter topic missing",
        |fixture| fixture.kafka().delete_topic(&fixture.dead_letter_topic()),
        |fixture| fixture.kafka().create_topic(&fixture.dead_letter_topic(), 3),
    );
}

/// The log files of a broker, with their sizes.
fn logs(data: &Path) -> Vec<(PathBuf, u64)> {
    let partitions = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = partitions.flat_map(|partition| fs::read_dir(partition).unwrap().map(|entry| entry.unwrap().path()));
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.map(|path| (path.clone(), fs::metadata(&path).unwrap().len())).collect()
}

/// Kafka has no notion of a full topic: when the disk has no room for a record the broker gives its log folder up, and ends when it has no other. Here
/// the system refuses that the broker's files grow beyond the size of the largest, which is a partition of the dead-letter topic.
#[test]
fn a_dead_letter_topic_that_is_full_holds_the_offset() {
    // Of 6 partitions of the source the dead letters make 3, so that these are the larger ones.
    const LETTERS: usize = 60;
    static VALUE: [u8; 50_000] = [b'x'; 50_000];
    let mut report = FaultReport::new("22 dead-letter topic full");
    let fixture = Fixture::new(Options::own_servers("full-dlq"));
    let (kafka, data) = (fixture.stack().kafka(), fixture.stack().dir().join("kafka"));
    let mut worker = fixture.worker();
    fixture.send(EVENTS);
    for number in 0..LETTERS {
        fixture.poison().send(Some(number.to_string().as_bytes()), Some(&VALUE), &[]);
    }
    fixture.wait_landed(PATIENCE);

    let (largest, size) = logs(&data).into_iter().max_by_key(|(_, size)| *size).unwrap();
    let partition = largest.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let full = partition.strip_prefix(&format!("{}-", fixture.dead_letter_topic()));
    let full: i32 = full.unwrap_or_else(|| panic!("the largest partition is {partition}")).parse().unwrap();
    let limited = Command::new("prlimit")
        .args(["--pid", &kafka.pid().unwrap().to_string(), &format!("--fsize={}:", size + 1_000)])
        .status();
    assert!(limited.expect("prlimit is part of util-linux").success());
    // Both topics choose by the key's hash, and 3 divides 6.
    let key = fixture.poison().positions().iter().position(|(partition, _)| partition % 3 == full).unwrap();
    let at = fixture.poison().send(Some(key.to_string().as_bytes()), Some(&VALUE), &[]);
    let at = fixture.poison().positions()[at];
    report.run();
    wait_until("the broker to give up", PATIENCE, || kafka.pid().map_or(Ok(()), |_| Err("it runs".to_owned())));
    let said = fs::read_to_string(&fixture.stack().log_paths()[0]).unwrap();
    assert!(said.contains(&partition) && said.contains("File too large"), "it gave up for another reason: {said}");
    wait_until("the worker to say so", PATIENCE, || match worker.log() {
        log if log.contains("dead-letter producer error") => Ok(()),
        log => Err(log),
    });
    assert!(worker.runs(), "the worker waits, it does not end");

    // There is room again.
    worker.pause();
    kafka.start().unwrap();
    let committed = fixture.kafka().committed(fixture.topic())[&at.0];
    assert!(committed <= at.1, "offset {committed} is committed, the record at {at:?} is nowhere");
    worker.resume();
    let mended = Instant::now();
    fixture.send(EVENTS);
    fixture.wait_landed(PATIENCE);
    report.recovered(mended.elapsed());
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(2 * EVENTS + LETTERS as u64 + 1, LETTERS as u64 + 1);
    report.passed();
}
