-- Look-ups that the sorting key does not serve. Each index is on a column of the event's content, which all copies of an event share: what an index leaves
-- out of one copy it leaves out of all, so FINAL needs no second look (use_skip_indexes_if_final_exact_mode = 0). There is none on received_at or the
-- positions, which copies differ in.
-- Tried alone, 500,000 rows of generated events in inserts of 250,000, the best of three, on two cores that others used too (so within 0.2): CPU-seconds a
-- million rows, and bytes a row on disk beyond the 91.7 without any:
--     none                                              3.5
--     bloom filters 0.01 of the four ids                3.8    3.0        0.025: 3.7, 2.4
--     bloom filters of actor_id and ip                  3.7    0.8
--     bloom filter of entity_id                         3.4    0.7
--     tokenbf_v1(16384, 3) of details                   3.8    1.7
--     text index of details                             4.1    5.6
--     text index of request_id                          4.5   18.6
--     projection (_part_offset ORDER BY event_id)       4.0   20.4
--     projection (_part_offset ORDER BY tenant, actor, time)  4.0   11.5
-- Inverted indexes and projections find faster and cost three to ten times the disk. All of those below together: `cargo xtask bench queries`.
ALTER TABLE {database}.events ADD INDEX IF NOT EXISTS by_event_id event_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_request_id request_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_correlation_id correlation_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_trace_id trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_actor_id actor_id TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_ip ip TYPE bloom_filter(0.01) GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_word details TYPE tokenbf_v1(16384, 3, 0) GRANULARITY 1;
