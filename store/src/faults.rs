//! What the fault tests need inside the worker: points at which it dies or fails, and guards that can be switched off to see that a test notices.
//!
//! Without the feature `faults` all of this is nothing: no environment is read, no point exists, every guard is on. The shipped program is built
//! without it.

#[cfg(not(feature = "faults"))]
use arrow_array::FixedSizeBinaryArray;
#[cfg(not(feature = "faults"))]
use auditstream_schemas::{SchemaError, Schemas};
#[cfg(not(feature = "faults"))]
use bytes::Bytes;
#[cfg(not(feature = "faults"))]
use clickhouse::insert_formatted::InsertFormatted;

#[cfg(not(feature = "faults"))]
use crate::columns::Column;

/// A moment of a worker's cycle at which a test may end the process, as kill -9 would, or make the step fail.
///
/// The environment variable `FAILPOINTS` sets points by name, in the notation of the `fail` crate: `mid-body=3*off->return` strikes at the fourth
/// time, `mid-body=25%return` at every fourth on average. Several are separated by `;`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// A batch is full of records that were polled; nothing of it was sent.
    BeforeInsert,
    /// Half of an insert's body is with the server.
    MidBody,
    /// The whole body is with the server; its answer is not awaited.
    BodySent,
    /// The rows are acknowledged, the ledger is not written.
    BeforeLedger,
    /// The ledger is written, the offsets are not committed.
    BeforeCommit,
    /// The broker has stored the offsets; the worker has not heard of it.
    Committed,
    /// Dead letters wait to be sent.
    BeforeDeadLetters,
    /// The broker has acknowledged the dead letters; the worker has not taken note.
    DeadLettersAcknowledged,
    /// Not a crash: the commit is refused as it is while the group rebalances.
    CommitRefused,
}

impl Point {
    /// The crash points, in the order of a batch's way.
    pub const CRASHES: [Self; 8] = [
        Self::BeforeInsert,
        Self::MidBody,
        Self::BodySent,
        Self::BeforeDeadLetters,
        Self::DeadLettersAcknowledged,
        Self::BeforeLedger,
        Self::BeforeCommit,
        Self::Committed,
    ];

    /// Its name in `FAILPOINTS`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeInsert => "before-insert",
            Self::MidBody => "mid-body",
            Self::BodySent => "body-sent",
            Self::BeforeLedger => "before-ledger",
            Self::BeforeCommit => "before-commit",
            Self::Committed => "committed",
            Self::BeforeDeadLetters => "before-dead-letters",
            Self::DeadLettersAcknowledged => "dead-letters-acknowledged",
            Self::CommitRefused => "commit-refused",
        }
    }
}

/// What a promise rests on. The variable `AUDITSTREAM_FAULTS_OFF` names those to leave out, separated by commas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// The same record is the same row, whoever inserts it and however often. Off: each encoding gives it another content hash.
    RowIdentity,
    /// A retry has the token of the first attempt. Off: each attempt has one of its own.
    Token,
    /// A dead letter is done when the broker has acknowledged it. Off: when it was queued.
    DeadLetterAck,
    /// Offsets are committed when their rows are stored. Off: before the insert.
    CommitAfterInsert,
}

impl Guard {
    /// Its name in `AUDITSTREAM_FAULTS_OFF`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RowIdentity => "row-identity",
            Self::Token => "token",
            Self::DeadLetterAck => "dead-letter-ack",
            Self::CommitAfterInsert => "commit-after-insert",
        }
    }

    /// Whether a test has switched it off.
    #[cfg(not(feature = "faults"))]
    #[inline(always)]
    #[must_use]
    pub fn is_off(self) -> bool {
        false
    }
}

/// Dies here, if a test wants that.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn crash_point(_point: Point) {}

/// Whether a test wants the step at `point` to fail.
#[cfg(not(feature = "faults"))]
#[inline(always)]
#[must_use]
pub fn strikes(_point: Point) -> bool {
    false
}

/// Dies with half of an insert's body sent, if a test wants that.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) async fn crash_half_sent(_insert: &mut InsertFormatted, _next: &Bytes) {}

/// Dies with a whole body sent and its answer unheard, if a test wants that.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) async fn crash_unheard() {}

/// The token to send.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn token(token: &str) -> &str {
    token
}

/// The content hashes to store.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn content_hashes(hashes: FixedSizeBinaryArray) -> FixedSizeBinaryArray {
    hashes
}

/// The schemas that a worker knows from its start.
///
/// # Errors
/// None in a build whose tests pass: they are compiled in.
#[cfg(not(feature = "faults"))]
pub fn schemas() -> Result<Schemas, SchemaError> {
    Schemas::builtin()
}

