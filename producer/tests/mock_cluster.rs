//! The producer against librdkafka's own mock cluster: acknowledgement, partitions, headers, order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use auditstream_producer::{Config, DeliveryError, FailReason, Producer, RecordOptions, RejectReason, TraceParent};
use auditstream_schemas::{AuditEvent, Schemas, decode};
use common::{block_on, config, event};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

const TOPIC: &str = "audit.events";
const PARTITIONS: i32 = 6;

fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 3).unwrap();
    cluster
}

/// The first `count` records, in order within each partition.
fn read(bootstrap: &str, count: usize) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "test")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let give_up = Instant::now() + Duration::from_secs(30);
    let mut found = Vec::new();
    while found.len() < count && Instant::now() < give_up {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            found.push(message.unwrap().detach());
        }
    }
    found
}

/// Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c_u32 ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (index, byte) in rest.iter().enumerate() {
        h ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    (h ^ (h >> 15)) as i32
}

#[test]
fn the_partition_is_the_one_java_takes() {
    // The values of Kafka's own UtilsTest.testMurmur2.
    assert_eq!(murmur2(b"21"), -973_932_308);
    assert_eq!(murmur2(b"foobar"), -790_332_482);
    assert_eq!(murmur2(b"a-little-bit-long-string"), -985_981_536);
    assert_eq!(murmur2(b"a-little-bit-longer-string"), -1_486_304_829);
    assert_eq!(murmur2(b"abc"), 479_470_107);

    let cluster = cluster();
    let producer = Producer::new(config(&cluster.bootstrap_servers())).unwrap();
    let mut seen = BTreeSet::new();
    for index in 0..60 {
        let event = event(&format!("entity/{index}"));
        let key = event.key();
        let delivery = block_on(producer.record_acked(event)).unwrap();
        assert_eq!(delivery.partition, (murmur2(key.as_bytes()) & 0x7fff_ffff) % PARTITIONS, "{key}");
        seen.insert(delivery.partition);
    }
    assert_eq!(seen.len(), PARTITIONS as usize);
    assert_eq!(producer.stats().acked, 60);
}

#[test]
fn what_arrives_is_the_event_with_its_key_headers_and_stamp() {
    let cluster = cluster();
    let bootstrap = cluster.bootstrap_servers();
    let producer = Producer::new(config(&bootstrap)).unwrap();
    let sent = event("a/b");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    producer
        .record_with(sent.clone(), RecordOptions { traceparent: TraceParent::parse(trace), ..RecordOptions::default() })
        .unwrap();
    assert!(block_on(producer.flush(Duration::from_secs(20))).all_acked());

    let found = read(&bootstrap, 1).remove(0);
    assert_eq!(found.key().unwrap(), b"acme/order/a%2Fb");
    let mut got: AuditEvent = decode(&Schemas::builtin().unwrap(), found.payload().unwrap()).unwrap();
    let stamp = std::mem::take(&mut got.producer);
    assert_eq!(got, sent);
    assert_eq!((stamp.id.as_str(), stamp.seq), ("test", 1));
    assert!(stamp.epoch / 1000 <= before && stamp.epoch / 1000 > before - 60_000);
    let timestamp = found.timestamp().to_millis().unwrap();
    assert!((before..before + 20_000).contains(&timestamp));
    let headers = found.headers().unwrap();
    let header = |name: &str| headers.iter().find(|h| h.key == name).and_then(|h| h.value.map(<[u8]>::to_vec));
    assert_eq!(header("ce_id").unwrap(), sent.event_id.to_string().as_bytes());
    assert_eq!(header("ce_type").unwrap(), auditstream_producer::CE_TYPE.as_bytes());
    assert_eq!(header("ce_source").unwrap(), b"/default/shop");
    assert_eq!(header("traceparent").unwrap(), trace.as_bytes());
}

#[test]
fn without_cloudevents_a_record_has_its_trace_alone() {
    let cluster = cluster();
    let bootstrap = cluster.bootstrap_servers();
    let producer = Producer::new(Config { cloud_events: false, ..config(&bootstrap) }).unwrap();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    producer
        .record_with(event("1"), RecordOptions { traceparent: TraceParent::parse(trace), ..RecordOptions::default() })
        .unwrap();
    producer.record(event("1")).unwrap();
    assert!(block_on(producer.flush(Duration::from_secs(20))).all_acked());
    let found = read(&bootstrap, 2);
    let headers = |at: usize| -> Vec<_> {
        let headers = found[at].headers().into_iter().flat_map(|headers| headers.iter());
        headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    };
    assert_eq!(headers(0), [("traceparent".to_owned(), Some(trace.as_bytes().to_vec()))]);
    assert_eq!(headers(1), []);
}

#[test]
fn a_relayed_event_keeps_its_stamp() {
    let cluster = cluster();
    let bootstrap = cluster.bootstrap_servers();
    let producer = Producer::new(config(&bootstrap)).unwrap();
    let mut relayed = event("1");
    relayed.producer = auditstream_schemas::ProducerStamp { id: "elsewhere".to_owned(), epoch: 7, seq: 9 };
    producer.record(relayed.clone()).unwrap();
    assert!(block_on(producer.shutdown(Duration::from_secs(20))).all_acked());
    let found = read(&bootstrap, 1).remove(0);
    assert_eq!(decode(&Schemas::builtin().unwrap(), found.payload().unwrap()).unwrap(), relayed);
}

