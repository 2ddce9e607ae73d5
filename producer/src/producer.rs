//! The handle that a service holds. See the crate's documentation for an example.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use auditstream_schemas::{AuditEvent, Priority, ProducerStamp};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::ThreadedProducer;
use tokio::sync::oneshot;

use crate::ForEvent;
use crate::budget::{Budget, NoRoom};
use crate::builder::Builder;
use crate::config::{Config, Critical};
use crate::delivery::{Ack, Answer, Context, Delivery, Observer, Outcome, Shared, shut_down};
use crate::error::{DeliveryError, ProducerError, RejectReason, Rejected};
use crate::headers::TraceParent;
use crate::idempotency::{Window, idempotent_event_id, is_key};
use crate::loss::LossReporter;
use crate::oauth::TokenFile;
use crate::prepare::Prepare;
use crate::sender::{Message, Queued, Sender, Wait};
use crate::size::Size;
use crate::stats::{Report, Stats};

/// Publishes audit events. Cheap to clone; all clones share one queue, one background thread and one bound.
#[derive(Debug, Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
    sender_thread: Thread,
    message_limit: usize,
    producer_id_len: usize,
    drop_deadline: Duration,
    window: Window,
    critical: Critical,
    critical_deadline: Duration,
    #[cfg(feature = "metrics")]
    limits: crate::metrics::Limits,
}

/// What may be said about one event beside itself.
#[derive(Debug, Clone, Default)]
pub struct RecordOptions {
    /// The trace context of the request, written as the record's `traceparent` header.
    pub traceparent: Option<TraceParent>,
    /// 1 to 255 bytes: the event's id is made of it ([`idempotent_event_id`]), and a second event of this tenant with the same key is refused within
    /// [`Config::idempotency_window`].
    pub idempotency_key: Option<String>,
}

/// Where a critical event is, when [`Producer::record_critical`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// Every in-sync replica has it.
    Replicated(Delivery),
    /// It is on disk (fsync), in the spill, and will be sent.
    OnDisk,
    /// Only with [`Critical::FailOpen`]: nowhere yet. It was taken and may still arrive, or it is lost; either way it is counted.
    NotYet,
}

impl Producer {
    /// Settings one by one, beginning with the brokers: `host:port`, separated by commas.
    pub fn builder(bootstrap_servers: impl Into<String>) -> Builder {
        Builder::new(bootstrap_servers.into())
    }

    /// Makes a producer. Does not connect yet: an unreachable broker shows in the deliveries.
    ///
    /// # Errors
    /// A setting that can't be used; no thread to be had.
    pub fn new(config: Config) -> Result<Producer, ProducerError> {
        Producer::start(config, None)
    }

    /// The same, with a function that hears the fate of each event that was taken.
    ///
    /// # Errors
    /// As [`Producer::new`].
    pub fn with_observer(config: Config, observer: Box<Observer>) -> Result<Producer, ProducerError> {
        Producer::start(config, Some(observer))
    }

