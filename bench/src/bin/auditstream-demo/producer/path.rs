//! The whole path: from `record` to the acknowledgement by every in-sync replica, as fast as it goes.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use auditstream_bench::process::usage;
use auditstream_bench::table::thousands;
use auditstream_producer::{Config, Producer, RejectReason};

use super::{Bench, Events, Figure, Report, Unit, clock, wait_acknowledged};

/// Threads that hand in.
const THREADS: u64 = 2;
/// Events made between two readings of the thread's clock.
const CHUNK: usize = 64;
/// How long a thread sleeps when the queue is full: a hundredth of what it holds at full speed.
const FULL: Duration = Duration::from_millis(2);
/// Events of the run that does not count.
const WARM_UP: u64 = 500_000;

struct Run {
    per_second: f64,
    /// CPU-seconds per million events: this process without the making of events, the making, the broker.
    process: f64,
    making: f64,
    kafka: f64,
}

pub(super) fn acknowledged(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    bench
        .screen
        .say(&format!("\nThe whole path, {} events a run from {THREADS} threads", thousands(bench.args.events)));
    let runs = measured(bench, "run", true)?;
    let all = |pick: fn(&Run) -> f64| runs.iter().map(pick).collect::<Vec<f64>>();
    report.add(Figure::at_least("acknowledged_per_s", Unit::Whole, 300_000.0, all(|run| run.per_second)));
    report.add(Figure::at_most("process_cpu_s_per_million", Unit::Hundredths, 2.0, all(|run| run.process)));
    report.add(Figure::plain("kafka_cpu_s_per_million", Unit::Hundredths, all(|run| run.kafka)));
    let runs = measured(bench, "without CloudEvents headers", false)?;
    let all = |pick: fn(&Run) -> f64| runs.iter().map(pick).collect::<Vec<f64>>();
    report.add(Figure::at_least("no_headers_acknowledged_per_s", Unit::Whole, 300_000.0, all(|run| run.per_second)));
    report.add(Figure::at_most("no_headers_process_cpu_s_per_million", Unit::Hundredths, 2.0, all(|run| run.process)));
    Ok(())
}

fn measured(bench: &Bench<'_>, what: &str, cloud_events: bool) -> Result<Vec<Run>> {
    let producer = bench.producer(Config { cloud_events, ..bench.config()? })?;
    bench.repeat(what, || {
        let run = once(bench, &producer, bench.args.events)?;
        let line = format!(
            "{} events a second; CPU-s per million: process {:.2} (and {:.2} to make the events), Kafka {:.2}",
            thousands(run.per_second as u64),
            run.process,
            run.making,
            run.kafka
        );
        Ok((run, line))
    })
}

/// A run that does not count: a broker that has just started interprets its code, and memory is touched for the first time.
pub(super) fn warm_up(bench: &Bench<'_>) -> Result<()> {
    bench.screen.say(&format!("\nA run of {} events that does not count, to warm Kafka up", thousands(WARM_UP)));
    once(bench, &bench.producer(bench.config()?)?, WARM_UP).map(|_| ())
}

fn once(bench: &Bench<'_>, producer: &Producer, events: u64) -> Result<Run> {
    let kafka = bench.target.state().kafka_pid.context("Kafka is not running")?;
    let kafka_cpu = || usage(kafka).map(|usage| usage.cpu).context("Kafka is gone");
    let (kafka_before, cpu_before, begun) = (kafka_cpu()?, clock::process_cpu()?, Instant::now());
    let making = hand_in_all(&bench.events, producer, events, bench.args.offered)?;
    wait_acknowledged(producer)?;
    let took = begun.elapsed();
    let per_million = |cpu: Duration| cpu.as_secs_f64() * 1e6 / events as f64;
    Ok(Run {
        per_second: events as f64 / took.as_secs_f64(),
        process: per_million((clock::process_cpu()? - cpu_before).saturating_sub(making)),
        making: per_million(making),
        kafka: per_million(kafka_cpu()?.saturating_sub(kafka_before)),
    })
}

/// Hands in `events` of `source`, from [`THREADS`] threads, no more than `offered` a second; answers the CPU time that making them took.
pub(super) fn hand_in_all(source: &Events, producer: &Producer, events: u64, offered: Option<u32>) -> Result<Duration> {
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|lane| scope.spawn(move || hand_in(source, producer, lane, (events, offered)))).collect();
        let making = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread ended badly")));
        making.sum()
    })
}

/// Hands in the events of a lane, in order; answers the CPU time that making them took.
fn hand_in(source: &Events, producer: &Producer, lane: u64, (events, offered): (u64, Option<u32>)) -> Result<Duration> {
    let mut making = Duration::ZERO;
    let mut chunk = Vec::with_capacity(CHUNK);
    let (begun, mut numbers) = (Instant::now(), 0..events);
    loop {
        if let Some(offered) = offered {
            let due = Duration::from_secs_f64(numbers.start as f64 / f64::from(offered));
            thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        let before = clock::thread_cpu()?;
        let mine = numbers.by_ref().filter(|number| source.lane(*number, THREADS) == lane);
        chunk.extend(mine.take(CHUNK).map(|number| source.at(number)));
        making += clock::thread_cpu()? - before;
        if chunk.is_empty() {
            return Ok(making);
        }
        for event in chunk.drain(..) {
            let mut next = Some(event);
            while let Some(event) = next.take() {
                match producer.record(event) {
                    Ok(()) => {}
                    Err(rejected) if matches!(rejected.reason, RejectReason::QueueFull { .. }) => {
                        thread::sleep(FULL);
                        next = Some(*rejected.event);
                    }
                    Err(rejected) => return Err(rejected.into()),
                }
            }
        }
    }
}
