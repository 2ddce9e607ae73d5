//! `auditstream consumer reset` and `auditstream lag`: reading begins where a human says, and nothing becomes double by it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use auditstream_integration_tests::{CliOutput, Fixture, Options, Rigged, Worker, wait_until};
use auditstream_store::faults::Point;
use serde_json::Value as Json;

const EVENTS: u64 = 2_000;

fn reset(fixture: &Fixture, args: &[&str]) -> CliOutput {
    fixture.cli(&[&["consumer", "reset"], args].concat())
}

fn lag(fixture: &Fixture) -> Json {
    serde_json::from_str(&fixture.cli(&["lag", "--json"]).success().stdout).unwrap()
}

fn stop(worker: Worker) {
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(40)), Some(0));
}

fn wait_rows(fixture: &Fixture, rows: u64) {
    wait_until("the rows", Duration::from_secs(60), || {
        match fixture.admin().number("SELECT count() FROM events FINAL WHERE tenant_id != 'auditstream'") {
            found if found == rows => Ok(()),
            found => Err(format!("{found} of {rows} rows")),
        }
    });
}

#[test]
fn rows_that_are_gone_are_read_again_and_rows_that_are_there_stay_one() {
    let fixture = Fixture::new(Options::light("consumer-reset").partitions(2));
    fixture.stop_merges();
    fixture.send(EVENTS);
    assert_eq!(lag(&fixture)["total"], EVENTS, "nothing is read yet");
    let worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(60));

    // Who reads is seen, and is not disturbed.
    let seen = lag(&fixture);
    assert_eq!((&seen["total"], &seen["members"]), (&Json::from(0), &Json::from(1)), "{seen}");
    assert!(seen["partitions"].as_array().unwrap().iter().all(|partition| partition["host"] == "127.0.0.1"), "{seen}");
    let refused = reset(&fixture, &["--to-earliest", "--yes"]);
    assert!(refused.code() == Some(1) && refused.stderr.contains("has 1 members; stop them first"), "{refused:?}");
    let dry = reset(&fixture, &["--to-earliest", "--dry-run"]).success().stdout;
    assert!(
        dry.contains("2,000 records read again, 0 skipped; nothing was done (dry run); the group has 1 members"),
        "{dry}"
    );
    stop(worker);
    let silent = reset(&fixture, &["--to-earliest"]);
    assert!(silent.code() == Some(1) && silent.stderr.contains("--yes"), "{silent:?}");
    assert_eq!(lag(&fixture)["total"], 0, "nothing was changed");

    // The table is lost; the ledger still says that all of it has landed.
    fixture.admin().run("TRUNCATE TABLE events");
    reset(&fixture, &["--to-earliest", "--yes"]).success();
    let seen = lag(&fixture);
    // The audit event of the reset is on the topic too.
    assert_eq!(seen["total"], EVENTS + 1, "{seen}");
    assert!(
        seen["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .all(|partition| partition["oldest_unread_age_ms"].as_i64().unwrap() > 0),
        "{seen}"
    );
    let worker = fixture.worker();
    wait_rows(&fixture, EVENTS);
    fixture.wait_landed(Duration::from_secs(60));
    // What a worker commits itself is its own again: the ledger counts.
    let (_, metadata) = fixture.kafka().committed_with_metadata(fixture.topic(), 0);
    assert!(metadata.starts_with("topic-id="), "{metadata}");
    stop(worker);

    // Read again though all is there.
    reset(&fixture, &["--to-time", "1970-01-02T00:00:00Z", "--yes"]).success();
    assert_eq!(lag(&fixture)["total"], EVENTS + 2);
    let worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(60));
    wait_rows(&fixture, EVENTS);
    stop(worker);

    // Forwards: skipped, and said so.
    fixture.send(10);
    let skipped = reset(&fixture, &["--to-latest", "--yes"]).success().stdout;
    assert!(skipped.contains("done: 0 records read again, 10 skipped"), "{skipped}");
    let future = reset(&fixture, &["--to-time", "2100-01-01T00:00:00Z", "--dry-run"]).success().stdout;
    assert!(future.contains("1 skipped; nothing was done"), "only the audit event is left: {future}");
    let wrong = reset(&fixture, &["--to-latest", "--partition", "9", "--yes"]);
    assert!(wrong.code() == Some(1) && wrong.stderr.contains("has no partition 9"), "{wrong:?}");
    let worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(60));
    wait_rows(&fixture, EVENTS);
    let audited = "SELECT count() FROM events FINAL WHERE tenant_id = 'auditstream' AND action = 'audit.consumer_reset' AND outcome = 'SUCCESS' AND entity_id = 'consumer-reset'";
    assert_eq!(fixture.admin().number(audited), 3);
    drop(worker);
}

/// The worker that goes on from the set offset dies at its first commit, which is its own; the ledger says of everything behind it that it has landed.
#[test]
fn a_restart_in_between_does_not_undo_a_reset() {
    let fixture = Fixture::new(Options::light("reset-restart").partitions(1));
    fixture.stop_merges();
    fixture.send(EVENTS);
    let worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(60));
    stop(worker);
    let small = [("AUDITSTREAM_CONSUMER__BATCH_MIN_ROWS", "100"), ("AUDITSTREAM_CONSUMER__BATCH_MAX_ROWS", "100")];
    for (by, by_us) in [("auditstream", true), ("kafka's own tool", false)] {
        fixture.admin().run("TRUNCATE TABLE events");
        if by_us {
            reset(&fixture, &["--to-earliest", "--yes"]).success();
        } else {
            fixture.kafka().commit(fixture.topic(), 0, 0);
        }
        let worker = fixture.rigged_worker(&Rigged { settings: &small, ..Rigged::at(Point::Committed, 1) });
        assert_ne!(worker.wait(Duration::from_secs(60)), Some(0), "{by}: it died");
        let (offset, metadata) = fixture.kafka().committed_with_metadata(fixture.topic(), 0);
        assert!(offset > 0 && offset < EVENTS.cast_signed(), "{by}: the first commit is at {offset}");
        assert!(metadata.starts_with("set=") && metadata.contains(" topic-id="), "{by}: {metadata}");
        let worker = fixture.worker();
        wait_rows(&fixture, EVENTS);
        fixture.wait_landed(Duration::from_secs(60));
        // Past where the topic ended then, the ledger counts again.
        let (_, metadata) = fixture.kafka().committed_with_metadata(fixture.topic(), 0);
        assert!(metadata.starts_with("topic-id="), "{by}: {metadata}");
        stop(worker);
    }
}

#[test]
fn watching_ends_when_nobody_reads_any_more() {
    let fixture = Fixture::new(Options::light("watching").partitions(1));
    fixture.send(5);
    for (args, part) in [
        (&["lag", "--watch", "--interval", "1"][..], "lag 5, oldest unread "),
        (
            &["stats", "--watch", "--interval", "1"],
            "events 0, 0 a second, newest never, dead letters 0, parts 0, lag 5",
        ),
        (&["stats", "--watch", "--interval", "1", "--json"], "\"recent\":{"),
    ] {
        let mut child = fixture.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let line = lines.next().unwrap().unwrap();
            assert!(line.contains(part) && !line.contains('\u{1b}'), "{line}");
        }
        drop(lines);
        let status = wait_until("it to end", Duration::from_secs(20), || {
            child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())
        });
        assert_eq!(status.code(), Some(0), "{args:?}");
    }
}
