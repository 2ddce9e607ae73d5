//! What becomes of an audit event: the one place that knows.

use std::time::Duration;

use anyhow::{Context, bail};
use auditstream_producer::audited::Trail;
use auditstream_producer::context::RequestContext;
use auditstream_producer::redaction::HmacKey;
use auditstream_producer::{Config, Producer, Stats};
use auditstream_schemas::{AuditEvent, EventBuilder};
use clap::ValueEnum;
use sqlx::{Executor, Sqlite, SqlitePool, Transaction};

use crate::handlers::Problem;

/// The audit table of `sync`.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS audit (
    event_id TEXT PRIMARY KEY, occurred_at INTEGER NOT NULL, action TEXT NOT NULL, entity_type TEXT NOT NULL,
    entity_id TEXT NOT NULL, actor_id TEXT, event TEXT NOT NULL
) STRICT";

/// What becomes of audit events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Nothing: they are not even made.
    None,
    /// A row in the service's own database, before the answer goes out.
    Sync,
    /// auditstream.
    Stream,
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
    Stream(Producer),
}

impl Audit {
    /// As the mode says; `key` is what personal data are hashed with.
    ///
    /// # Errors
    /// A producer's setting that can't be used.
    pub fn new(mode: Mode, kafka: &str, key: Option<&str>) -> anyhow::Result<Audit> {
        let way = match mode {
            Mode::None => Way::None,
            Mode::Sync => Way::Sync,
            Mode::Stream => {
                let config = Config { bootstrap_servers: kafka.to_owned(), ..Config::default() };
                Way::Stream(Producer::new(config).context("the audit producer")?)
            }
        };
        let trail = Trail::new("acme", "order-service");
        Ok(Audit { way, trail: key.map_or(trail.clone(), |key| trail.key(HmacKey::new(key))) })
    }

    /// An event that belongs to no change of the database: a login, a read.
    pub(crate) async fn note(&self, database: &SqlitePool, event: impl FnOnce(&Trail) -> Made) -> Result<(), Problem> {
        match &self.way {
            Way::None => Ok(()),
            Way::Sync => insert(database, self.make(event)?).await,
            Way::Stream(producer) => {
                record(producer, self.make(event)?);
                Ok(())
            }
        }
    }

    /// A change of the database and the events that tell of it.
    pub(crate) async fn begin(&self, database: &SqlitePool) -> Result<Unit<'_>, Problem> {
        // Writers queue up here and not in the middle, where SQLite refuses the second one.
        Ok(Unit { transaction: database.begin_with("BEGIN IMMEDIATE").await?, audit: self, held: Vec::new() })
    }

    fn make(&self, event: impl FnOnce(&Trail) -> Made) -> Result<AuditEvent, Problem> {
        let builder = event(&self.trail).map_err(|error| Problem::Audit(error.into()))?;
        builder.build().map_err(|error| Problem::Audit(error.into()))
    }

    /// The producer's counters, of `stream`.
    pub fn stats(&self) -> Option<Stats> {
        match &self.way {
            Way::Stream(producer) => Some(producer.stats()),
            _ => None,
        }
    }

    pub(crate) async fn shutdown(&self, deadline: Duration) -> anyhow::Result<()> {
        if let Way::Stream(producer) = &self.way {
            let report = producer.shutdown(deadline).await;
            if !report.all_acked() {
                bail!("audit events were not acknowledged: {report:?}");
            }
        }
        Ok(())
    }
}

/// An event on its way to be made.
pub(crate) type Made = Result<EventBuilder, auditstream_producer::changes::DiffError>;

/// A transaction whose events stand or fall with it.
pub(crate) struct Unit<'a> {
    pub(crate) transaction: Transaction<'static, Sqlite>,
    audit: &'a Audit,
    /// What is recorded when the transaction is committed: a crash in between loses these. The outbox takes over here.
    held: Vec<AuditEvent>,
}

impl Unit<'_> {
    /// Says what was done.
    pub(crate) async fn audit(&mut self, event: impl FnOnce(&Trail) -> Made) -> Result<(), Problem> {
        match &self.audit.way {
            Way::None => {}
            Way::Sync => insert(&mut *self.transaction, self.audit.make(event)?).await?,
            Way::Stream(_) => self.held.push(self.audit.make(event)?),
        }
        Ok(())
    }

    pub(crate) async fn commit(self) -> Result<(), Problem> {
        self.transaction.commit().await?;
        if let Way::Stream(producer) = &self.audit.way {
            for event in self.held {
                record(producer, event);
            }
        }
        Ok(())
    }
}

fn record(producer: &Producer, event: AuditEvent) {
    if let Err(rejected) = producer.record(event) {
        tracing::error!(event_id = %rejected.event.event_id, reason = %rejected.reason, "audit event not taken");
    }
}

/// What `record` does by itself is done by hand here: the request's context goes in.
async fn insert<'c>(by: impl Executor<'c, Database = Sqlite>, mut event: AuditEvent) -> Result<(), Problem> {
    if let Some(context) = RequestContext::current() {
        context.apply(&mut event);
    }
    sqlx::query(
        "INSERT INTO audit (event_id, occurred_at, action, entity_type, entity_id, actor_id, event)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(event.event_id.to_string())
    .bind(event.occurred_at.as_micros())
    .bind(&event.action)
    .bind(&event.entity_type)
    .bind(&event.entity_id)
    .bind(&event.actor.id)
    .bind(event.to_json())
    .execute(by)
    .await?;
    Ok(())
}
