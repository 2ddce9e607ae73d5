//! A record that is no event: how it comes to the dead-letter topic, whole and with its reason.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use auditstream_bench::load::{Generator, Options};
use auditstream_bench::table::Table;
use auditstream_schemas::{Framing, encode};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::run::Demo;

/// How long a dead letter may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);
/// Header names, as the worker writes them.
const SOURCE_PARTITION: &str = "auditstream.source.partition";
const SOURCE_OFFSET: &str = "auditstream.source.offset";

/// Where the poison record lay on the event topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Poison {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// Sends half an event past the producer library, finds its dead letter and shows it.
pub(crate) async fn send_and_find(demo: &Demo<'_>) -> Result<Poison> {
    let event = Generator::new(Options::default()).event(0);
    let mut bytes = Vec::new();
    encode(&event, Framing::SingleObject, &mut bytes);
    let whole = bytes.len();
    bytes.truncate(whole / 2);
    let producer: FutureProducer = client(demo).create().context("no Kafka producer")?;
    let record = FutureRecord::to(demo.target.topic()).payload(&bytes).key("torn");
    let delivered = producer
        .send(record, PATIENCE)
        .await
        .map_err(|(error, _)| error)
        .context("Kafka does not take the poison record")?;
    let poison = Poison { partition: delivered.partition, offset: delivered.offset };
    demo.screen.say(&format!(
        "  {} of an event's {whole} bytes sent straight to {}, partition {}, offset {}",
        bytes.len(),
        demo.target.topic(),
        poison.partition,
        poison.offset
    ));
    let (config, topic) = (client(demo), demo.target.dead_letter_topic());
    let search = tokio::task::spawn_blocking(move || find(&config, topic, poison));
    let letter = demo
        .screen
        .bar("reading the dead-letter topic", 0)
        .during(|| 0, search)
        .await
        .context("a thread ended badly")??;
    demo.screen.say(&format!(
        "  read back from {topic}, partition {}, offset {}:",
        letter.partition(),
        letter.offset()
    ));
    let mut table = Table { names: vec!["header".to_owned(), "value".to_owned()], rows: Vec::new() };
    for header in letter.headers().into_iter().flat_map(Headers::iter) {
        table
            .rows
            .push(vec![header.key.to_owned(), String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned()]);
    }
    table.rows.push(vec!["(key)".to_owned(), String::from_utf8_lossy(letter.key().unwrap_or_default()).into_owned()]);
    let value = letter.payload().unwrap_or_default();
    let same = if value == bytes { "the record's own bytes, unchanged" } else { "CHANGED ON THE WAY" };
    table.rows.push(vec!["(value)".to_owned(), format!("{} bytes: {same}", value.len())]);
    demo.screen.say(&table.render(4));
    if value != bytes {
        bail!("the dead letter does not hold the record's own bytes");
    }
    stored(demo, poison).await?;
    Ok(poison)
}

/// The worker also writes dead letters to a table, after the topic has them.
async fn stored(demo: &Demo<'_>, poison: Poison) -> Result<()> {
    let sql = count_sql(poison);
    let begun = Instant::now();
    while demo.analyst.number(&sql).await? == 0 {
        if begun.elapsed() > PATIENCE {
            bail!("the dead letter is not in the table dead_letters after {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    demo.screen.say("  and queryable in the table dead_letters");
    Ok(())
}

/// How often the poison record is in the table; more than once is a fault.
pub(crate) fn count_sql(poison: Poison) -> String {
    format!("SELECT count() FROM dead_letters WHERE partition = {} AND offset = {}", poison.partition, poison.offset)
}

fn client(demo: &Demo<'_>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", demo.target.bootstrap());
    config
}

/// Reads the dead-letter topic from its start until the letter of `poison` comes.
fn find(config: &ClientConfig, topic: &str, poison: Poison) -> Result<OwnedMessage> {
    let mut config = config.clone();
    config.set("group.id", "auditstream-demo").set("enable.auto.commit", "false").set("fetch.wait.max.ms", "50");
    let consumer: BaseConsumer = config.create().context("no Kafka consumer")?;
    let result = search(&consumer, topic, poison);
    // Closing may hang (rust-rdkafka#509): it is left to a thread that nobody waits for.
    std::thread::spawn(move || drop(consumer));
    result
}

fn search(consumer: &BaseConsumer, topic: &str, poison: Poison) -> Result<OwnedMessage> {
    let metadata =
        consumer.fetch_metadata(Some(topic), PATIENCE).context("Kafka does not describe the dead-letter topic")?;
    let mut partitions = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        partitions.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(letter)) if came_from(&letter, poison) => return Ok(letter.detach()),
            Some(Err(error)) => return Err(error).context("the dead-letter topic can't be read"),
            _ => {}
        }
    }
    bail!("the poison record is not in {topic} after {} s", PATIENCE.as_secs())
}

fn came_from(letter: &impl Message, poison: Poison) -> bool {
    let has = |name: &str, value: String| {
        letter.headers().is_some_and(|headers| {
            headers.iter().any(|header| header.key == name && header.value == Some(value.as_bytes()))
        })
    };
    has(SOURCE_PARTITION, poison.partition.to_string()) && has(SOURCE_OFFSET, poison.offset.to_string())
}
