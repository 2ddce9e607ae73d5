//! The call alone, on the caller's thread.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use auditstream_producer::{Producer, RejectReason};
use auditstream_schemas::AuditEvent;

use super::{Bench, Figure, Report, Unit, wait_acknowledged};

/// Events of one run at the fixed rate.
const EVENTS: u64 = 200_000;
/// From one event to the next: 100,000 a second.
const EVERY: Duration = Duration::from_micros(10);
/// Threads of a burst.
const THREADS: u64 = 4;
/// Events that a thread has ready: four times this is more than the queue takes.
const READY: u64 = 40_000;
/// Bursts of one run: each is over in some 20 ms, so one alone says little.
const BURSTS: u64 = 9;

/// Times of the calls of one run, in nanoseconds.
struct Calls {
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// 100,000 a second from one thread, each call timed by the monotonic clock, the cost of which is in the figure.
pub(super) fn latency(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    bench
        .screen
        .say(&format!("\n`record` at 100,000 events a second; reading the clock takes {} ns of it", clock_ns()));
    let producer = bench.producer(bench.config()?)?;
    let runs = bench.repeat("run", || {
        let calls = paced(bench, &producer)?;
        let line = format!(
            "p50 {} ns, p99 {} ns, p99.9 {:.1} µs, longest {:.0} µs",
            calls.p50,
            calls.p99,
            calls.p999 / 1e3,
            calls.max / 1e3
        );
        Ok((calls, line))
    })?;
    let all = |pick: fn(&Calls) -> f64| runs.iter().map(pick).collect::<Vec<f64>>();
    report.add(Figure::at_most("record_p50_ns", Unit::Whole, 250.0, all(|calls| calls.p50)));
    report.add(Figure::at_most("record_p99_ns", Unit::Whole, 1_000.0, all(|calls| calls.p99)));
    report.add(Figure::plain("record_p999_ns", Unit::Whole, all(|calls| calls.p999)));
    Ok(())
}

fn paced(bench: &Bench<'_>, producer: &Producer) -> Result<Calls> {
    let mut nanos = Vec::with_capacity(EVENTS as usize);
    let begun = Instant::now();
    for number in 0..EVENTS {
        let event = bench.events.at(number);
        // A sleep is too coarse for 10 µs. Who is late hands in at once, as a service would.
        let due = EVERY * u32::try_from(number)?;
        while begun.elapsed() < due {
            std::hint::spin_loop();
        }
        let call = Instant::now();
        let taken = producer.record(event);
        nanos.push(call.elapsed().as_nanos() as f64);
        taken.context("an event was refused at 100,000 a second")?;
    }
    wait_acknowledged(producer)?;
    nanos.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| nanos[((nanos.len() - 1) as f64 * share) as usize];
    Ok(Calls { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) })
}

/// What two readings of the clock are apart, in the median.
fn clock_ns() -> u128 {
    let mut nanos: Vec<u128> = (0..10_001).map(|_| Instant::now().elapsed().as_nanos()).collect();
    nanos.sort_unstable();
    nanos[nanos.len() / 2]
}

/// Four threads at once, until the queue is full.
pub(super) fn burst(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    bench.screen.say("\n`record` from four threads until the queue is full");
    let producer = bench.producer(bench.config()?)?;
    let runs = bench.repeat("run", || {
        let mut bursts = (0..BURSTS).map(|_| once(bench, &producer)).collect::<Result<Vec<(f64, u64)>>>()?;
        bursts.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let (rate, taken) = bursts[bursts.len() / 2];
        Ok((rate, format!("{:.2} M events a second in the median of {BURSTS} bursts, {taken} taken", rate / 1e6)))
    })?;
    report.add(Figure::at_least("record_4_threads_per_s", Unit::Whole, 1e6, runs));
    Ok(())
}

/// Events a second, and how many were taken.
fn once(bench: &Bench<'_>, producer: &Producer) -> Result<(f64, u64)> {
    let mut ready: Vec<Vec<AuditEvent>> = (0..THREADS)
        .map(|thread| (0..READY).rev().map(|number| bench.events.at(number * THREADS + thread)).collect())
        .collect();
    let start = &Barrier::new(THREADS as usize);
    let taken = thread::scope(|scope| {
        let spawn = |events| {
            scope.spawn(move || {
                start.wait();
                until_full(producer, events)
            })
        };
        let threads: Vec<_> = ready.iter_mut().map(spawn).collect();
        let taken = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread ended badly")));
        taken.collect::<Result<Vec<(u64, Duration)>>>()
    })?;
    let events: u64 = taken.iter().map(|(events, _)| events).sum();
    let longest = taken.iter().map(|(_, took)| *took).max().unwrap_or_default();
    wait_acknowledged(producer)?;
    Ok((events as f64 / longest.as_secs_f64(), events))
}

fn until_full(producer: &Producer, events: &mut Vec<AuditEvent>) -> Result<(u64, Duration)> {
    let begun = Instant::now();
    let mut taken = 0;
    while let Some(event) = events.pop() {
        match producer.record(event) {
            Ok(()) => taken += 1,
            Err(rejected) if matches!(rejected.reason, RejectReason::QueueFull { .. }) => break,
            Err(rejected) => return Err(rejected.into()),
        }
    }
    Ok((taken, begun.elapsed()))
}
