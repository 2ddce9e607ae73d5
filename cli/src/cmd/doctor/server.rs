//! ClickHouse as a server: its version, clock and disks; what it lets this user do; how the tables were made; and what the ledger lacks.

use std::time::Instant;

use auditstream_store::{Disk, SettingState, TableState};

use super::super::stats::now_ms;
use super::{Context, Finding};

/// Older versions get no fixes any more; the tests of this product run on a later one only.
const OLDEST: (u32, u32) = (25, 8);
/// Clocks further apart than this make freshness and the ledger's times wrong.
const MOST_SKEW_MS: i64 = 2_000;
/// Below this share of a disk merges begin to fail for want of room.
const LEAST_FREE: f64 = 0.05;

pub(super) async fn state(context: &Context<'_>) -> Vec<Finding> {
    let asked = (now_ms(), Instant::now());
    // What does not answer was told by the first check.
    let Ok(server) = context.store.server().await else { return Vec::new() };
    let took_ms = i64::try_from(asked.1.elapsed().as_millis()).unwrap_or(i64::MAX);
    let mut findings: Vec<_> = old(&server.version).into_iter().collect();
    findings.extend(skewed(server.now_ms, asked.0, took_ms));
    match context.store.disks().await {
        Ok(disks) => findings.extend(disks.iter().filter_map(full)),
        Err(error) if error.code == Some(497) => {}
        Err(error) => findings.push(Finding::note(format!("its disks can't be seen: {error}"), "see what it says")),
    }
    if findings.is_empty() {
        findings.push(Finding::fine(format!("version {}, its clock is ours, its disks have room", server.version)));
    }
    findings
}

fn old(version: &str) -> Option<Finding> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let found = (parts.next()??, parts.next()??);
    (found < OLDEST).then(|| {
        Finding::wrong(
            format!("ClickHouse {version} is older than {}.{}", OLDEST.0, OLDEST.1),
            "upgrade ClickHouse; its own notes say in which steps",
        )
    })
}

/// The server's clock was read between the question and the answer.
fn skewed(server_ms: i64, asked_ms: i64, took_ms: i64) -> Option<Finding> {
    let ahead = server_ms - (asked_ms + took_ms);
    let behind = asked_ms - server_ms;
    let skew = ahead.max(behind);
    (skew > MOST_SKEW_MS).then(|| {
        let word = if ahead > behind { "ahead of" } else { "behind" };
        Finding::wrong(
            format!("ClickHouse's clock is {:.1} s {word} this host's", skew as f64 / 1_000.0),
            "let both take their time from the same source (chronyd, systemd-timesyncd)",
        )
    })
}

fn full(disk: &Disk) -> Option<Finding> {
    let share = disk.free as f64 / disk.total.max(1) as f64;
    (share < LEAST_FREE).then(|| {
        let gib = |bytes: u64| bytes as f64 / (1_u64 << 30) as f64;
        Finding::wrong(
            format!(
                "ClickHouse's disk {} has {:.1} of {:.1} GiB left ({:.0} %)",
                disk.name,
                gib(disk.free),
                gib(disk.total),
                share * 100.0
            ),
            "make room, or add a disk, before merges and inserts fail",
        )
    })
}

pub(super) async fn settings(context: &Context<'_>) -> Vec<Finding> {
    let Ok(settings) = context.store.insert_settings().await else { return Vec::new() };
    let user = &context.settings.clickhouse.user;
    match refused(user, &settings) {
        Some(finding) => vec![finding],
        None => vec![Finding::fine(format!("{user} may write, and send every setting of an insert along"))],
    }
}

fn refused(user: &str, settings: &[SettingState]) -> Option<Finding> {
    let remedy =
        "give the workers a user with the role audit_ingest and its settings profile (auditstream migrate makes both)";
    if settings.iter().any(|setting| setting.name == "readonly" && setting.value != "0") {
        return Some(Finding::wrong(format!("user {user} may only read (setting readonly)"), remedy));
    }
    let fixed = settings.iter().filter(|setting| setting.name != "readonly" && setting.is_fixed);
    let wrong: Vec<_> = fixed
        .filter(|setting| setting.value != setting.wanted)
        .map(|setting| format!("{} is {}, inserts need {}", setting.name, setting.value, setting.wanted))
        .collect();
    (!wrong.is_empty()).then(|| Finding::wrong(format!("user {user} may not change: {}", wrong.join("; ")), remedy))
}

