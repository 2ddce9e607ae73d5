//! Kafka from the operator's side: topics, their settings, and how far a group has come.

mod group;
mod records;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use auditstream_producer::oauth::{self, TokenContext, TokenFile};
use auditstream_producer::security;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

pub(crate) use self::group::{Member, NewOffset};
pub(crate) use self::records::{Record, Records};
use crate::config::Settings;

/// How long a broker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A topic as it should be or as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: usize,
    /// `None`: the broker's default.
    pub(crate) replication: Option<usize>,
    pub(crate) settings: BTreeMap<&'static str, String>,
}

/// A setting of an existing topic that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) setting: String,
    pub(crate) is: String,
    pub(crate) wanted: String,
}

/// What became of a topic that was to be created.
#[derive(Debug)]
pub(crate) enum Created {
    New,
    /// It was there; nothing was changed.
    Existing(Vec<Difference>),
}

/// A connection to the brokers.
pub(crate) struct Admin {
    client: AdminClient<TokenContext>,
    tokens: Option<TokenFile>,
    config: ClientConfig,
    bootstrap_servers: String,
}

impl Admin {
    pub(crate) fn connect(settings: &Settings) -> anyhow::Result<Admin> {
        let mut config = ClientConfig::new();
        for (name, value) in settings.client_properties() {
            config.set(name, value);
        }
        config.set("client.id", "auditstream-admin").set_log_level(RDKafkaLogLevel::Critical);
        security::check_certificates(&mut config);
        let tokens = settings.kafka.oauth_token_file.clone().map(TokenFile::new);
        let context = TokenContext::new(tokens.clone());
        let client: AdminClient<_> = config.create_with_context(context).context("the Kafka client's settings")?;
        if let Some(tokens) = &tokens {
            oauth::give_token(client.inner(), tokens)?;
        }
        Ok(Admin { client, tokens, config, bootstrap_servers: settings.kafka.bootstrap_servers.clone() })
    }

    fn silent(&self) -> String {
        format!("no broker answers at {}", self.bootstrap_servers)
    }

