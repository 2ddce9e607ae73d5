-- The row's identity is its sorting key: the same event twice is one row under FINAL, and the first write wins (the highest version).
-- An absent text is '', never NULL. Codecs by measurement (2.1 M events of 338 bytes, inserted by 100,000): texts with ZSTD(1) and numbers with T64
-- take 86 bytes and 1.76 CPU-seconds a million; the server's default LZ4 139 bytes and 1.6; Delta and ZSTD(1) for the numbers 90 bytes and 1.83.
-- Half of the 86 can't be compressed: content hash 16, trace id 16, event id 10, request id 8.
-- A merge costs more than twice the insert, 4.5 CPU-seconds a million rows, so few and wide merges: at least 16 parts each. While two workers drain a
-- million events ClickHouse takes 2.6 to 3.4 CPU-seconds a million with 16, 3.2 to 4.5 with 8; after 7 M events 18 parts were left.
-- Parts up to 256 MiB are compact, 7 files instead of 150: creating, syncing and removing the files was a quarter of the insert's CPU time.
-- A partition that nothing was added to for twelve hours becomes one part, where FINAL costs nothing.
-- Offsets are committed once the insert is acknowledged, so an acknowledged part must outlive a power cut on a single node too: fsync costs 5 % more
-- CPU and 10 % of the rate (453 k to 408 k rows a second in inserts of 100,000).
CREATE TABLE IF NOT EXISTS {database}.events
(
    tenant_id LowCardinality(String) COMMENT 'Who owns the entity',
    entity_type LowCardinality(String) COMMENT 'Kind of the entity',
    entity_id String COMMENT 'Id of the entity within its tenant and type' CODEC(ZSTD(1)),
    occurred_at DateTime64(6, 'UTC') COMMENT 'When it happened, by the clock of the service' CODEC(T64, LZ4),
    event_id UUID COMMENT 'UUIDv7 of the event' CODEC(ZSTD(1)),
    content_hash FixedString(16) COMMENT 'First 16 bytes of SHA-256 over the content: another content under a known id is another row' CODEC(NONE),
    service LowCardinality(String) COMMENT 'What wrote the event',
    environment LowCardinality(String) COMMENT 'Where that runs',
    action LowCardinality(String) COMMENT 'What was done, e.g. order.update',
    operation LowCardinality(String) COMMENT 'CREATE, READ, UPDATE, DELETE or OTHER',
    entity_name String COMMENT 'Name of the entity for people' CODEC(ZSTD(1)),
    actor_kind LowCardinality(String) COMMENT 'USER, SERVICE, API_KEY, SYSTEM or ANONYMOUS',
    actor_id String COMMENT 'Who did it' CODEC(ZSTD(1)),
    actor_name String COMMENT 'Name of the actor' CODEC(ZSTD(1)),
    actor_email String COMMENT 'Email of the actor' CODEC(ZSTD(1)),
    actor_session_id String COMMENT 'Session of the actor' CODEC(ZSTD(1)),
    on_behalf_of String COMMENT 'For whom the actor acted' CODEC(ZSTD(1)),
    outcome LowCardinality(String) COMMENT 'SUCCESS, FAILURE or DENIED',
    error_message String COMMENT 'Why it failed' CODEC(ZSTD(1)),
    `changes.path` Array(String) COMMENT 'Fields that changed' CODEC(ZSTD(1)),
    `changes.old` Array(String) COMMENT 'Their values before, as JSON; empty: there was none' CODEC(ZSTD(1)),
    `changes.new` Array(String) COMMENT 'Their values after, as JSON; empty: there is none' CODEC(ZSTD(1)),
    ip String COMMENT 'Address of the client' CODEC(ZSTD(1)),
    user_agent String COMMENT 'Program of the client' CODEC(ZSTD(1)),
    request_id String COMMENT 'Request that did it' CODEC(ZSTD(1)),
    correlation_id String COMMENT 'What belongs together across services' CODEC(ZSTD(1)),
    trace_id String COMMENT 'W3C trace id' CODEC(ZSTD(1)),
    http_method LowCardinality(String) COMMENT 'Method of the request',
    http_path String COMMENT 'Path of the request' CODEC(ZSTD(1)),
    priority LowCardinality(String) COMMENT 'CRITICAL, STANDARD or BEST_EFFORT',
    details String COMMENT 'Anything else: a JSON object' CODEC(ZSTD(1)),
    producer_id LowCardinality(String) COMMENT 'Process that sent the event',
    producer_epoch Int64 COMMENT 'Start of that process' CODEC(T64, LZ4),
    producer_seq Int64 COMMENT 'Number of the event within the epoch' CODEC(T64, LZ4),
    received_at DateTime64(3, 'UTC') COMMENT 'Timestamp of the Kafka record' CODEC(T64, LZ4),
    version UInt64 COMMENT 'The earlier the record, the higher' CODEC(T64, LZ4),
    _topic LowCardinality(String) COMMENT 'Topic of the record',
    _partition Int32 COMMENT 'Partition of the record' CODEC(T64, LZ4),
    _offset Int64 COMMENT 'Offset of the record' CODEC(T64, LZ4)
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant_id, entity_type, entity_id, occurred_at, event_id, content_hash)
SETTINGS non_replicated_deduplication_window = 10000, min_parts_to_merge_at_once = 16, min_bytes_for_wide_part = 268435456, min_age_to_force_merge_seconds = 43200, min_age_to_force_merge_on_partition_only = 1, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Audit events, one row each under FINAL';

