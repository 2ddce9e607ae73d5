//! How fast workers move what lies on the topic into ClickHouse.
//!
//! What the headline means: N events lie on the topic and no worker runs. The workers start together. The clock runs from the moment the first one
//! is a member of the group (its `/readyz` answers yes) until a query sees all N rows under `FINAL`. So the rebalance that the second one causes, the
//! first fetch and the last insert all count; only the start of the processes does not, and it is shown beside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use auditstream_bench::load::{Acknowledged, Generator, Options, Sent, send};
use auditstream_bench::process::usage;
use auditstream_bench::table::thousands;
use auditstream_bench::worker::Worker;
use auditstream_producer::Producer;
use auditstream_schemas::Timestamp;

use crate::run::Demo;
use crate::screen::Screen;
use crate::{Common, setup};

/// Threads that make events.
const THREADS: u64 = 2;
/// From one look at a worker that is not in the group yet to the next.
const READINESS: Duration = Duration::from_millis(2);
/// From one look at the table to the next while much is to come: a look takes CPU time from what is measured.
const LOOK: Duration = Duration::from_millis(100);
/// The same when four of five are there: now it says when the clock stops.
const LOOK_CLOSELY: Duration = Duration::from_millis(15);
/// Events of the round that does not count.
const WARM_UP: u64 = 200_000;
/// Without a new row for so long, nothing comes any more.
const STALL: Duration = Duration::from_secs(60);

/// Puts generated events on the topic.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    common: Common,
    /// How many events.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Write the ids that Kafka acknowledged here, 16 bytes each.
    #[arg(long, value_name = "FILE")]
    acknowledged: Option<std::path::PathBuf>,
}

/// Loads and drains, again and again.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    common: Common,
    /// How many events a round.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// How many workers.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: u32,
    /// How many rounds.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
}

/// What one drain took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drained {
    pub(crate) events: u64,
    /// From the first worker's membership to the last row.
    pub(crate) from_ready: Duration,
    /// From the start of the processes to the last row.
    pub(crate) from_start: Duration,
    /// From the first row to the last row.
    pub(crate) from_first_row: Duration,
    /// When the first and the last worker became a member, after the start.
    pub(crate) ready: (Duration, Duration),
    /// The highest of the workers, in bytes.
    pub(crate) peak_rss: u64,
    /// All workers together, from their start on.
    pub(crate) worker_cpu: Duration,
    /// ClickHouse and Kafka, during the drain.
    pub(crate) clickhouse_cpu: Duration,
    pub(crate) kafka_cpu: Duration,
}

impl Drained {
    pub(crate) fn events_per_second(&self) -> f64 {
        self.events as f64 / self.from_ready.as_secs_f64()
    }

    pub(crate) fn per_million(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.events as f64
    }
}

/// Puts `events` generated events on the topic; each seed makes others.
pub(crate) async fn load(demo: &Demo<'_>, seed: u64, events: u64, acknowledged: &Acknowledged) -> Result<Sent> {
    /// Stops the threads when the work is dropped.
    struct Stop(Arc<AtomicBool>);
    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let options = Options { seed, events, until: Timestamp::now(), ..Options::default() };
    let producer = Producer::with_observer(demo.target.producer(), acknowledged.observer())?;
    let (sent, stop) = (Arc::new(AtomicU64::new(0)), Stop(Arc::default()));
    let bar = demo.screen.bar("onto the topic", events);
    let work = {
        let (sent, stop) = (Arc::clone(&sent), Arc::clone(&stop.0));
        tokio::task::spawn_blocking(move || {
            send(&Generator::new(options), 0..events, &producer, THREADS, (&sent, &stop))
        })
    };
    Ok(bar.during(|| sent.load(Ordering::Relaxed), work).await.context("a thread ended badly")??)
}

/// What everybody has used up to one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    /// The highest of the workers.
    peak_rss: u64,
    /// All workers together.
    workers: Duration,
    clickhouse: Duration,
    kafka: Duration,
}

impl Used {
    fn now(demo: &Demo<'_>, workers: &[Worker]) -> Result<Self> {
        let state = demo.target.state();
        let server = |pid: Option<u32>| {
            usage(pid.context("a server is not running")?).map(|usage| usage.cpu).context("a server is gone")
        };
        let mut used =
            Self { clickhouse: server(state.clickhouse_pid)?, kafka: server(state.kafka_pid)?, ..Self::default() };
        for worker in workers {
            let usage = worker.usage()?;
            used.peak_rss = used.peak_rss.max(usage.peak_rss);
            used.workers += usage.cpu;
        }
        Ok(used)
    }
}

