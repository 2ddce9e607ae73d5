//! The producer's spill on the real servers: Kafka goes away, producers are killed, files are damaged.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use auditstream_integration_tests::{FaultReport, Fixture, Options, poll, wait_until};
use auditstream_producer::spill::{SpillConfig, inspect};
use uuid::Uuid;

/// Nobody listens here.
const NOWHERE: (&str, &str) = ("AUDITSTREAM_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9");
const PATIENCE: Duration = Duration::from_secs(60);
/// Resident memory of a publisher whose Kafka is away: its queue, the file's cache and the program.
const BOUND_KIB: u64 = 128 * 1024;

#[test]
fn kafka_goes_away_under_load_and_the_producer_spills() {
    let mut killed = FaultReport::new("11 Kafka killed and started again, the producer spills");
    let mut away = FaultReport::new("12 Kafka away for longer than the delivery time-out");
    let fixture = Fixture::new(Options::own_servers("spill-outage"));
    let worker = fixture.worker();
    worker.wait_ready();
    let folder = fixture.folder().join("spill");
    let mut config = fixture.producer_config("spilling");
    config.delivery_timeout = Duration::from_secs(1);
    config.queue_events = 2_000;
    config.spill = Some(SpillConfig { after: Duration::from_millis(300), ..SpillConfig::new(&folder) });
    let recorder = fixture.recorder(config);
    // A steady load from here; the queue holds half a second of it.
    let load = |until: &dyn Fn() -> bool| {
        let begun = Instant::now();
        let mut sent = 0;
        while !until() {
            assert!(begun.elapsed() < PATIENCE, "{sent} events sent");
            while sent < begun.elapsed().as_millis() as u64 * 4 {
                recorder.record(fixture.next_event());
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let lasts = |time: Duration| {
        let end = Instant::now() + time;
        move || Instant::now() >= end
    };
    let on_disk = || inspect(&folder).map_or(0, |seen| seen.events);
    load(&lasts(Duration::from_secs(1)));
    for (report, outage) in [(&mut killed, Duration::ZERO), (&mut away, Duration::from_secs(6))] {
        fixture.stack().kafka().kill().unwrap();
        load(&|| on_disk() > 1_000);
        load(&lasts(outage));
        fixture.stack().kafka().start().unwrap();
        let back = Instant::now();
        load(&|| on_disk() == 0);
        report.run();
        report.recovered(back.elapsed());
    }
    recorder.finish();
    fixture.wait_landed(PATIENCE);
    let verdict = fixture.verdict();
    eprintln!("spill: {verdict}");
    for mut report in [killed, away] {
        report.judged(&verdict);
        verdict.assert_clean(fixture.acknowledged().len() as u64, 0);
        report.passed();
    }
}

/// A file of events, and their ids.
fn lines(fixture: &Fixture, name: &str, count: usize) -> (PathBuf, HashSet<Uuid>) {
    let path = fixture.folder().join(name);
    let events: Vec<_> = (0..count).map(|_| fixture.next_event()).collect();
    let text: String = events.iter().map(|event| event.to_json() + "\n").collect();
    fs::write(&path, text).unwrap();
    (path, events.iter().map(|event| event.event_id).collect())
}

fn publish(fixture: &Fixture, file: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = fixture.command(&["publish", file.to_str().unwrap()]);
    command.arg("--ids").arg(fixture.folder().join("ids")).envs(settings.iter().copied());
    command.env("AUDITSTREAM_PRODUCER__SPILL_FOLDER", fixture.folder().join("spill"));
    command.env("AUDITSTREAM_PRODUCER__SPILL_AFTER_MS", "100").env("AUDITSTREAM_PRODUCER__QUEUE_EVENTS", "400");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The ids that the publishers have told, a half-written last one left out.
fn told(fixture: &Fixture) -> HashSet<Uuid> {
    let text = fs::read_to_string(fixture.folder().join("ids")).unwrap_or_default();
    text.lines().filter(|line| line.len() == 36).map(|line| line.parse().unwrap()).collect()
}

fn rss_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

#[test]
fn publishers_are_killed_and_what_they_had_on_disk_arrives() {
    const KILLS: usize = 12;
    let mut report = FaultReport::new("24 producer killed with a spill on disk");
    let fixture = Fixture::new(Options::heavy("spill-kills"));
    let mut inputs = HashSet::new();
    let mut highest = 0;
    for kill in 0..KILLS {
        let (file, ids) = lines(&fixture, &format!("part-{kill}.ndjson"), 20_000);
        inputs.extend(ids);
        let before = told(&fixture).len();
        let mut child = publish(&fixture, &file, &[NOWHERE]).spawn().unwrap();
        // Later each time, and soon after a write: in the next one, or between two.
        let goal = before + 1 + kill * 1_100;
        wait_until("events to be on disk", PATIENCE, || {
            highest = highest.max(rss_kib(child.id()).unwrap_or(0));
            match told(&fixture).len() {
                count if count >= goal => Ok(()),
                count => Err(format!("{count} of {goal}")),
            }
        });
        child.kill().unwrap();
        child.wait().unwrap();
        report.run();
    }
    assert!(highest <= BOUND_KIB, "resident memory reached {highest} KiB");
    let safe = told(&fixture);
    let seen = inspect(&fixture.folder().join("spill")).unwrap();
    assert!(seen.events as usize >= safe.len() && seen.damaged == 0 && !seen.unreadable, "{seen:?}");
    // Kafka is there for the next one: it sends what the killed ones left, and its own.
    let _worker = fixture.worker();
    let (file, ids) = lines(&fixture, "last.ndjson", 500);
    inputs.extend(&ids);
    let back = Instant::now();
    assert!(publish(&fixture, &file, &[]).status().unwrap().success());
    let left = fixture.cli(&["spill", "drain", "--folder", fixture.folder().join("spill").to_str().unwrap()]).success();
    assert!(left.stdout.contains(" 0 left, 0 damaged, 0 failed"), "{}", left.stdout);
    report.recovered(back.elapsed());
    fixture.wait_landed(PATIENCE);
    for id in safe.union(&ids) {
        fixture.acknowledged().add(*id);
    }
    let verdict = fixture.verdict();
    eprintln!("spill kills: {verdict}; {} MiB at most", highest / 1024);
    report.judged(&verdict);
    assert_eq!((verdict.lost, verdict.double, verdict.gaps), (0, 0, 0), "{verdict}");
    // A kill between the disk and the list: on disk, not told, and it arrives.
    assert!(verdict.rows <= inputs.len() as u64 && verdict.rows >= (safe.len() + ids.len()) as u64, "{verdict}");
    assert_eq!(verdict.rows, seen.events + ids.len() as u64, "{verdict}");
    report.passed();
}

#[test]
fn a_damaged_spill_costs_what_is_damaged() {
    const EVENTS: usize = 4_000;
    let mut report = FaultReport::new("25 torn and corrupt spill");
    let fixture = Fixture::new(Options::light("spill-damage"));
    let folder = fixture.folder().join("spill");
    let folder_text = folder.to_str().unwrap();
    let (file, inputs) = lines(&fixture, "events.ndjson", EVENTS);
    // Its deadline passes with Kafka away; everything is on disk then.
    assert!(publish(&fixture, &file, &[NOWHERE]).status().unwrap().success());
    let check = fixture.cli(&["spill", "check", "--folder", folder_text]).success();
    assert!(check.stdout.starts_with("4,000 events, of "), "{}", check.stdout);
    let dump = fixture.cli(&["spill", "dump", "--folder", folder_text]).success();
    let dumped: HashSet<Uuid> = dump
        .stdout
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["event_id"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(dumped, inputs);

    // Two pages overwritten, and the end torn off.
    let path = folder.join("spill.db");
    let length = fs::metadata(&path).unwrap().len();
    let database = OpenOptions::new().write(true).open(&path).unwrap();
    for place in [length / 3, length / 2] {
        database.write_all_at(&[0x5a; 4096], place / 4096 * 4096).unwrap();
    }
    database.set_len(length - 3 * 4096 - 100).unwrap();
    drop(database);
    report.run();
    let check = fixture.cli(&["spill", "check", "--folder", folder_text]);
    assert_eq!(check.code(), Some(1), "{} {}", check.stdout, check.stderr);
    let whole: usize = check.stdout.split(' ').next().unwrap().replace(',', "").parse().unwrap();
    assert!((EVENTS - 90..EVENTS).contains(&whole), "{}", check.stdout);

    let _worker = fixture.worker();
    let drain = fixture.cli(&["spill", "drain", "--folder", folder_text]);
    assert_eq!(drain.code(), Some(1), "{} {}", drain.stdout, drain.stderr);
    assert!(drain.stdout.contains(" 0 left, ") && !drain.stdout.contains(", 0 damaged"), "{}", drain.stdout);
    fixture.wait_landed(PATIENCE);
    let stored = poll(PATIENCE, || match fixture.raw_rows() as usize {
        rows if rows >= whole => Ok(rows),
        rows => Err(format!("{rows} of {whole} rows")),
    });
    assert_eq!(stored.unwrap(), whole);
    let text = fixture.admin().number("SELECT uniqExact(event_id) FROM events FINAL");
    assert_eq!(text as usize, whole);
    // Nothing is thrown away, and the new file is whole.
    let check = fixture.cli(&["spill", "check", "--folder", folder_text]).success();
    assert!(check.stdout.starts_with("0 events") && check.stdout.contains("kept aside"), "{}", check.stdout);
    report.passed();
}
