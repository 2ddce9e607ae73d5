//! `auditstream consumer pause` and `resume`, and whether a group is paused, for the commands that look at it.
//!
//! The state stands in ClickHouse, where every worker asks for it every few seconds and before it first reads: so it outlasts workers, and holds while
//! ClickHouse is away.

use std::time::Duration;

use anyhow::Context;
use auditstream_schemas::Timestamp;
use auditstream_store::{CallError, Pause, PauseAction, Store};
use serde_json::json;

use crate::admin::Admin;
use crate::audit::{Auditor, Deed, INSTALLATION};
use crate::config::Settings;
use crate::confirm::Consent;
use crate::{exit, output};

/// Who only looks does not wait longer for ClickHouse.
const LOOK: Duration = Duration::from_secs(3);

/// Make every worker of a group stop reading, also those that start later, until `auditstream consumer resume`.
///
/// What was read is stored and committed; then the workers keep their partitions and wait, alive and ready. Offsets stay as they
/// are, and nothing is lost as long as the topic keeps the events (kafka retention.ms). Workers notice within five seconds. One
/// that can't reach ClickHouse stays as it was, and one that starts then does not read before it knows. Audited as
/// audit.consumer_pause. Needs a ClickHouse user with the role audit_admin.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream consumer pause --reason 'clickhouse moves to other disks' --dry-run
  auditstream consumer pause --reason 'clickhouse moves to other disks' --yes
  auditstream lag")]
pub(super) struct PauseArgs {
    #[command(flatten)]
    group: Group,

    /// Why, for whoever finds it paused: at most 500 characters.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = reason)]
    reason: String,

    #[command(flatten)]
    consent: Consent,
}

/// End a pause: the workers go on where they were.
///
/// They notice within five seconds. Audited as audit.consumer_resume. Needs a ClickHouse user with the role audit_admin.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream consumer resume
  auditstream consumer resume --group auditstream-eu --yes")]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    group: Group,

    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, clap::Args)]
struct Group {
    /// The consumer group; default: consumer.group_id.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,

    /// The topic that it reads; default: kafka.topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
}

fn reason(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0..=500 if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        0..=500 => Err("has a control character".to_owned()),
        length => Err(format!("has {length} characters, more than 500")),
    }
}

/// What is to be done to which group.
struct Change<'a> {
    group: &'a str,
    topic: &'a str,
    action: PauseAction,
    reason: &'a str,
}

impl<'a> Change<'a> {
    fn new(group: &'a Group, settings: &'a Settings, action: PauseAction, reason: &'a str) -> Self {
        Change {
            group: group.group.as_deref().unwrap_or(&settings.consumer.group_id),
            topic: group.topic.as_deref().unwrap_or(&settings.kafka.topic),
            action,
            reason,
        }
    }

    fn what(&self) -> String {
        format!("group {} on topic {}", self.group, self.topic)
    }
}

pub(super) fn pause(args: &PauseArgs, settings: &Settings) -> anyhow::Result<u8> {
    change(&Change::new(&args.group, settings, PauseAction::Pause, &args.reason), args.consent, settings)
}

pub(super) fn resume(args: &ResumeArgs, settings: &Settings) -> anyhow::Result<u8> {
    change(&Change::new(&args.group, settings, PauseAction::Resume, ""), args.consent, settings)
}

