//! Kafka: do the brokers answer, are both topics there, do their settings keep what is written, and how is the group?

use std::collections::BTreeMap;
use std::time::Duration;

use auditstream_producer::Config as ProducerConfig;

use super::{Context, Finding};
use crate::admin::{Member, PartitionLag};

/// Events must outlive an outage of ClickHouse, and the week-end before anybody sees it.
const LEAST_RETENTION: Duration = Duration::from_secs(7 * 86_400);

/// A topic that is there.
#[derive(Debug, Clone)]
pub(super) struct Found {
    name: String,
    partitions: usize,
    replicas: usize,
}

fn reason(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub(super) async fn topics(context: &Context<'_>) -> Vec<Finding> {
    let kafka = &context.settings.kafka;
    let unreachable = |error: &anyhow::Error| {
        let remedy = format!(
            "start Kafka, or set kafka.bootstrap_servers (now {}) and kafka.security_protocol",
            kafka.bootstrap_servers
        );
        vec![Finding::wrong(reason(error), remedy)]
    };
    let admin = match &context.admin {
        Ok(admin) => admin,
        Err(error) => return unreachable(error),
    };
    let mut findings = Vec::new();
    for topic in [&kafka.topic, &kafka.dead_letter_topic] {
        match admin.layout(topic) {
            Err(error) => return unreachable(&error),
            Ok((0, _)) => {
                let found = format!("topic {topic} does not exist, or may not be seen");
                findings.push(Finding::wrong(found, "auditstream topics create"));
            }
            Ok((count, replicas)) => {
                context.topics.borrow_mut().push(Found { name: topic.clone(), partitions: count, replicas });
                findings.push(Finding::fine(format!("topic {topic}: {count} partitions, {replicas} replicas")));
            }
        }
    }
    findings
}

pub(super) async fn settings(context: &Context<'_>) -> Vec<Finding> {
    // Without brokers no topic was found.
    let found = context.topics.borrow().clone();
    let (Ok(admin), false) = (&context.admin, found.is_empty()) else { return Vec::new() };
    let brokers = admin.brokers().unwrap_or(0);
    let mut findings = Vec::new();
    let mut source_bytes = None;
    for topic in &found {
        let settings = match admin.topic_settings(&topic.name).await {
            Ok(settings) => settings,
            Err(error) => {
                findings.push(Finding::note(
                    reason(&error),
                    format!("allow this Kafka user DescribeConfigs on topic {}, or look with another", topic.name),
                ));
                continue;
            }
        };
        let is_source = topic.name == context.settings.kafka.topic;
        let mut wrong = judge(topic, is_source, brokers, &settings);
        let bytes = number(&settings, "max.message.bytes");
        if is_source {
            source_bytes = bytes;
        } else if let (Some(own), Some(source)) = (bytes, source_bytes)
            && own < source
        {
            wrong.push(Finding::wrong(
                format!(
                    "topic {}: max.message.bytes is {own}, the events' topic takes {source}: a large record that can't be stored would hold its partition for ever",
                    topic.name
                ),
                alter(&topic.name, &format!("max.message.bytes={}", source + 65_536)),
            ));
        }
        if wrong.is_empty() {
            wrong.push(Finding::fine(format!("topic {} keeps what is written", topic.name)));
        }
        findings.append(&mut wrong);
    }
    findings
}

fn number(settings: &BTreeMap<String, String>, name: &str) -> Option<i64> {
    settings.get(name)?.parse().ok()
}

fn alter(topic: &str, setting: &str) -> String {
    format!("kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {setting}")
}

/// What is wrong with one topic's settings.
fn judge(topic: &Found, is_source: bool, brokers: usize, settings: &BTreeMap<String, String>) -> Vec<Finding> {
    let Found { name, replicas, .. } = topic;
    let text = |key: &str| settings.get(key).map(String::as_str).unwrap_or_default();
    let mut findings = Vec::new();
    let mut wrong = |found: String, setting: &str| {
        findings.push(Finding::wrong(format!("topic {name}: {found}"), alter(name, setting)));
    };
    if text("cleanup.policy").contains("compact") {
        wrong(
            "cleanup.policy is compact: of each entity only the last event would be kept".to_owned(),
            "cleanup.policy=delete",
        );
    }
    let retention = number(settings, "retention.ms");
    if retention.is_some_and(|ms| ms >= 0 && ms < LEAST_RETENTION.as_millis() as i64) {
        wrong(
            format!(
                "retention.ms is {}: what is not stored within {:.1} hours is gone",
                retention.unwrap_or(0),
                retention.unwrap_or(0) as f64 / 3_600_000.0
            ),
            &format!("retention.ms={}", LEAST_RETENTION.as_millis()),
        );
    }
    let least = number(settings, "min.insync.replicas").and_then(|least| usize::try_from(least).ok());
    match least {
        Some(least) if least > *replicas => wrong(
            format!("min.insync.replicas is {least}, and there are {replicas} replicas: no event can be written"),
            &format!("min.insync.replicas={}", (*replicas).clamp(1, 2)),
        ),
        Some(1) if *replicas >= 3 => wrong(
            format!("min.insync.replicas is 1 of {replicas}: a record counts as written when one broker has it"),
            "min.insync.replicas=2",
        ),
        _ => {}
    }
    if text("unclean.leader.election.enable") == "true" {
        wrong(
            "unclean.leader.election.enable is true: a replica that lags may become the leader, and acknowledged events are gone".to_owned(),
            "unclean.leader.election.enable=false",
        );
    }
    if is_source && text("message.timestamp.type") == "LogAppendTime" {
        wrong(
            "message.timestamp.type is LogAppendTime: received_at would not be the time at which the service sent an event, and another one for the same event sent again".to_owned(),
            "message.timestamp.type=CreateTime",
        );
    }
    let largest = ProducerConfig::default().message_max_bytes as i64;
    if is_source && number(settings, "max.message.bytes").is_some_and(|bytes| bytes < largest) {
        wrong(
            format!("max.message.bytes is {}: producers send up to {largest}", text("max.message.bytes")),
            "max.message.bytes=1048588",
        );
    }
    if brokers >= 3 && *replicas < 3 {
        findings.push(Finding::note(
            format!("topic {name} has {replicas} replicas on {brokers} brokers: events can be lost with a disk"),
            "give it 3 with kafka-reassign-partitions.sh",
        ));
    }
    findings
}

pub(super) async fn group(context: &Context<'_>) -> Vec<Finding> {
    let kafka = &context.settings.kafka;
    let group = &context.settings.consumer.group_id;
    let source = context.topics.borrow().iter().find(|topic| topic.name == kafka.topic).cloned();
    let (Ok(admin), Some(source)) = (&context.admin, source) else { return Vec::new() };
    let mut findings = Vec::new();
    match admin.lag(group, &kafka.topic) {
        Ok(lags) => findings.extend(offsets(group, &kafka.topic, &lags)),
        Err(error) => findings.push(Finding::wrong(
            format!("group {group}: {}", reason(&error)),
            format!("allow this Kafka user Read on group {group} and on topic {}", kafka.topic),
        )),
    }
    match admin.members(group, &kafka.topic) {
        Ok(members) => findings.extend(too_many(group, &source, &members)),
        Err(error) => findings.push(Finding::note(
            format!("the members of group {group} can't be seen: {}", reason(&error)),
            format!("allow this Kafka user Describe on group {group}"),
        )),
    }
    if findings.is_empty() {
        findings.push(Finding::fine(format!("group {group} is within the log, and no member is idle")));
    }
    findings
}

/// Committed offsets that lie outside the log.
fn offsets(group: &str, topic: &str, lags: &[PartitionLag]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for lag in lags {
        let Some(committed) = lag.committed else { continue };
        let partition = lag.partition;
        if committed > lag.high {
            findings.push(Finding::wrong(
                format!(
                    "group {group} has committed offset {committed} of {topic}/{partition}, whose log ends at {}: records were lost on the brokers, or the topic was made again",
                    lag.high
                ),
                format!("find out which; then auditstream consumer reset --to-earliest --partition {partition}"),
            ));
        } else if committed < lag.low {
            findings.push(Finding::wrong(
                format!(
                    "{} records of {topic}/{partition} were deleted by retention before group {group} had read them",
                    lag.low - committed
                ),
                "they are lost to ClickHouse unless producers still have them; raise retention.ms, and start more workers",
            ));
        }
    }
    findings
}

fn too_many(group: &str, topic: &Found, members: &[Member]) -> Option<Finding> {
    let (members, partitions) = (members.len(), topic.partitions);
    (members > partitions).then(|| {
        Finding::note(
            format!(
                "group {group} has {members} members for {partitions} partitions: {} stand by",
                members - partitions
            ),
            format!("stop some, or give topic {} more partitions", topic.name),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(replicas: usize, brokers: usize, settings: &[(&str, &str)]) -> Vec<String> {
        let topic = Found { name: "t".to_owned(), partitions: 6, replicas };
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        judge(&topic, true, brokers, &settings).into_iter().map(|finding| finding.found).collect()
    }

    #[test]
    fn settings_that_lose_events_are_wrong() {
        let good = [("cleanup.policy", "delete"), ("retention.ms", "604800000"), ("min.insync.replicas", "2")];
        assert!(judged(3, 3, &good).is_empty());
        assert!(judged(3, 3, &[("retention.ms", "-1")]).is_empty(), "kept for ever");
        for (replicas, brokers, setting, word) in [
            (3, 3, ("min.insync.replicas", "1"), "counts as written when one broker has it"),
            (1, 1, ("min.insync.replicas", "2"), "no event can be written"),
            (1, 1, ("cleanup.policy", "compact,delete"), "compact"),
            (1, 1, ("retention.ms", "604799999"), "168.0 hours"),
            (1, 3, ("retention.ms", "604800000"), "1 replicas on 3 brokers"),
        ] {
            let found = judged(replicas, brokers, &[setting]);
            assert!(found.len() == 1 && found.iter().all(|found| found.contains(word)), "{setting:?}: {found:?}");
        }
    }

    #[test]
    fn offsets_outside_the_log_are_wrong() {
        let lag = |committed| PartitionLag { partition: 0, committed, low: 10, high: 20 };
        assert!(offsets("g", "t", &[lag(None), lag(Some(10)), lag(Some(20))]).is_empty());
        assert!(offsets("g", "t", &[lag(Some(21))]).iter().all(|finding| finding.found.contains("ends at 20")));
        assert_eq!(offsets("g", "t", &[lag(Some(21)), lag(Some(9))]).len(), 2);
    }
}
