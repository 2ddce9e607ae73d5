-- The migrations for a cluster called main; a test keeps it equal to store/src/cluster.rs.

-- 1 tables
CREATE TABLE IF NOT EXISTS audit.events_local ON CLUSTER 'main'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}', version)
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant_id, entity_type, entity_id, occurred_at, event_id, content_hash)
SETTINGS replicated_deduplication_window = 10000, min_parts_to_merge_at_once = 16, min_bytes_for_wide_part = 268435456, min_age_to_force_merge_seconds = 43200, min_age_to_force_merge_on_partition_only = 1, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Audit events, one row each under FINAL';
CREATE TABLE IF NOT EXISTS audit.events ON CLUSTER 'main' AS audit.events_local
ENGINE = Distributed('main', 'audit', 'events_local', cityHash64(tenant_id, entity_type, entity_id))
COMMENT 'Audit events, one row each under FINAL';
CREATE TABLE IF NOT EXISTS audit.ledger_local ON CLUSTER 'main'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
ORDER BY (topic, partition, first_offset, last_offset)
SETTINGS replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Spans of offsets that are stored: as rows of events or as dead letters';
CREATE TABLE IF NOT EXISTS audit.ledger ON CLUSTER 'main' AS audit.ledger_local
ENGINE = Distributed('main', 'audit', 'ledger_local', cityHash64(topic, partition))
COMMENT 'Spans of offsets that are stored: as rows of events or as dead letters';
CREATE TABLE IF NOT EXISTS audit.dead_letters_local ON CLUSTER 'main'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
ORDER BY (topic, partition, offset)
SETTINGS replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Records that could not be stored as events, with the reason';
CREATE TABLE IF NOT EXISTS audit.dead_letters ON CLUSTER 'main' AS audit.dead_letters_local
ENGINE = Distributed('main', 'audit', 'dead_letters_local', cityHash64(topic, partition))
COMMENT 'Records that could not be stored as events, with the reason';

-- 2 dead_letter_details
ALTER TABLE audit.dead_letters_local ON CLUSTER 'main'
    ADD COLUMN IF NOT EXISTS column_name LowCardinality(String) COMMENT 'The column or field at fault, where it is known' AFTER error_message,
    ADD COLUMN IF NOT EXISTS attempts UInt32 COMMENT 'How many decodes or inserts of the record were tried' AFTER schema,
    ADD COLUMN IF NOT EXISTS first_failed_at DateTime64(3, 'UTC') COMMENT 'When it failed first, by the clock of the worker' AFTER attempts,
    ADD COLUMN IF NOT EXISTS last_failed_at DateTime64(3, 'UTC') COMMENT 'When it failed last: its insert, or a delivery of the dead letter' AFTER first_failed_at,
    ADD COLUMN IF NOT EXISTS traceparent String COMMENT 'W3C trace context of the record, where it has a valid one' AFTER last_failed_at,
    ADD COLUMN IF NOT EXISTS worker_version LowCardinality(String) COMMENT 'Version of the worker that refused it' AFTER worker;
ALTER TABLE audit.dead_letters ON CLUSTER 'main'
    ADD COLUMN IF NOT EXISTS column_name LowCardinality(String) COMMENT 'The column or field at fault, where it is known' AFTER error_message,
    ADD COLUMN IF NOT EXISTS attempts UInt32 COMMENT 'How many decodes or inserts of the record were tried' AFTER schema,
    ADD COLUMN IF NOT EXISTS first_failed_at DateTime64(3, 'UTC') COMMENT 'When it failed first, by the clock of the worker' AFTER attempts,
    ADD COLUMN IF NOT EXISTS last_failed_at DateTime64(3, 'UTC') COMMENT 'When it failed last: its insert, or a delivery of the dead letter' AFTER first_failed_at,
    ADD COLUMN IF NOT EXISTS traceparent String COMMENT 'W3C trace context of the record, where it has a valid one' AFTER last_failed_at,
    ADD COLUMN IF NOT EXISTS worker_version LowCardinality(String) COMMENT 'Version of the worker that refused it' AFTER worker;

