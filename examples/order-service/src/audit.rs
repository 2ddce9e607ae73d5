//! What becomes of an audit event: the one place that knows.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use auditstream_producer::context::RequestContext;
use auditstream_producer::outbox::{self, Outbox, RelayConfig, RelayError, Summary};
use auditstream_producer::redaction::{Action, HmacKey, Redaction};
use auditstream_producer::{Config, Producer, Stats};
use auditstream_schemas::{Actor, AuditEvent, EventBuilder};
use clap::ValueEnum;
use prometheus_client::registry::Registry;
use sqlx::QueryBuilder;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use auditstream_producer::audited::Trail;

use crate::database::{Database, Tx, within};
use crate::handlers::Problem;

/// The audit table of `sync`.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS audit (
    event_id TEXT PRIMARY KEY, occurred_at BIGINT NOT NULL, action TEXT NOT NULL, entity_type TEXT NOT NULL,
    entity_id TEXT NOT NULL, actor_id TEXT, event TEXT NOT NULL
)";
/// By these an audit trail is asked, at home as in ClickHouse.
const INDEXES: [&str; 2] = [
    "CREATE INDEX IF NOT EXISTS audit_entity ON audit (entity_type, entity_id, occurred_at)",
    "CREATE INDEX IF NOT EXISTS audit_actor ON audit (actor_id, occurred_at)",
];
/// Between two rounds of the relay. Each round costs SQLite's only writer a turn, so a few large ones a second are better than many small ones.
const REST: Duration = Duration::from_millis(400);

/// What becomes of audit events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Nothing: they are not even made.
    None,
    /// A row in an audit table of the service's own database, before the answer goes out.
    Sync,
    /// auditstream: the outbox for what changes orders, `record` for everything else.
    Stream,
}

/// How this service is to audit.
#[derive(Debug, Clone)]
pub struct Options {
    /// What becomes of the events.
    pub mode: Mode,
    /// Of `stream`: Kafka and its topic.
    pub kafka: Config,
    /// Of `stream`: move the outbox to Kafka inside of this process, rather than by `auditstream relay` beside it.
    pub relay: bool,
    /// What personal data are hashed with, 16 bytes or more. Without it they are masked.
    pub key: Option<String>,
}

/// How this service audits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    way: Way,
    trail: Trail,
}

#[derive(Debug, Clone)]
enum Way {
    None,
    Sync,
    Stream(Arc<Stream>),
}

#[derive(Debug)]
struct Stream {
    producer: Producer,
    outbox: Outbox,
    /// The relay's Kafka; `None`: it runs elsewhere.
    relay: Option<Config>,
}

/// The person of this name, for the trail. The session is no part of it: who has the trail must not have the session.
pub(crate) fn actor(user: &str) -> Actor {
    Actor { name: Some(user.to_owned()), email: Some(format!("{user}@shop.example")), ..Actor::user(user) }
}

impl Audit {
    /// As the options say.
    ///
    /// # Errors
    /// A key that is too short, or a producer's setting that can't be used.
    pub fn new(options: Options) -> anyhow::Result<Audit> {
        let Options { mode, kafka, relay, key } = options;
        if let Some(key) = &key {
            ensure!(key.len() >= 16, "audit key: found {} bytes, expected 16 or more", key.len());
        }
        let key = key.map(HmacKey::new);
        let trail = Trail::new("acme", "order-service");
        let trail = key.clone().map_or(trail.clone(), |key| trail.key(key));
        let way = match mode {
            Mode::None => Way::None,
            Mode::Sync => Way::Sync,
            Mode::Stream => {
                // What the derive can't know: this is not in the order. The same rules for both ways out of the process.
                let action = if key.is_some() { Action::Hmac } else { Action::Mask };
                let mut rules = Redaction::builder().rule("/actor/email", action);
                if let Some(key) = key {
                    rules = rules.key(key);
                }
                let rules = Some(Arc::new(rules.build().context("the rules of redaction")?));
                let config = Config { redaction: rules.clone(), ..kafka.clone() };
                let producer = Producer::new(config).context("the audit producer")?;
                let outbox = Outbox { redaction: rules, ..Outbox::default() };
                let relay = relay.then(|| Config {
                    client_id: "order-service-relay".to_owned(),
                    // A round is a batch already.
                    linger: Duration::from_millis(5),
                    ..kafka
                });
                Way::Stream(Arc::new(Stream { producer, outbox, relay }))
            }
        };
        Ok(Audit { way, trail })
    }

    /// The audit trail's own metrics, as Prometheus scrapes them.
    pub(crate) fn metrics(&self) -> Registry {
        let mut registry = Registry::default();
        if let Way::Stream(stream) = &self.way {
            registry.register_collector(Box::new(stream.producer.metrics()));
        }
        registry
    }

    /// Whether events are made at all.
    pub(crate) fn is_on(&self) -> bool {
        !matches!(self.way, Way::None)
    }

    /// Makes the tables that this way needs.
    pub(crate) async fn make_tables(&self, database: &Database) -> anyhow::Result<()> {
        let statements: Vec<String> = match &self.way {
            Way::None => Vec::new(),
            Way::Sync => [TABLE].iter().chain(&INDEXES).map(ToString::to_string).collect(),
            Way::Stream(stream) => outbox::ddl(database.dialect(), &stream.outbox.table),
        };
        database.make(&statements).await.context("making the audit tables")
    }

