//! The one list of the event table's columns: name, ClickHouse type, and where its values come from.
//!
//! The insert statement, the batches sent, the check of the live table and the test of the migrations all read this list, so they can't drift apart.
//! Nothing is Nullable: an optional text that is absent is stored as `''`, which the schemas never use for a present one.

/// Where a column's values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A top-level field of the decoded batch, by its name.
    Field(&'static str),
    /// A child of a record field: the record, then the child.
    Child(&'static str, &'static str),
    /// A child of the records in the list field `changes`: one list for each child, all with the same offsets.
    Change(&'static str),
    /// Hash over the event's content, from [`auditstream_schemas::content_hash`].
    ContentHash,
    /// The record's timestamp.
    ReceivedAt,
    /// Orders rows of one identity: `u64::MAX` minus the record's timestamp in milliseconds, so that the first write wins.
    Version,
    /// Topic of the record.
    Topic,
    /// Partition of the record.
    Partition,
    /// Offset of the record.
    Offset,
}

/// A column of the event table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name in ClickHouse and in the Arrow stream.
    pub name: &'static str,
    /// Type as `DESCRIBE TABLE` prints it.
    pub clickhouse_type: &'static str,
    /// Where the values come from.
    pub source: Source,
}

const TEXT: &str = "String";
const WORD: &str = "LowCardinality(String)";
const TEXTS: &str = "Array(String)";

const fn column(name: &'static str, clickhouse_type: &'static str, source: Source) -> Column {
    Column { name, clickhouse_type, source }
}

const fn field(name: &'static str, clickhouse_type: &'static str) -> Column {
    column(name, clickhouse_type, Source::Field(name))
}

/// All columns that an insert writes, in the table's order. Columns that later migrations add with a default may be missing here.
pub const EVENT_COLUMNS: &[Column] = &[
    field("tenant_id", WORD),
    field("entity_type", WORD),
    field("entity_id", TEXT),
    field("occurred_at", "DateTime64(6, 'UTC')"),
    field("event_id", "UUID"),
    column("content_hash", "FixedString(16)", Source::ContentHash),
    field("service", WORD),
    field("environment", WORD),
    field("action", WORD),
    field("operation", WORD),
    field("entity_name", TEXT),
    column("actor_kind", WORD, Source::Child("actor", "kind")),
    column("actor_id", TEXT, Source::Child("actor", "id")),
    column("actor_name", TEXT, Source::Child("actor", "name")),
    column("actor_email", TEXT, Source::Child("actor", "email")),
    column("actor_session_id", TEXT, Source::Child("actor", "session_id")),
    field("on_behalf_of", TEXT),
    field("outcome", WORD),
    field("error_message", TEXT),
    column("changes.path", TEXTS, Source::Change("path")),
    column("changes.old", TEXTS, Source::Change("old")),
    column("changes.new", TEXTS, Source::Change("new")),
    field("ip", TEXT),
    field("user_agent", TEXT),
    field("request_id", TEXT),
    field("correlation_id", TEXT),
    field("trace_id", TEXT),
    field("http_method", WORD),
    field("http_path", TEXT),
    field("priority", WORD),
    field("details", TEXT),
    column("producer_id", WORD, Source::Child("producer", "id")),
    column("producer_epoch", "Int64", Source::Child("producer", "epoch")),
    column("producer_seq", "Int64", Source::Child("producer", "seq")),
    column("received_at", "DateTime64(3, 'UTC')", Source::ReceivedAt),
    column("version", "UInt64", Source::Version),
    column("_topic", WORD, Source::Topic),
    column("_partition", "Int32", Source::Partition),
    column("_offset", "Int64", Source::Offset),
];
