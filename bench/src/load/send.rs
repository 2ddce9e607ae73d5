//! Puts a load on the topic, as fast as the producer takes it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use auditstream_producer::{Producer, RejectReason, Report};

use super::generator::Generator;

/// How long a thread sleeps when the producer's queue is full: a hundredth of what the queue holds at full speed.
const FULL: Duration = Duration::from_millis(2);
/// How long the last events may take to be acknowledged.
const FLUSH: Duration = Duration::from_secs(60);

/// What was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// Events handed in, all acknowledged.
    pub events: u64,
    /// From the first call to the last acknowledgement.
    pub took: Duration,
    /// How often the producer's queue was full.
    pub waits: u64,
}

/// Why a load could not be sent whole.
#[derive(Debug)]
pub enum SendError {
    /// The producer refused an event for another reason than a full queue.
    Refused(RejectReason),
    /// Not everything was acknowledged.
    NotAcknowledged(Box<Report>),
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "the producer refused a generated event: {reason}"),
            Self::NotAcknowledged(report) => write!(
                f,
                "not every event was acknowledged: {} of {}, {} failed, {} undecided",
                report.acked,
                report.submitted,
                report.failed.total(),
                report.outstanding
            ),
        }
    }
}

impl std::error::Error for SendError {}

/// Sends the events of `indices` from `threads` threads (at least one) and waits for the acknowledgements. Blocks; not for use on an async worker.
///
/// Each entity's events leave one thread in the order of their indices. `sent` is raised by one for each event handed in. When `stop` becomes true
/// the threads end early, what was handed in is still waited for, and [`Sent::events`] says how many there were.
///
/// # Errors
/// An event that the producer refuses, or one that is not acknowledged.
pub fn send(
    generator: &Generator,
    indices: std::ops::Range<u64>,
    producer: &Producer,
    threads: u64,
    progress: (&AtomicU64, &AtomicBool),
) -> Result<Sent, SendError> {
    let (sent, stop) = progress;
    let threads = threads.max(1);
    let (before, waits, refusal) = (sent.load(Ordering::Relaxed), AtomicU64::new(0), Mutex::new(None));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (indices, waits, refusal) = (indices.clone(), &waits, &refusal);
            scope.spawn(move || {
                for index in indices {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if threads > 1 && generator.lane(index, threads) != thread {
                        continue;
                    }
                    let mut next = Some(generator.event(index));
                    while let Some(event) = next.take() {
                        match producer.record(event) {
                            Ok(()) => {
                                sent.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(rejected) if matches!(rejected.reason, RejectReason::QueueFull { .. }) => {
                                waits.fetch_add(1, Ordering::Relaxed);
                                std::thread::sleep(FULL);
                                next = Some(*rejected.event);
                            }
                            Err(rejected) => {
                                if let Ok(mut first) = refusal.lock() {
                                    first.get_or_insert(rejected.reason);
                                }
                                stop.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
    });
    if let Some(reason) = refusal.into_inner().ok().flatten() {
        return Err(SendError::Refused(reason));
    }
    let report = wait(producer);
    if !report.all_acked() {
        return Err(SendError::NotAcknowledged(Box::new(report)));
    }
    Ok(Sent { events: sent.load(Ordering::Relaxed) - before, took: begun.elapsed(), waits: waits.into_inner() })
}

/// The flush is a future that needs no runtime of its own: the producer's thread completes it.
fn wait(producer: &Producer) -> Report {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut flush = std::pin::pin!(producer.flush(FLUSH));
    loop {
        match flush.as_mut().poll(&mut context) {
            std::task::Poll::Ready(report) => return report,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
