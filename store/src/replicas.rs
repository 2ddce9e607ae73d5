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
    /// What is wrong, one for each table, with the table's name and its database's there: behind a Distributed `events` stands perhaps `events_local`.
    /// The statements are for that table.
    Wrong(Vec<(String, ShapeError)>),
}

#[derive(Row, Deserialize)]
struct Member {
    address: String,
}

#[derive(Row, Deserialize)]
struct RemoteColumn {
    replica: u32,
    database: String,
    table: String,
    name: String,
    #[serde(rename = "type")]
    clickhouse_type: String,
}

#[derive(Row, Deserialize)]
struct Facade {
    name: String,
    engine_full: String,
}

#[derive(Row, Deserialize)]
struct Macro {
    #[serde(rename = "macro")]
    name: String,
    substitution: String,
}

/// A table of ours as the servers of a cluster have it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Local {
    /// What it is to inserts: `events`.
    ours: &'static str,
    database: String,
    table: String,
}

impl Local {
    fn of(database: &str, facades: &[Facade]) -> Vec<Self> {
        let local = |ours: &'static str| {
            let behind =
                facades.iter().find(|facade| facade.name == ours).and_then(|facade| arguments(&facade.engine_full));
            let (database, table) = match behind {
                // Without a database it is the default one of the cluster's user.
                Some([_, database, table]) if database.is_empty() => ("default".to_owned(), table),
                Some([_, database, table]) => (database, table),
                None => (database.to_owned(), ours.to_owned()),
            };
            Self { ours, database, table }
        };
        OURS.map(local).into()
    }

    /// `error`, which is about our table, for this one: its name, and statements that alter it.
    fn relabel(&self, error: ShapeError) -> (String, ShapeError) {
        let Self { ours, database: here, table } = self;
        let error = match error {
            ShapeError::NoTable { table, user, .. } => ShapeError::NoTable { database: here.clone(), table, user },
            ShapeError::Columns { database, table: of, problems, ddl } => {
                let alter = |database: &str, table: &str| format!("ALTER TABLE `{database}`.`{table}` ");
                let (from, to) = (alter(&database, ours), alter(here, table));
                let ddl = ddl.iter().map(|sql| sql.replacen(&from, &to, 1)).collect();
                ShapeError::Columns { database: here.clone(), table: of, problems, ddl }
            }
            other => other,
        };
        (format!("{here}.{table}"), error)
    }
}

/// Tables that inserts write.
const OURS: [&str; 3] = ["events", "ledger", "dead_letters"];

/// Cluster, database and table out of `Distributed('cluster', 'database', 'table', …) …`, as ClickHouse writes it; names without quotes are taken too.
fn arguments(engine_full: &str) -> Option<[String; 3]> {
    let mut rest = engine_full.strip_prefix("Distributed(")?;
    let mut found: [String; 3] = Default::default();
    for argument in &mut found {
        rest = rest.trim_start_matches([',', ' ']);
        match rest.strip_prefix('\'') {
            Some(text) => {
                let mut letters = text.char_indices();
                rest = loop {
                    match letters.next()? {
                        (at, '\'') => break text.get(at + 1..)?,
                        (_, '\\') => argument.push(letters.next()?.1),
                        (_, letter) => argument.push(letter),
                    }
                };
            }
            None => {
                let end = rest.find([',', ')'])?;
                *argument = rest.get(..end)?.trim().to_owned();
                rest = rest.get(end..)?;
            }
        }
    }
    Some(found)
}

