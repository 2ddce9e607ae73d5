//! One drain: a side takes everything from a topic into the empty table, and is measured from its first sign of life until all rows are queryable.
//!
//! The clock runs from the moment the first member is in the group (a worker's `/readyz`, an assignment in `system.kafka_consumers`)
//! until a query counts all rows. CPU time counts from the start.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use auditstream_bench::process::{Usage, usage};
use auditstream_bench::worker::Worker;

use super::Bench;
use super::engine::Engine;
use super::scenario::Side;
use super::sql;
use super::topic::Topic;

/// From one look at a side that is not in the group yet to the next.
const READINESS: Duration = Duration::from_millis(2);
/// From one look at the table to the next while much is to come: a look takes CPU time from what is measured.
const LOOK: Duration = Duration::from_millis(100);
/// The same when four of five are there: now it says when the clock stops.
const LOOK_CLOSELY: Duration = Duration::from_millis(15);
/// Without a new row for so long, nothing comes any more.
const STALL: Duration = Duration::from_secs(60);
/// No merge for so long: the table has come to rest.
const REST: Duration = Duration::from_secs(2);
/// The longest wait for that.
const REST_MOST: Duration = Duration::from_secs(120);

/// What one drain took.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Drained {
    pub(super) events: u64,
    /// CPU time of the workers' threads, by their names.
    pub(super) threads: BTreeMap<String, Duration>,
    /// From the first sign of life to the last row.
    pub(super) wall: Duration,
    /// CPU time of the workers; none for the engine, which is part of ClickHouse.
    pub(super) sink: Duration,
    pub(super) clickhouse: Duration,
    /// The same when no merge has run for two seconds; none when nobody waited for that.
    pub(super) clickhouse_at_rest: Option<Duration>,
    pub(super) kafka: Duration,
    /// The largest of the workers; 0 for the engine.
    pub(super) peak_rss: u64,
}

impl Drained {
    pub(super) fn per_second(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64()
    }

    /// CPU-seconds for a million events.
    pub(super) fn per_million(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.events as f64
    }

    /// Sink and ClickHouse, until the rows are queryable, for a million events.
    pub(super) fn total(&self) -> f64 {
        self.per_million(self.sink + self.clickhouse)
    }
}

/// Rows that are hashed at once: FINAL and the ids of so many take less memory than the local stack's ClickHouse has. Each slice reads everything.
const SLICE: u64 = 12_500_000;
/// Small buffers and blocks: a long drain leaves a hundred parts, and FINAL reads every column of all of them side by side.
const FRUGAL: &str = "max_block_size=8192&max_read_buffer_size=65536&max_read_buffer_size_local_fs=65536&optimize_move_to_prewhere_if_final=1";

/// The rows as numbers: see [`sql::fingerprint`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    rows: u64,
    ids: u64,
    sum: u64,
    xor: u64,
}

impl Fingerprint {
    /// Of one slice, as ClickHouse answers.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('\t').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { rows: next()?, ids: next()?, sum: next()?, xor: next()? })
    }

    fn and(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            ids: self.ids + other.ids,
            sum: self.sum.wrapping_add(other.sum),
            xor: self.xor ^ other.xor,
        }
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, ids, sum, xor } = self;
        write!(f, "{rows} rows, {ids} ids, hashes {sum:016x} and {xor:016x}")
    }
}

/// A side at work.
enum Sink {
    Workers(Vec<Worker>),
    Engine(Engine),
}

impl Sink {
    fn start(bench: &Bench<'_>, topic: &Topic, side: Side) -> Result<Self> {
        let group = format!("bench-{}-{}", side.short(), bench.next());
        match side {
            Side::Ours(count) => {
                let mut settings = topic.settings(bench);
                settings.push(("AUDITSTREAM_CONSUMER__GROUP_ID".to_owned(), group.clone()));
                let start =
                    |number| Worker::start_with(&bench.program, &bench.target, &format!("{group}-{number}"), &settings);
                Ok(Self::Workers((1..=count).map(start).collect::<Result<_>>()?))
            }
            Side::Engine => Engine::start(bench, topic, &group).map(Self::Engine),
        }
    }

