//! Writing an event into the outbox, inside the caller's own transaction.

use std::time::SystemTime;

use auditstream_schemas::{AuditEvent, EventError, Framing, encode};
use uuid::Uuid;

use super::ddl::Table;
use super::{shard_of, status};
use crate::ForEvent;
use crate::headers::{TraceParent, source};
use crate::idempotency::{idempotent_event_id, is_key};
use crate::prepare::Prepare;
use crate::size::Size;

/// How events become rows. Cheap to make; keep one, and share it.
#[derive(Debug, Clone)]
pub struct Outbox {
    /// The table, made by `auditstream outbox migrate`. Default `audit_outbox`.
    pub table: Table,
    /// How the schema is named in front of each record. Default: Avro single-object encoding.
    pub framing: Framing,
    /// Largest Kafka message with key and headers, in bytes: at most the topic's `max.message.bytes`. Default 1,000,000.
    pub message_max_bytes: usize,
    /// PostgreSQL only: wake the relay at the commit instead of at its next look. Commits that notify take turns (PostgreSQL holds one lock of
    /// the whole database server for it), so this suits where the milliseconds count and commits are not thousands a second. Default off.
    pub notify: bool,
    /// Rules by which values are taken out of each event before it is encoded. Default: none.
    #[cfg(feature = "redaction")]
    pub redaction: Option<std::sync::Arc<crate::redaction::Redaction>>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            table: Table::default(),
            framing: Framing::SingleObject,
            message_max_bytes: 1_000_000,
            notify: false,
            #[cfg(feature = "redaction")]
            redaction: None,
        }
    }
}

/// What may be said about one event beside itself.
#[derive(Debug, Clone, Default)]
pub struct OutboxOptions {
    /// 1 to 255 bytes: a second event of this tenant with the same key is refused, and the event's id is made of it.
    pub idempotency_key: Option<String>,
    /// Not sent before. Later events of the entity that are not delayed go first.
    pub available_at: Option<SystemTime>,
    /// The trace context of the request, written as the record's `traceparent` header.
    pub traceparent: Option<TraceParent>,
}

/// Why an event is not in the outbox. Except after [`RecordError::Database`], the transaction can go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A field of the event is not as it must be.
    #[error("the event is invalid: {0}")]
    Invalid(EventError),
    /// The event would not fit a Kafka message.
    #[error("the event is too large ({bytes} bytes, at most {limit})")]
    TooLarge {
        /// What it would take.
        bytes: usize,
        /// [`Outbox::message_max_bytes`].
        limit: usize,
    },
    /// The key is not as it must be.
    #[error("idempotency_key: found text of {bytes} bytes, expected 1 to 255 bytes without NUL")]
    IdempotencyKey {
        /// Its length.
        bytes: usize,
    },
    /// The outbox has an event with this idempotency key, to be sent or sent not long ago.
    #[error("an event with this idempotency key was recorded before, as {event_id}")]
    DuplicateKey {
        /// The id that the key makes.
        event_id: Uuid,
    },
    /// The outbox has an event with this id. The caller reused it.
    #[error("an event with the id {event_id} was recorded before")]
    DuplicateId {
        /// The id.
        event_id: Uuid,
    },
    /// The database refused; PostgreSQL takes nothing more in this transaction.
    #[error("the event could not be written to the outbox")]
    Database(#[source] sqlx::Error),
}

/// One row to be written.
#[derive(Debug)]
pub struct NewRow {
    id: Uuid,
    entity_type: String,
    key: String,
    action: String,
    payload: Vec<u8>,
    source: String,
    time: String,
    traceparent: Option<String>,
    tenant_id: String,
    idempotency_key: Option<String>,
    status: i64,
    /// `None`: the database's now.
    available_at: Option<i64>,
}

mod sealed {
    pub trait Sealed {}
}

