-- What analysts ask, in short. Every view counts an event once for every user, whatever the settings, reads with the rights and row policies of who asks
-- (SQL SECURITY INVOKER), and holds no rows of its own, so that neither a duplicate nor a late event can make it wrong.
-- Rows of one identity have one occurred_at, and so one partition: do_not_merge_across_partitions_select_final leaves partitions that are merged to one part alone;
-- optimize_move_to_prewhere_if_final lets conditions on the sorting key choose rows before copies are taken out (ClickHouse moves no other condition there).
CREATE VIEW IF NOT EXISTS {database}.events_once
SQL SECURITY INVOKER
AS SELECT *
FROM {database}.events FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'Audit events, one row each, for every user and without FINAL';

CREATE VIEW IF NOT EXISTS {database}.field_history
SQL SECURITY INVOKER
AS SELECT tenant_id, entity_type, entity_id, path, old, new, occurred_at, action, operation, outcome, actor_kind, actor_id, actor_name, on_behalf_of, ip, service, request_id, event_id
FROM {database}.events FINAL
ARRAY JOIN `changes.path` AS path, `changes.old` AS old, `changes.new` AS new
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'A row for each changed field: entity, path, old and new value as JSON (empty: none), who and when';

-- Only what succeeded changes the state. A DELETE ends an entity's life, and what comes after it begins another; a soft delete is told by the action's last
-- word or by a field that marks it. Of a path the last value counts, and what lies below it is void when the path itself was set later.
CREATE VIEW IF NOT EXISTS {database}.entity_at
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
        FROM {database}.events FINAL
        WHERE tenant_id = {tenant:String} AND entity_type = {type:String} AND entity_id = {id:String} AND occurred_at <= {time:DateTime64(6)} AND outcome = 'SUCCESS' AND kind != ''
        ORDER BY received_at, _partition, _offset
        LIMIT 1 BY event_id
    )
    GROUP BY tenant_id, entity_type, entity_id
)
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'entity_at(tenant = , type = , id = , time = ): an entity as its changes left it at that time: live, soft-deleted or deleted; no row when nothing had changed it yet';

CREATE VIEW IF NOT EXISTS {database}.actor_activity
SQL SECURITY INVOKER
AS SELECT tenant_id, actor_kind, actor_id, toDate(occurred_at) AS day, action,
    count() AS events, countIf(outcome = 'FAILURE') AS failures, countIf(outcome = 'DENIED') AS denials,
    uniqExact(entity_type, entity_id) AS entities, min(occurred_at) AS first_at, max(occurred_at) AS last_at
FROM {database}.events FINAL
GROUP BY tenant_id, actor_kind, actor_id, day, action
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'What each actor did on each day (UTC), by action: how often, how often without success, on how many entities';

CREATE VIEW IF NOT EXISTS {database}.failures
SQL SECURITY INVOKER
AS SELECT tenant_id, occurred_at, service, action, outcome, error_message, entity_type, entity_id, actor_kind, actor_id, actor_name, ip, request_id, correlation_id, trace_id, event_id
FROM {database}.events FINAL
WHERE outcome IN ('FAILURE', 'DENIED')
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'Events that failed or were denied, with the reason';

CREATE VIEW IF NOT EXISTS {database}.conflicts
SQL SECURITY INVOKER
AS SELECT tenant_id, event_id, count() AS contents, min(received_at) AS first_received_at, max(received_at) AS last_received_at
FROM {database}.events FINAL
GROUP BY tenant_id, event_id
HAVING contents > 1
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'Event ids of a tenant under which more than one content was sent: all are kept as rows of events, the first one counts';

CREATE VIEW IF NOT EXISTS {database}.hourly
SQL SECURITY INVOKER
AS SELECT tenant_id, toStartOfHour(occurred_at) AS hour, service, action, outcome, count() AS events
FROM {database}.events FINAL
GROUP BY tenant_id, hour, service, action, outcome
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1, use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'Events by hour (UTC) of occurrence, tenant, service, action and outcome; late events count in the hour they occurred, duplicates not at all';

-- A duplicate is no newer than the row it doubles, by more than its delay: no FINAL.
CREATE VIEW IF NOT EXISTS {database}.freshness
SQL SECURITY INVOKER
AS SELECT tenant_id, service, max(received_at) AS newest_received_at, max(occurred_at) AS newest_occurred_at, dateDiff('second', newest_received_at, now64(3, 'UTC')) AS seconds_behind
FROM {database}.events
GROUP BY tenant_id, service
SETTINGS final = 0
COMMENT 'How recent the newest stored event of each tenant and service is, by the time its record arrived and by the time it happened';
