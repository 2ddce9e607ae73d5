//! The group's other ways: partitions shared out by the broker (KIP-848), and workers that keep theirs across a restart (KIP-345).

use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options, Worker, wait_until};

/// Much longer than anything here takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);
const BY_BROKER: &str = "group_protocol = \"consumer\"";

fn wait_reading(worker: &Worker, more: f64) {
    let read = || worker.metric("auditstream_consumer_records_total");
    let goal = wait_until("a first look", PATIENCE, read) + more;
    let what = format!("worker {} to read {more} records more", worker.name());
    wait_until(&what, PATIENCE, || match read()? {
        read if read >= goal => Ok(()),
        read => Err(format!("{read} of {goal} records")),
    });
}

fn wait_owning(worker: &Worker, partitions: f64) {
    let what = format!("worker {} to own {partitions} partitions", worker.name());
    wait_until(&what, PATIENCE, || match worker.metric("auditstream_consumer_assigned_partitions")? {
        some if some == partitions => Ok(()),
        some => Err(format!("{some}")),
    });
}

fn rebalances(worker: &Worker) -> f64 {
    worker.metric("auditstream_consumer_rebalances_total").unwrap()
}

/// Everything landed, once; without merges it can be seen how much work was done twice.
fn landed(fixture: &Fixture, what: &str) -> u64 {
    fixture.wait_landed(PATIENCE);
    let verdict = fixture.verdict();
    eprintln!("{what}: {verdict}");
    let poison = fixture.poison().positions().len() as u64;
    verdict.assert_clean(fixture.acknowledged().len() as u64 + poison, poison);
    verdict.raw_rows - verdict.rows
}

#[test]
fn workers_join_leave_and_die_when_the_broker_shares_out() {
    let fixture = Fixture::new(Options::heavy("kip-848").consumer(BY_BROKER));
    fixture.stop_merges();
    let first = fixture.worker();
    let load = fixture.load(5_000, Some(500));
    wait_reading(&first, 5_000.0);
    wait_owning(&first, 6.0);
    let second = fixture.worker();
    [&first, &second].iter().for_each(|worker| wait_owning(worker, 3.0));
    let third = fixture.worker();
    for worker in [&first, &second, &third] {
        wait_owning(worker, 2.0);
        wait_reading(worker, 2_000.0);
    }
    // Who is asked to stop hands over at once, and nothing is done twice.
    first.terminate();
    assert_eq!(first.wait(Duration::from_secs(20)), Some(0), "the exit code after SIGTERM");
    for worker in [&second, &third] {
        wait_owning(worker, 3.0);
        wait_reading(worker, 2_000.0);
    }
    // In one query, because rows come in meanwhile.
    let again = fixture.admin().number("SELECT count() - uniqExact(event_id) FROM events");
    assert_eq!(again, 0, "rows inserted twice though nobody died");
    // Who dies is missed when the broker's session timeout has passed.
    second.kill();
    wait_owning(&third, 6.0);
    wait_reading(&third, 5_000.0);
    load.finish();
    landed(&fixture, "the broker shares out");
}

#[test]
fn a_static_worker_comes_back_and_nobody_notices() {
    let fixture = Fixture::new(Options::heavy("static"));
    let start = |name| fixture.worker_with(&[("AUDITSTREAM_CONSUMER__GROUP_INSTANCE_ID", name)]);
    come_back(&fixture, start, true);
}

#[test]
fn a_static_worker_comes_back_when_the_broker_shares_out() {
    let fixture = Fixture::new(Options::heavy("static-848").consumer(BY_BROKER));
    let start = |name| fixture.worker_with(&[("AUDITSTREAM_CONSUMER__GROUP_INSTANCE_ID", name)]);
    let first = come_back(&fixture, start, false);
    // Who died has not told the broker, which keeps the name for it until the session is over.
    first.kill();
    let early = start("a");
    assert_eq!(early.wait(PATIENCE), Some(3), "the exit code while the broker keeps the name");
}

/// One of two static workers is stopped, or killed, and started again within its session. The other one keeps its partitions and hears nothing.
fn come_back(fixture: &Fixture, start: impl Fn(&'static str) -> Worker, and_killed: bool) -> Worker {
    let (mut first, second) = (start("a"), start("b"));
    let load = fixture.load(3_000, None);
    [&first, &second].iter().for_each(|worker| wait_owning(worker, 3.0));
    let before = rebalances(&second);
    for killed in [false, true].into_iter().take(if and_killed { 2 } else { 1 }) {
        wait_reading(&first, 1_000.0);
        if killed {
            first.kill();
        } else {
            first.terminate();
            assert_eq!(first.wait(Duration::from_secs(20)), Some(0), "the exit code after SIGTERM");
        }
        first = start("a");
        wait_owning(&first, 3.0);
        wait_reading(&first, 1_000.0);
        wait_reading(&second, 1_000.0);
        assert_eq!(rebalances(&second), before, "the other worker's rebalances");
        wait_owning(&second, 3.0);
    }
    load.finish();
    landed(fixture, "a static worker");
    first
}

#[test]
fn a_static_name_that_is_taken_ends_the_older_worker_with_the_reason() {
    let fixture = Fixture::new(Options::light("static-twice"));
    let start = || fixture.worker_with(&[("AUDITSTREAM_CONSUMER__GROUP_INSTANCE_ID", "same")]);
    let older = start();
    wait_owning(&older, 6.0);
    let newer = start();
    wait_owning(&newer, 6.0);
    wait_until("the older worker to say why it ends", PATIENCE, || {
        let log = older.log();
        if log.contains("consumer.group_instance_id") { Ok(()) } else { Err(log) }
    });
    assert_eq!(older.wait(PATIENCE), Some(3), "the exit code");
}
