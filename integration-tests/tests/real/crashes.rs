//! Workers that come, go, are stopped and are killed, all under load.

use std::time::{Duration, Instant};

use auditstream_integration_tests::{FaultReport, Fixture, Options, Worker, wait_until};
use auditstream_stack::Server;

/// Much longer than anything here takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// SplitMix64 (Steele, Lea, Flood 2014): a new moment each time, the same ones for a seed.
struct Moments(u64);

impl Moments {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn wait_reading(worker: &Worker, records: f64) {
    let what = format!("worker {} to read {records} records", worker.name());
    wait_until(&what, PATIENCE, || match worker.metric("auditstream_consumer_records_total")? {
        read if read >= records => Ok(()),
        read => Err(format!("{read} records")),
    });
}

/// ClickHouse, frozen until dropped: other tests use it too.
struct Frozen<'a>(&'a Server);

impl<'a> Frozen<'a> {
    fn new(fixture: &'a Fixture) -> Self {
        let clickhouse = fixture.stack().clickhouse();
        clickhouse.pause().unwrap();
        Self(clickhouse)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.resume().unwrap();
    }
}

#[test]
fn ten_kills_lose_nothing_and_double_nothing() {
    let seed = std::env::var("AUDITSTREAM_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        since.as_micros() as u64
    });
    eprintln!("ten kills: AUDITSTREAM_TEST_SEED={seed} kills at the same moments after the same progress");
    let mut report = FaultReport::new("1-4 killed at any moment, under load");
    let mut moments = Moments(seed);
    let fixture = Fixture::new(Options::heavy("ten-kills").short_sessions());
    fixture.stop_merges();
    let mut workers = [fixture.worker(), fixture.worker()];
    let load = fixture.load(6_000, Some(300));
    for round in 0..10 {
        let victim = &mut workers[usize::from(moments.below(2) == 0)];
        wait_reading(victim, 1.0);
        // In every second round ClickHouse answers nothing meanwhile: then the worker is sure to die with records that it has read, perhaps sent,
        // and heard nothing of.
        let frozen = (round % 2 == 1).then(|| {
            let frozen = Frozen::new(&fixture);
            wait_until("the worker to hold records", PATIENCE, || {
                match victim.metric("auditstream_consumer_held_bytes")? {
                    held if held > 0.0 => Ok(()),
                    _ => Err("it holds none".to_owned()),
                }
            });
            frozen
        });
        // Not a wait for something: any moment of the worker's cycle must do.
        std::thread::sleep(Duration::from_millis(moments.below(1_000)));
        let killed = std::mem::replace(victim, fixture.worker());
        killed.kill();
        drop(frozen);
        report.run();
    }
    load.finish();
    fixture.wait_landed(PATIENCE);
    let verdict = fixture.verdict();
    eprintln!("ten kills: {verdict}");
    let events = fixture.acknowledged().len() as u64;
    let poison = fixture.poison().positions().len() as u64;
    assert!(poison > 0 && events > 10_000, "a load worth its name: {events} events, {poison} poison");
    report.judged(&verdict);
    verdict.assert_clean(events + poison, poison);
    report.passed();
}

#[test]
fn sigterm_under_load_leaves_no_duplicate_even_without_final() {
    let mut report = FaultReport::new("26 SIGTERM under load");
    let fixture = Fixture::new(Options::heavy("sigterm"));
    fixture.stop_merges();
    let mut worker = fixture.worker();
    let load = fixture.load(8_000, Some(500));
    for round in 0..4 {
        wait_reading(&worker, 5_000.0);
        fixture.wait_rows(1, PATIENCE);
        // In the odd rounds the next worker is a member already, in the even ones the group is empty for a while.
        let next = (round % 2 == 1).then(|| {
            let next = fixture.worker();
            next.wait_ready();
            next
        });
        worker.terminate();
        let asked = Instant::now();
        assert_eq!(worker.wait(Duration::from_secs(20)), Some(0), "the exit code after SIGTERM");
        eprintln!("sigterm: round {round} drained in {:.2?}", asked.elapsed());
        report.run();
        report.recovered(asked.elapsed());
        worker = next.unwrap_or_else(|| fixture.worker());
    }
    load.finish();
    fixture.wait_landed(PATIENCE);
    let verdict = fixture.verdict();
    report.judged(&verdict);
    let poison = fixture.poison().positions().len() as u64;
    verdict.assert_clean(fixture.acknowledged().len() as u64 + poison, poison);
    assert_eq!(verdict.raw_rows, verdict.rows, "duplicates without FINAL: {verdict}");
    assert_eq!(verdict.repeated_dead_letters, 0, "{verdict}");
    report.passed();
}

#[test]
fn two_workers_join_and_one_leaves_without_a_duplicate() {
    let fixture = Fixture::new(Options::heavy("join-leave"));
    fixture.stop_merges();
    let first = fixture.worker();
    let load = fixture.load(8_000, Some(500));
    wait_reading(&first, 5_000.0);
    let second = fixture.worker();
    wait_reading(&second, 5_000.0);
    let third = fixture.worker();
    wait_reading(&third, 5_000.0);
    for (worker, name) in [(&first, "first"), (&second, "second"), (&third, "third")] {
        let partitions = worker.metric("auditstream_consumer_assigned_partitions").unwrap();
        assert!((1.0..=4.0).contains(&partitions), "the {name} worker has {partitions} of 6 partitions");
    }
    first.terminate();
    assert_eq!(first.wait(Duration::from_secs(20)), Some(0), "the exit code after SIGTERM");
    fixture.wait_rows(10_000, PATIENCE);
    load.finish();
    fixture.wait_landed(PATIENCE);
    let verdict = fixture.verdict();
    eprintln!("join and leave: {verdict}");
    let poison = fixture.poison().positions().len() as u64;
    verdict.assert_clean(fixture.acknowledged().len() as u64 + poison, poison);
    assert_eq!(verdict.raw_rows, verdict.rows, "duplicates without FINAL: {verdict}");
    assert_eq!(verdict.repeated_dead_letters, 0, "{verdict}");
}

#[test]
fn a_worker_that_froze_past_its_session_does_no_harm() {
    let mut report = FaultReport::new("7 worker frozen past its session timeout");
    let fixture = Fixture::new(Options::heavy("frozen").short_sessions());
    fixture.stop_merges();
    let workers = [fixture.worker(), fixture.worker()];
    workers.iter().for_each(Worker::wait_ready);
    let [frozen, other] = &workers;
    let load = fixture.load(6_000, Some(300));
    let partitions = |worker: &Worker| worker.metric("auditstream_consumer_assigned_partitions");
    for _ in 0..3 {
        wait_reading(frozen, 1.0);
        frozen.pause();
        // Whatever it had under way, the other one now reads it again.
        wait_until("the other worker to own all partitions", PATIENCE, || match partitions(other)? {
            6.0 => Ok(()),
            some => Err(format!("it owns {some} of 6")),
        });
        fixture.wait_rows(5_000, PATIENCE);
        frozen.resume();
        report.run();
        let resumed = Instant::now();
        wait_until("the frozen worker to own partitions again", PATIENCE, || match partitions(other)? {
            6.0 => Err("the other one owns all 6".to_owned()),
            _ => Ok(()),
        });
        report.recovered(resumed.elapsed());
    }
    load.finish();
    fixture.wait_landed(PATIENCE);
    let verdict = fixture.verdict();
    eprintln!("frozen: {verdict}");
    report.judged(&verdict);
    let poison = fixture.poison().positions().len() as u64;
    verdict.assert_clean(fixture.acknowledged().len() as u64 + poison, poison);
    report.passed();
}
