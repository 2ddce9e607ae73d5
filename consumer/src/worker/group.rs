//! What the group says: partitions that come and go, and how far behind they are.

use std::time::Duration;

use super::Loop;
use crate::WorkerError;
use crate::core::Input;
use crate::kafka::Signal;
use crate::metrics::{PartitionLabel, ReasonLabel};
use crate::topic_id::TopicId;

/// How often the committed offsets are asked for before the worker ends.
const COMMITTED_LOOKUPS: usize = 3;
/// The ledger is asked for at most so long; the group waits meanwhile.
const LANDED_TIMEOUT: Duration = Duration::from_secs(1);
/// More assignments than batches that are held can have been read under.
const REMEMBERED_ASSIGNMENTS: usize = 4096;

impl Loop {
    pub(super) fn signals(&mut self) -> Result<(), WorkerError> {
        while let Some(signal) = self.reader.signal() {
            match signal {
                Signal::Assign(partitions) => self.assigned(&partitions)?,
                Signal::Revoke(partitions) => {
                    let lost = self.reader.is_assignment_lost();
                    tracing::info!(?partitions, lost, "partitions revoked");
                    let reason = if lost { "lost" } else { "revoked" };
                    self.metrics.rebalances.get_or_create(&ReasonLabel { reason }).inc();
                    self.input(if lost { Input::Lost(partitions) } else { Input::Revoked(partitions) });
                }
                Signal::Lag(lags) => {
                    for (partition, lag) in lags {
                        self.metrics.lag.get_or_create(&PartitionLabel { partition }).set(lag);
                    }
                }
                Signal::Logs(logs) => {
                    self.reader.bound_rereads(&logs);
                    self.input(Input::Logs(logs));
                }
            }
        }
        Ok(())
    }

    pub(super) fn assigned(&mut self, partitions: &[i32]) -> Result<(), WorkerError> {
        self.health.is_member();
        self.metrics.rebalances.get_or_create(&ReasonLabel { reason: "assigned" }).inc();
        let committed = self.committed(partitions)?;
        let logs = self.reader.logs(partitions);
        // What lands from here on lies beyond these ends, or was read under the human's mark.
        self.reader.bound_rereads(&logs);
        let landed = self.landed(&committed);
        let further = |partition| landed.iter().find(|(of, _)| *of == partition).map(|(_, offset)| *offset);
        let starts: Vec<_> =
            committed.iter().map(|&(partition, offset)| (partition, further(partition).or(offset))).collect();
        self.fetched.attach(&self.sink.topic, partitions.iter().copied()).map_err(WorkerError::Kafka)?;
        self.reader.assign(&starts).map_err(WorkerError::Kafka)?;
        tracing::info!(?starts, ?landed, "partitions assigned");
        partitions.iter().for_each(|&partition| self.state.time_lag.assigned(partition));
        self.input(Input::Assigned(committed));
        for &partition in partitions {
            if let (Some(epoch), Some(id)) = (self.core.epoch(partition), self.reader.topic_id_of(partition)) {
                self.state.topics.insert(epoch, id.clone());
            }
        }
        while self.state.topics.len() > REMEMBERED_ASSIGNMENTS {
            self.state.topics.pop_first();
        }
        if !landed.is_empty() {
            self.input(Input::Landed(landed));
        }
        if !logs.is_empty() {
            self.input(Input::Logs(logs));
        }
        self.assignment_changed();
        Ok(())
    }

    /// Which of the partitions are stored further than they are committed, as the ledger says: a worker that died in between leaves that. It saves
    /// reading and inserting again, no more, so an answer that does not come soon is not waited for.
    fn landed(&self, committed: &[(i32, Option<i64>)]) -> Vec<(i32, i64)> {
        let of_one_topic: Option<&str> =
            committed.first().and_then(|&(partition, _)| self.reader.topic_id_of(partition)).map(TopicId::as_str);
        // Without its id the topic may be another one than the ledger speaks of.
        let Some(topic_id) = of_one_topic else {
            return Vec::new();
        };
        // An offset that a human has set is where he wants reading to begin, and also the worker that goes on from there before all is read again.
        let starts = committed.iter().filter_map(|&(partition, offset)| Some((partition, offset?)));
        let starts: Vec<_> = starts.filter(|&(partition, offset)| !self.reader.is_reread(partition, offset)).collect();
        if starts.is_empty() {
            return Vec::new();
        }
        let look_up = self.sink.store.landed(&self.sink.topic, topic_id, &starts);
        match self.runtime.block_on(async { tokio::time::timeout(LANDED_TIMEOUT, look_up).await }) {
            Ok(Ok(landed)) => landed,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the ledger could not be asked what is stored already; it is read again");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!("the ledger did not say in time what is stored already; it is read again");
                Vec::new()
            }
        }
    }

    /// Where to start. The coordinator may be moving just now, so a failed look-up gets a second and a third chance before the process gives up;
    /// guessing an offset is never an option.
    pub(super) fn committed(&mut self, partitions: &[i32]) -> Result<Vec<(i32, Option<i64>)>, WorkerError> {
        let mut result = self.reader.committed(partitions);
        for _ in 1..COMMITTED_LOOKUPS {
            let Err(error) = &result else { break };
            tracing::warn!(%error, "the committed offsets could not be read");
            self.health.turn();
            result = self.reader.committed(partitions);
        }
        result.map_err(WorkerError::Kafka)
    }

    /// Starts over with the partitions whose topic was deleted and made again. `now` is the topic's id.
    pub(super) fn topic_is(&mut self, now: &TopicId) -> Result<(), WorkerError> {
        // While the group moves partitions it waits for an answer, and afterwards assigns with a look-up of its own.
        if self.core.is_revoking_any() || self.reader.has_signals() {
            return Ok(());
        }
        let partitions = self.reader.of_another_topic(self.core.assigned(), now);
        if !partitions.is_empty() {
            tracing::warn!(?partitions, topic_id = %now, "the topic was deleted and made again; starting over with it");
            self.input(Input::Lost(partitions.clone()));
            self.act()?;
            self.assigned(&partitions)?;
        }
        Ok(())
    }

    /// Whether an offset that is not in the topic is one of a deleted topic of the same name; then its partitions start over.
    pub(super) fn offset_is_of_another_topic(&mut self) -> Result<bool, WorkerError> {
        let Ok(Some(now)) = self.reader.topic_id() else {
            return Ok(false);
        };
        let is_other = !self.reader.of_another_topic(self.core.assigned(), &now).is_empty();
        self.topic_is(&now)?;
        Ok(is_other)
    }

    pub(super) fn assignment_changed(&self) {
        let assigned = i64::try_from(self.core.assigned().count()).unwrap_or(i64::MAX);
        self.metrics.assigned_partitions.set(assigned);
        // The core pauses all or none.
        self.metrics.paused_partitions.set(if self.core.is_paused() { assigned } else { 0 });
    }
}
