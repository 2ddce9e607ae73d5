//! Topics: made by the product's own command, loaded by its producer, removed when their scenario is done.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use auditstream_bench::load::{self, Generator, send};
use auditstream_producer::{Config, Producer};
use auditstream_schemas::{Framing, Timestamp};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use super::Bench;
use super::scenario::Load;
use crate::setup;

/// Threads that make events.
const THREADS: u64 = 2;
/// Largest message: 16 KB events differ by a fifth, and a batch of them is larger than librdkafka's default.
const MESSAGE_MAX: usize = 1_000_000;
/// From one look at the progress to the next.
const LOOK: Duration = Duration::from_millis(20);
/// How long the removal of a topic may take.
const REMOVAL: Duration = Duration::from_secs(15);

/// A topic with events on it.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) partitions: u32,
    pub(super) events: u64,
}

impl Topic {
    /// The topic of its dead letters.
    pub(super) fn dead_letters(&self) -> String {
        format!("{}.dlq", self.name)
    }

    /// The product's settings that lead to this topic and to the registry with its schema.
    pub(super) fn settings(&self, bench: &Bench<'_>) -> Vec<(String, String)> {
        let registry = bench.target.state().registry_url.clone().unwrap_or_default();
        vec![
            ("AUDITSTREAM_SCHEMA__REGISTRY_URL".to_owned(), registry),
            ("AUDITSTREAM_KAFKA__TOPIC".to_owned(), self.name.clone()),
            ("AUDITSTREAM_KAFKA__DEAD_LETTER_TOPIC".to_owned(), self.dead_letters()),
        ]
    }

    /// An empty one.
    pub(super) fn new(bench: &Bench<'_>, load: &Load) -> Result<Self> {
        let topic = Self { name: format!("bench.{}", bench.next()), partitions: load.partitions, events: 0 };
        let partitions = topic.partitions.to_string();
        let settings = topic.settings(bench);
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let args = ["topics", "create", "--partitions", &partitions];
        bench.runtime.block_on(setup::auditstream_with(
            bench.screen,
            &bench.target,
            &bench.program,
            &args,
            &settings,
        ))?;
        Ok(topic)
    }

    /// One with `load` on it.
    pub(super) fn loaded(bench: &Bench<'_>, load: &Load) -> Result<Self> {
        let mut topic = Self::new(bench, load)?;
        topic.add(bench, load, load.events)?;
        Ok(topic)
    }

    /// Puts `events` more on it, of the kind of `load`; other ones each time.
    pub(super) fn add(&mut self, bench: &Bench<'_>, load: &Load, events: u64) -> Result<()> {
        let options = load::Options {
            seed: bench.seed + bench.next(),
            events,
            until: Timestamp::now(),
            bytes: load.bytes,
            changes: load.changes,
            ..load::Options::default()
        };
        let producer = Producer::new(Config {
            topic: self.name.clone(),
            framing: Framing::Confluent { schema_id: bench.schema_id },
            compression: load.compression,
            producer_id: Some("load".to_owned()),
            message_max_bytes: MESSAGE_MAX,
            // What the full queue gives back is handed in again: an event that tells of it would be one too many.
            loss_tenant: None,
            ..bench.target.producer()
        })?;
        let bar = bench.screen.bar("onto the topic", events);
        let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let generator = Generator::new(options);
        let result = std::thread::scope(|scope| {
            let work = scope.spawn(|| send(&generator, 0..events, &producer, THREADS, (&sent, &stop)));
            while !work.is_finished() {
                bar.set(sent.load(Ordering::Relaxed));
                std::thread::sleep(LOOK);
            }
            work.join()
        });
        drop(bar);
        let sent = result.map_err(|_| anyhow!("a thread ended badly"))??;
        self.events += sent.events;
        Ok(())
    }

    /// Bytes of its log on the broker's disk, compressed as they are.
    pub(super) fn stored(&self, bench: &Bench<'_>) -> u64 {
        let folder = bench.target.state().dir.join("kafka");
        (0..self.partitions).map(|partition| log_bytes(&folder.join(format!("{}-{partition}", self.name)))).sum()
    }

    /// Takes it off the broker, its dead letters' topic too.
    pub(super) fn remove(self, bench: &Bench<'_>) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", bench.target.bootstrap()).create()?;
        let options = AdminOptions::new().operation_timeout(Some(REMOVAL)).request_timeout(Some(REMOVAL));
        let names = [self.name.as_str(), &self.dead_letters()];
        let removed =
            bench.runtime.block_on(admin.delete_topics(&names, &options)).context("the topic can't be removed")?;
        for one in removed {
            one.map_err(|(name, code)| anyhow!("the topic {name} can't be removed: {code}"))?;
        }
        Ok(())
    }
}

fn log_bytes(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter(|file| file.path().extension().is_some_and(|extension| extension == "log"))
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}
