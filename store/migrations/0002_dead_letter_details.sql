-- What a dead letter's headers say, for queries too. Rows from before have none of it: no attempts counted, times of 1970.
ALTER TABLE {database}.dead_letters
    ADD COLUMN IF NOT EXISTS column_name LowCardinality(String) COMMENT 'The column or field at fault, where it is known' AFTER error_message,
    ADD COLUMN IF NOT EXISTS attempts UInt32 COMMENT 'How many decodes or inserts of the record were tried' AFTER schema,
    ADD COLUMN IF NOT EXISTS first_failed_at DateTime64(3, 'UTC') COMMENT 'When it failed first, by the clock of the worker' AFTER attempts,
    ADD COLUMN IF NOT EXISTS last_failed_at DateTime64(3, 'UTC') COMMENT 'When it failed last: its insert, or a delivery of the dead letter' AFTER first_failed_at,
    ADD COLUMN IF NOT EXISTS traceparent String COMMENT 'W3C trace context of the record, where it has a valid one' AFTER last_failed_at,
    ADD COLUMN IF NOT EXISTS worker_version LowCardinality(String) COMMENT 'Version of the worker that refused it' AFTER worker;
