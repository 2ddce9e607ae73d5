-- Events. The row's identity is its sorting key: the same event twice is one row under FINAL, and the first write wins (the highest version).
-- An absent text is '', never NULL.
CREATE TABLE IF NOT EXISTS {database}.events
(
    tenant_id LowCardinality(String) COMMENT 'Who owns the entity',
    entity_type LowCardinality(String) COMMENT 'Kind of the entity',
    entity_id String COMMENT 'Id of the entity within its tenant and type' CODEC(ZSTD(1)),
    occurred_at DateTime64(6, 'UTC') COMMENT 'When it happened, by the clock of the service' CODEC(Delta, ZSTD(1)),
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
    producer_epoch Int64 COMMENT 'Start of that process' CODEC(Delta, ZSTD(1)),
    producer_seq Int64 COMMENT 'Number of the event within the epoch' CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') COMMENT 'Timestamp of the Kafka record' CODEC(Delta, ZSTD(1)),
    version UInt64 COMMENT 'The earlier the record, the higher' CODEC(Delta, ZSTD(1)),
    _topic LowCardinality(String) COMMENT 'Topic of the record',
    _partition Int32 COMMENT 'Partition of the record' CODEC(ZSTD(1)),
    _offset Int64 COMMENT 'Offset of the record' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant_id, entity_type, entity_id, occurred_at, event_id, content_hash)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Audit events, one row each under FINAL';
