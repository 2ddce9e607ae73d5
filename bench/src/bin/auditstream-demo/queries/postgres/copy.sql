-- ClickHouse's rows as PostgreSQL's COPY takes them, in the columns' order of table.sql and in the order in which they came, which is how a table grows.
-- An absent text is '' there and NULL here. A change is {"path", "old", "new"}; a value that is not there has no key.
SELECT
    event_id,
    occurred_at,
    received_at,
    tenant_id,
    service,
    environment,
    action,
    operation,
    entity_type,
    entity_id,
    nullIf(entity_name, ''),
    actor_kind,
    nullIf(actor_id, ''),
    nullIf(actor_name, ''),
    nullIf(actor_email, ''),
    nullIf(actor_session_id, ''),
    nullIf(on_behalf_of, ''),
    outcome,
    nullIf(error_message, ''),
    if(empty(`changes.path`), NULL, concat('[', arrayStringConcat(arrayMap((path, old, new) -> concat('{"path":', toJSONString(path),
        if(old = '', '', concat(',"old":', old)), if(new = '', '', concat(',"new":', new)), '}'), `changes.path`, `changes.old`, `changes.new`), ','), ']')),
    nullIf(ip, ''),
    nullIf(user_agent, ''),
    nullIf(request_id, ''),
    nullIf(correlation_id, ''),
    nullIf(trace_id, ''),
    nullIf(http_method, ''),
    nullIf(http_path, ''),
    priority,
    nullIf(details, '')
FROM events
ORDER BY received_at, _partition, _offset
SETTINGS max_bytes_before_external_sort = 1000000000
