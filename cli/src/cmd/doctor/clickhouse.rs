//! ClickHouse: does it answer, is it migrated, and do the tables hold what this version writes, everywhere?

use auditstream_store::{CallError, Replica, ReplicaState, ShapeError};

use super::{Context, Finding};
use crate::cmd::consumer::pause::words;

/// What helps against a call that failed.
fn failed(context: &Context<'_>, what: &str, error: &CallError) -> Finding {
    let clickhouse = &context.settings.clickhouse;
    let remedy = match error.code {
        Some(497) => {
            format!("grant it, or look with another user: AUDITSTREAM_CLICKHOUSE__USER (now {})", clickhouse.user)
        }
        Some(516 | 192 | 193) => "set clickhouse.user and clickhouse.password, or clickhouse.password_file".to_owned(),
        Some(_) => "see what ClickHouse says".to_owned(),
        None => format!("start ClickHouse, or set clickhouse.url (now {})", clickhouse.url),
    };
    Finding::wrong(format!("{what}: {error}"), remedy)
}

pub(super) async fn answers(context: &Context<'_>) -> Vec<Finding> {
    let clickhouse = &context.settings.clickhouse;
    vec![match context.store.ping().await {
        Ok(()) => Finding::fine(format!("{} answers to {}", clickhouse.url, clickhouse.user)),
        Err(error) => failed(context, "no answer", &error),
    }]
}

pub(super) async fn migrations(context: &Context<'_>) -> Vec<Finding> {
    if context.store.ping().await.is_err() {
        // Said already.
        return Vec::new();
    }
    vec![match context.store.pending_migrations().await {
        Ok(pending) if pending.is_empty() => Finding::fine("all are applied"),
        Ok(pending) => Finding::wrong(format!("not applied: {}", pending.join(", ")), "auditstream migrate"),
        // The workers' user may not read them, and needs not; an unknown table or database has codes of its own.
        Err(error) if error.code == Some(497) => {
            let user = &context.settings.clickhouse.user;
            Finding::note(format!("{user} may not see which are applied"), "look with audit_admin")
        }
        Err(error) if matches!(error.code, Some(60 | 81)) => {
            Finding::wrong("none was ever applied to this database", "auditstream migrate")
        }
        Err(error) => failed(context, "unknown", &error),
    }]
}

pub(super) async fn tables(context: &Context<'_>) -> Vec<Finding> {
    match context.store.wrong_tables().await {
        Ok(wrong) if wrong.is_empty() => vec![Finding::fine("they hold every column that this version writes")],
        Ok(wrong) => wrong.iter().map(|error| table(error, None)).collect(),
        Err(error) => unseen(context, "the tables can't be looked at", &error).await,
    }
}

/// Whether an operator has paused the group.
pub(super) async fn pause(context: &Context<'_>) -> Vec<Finding> {
    let (group, topic) = (&context.settings.consumer.group_id, &context.settings.kafka.topic);
    match context.store.pause(group, topic).await {
        Ok(None) => vec![Finding::fine(format!("group {group} is not paused"))],
        Ok(Some(pause)) => {
            let found = format!("group {group} reads nothing of topic {topic}: {}", words(&pause));
            vec![Finding::note(found, "auditstream consumer resume, when the reason is gone")]
        }
        // Migrations that are seen to be missing were told already.
        Err(error) if matches!(error.code, Some(60 | 81)) && may_be_told(context).await => Vec::new(),
        Err(error) => {
            unseen(context, "whether the group is paused can't be read, so workers don't start", &error).await
        }
    }
}

async fn may_be_told(context: &Context<'_>) -> bool {
    match context.store.pending_migrations().await {
        Ok(pending) => !pending.is_empty(),
        Err(error) => matches!(error.code, Some(60 | 81)),
    }
}

/// A question that failed. When nothing at all is answered, the first check has said it.
async fn unseen(context: &Context<'_>, what: &str, error: &CallError) -> Vec<Finding> {
    match context.store.ping().await {
        Ok(()) => vec![failed(context, what, error)],
        Err(_) => Vec::new(),
    }
}

/// A replica, and what the table is called there.
struct There<'a> {
    server: &'a str,
    name: &'a str,
}

/// A table that does not fit, on a replica or on the server that was asked.
fn table(error: &ShapeError, there: Option<&There<'_>>) -> Finding {
    let on = there.map(|there| format!("on {}: ", there.server)).unwrap_or_default();
    let name = |database: &str, table: &str| there.map_or(format!("{database}.{table}"), |there| there.name.to_owned());
    match error {
        ShapeError::Columns { database, table, problems, ddl } => Finding {
            ddl: ddl.clone(),
            ..Finding::wrong(
                format!(
                    "{on}table {} is not of the shape this version writes: {}",
                    name(database, table),
                    problems.join("; ")
                ),
                format!(
                    "run these statements{}:",
                    there.map(|there| format!(" on {}", there.server)).unwrap_or_default()
                ),
            )
        },
        ShapeError::NoTable { database, table, user } => {
            let name = name(database, table);
            let remedy = match there {
                None => "auditstream migrate".to_owned(),
                Some(There { server, .. }) if name.ends_with(&format!(".{table}")) => {
                    format!("auditstream migrate, against {server}")
                }
                // The migrations know only our own names.
                Some(There { server, .. }) => {
                    format!("create it on {server} as SHOW CREATE TABLE {name} says on a server that has it")
                }
            };
            Finding::wrong(format!("{on}table {name} does not exist or is hidden from user {user}"), remedy)
        }
        other => Finding::wrong(format!("{on}{other}"), "see what ClickHouse says"),
    }
}

pub(super) async fn replicas(context: &Context<'_>) -> Vec<Finding> {
    let cluster = match context.cluster {
        Some(cluster) => cluster.to_owned(),
        None => match context.store.cluster_of_events().await {
            Ok(Some(cluster)) => cluster,
            // One server, which `tables` looked at.
            Ok(None) => return Vec::new(),
            Err(error) => return unseen(context, "whether the tables are on a cluster can't be seen", &error).await,
        },
    };
    let replicas = match context.store.check_replicas(&cluster).await {
        Ok(replicas) => replicas,
        Err(error) => {
            return vec![failed(context, &format!("the replicas of cluster {cluster} can't be seen"), &error)];
        }
    };
    if replicas.is_empty() {
        let remedy = "name one of SELECT DISTINCT cluster FROM system.clusters with --cluster";
        return vec![Finding::wrong(format!("ClickHouse knows no cluster {cluster}"), remedy)];
    }
    let one = |Replica { address, state }: &Replica| match state {
        ReplicaState::Fits => vec![Finding::fine(format!("{address} of cluster {cluster} holds every column"))],
        ReplicaState::Unreachable => vec![Finding::wrong(
            format!("{address} of cluster {cluster} can't be reached from {}", context.settings.clickhouse.url),
            "start it, or see remote_servers in ClickHouse's configuration: host, port, user and password",
        )],
        ReplicaState::Wrong(wrong) => {
            let one = |(name, error): &(String, ShapeError)| table(error, Some(&There { server: address, name }));
            wrong.iter().map(one).collect()
        }
    };
    replicas.iter().flat_map(one).collect()
}
