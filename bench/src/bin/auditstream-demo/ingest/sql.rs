//! The statements of the peers and of the proof, made from the product's own list of columns.

use auditstream_bench::clickhouse::quoted;
use auditstream_store::{EVENT_COLUMNS, Source};

use super::ceilings::Form;

/// The table that reads the topic.
pub(super) const QUEUE: &str = "bench_queue";
/// The view that takes its rows into the events table.
pub(super) const VIEW: &str = "bench_queue_view";

/// How ClickHouse's Kafka engine is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EngineSettings {
    /// `kafka_num_consumers`, each a member of the group with a thread of its own when there are several.
    pub(super) consumers: u32,
    /// `kafka_max_block_size`: rows of a block, at most.
    pub(super) block: u32,
    /// `kafka_flush_interval_ms`: a block that is not full goes after so long.
    pub(super) flush_ms: u32,
    /// `kafka_poll_timeout_ms`: ten polls without a record end a block too.
    pub(super) poll_ms: u32,
    /// Whether the columns of few values are LowCardinality in the engine's table already, or texts that become so on their way.
    pub(super) words: bool,
}

impl EngineSettings {
    /// Those of the server, where nobody says anything.
    pub(super) const DEFAULT: Self =
        Self { consumers: 1, block: 1_048_449, flush_ms: 7_500, poll_ms: 500, words: true };
    /// What is tried, and from which the fastest is taken.
    pub(super) const TRIED: [Self; 7] = [
        Self::DEFAULT,
        Self { poll_ms: 50, ..Self::DEFAULT },
        Self { poll_ms: 50, words: false, ..Self::DEFAULT },
        Self { poll_ms: 50, consumers: 2, ..Self::DEFAULT },
        Self { poll_ms: 50, consumers: 2, words: false, ..Self::DEFAULT },
        Self { poll_ms: 50, consumers: 2, words: false, flush_ms: 1_000, ..Self::DEFAULT },
        Self { poll_ms: 50, consumers: 2, words: false, block: 131_072, ..Self::DEFAULT },
    ];
    /// The best of them where this was made; a run that tries none takes it.
    pub(super) const USUAL: Self = Self::TRIED[5];

    /// The type of columns of few values in the engine's table.
    pub(super) fn words(self) -> &'static str {
        if self.words { "LowCardinality" } else { "String" }
    }

    /// As people write it.
    pub(super) fn text(self) -> String {
        let Self { consumers, block, flush_ms, poll_ms, .. } = self;
        format!(
            "kafka_num_consumers={consumers}, kafka_thread_per_consumer={}, kafka_max_block_size={block}, kafka_flush_interval_ms={flush_ms}, \
             kafka_poll_timeout_ms={poll_ms}, columns of few values {} in the engine's table",
            u32::from(consumers > 1),
            self.words()
        )
    }
}

/// Where the engine reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) bootstrap: &'a str,
    pub(super) topic: &'a str,
    pub(super) group: &'a str,
    /// The schema registry's base URL.
    pub(super) registry: &'a str,
}

/// The name of a field in the Kafka engine's table: ClickHouse finds a record's field under the record's name, a dot and its own.
fn field(source: Source) -> Option<String> {
    match source {
        Source::Field(name) => Some(name.to_owned()),
        Source::Child(record, child) => Some(format!("{record}.{child}")),
        Source::Change(child) => Some(format!("changes.{child}")),
        _ => None,
    }
}

/// The table of the Kafka engine: a column for each field of the event.
pub(super) fn queue(database: &str, origin: Origin<'_>, settings: EngineSettings) -> String {
    let columns: Vec<String> = EVENT_COLUMNS
        .iter()
        .filter_map(|column| {
            let kind = match column.clickhouse_type {
                "LowCardinality(String)" if !settings.words => "String",
                kind => kind,
            };
            Some(format!("    `{}` {kind}", field(column.source)?))
        })
        .collect();
    let EngineSettings { consumers, block, flush_ms, poll_ms, .. } = settings;
    format!(
        "CREATE TABLE {database}.{QUEUE}\n(\n{}\n)\nENGINE = Kafka\nSETTINGS kafka_broker_list = {}, kafka_topic_list = {}, kafka_group_name = {}, \
         kafka_format = 'AvroConfluent', format_avro_schema_registry_url = {}, kafka_num_consumers = {consumers}, kafka_thread_per_consumer = {}, \
         kafka_max_block_size = {block}, kafka_flush_interval_ms = {flush_ms}, kafka_poll_timeout_ms = {poll_ms}",
        columns.join(",\n"),
        quoted(origin.bootstrap),
        quoted(origin.topic),
        quoted(origin.group),
        quoted(origin.registry),
        u32::from(consumers > 1)
    )
}