-- 3 ledger_topic_id
ALTER TABLE audit.ledger_local ON CLUSTER 'main'
    ADD COLUMN IF NOT EXISTS topic_id LowCardinality(String) COMMENT 'Id that the brokers gave the topic; empty when they have none',
  MODIFY ORDER BY (topic, partition, first_offset, last_offset, topic_id);
ALTER TABLE audit.ledger ON CLUSTER 'main'
    ADD COLUMN IF NOT EXISTS topic_id LowCardinality(String) COMMENT 'Id that the brokers gave the topic; empty when they have none';

-- 4 indexes
ALTER TABLE audit.events_local ON CLUSTER 'main'
    ADD INDEX IF NOT EXISTS by_event_id event_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_request_id request_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_correlation_id correlation_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_trace_id trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_actor_id actor_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_ip ip TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_word details TYPE tokenbf_v1(16384, 3, 0) GRANULARITY 1;

-- 5 views
CREATE VIEW IF NOT EXISTS audit.events_once ON CLUSTER 'main'
SQL SECURITY INVOKER
AS SELECT *
FROM audit.events FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'Audit events, one row each, for every user and without FINAL';
CREATE VIEW IF NOT EXISTS audit.field_history ON CLUSTER 'main'
SQL SECURITY INVOKER
AS SELECT tenant_id, entity_type, entity_id, path, old, new, occurred_at, action, operation, outcome, actor_kind, actor_id, actor_name, on_behalf_of, ip, service, request_id, event_id
FROM audit.events FINAL
ARRAY JOIN `changes.path` AS path, `changes.old` AS old, `changes.new` AS new
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'A row for each changed field: entity, path, old and new value as JSON (empty: none), who and when';
CREATE VIEW IF NOT EXISTS audit.entity_at ON CLUSTER 'main'
SQL SECURITY INVOKER
AS WITH
    arrayLastIndex(e -> e.3 = 'delete', log) AS ended,
    arraySlice(log, ended + 1) AS life,
    ended > 0 AND NOT arrayExists(e -> e.3 IN ('create', 'change', 'restore'), life) AS is_deleted,
    if(is_deleted, arrayLastIndex(e -> e.3 = 'delete', arraySlice(log, 1, ended - 1)), ended) AS before,
    arrayFirst(e -> e.3 = 'create', arraySlice(log, before + 1)) AS creation,
    arrayReverse(arrayFlatten(arrayMap(e -> arrayZip(e.5, e.6), life))) AS newest_first,
    arrayFilter((c, occurrence) -> occurrence = 1, newest_first, arrayEnumerateUniq(newest_first.1)) AS last_values,
    arrayFilter((c, place) -> c.2 != '' AND NOT arrayExists(newer -> startsWith(c.1, concat(newer.1, '/')), arraySlice(last_values, 1, place - 1)), last_values, arrayEnumerate(last_values)) AS present,
    arraySort(c -> c.1, present) AS sorted,
    arrayExists(c -> lower(c.1) IN ('/deleted_at', '/deletedat', '/deleted', '/is_deleted', '/isdeleted') AND c.2 NOT IN ('null', 'false', '0', '""'), present) AS has_mark,
    arrayLastIndex(e -> e.3 = 'soft', life) > arrayLastIndex(e -> e.3 IN ('restore', 'create'), life) AS is_soft
SELECT
    tenant_id, entity_type, entity_id,
    multiIf(is_deleted, 'deleted', is_soft OR has_mark, 'soft-deleted', 'live') AS state,
    if(is_deleted, map(), mapFromArrays(sorted.1, sorted.2)) AS fields,
    if(creation.3 = 'create', toNullable(creation.1), NULL) AS created_at,
    creation.4 AS created_by,
    log[-1].1 AS changed_at,
    log[-1].4 AS changed_by,
    if(is_deleted, toNullable(log[ended].1), NULL) AS deleted_at,
    if(is_deleted, log[ended].4, '') AS deleted_by,
    length(log) AS events
