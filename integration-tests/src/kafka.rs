//! Kafka as the tests see it: topics made, records sent as raw bytes, topics read from end to end, offsets looked up. Never a member of a group.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use crate::wait::{block_on, wait_until};

/// For something to come about.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one answer.
const LOOKUP: Duration = Duration::from_secs(10);

/// A record as it lies in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The text of header `name`.
    ///
    /// # Panics
    /// When there is none, or no text in it.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.iter().find(|(header, _)| header == name).and_then(|(_, value)| value.as_deref());
        let value = value.unwrap_or_else(|| panic!("{}/{} has no header {name}", self.partition, self.offset));
        std::str::from_utf8(value).expect("headers of ours are text")
    }
}

/// A way to the brokers for one consumer group, which is looked at and never joined.
pub struct Kafka {
    bootstrap: String,
    group: String,
    reader: BaseConsumer,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

impl Kafka {
    /// For the brokers at `bootstrap` and the consumer group `group`.
    #[must_use]
    pub fn new(bootstrap: &str, group: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("group.id", group).set("enable.auto.commit", "false");
        config.set("fetch.queue.backoff.ms", "5").set("fetch.wait.max.ms", "50");
        Self { bootstrap: bootstrap.to_owned(), group: group.to_owned(), reader: config.create().expect("a consumer") }
    }

    /// Makes a topic without replicas.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        let admin = self.admin();
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(LOOKUP));
        // On a busy machine the one broker may be fenced for a moment: then there is none that could hold the topic.
        wait_until(&format!("topic {name} to be made"), PATIENCE, || {
            let results = block_on(admin.create_topics([&topic], &options)).map_err(|error| error.to_string())?;
            results.into_iter().try_for_each(|result| match result {
                // An earlier try made it, though its answer got lost: names are each test's own.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(()),
                Err((_, code)) => Err(code.to_string()),
            })
        });
    }

    /// Gives a topic more partitions: `partitions` of them from now on.
    pub fn add_partitions(&self, name: &str, partitions: usize) {
        let more = NewPartitions::new(name, partitions);
        let results = block_on(self.admin().create_partitions([&more], &AdminOptions::new()));
        for result in results.expect("the broker answers") {
            result.expect("there are fewer now");
        }
    }

    /// Gives a topic one setting of its own, and takes all others back to their defaults.
    pub fn set_topic(&self, name: &str, setting: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(setting, value);
        let results = block_on(self.admin().alter_configs([&change], &AdminOptions::new()));
        for result in results.expect("the broker answers") {
            result.expect("the setting is valid");
        }
    }

    /// Deletes a topic, and waits until the brokers do not know it any more.
    pub fn delete_topic(&self, name: &str) {
        let options = AdminOptions::new().operation_timeout(Some(LOOKUP));
        let results = block_on(self.admin().delete_topics(&[name], &options)).expect("the broker answers");
        results.into_iter().for_each(|result| assert!(result.is_ok(), "{result:?}"));
        wait_until(&format!("topic {name} to be gone"), PATIENCE, || {
            let metadata = self.admin().inner().fetch_metadata(None, LOOKUP).map_err(|error| error.to_string())?;
            match metadata.topics().iter().any(|topic| topic.name() == name) {
                true => Err("it is there".to_owned()),
                false => Ok(()),
            }
        });
    }

    /// Deletes the group with its offsets, once its members are gone.
    pub fn delete_group(&self) {
        wait_until(&format!("group {} to be deleted", self.group), PATIENCE, || {
            let results = block_on(self.admin().delete_groups(&[&self.group], &AdminOptions::new()));
            let results = results.map_err(|error| error.to_string())?;
            results.into_iter().try_for_each(|result| result.map(|_| ()).map_err(|(_, code)| code.to_string()))
        });
    }

    /// Deletes the records of a partition below `offset`, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a valid offset");
        let deleted = block_on(self.admin().delete_records(&before, &AdminOptions::new())).expect("the broker answers");
        deleted.elements().iter().for_each(|element| element.error().expect("records can be deleted"));
    }

    /// Commits an offset for the group, as an operator does while the group has no members.
    pub fn commit(&self, topic: &str, partition: i32, offset: i64) {
        self.commit_with_metadata(topic, partition, offset, "");
    }

    /// The group's offset of a partition, and what was written beside it.
    #[must_use]
    pub fn committed_with_metadata(&self, topic: &str, partition: i32) -> (i64, String) {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let committed = self.reader.committed_offsets(list, LOOKUP).expect("the broker answers");
        let element = committed.find_partition(topic, partition).expect("what was asked for");
        let Offset::Offset(offset) = element.offset() else { panic!("nothing is committed") };
        (offset, element.metadata().to_owned())
    }

    /// [`Self::commit`] with something written beside the offset.
    pub fn commit_with_metadata(&self, topic: &str, partition: i32, offset: i64, metadata: &str) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a valid offset");
        list.find_partition(topic, partition).expect("it was just added").set_metadata(metadata);
        // The group may not have noticed yet that its last member is gone.
        wait_until("the offset to be set", PATIENCE, || {
            self.reader.commit(&list, CommitMode::Sync).map_err(|error| error.to_string())
        });
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().expect("an admin client")
    }

    /// The partitions of a topic and the offset after each one's last record.
    #[must_use]
    pub fn ends(&self, topic: &str) -> Vec<(i32, i64)> {
        // A topic that was just made, or whose broker was just away, may have no leader for a moment.
        wait_until(&format!("the ends of topic {topic}"), PATIENCE, || {
            let metadata = self.reader.fetch_metadata(Some(topic), LOOKUP).map_err(|error| error.to_string())?;
            let partitions = metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
            if partitions.is_empty() {
                return Err("it has no partitions".to_owned());
            }
            let end = |partition: i32| match self.reader.fetch_watermarks(topic, partition, LOOKUP) {
                Ok((_, end)) => Ok((partition, end)),
                Err(error) => Err(format!("partition {partition}: {error}")),
            };
            partitions.iter().map(|partition| end(partition.id())).collect()
        })
    }

    /// The offsets that the group has committed, where it has.
    #[must_use]
    pub fn committed(&self, topic: &str) -> HashMap<i32, i64> {
        let mut list = TopicPartitionList::new();
        for (partition, _) in self.ends(topic) {
            list.add_partition(topic, partition);
        }
        let committed = wait_until("the committed offsets", PATIENCE, || {
            self.reader.committed_offsets(list.clone(), LOOKUP).map_err(|error| error.to_string())
        });
        let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        let elements = committed.elements();
        elements.iter().filter_map(|element| Some((element.partition(), offset(element.offset())?))).collect()
    }

    /// Records of a topic that the group has not committed yet.
    #[must_use]
    pub fn lag(&self, topic: &str) -> i64 {
        let committed = self.committed(topic);
        self.ends(topic).iter().map(|(partition, end)| end - committed.get(partition).copied().unwrap_or(0)).sum()
    }

    /// Every record that lies in a topic now.
    ///
    /// # Panics
    /// When they can't be read within a minute.
    #[must_use]
    pub fn read(&self, topic: &str) -> Vec<Record> {
        let mut missing: HashMap<i32, i64> = self.ends(topic).into_iter().filter(|&(_, end)| end > 0).collect();
        let mut list = TopicPartitionList::new();
        for partition in missing.keys() {
            list.add_partition_offset(topic, *partition, Offset::Beginning).expect("a valid offset");
        }
        self.reader.assign(&list).expect("partitions can be assigned");
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        while !missing.is_empty() {
            assert!(
                Instant::now() < deadline,
                "topic {topic} could not be read in {PATIENCE:?}: partitions {missing:?} are missing"
            );
            let Some(message) = self.reader.poll(Duration::from_millis(100)) else { continue };
            // Such as of a broker that was away a while ago; the client goes on by itself.
            let Ok(message) = message else { continue };
            let (partition, offset) = (message.partition(), message.offset());
            if missing.get(&partition).is_some_and(|end| offset + 1 >= *end) {
                missing.remove(&partition);
            }
            records.push(Record {
                partition,
                offset,
                timestamp_ms: message.timestamp().to_millis().expect("records have a time"),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: message.headers().map_or_else(Vec::new, |headers| {
                    headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
                }),
            });
        }
        self.reader.unassign().expect("partitions can be given back");
        records
    }

    /// A sender of raw bytes to `topic`.
    #[must_use]
    pub fn raw_sender(&self, topic: &str) -> RawSender {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("acks", "all").set("enable.idempotence", "true");
        config.set("partitioner", "murmur2_random").set("linger.ms", "1");
        let producer = config.create_with_context(Positions::default()).expect("a producer");
        RawSender { producer, topic: topic.to_owned(), sent: AtomicUsize::new(0) }
    }
}

