//! Kafka as the loop sees it: a reader whose callbacks only signal.
//!
//! librdkafka calls back inside `poll`. Nothing is decided there: assignments and revocations go into a queue that the loop
//! empties after each poll, and the loop answers a rebalance when its work is done. librdkafka waits for that answer.

mod refusal;

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use auditstream_producer::oauth::{self, TokenFile};
use rdkafka::Message as _;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, Statistics, TopicPartitionList};

pub(crate) use self::refusal::{Refusal, is_out_of_range};
use crate::fetch::Fetched;
use crate::quiet::Quiet;
use crate::topic_id::{self, Reread, TopicId};

/// How long a look-up of committed offsets or of metadata may take before it counts as failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// The same at the start, where it is tried again for ever.
const START_LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long events are taken in around a look-up at the start: the client asks for its token this way, and tells why it can't connect.
const EVENTS: Duration = Duration::from_millis(100);

/// How large the backlog is only helps to begin with batches of the right size: nobody waits for it.
const WATERMARKS_TIMEOUT: Duration = Duration::from_millis(200);
/// librdkafka's own thread answers a seek, which takes it no time unless it is busy.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// What the group or the broker said between two polls.
#[derive(Debug)]
pub(crate) enum Signal {
    Assign(Vec<i32>),
    Revoke(Vec<i32>),
    /// Records of each partition that are not committed yet.
    Lag(BTreeMap<i32, i64>),
    /// Where the log of each partition begins, and the offset that the next record gets.
    Logs(Vec<(i32, i64, i64)>),
}

/// The callbacks' side of the queue.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    topic: String,
    queue: Mutex<VecDeque<Signal>>,
    /// Nobody reads the queue any more: revocations are answered at once, or closing would wait for an answer for ever.
    closing: AtomicBool,
    /// Errors of the client by code: it reports each broker's each failed attempt.
    quiet: Mutex<Quiet<Option<i32>>>,
    /// Where the token is; none when the client proves who it is in another way.
    tokens: Option<TokenFile>,
    /// What the client said last about being refused, or about refusing a broker's certificate, unless something else is wrong by now. It says the
    /// same only once in half a minute, so this stays.
    refusal: Mutex<Option<Refusal>>,
}

impl Signals {
    fn push(&self, signal: Signal) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(signal);
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<i32> {
        list.elements()
            .iter()
            .filter(|element| element.topic() == self.topic)
            .map(|element| element.partition())
            .collect()
    }
}

impl ClientContext for Signals {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        oauth::answer(self.tokens.as_ref())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code()
            // Comes along with every other one.
            && code != RDKafkaErrorCode::AllBrokersDown
        {
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Refusal::new(code, reason);
        }
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left_out) = quiet.allows(error.rdkafka_error_code().map(|code| code as i32), Instant::now()) {
            tracing::warn!(%error, reason, left_out, "kafka client error");
        }
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        let lag = topic.partitions.iter().filter(|&(&id, partition)| id >= 0 && partition.consumer_lag >= 0);
        self.push(Signal::Lag(lag.map(|(&id, partition)| (id, partition.consumer_lag)).collect()));
        // The end of what may be read: not of transactions that are open.
        let logs =
            topic.partitions.iter().filter(|(_, partition)| partition.lo_offset >= 0 && partition.ls_offset >= 0);
        self.push(Signal::Logs(logs.map(|(&id, partition)| (id, partition.lo_offset, partition.ls_offset)).collect()));
    }
}

impl ConsumerContext for Signals {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.closing.load(Ordering::Relaxed) {
            let answer = match kind {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                    consumer.incremental_assign(&TopicPartitionList::new())
                }
                _ => consumer.incremental_unassign(list),
            };
            if let Err(error) = answer {
                tracing::warn!(%error, "partitions could not be given back while closing");
            }
            return;
        }
        let partitions = self.partitions(list);
        self.push(match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Signal::Assign(partitions),
            _ => Signal::Revoke(partitions),
        });
    }
}

/// librdkafka's own log, into this process's.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(facility, message, "librdkafka");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::warn!(facility, message, "librdkafka"),
        RDKafkaLogLevel::Info => tracing::info!(facility, message, "librdkafka"),
        RDKafkaLogLevel::Debug => tracing::debug!(facility, message, "librdkafka"),
    }
}

/// The member of the consumer group. Clones are the same member.
#[derive(Clone)]
pub(crate) struct Reader {
    consumer: Arc<BaseConsumer<Signals>>,
    topic: String,
    /// The topic that each partition's offsets speak of, as looked up when the partition was assigned.
    topic_ids: BTreeMap<i32, TopicId>,
    /// Partitions whose offset a human has set, and how far they are read again: each commit carries it until then.
    rereads: BTreeMap<i32, Reread>,
}

