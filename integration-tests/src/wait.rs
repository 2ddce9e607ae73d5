//! Waiting for a condition, never for a time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Between two looks: short against what is waited for, long against the cost of a look.
const INTERVAL: Duration = Duration::from_millis(25);

/// Looks until `look` answers `Ok`, at most for `limit`; the error is what the last look saw.
///
/// # Errors
/// The sentence of the last look, when the time is over.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= deadline => return Err(seen),
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}

/// [`poll`], and fails the test with `what` it waited for and what it saw last. The fixture then says where the logs are.
#[track_caller]
pub fn wait_until<T>(what: &str, limit: Duration, look: impl FnMut() -> Result<T, String>) -> T {
    match poll(limit, look) {
        Ok(found) => found,
        Err(seen) => panic!("waited {} s for {what}; last seen: {seen}", limit.as_secs_f32()),
    }
}

/// Runs `future` on a runtime that all tests of this process share.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().expect("a runtime")
    });
    runtime.block_on(future)
}
