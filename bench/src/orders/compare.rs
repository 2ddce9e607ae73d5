//! The three ways in turns, and what the turns say.
//!
//! A round gives each service one slice of the same requests. What a way costs is the median, over the rounds, of its percentile divided by that of
//! `none` in the same round: a moment in which the machine had something else to do spoils one round and not the figure.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::Mode;
use super::clerk::{Clerk, Expected, Kind};
use super::service::Service;
use super::slice::{self, Plan, Sample};
use crate::results;

/// What is compared, and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The order service's program.
    pub program: PathBuf,
    /// Where SQLite's files go, or a PostgreSQL server's URL, where the services share the table of orders.
    pub database: Database,
    /// Rounds that count; one comes before them that does not.
    pub rounds: u32,
    /// Requests a second.
    pub per_second: u32,
    /// How long each slice is.
    pub slice: Duration,
    /// After each slice, so that what one service left behind is done before the next one is measured.
    pub pause: Duration,
    /// Connections to each service.
    pub connections: u32,
    /// Decides the requests.
    pub seed: u64,
    /// Stands in front of all request ids of this run.
    pub run: String,
}

/// See [`Options::database`].
#[derive(Debug, Clone)]
pub enum Database {
    /// A folder; each service has its own file.
    Sqlite(PathBuf),
    /// A server.
    Postgres(String),
}

impl Database {
    /// The URL of a service's database.
    #[must_use]
    pub fn url(&self, mode: Mode) -> String {
        match self {
            Database::Sqlite(folder) => {
                format!("sqlite:{}", folder.join(format!("orders-{}.db", mode.name())).display())
            }
            Database::Postgres(url) => url.clone(),
        }
    }

    /// For people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Database::Sqlite(_) => "sqlite",
            Database::Postgres(_) => "postgres",
        }
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, Default)]
pub struct Compared {
    /// For each round the samples of the three ways, as in [`Mode::ALL`].
    pub rounds: Vec<[Vec<Sample>; 3]>,
    /// What `stream` must have left in the trail, warm-up included.
    pub expected: Vec<Expected>,
    /// CPU time of the three services in the rounds that count.
    pub cpu: [Duration; 3],
}

/// The rounds. Blocks; `done` counts requests.
///
/// # Errors
/// A service answers as it should not.
pub fn run(services: &[Service], options: &Options, done: &AtomicU64, stop: &AtomicBool) -> Result<Compared> {
    let mut compared = Compared::default();
    let mut desks = Vec::new();
    for service in services {
        let clerks = (0..options.connections).map(|number| {
            let prefix = format!("{}{}-{number}-", options.run, service.mode().name());
            Clerk::begin(service.at(), &format!("clerk-{number}"), &prefix)
        });
        desks.push(clerks.collect::<Result<Vec<Clerk>>>()?);
    }
    // Round 0 warms connections, caches and statements up; it is half as long.
    for round in 0..=options.rounds {
        let length = if round == 0 { options.slice / 2 } else { options.slice };
        let plan = Plan { per_second: options.per_second, length, seed: options.seed.wrapping_add(u64::from(round)) };
        let mut samples: [Vec<Sample>; 3] = Default::default();
        for (place, (service, desk)) in services.iter().zip(&mut desks).enumerate() {
            let before = service.usage()?.cpu;
            samples[place] = slice::run(desk, &plan, stop)?;
            done.fetch_add(samples[place].len() as u64, Ordering::Relaxed);
            if stop.load(Ordering::Relaxed) {
                return Ok(compared);
            }
            thread::sleep(options.pause);
            if round > 0 {
                compared.cpu[place] += service.usage()?.cpu.saturating_sub(before);
            }
        }
        if round > 0 {
            compared.rounds.push(samples);
        }
    }
    for (service, desk) in services.iter().zip(&mut desks) {
        if service.mode() == Mode::Stream {
            compared.expected.extend(desk.iter_mut().flat_map(Clerk::take_expected));
        }
    }
    Ok(compared)
}

/// Times of one way, and what they are beside those of `none`. Milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Times {
    /// Half of the requests took at most so long.
    pub p50_ms: f64,
    /// 99 of 100 took at most so long.
    pub p99_ms: f64,
    /// Divided by that of `none` in the same round.
    pub p50_ratio: f64,
    /// The same.
    pub p99_ratio: f64,
}

impl Compared {
    /// Requests of each way that count.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.rounds.iter().map(|round| round[0].len() as u64).sum()
    }

    /// Medians over the rounds, as in [`Mode::ALL`]; of one sort of requests, or of all.
    #[must_use]
    pub fn times(&self, kind: Option<Kind>) -> [Times; 3] {
        let rounds: Vec<Percentiles> = self.rounds.iter().map(|round| percentiles(round, kind)).collect();
        [0, 1, 2].map(|place| {
            let over = |value: &dyn Fn(&Percentiles) -> f64| median(rounds.iter().map(value).collect());
            Times {
                p50_ms: over(&|round| round[place].0),
                p99_ms: over(&|round| round[place].1),
                p50_ratio: over(&|round| round[place].0 / round[0].0),
                p99_ratio: over(&|round| round[place].1 / round[0].1),
            }
        })
    }
}

/// p50 and p99 of each way in one round, in milliseconds, as in [`Mode::ALL`].
pub type Percentiles = [(f64, f64); 3];

/// See [`Percentiles`].
#[must_use]
pub fn percentiles(round: &[Vec<Sample>; 3], kind: Option<Kind>) -> Percentiles {
    [0, 1, 2].map(|place| {
        let of_kind = round[place].iter().filter(|sample| kind.is_none_or(|kind| kind == sample.kind));
        let mut took: Vec<f64> = of_kind.map(|sample| sample.took.as_secs_f64() * 1e3).collect();
        took.sort_unstable_by(f64::total_cmp);
        (rank(&took, 50), rank(&took, 99))
    })
}

/// The value that `percent` of all do not exceed (nearest rank); NaN when there is none.
fn rank(sorted: &[f64], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

/// The median; rounds without a value don't count.
fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|value| value.is_finite());
    results::median(&values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(millis: &[u64]) -> Vec<Sample> {
        millis.iter().map(|millis| Sample { kind: Kind::Read, took: Duration::from_millis(*millis) }).collect()
    }

    #[test]
    fn a_bad_round_does_not_spoil_the_ratio() {
        let good = [samples(&[10, 10, 20]), samples(&[30, 30, 80]), samples(&[11, 11, 21])];
        let bad = [samples(&[10, 10, 20]), samples(&[30, 30, 80]), samples(&[500, 600, 700])];
        let compared = Compared { rounds: vec![good.clone(), bad, good], ..Compared::default() };
        let [none, sync, stream] = compared.times(None);
        assert_eq!(none, Times { p50_ms: 10.0, p99_ms: 20.0, p50_ratio: 1.0, p99_ratio: 1.0 });
        assert_eq!((sync.p50_ratio, sync.p99_ratio), (3.0, 4.0));
        assert_eq!((stream.p50_ratio, stream.p99_ratio), (1.1, 1.05));
        assert_eq!(compared.requests(), 9);
        assert!(compared.times(Some(Kind::Import))[0].p50_ms.is_nan());
    }

    #[test]
    fn medians_and_ranks() {
        assert_eq!(median(vec![3.0, 1.0, f64::NAN, 2.0, 4.0]), 2.5);
        let all: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((rank(&all, 50), rank(&all, 99)), (100.0, 198.0));
    }
}
