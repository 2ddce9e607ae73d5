//! Stacks seen from outside: which are up, do they answer, take one down.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::answers::{clickhouse_answers, kafka_answers, registry_answers};
use crate::claim::{alive, check_name, living};
use crate::error::StackError;
use crate::hook::remove_folder;
use crate::stack::root;
use crate::state::State;

/// Patience for a supervisor to end after SIGTERM.
const DOWN: Duration = Duration::from_secs(15);

/// A stack that is up, and whether its servers answer now.
#[derive(Debug, Clone)]
pub struct Status {
    /// What is known of it.
    pub state: State,
    /// Kafka names a live broker.
    pub kafka_answers: bool,
    /// ClickHouse answers `/ping`.
    pub clickhouse_answers: bool,
    /// The schema registry answers; `None` when the stack has none.
    pub registry_answers: Option<bool>,
}

/// All stacks in the cache folder that are up, by name. One that is just starting is not listed yet.
///
/// # Errors
/// The cache folder cannot be read.
pub fn list() -> Result<Vec<State>, StackError> {
    Ok(living(&root()?)?.iter().filter_map(|dir| State::read(dir).ok()).collect())
}

/// The stack of that name when it is up.
///
/// # Errors
/// The name is none, or the cache folder cannot be read.
pub fn find(name: &str) -> Result<Option<State>, StackError> {
    check_name(name)?;
    Ok(list()?.into_iter().find(|state| state.name == name))
}

/// All stacks that are up, each asked whether it answers.
///
/// # Errors
/// The cache folder cannot be read.
pub fn status() -> Result<Vec<Status>, StackError> {
    let ask = |state: State| Status {
        kafka_answers: kafka_answers(state.kafka_port),
        clickhouse_answers: clickhouse_answers(state.clickhouse_http_port),
        registry_answers: state.registry_url.as_ref().map(|_| registry_answers(state.registry_port)),
        state,
    };
    Ok(list()?.into_iter().map(ask).collect())
}

/// Stops a stack and removes its folder, whoever owns it. Returns when no process and no file is left.
///
/// # Errors
/// No such stack is up, or its folder cannot be removed.
pub fn down(name: &str) -> Result<(), StackError> {
    let state = find(name)?.ok_or_else(|| StackError::NotUp(name.to_owned()))?;
    // The lock on its folder is held, so the supervisor lives and the pid is its own.
    let supervisor = pid(Some(state.supervisor_pid));
    signal(supervisor, Signal::SIGTERM);
    if !gone(&state.dir, DOWN)? {
        // Its servers are bound to it and go along; a paused one too, by SIGKILL.
        signal(supervisor, Signal::SIGKILL);
        gone(&state.dir, DOWN)?;
    }
    if remove_folder(&state.dir, Duration::from_secs(5)) {
        Ok(())
    } else {
        Err(StackError::Failed(format!("the folder {} cannot be removed", state.dir.display())))
    }
}

fn pid(pid: Option<u32>) -> Option<Pid> {
    pid.and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw)
}

fn signal(pid: Option<Pid>, signal: Signal) {
    // It fails only when the process has ended, which is what we want.
    let _ = pid.map(|pid| kill(pid, signal));
}

/// Waits until nobody holds the folder.
fn gone(dir: &Path, patience: Duration) -> Result<bool, StackError> {
    let deadline = Instant::now() + patience;
    while alive(dir)? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(true)
}