    fn start(config: Config, observer: Option<Box<Observer>>) -> Result<Producer, ProducerError> {
        config.validate()?;
        let client_config = config.to_client_config();
        let prepare = Prepare::new(&config);
        let has_spill = config.spills();
        #[cfg(feature = "metrics")]
        let limits =
            crate::metrics::Limits { queue_bytes: config.queue_bytes as u64, spill_bytes: config.spill_bytes() };
        let shared = Arc::new(Shared::new(
            Budget::new(config.queue_events, config.queue_bytes, config.lanes),
            observer,
            config.oauth_token_file.map(TokenFile::new),
            has_spill,
        ));
        let context = Context::new(Arc::clone(&shared));
        let client = ThreadedProducer::from_config_and_context(&client_config, context).map_err(client_error)?;
        let stamp = ProducerStamp { id: config.producer_id.unwrap_or_else(host_name), epoch: next_epoch(), seq: 1 };
        let producer_id_len = stamp.id.len();
        let (queue, receiver) = mpsc::channel();
        #[cfg_attr(not(feature = "spill"), expect(unused_mut, reason = "only a spill is opened later"))]
        let mut sender = Sender {
            queue: receiver,
            shared: Arc::clone(&shared),
            client,
            client_config,
            topic: config.topic,
            cloud_events: config.cloud_events,
            delivery_timeout: (!has_spill).then_some(config.delivery_timeout),
            framing: config.framing,
            stamp,
            prepare,
            number: 1,
            spill: None,
            losses: LossReporter::new(config.loss_tenant),
            service: config.client_id,
        };
        #[cfg(feature = "spill")]
        let spill = config.spill;
        let (opened, answer) = mpsc::channel();
        let run = move || {
            // On this thread, which may block, whatever thread the caller is on.
            #[cfg(feature = "spill")]
            let ready = spill.map_or(Ok(()), |spill| sender.open_spill(spill)).map_err(ProducerError::Spill);
            #[cfg(not(feature = "spill"))]
            let ready = Ok(());
            let is_ready = ready.is_ok();
            // The caller waits for it.
            let _ = opened.send(ready);
            if is_ready {
                sender.run();
            }
        };
        let thread =
            thread::Builder::new().name("audit-sender".to_owned()).spawn(run).map_err(ProducerError::Thread)?;
        if let Ok(ready) = answer.recv() {
            ready?;
        }
        Ok(Producer {
            handle: Arc::new(Handle {
                shared,
                queue,
                sender_thread: thread.thread().clone(),
                message_limit: config.message_max_bytes,
                producer_id_len,
                drop_deadline: config.drop_deadline,
                window: Window::new(config.idempotency_window, config.idempotency_keys),
                critical: config.critical,
                critical_deadline: config.critical_deadline,
                #[cfg(feature = "metrics")]
                limits,
            }),
        })
    }

    /// Hands in an event. Never blocks and does no I/O; needs no async runtime.
    ///
    /// # Errors
    /// The event itself, with the reason.
    pub fn record(&self, event: AuditEvent) -> Result<(), Rejected> {
        self.handle.take(Queued::new(event, None), RecordOptions::default())
    }

    /// The same, with something to say beside the event.
    ///
    /// # Errors
    /// The event itself, with the reason.
    pub fn record_with(&self, event: AuditEvent, options: RecordOptions) -> Result<(), Rejected> {
        self.handle.take(Queued::new(event, None), options)
    }

