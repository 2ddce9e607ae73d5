-- What people did about dead letters. A row's first four columns name the source record: its timestamp too, because a topic that is made again counts
-- its offsets from 0 again, and because a record that is read again is the same record, whatever copy of its dead letter is the newest.
CREATE TABLE IF NOT EXISTS {database}.dead_letter_actions
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
ENGINE = ReplacingMergeTree
ORDER BY (topic, partition, offset, timestamp, at, action)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Dead letters that were retried or discarded; without a row here a dead letter is open';
