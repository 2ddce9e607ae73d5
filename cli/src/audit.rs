//! What operators do is audited like everything else: an event of tenant `auditstream` on the same topic, acknowledged before the deed.
//!
//! Promise: nothing that this module guards is done before every in-sync replica has the event that says so; when the deed fails, a second event says
//! that. No event holds a record's content.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::Context;
use auditstream_producer::Producer;
use auditstream_schemas::{Actor, AuditEvent, Operation, Outcome, Priority};
use serde_json::Value as Json;

use crate::config::Settings;
use crate::output;

/// The tenant of deeds that are about the installation and not about one tenant; and the service that all of them name.
pub(crate) const INSTALLATION: &str = "auditstream";
/// What the last acknowledgement may take at the end.
const GRACE: Duration = Duration::from_secs(5);
/// Longest wait for an acknowledgement: a person waits for the command.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// Something that somebody does.
pub(crate) struct Deed {
    /// Such as `audit.dlq_retry`.
    pub(crate) action: &'static str,
    /// Whose events, or [`INSTALLATION`].
    pub(crate) tenant: String,
    /// Kind of what it is done to.
    pub(crate) entity_type: &'static str,
    /// And which.
    pub(crate) entity_id: String,
    /// More about it: an object without anything personal.
    pub(crate) details: Json,
}

/// Tells the audit trail.
pub(crate) struct Auditor {
    producer: Producer,
    actor: String,
}

impl Auditor {
    pub(crate) async fn new(settings: &Settings) -> anyhow::Result<Auditor> {
        let framing = settings.framing().await?;
        let config = auditstream_producer::Config {
            framing,
            spill: None,
            delivery_timeout: settings.producer.delivery_timeout.min(DELIVERY_TIMEOUT),
            client_id: "auditstream-admin".to_owned(),
            ..settings.producer()
        };
        Ok(Auditor { producer: Producer::new(config)?, actor: os_user() })
    }

    /// Who is at work.
    pub(crate) fn actor(&self) -> &str {
        &self.actor
    }

    /// Says that the deed is being done, does it, and says so when it failed.
    pub(crate) async fn audited<T>(
        &self,
        deed: Deed,
        work: impl AsyncFnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.tell(&deed, Outcome::Success).await.context("nothing was done: the audit event was not acknowledged")?;
        let result = work().await;
        if result.is_err()
            && let Err(error) = self.tell(&deed, Outcome::Failure).await
        {
            output::complain(&format!("the audit trail does not know yet that it failed: {error}"));
        }
        result
    }

    async fn tell(&self, deed: &Deed, outcome: Outcome) -> anyhow::Result<()> {
        let event = AuditEvent::builder(&*deed.tenant, INSTALLATION, deed.action, deed.entity_type, &*deed.entity_id)
            .with(|event| {
                event.operation = Operation::Update;
                event.actor = Actor { name: Some(self.actor.clone()), ..Actor::user(&*self.actor) };
                event.outcome = outcome;
                event.priority = Priority::Critical;
                event.details = deed.details.to_string();
            })
            .build()?;
        self.producer.record_acked(event).await?;
        Ok(())
    }

    /// Ends the client.
    pub(crate) async fn close(self) {
        self.producer.shutdown(GRACE).await;
    }
}

/// [`Auditor::audited`] with a client of its own, for a single deed.
pub(crate) async fn around<T>(
    settings: &Settings,
    deed: Deed,
    work: impl AsyncFnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let auditor = Auditor::new(settings).await?;
    let result = auditor.audited(deed, work).await;
    auditor.close().await;
    result
}

/// Tells of a deed that was done already.
pub(crate) async fn done(settings: &Settings, deed: &Deed) -> anyhow::Result<()> {
    let unsent = || format!("it was done, but the audit event {} could not be sent", deed.action);
    let auditor = Auditor::new(settings).await.with_context(unsent)?;
    let told = auditor.tell(deed, Outcome::Success).await.with_context(unsent);
    auditor.close().await;
    told
}

/// The login name of the user of this process, or `uid-N` when the host's list of users does not have it.
pub(crate) fn os_user() -> String {
    let Ok(uid) = std::fs::metadata("/proc/self").map(|meta| meta.uid()) else { return "unknown".to_owned() };
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(uid, &users).unwrap_or_else(|| format!("uid-{uid}"))
}

fn name_of(uid: u32, users: &str) -> Option<String> {
    let mut names = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == uid).then(|| name.to_owned())
    });
    names.next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn users_have_names() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\nops:x:1000:1000::/srv/ops:/bin/sh\n";
        assert_eq!(name_of(1000, users).as_deref(), Some("ops"));
        assert_eq!(name_of(1, users), None);
    }
}