pub(super) async fn engines(context: &Context<'_>) -> Vec<Finding> {
    let Ok(tables) = context.store.table_states().await else { return Vec::new() };
    let database = &context.settings.clickhouse.database;
    let mut findings: Vec<_> = tables.iter().filter_map(|table| engine(database, table)).collect();
    if findings.is_empty() && !tables.is_empty() {
        findings.push(Finding::fine("the tables keep one row of each identity, and know repeated inserts"));
    }
    findings
}

fn engine(database: &str, table: &TableState) -> Option<Finding> {
    let name = format!("{database}.{}", table.name);
    // Behind a Distributed table stand others, which the check of the replicas looks at.
    if table.engine == "Distributed" {
        return None;
    }
    if !table.engine.ends_with("ReplacingMergeTree") {
        return Some(Finding::wrong(
            format!("table {name} is a {}: what is stored twice stays two rows", table.engine),
            "rename it, run auditstream migrate against an empty schema_migrations, and copy the rows over",
        ));
    }
    let is_replicated = table.engine.starts_with("Replicated") || table.engine.starts_with("Shared");
    let window = setting(&table.engine_full, "non_replicated_deduplication_window");
    (!is_replicated && window.is_none_or(|window| window == "0")).then(|| {
        let mut finding = Finding::note(
            format!("table {name} does not know repeated inserts: each costs a merge, though no row counts twice"),
            "run:",
        );
        finding.ddl = vec![format!(
            "ALTER TABLE `{database}`.`{}` MODIFY SETTING non_replicated_deduplication_window = 10000;",
            table.name
        )];
        finding
    })
}

/// The value of a setting in an engine's full text.
fn setting<'a>(engine: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = engine.split_once(&format!(" {name} = "))?;
    rest.split([',', ' ']).next()
}

pub(super) async fn ledger(context: &Context<'_>) -> Vec<Finding> {
    let Ok(gaps) = context.store.ledger_gaps(Some(&context.settings.kafka.topic)).await else { return Vec::new() };
    let Some(first) = gaps.first() else { return vec![Finding::fine("it has no gap")] };
    let records: i64 = gaps.iter().map(|gap| gap.last_offset - gap.first_offset + 1).sum();
    vec![Finding::note(
        format!(
            "{} gaps, {records} offsets in all, the first {}/{} from {} to {}: nobody stored them",
            gaps.len(),
            first.topic,
            first.partition,
            first.first_offset,
            first.last_offset
        ),
        "were they skipped (consumer reset), or never records (transactions)? If not: stop the workers, auditstream consumer reset --to-time before it, start them",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_told() {
        assert!(old("25.7.1.1").is_some() && old("24.12.1").is_some());
        assert!(old("25.8.1.1").is_none() && old("26.3.1").is_none() && old("unknown").is_none());
    }

    #[test]
    fn a_slow_answer_is_no_skew() {
        assert!(skewed(10_000, 5_000, 6_000).is_none(), "read at any moment in between");
        assert!(skewed(15_000, 5_000, 6_000).is_some_and(|finding| finding.found.contains("4.0 s ahead of")));
        assert!(skewed(2_000, 5_000, 6_000).is_some_and(|finding| finding.found.contains("3.0 s behind")));
    }

    #[test]
    fn a_disk_with_less_than_a_twentieth_is_full() {
        let disk = |free| Disk { name: "default".to_owned(), free, total: 100 };
        assert!(full(&disk(4)).is_some() && full(&disk(5)).is_none());
        assert!(full(&Disk { total: 0, ..disk(0) }).is_some());
    }

    #[test]
    fn a_setting_that_is_fixed_to_another_value_is_wrong() {
        let state = |name: &str, value: &str, is_fixed| SettingState {
            name: name.to_owned(),
            value: value.to_owned(),
            is_fixed,
            wanted: "0".to_owned(),
        };
        assert!(refused("u", &[state("async_insert", "1", false), state("readonly", "0", false)]).is_none());
        assert!(refused("u", &[state("async_insert", "0", true)]).is_none());
        let finding = refused("u", &[state("async_insert", "1", true)]);
        assert!(finding.is_some_and(|finding| finding.found.contains("async_insert is 1, inserts need 0")));
    }

    #[test]
    fn settings_stand_in_the_engine() {
        let engine = "ReplacingMergeTree ORDER BY a SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 100, x = 1";
        assert_eq!(setting(engine, "non_replicated_deduplication_window"), Some("100"));
        assert_eq!(setting(engine, "y"), None);
    }
}