FROM
(
    SELECT tenant_id, entity_type, entity_id,
        arraySort(e -> (e.1, e.2), groupArray((occurred_at, toString(event_id), kind, actor_id, `changes.path`, `changes.new`))) AS log
    FROM
    (
        SELECT tenant_id, entity_type, entity_id, occurred_at, event_id, actor_id, `changes.path`, `changes.new`,
            lower(extract(action, '[^.:/]*$')) AS word,
            multiIf(word IN ('soft_delete', 'softdelete', 'trash'), 'soft', operation = 'DELETE', 'delete', word IN ('restore', 'undelete', 'untrash'), 'restore',
                    operation = 'CREATE', 'create', operation = 'UPDATE' OR notEmpty(`changes.path`), 'change', '') AS kind
        FROM audit.events FINAL
        WHERE tenant_id = {tenant:String} AND entity_type = {type:String} AND entity_id = {id:String} AND occurred_at <= {time:DateTime64(6)} AND outcome = 'SUCCESS' AND kind != ''
        ORDER BY received_at, _partition, _offset
        LIMIT 1 BY event_id
    )
    GROUP BY tenant_id, entity_type, entity_id
)
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'entity_at(tenant = , type = , id = , time = ): an entity as its changes left it at that time: live, soft-deleted or deleted; no row when nothing had changed it yet';
CREATE VIEW IF NOT EXISTS audit.actor_activity ON CLUSTER 'main'
SQL SECURITY INVOKER
AS SELECT tenant_id, actor_kind, actor_id, toDate(occurred_at) AS day, action,
    count() AS events, countIf(outcome = 'FAILURE') AS failures, countIf(outcome = 'DENIED') AS denials,
    uniqExact(entity_type, entity_id) AS entities, min(occurred_at) AS first_at, max(occurred_at) AS last_at
FROM audit.events FINAL
GROUP BY tenant_id, actor_kind, actor_id, day, action
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'What each actor did on each day (UTC), by action: how often, how often without success, on how many entities';
CREATE VIEW IF NOT EXISTS audit.failures ON CLUSTER 'main'
SQL SECURITY INVOKER
AS SELECT tenant_id, occurred_at, service, action, outcome, error_message, entity_type, entity_id, actor_kind, actor_id, actor_name, ip, request_id, correlation_id, trace_id, event_id
FROM audit.events FINAL
WHERE outcome IN ('FAILURE', 'DENIED')
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'Events that failed or were denied, with the reason';
CREATE VIEW IF NOT EXISTS audit.conflicts ON CLUSTER 'main'
SQL SECURITY INVOKER
AS SELECT tenant_id, event_id, count() AS contents, min(received_at) AS first_received_at, max(received_at) AS last_received_at
FROM audit.events FINAL
GROUP BY tenant_id, event_id
HAVING contents > 1
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'Event ids of a tenant under which more than one content was sent: all are kept as rows of events, the first one counts';
CREATE VIEW IF NOT EXISTS audit.hourly ON CLUSTER 'main'
SQL SECURITY INVOKER
AS SELECT tenant_id, toStartOfHour(occurred_at) AS hour, service, action, outcome, count() AS events
FROM audit.events FINAL
GROUP BY tenant_id, hour, service, action, outcome
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'Events by hour (UTC) of occurrence, tenant, service, action and outcome; late events count in the hour they occurred, duplicates not at all';
CREATE VIEW IF NOT EXISTS audit.freshness ON CLUSTER 'main'
SQL SECURITY INVOKER
AS SELECT tenant_id, service, max(received_at) AS newest_received_at, max(occurred_at) AS newest_occurred_at, dateDiff('second', newest_received_at, now64(3, 'UTC')) AS seconds_behind
FROM audit.events
GROUP BY tenant_id, service
SETTINGS final = 0
COMMENT 'How recent the newest stored event of each tenant and service is, by the time its record arrived and by the time it happened';

