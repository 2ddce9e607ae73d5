//! Who takes part in a benchmark, in which version.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::clickhouse::Asker;

/// auditstream, the broker, and the library by which both sides of it speak to the broker.
#[must_use]
pub fn with_kafka() -> BTreeMap<String, String> {
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let all = [
        ("auditstream", env!("CARGO_PKG_VERSION")),
        ("Kafka", auditstream_stack::KAFKA_VERSION),
        ("librdkafka", librdkafka.as_str()),
    ];
    all.into_iter().map(|(who, version)| (who.to_owned(), version.to_owned())).collect()
}

/// The same and ClickHouse, as the server says.
///
/// # Errors
/// ClickHouse does not answer.
pub async fn with_clickhouse(asker: &Asker) -> Result<BTreeMap<String, String>> {
    let mut versions = with_kafka();
    let answer = asker.row("SELECT version()").await?.and_then(|row| row.into_iter().next());
    versions.insert("ClickHouse".to_owned(), answer.context("ClickHouse says no version")?);
    Ok(versions)
}
