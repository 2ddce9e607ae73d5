//! The tables on every server of a cluster: a replica that missed an `ALTER` refuses or loses what the others take.

use clickhouse::Row;
use serde::Deserialize;

use crate::client::{Store, quoted};
use crate::errors::CallError;
use crate::migrations::MIGRATIONS;
use crate::shape::{LiveColumn, ShapeError};

/// One server of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// `HOST:PORT` as the cluster's definition has it.
    pub address: String,
    /// How its tables are.
    pub state: ReplicaState,
}

/// How a server's tables are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// They hold every column that this version inserts.
    Fits,
    /// The server that was asked can't reach this one.
    Unreachable,
    /// What is wrong, one for each table.
    Wrong(Vec<ShapeError>),
}

#[derive(Row, Deserialize)]
struct Member {
    address: String,
}

#[derive(Row, Deserialize)]
struct RemoteColumn {
    replica: u32,
    table: String,
    name: String,
    #[serde(rename = "type")]
    clickhouse_type: String,
}

impl Store {
    /// Every table on the server asked that does not hold what this version inserts.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn wrong_tables(&self) -> Result<Vec<ShapeError>, CallError> {
        let sql = format!("SELECT table, name, type FROM system.columns {}", self.our_tables());
        let live: Vec<LiveColumn> = self.fetch(&sql).await?;
        Ok(self.judge(&live))
    }

    /// Names of this version's migrations that are not recorded in the database, in order.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout; also when nothing was ever migrated.
    pub async fn pending_migrations(&self) -> Result<Vec<&'static str>, CallError> {
        let sql = format!("SELECT DISTINCT version FROM `{}`.`schema_migrations`", self.database());
        let recorded: Vec<u32> = self.fetch(&sql).await?;
        let pending = MIGRATIONS.iter().filter(|migration| !recorded.contains(&migration.version));
        Ok(pending.map(|migration| migration.name).collect())
    }

    /// The cluster behind the table of events, when that is a Distributed one.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn cluster_of_events(&self) -> Result<Option<String>, CallError> {
        let sql = format!(
            "SELECT extract(engine_full, '^Distributed\\\\(\\'?([^\\',]+)') FROM system.tables \
             WHERE database = {} AND name = 'events' AND engine = 'Distributed'",
            quoted(self.database())
        );
        let found: Vec<String> = self.fetch(&sql).await?;
        Ok(found.into_iter().next().filter(|name| !name.is_empty()))
    }

    /// The tables on every replica of every shard of a cluster; empty when the server asked knows no such cluster. Needs the right `REMOTE`.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn check_replicas(&self, cluster: &str) -> Result<Vec<Replica>, CallError> {
        let name = quoted(cluster);
        let members: Vec<Member> = self
            .fetch(&format!(
                "SELECT host_name || ':' || toString(port) AS address FROM system.clusters WHERE cluster = {name} \
                 ORDER BY shard_num, replica_num"
            ))
            .await?;
        if members.is_empty() {
            return Ok(Vec::new());
        }
        // To `clusterAllReplicas` every replica is a shard of its own, counted from 1 in the order above.
        let settings = "SETTINGS skip_unavailable_shards = 1, prefer_localhost_replica = 0";
        let answering: Vec<u32> =
            self.fetch(&format!("SELECT _shard_num FROM clusterAllReplicas({name}, system.one) {settings}")).await?;
        let columns: Vec<RemoteColumn> = self
            .fetch(&format!(
                "SELECT _shard_num AS replica, table, name, type FROM clusterAllReplicas({name}, system.columns) {} {settings}",
                self.our_tables()
            ))
            .await?;
        let replicas = (1..).zip(members).map(|(number, Member { address })| {
            let live: Vec<LiveColumn> = columns
                .iter()
                .filter(|column| column.replica == number)
                .map(|RemoteColumn { table, name, clickhouse_type, .. }| LiveColumn {
                    table: table.clone(),
                    name: name.clone(),
                    clickhouse_type: clickhouse_type.clone(),
                })
                .collect();
            let state = match self.judge(&live) {
                _ if !answering.contains(&number) => ReplicaState::Unreachable,
                wrong if wrong.is_empty() => ReplicaState::Fits,
                wrong => ReplicaState::Wrong(wrong),
            };
            Replica { address, state }
        });
        Ok(replicas.collect())
    }
}
