//! Legal holds, and the tables' TTL, which follows the applied retention and the holds.
//!
//! Promises: a hold is in force when the call has returned: no merge that could delete its rows is running any more. When a call fails half-way, rows
//! stay that might go, never the other way round: merges that delete are stopped first and go on last.

use std::time::Duration;

use clickhouse::Row;
use serde::Deserialize;
use tokio::time::Instant;

use crate::client::{Store, quoted};
use crate::errors::CallError;
use crate::retention::{Class, HoldScope, Retention, RuleError, held};
use crate::target::Target;

/// Longest wait for merges that were running when a hold was set.
const MERGES_LIMIT: Duration = Duration::from_secs(600);
/// A mutation of a large table takes hours: nobody waits for it, whatever the server's default is.
const IN_BACKGROUND: &str = "SETTINGS mutations_sync = 0";
/// Between two looks at them.
const POLL: Duration = Duration::from_millis(200);

/// A hold that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its id, as text.
    pub id: String,
    /// What it keeps.
    pub scope: HoldScope,
    /// Why.
    pub reason: String,
    /// Who set it.
    pub by: String,
    /// When, milliseconds since 1970 by the server's clock.
    pub at_ms: i64,
}

/// Why a hold or a retention is not in force.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// ClickHouse refused or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The applied rules can't be read: a newer version wrote them.
    #[error(
        "the retention that was applied can't be read: {0}; use the version of auditstream that applied it, or a newer one"
    )]
    Rules(#[source] RuleError),
    /// There is no such hold.
    #[error("there is no hold {0}")]
    NoHold(String),
    /// Merges went on for too long.
    #[error("merges of {table} that had begun before are still running after {} s; the new rules hold for all later ones", MERGES_LIMIT.as_secs())]
    StillMerging {
        /// The table.
        table: String,
    },
}

#[derive(Row, Deserialize)]
struct HoldRow {
    id: String,
    tenant_id: String,
    entity_type: String,
    entity_id: String,
    reason: String,
    by: String,
    at_ms: i64,
}

#[derive(Row, Deserialize)]
struct PolicyRow {
    default_days: u32,
    rules: String,
    dead_letter_days: u32,
}

/// Rows of a class that are past their time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The class.
    pub class: Class,
    /// Rows of it, each once.
    pub rows: u64,
    /// Those that would go now.
    pub overdue: u64,
    /// Those that are past their time and stay because of a hold.
    pub held: u64,
}

/// What becomes of rows that lie in the tables already when the rules change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing {
    /// What is past its time goes soon, wherever it lies.
    Too,
    /// They go as parts are merged; merges that began under the old rules are waited for.
    Left,
}

