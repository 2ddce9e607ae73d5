//! Row 17: ClickHouse refuses for a while, for reasons that pass: no room, read-only, too many parts, no memory. The worker waits, and blames no row.

use std::time::{Duration, Instant};

use auditstream_integration_tests::{FaultReport, Fixture, Options};

use super::{PATIENCE, wait_metric};

const EVENTS: u64 = 1_000;

/// Events arrive while the table is as `spoil` leaves it: the worker meets `code`, backs off, and lands them when `mend` is done.
fn refused(fixture: &Fixture, row: &str, code: &str, change: impl Fn(bool)) {
    let mut report = FaultReport::new(row);
    // One of its own for each reason: the log leaves out repeats.
    let mut worker = fixture.worker();
    fixture.send(EVENTS);
    fixture.wait_landed(PATIENCE);
    let rows = fixture.raw_rows();
    change(true);
    report.run();
    fixture.send(EVENTS);
    wait_metric(&worker, "failures_total", 3.0);
    assert_eq!(fixture.raw_rows(), rows, "{row}");
    assert!(fixture.kafka().lag(fixture.topic()) >= i64::try_from(EVENTS).unwrap(), "no offset passed");
    assert!(worker.runs(), "it waits, it does not end");
    assert!(worker.log().contains(&format!("Code: {code}.")), "the log names code {code}: {}", worker.log());
    change(false);
    let mended = Instant::now();
    fixture.wait_landed(PATIENCE);
    report.recovered(mended.elapsed());
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(rows + EVENTS, 0);
    assert_eq!(verdict.raw_rows, verdict.rows, "{verdict}");
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(40)), Some(0));
    report.passed();
}

#[test]
fn a_table_that_takes_nothing_for_a_while_is_waited_for() {
    let fixture = Fixture::new(Options::light("refusing-table"));
    fixture.stop_merges();
    let set = |setting: &'static str, bad: &'static str| {
        let admin = fixture.admin();
        move |spoil| {
            if spoil {
                admin.run(&format!("ALTER TABLE events MODIFY SETTING {setting} = {bad}"));
            } else {
                admin.run(&format!("ALTER TABLE events RESET SETTING {setting}"));
            }
        }
    };
    let disk = set("min_free_disk_bytes_to_perform_insert", "1000000000000000");
    refused(&fixture, "17 disk full (243)", "243", disk);
    refused(&fixture, "17 read-only table (774)", "774", set("table_readonly", "1"));
    refused(&fixture, "17 too many parts (252)", "252", set("parts_to_throw_insert", "1"));
}

#[test]
fn a_memory_limit_is_waited_for() {
    let fixture = Fixture::new(Options::heavy("memory-limit"));
    let users = fixture.users();
    refused(&fixture, "17 memory limit (241)", "241", |spoil| {
        let limit = "<audit_ingest>\n            <max_memory_usage>10000</max_memory_usage>";
        users.set(|text| if spoil { text.replacen("<audit_ingest>", limit, 1) } else { text.to_owned() });
    });
}
