//! Puts events on a topic, one by one or at a steady rate; what the brokers acknowledge goes on the list that the oracle compares everything with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use auditstream_bench::load::Acknowledged;
use auditstream_producer::{Config, Producer, RecordOptions, RejectReason, TraceParent};
use auditstream_schemas::AuditEvent;

use crate::wait::block_on;

/// A full queue is looked at again after this.
const FULL: Duration = Duration::from_millis(2);
/// All events are acknowledged within this time after the last one was recorded.
const FLUSH: Duration = Duration::from_secs(60);

/// A producer whose acknowledgements go into the fixture's list.
#[derive(Debug)]
pub struct Recorder {
    producer: Producer,
}

impl Recorder {
    pub(crate) fn new(config: Config, list: &Acknowledged) -> Self {
        Self { producer: Producer::with_observer(config, list.observer()).expect("a valid configuration") }
    }

    /// Records an event; while the queue is full, tries again.
    ///
    /// # Panics
    /// When the event is refused for another reason.
    pub fn record(&self, event: AuditEvent) {
        self.record_with(event, RecordOptions::default());
    }

    /// The same for an event of the request whose W3C trace context is `traceparent`.
    ///
    /// # Panics
    /// When that is none, or the event is refused.
    pub fn record_traced(&self, event: AuditEvent, traceparent: &str) {
        let traceparent = TraceParent::parse(traceparent).expect("a valid trace context");
        self.record_with(event, RecordOptions { traceparent: Some(traceparent), ..RecordOptions::default() });
    }

    fn record_with(&self, event: AuditEvent, options: RecordOptions) {
        let mut next = event;
        let deadline = Instant::now() + FLUSH;
        while let Err(rejected) = self.producer.record_with(next, options.clone()) {
            let full = matches!(rejected.reason, RejectReason::QueueFull { .. });
            assert!(full && Instant::now() < deadline, "the producer refused an event: {}", rejected.reason);
            next = *rejected.event;
            std::thread::sleep(FULL);
        }
    }

    /// Waits until everything is acknowledged.
    ///
    /// # Panics
    /// When something is not.
    pub fn finish(self) {
        let report = block_on(self.producer.shutdown(FLUSH));
        assert!(report.all_acked(), "not everything was acknowledged: {report:?}");
    }
}

/// What a [`Load`] sends.
pub(crate) struct LoadPlan {
    /// Events a second.
    pub(crate) per_second: u64,
    /// After so many events, one record that can't be decoded.
    pub(crate) poison_every: Option<u64>,
    /// Makes the next event.
    pub(crate) next: Box<dyn FnMut() -> AuditEvent + Send>,
    /// Sends a record that can't be decoded.
    pub(crate) poison: Box<dyn FnMut() + Send>,
}

/// Events at a steady rate, from a thread of its own, until [`Load::finish`] or drop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    recorded: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(recorder: Recorder, mut plan: LoadPlan) -> Self {
        let (stop, recorded) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&recorded));
        let run = move || {
            let started = Instant::now();
            let mut sent = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                let due = plan.per_second * u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX) / 1000;
                while sent < due {
                    recorder.record((plan.next)());
                    sent += 1;
                    if plan.poison_every.is_some_and(|every| sent.is_multiple_of(every)) {
                        (plan.poison)();
                    }
                }
                count.store(sent, Ordering::Relaxed);
                // The pace of the load, not a wait for something.
                std::thread::sleep(Duration::from_millis(5));
            }
            recorder.finish();
        };
        let thread = std::thread::Builder::new().name("load".into()).spawn(run).expect("a thread");
        Self { stop, recorded, thread: Some(thread) }
    }

    /// Events recorded so far.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Relaxed)
    }

    /// Stops, and waits until everything is acknowledged.
    ///
    /// # Panics
    /// When the load itself failed.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("finish runs once");
        thread.join().expect("the load failed, see above");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Reached when the test has failed already: that failure is the one to show.
            let _ = thread.join();
        }
    }
}