    /// The counters for a Prometheus registry.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics(&self) -> crate::metrics::ProducerMetrics {
        crate::metrics::ProducerMetrics { shared: Arc::clone(&self.handle.shared), limits: self.handle.limits }
    }

    /// Hands in an event and waits until every in-sync replica has it.
    ///
    /// The event is handed in at the first poll. Dropping the future afterwards does not take it back.
    ///
    /// # Errors
    /// The event itself, when it was not taken; otherwise why Kafka did not acknowledge it. After a time-out or a
    /// shutdown a broker may have it all the same: sending the same event again is safe, as its id makes it one row.
    pub async fn record_acked(&self, event: AuditEvent) -> Result<Delivery, DeliveryError> {
        match self.record_and_wait(event, None).await? {
            Answer::Decided(Outcome::Acked(delivery)) => Ok(delivery),
            Answer::Decided(Outcome::Spilled) => Err(DeliveryError::Spilled),
            Answer::Decided(Outcome::Failed(failure)) => Err(failure.into()),
            Answer::Late => Err(DeliveryError::Late),
        }
    }

    /// The critical path: makes the event CRITICAL, hands it in, and waits until every in-sync replica has it or it is on disk in the spill, for
    /// [`Config::critical_deadline`] at most.
    ///
    /// With [`Critical::FailOpen`] only an invalid or too large event, or a repeated key, is an error; what else goes wrong is [`Durable::NotYet`].
    ///
    /// # Errors
    /// The event itself, when it was not taken; [`DeliveryError::Late`] after the deadline, when it may still arrive; why it failed otherwise.
    pub async fn record_critical(&self, mut event: AuditEvent) -> Result<Durable, DeliveryError> {
        event.priority = Priority::Critical;
        let until = Instant::now().checked_add(self.handle.critical_deadline);
        let error = match self.record_and_wait(event, until).await {
            Ok(Answer::Decided(Outcome::Acked(delivery))) => return Ok(Durable::Replicated(delivery)),
            Ok(Answer::Decided(Outcome::Spilled)) => return Ok(Durable::OnDisk),
            Ok(Answer::Decided(Outcome::Failed(failure))) => DeliveryError::Failed(failure),
            Ok(Answer::Late) => DeliveryError::Late,
            Err(error) => error,
        };
        match (&error, self.handle.critical) {
            (DeliveryError::Rejected(Rejected { reason, .. }), Critical::FailOpen) => match reason {
                RejectReason::QueueFull { .. } | RejectReason::ShutDown => {
                    tracing::error!("a critical event was not taken ({reason}), and the caller goes on");
                    Ok(Durable::NotYet)
                }
                _ => Err(error),
            },
            (_, Critical::FailOpen) => Ok(Durable::NotYet),
            (_, Critical::FailClosed) => Err(error),
        }
    }

    async fn record_and_wait(&self, event: AuditEvent, until: Option<Instant>) -> Result<Answer, DeliveryError> {
        let (ack, answer) = Ack::new(until);
        self.handle.take(Queued::new(event, Some(ack)), RecordOptions::default())?;
        // Somebody waits: do not leave the event to the next tick.
        self.handle.sender_thread.unpark();
        Ok(answer.await.unwrap_or_else(|_| Answer::Decided(Outcome::Failed(shut_down()))))
    }

    /// Waits until each event taken before this call is decided, or until the deadline. New events may be handed in
    /// meanwhile.
    pub fn flush(&self, deadline: Duration) -> impl Future<Output = Report> + Send + 'static {
        self.handle.wait(deadline, Message::Flush)
    }

    /// Takes no more events, waits until everything taken is decided, and gives up what is left at the deadline.
    /// Applies to all clones. 10 s is a good deadline.
    pub fn shutdown(&self, deadline: Duration) -> impl Future<Output = Report> + Send + 'static {
        self.handle.shared.budget.close();
        self.handle.wait(deadline, Message::Close)
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        self.handle.shared.counters.stats(&self.handle.shared.budget)
    }
}

impl Handle {
    fn take(&self, mut queued: Box<Queued>, options: RecordOptions) -> Result<(), Rejected> {
        let Some(key) = &options.idempotency_key else {
            return self.enqueue(queued, options);
        };
        if !is_key(key) {
            let reason = RejectReason::IdempotencyKey { bytes: key.len() };
            return Err(self.reject(queued, reason));
        }
        let (id, given) = (idempotent_event_id(&queued.event.tenant_id, key), queued.event.event_id);
        if !self.window.take(id, Instant::now()) {
            return Err(self.reject(queued, RejectReason::Duplicate { event_id: id }));
        }
        queued.event.event_id = id;
        self.enqueue(queued, options).map_err(|mut rejected| {
            self.window.release(id);
            // Unchanged, as promised.
            rejected.event.event_id = given;
            rejected
        })
    }

