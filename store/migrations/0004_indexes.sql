-- Look-ups that the sorting key does not serve. Each index is on a column of the event's content, which all copies of an event share: what an index leaves
-- out of one copy it leaves out of all, so FINAL needs no second look (use_skip_indexes_if_final_exact_mode = 0). There is none on received_at or the
-- positions, which copies differ in.
ALTER TABLE {database}.events ADD INDEX IF NOT EXISTS by_event_id event_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_request_id request_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_correlation_id correlation_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_trace_id trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_entity_id entity_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_actor_id actor_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_ip ip TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_word details TYPE tokenbf_v1(16384, 3, 0) GRANULARITY 1;
