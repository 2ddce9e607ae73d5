//! Whether an operator has paused the reading of a topic by a consumer group.
//!
//! Promise: what [`Store::set_pause`] has acknowledged is what every later [`Store::pause`] answers, until the next one. A call that fails says nothing:
//! who asks keeps what it knew.

use clickhouse::Row;
use serde::Deserialize;

use crate::client::{Store, quoted};
use crate::errors::CallError;

/// A pause that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Since when, by ClickHouse's clock: milliseconds since 1970.
    pub since_ms: i64,
    /// Who paused.
    pub actor: String,
    /// Why, in that person's words; may be empty.
    pub reason: String,
}

/// What is done about the reading of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseAction {
    /// No worker reads from now on.
    Pause,
    /// Workers read again.
    Resume,
}

impl PauseAction {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

#[derive(Debug, Row, Deserialize)]
struct Newest {
    done: String,
    done_at_ms: i64,
    done_by: String,
    why: String,
}

impl Store {
    /// The pause of `topic` in `group`; `None` while it reads.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn pause(&self, group: &str, topic: &str) -> Result<Option<Pause>, CallError> {
        let newest: Newest = self
            .fetch_one(&format!(
                "SELECT toString(argMax(action, at)) AS done, toUnixTimestamp64Milli(max(at)) AS done_at_ms, argMax(actor, at) AS done_by, \
                 argMax(reason, at) AS why FROM {}",
                self.pauses_of(group, topic)
            ))
            .await?;
        let pause = Pause { since_ms: newest.done_at_ms, actor: newest.done_by, reason: newest.why };
        Ok((newest.done == PauseAction::Pause.as_str()).then_some(pause))
    }

    /// Pauses `topic` in `group`, or ends that.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn set_pause(
        &self,
        group: &str,
        topic: &str,
        action: PauseAction,
        (actor, reason): (&str, &str),
    ) -> Result<(), CallError> {
        // Later than every row that is there, whatever the clock says.
        self.execute(&format!(
            "INSERT INTO `{}`.consumer_pauses (group_id, topic, at, action, actor, reason) SETTINGS async_insert = 0, insert_deduplicate = 0, distributed_foreground_insert = 1 \
             SELECT {}, {}, greatest(now64(6, 'UTC'), addMicroseconds(max(at), 1)), '{}', {}, {} FROM {}",
            self.database(),
            quoted(group),
            quoted(topic),
            action.as_str(),
            quoted(actor),
            quoted(reason),
            self.pauses_of(group, topic),
        ))
        .await
    }

    fn pauses_of(&self, group: &str, topic: &str) -> String {
        let (group, topic) = (quoted(group), quoted(topic));
        format!("`{}`.consumer_pauses WHERE group_id = {group} AND topic = {topic}", self.database())
    }
}