fn expanded(text: &str, macros: &[Macro]) -> String {
    macros
        .iter()
        .fold(text.to_owned(), |text, Macro { name, substitution }| text.replace(&format!("{{{name}}}"), substitution))
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
        let facades = self.facades().await?;
        let events =
            facades.iter().find(|facade| facade.name == "events").and_then(|facade| arguments(&facade.engine_full));
        match events {
            Some([cluster, ..]) if !cluster.is_empty() => Ok(Some(self.expanded(cluster).await?)),
            _ => Ok(None),
        }
    }

    /// Those of our tables that are Distributed.
    async fn facades(&self) -> Result<Vec<Facade>, CallError> {
        let tables = OURS.map(quoted).join(", ");
        self.fetch(&format!(
            "SELECT name, engine_full FROM system.tables WHERE database = {} AND name IN ({tables}) AND engine = 'Distributed'",
            quoted(self.database())
        ))
        .await
    }

    /// A cluster's name with the server's macros in it, such as `{cluster}`.
    async fn expanded(&self, cluster: String) -> Result<String, CallError> {
        if !cluster.contains('{') {
            return Ok(cluster);
        }
        let macros: Vec<Macro> = self.fetch("SELECT macro, substitution FROM system.macros").await?;
        Ok(expanded(&cluster, &macros))
    }

    /// The tables on every replica of every shard of a cluster, for a Distributed table the one behind it; empty when the server asked knows no such cluster. Needs the right `REMOTE`.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn check_replicas(&self, cluster: &str) -> Result<Vec<Replica>, CallError> {
        let name = quoted(&self.expanded(cluster.to_owned()).await?);
        let members: Vec<Member> = self
            .fetch(&format!(
                "SELECT host_name || ':' || toString(port) AS address FROM system.clusters WHERE cluster = {name} \
                 ORDER BY shard_num, replica_num LIMIT 1 BY host_name, port"
            ))
            .await?;
        if members.is_empty() {
            return Ok(Vec::new());
        }
        let locals = Local::of(self.database(), &self.facades().await?);
        let tables = locals.iter().map(|local| format!("({}, {})", quoted(&local.database), quoted(&local.table)));
        let tables = tables.collect::<Vec<_>>().join(", ");
        // To `clusterAllReplicas` every replica is a shard of its own, counted from 1 in the order above; one that is there twice counts once.
        let settings = "SETTINGS skip_unavailable_shards = 1, prefer_localhost_replica = 0";
        let answering: Vec<u32> =
            self.fetch(&format!("SELECT _shard_num FROM clusterAllReplicas({name}, system.one) {settings}")).await?;
        let columns: Vec<RemoteColumn> = self
            .fetch(&format!(
                "SELECT _shard_num AS replica, database, table, name, type FROM clusterAllReplicas({name}, system.columns) \
                 WHERE (database, table) IN ({tables}) {settings}"
            ))
            .await?;
        let replicas = (1..).zip(members).map(|(number, Member { address })| {
            let here = columns.iter().filter(|column| column.replica == number);
            let live: Vec<LiveColumn> = here
                .filter_map(|RemoteColumn { database, table, name, clickhouse_type, .. }| {
                    let local = locals.iter().find(|local| local.database == *database && local.table == *table)?;
                    Some(LiveColumn {
                        table: local.ours.to_owned(),
                        name: name.clone(),
                        clickhouse_type: clickhouse_type.clone(),
                    })
                })
                .collect();
            let state = match self.judge(&live) {
                _ if !answering.contains(&number) => ReplicaState::Unreachable,
                wrong if wrong.is_empty() => ReplicaState::Fits,
                wrong => ReplicaState::Wrong(wrong.into_iter().map(|error| named(&locals, error)).collect()),
            };
            Replica { address, state }
        });
        Ok(replicas.collect())
    }
}

/// What is wrong with one of our tables, for the one that stands behind it.
fn named(locals: &[Local], error: ShapeError) -> (String, ShapeError) {
    let ours = match &error {
        ShapeError::NoTable { table, .. } | ShapeError::Columns { table, .. } => *table,
        ShapeError::Ask(_) => "",
    };
    match locals.iter().find(|local| local.ours == ours) {
        Some(local) => local.relabel(error),
        None => (ours.to_owned(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facade(engine_full: &str) -> Facade {
        Facade { name: "events".to_owned(), engine_full: engine_full.to_owned() }
    }

    #[test]
    fn a_distributed_table_says_what_stands_behind_it() {
        for (engine, expected) in [
            ("Distributed('pair', 'audit', 'events_local')", Some(["pair", "audit", "events_local"])),
            ("Distributed('{cluster}', '', 'e', rand()) SETTINGS x = 1", Some(["{cluster}", "", "e"])),
            (r"Distributed('it\'s, here', 'a\\b', 'c')", Some(["it's, here", r"a\b", "c"])),
            ("Distributed(pair, audit, events_local, cityHash64(x))", Some(["pair", "audit", "events_local"])),
            ("Distributed('pair', 'audit", None),
            ("MergeTree ORDER BY x", None),
        ] {
            assert_eq!(arguments(engine), expected.map(|names| names.map(str::to_owned)), "{engine}");
        }
        let [events, ledger, _] = &*Local::of("audit", &[facade("Distributed('c', '', 'e')")]) else {
            unreachable!("three tables");
        };
        assert_eq!((events.ours, &*events.database, &*events.table), ("events", "default", "e"));
        assert_eq!((&*ledger.database, &*ledger.table), ("audit", "ledger"));
    }

    #[test]
    fn a_clusters_name_may_be_a_macro() {
        let macros = [Macro { name: "cluster".to_owned(), substitution: "pair".to_owned() }];
        assert_eq!(expanded("{cluster}_all", &macros), "pair_all");
        assert_eq!(expanded("{other}", &macros), "{other}");
    }

    #[test]
    fn statements_are_for_the_table_that_has_the_rows() {
        let locals = Local::of("audit", &[facade("Distributed('c', 'shard', 'events_local')")]);
        let columns = |table: &'static str| ShapeError::Columns {
            database: "audit".to_owned(),
            table,
            problems: vec!["column ip is missing".to_owned()],
            ddl: vec![format!("ALTER TABLE `audit`.`{table}` ADD COLUMN IF NOT EXISTS `ip` String;")],
        };
        for (table, name, statement) in [
            (
                "events",
                "shard.events_local",
                "ALTER TABLE `shard`.`events_local` ADD COLUMN IF NOT EXISTS `ip` String;",
            ),
            ("ledger", "audit.ledger", "ALTER TABLE `audit`.`ledger` ADD COLUMN IF NOT EXISTS `ip` String;"),
        ] {
            let (there, error) = named(&locals, columns(table));
            assert_eq!(there, name);
            assert!(matches!(&error, ShapeError::Columns { ddl, .. } if *ddl == [statement]), "{error:?}");
        }
    }
}