/// Where the broker put each record, by the record's number.
#[derive(Default)]
struct Positions(Mutex<HashMap<usize, (i32, i64)>>);

impl ClientContext for Positions {}

impl ProducerContext for Positions {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        // What failed has no position, and `finish` says so.
        if let Ok(message) = result {
            self.0.lock().expect("no panic holds it").insert(number, (message.partition(), message.offset()));
        }
    }
}

/// Sends bytes as they are.
pub struct RawSender {
    producer: ThreadedProducer<Positions>,
    topic: String,
    sent: AtomicUsize,
}

impl std::fmt::Debug for RawSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawSender").field("topic", &self.topic).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl RawSender {
    /// Queues a record and returns its number, which counts from 0.
    pub fn send(&self, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(String, Option<Vec<u8>>)]) -> usize {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let mut all = OwnedHeaders::new_with_capacity(headers.len());
        for (name, value) in headers {
            all = all.insert(Header { key: name, value: value.as_deref() });
        }
        let record = BaseRecord {
            topic: &self.topic,
            partition: None,
            payload: value,
            key,
            timestamp: None,
            headers: Some(all),
            delivery_opaque: number,
        };
        self.producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
        number
    }

    /// Waits for all acknowledgements and returns where each record lies, by number.
    ///
    /// # Panics
    /// When a record was not acknowledged within a minute.
    #[must_use]
    pub fn positions(&self) -> Vec<(i32, i64)> {
        self.producer.flush(PATIENCE).expect("the broker acknowledges");
        let positions = self.producer.context().0.lock().expect("no panic holds it");
        let sent = self.sent.load(Ordering::Relaxed);
        (0..sent)
            .map(|number| *positions.get(&number).unwrap_or_else(|| panic!("record {number} was not acknowledged")))
            .collect()
    }
}
