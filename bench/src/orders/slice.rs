//! A slice of the load: requests at fixed times, on a fixed number of connections.
//!
//! The times do not depend on the answers (an open loop), so a service that falls behind gets no rest for it: a request that was due while its
//! connection still waited for the answer before counts from when it was due. Under the same seed all services get the same requests at the same times.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::clerk::{Clerk, Kind};

/// How much is asked.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Requests a second, all connections together.
    pub per_second: u32,
    /// How long, rounded up to whole requests of every connection.
    pub length: Duration,
    /// Decides which requests come and when.
    pub seed: u64,
}

impl Plan {
    /// Requests of one connection.
    fn requests(&self, connections: usize) -> u32 {
        (self.length.as_secs_f64() * f64::from(self.per_second) / connections.max(1) as f64).ceil().max(1.0) as u32
    }
}

/// How long one request took.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Its sort.
    pub kind: Kind,
    /// From when it was due, or sent, to the last byte of its answer.
    pub took: Duration,
}

/// Runs one slice with these clerks. It ends early, without an error, once `stop` is set.
///
/// # Errors
/// An answer that is not as it should be.
pub fn run(clerks: &mut [Clerk], plan: &Plan, stop: &AtomicBool) -> Result<Vec<Sample>> {
    let connections = clerks.len();
    let requests = plan.requests(connections);
    let slot = Duration::from_secs_f64(connections as f64 / f64::from(plan.per_second.max(1)));
    // A moment for the threads to come about.
    let begin = Instant::now() + Duration::from_millis(10);
    thread::scope(|scope| {
        let threads = clerks.iter_mut().enumerate().map(|(index, clerk)| {
            scope.spawn(move || {
                clerk.reseed(plan.seed, index as u64);
                let mut samples = Vec::with_capacity(requests as usize);
                for number in 0..requests {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let within = slot.mul_f64(clerk.random().below(1_000) as f64 / 1_000.0);
                    let due = begin + slot * number + within;
                    let prepared = clerk.prepare();
                    let wait = due.saturating_duration_since(Instant::now());
                    let began = if wait.is_zero() {
                        due
                    } else {
                        thread::sleep(wait);
                        Instant::now()
                    };
                    let heard = clerk.send(&prepared)?;
                    samples.push(Sample { kind: prepared.kind, took: began.elapsed() });
                    clerk.note(prepared, &heard)?;
                }
                anyhow::Ok(samples)
            })
        });
        let threads: Vec<_> = threads.collect();
        let mut all = Vec::with_capacity(requests as usize * connections);
        for thread in threads {
            match thread.join() {
                Ok(samples) => all.extend(samples?),
                Err(_) => bail!("a thread of the load ended badly"),
            }
        }
        Ok(all)
    })
}
