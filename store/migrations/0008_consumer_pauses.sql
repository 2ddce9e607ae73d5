-- Whether operators have paused the reading of a topic by a consumer group: the newest row of a group and topic says so. Here and not in Kafka, because
-- a worker needs ClickHouse for everything it does: who can't read this could store nothing either.
CREATE TABLE IF NOT EXISTS {database}.consumer_pauses
(
    group_id String COMMENT 'Consumer group',
    topic LowCardinality(String) COMMENT 'Topic that it reads',
    at DateTime64(6, 'UTC') COMMENT 'When it was done, by the clock of ClickHouse',
    action LowCardinality(String) COMMENT 'pause or resume',
    actor String COMMENT 'Who did it' CODEC(ZSTD(1)),
    reason String COMMENT 'Why, in that person''s words' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (group_id, topic, at, action)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Pauses of consumer groups and their ends; the newest row of a group and topic counts, and without one it reads';