    /// Creates the topic, or says how the existing one differs.
    pub(crate) async fn create(&self, topic: &Topic) -> anyhow::Result<Created> {
        let partitions = i32::try_from(topic.partitions)?;
        let replication = topic.replication.map_or(Ok(-1), i32::try_from)?;
        let mut new = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(replication));
        for (name, value) in &topic.settings {
            new = new.set(name, value);
        }
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
        let answer = self.client.create_topics([&new], &options).await.with_context(|| self.silent())?;
        match answer.into_iter().next().ok_or_else(|| anyhow!("the broker said nothing about topic {}", topic.name))? {
            Ok(_) => {
                self.wait_until_known(topic).await?;
                Ok(Created::New)
            }
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(Created::Existing(self.differences(topic).await?)),
            Err((name, code)) => Err(anyhow!("topic {name} can't be created: {code}")),
        }
    }

    /// The controller has the topic at once, brokers hear of it a little later: who asks one meanwhile is told that it does not exist.
    async fn wait_until_known(&self, topic: &Topic) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.layout(&topic.name)?.0 < topic.partitions {
            if begun.elapsed() > TIMEOUT {
                return Err(anyhow!(
                    "topic {} was created, but no broker knows it after {} s",
                    topic.name,
                    TIMEOUT.as_secs()
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// A client that looks at a group, and is no member of it.
    fn consumer(&self, group: &str) -> anyhow::Result<BaseConsumer<TokenContext>> {
        let mut config = self.config.clone();
        config.set("group.id", group).set("enable.auto.commit", "false").set("auto.offset.reset", "error");
        config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "50");
        let context = TokenContext::new(self.tokens.clone());
        let consumer: BaseConsumer<_> = config.create_with_context(context).context("the Kafka client's settings")?;
        if let Some(tokens) = &self.tokens {
            oauth::give_token(consumer.client(), tokens)?;
        }
        Ok(consumer)
    }

    /// The settings of a topic as they are in effect.
    pub(crate) async fn topic_settings(&self, topic: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let resource = ResourceSpecifier::Topic(topic);
        let answer = self.client.describe_configs([&resource], &options).await.with_context(|| self.silent())?;
        let described = answer.into_iter().next().ok_or_else(|| anyhow!("the broker described nothing"))?;
        let described = described.map_err(|code| anyhow!("topic {topic} can't be described: {code}"))?;
        Ok(described.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    /// How many brokers there are.
    pub(crate) fn brokers(&self) -> anyhow::Result<usize> {
        let metadata = self.client.inner().fetch_metadata(None, TIMEOUT).with_context(|| self.silent())?;
        Ok(metadata.brokers().len())
    }

    async fn differences(&self, wanted: &Topic) -> anyhow::Result<Vec<Difference>> {
        let (partitions, replication) = self.layout(&wanted.name)?;
        let mut differences = Vec::new();
        let mut compare = |setting: &str, is: String, wanted: String| {
            if is != wanted {
                differences.push(Difference { setting: setting.to_owned(), is, wanted });
            }
        };
        compare("partitions", partitions.to_string(), wanted.partitions.to_string());
        if let Some(factor) = wanted.replication {
            compare("replication factor", replication.to_string(), factor.to_string());
        }
        let described = self.topic_settings(&wanted.name).await?;
        for (name, value) in &wanted.settings {
            let is = described.get(*name).cloned().unwrap_or_default();
            compare(name, is, value.clone());
        }
        Ok(differences)
    }

    /// Partitions and replicas of the first one.
    pub(crate) fn layout(&self, topic: &str) -> anyhow::Result<(usize, usize)> {
        let metadata = self.client.inner().fetch_metadata(Some(topic), TIMEOUT).with_context(|| self.silent())?;
        let topic = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = topic.map(rdkafka::metadata::MetadataTopic::partitions).unwrap_or_default();
        Ok((partitions.len(), partitions.first().map_or(0, |partition| partition.replicas().len())))
    }

    /// Each partition of `topic` with the group's committed offset and the log's bounds. Blocks; empty when there is no
    /// such topic.
    pub(crate) fn lag(&self, group: &str, topic: &str) -> anyhow::Result<Vec<PartitionLag>> {
        let (partitions, _) = self.layout(topic)?;
        let consumer = self.consumer(group)?;
        let mut list = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions)? {
            list.add_partition(topic, partition);
        }
        if partitions == 0 {
            return Ok(Vec::new());
        }
        let committed = committed(&consumer, &list).context("the group's committed offsets")?;
        let mut lags = Vec::new();
        for element in committed.elements() {
            let partition = element.partition();
            let (low, high) = consumer.fetch_watermarks(topic, partition, TIMEOUT).context("the log's bounds")?;
            let committed = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            lags.push(PartitionLag { partition, committed, low, high });
        }
        Ok(lags)
    }
}

/// The group's committed offsets. A group that nobody has used yet has no coordinator at first: asks again until there is one.
fn committed(consumer: &BaseConsumer<TokenContext>, list: &TopicPartitionList) -> KafkaResult<TopicPartitionList> {
    let until = Instant::now() + TIMEOUT;
    loop {
        let answer = consumer.committed_offsets(list.clone(), TIMEOUT);
        let passing = answer.as_ref().err().and_then(KafkaError::rdkafka_error_code).is_some_and(|code| {
            matches!(
                code,
                RDKafkaErrorCode::NotCoordinator
                    | RDKafkaErrorCode::CoordinatorNotAvailable
                    | RDKafkaErrorCode::CoordinatorLoadInProgress
            )
        });
        if !passing || Instant::now() >= until {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// How far a group is in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionLag {
    pub(crate) partition: i32,
    /// `None`: nothing was ever committed.
    pub(crate) committed: Option<i64>,
    /// The first offset that is there.
    pub(crate) low: i64,
    /// The next offset to be written.
    pub(crate) high: i64,
}

impl PartitionLag {
    /// Records not yet committed.
    pub(crate) fn lag(&self) -> i64 {
        (self.high - self.committed.unwrap_or(self.low)).max(0)
    }
}
