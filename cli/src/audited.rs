//! The program's own deeds as audit events: who set a hold, applied a retention, archived or restored a partition.
//!
//! Promise: what can't be undone begins only when Kafka has acknowledged the event that tells of it.

use std::time::Duration;

use anyhow::Context as _;
use auditstream_producer::Producer;
use auditstream_schemas::{Actor, AuditEvent, Outcome, Priority};

use crate::config::Settings;

/// The tenant of deeds that are about the installation and not about one tenant.
pub(crate) const INSTALLATION: &str = "auditstream";
/// Longest wait for the acknowledgement.
const LIMIT: Duration = Duration::from_secs(30);

/// What is done to what.
#[derive(Debug, Clone)]
pub(crate) struct Deed {
    /// Such as `audit.archive`.
    pub(crate) action: &'static str,
    pub(crate) tenant: String,
    pub(crate) entity_type: &'static str,
    pub(crate) entity_id: String,
    /// A JSON object.
    pub(crate) details: serde_json::Value,
}

/// Who runs this program, as far as the system says.
pub(crate) fn who() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    named.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// Does `work` between two events: that it begins, and how it ended. Without the first one nothing is done.
pub(crate) async fn around<T>(
    settings: &Settings,
    deed: Deed,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tell(settings, &deed, "begin", None).await.context("nothing was done")?;
    let result = work.await;
    let failure = result.as_ref().err().map(|error| format!("{error:#}"));
    let told = tell(settings, &deed, "end", failure.as_deref()).await;
    let result = result?;
    told.context("it was done, but")?;
    Ok(result)
}

/// Tells of a deed that was done already.
pub(crate) async fn done(settings: &Settings, deed: &Deed) -> anyhow::Result<()> {
    tell(settings, deed, "end", None).await.context("it was done, but")
}

async fn tell(settings: &Settings, deed: &Deed, phase: &str, failure: Option<&str>) -> anyhow::Result<()> {
    let attempt = async {
        let mut config = settings.producer();
        config.framing = settings.framing().await?;
        config.client_id = "auditstream-admin".to_owned();
        // In the spill it would wait for a service that runs.
        config.spill = None;
        let mut details = deed.details.clone();
        if let Some(details) = details.as_object_mut() {
            details.insert("phase".to_owned(), phase.into());
        }
        let mut event =
            AuditEvent::builder(&deed.tenant, "auditstream", deed.action, deed.entity_type, &deed.entity_id)
                .details(details.to_string())
                .with(|event| {
                    event.actor = Actor::user(who());
                    event.priority = Priority::Critical;
                })
                .build()?;
        if let Some(failure) = failure {
            event.outcome = Outcome::Failure;
            event.error_message = Some(failure.chars().take(1_000).collect());
        }
        let producer = Producer::new(config)?;
        let told = tokio::time::timeout(LIMIT, producer.record_acked(event)).await;
        producer.shutdown(Duration::from_secs(5)).await;
        told.context("kafka did not acknowledge it in time")??;
        Ok::<_, anyhow::Error>(())
    };
    attempt.await.with_context(|| format!("the audit event {} could not be sent", deed.action))
}