-- 6 dead_letter_actions
CREATE TABLE IF NOT EXISTS audit.dead_letter_actions_local ON CLUSTER 'main'
(
    topic LowCardinality(String) COMMENT 'Topic of the source record',
    partition Int32 COMMENT 'Its partition',
    offset Int64 COMMENT 'Its offset',
    timestamp DateTime64(3, 'UTC') COMMENT 'Its timestamp',
    at DateTime64(3, 'UTC') COMMENT 'When it was done, by the clock of ClickHouse',
    action LowCardinality(String) COMMENT 'retry: the record was sent to its topic again; discard: nobody will',
    actor String COMMENT 'Who did it' CODEC(ZSTD(1)),
    retries UInt32 COMMENT 'How often the record was sent again, this time included; 0 for discard',
    retry_partition Int32 COMMENT 'Where the record was sent to: partition; -1 for discard',
    retry_offset Int64 COMMENT 'And offset; -1 for discard'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
ORDER BY (topic, partition, offset, timestamp, at, action)
SETTINGS replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Dead letters that were retried or discarded; without a row here a dead letter is open';
CREATE TABLE IF NOT EXISTS audit.dead_letter_actions ON CLUSTER 'main' AS audit.dead_letter_actions_local
ENGINE = Distributed('main', 'audit', 'dead_letter_actions_local', cityHash64(topic, partition))
COMMENT 'Dead letters that were retried or discarded; without a row here a dead letter is open';

-- 7 retention
CREATE TABLE IF NOT EXISTS audit.legal_holds_local ON CLUSTER 'main'
(
    hold_id UUID COMMENT 'The hold',
    tenant_id String COMMENT 'Whose events stay',
    entity_type String COMMENT 'Of this kind only; empty: of every kind',
    entity_id String COMMENT 'Of this entity only; empty: of every entity',
    reason String COMMENT 'Why',
    is_active UInt8 COMMENT '1: it holds; 0: it was taken off',
    changed_by String COMMENT 'Who set it or took it off',
    changed_at DateTime64(3, 'UTC') COMMENT 'When, by the clock of the server',
    version UInt64 COMMENT 'The later, the higher'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}', version)
ORDER BY (tenant_id, hold_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Legal holds: what retention must leave';
CREATE TABLE IF NOT EXISTS audit.legal_holds ON CLUSTER 'main' AS audit.legal_holds_local
ENGINE = Distributed('main', 'audit', 'legal_holds_local', cityHash64(tenant_id))
COMMENT 'Legal holds: what retention must leave';
CREATE TABLE IF NOT EXISTS audit.retention_policies_local ON CLUSTER 'main'
(
    applied_at DateTime64(6, 'UTC') COMMENT 'When, by the clock of the server',
    applied_by String COMMENT 'Who',
    default_days UInt32 COMMENT 'Days after which events go for which no rule holds; 0: never',
    rules String COMMENT 'The rules, as in the configuration',
    dead_letter_days UInt32 COMMENT 'Days after which dead letters go; 0: never'
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
ORDER BY applied_at
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Retention as it was applied; the newest counts';
CREATE TABLE IF NOT EXISTS audit.retention_policies ON CLUSTER 'main' AS audit.retention_policies_local
ENGINE = Distributed('main', 'audit', 'retention_policies_local', cityHash64(applied_at))
COMMENT 'Retention as it was applied; the newest counts';

-- 8 consumer_pauses
CREATE TABLE IF NOT EXISTS audit.consumer_pauses_local ON CLUSTER 'main'
(
    group_id String COMMENT 'Consumer group',
    topic LowCardinality(String) COMMENT 'Topic that it reads',
    at DateTime64(6, 'UTC') COMMENT 'When it was done, by the clock of ClickHouse',
    action LowCardinality(String) COMMENT 'pause or resume',
    actor String COMMENT 'Who did it' CODEC(ZSTD(1)),
    reason String COMMENT 'Why, in that person''s words' CODEC(ZSTD(1))
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
ORDER BY (group_id, topic, at, action)
SETTINGS replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Pauses of consumer groups and their ends; the newest row of a group and topic counts, and without one it reads';
CREATE TABLE IF NOT EXISTS audit.consumer_pauses ON CLUSTER 'main' AS audit.consumer_pauses_local
ENGINE = Distributed('main', 'audit', 'consumer_pauses_local', cityHash64(group_id))
COMMENT 'Pauses of consumer groups and their ends; the newest row of a group and topic counts, and without one it reads';

-- 9 newest
ALTER TABLE audit.events_local ON CLUSTER 'main'
    MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild', lightweight_mutation_projection_mode = 'rebuild';
ALTER TABLE audit.events_local ON CLUSTER 'main'
    ADD PROJECTION IF NOT EXISTS newest (SELECT tenant_id, service, max(received_at), max(occurred_at) GROUP BY tenant_id, service);
