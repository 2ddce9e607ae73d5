-- A topic that is deleted and made again counts its offsets from 0 again: without the topic's id, spans of the old one would speak for records of the
-- new one, and a worker that asks the ledger where to go on would skip them.
ALTER TABLE {database}.ledger
    ADD COLUMN IF NOT EXISTS topic_id LowCardinality(String) COMMENT 'Id that the brokers gave the topic; empty when they have none',
  MODIFY ORDER BY (topic, partition, first_offset, last_offset, topic_id);
