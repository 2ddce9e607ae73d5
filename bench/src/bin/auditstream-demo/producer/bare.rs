//! librdkafka alone, with the library's settings: what bounds the whole path from below.
//!
//! The records are ready before the clock starts: the key, the Avro bytes and the headers' texts that the library would have made. What is left is what
//! any Rust producer on librdkafka pays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use auditstream_bench::table::thousands;
use auditstream_producer::CE_TYPE;
use auditstream_schemas::{Framing, encode};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer};

use super::{Bench, Figure, Report, Unit, clock};

/// Records that are ready; more are these again.
const READY: u64 = 65_536;

/// Counts what the brokers acknowledged.
#[derive(Default)]
struct Count {
    acked: AtomicU64,
    failed: AtomicU64,
}

struct Context(Arc<Count>);

impl ClientContext for Context {}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() { &self.0.acked } else { &self.0.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A record as the library hands it to librdkafka.
struct Ready {
    key: String,
    payload: Vec<u8>,
    /// Of those headers that differ from event to event.
    id: String,
    source: String,
    time: String,
}

impl Ready {
    fn headers(&self) -> OwnedHeaders {
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", &self.id),
            ("ce_type", CE_TYPE),
            ("ce_source", &self.source),
            ("ce_time", &self.time),
            ("content-type", "application/avro"),
        ];
        headers.into_iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |all, (key, value)| {
            all.insert(Header { key, value: Some(value) })
        })
    }
}

pub(super) fn librdkafka(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let events = bench.args.events;
    bench.screen.say(&format!("\nlibrdkafka alone, {} ready records a run from one thread", thousands(events)));
    let ready: Vec<Ready> = (0..READY).map(|number| ready(bench, number)).collect();
    for (what, names, is_with_headers) in [
        ("with headers", ["librdkafka_per_s", "librdkafka_cpu_s_per_million"], true),
        ("without headers", ["librdkafka_no_headers_per_s", "librdkafka_no_headers_cpu_s_per_million"], false),
    ] {
        let runs = bench.repeat(what, || {
            let (rate, cpu) = once(bench, &ready, is_with_headers)?;
            Ok(((rate, cpu), format!("{} events a second; CPU-s per million {cpu:.2}", thousands(rate as u64))))
        })?;
        let all = |pick: fn(&(f64, f64)) -> f64| runs.iter().map(pick).collect::<Vec<f64>>();
        report.add(Figure::plain(names[0], Unit::Whole, all(|run| run.0)));
        report.add(Figure::plain(names[1], Unit::Hundredths, all(|run| run.1)));
    }
    Ok(())
}

fn ready(bench: &Bench<'_>, number: u64) -> Ready {
    let mut event = bench.events.at(number);
    // As long as the stamp that the library would write.
    event.producer.id = "a-host".to_owned();
    event.producer.epoch = event.occurred_at.as_micros();
    event.producer.seq = number as i64;
    let mut payload = Vec::new();
    encode(&event, Framing::SingleObject, &mut payload);
    Ready {
        key: event.key(),
        payload,
        id: event.event_id.to_string(),
        source: format!("/{}/{}", event.environment, event.service),
        time: event.occurred_at.to_string(),
    }
}

/// Events a second, and CPU-seconds per million.
fn once(bench: &Bench<'_>, ready: &[Ready], is_with_headers: bool) -> Result<(f64, f64)> {
    let config = bench.config()?;
    let mut client = ClientConfig::new();
    for (name, value) in &config.properties {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("compression.codec", config.compression.as_str())
        .set("compression.level", "1")
        .set("linger.ms", config.linger.as_millis().to_string())
        // As many as the library lets wait.
        .set("queue.buffering.max.messages", config.queue_events.to_string());
    let count = Arc::new(Count::default());
    let producer: ThreadedProducer<Context> =
        ThreadedProducer::from_config_and_context(&client, Context(Arc::clone(&count)))?;
    let (events, topic) = (bench.args.events, bench.target.topic());
    let (cpu, begun) = (clock::process_cpu()?, Instant::now());
    for record in ready.iter().cycle().take(usize::try_from(events)?) {
        let mut next = base(topic, record, is_with_headers);
        while let Err((error, back)) = producer.send(next) {
            ensure!(
                matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                "a record was refused: {error}"
            );
            thread::sleep(Duration::from_millis(1));
            next = back;
        }
    }
    producer.flush(super::ACKNOWLEDGED).context("not all records were acknowledged")?;
    let (took, cpu) = (begun.elapsed(), clock::process_cpu()? - cpu);
    // `flush` may answer before the last callback was heard on the other thread.
    while count.acked.load(Ordering::Relaxed) + count.failed.load(Ordering::Relaxed) < events {
        ensure!(begun.elapsed() < took + super::ACKNOWLEDGED, "the last acknowledgements are missing");
        thread::sleep(Duration::from_micros(200));
    }
    let failed = count.failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "{failed} records were not acknowledged");
    Ok((events as f64 / took.as_secs_f64(), cpu.as_secs_f64() * 1e6 / events as f64))
}

fn base<'a>(topic: &'a str, record: &'a Ready, is_with_headers: bool) -> BaseRecord<'a, str, [u8]> {
    let base = BaseRecord::to(topic).key(record.key.as_str()).payload(record.payload.as_slice());
    if is_with_headers { base.headers(record.headers()) } else { base }
}