/// Four threads, one entity each, and brokers that refuse some requests: order and the sequence's completeness hold.
#[test]
fn order_per_key_holds_across_retries() {
    let cluster = cluster();
    let bootstrap = cluster.bootstrap_servers();
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    let lost_answer = RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT;
    cluster.request_errors(RDKafkaApiKey::Produce, &[refusal, refusal, lost_answer, refusal]);
    let producer = Producer::new(config(&bootstrap)).unwrap();
    const EACH: i64 = 2_000;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let producer = producer.clone();
            scope.spawn(move || {
                for index in 0..EACH {
                    let mut event = event(&thread.to_string());
                    event.details = format!("{{\"n\":{index}}}");
                    let mut next = Some(event);
                    while let Some(event) = next.take() {
                        next = producer.record(event).err().map(|rejected| *rejected.event);
                    }
                }
            });
        }
    });
    let report = block_on(producer.shutdown(Duration::from_secs(60)));
    assert!(report.all_acked(), "{report:?}");
    let found = read(&bootstrap, 4 * EACH as usize);
    let schemas = Schemas::builtin().unwrap();
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut sequence = Vec::new();
    for message in &found {
        let event = decode(&schemas, message.payload().unwrap()).unwrap();
        sequence.push(event.producer.seq);
        by_key.entry(event.key()).or_default().push(event.details);
    }
    sequence.sort_unstable();
    assert_eq!(sequence, (1..=4 * EACH).collect::<Vec<_>>());
    let expected: Vec<_> = (0..EACH).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(by_key.len(), 4);
    for (key, details) in by_key {
        assert!(details == expected, "{key} is out of order");
    }
}

#[test]
fn what_waits_for_librdkafka_arrives_in_order() {
    let cluster = cluster();
    // Nothing is sent for a while: librdkafka holds as much as it is given, and the rest comes while it gets room again.
    let config = Config { linger: Duration::from_millis(300), ..config(&cluster.bootstrap_servers()) };
    let producer = Producer::new(config).unwrap();
    let (rounds, entities) = (1_200, 100);
    for round in 0..rounds {
        for entity in 0..entities {
            let mut event = event(&entity.to_string());
            event.details = format!("{{\"round\":{round}}}");
            while let Err(rejected) = producer.record(event) {
                assert!(matches!(rejected.reason, RejectReason::QueueFull { .. }), "{rejected}");
                std::thread::yield_now();
                event = *rejected.event;
            }
        }
    }
    let report = block_on(producer.flush(Duration::from_secs(60)));
    assert_eq!((report.acked, report.outstanding), (rounds * entities, 0), "{report:?}");
    let schemas = Schemas::builtin().unwrap();
    let mut next: HashMap<String, u64> = HashMap::new();
    for message in read(&cluster.bootstrap_servers(), (rounds * entities) as usize) {
        let event = decode(&schemas, message.payload().unwrap()).unwrap();
        let round = next.entry(event.entity_id).or_default();
        assert_eq!(event.details, format!("{{\"round\":{round}}}"));
        *round += 1;
    }
    assert!(next.len() == entities as usize && next.values().all(|round| *round == rounds), "{next:?}");
}

/// A fatal error ends librdkafka's idempotent session; the producer begins another one and goes on.
#[test]
fn a_broken_session_is_replaced() {
    let cluster = cluster();
    let producer = Producer::new(config(&cluster.bootstrap_servers())).unwrap();
    block_on(producer.record_acked(event("1"))).unwrap();
    let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[fatal]);
    match block_on(producer.record_acked(event("1"))) {
        Err(DeliveryError::Failed(failure)) => assert_eq!(failure.reason, FailReason::Fatal),
        other => panic!("{other:?}"),
    }
    block_on(producer.record_acked(event("1"))).unwrap();
    let stats = producer.stats();
    assert_eq!((stats.submitted, stats.acked, stats.failed.total()), (3, 2, 1));
}

#[test]
fn an_unknown_topic_fails_with_its_reason() {
    let cluster = cluster();
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.topic_error("audit.nowhere", error).unwrap();
    let mut config = Config { topic: "audit.nowhere".to_owned(), ..config(&cluster.bootstrap_servers()) };
    config.properties.insert("topic.metadata.propagation.max.ms".to_owned(), "0".to_owned());
    let producer = Producer::new(config).unwrap();
    producer.record(event("1")).unwrap();
    let report = block_on(producer.flush(Duration::from_secs(20)));
    assert_eq!(report.failed.get(FailReason::UnknownTopic), 1, "{report:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn works_on_a_current_thread_runtime() {
    let cluster = cluster();
    let producer = Producer::new(config(&cluster.bootstrap_servers())).unwrap();
    let (first, second) = tokio::join!(producer.record_acked(event("1")), producer.record_acked(event("2")));
    first.unwrap();
    second.unwrap();
    assert!(producer.flush(Duration::from_secs(10)).await.all_acked());
}

#[test]
fn dropping_drains() {
    let cluster = cluster();
    let bootstrap = cluster.bootstrap_servers();
    let producer = Producer::new(config(&bootstrap)).unwrap();
    for index in 0..100 {
        producer.record(event(&index.to_string())).unwrap();
    }
    drop(producer);
    assert_eq!(read(&bootstrap, 100).len(), 100);
}