    fn enqueue(&self, mut queued: Box<Queued>, options: RecordOptions) -> Result<(), Rejected> {
        let event = &queued.event;
        let body = match event.checked_len() {
            Ok(body) => body,
            Err(error) => return Err(self.reject(queued, RejectReason::Invalid(error))),
        };
        let context = ForEvent::current();
        let size = Size::with_body(event, body, self.producer_id_len).plus(context.as_ref().map_or(0, ForEvent::bytes));
        if size.message > self.message_limit {
            let reason = RejectReason::TooLarge { bytes: size.message, limit: self.message_limit };
            return Err(self.reject(queued, reason));
        }
        let permit = match self.shared.budget.take(size.memory, event.priority) {
            Ok(permit) => permit,
            Err(NoRoom::Full { events, bytes }) => {
                if event.priority == Priority::BestEffort {
                    self.shared.counters.best_effort_dropped();
                }
                return Err(self.reject(queued, RejectReason::QueueFull { events, bytes }));
            }
            Err(NoRoom::Closed) => return Err(self.reject(queued, RejectReason::ShutDown)),
        };
        queued.permit = Some(permit);
        queued.traceparent = options.traceparent.or_else(|| context.as_ref().and_then(ForEvent::traceparent));
        queued.context = context;
        self.shared.counters.submitted();
        match self.queue.send(Message::Event(queued)) {
            Err(mpsc::SendError(Message::Event(mut queued))) => {
                // The thread is gone; it gave up waiting for this very call.
                self.shared.counters.not_submitted();
                if let Some(permit) = queued.permit.take() {
                    self.shared.budget.give_back(permit);
                }
                Err(self.reject(queued, RejectReason::ShutDown))
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn reject(&self, queued: Box<Queued>, reason: RejectReason) -> Rejected {
        self.shared.counters.rejected(&reason);
        let Queued { event, .. } = *queued;
        Rejected { event: Box::new(event), reason }
    }

    /// Asks the background thread for a report; it also keeps the deadline.
    fn wait(&self, deadline: Duration, message: fn(Wait) -> Message) -> impl Future<Output = Report> + Send + 'static {
        let (reply, report) = oneshot::channel();
        self.ask(
            deadline,
            Box::new(move |report| {
                // Nobody may be waiting any more.
                let _ = reply.send(report);
            }),
            message,
        );
        let shared = Arc::clone(&self.shared);
        async move {
            match report.await {
                Ok(report) => report,
                // The thread has ended: everything is decided already.
                Err(_) => shared.counters.report(&shared.budget, shared.budget.events() == 0),
            }
        }
    }

    fn ask(&self, deadline: Duration, reply: Box<dyn FnOnce(Report) + Send>, message: fn(Wait) -> Message) {
        let now = Instant::now();
        // A deadline beyond the clock's range is as good as a year.
        let deadline = now.checked_add(deadline).unwrap_or(now + Duration::from_secs(31_536_000));
        // An error means that the thread has ended; dropping the reply tells the one who waits.
        let _ = self.queue.send(message(Wait { deadline, reply }));
        self.sender_thread.unpark();
    }
}

impl Drop for Handle {
    /// Without a shutdown before: drains for `drop_deadline` at most, and logs what was lost. Blocks meanwhile.
    fn drop(&mut self) {
        self.shared.budget.close();
        let (reply, report) = mpsc::channel();
        self.ask(
            self.drop_deadline,
            Box::new(move |report| {
                // The receiver stays until the answer.
                let _ = reply.send(report);
            }),
            Message::Close,
        );
        if let Ok(report) = report.recv() {
            let lost = report.failed.get(crate::FailReason::ShutDown) + report.outstanding;
            if lost > 0 {
                tracing::error!(lost, "the producer was dropped before its events were acknowledged");
            }
        }
    }
}

/// librdkafka's complaint about a property, without the value, which may be a secret.
fn client_error(error: KafkaError) -> ProducerError {
    match error {
        KafkaError::ClientConfig(_, problem, name, value) => {
            let problem = if value.is_empty() { problem } else { problem.replace(&value, "...") };
            ProducerError::Setting { name, problem }
        }
        other => ProducerError::Setting { name: "properties".to_owned(), problem: other.to_string() },
    }
}

/// Microseconds since 1970, and always above the one before in this process.
fn next_epoch() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as i64;
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
    last.map_or(now, |last| now.max(last + 1))
}

/// The kernel's name for this machine; in Kubernetes the pod's.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unknown-host".to_owned() } else { name.to_owned() }
}
