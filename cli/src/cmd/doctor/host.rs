//! This host: keys that are each right and together wrong, the spill's folder, the outbox's database.

use std::path::Path;

use auditstream_consumer::GroupProtocol;
use auditstream_producer::outbox::Database;

use super::{Context, Finding};
use crate::config::Settings;

/// librdkafka's defaults, and the worker's own for them
/// (<https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>).
const SESSION_MS: u64 = 45_000;
const HEARTBEAT_MS: u64 = 3_000;
/// A worker that ClickHouse holds up for less must not be thrown out of the group.
const LEAST_POLL_INTERVAL_MS: u64 = 30_000;

pub(super) async fn config(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = judge(context.settings);
    if findings.is_empty() {
        findings.push(Finding::fine("its keys fit each other"));
    }
    findings
}

fn judge(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let property = |name: &str| settings.kafka.properties.get(name).and_then(|value| value.parse::<u64>().ok());
    let consumer = &settings.consumer;
    if consumer.group_protocol == GroupProtocol::Classic {
        let session = property("session.timeout.ms").unwrap_or(SESSION_MS);
        let heartbeat = property("heartbeat.interval.ms").unwrap_or(HEARTBEAT_MS);
        if heartbeat * 3 > session {
            findings.push(Finding::wrong(
                format!("kafka.properties: heartbeat.interval.ms is {heartbeat}, session.timeout.ms {session}: one lost heartbeat, and the worker is thrown out of the group"),
                format!("set heartbeat.interval.ms to {} or less", session / 3),
            ));
        }
    }
    if let Some(interval) = property("max.poll.interval.ms").filter(|interval| *interval < LEAST_POLL_INTERVAL_MS) {
        findings.push(Finding::wrong(
            format!("kafka.properties: max.poll.interval.ms is {interval}: a worker that is held up for a moment is thrown out of the group"),
            format!("leave it out, or set it to {LEAST_POLL_INTERVAL_MS} or more"),
        ));
    }
    if consumer.batch_max_age > consumer.freshness_target {
        findings.push(Finding::note(
            format!(
                "consumer.batch_max_age_ms is {}, consumer.freshness_target_ms {}: the target can't be met",
                consumer.batch_max_age.as_millis(),
                consumer.freshness_target.as_millis()
            ),
            "lower the first, or raise the second",
        ));
    }
    findings
}

pub(super) async fn spill(context: &Context<'_>) -> Vec<Finding> {
    let Some(spill) = &context.settings.producer.spill else { return Vec::new() };
    let folder = spill.folder.display();
    vec![match writable(&spill.folder) {
        Ok(()) => Finding::fine(format!("{folder} can be written")),
        Err(error) => Finding::wrong(
            format!("{folder} can't be written by this user: {error}"),
            "make the folder for the service's user, or set producer.spill_folder to another",
        ),
    }]
}

/// Writes a file of its own there, or in the nearest folder that exists, and removes it.
fn writable(folder: &Path) -> std::io::Result<()> {
    let nearest = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let nearest = if nearest.as_os_str().is_empty() { Path::new(".") } else { nearest };
    let file = nearest.join(format!(".auditstream-doctor-{}", std::process::id()));
    std::fs::write(&file, b"written by auditstream doctor\n")?;
    std::fs::remove_file(&file)
}

pub(super) async fn outbox(context: &Context<'_>) -> Vec<Finding> {
    let Ok(url) = context.settings.outbox_url() else { return Vec::new() };
    let table = &context.settings.outbox.table;
    let wrong = |error: anyhow::Error, remedy: &str| {
        let reason = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
        vec![Finding::wrong(reason, remedy)]
    };
    let database = match Database::connect(url).await {
        Ok(database) => database,
        Err(error) => return wrong(error.into(), "start the service's database, or set outbox.url"),
    };
    let depth = database.depth(table).await;
    database.close().await;
    match depth {
        Ok(depth) if depth.failed > 0 => vec![Finding::note(
            format!("{} rows of {table} were refused as often as allowed", depth.failed),
            "auditstream outbox failed list",
        )],
        Ok(depth) => vec![Finding::fine(format!("table {table} answers, {} rows wait", depth.waiting))],
        Err(error) => wrong(error.into(), "auditstream outbox migrate"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_below_a_file_can_not_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(writable(&file.join("spill")).is_err());
        writable(&folder.path().join("not/yet/there")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }
}