/// What an event can be recorded in: a connection or a transaction of sqlx for PostgreSQL, MySQL/MariaDB or SQLite. Give a transaction
/// (`&mut tx`): on a bare connection the event is committed by itself.
pub trait InTransaction: sealed::Sealed + Send {
    /// Writes the row; `false` when its id is there already, and then the transaction is as it was.
    #[doc(hidden)]
    fn write_row(&mut self, outbox: &Outbox, row: &NewRow) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;
}

impl Outbox {
    /// Writes `event` into the outbox in the caller's transaction: it is sent if, and only if, the transaction commits. Gives back the event's id.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn record_in_tx<T: InTransaction>(&self, tx: &mut T, event: AuditEvent) -> Result<Uuid, RecordError> {
        self.record_in_tx_with(tx, event, OutboxOptions::default()).await
    }

    /// The same, with something to say beside the event.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn record_in_tx_with<T: InTransaction>(
        &self,
        tx: &mut T,
        event: AuditEvent,
        options: OutboxOptions,
    ) -> Result<Uuid, RecordError> {
        let row = self.row(event, options)?;
        match tx.write_row(self, &row).await {
            Ok(true) => Ok(row.id),
            Ok(false) if row.idempotency_key.is_some() => Err(RecordError::DuplicateKey { event_id: row.id }),
            Ok(false) => Err(RecordError::DuplicateId { event_id: row.id }),
            Err(error) => Err(RecordError::Database(error)),
        }
    }

    fn prepare(&self) -> Prepare {
        #[cfg(feature = "redaction")]
        return Prepare::by(self.redaction.clone());
        #[cfg(not(feature = "redaction"))]
        Prepare::default()
    }

    fn row(&self, mut event: AuditEvent, options: OutboxOptions) -> Result<NewRow, RecordError> {
        if let Some(key) = &options.idempotency_key {
            if !is_key(key) {
                return Err(RecordError::IdempotencyKey { bytes: key.len() });
            }
            event.event_id = idempotent_event_id(&event.tenant_id, key);
        }
        event.validate().map_err(RecordError::Invalid)?;
        let context = ForEvent::current();
        self.prepare().apply(&mut event, context.as_ref());
        let traceparent = options.traceparent.or_else(|| context.as_ref().and_then(ForEvent::traceparent));
        let bytes = Size::of(&event, 0).message;
        if bytes > self.message_max_bytes {
            return Err(RecordError::TooLarge { bytes, limit: self.message_max_bytes });
        }
        let mut payload = Vec::new();
        encode(&event, self.framing, &mut payload);
        Ok(NewRow {
            id: event.event_id,
            key: event.key(),
            payload,
            source: source(&event),
            time: event.occurred_at.to_string(),
            traceparent: traceparent.map(|traceparent| traceparent.to_string()),
            status: if options.available_at.is_some() { status::DELAYED } else { status::PENDING },
            available_at: options.available_at.map(millis),
            idempotency_key: options.idempotency_key,
            entity_type: event.entity_type,
            action: event.action,
            tenant_id: event.tenant_id,
        })
    }
}

fn millis(time: SystemTime) -> i64 {
    // A time before 1970 is as good as 1970: it is due.
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

const COLUMNS: &str = "id, aggregatetype, aggregateid, type, payload, ce_source, ce_time, traceparent, tenant_id, \
                       idempotency_key, shard, status, created_at, available_at";

/// Binds a row's values in the order of [`COLUMNS`]; numbers of ours stand in the text.
macro_rules! bound {
    ($sql:expr, $row:expr) => {
        sqlx::query($sql)
            .bind($row.id.to_string())
            .bind($row.entity_type.as_str())
            .bind($row.key.as_str())
            .bind($row.action.as_str())
            .bind($row.payload.as_slice())
            .bind($row.source.as_str())
            .bind($row.time.as_str())
            .bind($row.traceparent.as_deref())
            .bind($row.tenant_id.as_str())
            .bind($row.idempotency_key.as_deref())
            .bind(i64::from(shard_of(&$row.key)))
            .bind($row.status)
            .bind($row.available_at)
    };
}

/// A transaction and a pool's connection are what they hold.
macro_rules! the_same_for {
    ($database:ty, $connection:ty) => {
        impl sealed::Sealed for $connection {}
        impl sealed::Sealed for sqlx::Transaction<'_, $database> {}
        impl InTransaction for sqlx::Transaction<'_, $database> {
            async fn write_row(&mut self, outbox: &Outbox, row: &NewRow) -> Result<bool, sqlx::Error> {
                (**self).write_row(outbox, row).await
            }
        }
        impl sealed::Sealed for sqlx::pool::PoolConnection<$database> {}
        impl InTransaction for sqlx::pool::PoolConnection<$database> {
            async fn write_row(&mut self, outbox: &Outbox, row: &NewRow) -> Result<bool, sqlx::Error> {
                (**self).write_row(outbox, row).await
            }
        }
    };
}

