//! The relay: takes pending rows in order, sends them, and removes or marks what every in-sync replica has.
//!
//! ```text
//! balance leases ─► wake delayed rows ─► take rows of own shards ORDER BY seq ─► send all, wait for each outcome ─► settle ─► again
//! ```
//!
//! A round holds at most so many rows and bytes, and the next one begins when this one is settled: that is the back-pressure. While Kafka is away the
//! round waits, and the leases are renewed meanwhile; nothing counts as a try of a row.
//!
//! # Why the order of an entity holds
//! An entity belongs to one shard, and a shard's rows are taken in the order of `seq`, from the first one that is not settled, and sent in that order by one
//! idempotent producer whose messages never time out, so that what it delivers of an entity is in order and without holes.
//! Normally one relay at a time does that. A relay may outlive its lease, though: frozen, or cut off from the database. Then two relays send
//! the same rows. Each of the two sequences is in order and begins no later than the first row that is not settled, and a row is settled
//! only after Kafka has it; so before the *first* copy of a row there is, in whichever sequence it came, a first copy of its predecessor. First
//! copies are in order, and later copies are the same bytes under the same id, which the table makes one row, the first one. So the order needs no
//! fencing, and the lease is there to share work and not to be right. This is the same on PostgreSQL, MariaDB and SQLite, as it
//! asks of the database only that `seq` grows, that a committed row is seen, and that a number is not given twice.
//! `seq` is no high-water mark: a transaction that commits late is found with the others, whatever its numbers.
//!
//! Two things go out of order, by decision: a row that Kafka refuses for itself is overtaken by the later ones of its entity, which go on while it is
//! tried again and when it has failed (one bad row must not hold an entity's history for ever); and a delayed row by those recorded after it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::config::RelayConfig;
use super::database::{Database, DatabaseError, chain};
use super::faults::{Point, crash_point};
use super::http::{self, Health};
use super::lease::Leases;
use super::metrics::Metrics;
use super::rows::{Bound, Row, Rows};
use super::send::{Outcome, Sender};
use super::wakes::Wakes;
use crate::error::ProducerError;

/// Between two looks at how much waits, and two removals of what was sent long ago.
const LOOK: Duration = Duration::from_secs(5);
/// First wait after a failure of the database or of Kafka; it doubles up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// Longest wait between two tries of a row.
const RETRY_MAX: Duration = Duration::from_secs(3_600);

/// Why a relay ended by itself. Nothing is lost: what was not settled is in the outbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// A setting can't be used.
    #[error("setting `{name}`: {problem}")]
    Setting {
        /// The field of [`RelayConfig`].
        name: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// The database needs a human: no table, no right, wrong login.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Kafka's settings can't be used.
    #[error(transparent)]
    Kafka(#[from] ProducerError),
    /// The probes' address can't be listened on.
    #[error("the address of the probes can't be listened on")]
    Http(#[source] std::io::Error),
}

/// What a relay did, when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Rows that every in-sync replica has.
    pub sent: u64,
    /// Rows that became failed.
    pub failed: u64,
    /// What was under way at the shutdown was settled in time. If not, it is sent again by the next relay.
    pub drained: bool,
}

/// Runs until `shutdown` is ready; then what is under way is settled and the leases are given back, within the deadline.
///
/// # Errors
/// See [`RelayError`]. A database or a Kafka that is away is no error: the relay waits for them.
pub async fn run(config: RelayConfig, shutdown: impl Future<Output = ()>) -> Result<Summary, RelayError> {
    config.validate()?;
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::new());
    if let Some(address) = config.http_listen {
        let bound = http::serve(address, Arc::clone(&health), Arc::clone(&metrics)).await.map_err(RelayError::Http)?;
        tracing::info!(address = %bound, "serving probes and metrics");
    }
    let sender = Sender::new(&config.kafka)?;
    let mut shutdown = pin!(shutdown);
    let Some(database) = until(&mut shutdown, connect(&config, &health)).await.transpose()? else {
        return Ok(Summary { drained: true, ..Summary::default() });
    };
    let rows = Rows { database: database.clone(), table: config.table.clone() };
    let lease_ms = i64::try_from(config.lease.as_millis()).unwrap_or(i64::MAX);
    let leases = Leases::new(database.clone(), &config.table, &config.relay_id, lease_ms);
    let mut relay = Relay {
        wakes: Wakes::listen(&config).await,
        last_balance: None,
        last_look: None,
        backoff: BACKOFF.0,
        summary: Summary::default(),
        config,
        rows,
        leases,
        sender,
        metrics,
        health,
    };
    let ended = relay.serve(&mut shutdown).await;
    relay.health.stopping();
    // The leases run out by themselves if this fails or takes too long.
    let _ = tokio::time::timeout(Duration::from_secs(3), relay.leases.release()).await;
    let _ = tokio::time::timeout(Duration::from_secs(3), database.close()).await;
    ended?;
    Ok(relay.summary)
}

