//! A server goes away under load and comes back.

use std::time::{Duration, Instant};

use auditstream_integration_tests::{FaultReport, Fixture, Options, Worker, wait_until};

/// Resident memory may grow by so much while ClickHouse is away: what may be held (4 MiB of records) several times over, and the prefetch.
const GROWTH_KIB: u64 = 64 * 1024;
/// Resident memory at any time, also while the backlog drains.
const BOUND_KIB: u64 = 256 * 1024;
/// After ClickHouse answers again, rows grow within this time.
const RESUME: Duration = Duration::from_secs(5);

/// Looks at the workers for as long as the outage lasts, and returns the highest resident memory of one of them in KiB.
fn watch(workers: &mut [Worker], outage: Duration) -> u64 {
    let until = Instant::now() + outage;
    let mut highest = 0;
    wait_until("the outage to pass", outage + Duration::from_secs(5), || {
        for worker in workers.iter_mut() {
            assert!(worker.runs(), "worker {} ended in the outage", worker.name());
            highest = highest.max(worker.rss_kib());
        }
        if Instant::now() >= until { Ok(()) } else { Err("it lasts".to_owned()) }
    });
    highest
}

/// Waits until rows grow, and returns how long that took from now, when ClickHouse answers again.
fn resumed(fixture: &Fixture) -> Duration {
    let back = Instant::now();
    let rows_before = fixture.raw_rows();
    wait_until("rows to grow after the outage", Duration::from_secs(30), || match fixture.raw_rows() {
        rows if rows > rows_before => Ok(()),
        rows => Err(format!("{rows} rows")),
    });
    back.elapsed()
}

#[test]
fn clickhouse_is_away_and_comes_back() {
    let mut report = FaultReport::new("15-16 ClickHouse stopped 30 s, killed, frozen under load");
    // As much as arrives in a few seconds: the outage outlasts it, so that the bound is met.
    let fixture =
        Fixture::new(Options::own_servers("outage").consumer("batch_max_bytes = 2097152\nin_flight_bytes = 4194304"));
    let mut workers = [fixture.worker(), fixture.worker()];
    let pids = [workers[0].pid(), workers[1].pid()];
    workers.iter().for_each(Worker::wait_ready);
    let load = fixture.load(6_000, None);
    wait_until("the load to flow", Duration::from_secs(30), || match fixture.raw_rows() {
        rows if rows >= 20_000 => Ok(()),
        rows => Err(format!("{rows} rows")),
    });
    let before = workers.iter().map(Worker::rss_kib).max().unwrap();

    // Stopped in order.
    fixture.stack().clickhouse().stop().unwrap();
    let peak = watch(&mut workers, Duration::from_secs(30));
    for worker in &workers {
        assert!(
            worker.metric("auditstream_consumer_paused").unwrap() > 0.5,
            "worker {} has not paused after 30 s",
            worker.name()
        );
        let metric = |name: &str| worker.metric(&format!("auditstream_consumer_{name}")).unwrap();
        let (paused, owned) = (metric("paused_partitions"), metric("assigned_partitions"));
        assert!(owned > 0.5 && (paused - owned).abs() < 0.5, "{paused} of {owned} partitions are paused");
        assert!(metric("time_lag_seconds") > 20.0, "what waits for 30 s is younger: {}", metric("time_lag_seconds"));
    }
    fixture.stack().clickhouse().start().unwrap();
    let stopped = resumed(&fixture);

    // Killed in the middle of whatever it does.
    fixture.stack().clickhouse().kill().unwrap();
    fixture.stack().clickhouse().start().unwrap();
    let killed = resumed(&fixture);

    // Frozen: it takes connections and answers nothing.
    fixture.stack().clickhouse().pause().unwrap();
    let later = watch(&mut workers, Duration::from_secs(6));
    fixture.stack().clickhouse().resume().unwrap();
    let frozen = resumed(&fixture);

    load.finish();
    fixture.wait_landed(Duration::from_secs(90));
    eprintln!(
        "outage: resumed {stopped:.2?} after a stop of 30 s, {killed:.2?} after a kill, {frozen:.2?} after 6 s frozen; resident {} MiB before, {} MiB at most in the stop, {} MiB at most later",
        before / 1024,
        peak / 1024,
        later / 1024
    );
    for (worker, pid) in workers.iter_mut().zip(pids) {
        assert!(worker.runs() && worker.pid() == pid, "worker {} is another process", worker.name());
    }
    for (fault, took) in [("stopped", stopped), ("killed", killed), ("frozen", frozen)] {
        report.run();
        report.recovered(took);
        assert!(took <= RESUME, "rows grew {took:.1?} after ClickHouse, {fault}, was back");
    }
    assert!(peak <= before + GROWTH_KIB, "resident memory grew from {before} to {peak} KiB in the outage");
    assert!(later <= BOUND_KIB, "resident memory reached {later} KiB");
    let verdict = fixture.verdict();
    eprintln!("outage: {verdict}");
    report.judged(&verdict);
    verdict.assert_clean(fixture.acknowledged().len() as u64, 0);
    report.passed();
}

#[test]
fn kafka_is_away_and_comes_back() {
    let mut report = FaultReport::new("11 Kafka killed and stopped under load");
    let fixture = Fixture::new(Options::own_servers("kafka-outage"));
    let mut workers = [fixture.worker(), fixture.worker()];
    workers.iter().for_each(Worker::wait_ready);
    let load = fixture.load(4_000, Some(500));
    for kill in [true, false] {
        let goal = fixture.raw_rows() + 10_000;
        wait_until("the load to flow", Duration::from_secs(60), || match fixture.raw_rows() {
            rows if rows >= goal => Ok(()),
            rows => Err(format!("{rows} of {goal} rows")),
        });
        let kafka = fixture.stack().kafka();
        if kill { kafka.kill() } else { kafka.stop() }.unwrap();
        kafka.start().unwrap();
        report.run();
        report.recovered(resumed(&fixture));
    }
    load.finish();
    fixture.wait_landed(Duration::from_secs(90));
    for worker in &mut workers {
        assert!(worker.runs(), "worker {} ended", worker.name());
    }
    let verdict = fixture.verdict();
    eprintln!("kafka outage: {verdict}");
    report.judged(&verdict);
    let poison = fixture.poison().positions().len() as u64;
    verdict.assert_clean(fixture.acknowledged().len() as u64 + poison, poison);
    report.passed();
}
