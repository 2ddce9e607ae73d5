//! What nobody tells the worker: that its topic was deleted and made again, how many parts the table has, and whether an operator has paused the group.
//! Asked for now and then, beside the loop.

use std::sync::mpsc::Sender;
use std::time::Duration;

use auditstream_store::{ErrorClass, Store};

use crate::sink::Completion;
use crate::topic_id::TopicId;

/// Between two looks. Until the next one a topic that was made again is read on from where the old one was; then it is read from its start.
const INTERVAL: Duration = Duration::from_secs(10);

/// Tells the loop what `look_up` says, for as long as the loop is there. `look_up` blocks, and answers `None` when the reader is closed.
pub(crate) async fn topic<L>(look_up: L, completions: Sender<Completion>)
where
    L: Fn() -> Option<Option<TopicId>> + Clone + Send + 'static,
{
    loop {
        tokio::time::sleep(INTERVAL).await;
        match tokio::task::spawn_blocking(look_up.clone()).await {
            Ok(Some(Some(id))) => {
                if completions.send(Completion::TopicIs(id)).is_err() {
                    return;
                }
            }
            // Nobody knows just now; the next look comes.
            Ok(Some(None)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// How soon workers notice that an operator has paused their group, or has ended that.
const PAUSE_INTERVAL: Duration = Duration::from_secs(5);

/// Tells the loop whether an operator has paused `topic` in `group`, for as long as the loop is there. While ClickHouse does not say, what it said last holds.
pub(crate) async fn pause(store: Store, (group, topic): (String, String), completions: Sender<Completion>) {
    let mut is_unread = false;
    loop {
        tokio::time::sleep(PAUSE_INTERVAL).await;
        match store.pause(&group, &topic).await {
            Ok(pause) => {
                is_unread = false;
                if completions.send(Completion::Pause(pause)).is_err() {
                    return;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_unread, true) {
                    tracing::warn!(%error, "whether the group is paused can't be read; it stays as it was");
                }
            }
        }
    }
}

/// How often the parts of the table are counted: merges take seconds.
const PARTS_INTERVAL: Duration = Duration::from_secs(5);

/// Tells the loop how many parts the table has, for as long as the loop is there. While ClickHouse is away there is nothing to tell: inserts fail then
/// too, and those count.
pub(crate) async fn parts(store: Store, completions: Sender<Completion>) {
    let mut is_refused = false;
    loop {
        tokio::time::sleep(PARTS_INTERVAL).await;
        match store.fullest_partition().await {
            Ok(parts) if completions.send(Completion::Parts(parts)).is_err() => return,
            Err(error) if error.class == ErrorClass::Halt && !is_refused => {
                is_refused = true;
                tracing::warn!(%error, "the parts of the table can't be counted; too many of them are noticed only when inserts are refused");
            }
            Ok(_) | Err(_) => {}
        }
    }
}
