//! Kafka: do the brokers answer, and are both topics there?

use super::{Context, Finding};
use crate::admin::Admin;

pub(super) async fn topics(context: &Context<'_>) -> Vec<Finding> {
    let kafka = &context.settings.kafka;
    let unreachable = |error: &anyhow::Error| {
        let reason = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let remedy = format!(
            "start Kafka, or set kafka.bootstrap_servers (now {}) and kafka.security_protocol",
            kafka.bootstrap_servers
        );
        vec![Finding::wrong(reason, remedy)]
    };
    let admin = match Admin::connect(context.settings) {
        Ok(admin) => admin,
        Err(error) => return unreachable(&error),
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
                findings.push(Finding::fine(format!("topic {topic}: {count} partitions, {replicas} replicas")));
            }
        }
    }
    findings
}