/// `work`'s result, or `None` when the shutdown comes first.
async fn until<T>(shutdown: &mut (impl Future<Output = ()> + Unpin), work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = shutdown => None,
        done = work => Some(done),
    }
}

/// Tries until the database answers; ends when a human is needed.
async fn connect(config: &RelayConfig, health: &Health) -> Result<Database, DatabaseError> {
    let mut wait = BACKOFF.0;
    loop {
        health.turn();
        let tried = async {
            let database = Database::connect(&config.url).await?;
            Rows { database: database.clone(), table: config.table.clone() }.check().await?;
            Ok(database)
        };
        match tried.await {
            Ok(database) => return Ok(database),
            Err(error) if DatabaseError::needs_a_human(&error) => return Err(error),
            Err(error) => tracing::warn!(error = chain(&error), "the outbox's database can't be used yet"),
        }
        sleep(wait).await;
        wait = (wait * 2).min(BACKOFF.1);
    }
}

struct Relay {
    config: RelayConfig,
    rows: Rows,
    leases: Leases,
    sender: Sender,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    wakes: Wakes,
    last_balance: Option<Instant>,
    last_look: Option<Instant>,
    backoff: Duration,
    summary: Summary,
}

/// How a turn ended.
enum Turn {
    /// Rows were settled, and there may be more.
    Busy,
    /// Rows were settled, all that there were.
    Rest,
    /// Nothing is pending.
    Idle,
    /// Kafka did not take rows; not their fault.
    NotNow,
    /// The shutdown came, and what was under way was settled, or not in time.
    Stopped { drained: bool },
}

impl Relay {
    async fn serve(&mut self, shutdown: &mut (impl Future<Output = ()> + Unpin)) -> Result<(), RelayError> {
        loop {
            self.health.turn();
            let wait = match self.turn(shutdown).await {
                Ok(Turn::Stopped { drained }) => {
                    self.summary.drained = drained;
                    return Ok(());
                }
                Ok(Turn::Busy) => {
                    self.backoff = BACKOFF.0;
                    Duration::ZERO
                }
                Ok(Turn::Rest) => {
                    self.backoff = BACKOFF.0;
                    self.config.rest.min(self.config.lease / 4)
                }
                Ok(Turn::Idle) => {
                    self.backoff = BACKOFF.0;
                    self.config.poll_interval.min(self.config.lease / 4)
                }
                Ok(Turn::NotNow) => {
                    self.metrics.kafka_errors.inc();
                    self.sender.renew()?;
                    self.next_backoff()
                }
                Err(error) => {
                    self.failed_statement(&error);
                    self.last_balance = None;
                    self.next_backoff()
                }
            };
            let stopped = if wait.is_zero() {
                // Only a look, so that a shutdown is seen under load too.
                tokio::select! {
                    biased;
                    () = &mut *shutdown => true,
                    () = std::future::ready(()) => false,
                }
            } else {
                tokio::select! {
                    biased;
                    () = &mut *shutdown => true,
                    () = self.wakes.next() => false,
                    () = sleep(wait) => false,
                }
            };
            if stopped {
                self.summary.drained = true;
                return Ok(());
            }
        }
    }

    fn failed_statement(&self, error: &DatabaseError) {
        self.metrics.database_errors.inc();
        self.health.database(false);
        tracing::warn!(error = chain(error), "the outbox's database did not answer well; trying again");
    }

    fn next_backoff(&mut self) -> Duration {
        let wait = self.backoff;
        self.backoff = (wait * 2).min(BACKOFF.1);
        wait
    }

    async fn turn(&mut self, shutdown: &mut (impl Future<Output = ()> + Unpin)) -> Result<Turn, DatabaseError> {
        if due(&mut self.last_balance, self.config.lease / 4) {
            self.leases.balance().await?;
            self.metrics.shards.set(self.leases.mine().len() as i64);
            self.health.database(true);
        }
        if due(&mut self.last_look, LOOK) {
            self.look().await?;
        }
        self.rows.wake_delayed().await?;
        crash_point(Point::DelayedWoken);
        let began = Instant::now();
        let bound = Bound { rows: self.config.batch_rows, bytes: self.config.batch_bytes };
        let taken = self.rows.take(self.leases.mine(), bound).await?;
        if taken.is_empty() {
            return Ok(Turn::Idle);
        }
        crash_point(Point::Taken);
        self.metrics.in_flight_rows.set(taken.len() as i64);
        let bytes: usize = taken.iter().map(Row::bytes).sum();
        let all = taken.len() < bound.rows && bytes < bound.bytes;
        let turn = match self.round(&taken, shutdown).await {
            Turn::Busy if all => Turn::Rest,
            turn => turn,
        };
        self.metrics.in_flight_rows.set(0);
        self.metrics.round.observe(began.elapsed().as_secs_f64());
        Ok(turn)
    }

    async fn look(&mut self) -> Result<(), DatabaseError> {
        let (failed, age_ms) = self.rows.look().await?;
        self.metrics.failed_rows.set(failed);
        self.metrics.oldest_pending.set(age_ms as f64 / 1_000.0);
        let retention = i64::try_from(self.config.retention.as_millis()).unwrap_or(i64::MAX);
        self.rows.purge(retention).await.map(|_| ())
    }

