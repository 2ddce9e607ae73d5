//! ClickHouse: does it answer, is it migrated, and do the tables hold what this version writes, everywhere?

use auditstream_store::{CallError, Replica, ReplicaState, ShapeError};

use super::{Context, Finding};

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
        Ok(wrong) => wrong.iter().map(|error| table(error, "")).collect(),
        // The first check has said it.
        Err(_) => Vec::new(),
    }
}

/// A table that does not fit, on `server` (empty: the one that was asked).
fn table(error: &ShapeError, server: &str) -> Finding {
    let on = if server.is_empty() { String::new() } else { format!("on {server}: ") };
    match error {
        ShapeError::Columns { database, table, problems, ddl } => Finding {
            ddl: ddl.clone(),
            ..Finding::wrong(
                format!(
                    "{on}table {database}.{table} is not of the shape this version writes: {}",
                    problems.join("; ")
                ),
                format!(
                    "run these statements{}:",
                    if server.is_empty() { String::new() } else { format!(" on {server}") }
                ),
            )
        },
        ShapeError::NoTable { database, table, user } => Finding::wrong(
            format!("{on}table {database}.{table} does not exist or is hidden from user {user}"),
            format!(
                "auditstream migrate{}",
                if server.is_empty() { String::new() } else { format!(", against {server}") }
            ),
        ),
        other => Finding::wrong(format!("{on}{other}"), "see what ClickHouse says"),
    }
}

pub(super) async fn replicas(context: &Context<'_>) -> Vec<Finding> {
    let cluster = match context.cluster {
        Some(cluster) => cluster.to_owned(),
        None => match context.store.cluster_of_events().await {
            Ok(Some(cluster)) => cluster,
            // One server, which `tables` looked at, or none that answers.
            Ok(None) | Err(_) => return Vec::new(),
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
        ReplicaState::Wrong(wrong) => wrong.iter().map(|error| table(error, address)).collect(),
    };
    replicas.iter().flat_map(one).collect()
}