    /// Starts the relay, if it is this process's to run.
    pub(crate) fn start_relay(&self, url: &str) -> Option<Relay> {
        let Way::Stream(stream) = &self.way else { return None };
        let config = RelayConfig { rest: REST, ..RelayConfig::new(url, stream.relay.clone()?) };
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let ended = outbox::run(config, async {
                // A sender that is gone means the same.
                let _ = stopped.await;
            });
            let ended = ended.await;
            if let Err(error) = &ended {
                // The shop goes on: what it does meanwhile is in the outbox.
                tracing::error!(%error, "the relay has ended; events wait in the outbox");
            }
            ended
        });
        Some(Relay { stop, running })
    }

    /// An event that belongs to no change of the database: a login, a read.
    pub(crate) async fn note(&self, database: &Database, event: impl FnOnce(&Trail) -> Made) -> Result<(), Problem> {
        match &self.way {
            Way::None => {}
            Way::Sync => {
                let event = self.make(event(&self.trail))?;
                let mut tx = database.begin().await?;
                insert(&mut tx, vec![event]).await?;
                tx.commit().await?;
            }
            Way::Stream(stream) => {
                if let Err(rejected) = stream.producer.record(self.make(event(&self.trail))?) {
                    tracing::error!(event_id = %rejected.event.event_id, reason = %rejected.reason, "audit event not taken");
                }
            }
        }
        Ok(())
    }

    /// Begins a change of the database and of the events that tell of it.
    pub(crate) async fn begin(&self, database: &Database) -> Result<Unit<'_>, Problem> {
        Ok(Unit { tx: database.begin().await?, audit: self })
    }

    fn make(&self, event: Made) -> Result<AuditEvent, Problem> {
        let builder = event.map_err(|error| Problem::Audit(error.into()))?;
        builder.build().map_err(|error| Problem::Audit(error.into()))
    }

    /// The producer's counters, of `stream`.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        match &self.way {
            Way::Stream(stream) => Some(stream.producer.stats()),
            _ => None,
        }
    }

    pub(crate) async fn shutdown(&self, deadline: Duration) -> anyhow::Result<()> {
        if let Way::Stream(stream) = &self.way {
            let report = stream.producer.shutdown(deadline).await;
            if !report.all_acked() {
                bail!("audit events were not acknowledged: {report:?}");
            }
        }
        Ok(())
    }
}

/// The relay inside of this process.
#[derive(Debug)]
pub(crate) struct Relay {
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<Summary, RelayError>>,
}

impl Relay {
    /// Settles what is under way. What it did not get to is in the outbox, for the next start.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let _ = self.stop.send(());
        self.running.await.context("the relay ended badly")?.context("the relay")?;
        Ok(())
    }
}

/// An event on its way to be made.
pub(crate) type Made = Result<EventBuilder, auditstream_producer::changes::DiffError>;

/// A transaction whose events stand or fall with it.
pub(crate) struct Unit<'a> {
    pub(crate) tx: Tx,
    audit: &'a Audit,
}

impl Unit<'_> {
    /// Says what was done.
    pub(crate) async fn audit(&mut self, event: impl FnOnce(&Trail) -> Made) -> Result<(), Problem> {
        self.audit_all(|trail| event(trail).map(|event| vec![event])).await
    }

    /// Says all that was done.
    pub(crate) async fn audit_all(
        &mut self,
        events: impl FnOnce(&Trail) -> Result<Vec<EventBuilder>, auditstream_producer::changes::DiffError>,
    ) -> Result<(), Problem> {
        if !self.audit.is_on() {
            return Ok(());
        }
        let events = events(&self.audit.trail).map_err(|error| Problem::Audit(error.into()))?;
        let events = events.into_iter().map(|event| self.audit.make(Ok(event))).collect::<Result<Vec<_>, _>>()?;
        match (&self.audit.way, &mut self.tx) {
            (Way::None, _) => {}
            (Way::Sync, tx) => insert(tx, events).await?,
            (Way::Stream(stream), Tx::Postgres(tx)) => stream.outbox.record_all_in_tx(tx, events).await.map(|_| ())?,
            (Way::Stream(stream), Tx::Sqlite(tx)) => stream.outbox.record_all_in_tx(tx, events).await.map(|_| ())?,
        }
        Ok(())
    }

    pub(crate) async fn commit(self) -> Result<(), Problem> {
        Ok(self.tx.commit().await?)
    }
}

/// The home-made way. What auditstream does by itself is done by hand here: the request's context goes in.
async fn insert(tx: &mut Tx, events: Vec<AuditEvent>) -> sqlx::Result<()> {
    let single = events.len() == 1;
    let context = RequestContext::current();
    within!(tx, by => {
        let mut statement = QueryBuilder::new("INSERT INTO audit (event_id, occurred_at, action, entity_type, entity_id, actor_id, event) ");
        statement.push_values(events, |mut row, mut event| {
            if let Some(context) = &context {
                context.apply(&mut event);
            }
            let text = event.to_json();
            row.push_bind(event.event_id.to_string()).push_bind(event.occurred_at.as_micros()).push_bind(event.action);
            row.push_bind(event.entity_type).push_bind(event.entity_id).push_bind(event.actor.id).push_bind(text);
        });
        statement.build().persistent(single).execute(by).await.map(|_| ())
    })
}