    fn is_member(&mut self) -> Result<bool> {
        match self {
            Self::Workers(workers) => {
                let mut is_any = false;
                for worker in workers {
                    is_any |= worker.is_ready()?;
                }
                Ok(is_any)
            }
            Self::Engine(engine) => engine.is_member(),
        }
    }

    /// CPU time of all its processes, memory of the largest.
    fn usage(&self) -> Result<Usage> {
        match self {
            Self::Workers(workers) => {
                let mut all = Usage::default();
                for worker in workers {
                    let one = worker.usage()?;
                    all.cpu += one.cpu;
                    all.peak_rss = all.peak_rss.max(one.peak_rss);
                }
                Ok(all)
            }
            Self::Engine(_) => Ok(Usage::default()),
        }
    }

    /// CPU time of the workers' threads, by their names.
    fn threads(&self) -> Result<BTreeMap<String, Duration>> {
        let Self::Workers(workers) = self else { return Ok(BTreeMap::new()) };
        let mut all = BTreeMap::new();
        for worker in workers {
            for (name, cpu) in worker.threads()? {
                *all.entry(name).or_default() += cpu;
            }
        }
        Ok(all)
    }

    /// What it says of its troubles.
    fn troubles(&self, bench: &Bench<'_>) -> String {
        match self {
            Self::Engine(engine) => engine.troubles(),
            _ => format!("logs: {}", bench.target.state().dir.display()),
        }
    }

    fn stop(self) -> Result<()> {
        match self {
            Self::Workers(workers) => {
                // All at once: each has its own deadline.
                let threads: Vec<_> = workers.into_iter().map(|worker| thread::spawn(move || worker.stop())).collect();
                threads.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a thread ended badly")))
            }
            Self::Engine(engine) => engine.stop(),
        }
    }
}

/// Drains all of `topic` into the empty table, checks what arrived, and empties it again. With `to_rest` it waits for the merges too.
pub(super) fn drain(bench: &Bench<'_>, topic: &Topic, side: Side, to_rest: bool) -> Result<(Drained, Fingerprint)> {
    drain_and(bench, topic, side, to_rest, || Ok(()))
}

/// The same with `look` at the full table before it is emptied.
pub(super) fn drain_and(
    bench: &Bench<'_>,
    topic: &Topic,
    side: Side,
    to_rest: bool,
    look: impl FnOnce() -> Result<()>,
) -> Result<(Drained, Fingerprint)> {
    empty(bench)?;
    let what = || format!("{}, topic {}", side.name(), topic.name);
    let (clickhouse, kafka) = (bench.server.cpu()?, bench.kafka_cpu()?);
    let begun = Instant::now();
    let mut sink = Sink::start(bench, topic, side).with_context(what)?;
    let watched = watch(bench, topic, &mut sink, begun).with_context(what)?;
    let used = sink.usage()?;
    let mut drained = Drained {
        events: topic.events,
        wall: watched.done - watched.member,
        sink: used.cpu,
        clickhouse: bench.server.cpu()?.saturating_sub(clickhouse),
        kafka: bench.kafka_cpu()?.saturating_sub(kafka),
        peak_rss: used.peak_rss,
        threads: sink.threads()?,
        ..Drained::default()
    };
    if to_rest {
        wait_for_rest(bench)?;
        drained.clickhouse_at_rest = Some(bench.server.cpu()?.saturating_sub(clickhouse));
    }
    let fingerprint = prove(bench, topic).with_context(what)?;
    look()?;
    sink.stop().with_context(what)?;
    empty(bench)?;
    Ok((drained, fingerprint))
}

struct Watched {
    member: Duration,
    done: Duration,
}