/// Every column that SQL can make of a field or of the record; the content hash is none of them.
pub(super) fn view(database: &str) -> String {
    let values = EVENT_COLUMNS.iter().filter_map(|column| {
        let value = match column.source {
            Source::ContentHash => return None,
            Source::ReceivedAt => "assumeNotNull(queue._timestamp_ms)".to_owned(),
            Source::Version => {
                "bitNot(toUInt64(toUnixTimestamp64Milli(assumeNotNull(queue._timestamp_ms))))".to_owned()
            }
            Source::Topic => "queue._topic".to_owned(),
            Source::Partition => "toInt32(queue._partition)".to_owned(),
            Source::Offset => "toInt64(queue._offset)".to_owned(),
            source => format!("queue.`{}`", field(source)?),
        };
        Some(format!("    {value} AS `{}`", column.name))
    });
    let values: Vec<String> = values.collect();
    format!(
        "CREATE MATERIALIZED VIEW {database}.{VIEW} TO {database}.events AS\nSELECT\n{}\nFROM {database}.{QUEUE} AS queue",
        values.join(",\n")
    )
}

/// What stands for the rows of one of `slices`: their number, the number of event ids, and two hashes over every column but the content hash, which only
/// our side has. Copies of an event share its entity, so they are in one slice.
pub(super) fn fingerprint(database: &str, slice: u64, slices: u64) -> String {
    let columns: Vec<String> = EVENT_COLUMNS
        .iter()
        .filter(|column| column.source != Source::ContentHash)
        .map(|column| format!("`{}`", column.name))
        .collect();
    let row = format!("cityHash64({})", columns.join(", "));
    format!(
        "SELECT count(), uniqExact(event_id), sum({row}), groupBitXor({row}) FROM {database}.events FINAL WHERE sipHash64(entity_id) % {slices} = {slice}"
    )
}

/// A plain copy of the events in the order of the topic, to cut ready-made blocks from.
pub(super) fn copy(database: &str, table: &str) -> String {
    format!(
        "CREATE TABLE {database}.{table} ENGINE = MergeTree ORDER BY (_offset, _partition) AS SELECT {} FROM {database}.events FINAL",
        names()
    )
}

/// Inserts a block of rows, as [`block`] gives them.
pub(super) fn insert(database: &str, table: &str, form: Form) -> String {
    format!("INSERT INTO {database}.{table} ({}) FORMAT {}", names(), form.name())
}

/// The rows of offsets from `first` to below `end` of every partition.
pub(super) fn block(database: &str, table: &str, first: u64, end: u64) -> String {
    format!(
        "SELECT {} FROM {database}.{table} WHERE _offset >= {first} AND _offset < {end} ORDER BY _offset, _partition",
        names()
    )
}

fn names() -> String {
    let names: Vec<String> = EVENT_COLUMNS.iter().map(|column| format!("`{}`", column.name)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin<'_> =
        Origin { bootstrap: "127.0.0.1:1", topic: "t", group: "g", registry: "http://127.0.0.1:2/apis/ccompat/v7" };

    #[test]
    fn the_engine_has_a_column_for_each_field() {
        let sql = queue("audit", ORIGIN, EngineSettings { consumers: 2, ..EngineSettings::DEFAULT });
        for column in [
            "`event_id` UUID",
            "`actor.kind` LowCardinality(String)",
            "`changes.old` Array(String)",
            "`producer.seq` Int64",
        ] {
            assert!(sql.contains(column), "{column} is not in {sql}");
        }
        assert!(!sql.contains("content_hash") && !sql.contains("`_offset`"), "{sql}");
        assert!(sql.contains("format_avro_schema_registry_url = 'http://127.0.0.1:2/apis/ccompat/v7'"), "{sql}");
        assert!(sql.contains("kafka_num_consumers = 2, kafka_thread_per_consumer = 1"), "{sql}");
    }

    #[test]
    fn the_view_fills_every_column_but_the_content_hash() {
        let sql = view("audit");
        for column in EVENT_COLUMNS {
            let alias = format!(" AS `{}`", column.name);
            assert_eq!(sql.contains(&alias), column.name != "content_hash", "{}", column.name);
        }
        assert!(sql.contains("queue.`actor.email` AS `actor_email`"), "{sql}");
    }

    #[test]
    fn the_fingerprint_leaves_out_what_sql_can_not_make() {
        let sql = fingerprint("audit", 0, 1);
        assert!(!sql.contains("content_hash") && sql.contains("`_offset`") && sql.contains("`details`"), "{sql}");
    }
}