impl Reader {
    /// A client that has not joined the group yet.
    pub(crate) fn new(properties: &ClientConfig, topic: &str, tokens: Option<TokenFile>) -> KafkaResult<Self> {
        let signals = Signals { topic: topic.to_owned(), tokens, ..Signals::default() };
        let consumer = Arc::new(properties.create_with_context(signals)?);
        Ok(Self { consumer, topic: topic.to_owned(), topic_ids: BTreeMap::new(), rereads: BTreeMap::new() })
    }

    /// The first of `topics` that does not exist, as far as this user may see. For the time before joining the group; when it fails,
    /// [`Self::refusal`] may know why.
    pub(crate) fn missing_topic(&self, topics: &[String]) -> KafkaResult<Option<String>> {
        // A look-up does not take events in: without this the client would wait for its token in vain.
        self.take_events();
        let missing = self.look_for(topics);
        if missing.is_err() {
            self.take_events();
        }
        missing
    }

    /// Why there is no connection, when that is because somebody refuses somebody.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.consumer.context().refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the callbacks hear what there is to hear. Who is no member yet gets no record.
    fn take_events(&self) {
        let until = Instant::now() + EVENTS;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            // Errors went to the context already.
            let _ = self.consumer.poll(left);
        }
    }

    fn look_for(&self, topics: &[String]) -> KafkaResult<Option<String>> {
        for topic in topics {
            let metadata = self.consumer.fetch_metadata(Some(topic), START_LOOKUP_TIMEOUT)?;
            match metadata.topics().first().map(|topic| (topic.error(), topic.partitions().len())) {
                Some((None, partitions)) if partitions > 0 => {}
                Some((Some(error), _)) if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => {
                    return Err(KafkaError::MetadataFetch(error.into()));
                }
                _ => return Ok(Some(topic.clone())),
            }
        }
        Ok(None)
    }

    /// Joins the group.
    pub(crate) fn subscribe(&self) -> KafkaResult<()> {
        self.consumer.subscribe(&[&self.topic])
    }

    /// Where the records of the assigned partitions come.
    pub(crate) fn fetched(&self) -> KafkaResult<Fetched> {
        Fetched::new(Arc::clone(&self.consumer))
    }

    /// Serves the group and the client, without waiting; look at [`Self::signal`] afterwards. Answers with an error that the client reports, or
    /// `Ok` with the place of a record: partitions are attached to [`Fetched`] before they are assigned, so none may come this way.
    pub(crate) fn serve(&self) -> Option<KafkaResult<(i32, i64)>> {
        let polled = self.consumer.poll(Duration::ZERO)?;
        Some(polled.map(|record| (record.partition(), record.offset())))
    }

    /// The oldest signal not taken yet.
    pub(crate) fn signal(&self) -> Option<Signal> {
        self.consumer.context().queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Whether the partitions being revoked already belong to somebody else.
    pub(crate) fn is_assignment_lost(&self) -> bool {
        self.consumer.assignment_lost()
    }

    /// Whether signals wait to be taken.
    pub(crate) fn has_signals(&self) -> bool {
        !self.consumer.context().queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The topic's id now; `None` when there is none. Blocks.
    pub(crate) fn topic_id(&self) -> KafkaResult<Option<TopicId>> {
        topic_id::look_up(self.consumer.client(), &self.topic, LOOKUP_TIMEOUT)
    }

    /// [`Self::topic_id`] for another task, which must not keep the reader open: `None` once the reader is closed, `Some(None)` when nobody knows.
    pub(crate) fn topic_id_looker(&self) -> impl Fn() -> Option<Option<TopicId>> + Clone + Send + 'static {
        let (consumer, topic) = (Arc::downgrade(&self.consumer), self.topic.clone());
        move || {
            let consumer = consumer.upgrade()?;
            Some(topic_id::look_up(consumer.client(), &topic, LOOKUP_TIMEOUT).ok().flatten())
        }
    }

    /// The topic that the offsets of `partition` speak of since its last assignment.
    pub(crate) fn topic_id_of(&self, partition: i32) -> Option<&TopicId> {
        self.topic_ids.get(&partition)
    }

    /// Where the logs of `partitions` begin and end, as far as the brokers say so at once: the first that does not ends the asking.
    pub(crate) fn logs(&self, partitions: &[i32]) -> Vec<(i32, i64, i64)> {
        let logs = partitions.iter().map_while(|&partition| {
            let (low, high) = self.consumer.fetch_watermarks(&self.topic, partition, WATERMARKS_TIMEOUT).ok()?;
            Some((partition, low, high))
        });
        logs.collect()
    }

    /// Whether a human wants `offset` of `partition` to be read whatever has landed, as the committed offset said when the partition was assigned.
    pub(crate) fn is_reread(&self, partition: i32, offset: i64) -> bool {
        self.rereads.get(&partition).is_some_and(|reread| reread.covers(offset))
    }

    /// The partitions' logs end there now: what a human wants to be read again ends there at the latest.
    pub(crate) fn bound_rereads(&mut self, logs: &[(i32, i64, i64)]) {
        for (partition, _, high) in logs {
            if let Some(reread @ Reread::Unbounded) = self.rereads.get_mut(partition) {
                *reread = Reread::Until(*high);
            }
        }
    }

    /// Those of `partitions` that were assigned while the topic had another id than `now`.
    pub(crate) fn of_another_topic(&self, partitions: impl Iterator<Item = i32>, now: &TopicId) -> Vec<i32> {
        partitions.filter(|partition| self.topic_ids.get(partition).is_some_and(|id| id != now)).collect()
    }

    /// The offset after the last committed record of each partition; `None` where nothing was committed yet, or of a topic that was deleted and made
    /// again since.
    pub(crate) fn committed(&mut self, partitions: &[i32]) -> KafkaResult<Vec<(i32, Option<i64>)>> {
        // A member without partitions is assigned an empty list, which needs no look-up.
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        // The id first: if the topic changes after this look-up, what is read is committed under the old id, and the next assignment starts over.
        let id = self.topic_id()?;
        let list = self.consumer.committed_offsets(self.list(partitions), LOOKUP_TIMEOUT)?;
        for element in list.elements() {
            element.error()?;
        }
        Ok(list
            .elements()
            .iter()
            .map(|element| {
                let partition = element.partition();
                match &id {
                    Some(id) => self.topic_ids.insert(partition, id.clone()),
                    None => self.topic_ids.remove(&partition),
                };
                let reread = id.as_ref().and_then(|id| id.reread(element.metadata()));
                // Where nothing is committed nobody has set anything.
                match reread.filter(|_| matches!(element.offset(), Offset::Offset(_))) {
                    Some(reread) => self.rereads.insert(partition, reread),
                    None => self.rereads.remove(&partition),
                };
                match element.offset() {
                    Offset::Offset(offset) if id.as_ref().is_some_and(|id| id.is_foreign(element.metadata())) => {
                        tracing::warn!(
                            partition,
                            offset,
                            "the topic was deleted and made again since this offset was committed; reading the new topic from its start"
                        );
                        (partition, None)
                    }
                    Offset::Offset(offset) => (partition, Some(offset)),
                    _ => (partition, None),
                }
            })
            .collect())
    }

    /// Starts fetching each partition at its offset, or where its log begins.
    pub(crate) fn assign(&self, starts: &[(i32, Option<i64>)]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for &(partition, start) in starts {
            let offset = start.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&self.topic, partition, offset)?;
        }
        self.consumer.incremental_assign(&list)
    }

    /// Gives partitions back to the group.
    pub(crate) fn release(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.consumer.incremental_unassign(&self.list(partitions))
    }

    /// What commits the offsets of the next records to read. It blocks until the broker has answered, so it is for another thread: librdkafka reports
    /// no result of an asynchronous commit to a client that takes its events from a queue, as this one does.
    pub(crate) fn committer(
        &self,
        offsets: &[(i32, i64)],
    ) -> KafkaResult<impl FnOnce() -> KafkaResult<()> + Send + 'static> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for &(partition, offset) in offsets {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
            if let (Some(mut element), Some(id)) =
                (list.find_partition(&self.topic, partition), self.topic_ids.get(&partition))
            {
                let reread = self.rereads.get(&partition).filter(|reread| reread.covers(offset));
                element.set_metadata(reread.map_or_else(|| id.metadata(), |reread| id.set_metadata(*reread)));
            }
        }
        let consumer = Arc::clone(&self.consumer);
        Ok(move || consumer.commit(&list, CommitMode::Sync))
    }

    /// Stops fetching, and throws away what was fetched ahead.
    pub(crate) fn pause(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.consumer.pause(&self.list(partitions))
    }

    /// Fetches again from where the last record was taken.
    pub(crate) fn resume(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.consumer.resume(&self.list(partitions))
    }

    /// Takes the next record of a partition from `offset`; what was fetched ahead is thrown away.
    pub(crate) fn seek(&self, partition: i32, offset: i64) -> KafkaResult<()> {
        self.consumer.seek(&self.topic, partition, Offset::Offset(offset), SEEK_TIMEOUT)
    }

    /// Leaves the group and closes. Closing can hang (rust-rdkafka#509), so it gets a thread of its own and a bound; answers whether it ended in time.
    pub(crate) fn close(self, bound: Duration) -> bool {
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        let open = Arc::downgrade(&self.consumer);
        let (closed, answer) = mpsc::channel();
        let spawned = std::thread::Builder::new().name("kafka-close".into()).spawn(move || {
            drop(self);
            // The receiver is gone when the bound has passed.
            let _ = closed.send(());
        });
        // A commit that is still under way holds the client too, and closes it when it ends.
        spawned.is_ok() && answer.recv_timeout(bound).is_ok() && open.strong_count() == 0
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }
}
