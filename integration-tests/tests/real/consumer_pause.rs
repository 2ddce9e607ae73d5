//! `auditstream consumer pause` and `resume`: every worker obeys, also one that starts later, whatever happens to ClickHouse; nothing is lost by it.

use std::time::{Duration, Instant};

use auditstream_integration_tests::{CliOutput, Fixture, Options, Worker, http, wait_until};
use serde_json::Value as Json;

const PATIENCE: Duration = Duration::from_secs(60);

fn consumer(fixture: &Fixture, args: &[&str]) -> CliOutput {
    fixture.run(fixture.admin_command(&[&["consumer"], args].concat()), b"")
}

fn wait_suspended(worker: &Worker, wanted: f64) {
    wait_until(&format!("worker {} to notice", worker.name()), PATIENCE, || {
        match worker.metric("auditstream_consumer_suspended")? {
            suspended if suspended == wanted => Ok(()),
            suspended => Err(format!("suspended {suspended}")),
        }
    });
}

fn committed(fixture: &Fixture) -> Vec<Json> {
    let seen: Json = serde_json::from_str(&fixture.cli(&["lag", "--json"]).success().stdout).unwrap();
    seen["partitions"].as_array().unwrap().iter().map(|partition| partition["committed"].clone()).collect()
}

/// Looks, for longer than a worker needs to notice anything, whether a row or an offset appears.
fn nothing_is_read(fixture: &Fixture, rows: u64, offsets: &[Json]) {
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        assert_eq!(fixture.raw_rows(), rows, "rows while it is paused");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(committed(fixture), offsets, "offsets while it is paused");
}

#[test]
fn a_paused_group_reads_nothing_until_it_is_resumed() {
    let fixture = Fixture::new(Options::own_servers("consumer-pause").partitions(2));
    fixture.stop_merges();
    fixture.send(1_000);
    let workers = [fixture.worker(), fixture.worker()];
    fixture.wait_landed(PATIENCE);

    // Asked, tried, refused.
    let dry = consumer(&fixture, &["pause", "--dry-run"]).success().stdout;
    assert!(dry.contains("it has 2 members now; nothing was done (dry run)"), "{dry}");
    let silent = consumer(&fixture, &["pause"]);
    assert!(silent.code() == Some(1) && silent.stderr.contains("--yes"), "{silent:?}");
    let ingest = fixture.cli(&["consumer", "pause", "--yes"]);
    assert!(ingest.code() == Some(1) && ingest.stderr.contains("audit_admin"), "{ingest:?}");
    let nothing = consumer(&fixture, &["resume", "--yes"]).success().stdout;
    assert!(nothing.contains("nothing to do: group consumer-pause on topic consumer-pause is not paused"), "{nothing}");
    // Another group's pause is another's.
    consumer(&fixture, &["pause", "--group", "somebody-else", "--yes"]).success();

    let paused = consumer(&fixture, &["pause", "--reason", "new disks", "--yes"]).success().stdout;
    assert!(paused.starts_with("done: group consumer-pause on topic consumer-pause is paused"), "{paused}");
    let again = consumer(&fixture, &["pause", "--yes"]).success().stdout;
    assert!(again.starts_with("nothing to do:") && again.contains(": new disks"), "{again}");
    workers.iter().for_each(|worker| wait_suspended(worker, 1.0));

    // One that starts later obeys too; there are two partitions, so the rebalance moves some.
    let mut offsets = Vec::new();
    wait_until("what was read to be committed", PATIENCE, || {
        let before = std::mem::replace(&mut offsets, committed(&fixture));
        if before == offsets { Ok(()) } else { Err(format!("{before:?}, then {offsets:?}")) }
    });
    let rows = fixture.raw_rows();
    fixture.send(2_000);
    let [first, second] = workers;
    second.terminate();
    assert_eq!(second.wait(PATIENCE), Some(0));
    let late = fixture.worker();
    wait_suspended(&late, 1.0);
    late.wait_ready();
    nothing_is_read(&fixture, rows, &offsets);
    let address = first.address().unwrap();
    assert_eq!(http::get(&address, "/livez").unwrap().status, 200);
    let ready = http::get(&address, "/readyz").unwrap();
    assert_eq!((ready.status, ready.text().as_str()), (200, "paused by an operator\n"));
    assert_eq!(first.metric("auditstream_consumer_paused").unwrap(), 0.0, "it is not full");
    assert_eq!(first.metric("auditstream_consumer_held_bytes").unwrap(), 0.0);
    assert!(first.log().contains("the group is paused") && !first.log().contains("new disks"), "{}", first.log());
    for args in [&["lag"][..], &["stats"], &["doctor"]] {
        let told = fixture.cli(args).stdout;
        assert!(told.contains("paused since ") && told.contains(": new disks"), "{args:?}: {told}");
    }
    let json: Json = serde_json::from_str(&fixture.cli(&["stats", "--json"]).success().stdout).unwrap();
    assert_eq!(json["paused"]["reason"], "new disks", "{json}");

    // ClickHouse goes away and comes back: still paused, also who starts meanwhile.
    fixture.stack().clickhouse().kill().unwrap();
    let blind = fixture.worker();
    wait_until("it to wait for clickhouse", PATIENCE, || {
        if blind.log().contains("waiting for clickhouse") { Ok(()) } else { Err(blind.log()) }
    });
    wait_until("the others to say that they can't ask", PATIENCE, || {
        let log = first.log();
        if log.contains("can't be read; it stays as it was") { Ok(()) } else { Err(log) }
    });
    assert_eq!(first.metric("auditstream_consumer_suspended").unwrap(), 1.0);
    fixture.stack().clickhouse().start().unwrap();
    wait_suspended(&blind, 1.0);
    nothing_is_read(&fixture, rows, &offsets);

    consumer(&fixture, &["resume", "--yes"]).success();
    [&first, &late, &blind].into_iter().for_each(|worker| wait_suspended(worker, 0.0));
    fixture.wait_landed(PATIENCE);
    let audited = "SELECT concat(action, ' ', entity_id, ' ', outcome, ' (', JSONExtractString(details, 'reason'), ')') FROM events FINAL WHERE tenant_id = 'auditstream' ORDER BY occurred_at";
    assert_eq!(
        fixture.admin().text(audited).lines().collect::<Vec<_>>(),
        [
            // Who may not was heard, and that it failed.
            "audit.consumer_pause consumer-pause SUCCESS ()",
            "audit.consumer_pause consumer-pause FAILURE ()",
            "audit.consumer_pause somebody-else SUCCESS ()",
            "audit.consumer_pause consumer-pause SUCCESS (new disks)",
            "audit.consumer_resume consumer-pause SUCCESS ()"
        ]
    );
    let ids = "SELECT event_id FROM events FINAL WHERE tenant_id = 'auditstream'";
    for id in fixture.admin().text(ids).lines() {
        fixture.acknowledged().add(id.parse().unwrap());
    }
    let verdict = fixture.verdict();
    verdict.assert_clean(3_005, 0);
    assert_eq!(verdict.raw_rows, verdict.rows, "nothing was read twice: {verdict}");
}