fn change(change: &Change<'_>, consent: Consent, settings: &Settings) -> anyhow::Result<u8> {
    let store = Store::new(&settings.store())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let now = runtime.block_on(store.pause(change.group, change.topic)).map_err(hinted)?;
    let what = change.what();
    let effect = match (change.action, now) {
        (PauseAction::Pause, Some(pause)) => {
            output::line(&format!("nothing to do: {what} is {}", words(&pause)))?;
            return Ok(exit::OK);
        }
        (PauseAction::Resume, None) => {
            output::line(&format!("nothing to do: {what} is not paused"))?;
            return Ok(exit::OK);
        }
        (PauseAction::Pause, None) => {
            let members = Admin::connect(settings)?.members(change.group, change.topic)?.len();
            format!("{what} is paused until `auditstream consumer resume`; it has {members} members now")
        }
        (PauseAction::Resume, Some(pause)) => format!("{what}, {}, reads again", words(&pause)),
    };
    if consent.dry_run {
        output::line(&format!("it would be: {effect}; nothing was done (dry run)"))?;
        return Ok(exit::OK);
    }
    if !consent.given(&format!("{effect}. Go on?"))? {
        return Ok(exit::FAILURE);
    }
    let (name, done) = match change.action {
        PauseAction::Pause => ("audit.consumer_pause", "paused"),
        PauseAction::Resume => ("audit.consumer_resume", "not paused any more"),
    };
    let deed = Deed {
        action: name,
        tenant: INSTALLATION.to_owned(),
        entity_type: "consumer_group",
        entity_id: change.group.to_owned(),
        details: json!({ "topic": change.topic, "reason": change.reason }),
    };
    runtime.block_on(async {
        let auditor = Auditor::new(settings).await?;
        let by = (auditor.actor(), change.reason);
        let work = async || store.set_pause(change.group, change.topic, change.action, by).await.map_err(hinted);
        let result = auditor.audited(deed, work).await;
        auditor.close().await;
        result
    })?;
    output::line(&format!("done: {what} is {done}; its workers notice within 5 s"))?;
    Ok(exit::OK)
}

fn hinted(error: CallError) -> anyhow::Error {
    let hint = match error.code {
        Some(497) => "this user may not; set AUDITSTREAM_CLICKHOUSE__USER to one with the role audit_admin",
        Some(60 | 81) => "a table is missing; run `auditstream migrate`",
        _ => "clickhouse",
    };
    anyhow::Error::from(error).context(hint)
}

/// Since when, by whom and why, in words.
pub(crate) fn words(pause: &Pause) -> String {
    let since = Timestamp::from_micros(pause.since_ms.saturating_mul(1_000));
    let why = if pause.reason.is_empty() { String::new() } else { format!(": {}", pause.reason) };
    format!("paused since {since} by {}{why}", pause.actor)
}

/// The pause of the configuration's group, for who only looks.
///
/// # Errors
/// ClickHouse does not say, or not soon.
pub(crate) fn seen(settings: &Settings) -> anyhow::Result<Option<Pause>> {
    let store = Store::new(&settings.store())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let asked = store.pause(&settings.consumer.group_id, &settings.kafka.topic);
        tokio::time::timeout(LOOK, asked).await.context("clickhouse does not answer soon")?.map_err(hinted)
    })
}

/// The pause as JSON: an object, `null` where there is none, and the text `unknown`.
pub(crate) fn to_json(seen: &anyhow::Result<Option<Pause>>) -> serde_json::Value {
    match seen {
        Ok(pause) => pause.as_ref().map_or(
            serde_json::Value::Null,
            |pause| json!({ "since_ms": pause.since_ms, "actor": pause.actor, "reason": pause.reason }),
        ),
        Err(_) => json!("unknown"),
    }
}

/// A line about it, where there is anything to say.
pub(crate) fn told(seen: &anyhow::Result<Option<Pause>>) -> Option<String> {
    match seen {
        Ok(None) => None,
        Ok(Some(pause)) => Some(words(pause)),
        Err(error) => Some(format!("whether it is paused is unknown: {error}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pause_in_words_and_for_programs() {
        let pause = Pause { since_ms: 1_700_000_000_000, actor: "ops".to_owned(), reason: "disks".to_owned() };
        assert_eq!(words(&pause), "paused since 2023-11-14T22:13:20Z by ops: disks");
        assert_eq!(to_json(&Ok(None)), serde_json::Value::Null);
        assert_eq!(to_json(&Err(anyhow::anyhow!("away"))), "unknown");
        assert_eq!(told(&Ok(None)), None);
        assert!(told(&Err(anyhow::anyhow!("away"))).unwrap().contains("unknown"));
        assert_eq!(to_json(&Ok(Some(pause)))["reason"], "disks");
        assert!(reason("why\nnot").is_err() && reason(&"x".repeat(501)).is_err() && reason(&"é".repeat(500)).is_ok());
    }
}
