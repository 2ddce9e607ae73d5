//! What a topic holds, as the broker says.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

const LIMIT: Duration = Duration::from_secs(20);

/// The offset behind the last record of each partition, by the partition's number. Blocks.
///
/// # Errors
/// The broker does not answer, or has no such topic.
pub fn ends(bootstrap: &str, topic: &str) -> Result<Vec<u64>> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).context("Kafka does not know the topic")?;
    let partitions: usize = metadata.topics().iter().map(|topic| topic.partitions().len()).sum();
    ensure!(partitions > 0, "Kafka has no topic {topic}");
    (0..partitions)
        .map(|partition| {
            let (_, end) = consumer.fetch_watermarks(topic, i32::try_from(partition)?, LIMIT)?;
            Ok(u64::try_from(end)?)
        })
        .collect()
}
