//! All workers are replaced, one after the other, while events come: by the same version, by the next one after its migration, and by today's again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use auditstream_bench::process::usage;
use auditstream_integration_tests::{FaultReport, Fixture, Options, Rigged, Worker, is_long, wait_until};

use super::PATIENCE;

const WORKERS: usize = 4;
const PER_SECOND: u64 = 50_000;
/// Of events that came while workers were being replaced: from their record's time to the acknowledgement of their rows.
const FRESHNESS_P99_MS: u64 = 10_000;
/// A worker drains within its deadline, 25 s, and leaves.
const DRAIN: Duration = Duration::from_secs(40);

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn read(worker: &Worker) -> Result<f64, String> {
    worker.metric("auditstream_consumer_records_total")
}

/// What the workers that have ended used.
#[derive(Default)]
struct Used {
    cpu: Duration,
    records: f64,
    peak_rss: u64,
}

impl Used {
    fn by(&mut self, worker: &Worker) {
        let used = usage(worker.pid()).unwrap();
        self.cpu += used.cpu;
        self.records += read(worker).unwrap();
        self.peak_rss = self.peak_rss.max(used.peak_rss);
    }
}

/// As `kubectl rollout restart` does with one pod at a time: SIGTERM, wait for the end, the next version's worker, wait until it reads.
fn replaced(workers: &mut [Worker], used: &mut Used, start: impl Fn() -> Worker) {
    for worker in workers {
        used.by(worker);
        worker.terminate();
        let old = std::mem::replace(worker, start());
        assert_eq!(old.wait(DRAIN), Some(0), "the exit code: it drained");
        worker.wait_ready();
        wait_until(&format!("worker {} to read", worker.name()), PATIENCE, || match read(worker)? {
            some if some > 0.0 => Ok(()),
            _ => Err("nothing yet".to_owned()),
        });
    }
}

/// Milliseconds from an event's arrival until its row was acknowledged, of events that arrived in this span of time: the quantile 0.99, and the most.
fn freshness(fixture: &Fixture, from_ms: i64, to_ms: i64) -> (u64, u64) {
    let of = |what: &str| {
        fixture.admin().number(&format!(
            "SELECT toUInt64(greatest(0, {what}(dateDiff('millisecond', e.received_at, l.inserted_at)))) \
             FROM (SELECT _partition AS p, _offset AS o, received_at FROM events WHERE toUnixTimestamp64Milli(received_at) BETWEEN {from_ms} AND {to_ms}) AS e \
             ASOF JOIN (SELECT partition AS p, first_offset AS o, inserted_at FROM ledger) AS l ON e.p = l.p AND e.o >= l.o"
        ))
    };
    (of("quantileExact(0.99)"), of("max"))
}

/// Who is replaced by whom.
struct Roll {
    /// Events a second.
    per_second: u64,
    /// Before the first worker starts.
    prepare: fn(&Fixture),
    from: fn(&Fixture) -> Worker,
    /// While those of `from` read.
    migrate: fn(&Fixture),
    to: fn(&Fixture) -> Worker,
}

impl Default for Roll {
    /// Today's workers by themselves.
    fn default() -> Self {
        Self { per_second: PER_SECOND, prepare: |_| {}, from: Fixture::worker, migrate: |_| {}, to: Fixture::worker }
    }
}

/// What the next version's migration does.
fn migrated(fixture: &Fixture) {
    fixture.admin().run(&format!("ALTER TABLE {}.events ADD COLUMN region String", fixture.database()));
}

/// A worker of the next version.
fn next(fixture: &Fixture) -> Worker {
    fixture.rigged_worker(&Rigged { settings: &[("AUDITSTREAM_FAULTS_READER", "next")], ..Rigged::default() })
}

/// Replaces all workers under load.
fn rolls(name: &'static str, mut report: FaultReport, roll: &Roll) {
    /// The rate that is measured needs the whole machine.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let fixture = Fixture::new(Options::heavy(name).partitions(12));
    fixture.stop_merges();
    (roll.prepare)(&fixture);
    let mut workers: Vec<_> = (0..WORKERS).map(|_| (roll.from)(&fixture)).collect();
    workers.iter().for_each(Worker::wait_ready);
    let (load, begun) = (fixture.load(roll.per_second, None), Instant::now());
    // A share of the first second.
    let warm = roll.per_second as f64 / 5.0;
    for worker in &workers {
        wait_until("every worker to read", PATIENCE, || match read(worker)? {
            some if some >= warm => Ok(()),
            some => Err(format!("{some} records")),
        });
    }
    (roll.migrate)(&fixture);
    let mut used = Used::default();
    let from_ms = now_ms();
    replaced(&mut workers, &mut used, || (roll.to)(&fixture));
    let to_ms = now_ms();
    report.run();
    let rate = load.recorded() as f64 / begun.elapsed().as_secs_f64();
    load.finish();
    fixture.wait_landed(PATIENCE);
    workers.iter().for_each(|worker| used.by(worker));
    let (p99, most) = freshness(&fixture, from_ms, to_ms);
    let verdict = fixture.verdict();
    report.judged(&verdict);
    let double_without_final = verdict.raw_rows - verdict.rows;
    report.figure("events_per_second", rate.round() as u64);
    report.figure("freshness_p99_ms", p99);
    report.figure("freshness_max_ms", most);
    report.figure("replacing_ms", to_ms - from_ms);
    report.figure("double_without_final", double_without_final);
    report.figure("worker_cpu_s_per_million", (used.cpu.as_secs_f64() / used.records * 1e8).round() / 100.0);
    report.figure("worker_peak_mib", used.peak_rss >> 20);
    eprintln!(
        "{name}: {rate:.0} events a second, all {WORKERS} replaced in {} ms, freshness p99 {p99} ms, at most {most} ms, workers {:.2} CPU-s per million, \
         {} MiB at most; {verdict}",
        to_ms - from_ms,
        used.cpu.as_secs_f64() / used.records * 1e6,
        used.peak_rss >> 20
    );
    verdict.assert_clean(fixture.acknowledged().len() as u64, 0);
    assert_eq!(double_without_final, 0, "rows twice without FINAL: {verdict}");
    // A machine that others use too may not make so many; what came is in the report.
    assert!(!is_long() || rate >= roll.per_second as f64 * 0.95, "only {rate} events a second came");
    assert!(p99 <= FRESHNESS_P99_MS, "the freshness p99 is {p99} ms");
    report.passed();
}

#[test]
fn four_workers_are_replaced_under_load() {
    let report = FaultReport::new("26 rolling restart of 4 workers under 50,000 events a second");
    rolls("rolling", report, &Roll::default());
}

/// Today's workers run on beside the migrated table, and the next version's beside them.
#[test]
fn four_workers_are_upgraded_under_load_with_a_migration() {
    if !is_long() {
        return;
    }
    let report = FaultReport::new("26 upgrade of 4 workers with a migration under 50,000 events a second");
    rolls("rolling-upgrade", report, &Roll { migrate: migrated, to: next, ..Roll::default() });
}

/// The next version's workers give way to today's, and its tables stay as they are.
#[test]
fn four_workers_go_back_under_load_and_the_tables_stay() {
    let per_second = if is_long() { PER_SECOND } else { 5_000 };
    let report = FaultReport::new(format!("26 downgrade of 4 workers on the migrated table, {per_second} a second"));
    let back = Roll { per_second, prepare: migrated, from: next, ..Roll::default() };
    rolls("rolling-back", report, &back);
}