impl Store {
    /// The holds that are set, by tenant.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn holds(&self) -> Result<Vec<Hold>, CallError> {
        let sql = format!(
            "SELECT toString(hold_id) AS id, tenant_id, entity_type, entity_id, reason, changed_by AS by, toUnixTimestamp64Milli(changed_at) AS at_ms \
             FROM `{}`.`legal_holds` FINAL WHERE is_active ORDER BY tenant_id, entity_type, entity_id, at_ms",
            self.database()
        );
        let rows: Vec<HoldRow> = self.fetch(&sql).await?;
        let hold = |row: HoldRow| Hold {
            id: row.id,
            scope: HoldScope { tenant_id: row.tenant_id, entity_type: row.entity_type, entity_id: row.entity_id },
            reason: row.reason,
            by: row.by,
            at_ms: row.at_ms,
        };
        Ok(rows.into_iter().map(hold).collect())
    }

    /// What the holds keep.
    pub(crate) async fn held_scopes(&self) -> Result<Vec<HoldScope>, CallError> {
        let mut scopes: Vec<_> = self.holds().await?.into_iter().map(|hold| hold.scope).collect();
        scopes.sort();
        scopes.dedup();
        Ok(scopes)
    }

    /// Sets a hold; when this returns nothing of it is deleted any more. `id` is a UUID that no other hold has.
    ///
    /// # Errors
    /// See [`RetentionError`]. After one the hold may be set, and then it is listed; rows stay rather than go.
    pub async fn add_hold(&self, id: &str, scope: &HoldScope, reason: &str, by: &str) -> Result<(), RetentionError> {
        let target = self.live_target().await?;
        let target = target.borrow(self.database());
        self.ttl_merges(&target, "STOP").await?;
        self.change_hold(id, scope, reason, by, true).await?;
        let cut_short = self.stop_materializing(&target).await?;
        self.follow(&target, Existing::Left).await?;
        for table in cut_short {
            self.execute(&format!("ALTER TABLE {table}{} MATERIALIZE TTL {IN_BACKGROUND}", target.on_cluster()))
                .await?;
        }
        Ok(())
    }

    /// Takes a hold off: what is past its time goes with the next merges.
    ///
    /// # Errors
    /// See [`RetentionError`].
    pub async fn remove_hold(&self, id: &str, reason: &str, by: &str) -> Result<Hold, RetentionError> {
        let hold = self.holds().await?.into_iter().find(|hold| hold.id == id);
        let hold = hold.ok_or_else(|| RetentionError::NoHold(id.to_owned()))?;
        let target = self.live_target().await?;
        let target = target.borrow(self.database());
        self.ttl_merges(&target, "STOP").await?;
        self.change_hold(id, &hold.scope, reason, by, false).await?;
        self.follow(&target, Existing::Too).await?;
        Ok(hold)
    }

    async fn change_hold(
        &self,
        id: &str,
        scope: &HoldScope,
        reason: &str,
        by: &str,
        is_active: bool,
    ) -> Result<(), CallError> {
        // The version is the server's time, above that of any row before it.
        let table = format!("`{}`.`legal_holds`", self.database());
        let [id, tenant, kind, entity, reason, by] =
            [id, &scope.tenant_id, &scope.entity_type, &scope.entity_id, reason, by].map(quoted);
        self.execute(&format!(
            "INSERT INTO {table} (hold_id, tenant_id, entity_type, entity_id, reason, is_active, changed_by, changed_at, version) \
             SELECT toUUID({id}), {tenant}, {kind}, {entity}, {reason}, {}, {by}, now64(3, 'UTC'), \
             greatest(toUnixTimestamp64Milli(now64(3)), (SELECT toInt64(max(version)) + 1 FROM {table} WHERE hold_id = toUUID({id}))) \
             SETTINGS async_insert = 0, distributed_foreground_insert = 1",
            u8::from(is_active)
        ))
        .await
    }

    /// The retention that was applied last; `None` when none ever was.
    ///
    /// # Errors
    /// See [`RetentionError`].
    pub async fn applied_retention(&self) -> Result<Option<Retention>, RetentionError> {
        let sql = format!(
            "SELECT default_days, rules, dead_letter_days FROM `{}`.`retention_policies` ORDER BY applied_at DESC LIMIT 1",
            self.database()
        );
        let rows: Vec<PolicyRow> = self.fetch(&sql).await?;
        let Some(PolicyRow { default_days, rules, dead_letter_days }) = rows.into_iter().next() else {
            return Ok(None);
        };
        let rules = rules.parse().map_err(RetentionError::Rules)?;
        Ok(Some(Retention { rules, default_days, dead_letter_days }))
    }

    /// Makes the tables follow `retention`; what is past its time goes with the next merges.
    ///
    /// # Errors
    /// See [`RetentionError`].
    pub async fn apply_retention(&self, retention: &Retention, by: &str) -> Result<(), RetentionError> {
        let target = self.live_target().await?;
        let target = target.borrow(self.database());
        self.ttl_merges(&target, "STOP").await?;
        self.execute(&format!(
            "INSERT INTO `{}`.`retention_policies` (applied_at, applied_by, default_days, rules, dead_letter_days) \
             SELECT now64(6, 'UTC'), {}, {}, {}, {} SETTINGS async_insert = 0, distributed_foreground_insert = 1",
            self.database(),
            quoted(by),
            retention.default_days,
            quoted(&retention.rules.to_string()),
            retention.dead_letter_days
        ))
        .await?;
        self.follow(&target, Existing::Too).await
    }

    /// What `retention` means for what is stored: a row for each class.
    ///
    /// # Errors
    /// See [`RetentionError`].
    pub async fn overdue(&self, retention: &Retention) -> Result<Vec<Overdue>, RetentionError> {
        let held = held(&self.held_scopes().await?).unwrap_or_else(|| "0".to_owned());
        let mut found = Vec::new();
        for class in retention.classes() {
            let condition = if class.condition.is_empty() { "1" } else { &class.condition };
            let past = if class.days == 0 { "0".to_owned() } else { format!("{} <= now()", class.expiry()) };
            let sql = format!(
                "SELECT count(), countIf(({past}) AND NOT ({held})), countIf(({past}) AND ({held})) FROM `{}`.`events` FINAL WHERE {condition} \
                 SETTINGS do_not_merge_across_partitions_select_final = 1",
                self.database()
            );
            let (rows, overdue, held): (u64, u64, u64) = self.fetch_one(&sql).await?;
            found.push(Overdue { class, rows, overdue, held });
        }
        Ok(found)
    }

    /// Gives both tables the TTL of the applied retention and the holds, and lets merges delete again.
    async fn follow(&self, target: &Target<'_>, existing: Existing) -> Result<(), RetentionError> {
        let retention = self.applied_retention().await?.unwrap_or_default();
        let holds = self.held_scopes().await?;
        for (table, ttl) in [("events", retention.ttl(&holds)), ("dead_letters", retention.dead_letter_ttl(&holds))] {
            self.set_ttl(target, table, ttl.as_deref(), existing).await?;
            if existing == Existing::Left {
                self.wait_for_merges(target, table).await?;
            }
        }
        Ok(self.ttl_merges(target, "START").await?)
    }

    async fn set_ttl(
        &self,
        target: &Target<'_>,
        table: &str,
        ttl: Option<&str>,
        existing: Existing,
    ) -> Result<(), CallError> {
        let own = own_table(target, table);
        let on_cluster = target.on_cluster();
        let (database, name) = own.split_once('.').unwrap_or((target.database, table));
        let engine: String = self
            .fetch_one(&format!(
                "SELECT engine_full FROM system.tables WHERE database = {} AND name = {}",
                quoted(database),
                quoted(name)
            ))
            .await?;
        let has_one = engine.contains(" TTL ");
        match ttl {
            None if !has_one => return Ok(()),
            None => return self.execute(&format!("ALTER TABLE {own}{on_cluster} REMOVE TTL")).await,
            Some(ttl) => {
                self.execute(&format!(
                    "ALTER TABLE {own}{on_cluster} MODIFY TTL {ttl} SETTINGS materialize_ttl_after_modify = 0"
                ))
                .await?;
            }
        }
        // Parts that nothing would merge again learn of the rules by a mutation in the background.
        match existing {
            Existing::Too => {
                self.execute(&format!("ALTER TABLE {own}{on_cluster} MATERIALIZE TTL {IN_BACKGROUND}")).await
            }
            Existing::Left => Ok(()),
        }
    }

    /// Ends mutations that carry an older TTL through the tables, which stopping TTL merges does not; answers the tables that had one.
    async fn stop_materializing(&self, target: &Target<'_>) -> Result<Vec<String>, CallError> {
        let mut had_one = Vec::new();
        for table in ["events", "dead_letters"] {
            let own = own_table(target, table);
            let name = own.split_once('.').map_or(table, |(_, name)| name);
            let filter = format!(
                "database = {} AND table = {} AND NOT is_done AND command LIKE '%MATERIALIZE TTL%'",
                quoted(target.database),
                quoted(name)
            );
            let of = match target.cluster {
                Some(cluster) => format!("clusterAllReplicas({}, system.mutations)", quoted(cluster)),
                None => "system.mutations".to_owned(),
            };
            let running: u64 = self.fetch_one(&format!("SELECT count() FROM {of} WHERE {filter}")).await?;
            if running > 0 {
                self.execute(&format!("KILL MUTATION{} WHERE {filter} SYNC", target.on_cluster())).await?;
                had_one.push(own);
            }
        }
        Ok(had_one)
    }

    async fn ttl_merges(&self, target: &Target<'_>, verb: &str) -> Result<(), CallError> {
        for table in ["events", "dead_letters"] {
            let own = own_table(target, table);
            self.execute(&format!("SYSTEM {verb} TTL MERGES{} {own}", target.on_cluster())).await?;
        }
        Ok(())
    }

    /// Until no merge or mutation runs that may have begun under an older TTL.
    async fn wait_for_merges(&self, target: &Target<'_>, table: &str) -> Result<(), RetentionError> {
        let own = own_table(target, table);
        let name = own.split_once('.').map_or(table, |(_, name)| name).to_owned();
        let of = match target.cluster {
            Some(cluster) => format!("clusterAllReplicas({}, system.merges)", quoted(cluster)),
            None => "system.merges".to_owned(),
        };
        let filter = format!("database = {} AND table = {}", quoted(target.database), quoted(&name));
        let before: Vec<String> = self.fetch(&format!("SELECT result_part_name FROM {of} WHERE {filter}")).await?;
        let until = Instant::now() + MERGES_LIMIT;
        loop {
            let now: Vec<String> = self.fetch(&format!("SELECT result_part_name FROM {of} WHERE {filter}")).await?;
            if !before.iter().any(|part| now.contains(part)) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(RetentionError::StillMerging { table: own });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// One server, or the cluster behind the table of events.
    pub(crate) async fn live_target(&self) -> Result<LiveTarget, CallError> {
        Ok(LiveTarget { cluster: self.cluster_of_events().await? })
    }
}

/// Where the tables are.
pub(crate) struct LiveTarget {
    pub(crate) cluster: Option<String>,
}

impl LiveTarget {
    pub(crate) fn borrow<'a>(&'a self, database: &'a str) -> Target<'a> {
        Target { database, cluster: self.cluster.as_deref() }
    }
}

/// The table that has the rows.
fn own_table(target: &Target<'_>, table: &str) -> String {
    let tail = if target.cluster.is_some() { "_local" } else { "" };
    format!("{}.{table}{tail}", target.database)
}