    /// Sends the rows and settles what was sent. The leases are renewed meanwhile, however long it takes.
    async fn round(&mut self, taken: &[Row], shutdown: &mut (impl Future<Output = ()> + Unpin)) -> Turn {
        let mut stopping = None;
        let mut ticks = interval(self.config.lease / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once; the leases were just looked at.
        ticks.tick().await;
        let outcomes = {
            let mut sending = pin!(self.sender.send(taken));
            loop {
                let left =
                    stopping.map_or(Duration::MAX, |until: Instant| until.saturating_duration_since(Instant::now()));
                tokio::select! {
                    outcomes = &mut sending => break Some(outcomes),
                    _ = ticks.tick() => {
                        self.health.turn();
                        if let Err(error) = self.leases.renew().await {
                            self.metrics.database_errors.inc();
                            tracing::warn!(error = chain(&error), "the leases could not be renewed");
                        }
                    }
                    () = &mut *shutdown, if stopping.is_none() => stopping = Some(Instant::now() + self.config.drain_deadline),
                    () = sleep(left), if stopping.is_some() => break None,
                }
            }
        };
        let Some(outcomes) = outcomes else {
            tracing::warn!(rows = taken.len(), "the drain deadline passed; these rows will be sent again");
            return Turn::Stopped { drained: false };
        };
        crash_point(Point::Acknowledged);
        let settled = loop {
            match self.settle(taken, &outcomes).await {
                Ok(not_now) => break Some(not_now),
                Err(error) => self.failed_statement(&error),
            }
            // Without this the next round would send them again.
            let wait = self.next_backoff();
            if stopping.is_none() && until(shutdown, sleep(wait)).await.is_none() {
                stopping = Some(Instant::now() + self.config.drain_deadline);
            } else if stopping.is_some_and(|until| Instant::now() >= until) {
                break None;
            } else if stopping.is_some() {
                sleep(wait).await;
            }
            self.health.turn();
        };
        crash_point(Point::Settled);
        match (settled, stopping) {
            (None, _) => Turn::Stopped { drained: false },
            (Some(_), Some(_)) => Turn::Stopped { drained: true },
            (Some(true), None) => Turn::NotNow,
            (Some(false), None) => Turn::Busy,
        }
    }

    /// Writes the outcomes down; answers whether some rows could not be sent for reasons that are not theirs. May be repeated.
    async fn settle(&mut self, taken: &[Row], outcomes: &[Outcome]) -> Result<bool, DatabaseError> {
        let pairs = || taken.iter().zip(outcomes);
        let sent: Vec<&Row> = pairs().filter(|(_, outcome)| **outcome == Outcome::Sent).map(|(row, _)| row).collect();
        self.rows.sent(&sent, self.config.sent).await?;
        for (row, outcome) in pairs() {
            if let Outcome::Refused(reason) = outcome {
                let delay = self.delay(row);
                self.rows.refused(row, reason, delay).await?;
            }
        }
        // Counted here, after everything that may fail and be repeated.
        let mut not_now = None;
        for (row, outcome) in pairs() {
            match outcome {
                Outcome::Sent => {}
                Outcome::NotNow(code) => not_now = Some(*code),
                Outcome::Refused(reason) => {
                    self.metrics.refused.inc();
                    if self.delay(row).is_none() {
                        self.summary.failed += 1;
                        self.metrics.failed.inc();
                        tracing::error!(
                            event_id = row.id,
                            reason,
                            tries = row.attempts + 1,
                            "a row failed; see `auditstream outbox failed`"
                        );
                    }
                }
            }
        }
        self.summary.sent += sent.len() as u64;
        self.metrics.sent.inc_by(sent.len() as u64);
        self.metrics.sent_bytes.inc_by(sent.iter().map(|row| row.payload.len() as u64).sum());
        if let Some(last) = sent.last() {
            let now = auditstream_schemas::Timestamp::now().as_micros() / 1_000;
            self.metrics.delay.observe((now - last.created_at).max(0) as f64 / 1_000.0);
        }
        if let Some(code) = not_now {
            tracing::warn!(%code, "Kafka takes no rows now; trying again");
        }
        Ok(not_now.is_some())
    }

    /// Milliseconds until the next try of a row that was just refused; `None` when this was its last.
    fn delay(&self, row: &Row) -> Option<i64> {
        let tried = u32::try_from(row.attempts).unwrap_or(u32::MAX).saturating_add(1);
        if tried >= self.config.max_tries {
            return None;
        }
        let wait = self.config.retry_backoff.saturating_mul(2_u32.saturating_pow(tried - 1)).min(RETRY_MAX);
        Some(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Whether so much time has passed since the last time it was due.
fn due(last: &mut Option<Instant>, every: Duration) -> bool {
    let is_due = last.is_none_or(|last| last.elapsed() >= every);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}