#[cfg(feature = "outbox-postgres")]
the_same_for!(sqlx::Postgres, sqlx::PgConnection);
#[cfg(feature = "outbox-postgres")]
impl InTransaction for sqlx::PgConnection {
    async fn write_row(&mut self, outbox: &Outbox, row: &NewRow) -> Result<bool, sqlx::Error> {
        // A violated key would end the caller's transaction; ON CONFLICT does not.
        let sql = format!(
            "INSERT INTO {} ({COLUMNS}) VALUES ($1::uuid, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::smallint, \
             $12::smallint, {now}, COALESCE($13, {now})) ON CONFLICT (id) DO NOTHING",
            outbox.table,
            now = super::Dialect::Postgres.now()
        );
        let written = bound!(&sql, row).execute(&mut *self).await?.rows_affected() == 1;
        if written && outbox.notify {
            sqlx::query("SELECT pg_notify($1, '')").bind(outbox.table.base()).execute(&mut *self).await?;
        }
        Ok(written)
    }
}

#[cfg(feature = "outbox-mysql")]
the_same_for!(sqlx::MySql, sqlx::MySqlConnection);
#[cfg(feature = "outbox-mysql")]
impl InTransaction for sqlx::MySqlConnection {
    async fn write_row(&mut self, outbox: &Outbox, row: &NewRow) -> Result<bool, sqlx::Error> {
        let sql = format!(
            "INSERT INTO {} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {now}, COALESCE(?, {now}))",
            outbox.table,
            now = super::Dialect::Mysql.now()
        );
        match bound!(&sql, row).execute(&mut *self).await {
            Ok(_) => Ok(true),
            // Only the statement is undone, the transaction goes on.
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(feature = "outbox-sqlite")]
the_same_for!(sqlx::Sqlite, sqlx::SqliteConnection);
#[cfg(feature = "outbox-sqlite")]
impl InTransaction for sqlx::SqliteConnection {
    async fn write_row(&mut self, outbox: &Outbox, row: &NewRow) -> Result<bool, sqlx::Error> {
        let sql = format!(
            "INSERT INTO {} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {now}, COALESCE(?, {now})) \
             ON CONFLICT (id) DO NOTHING",
            outbox.table,
            now = super::Dialect::Sqlite.now()
        );
        Ok(bound!(&sql, row).execute(&mut *self).await?.rows_affected() == 1)
    }
}

#[cfg(all(test, feature = "redaction"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::sync::Arc;

    use super::*;
    use crate::redaction::{Action, Redaction};

    #[test]
    fn what_the_rules_drop_is_not_in_the_row() {
        let event = AuditEvent::builder("t", "s", "a", "e", "i").details("{\"card\":\"4111-1111\"}").build().unwrap();
        let open = Outbox::default().row(event.clone(), OutboxOptions::default()).unwrap();
        let holds = |row: &NewRow| row.payload.windows(9).any(|bytes| bytes == b"4111-1111");
        assert!(holds(&open));
        let rules = Redaction::builder().rule("/details/card", Action::Drop).build().unwrap();
        let outbox = Outbox { redaction: Some(Arc::new(rules)), ..Outbox::default() };
        assert!(!holds(&outbox.row(event, OutboxOptions::default()).unwrap()));
    }
}
