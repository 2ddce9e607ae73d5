//! What the group says: partitions that come and go, and how far behind they are.

use super::Loop;
use crate::WorkerError;
use crate::core::Input;
use crate::kafka::Signal;
use crate::metrics::{PartitionLabel, ReasonLabel};

/// How often the committed offsets are asked for before the worker ends.
const COMMITTED_LOOKUPS: usize = 3;

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
            }
        }
        Ok(())
    }

    pub(super) fn assigned(&mut self, partitions: &[i32]) -> Result<(), WorkerError> {
        self.health.is_member();
        self.metrics.rebalances.get_or_create(&ReasonLabel { reason: "assigned" }).inc();
        let starts = self.committed(partitions)?;
        self.reader.assign(&starts).map_err(WorkerError::Kafka)?;
        tracing::info!(?starts, "partitions assigned");
        starts.iter().for_each(|&(partition, _)| self.state.time_lag.assigned(partition));
        self.input(Input::Assigned(starts));
        self.assignment_changed();
        Ok(())
    }

    /// Where to start. The coordinator may be moving just now, so a failed look-up gets a second and a third chance before the process gives up;
    /// guessing an offset is never an option.
    pub(super) fn committed(&self, partitions: &[i32]) -> Result<Vec<(i32, Option<i64>)>, WorkerError> {
        let mut result = self.reader.committed(partitions);
        for _ in 1..COMMITTED_LOOKUPS {
            let Err(error) = &result else { break };
            tracing::warn!(%error, "the committed offsets could not be read");
            self.health.turn();
            result = self.reader.committed(partitions);
        }
        result.map_err(WorkerError::Kafka)
    }

    pub(super) fn assignment_changed(&self) {
        let assigned = i64::try_from(self.core.assigned().count()).unwrap_or(i64::MAX);
        self.metrics.assigned_partitions.set(assigned);
        // The core pauses all or none.
        self.metrics.paused_partitions.set(if self.core.is_paused() { assigned } else { 0 });
    }
}
