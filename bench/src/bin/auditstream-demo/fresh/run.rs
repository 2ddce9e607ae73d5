//! One run: workers start, events come at their times, the watcher asks until all are stored, and the table says when each was due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use auditstream_bench::process::usage;
use auditstream_bench::topic;
use auditstream_bench::worker::Worker;
use auditstream_producer::{Config, Producer};
use auditstream_schemas::Timestamp;
use tokio::task::JoinHandle;

use super::load::{self, Offered, Plan};
use super::seen::{self, rank};
use super::watch::{self, Watcher};
use super::{Bench, Run};
use crate::setup;

/// How long workers may take to share the partitions.
const JOIN: Duration = Duration::from_secs(30);
/// Without a new row for so long, nothing comes any more.
const STALL: Duration = Duration::from_secs(30);
/// From the start of the watcher to the first event.
const LEAD: Duration = Duration::from_millis(300);

/// CPU time used so far: this process, Kafka, the workers, ClickHouse.
type Used = [Duration; 4];

/// Ends the load when the work is dropped.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Bench<'_> {
    /// From an empty table to an empty table. Without a rate as fast as it goes, so many events as the command line says.
    pub(super) async fn run(&mut self, workers: u32, rate: Option<u32>) -> Result<Run> {
        let seconds = u64::from(self.args.warm_up + self.args.seconds);
        let events = rate.map_or(self.args.events, |rate| u64::from(rate) * seconds);
        let first = self.next;
        self.next += events;
        let workers = self.workers(workers).await?;
        let measured = self.measure(&workers, (first, events, rate)).await;
        setup::drain(&self.demo, workers).await?;
        let measured = measured?;
        self.admin.run("TRUNCATE TABLE events").await?;
        Ok(measured)
    }

    async fn workers(&self, count: u32) -> Result<Vec<Worker>> {
        let workers = (1..=count).map(|number| self.demo.worker(&format!("fresh-{number}")));
        let mut workers = workers.collect::<Result<Vec<Worker>>>()?;
        let begun = Instant::now();
        for worker in &mut workers {
            while !worker.is_ready()? {
                let logs = self.demo.target.state().dir.display();
                ensure!(begun.elapsed() < JOIN, "the workers are not ready after {} s; logs: {logs}", JOIN.as_secs());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(workers)
    }

    async fn measure(&self, workers: &[Worker], (first, events, rate): (u64, u64, Option<u32>)) -> Result<Run> {
        let (bootstrap, topic) = (self.demo.target.bootstrap().to_owned(), self.demo.target.topic());
        let begins = tokio::task::spawn_blocking(move || topic::ends(&bootstrap, topic));
        let begins = begins.await.context("a thread ended badly")??;
        let mut watcher = Watcher::new(&self.demo.ingest, &begins);
        // What lay in the table before the first event.
        watcher.look().await?;
        let begin = Instant::now() + LEAD;
        let begin_micros = Timestamp::now().as_micros() + i64::try_from(LEAD.as_micros())?;
        let (offered, stop) = self.offer(Plan { first, events, rate, begin, begin_micros })?;
        let window = [self.args.warm_up, self.args.warm_up + self.args.seconds].map(|s| Duration::from_secs(s.into()));
        let used = self.watch(&mut watcher, workers, (&begins, events), begin + window[0], begin + window[1]).await?;
        let took = begin.elapsed();
        drop(stop);
        let offered = offered.await.context("a thread ended badly")??;

        let rows = watch::rows(&self.admin).await?;
        ensure!(rows.len() as u64 == events, "{} of {events} events are there", rows.len());
        let due = window.map(|at| begin_micros + i64::try_from(at.as_micros()).unwrap_or(i64::MAX));
        let counted = if rate.is_some() { (due[0], due[1]) } else { (i64::MIN, i64::MAX) };
        let looks = std::mem::take(&mut watcher.looks);
        let poll = watch::pauses(&looks);
        let taken = tokio::task::spawn_blocking(move || seen::taken(&begins, &looks, &rows, counted));
        let taken = taken.await.context("a thread ended badly")??;
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        let [p50, p99, p999, max] = [500, 990, 999, 1_000].map(|part| millis(rank(&taken.events, part)));
        let length = f64::from(self.args.seconds);
        Ok(Run {
            offered,
            p50,
            p99,
            p999,
            max,
            too_long: millis(taken.too_long),
            poll: (millis(poll.0), millis(poll.1)),
            cores: [0, 1, 2, 3].map(|who| used[1][who].saturating_sub(used[0][who]).as_secs_f64() / length),
            end_to_end: events as f64 / took.as_secs_f64(),
        })
    }

    /// Starts the load on a thread of its own.
    fn offer(&self, plan: Plan) -> Result<(JoinHandle<Result<Offered>>, Stop)> {
        let config = Config {
            bootstrap_servers: self.demo.target.bootstrap().to_owned(),
            topic: self.demo.target.topic().to_owned(),
            ..Config::default()
        };
        let producer = Producer::new(config)?;
        let (events, stop) = (Arc::clone(&self.events), Stop(Arc::default()));
        let stopped = Arc::clone(&stop.0);
        let load = tokio::task::spawn_blocking(move || {
            let offered = load::offer(&events, &producer, &plan, &stopped)?;
            let failed = producer.stats().failed.total();
            ensure!(failed == 0, "{failed} events were not delivered");
            Ok(offered)
        });
        Ok((load, stop))
    }

    /// Asks until all are stored; answers what everybody had used at both times, or at the end where that came before.
    async fn watch(
        &self,
        watcher: &mut Watcher<'_>,
        workers: &[Worker],
        (begins, events): (&[u64], u64),
        from: Instant,
        to: Instant,
    ) -> Result<[Used; 2]> {
        let bar = self.demo.screen.bar("recorded and stored", events);
        let (mut at_begin, mut at_end) = (None, None);
        let (mut stored, mut progress) = (0, Instant::now() + LEAD);
        while stored < events {
            watcher.look().await?;
            if at_begin.is_none() && Instant::now() >= from {
                at_begin = Some(self.used(workers)?);
            }
            if at_end.is_none() && Instant::now() >= to {
                at_end = Some(self.used(workers)?);
            }
            let now = watcher.stored(begins);
            if now > stored {
                (stored, progress) = (now, Instant::now());
            } else if progress.elapsed() > STALL {
                bail!("only {stored} of {events} events arrived; logs: {}", self.demo.target.state().dir.display());
            }
            bar.set(stored);
            tokio::time::sleep(Duration::from_millis(self.args.poll_ms)).await;
        }
        let end = self.used(workers)?;
        // Once more: in the last answer the parts may have been looked at a moment before the ledger.
        watcher.look().await?;
        Ok([at_begin.unwrap_or(end), at_end.unwrap_or(end)])
    }

    fn used(&self, workers: &[Worker]) -> Result<Used> {
        let state = self.demo.target.state();
        let of = |pid: u32| usage(pid).map(|usage| usage.cpu).context("a process is gone");
        let server = |pid: Option<u32>| of(pid.context("a server is not running")?);
        let mut all = Duration::ZERO;
        for worker in workers {
            all += worker.usage()?.cpu;
        }
        Ok([of(std::process::id())?, server(state.kafka_pid)?, all, server(state.clickhouse_pid)?])
    }
}
