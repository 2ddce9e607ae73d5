//! Ways to be rid of an event on a request's path, each behind one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use auditstream_producer::{Producer, RejectReason};
use auditstream_schemas::AuditEvent;
use auditstream_stack::DatabaseServer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::mpsc as tokio_mpsc;

use super::super::{ACKNOWLEDGED, wait_acknowledged};
use super::{Peers, json};

/// Room of the bare channels: what the library's queue has.
const ROOM: usize = 65_536;
const AUDIT_TABLE: &str = "CREATE TABLE audit_log (
    event_id uuid PRIMARY KEY, occurred_at timestamptz NOT NULL, tenant_id text NOT NULL, service text NOT NULL, action text NOT NULL,
    entity_type text NOT NULL, entity_id text NOT NULL, actor_id text, outcome text NOT NULL, ip text, request_id text, event jsonb NOT NULL
);
CREATE INDEX audit_log_entity ON audit_log (tenant_id, entity_type, entity_id, occurred_at);
CREATE INDEX audit_log_actor ON audit_log (actor_id, occurred_at);
CREATE INDEX audit_log_time ON audit_log (occurred_at)";
const INSERT: &str = "INSERT INTO audit_log VALUES
    ($1::uuid, to_timestamp($2::bigint / 1e6), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::jsonb)";

/// One way.
pub(super) trait Way {
    /// For people.
    fn name(&self) -> &'static str;

    /// The call on the request's path. An event that finds no room comes back.
    fn call(&mut self, event: AuditEvent) -> Result<Option<AuditEvent>>;

    /// Waits until what was handed in is where it should be.
    fn settle(&mut self) -> Result<()>;

    /// Whether each call waits for its end, so that a rate can't be asked for.
    fn is_synchronous(&self) -> bool {
        false
    }

    /// Whether each call must leave a record on the topic.
    fn is_kafka(&self) -> bool {
        false
    }

    /// The process beside this one that works for it.
    fn server(&self) -> Option<u32> {
        None
    }
}

/// All ways, ready.
pub(super) fn all(peers: &Peers<'_>) -> Result<Vec<Box<dyn Way>>> {
    let kafka = peers.target.state().kafka_pid.context("Kafka is not running")?;
    Ok(vec![
        Box::new(Std::new()),
        Box::new(Tokio::new()),
        Box::new(Record { producer: peers.producer(peers.config())?, kafka }),
        Box::new(Json::new(peers, kafka)?),
        Box::new(Insert::new()?),
    ])
}