-- Every batch leaves the spans of offsets it stored beside its rows, so that anybody can prove that no offset is missing. A batch that was stored
-- again after a crash may cut its spans elsewhere: spans may overlap, but must leave no gap.
CREATE TABLE IF NOT EXISTS {database}.ledger
(
    topic LowCardinality(String) COMMENT 'Topic of the records',
    partition Int32 COMMENT 'Partition of the records',
    first_offset Int64 COMMENT 'Offset of the first record of the span',
    last_offset Int64 COMMENT 'Offset of its last record',
    rows UInt64 COMMENT 'Records of the span that are rows of events',
    dead_letters UInt64 COMMENT 'Records of the span that are dead letters',
    hash FixedString(16) COMMENT 'Stands for exactly the rows of the batch',
    token String COMMENT 'Deduplication token of the insert' CODEC(ZSTD(1)),
    worker LowCardinality(String) COMMENT 'The worker that stored it',
    inserted_at DateTime64(3, 'UTC') COMMENT 'When the rows were acknowledged, by the clock of the worker'
)
ENGINE = ReplacingMergeTree
ORDER BY (topic, partition, first_offset, last_offset)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Spans of offsets that are stored: as rows of events or as dead letters';

-- A copy for queries; the dead-letter topic is where they are safe, and from where they are tried again.
CREATE TABLE IF NOT EXISTS {database}.dead_letters
(
    topic LowCardinality(String) COMMENT 'Topic of the source record',
    partition Int32 COMMENT 'Its partition',
    offset Int64 COMMENT 'Its offset',
    timestamp DateTime64(3, 'UTC') COMMENT 'Its timestamp',
    key String COMMENT 'Its key, bytes; empty when it had none' CODEC(ZSTD(1)),
    value String COMMENT 'Its value, bytes; empty when it had none' CODEC(ZSTD(1)),
    headers Array(Tuple(name String, value String)) COMMENT 'Its headers, in order' CODEC(ZSTD(1)),
    error_class LowCardinality(String) COMMENT 'Where it failed',
    error_code LowCardinality(String) COMMENT 'Stable code of the reason',
    error_message String COMMENT 'The reason' CODEC(ZSTD(1)),
    schema LowCardinality(String) COMMENT 'The writer schema that the record names',
    worker LowCardinality(String) COMMENT 'The worker that refused it',
    dlq_topic LowCardinality(String) COMMENT 'The dead-letter topic',
    dlq_partition Int32 COMMENT 'Partition of the dead letter there',
    dlq_offset Int64 COMMENT 'Offset of the dead letter there'
)
ENGINE = ReplacingMergeTree
ORDER BY (topic, partition, offset)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Records that could not be stored as events, with the reason';