/// Columns behind those of [`crate::EVENT_COLUMNS`].
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn later_columns() -> &'static [Column] {
    &[]
}

#[cfg(feature = "faults")]
mod armed {
    use std::borrow::Cow;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use arrow_array::{Array, FixedSizeBinaryArray};
    use bytes::Bytes;
    use clickhouse::insert_formatted::InsertFormatted;

    use auditstream_schemas::{AUDIT_EVENT_V1, SchemaError, Schemas};

    use super::{Guard, Point};
    use crate::columns::{Column, Source};

    /// So long after a send its bytes are with the server, and its answer perhaps on the way back.
    const ON_THE_WAY: Duration = Duration::from_millis(50);

    /// Reads `FAILPOINTS`, for the life of the process. Call first.
    pub fn arm() {
        std::mem::forget(fail::FailScenario::setup());
    }

    /// Whether a test wants the step at `point` to fail.
    #[must_use]
    pub fn strikes(point: Point) -> bool {
        let strikes = || {
            fail::fail_point!(point.name(), |_| true);
            false
        };
        strikes()
    }

    /// Dies here, if a test wants that: nothing is flushed, closed or said, as after kill -9.
    pub fn crash_point(point: Point) {
        if strikes(point) {
            std::process::abort();
        }
    }

    impl Guard {
        /// Whether a test has switched it off.
        #[must_use]
        pub fn is_off(self) -> bool {
            static OFF: OnceLock<String> = OnceLock::new();
            let off = OFF.get_or_init(|| std::env::var("AUDITSTREAM_FAULTS_OFF").unwrap_or_default());
            off.split(',').any(|name| name == self.name())
        }
    }

    /// Dies with half of an insert's body sent, if a test wants that.
    pub(crate) async fn crash_half_sent(insert: &mut InsertFormatted, next: &Bytes) {
        if strikes(Point::MidBody) {
            // Whether it could be sent does not matter to who dies.
            let _ = insert.send(next.slice(..next.len() / 2)).await;
            tokio::time::sleep(ON_THE_WAY).await;
            std::process::abort();
        }
    }

    /// Dies with a whole body sent and its answer unheard, if a test wants that.
    pub(crate) async fn crash_unheard() {
        if strikes(Point::BodySent) {
            tokio::time::sleep(ON_THE_WAY).await;
            std::process::abort();
        }
    }

    /// The token to send.
    pub(crate) fn token(token: &str) -> Cow<'_, str> {
        if Guard::Token.is_off() { format!("{token}-{}", another_number()).into() } else { token.into() }
    }

    /// The content hashes to store.
    pub(crate) fn content_hashes(hashes: FixedSizeBinaryArray) -> FixedSizeBinaryArray {
        if !Guard::RowIdentity.is_off() {
            return hashes;
        }
        let others = (0..hashes.len()).map(|_| u128::from(another_number()).to_be_bytes());
        FixedSizeBinaryArray::try_from_iter(others).unwrap_or(hashes)
    }

    /// Whether this process plays the next version of the program: its reader schema has a field more, its table a column, and one field has an alias.
    fn is_next_version() -> bool {
        static NEXT: OnceLock<bool> = OnceLock::new();
        *NEXT.get_or_init(|| std::env::var("AUDITSTREAM_FAULTS_READER").is_ok_and(|which| which == "next"))
    }

    /// The schemas that a worker knows from its start.
    ///
    /// # Errors
    /// None in a build whose tests pass: they are compiled in.
    pub fn schemas() -> Result<Schemas, SchemaError> {
        if !is_next_version() {
            return Schemas::builtin();
        }
        let end = AUDIT_EVENT_V1.rfind(']').unwrap_or_default();
        let (fields, rest) = AUDIT_EVENT_V1.split_at(end);
        let next = format!("{fields}, {{\"name\": \"region\", \"type\": \"string\", \"default\": \"\"}}{rest}");
        let name = "\"name\": \"entity_name\"";
        Schemas::reading_as(&next.replace(name, &format!("{name}, \"aliases\": [\"entity_label\"]")))
    }

    /// Columns behind those of [`crate::EVENT_COLUMNS`].
    pub(crate) fn later_columns() -> &'static [Column] {
        const REGION: &[Column] =
            &[Column { name: "region", clickhouse_type: "String", source: Source::Field("region") }];
        if is_next_version() { REGION } else { &[] }
    }

    /// Another number at each call, in each process.
    fn another_number() -> u64 {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        nanos.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(feature = "faults")]
pub use armed::{arm, crash_point, schemas, strikes};
#[cfg(feature = "faults")]
pub(crate) use armed::{content_hashes, crash_half_sent, crash_unheard, later_columns, token};
