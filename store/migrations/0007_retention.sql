-- What must not be forgotten, whatever the retention says: a tenant, one of its kinds of entity, or one entity. A row is never changed; taking a hold off
-- adds a row with a later version.
CREATE TABLE IF NOT EXISTS {database}.legal_holds
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
ENGINE = ReplacingMergeTree(version)
ORDER BY (tenant_id, hold_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Legal holds: what retention must leave';

-- Every retention that was ever applied; the newest counts. A hold that is set or taken off makes the tables follow this one again, not whatever
-- configuration happens to lie on the machine where that is done.
CREATE TABLE IF NOT EXISTS {database}.retention_policies
(
    applied_at DateTime64(6, 'UTC') COMMENT 'When, by the clock of the server',
    applied_by String COMMENT 'Who',
    default_days UInt32 COMMENT 'Days after which events go for which no rule holds; 0: never',
    rules String COMMENT 'The rules, as in the configuration',
    dead_letter_days UInt32 COMMENT 'Days after which dead letters go; 0: never'
)
ENGINE = MergeTree
ORDER BY applied_at
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Retention as it was applied; the newest counts';
