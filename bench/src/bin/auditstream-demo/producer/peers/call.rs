//! What the caller waits, and what the whole way costs, one way beside the other.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use auditstream_bench::process::usage;
use auditstream_bench::table::thousands;

use super::super::clock;
use super::Peers;
use super::ways::{self, Way};

/// From one call to the next: 100,000 a second.
const EVERY: Duration = Duration::from_micros(10);
/// Of a way that waits for its end, a call counts as so many of the others'.
const DEARER: u64 = 20;
/// Events made between two readings of the thread's clock.
const CHUNK: u64 = 64;
/// How long the caller sleeps when there is no room.
const FULL: Duration = Duration::from_millis(2);

/// What one round of a way measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// Time of the call, in microseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    /// Of 1,000 timed calls, those that found no room: handed in again, untimed.
    pub(super) refused: f64,
    /// As fast as it goes: calls a second until all is where it should be.
    pub(super) per_second: f64,
    /// CPU-seconds per million, of this process without the making of events, and of the server.
    pub(super) process: f64,
    pub(super) server: Option<f64>,
}

/// A way and its rounds.
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) rounds: Vec<Round>,
}

/// All ways in turns.
pub(super) fn compare(peers: &Peers<'_>) -> Result<Vec<Measured>> {
    let calls = peers.args.calls;
    peers.screen.say(&format!("\nOne call: {} at 100,000 a second, then as many as fast as it goes", thousands(calls)));
    let mut ways = ways::all(peers)?;
    let mut all: Vec<Measured> = ways.iter().map(|way| Measured { name: way.name(), rounds: Vec::new() }).collect();
    // Each event has an id of its own, also in a database that checks.
    let mut next = 0;
    // Round 0 warms up.
    for round in 0..=peers.args.rounds {
        for (way, measured) in ways.iter_mut().zip(&mut all) {
            let calls = if way.is_synchronous() { (calls / DEARER).max(100) } else { calls };
            let before = peers.records()?;
            let ([p50, p99, p999], refused) = timed(peers, way.as_mut(), (next, calls))?;
            let flat_out = flat_out(peers, way.as_mut(), (next + calls, calls))?;
            next += 2 * calls;
            let there = peers.records()? - before;
            ensure!(
                !way.is_kafka() || there == 2 * calls,
                "{}: {there} of {} records on the topic",
                way.name(),
                2 * calls
            );
            let (per_second, process, server) = flat_out;
            if round == 0 {
                continue;
            }
            peers.screen.say(&format!(
                "  {round} {}: p50 {p50:.2} µs, p99 {p99:.2} µs; {} a second, CPU-s per million {process:.2}",
                way.name(),
                thousands(per_second as u64)
            ));
            measured.rounds.push(Round { p50, p99, p999, refused, per_second, process, server });
        }
    }
    Ok(all)
}

/// Each call timed by the monotonic clock, the cost of which is in the figure; microseconds, and how many of 1,000 found no room.
fn timed(peers: &Peers<'_>, way: &mut dyn Way, (first, calls): (u64, u64)) -> Result<([f64; 3], f64)> {
    let mut refused = 0_u64;
    let mut micros = Vec::with_capacity(usize::try_from(calls)?);
    let begun = Instant::now();
    for number in 0..calls {
        let event = peers.events.at(first + number);
        if !way.is_synchronous() {
            // A sleep is too coarse for 10 µs. Who is late calls at once, as a service would.
            let due = EVERY * u32::try_from(number)?;
            while begun.elapsed() < due {
                std::hint::spin_loop();
            }
        }
        let call = Instant::now();
        let mut back = way.call(event)?;
        micros.push(call.elapsed().as_nanos() as f64 / 1e3);
        refused += u64::from(back.is_some());
        while let Some(event) = back {
            thread::sleep(FULL);
            back = way.call(event)?;
        }
    }
    way.settle()?;
    micros.sort_unstable_by(f64::total_cmp);
    let at = [0.5, 0.99, 0.999].map(|share| micros[((micros.len() - 1) as f64 * share) as usize]);
    Ok((at, refused as f64 * 1e3 / calls as f64))
}

/// As fast as it goes: calls a second, and CPU-seconds per million of this process and of the server.
fn flat_out(peers: &Peers<'_>, way: &mut dyn Way, (first, calls): (u64, u64)) -> Result<(f64, f64, Option<f64>)> {
    let server_cpu = |way: &dyn Way| -> Result<Option<Duration>> {
        way.server().map(|pid| usage(pid).map(|usage| usage.cpu).context("a server is gone")).transpose()
    };
    let (server, cpu, begun) = (server_cpu(way)?, clock::process_cpu()?, Instant::now());
    let mut making = Duration::ZERO;
    let mut number = first;
    while number < first + calls {
        let end = (number + CHUNK).min(first + calls);
        let before = clock::thread_cpu()?;
        let events: Vec<_> = (number..end).map(|number| peers.events.at(number)).collect();
        making += clock::thread_cpu()? - before;
        number = end;
        for event in events {
            let mut next = Some(event);
            while let Some(event) = next.take() {
                next = way.call(event)?;
                if next.is_some() {
                    thread::sleep(FULL);
                }
            }
        }
    }
    way.settle()?;
    let took = begun.elapsed();
    let per_million = |cpu: Duration| cpu.as_secs_f64() * 1e6 / calls as f64;
    let process = per_million((clock::process_cpu()? - cpu).saturating_sub(making));
    let server = server.zip(server_cpu(way)?).map(|(before, after)| per_million(after.saturating_sub(before)));
    Ok((calls as f64 / took.as_secs_f64(), process, server))
}
