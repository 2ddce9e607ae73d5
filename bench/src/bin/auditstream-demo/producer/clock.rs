//! CPU time, in nanoseconds (clock_gettime(2)): of this thread, of this process.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

/// CPU time that the calling thread has used.
pub(super) fn thread_cpu() -> Result<Duration> {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time that all threads of this process have used.
pub(super) fn process_cpu() -> Result<Duration> {
    read(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: ClockId) -> Result<Duration> {
    clock_gettime(clock).map(Duration::from).context("no clock of CPU time")
}