/// Waits until the other end of a channel has seen all.
fn seen(count: &AtomicU64, sent: u64) -> Result<()> {
    let begun = Instant::now();
    while count.load(Ordering::Relaxed) < sent {
        ensure!(begun.elapsed() < ACKNOWLEDGED, "a channel's events did not arrive");
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// The standard library's bounded channel, and a thread that drops what comes.
struct Std {
    sender: SyncSender<AuditEvent>,
    sent: u64,
    seen: Arc<AtomicU64>,
}

impl Std {
    fn new() -> Self {
        let (sender, receiver) = mpsc::sync_channel(ROOM);
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        thread::spawn(move || receiver.into_iter().for_each(|_| _ = count.fetch_add(1, Ordering::Relaxed)));
        Self { sender, sent: 0, seen }
    }
}

impl Way for Std {
    fn name(&self) -> &'static str {
        "`std::sync::mpsc::sync_channel`, events dropped at its end"
    }

    fn call(&mut self, event: AuditEvent) -> Result<Option<AuditEvent>> {
        match self.sender.try_send(event) {
            Ok(()) => {
                self.sent += 1;
                Ok(None)
            }
            Err(TrySendError::Full(event)) => Ok(Some(event)),
            Err(TrySendError::Disconnected(_)) => anyhow::bail!("a channel's end is gone"),
        }
    }

    fn settle(&mut self) -> Result<()> {
        seen(&self.seen, self.sent)
    }
}

/// Tokio's bounded channel, and a task that drops what comes.
struct Tokio {
    sender: tokio_mpsc::Sender<AuditEvent>,
    sent: u64,
    seen: Arc<AtomicU64>,
}

impl Tokio {
    fn new() -> Self {
        let (sender, mut receiver) = tokio_mpsc::channel(ROOM);
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        Handle::current().spawn(async move {
            while receiver.recv().await.is_some() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { sender, sent: 0, seen }
    }
}

impl Way for Tokio {
    fn name(&self) -> &'static str {
        "`tokio::sync::mpsc`, events dropped at its end"
    }

    fn call(&mut self, event: AuditEvent) -> Result<Option<AuditEvent>> {
        match self.sender.try_send(event) {
            Ok(()) => {
                self.sent += 1;
                Ok(None)
            }
            Err(tokio_mpsc::error::TrySendError::Full(event)) => Ok(Some(event)),
            Err(tokio_mpsc::error::TrySendError::Closed(_)) => anyhow::bail!("a channel's end is gone"),
        }
    }

    fn settle(&mut self) -> Result<()> {
        seen(&self.seen, self.sent)
    }
}

/// The library.
struct Record {
    producer: Producer,
    kafka: u32,
}

impl Way for Record {
    fn name(&self) -> &'static str {
        "auditstream's `record`"
    }

    fn call(&mut self, event: AuditEvent) -> Result<Option<AuditEvent>> {
        match self.producer.record(event) {
            Ok(()) => Ok(None),
            Err(back) if matches!(back.reason, RejectReason::QueueFull { .. }) => Ok(Some(*back.event)),
            Err(back) => Err(back.into()),
        }
    }

    fn settle(&mut self) -> Result<()> {
        wait_acknowledged(&self.producer)
    }

    fn is_kafka(&self) -> bool {
        true
    }

    fn server(&self) -> Option<u32> {
        Some(self.kafka)
    }
}

/// rdkafka with JSON, as a service would write it.
struct Json {
    producer: FutureProducer,
    topic: &'static str,
    kafka: u32,
}

impl Json {
    fn new(peers: &Peers<'_>, kafka: u32) -> Result<Self> {
        let mut client = peers.client();
        // As many as the library lets wait.
        let producer = client.set("queue.buffering.max.messages", ROOM.to_string()).create()?;
        Ok(Self { producer, topic: peers.target.topic(), kafka })
    }
}

impl Way for Json {
    fn name(&self) -> &'static str {
        "rdkafka's `FutureProducer::send_result`, `serde_json`"
    }

    fn call(&mut self, event: AuditEvent) -> Result<Option<AuditEvent>> {
        let (key, payload) = (event.key(), json::of(&event)?);
        let sent = self.producer.send_result(FutureRecord::to(self.topic).key(&key).payload(&payload));
        match sent {
            // Who does not wait for the future pays least; that everything arrived is seen on the topic.
            Ok(_) => Ok(None),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(Some(event)),
            Err((error, _)) => Err(error.into()),
        }
    }

    fn settle(&mut self) -> Result<()> {
        self.producer.flush(ACKNOWLEDGED).context("not all records were acknowledged")
    }

    fn is_kafka(&self) -> bool {
        true
    }

    fn server(&self) -> Option<u32> {
        Some(self.kafka)
    }
}

/// A row in an audit table, a transaction each.
struct Insert {
    connection: PgConnection,
    runtime: Handle,
    backend: u32,
    /// Ends with this.
    _server: DatabaseServer,
}

impl Insert {
    fn new() -> Result<Self> {
        let (server, runtime) = (DatabaseServer::postgres()?, Handle::current());
        let (connection, backend) = runtime.block_on(async {
            let mut connection = PgConnection::connect(server.url()).await?;
            sqlx::raw_sql(AUDIT_TABLE).execute(&mut connection).await?;
            let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
            Ok::<_, sqlx::Error>((connection, pid))
        })?;
        Ok(Self { connection, runtime, backend: u32::try_from(backend)?, _server: server })
    }
}

impl Way for Insert {
    fn name(&self) -> &'static str {
        "INSERT into PostgreSQL by sqlx, one row a transaction"
    }

    fn call(&mut self, event: AuditEvent) -> Result<Option<AuditEvent>> {
        let text = String::from_utf8(json::of(&event)?)?;
        let insert = sqlx::query(INSERT).bind(event.event_id.to_string()).bind(event.occurred_at.as_micros());
        let insert = insert.bind(event.tenant_id).bind(event.service).bind(event.action).bind(event.entity_type);
        let insert = insert.bind(event.entity_id).bind(event.actor.id).bind(event.outcome.as_str()).bind(event.ip);
        let insert = insert.bind(event.request_id).bind(text);
        self.runtime.block_on(insert.execute(&mut self.connection))?;
        Ok(None)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    fn is_synchronous(&self) -> bool {
        true
    }

    fn server(&self) -> Option<u32> {
        Some(self.backend)
    }
}