/// Starts workers and waits until all `events` that lie on the topic are queryable. The workers go on.
pub(crate) async fn drain(demo: &Demo<'_>, events: u64, workers: u32) -> Result<(Drained, Vec<Worker>)> {
    let before = demo.ingest.number("SELECT count() FROM events").await?;
    let before_final = demo.analyst.number("SELECT count() FROM events").await?;
    let used_before = Used::now(demo, &[])?;
    let bar = demo.screen.bar("from the topic into ClickHouse", events);
    let begun = Instant::now();
    let mut running = Vec::new();
    for number in 1..=workers {
        running.push(demo.worker(&format!("load-worker-{number}"))?);
    }
    let mut ready: Vec<Option<Duration>> = vec![None; running.len()];
    let (mut first_row, mut last_count, mut last_progress) = (None, 0, Instant::now());
    let (done, used) = loop {
        for (worker, ready) in running.iter_mut().zip(&mut ready) {
            if ready.is_none() && worker.is_ready()? {
                *ready = Some(begun.elapsed());
            }
        }
        if ready.iter().all(Option::is_none) {
            // No member of the group, no row.
            tokio::time::sleep(READINESS).await;
            continue;
        }
        // Before the question: what its answer holds was there at the latest when it was asked.
        let now = begun.elapsed();
        let count = demo.ingest.number("SELECT count() FROM events").await?.saturating_sub(before);
        bar.set(count.min(events));
        if count > 0 && first_row.is_none() {
            first_row = Some(now);
        }
        // The plain count is cheap and may hold duplicates; what counts is checked under FINAL, at a cost that is not the product's.
        if count >= events {
            let used = Used::now(demo, &running)?;
            if demo.analyst.number("SELECT count() FROM events").await? - before_final >= events {
                break (now, used);
            }
        }
        if count > last_count {
            (last_count, last_progress) = (count, Instant::now());
        } else if last_progress.elapsed() > STALL {
            bail!("only {count} of {events} events arrived; logs: {}", demo.target.state().dir.display());
        }
        // Readiness starts the clock, the last row stops it: both are looked for often.
        let pause = match ready.iter().all(Option::is_some) {
            false => READINESS,
            true if count * 5 < events * 4 => LOOK,
            true => LOOK_CLOSELY,
        };
        tokio::time::sleep(pause).await;
    };
    drop(bar);
    let mut drained = Drained {
        events,
        from_start: done,
        peak_rss: used.peak_rss,
        worker_cpu: used.workers,
        clickhouse_cpu: used.clickhouse.saturating_sub(used_before.clickhouse),
        kafka_cpu: used.kafka.saturating_sub(used_before.kafka),
        ..Drained::default()
    };
    // A worker that was never ready before the end came too late to count.
    let times: Vec<Duration> = ready.into_iter().map(|ready| ready.unwrap_or(done)).collect();
    drained.ready = (times.iter().min().copied().unwrap_or(done), times.iter().max().copied().unwrap_or(done));
    drained.from_ready = done - drained.ready.0;
    drained.from_first_row = done - first_row.unwrap_or(done);
    Ok((drained, running))
}

/// One smaller round that does not count: servers that have just started spend the first second on compiling and on touching their memory.
pub(crate) async fn warm_up(demo: &Demo<'_>) -> Result<()> {
    demo.screen
        .say(&format!("  a round of {} events first, to warm the servers up; it does not count", thousands(WARM_UP)));
    load(demo, !demo.seed, WARM_UP, &demo.acknowledged).await?;
    let (_, workers) = drain(demo, WARM_UP, 2).await?;
    setup::drain(demo, workers).await
}

pub(crate) fn say_sent(screen: &Screen, sent: &Sent) {
    screen.say(&format!(
        "  {} events on the topic in {:.2} s, every one acknowledged: {} a second from one producer",
        thousands(sent.events),
        sent.took.as_secs_f64(),
        thousands((sent.events as f64 / sent.took.as_secs_f64()) as u64)
    ));
}

pub(crate) fn say_drained(screen: &Screen, drained: &Drained) {
    let seconds = |duration: Duration| duration.as_secs_f64();
    screen.say(&format!(
        "  all queryable {:.2} s after the first worker was in the group: {} events a second",
        seconds(drained.from_ready),
        thousands(drained.events_per_second() as u64)
    ));
    screen.say(&format!(
        "    the workers were in the group {:.2} and {:.2} s after their start; all rows {:.2} s after it, {:.2} s after the first row",
        seconds(drained.ready.0),
        seconds(drained.ready.1),
        seconds(drained.from_start),
        seconds(drained.from_first_row),
    ));
    screen.say(&format!(
        "    CPU-seconds per million events: workers {:.2}, ClickHouse {:.2}, Kafka {:.2}; memory of a worker {} MiB at most",
        drained.per_million(drained.worker_cpu),
        drained.per_million(drained.clickhouse_cpu),
        drained.per_million(drained.kafka_cpu),
        drained.peak_rss >> 20
    ));
}

/// `auditstream-demo load`.
pub(crate) async fn only_load(args: &LoadArgs, screen: &Screen) -> Result<()> {
    let demo = Demo::new(&args.common, args.events, screen)?;
    let list = match &args.acknowledged {
        Some(path) => Acknowledged::with_file(path).with_context(|| format!("{} can't be written", path.display()))?,
        None => demo.acknowledged.clone(),
    };
    setup::tables_and_topics(&demo).await?;
    let sent = load(&demo, demo.seed, args.events, &list).await?;
    list.sync().context("the list of acknowledged ids can't be written")?;
    say_sent(screen, &sent);
    Ok(())
}

/// `auditstream-demo bench`.
pub(crate) async fn bench(args: &BenchArgs, screen: &Screen) -> Result<()> {
    let mut demo = Demo::new(&args.common, args.events * args.rounds, screen)?;
    setup::tables_and_topics(&demo).await?;
    for round in 0..args.rounds {
        screen.say(&format!("round {} of {}", round + 1, args.rounds));
        let sent = load(&demo, demo.seed, args.events, &demo.acknowledged).await?;
        say_sent(screen, &sent);
        let (drained, workers) = drain(&demo, args.events, args.workers).await?;
        say_drained(screen, &drained);
        setup::drain(&demo, workers).await?;
        // Another seed, other ids.
        demo.seed += 1;
    }
    Ok(())
}