fn watch(bench: &Bench<'_>, topic: &Topic, sink: &mut Sink, begun: Instant) -> Result<Watched> {
    let sql = format!("SELECT count() FROM {}.events", bench.server.database());
    let bar = bench.screen.bar("from the topic into ClickHouse", topic.events);
    let (mut member, mut last_count, mut last_progress) = (None, 0, Instant::now());
    loop {
        if member.is_none() && sink.is_member()? {
            member = Some(begun.elapsed());
            last_progress = Instant::now();
        }
        if member.is_none() && last_progress.elapsed() < STALL {
            // No member of the group, no row.
            thread::sleep(READINESS);
            continue;
        }
        // Before the question: what its answer holds was there at the latest when it was asked.
        let now = begun.elapsed();
        let count = bench.server.number(&sql)?;
        bar.set(count.min(topic.events));
        if let Some(member) = member
            && count >= topic.events
        {
            return Ok(Watched { member, done: now });
        }
        if count > last_count {
            (last_count, last_progress) = (count, Instant::now());
        } else if last_progress.elapsed() > STALL {
            bail!("only {count} of {} events arrived; {}", topic.events, sink.troubles(bench));
        }
        thread::sleep(if count * 5 < topic.events * 4 { LOOK } else { LOOK_CLOSELY });
    }
}

/// Every event is there once, and nothing is among the dead letters.
fn prove(bench: &Bench<'_>, topic: &Topic) -> Result<Fingerprint> {
    let database = bench.server.database();
    let slices = topic.events.div_ceil(SLICE).max(1);
    let mut fingerprint = Fingerprint::default();
    for slice in 0..slices {
        let answer = bench.server.ask(&sql::fingerprint(database, slice, slices), FRUGAL)?.text;
        let one = Fingerprint::parse(&answer).with_context(|| format!("ClickHouse answered `{answer}`"))?;
        fingerprint = fingerprint.and(one);
    }
    ensure!(
        fingerprint.rows == topic.events && fingerprint.ids == topic.events,
        "{} events lie on the topic, and the table holds {fingerprint}",
        topic.events
    );
    let letters = bench.server.number(&format!("SELECT count() FROM {database}.dead_letters"))?;
    ensure!(letters == 0, "{letters} events became dead letters");
    Ok(fingerprint)
}

/// Rows of the median insert by a worker, as the ledger knows them; 0 when no worker has inserted any.
pub(super) fn insert_rows(bench: &Bench<'_>) -> Result<u64> {
    bench.server.number(&format!(
        "SELECT toUInt64(ifNotFinite(median(rows), 0)) FROM (SELECT sum(rows) AS rows FROM {}.ledger FINAL GROUP BY token)",
        bench.server.database()
    ))
}

/// Waits until no merge has run for two seconds.
pub(super) fn wait_for_rest(bench: &Bench<'_>) -> Result<()> {
    let sql = format!("SELECT count() FROM system.merges WHERE database = '{}'", bench.server.database());
    let begun = Instant::now();
    let mut quiet = Instant::now();
    while quiet.elapsed() < REST && begun.elapsed() < REST_MOST {
        if bench.server.number(&sql)? > 0 {
            quiet = Instant::now();
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Takes every row out: events, and the ledger, which would move the start of an assignment.
pub(super) fn empty(bench: &Bench<'_>) -> Result<()> {
    let database = bench.server.database();
    ["events", "ledger", "dead_letters"]
        .iter()
        .try_for_each(|table| bench.server.text(&format!("TRUNCATE TABLE {database}.{table} SYNC")).map(drop))
}

/// CPU time of a process of the stack so far.
pub(super) fn cpu(pid: Option<u32>) -> Result<Duration> {
    usage(pid.context("a server is not running")?).map(|usage| usage.cpu).context("a server is gone")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn slices_of_rows_make_one_fingerprint() {
        let of = |text: &str| Fingerprint::parse(text).unwrap();
        let both = of("2\t2\t18446744073709551615\t12").and(of("3\t3\t2\t10"));
        assert_eq!(both, of("5\t5\t1\t6"));
        assert_ne!(both, of("5\t4\t1\t6"));
        assert_eq!(Fingerprint::parse("1\t1\t1"), None);
    }
}
