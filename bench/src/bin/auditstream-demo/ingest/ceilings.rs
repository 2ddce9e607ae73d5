//! What bounds every sink: the fetch without decoding, and the insert of rows that are ready.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use auditstream_bench::process::usage;
use auditstream_consumer::CONSUMER_DEFAULTS;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::Bench;
use super::drain::empty;
use super::sql;
use super::topic::Topic;

/// A plain copy of the rows, from which blocks are cut.
const COPY: &str = "bench_copy";
/// As the worker's inserts (`store/src/ingest.rs`): one block, no work on duplicates.
pub(super) const INSERT: &str = "async_insert=0&insert_deduplicate=1&optimize_on_insert=0&max_partitions_per_insert_block=0&max_insert_block_size=10000000\
    &min_insert_block_size_rows=10000000&min_insert_block_size_bytes=10000000000&input_format_parallel_parsing=0&max_insert_threads=1";
/// One block a request, made by one thread.
const SELECT: &str = "max_threads=1&max_block_size=10000000&preferred_block_size_bytes=0&preferred_max_column_in_block_size_bytes=0\
    &optimize_read_in_order=0";
/// Without a record for so long, nothing comes any more.
const STALL: Duration = Duration::from_secs(30);

/// What a ceiling took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Ceiling {
    pub(super) events: u64,
    pub(super) wall: Duration,
    /// Of who does it: this process, or ClickHouse.
    pub(super) cpu: Duration,
    /// Avro bytes that were fetched, frames included; of an insert, its blocks' bytes.
    pub(super) bytes: u64,
}

impl Ceiling {
    pub(super) fn per_second(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64()
    }

    pub(super) fn per_million(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.events as f64
    }

    /// Bytes of an event in the mean.
    pub(super) fn mean_bytes(&self) -> f64 {
        self.bytes as f64 / self.events as f64
    }
}

/// Fetches everything with the worker's settings and looks at nothing but its length, one record at a time.
pub(super) fn fetch(bench: &Bench<'_>, topic: &Topic) -> Result<Ceiling> {
    let mut config = ClientConfig::new();
    for (name, value) in CONSUMER_DEFAULTS {
        config.set(name, value);
    }
    config.set("bootstrap.servers", bench.target.bootstrap()).set("group.id", "bench-bare");
    config.set("enable.auto.commit", "false").set("auto.offset.reset", "error");
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..topic.partitions {
        list.add_partition_offset(&topic.name, i32::try_from(partition)?, Offset::Beginning)?;
    }
    let own = std::process::id();
    let before = usage(own)?.cpu;
    let begun = Instant::now();
    consumer.assign(&list)?;
    let (mut events, mut bytes, mut last) = (0, 0, Instant::now());
    while events < topic.events {
        match consumer.poll(Duration::from_millis(100)) {
            Some(record) => {
                bytes += record.context("the topic can't be read")?.payload_len() as u64;
                events += 1;
                if events.is_multiple_of(65_536) {
                    last = Instant::now();
                }
            }
            None => ensure!(last.elapsed() < STALL, "only {events} of {} records came", topic.events),
        }
    }
    let (wall, cpu) = (begun.elapsed(), usage(own)?.cpu.saturating_sub(before));
    consumer.unassign()?;
    Ok(Ceiling { events, wall, cpu, bytes })
}

/// Blocks of rows, ready to be inserted.
pub(super) struct Blocks {
    pub(super) blocks: Vec<Vec<u8>>,
    pub(super) events: u64,
    /// Rows of a block in the mean.
    pub(super) rows: u64,
}

/// How ready-made rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// ClickHouse's own.
    Native,
    /// As a worker sends them: texts of few values as dictionaries.
    Arrow,
}

impl Form {
    /// ClickHouse's name of the format.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "Native",
            Self::Arrow => "ArrowStream",
        }
    }

    /// Settings of the SELECT that makes them.
    fn settings(self) -> String {
        match self {
            Self::Native => SELECT.to_owned(),
            Self::Arrow => format!("{SELECT}&output_format_arrow_low_cardinality_as_dictionary=1"),
        }
    }
}

/// Cuts the events table's rows, in the order of the topic, into blocks of about `rows`.
pub(super) fn blocks(bench: &Bench<'_>, topic: &Topic, rows: u64, form: Form) -> Result<Blocks> {
    let (server, database) = (&bench.server, bench.server.database());
    let remove = format!("DROP TABLE IF EXISTS {database}.{COPY} SYNC");
    server.text(&remove)?;
    server.text(&sql::copy(database, COPY))?;
    // As many offsets of each partition as make a block of all.
    let step = (rows / u64::from(topic.partitions)).max(1);
    let end = server.number(&format!("SELECT toUInt64(max(_offset) + 1) FROM {database}.{COPY}"))?;
    let mut blocks = Vec::new();
    let mut first = 0;
    while first < end {
        blocks.push(server.rows(&sql::block(database, COPY, first, first + step), form.name(), &form.settings())?);
        first += step;
    }
    server.text(&remove)?;
    ensure!(!blocks.is_empty(), "there are no rows to cut into blocks");
    Ok(Blocks { events: topic.events, rows: topic.events / blocks.len() as u64, blocks })
}

/// Inserts them into the empty table, on so many connections at once.
pub(super) fn insert(bench: &Bench<'_>, ready: &Blocks, streams: usize) -> Result<Ceiling> {
    empty(bench)?;
    let server = &bench.server;
    let statement = sql::insert(server.database(), "events", Form::Native);
    let next = AtomicUsize::new(0);
    let before = bench.server.cpu()?;
    let begun = Instant::now();
    let run = bench.next();
    let work = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(block) = ready.blocks.get(number) else { return Ok(()) };
            // A token of its own, as each of the worker's inserts has one: the blocks are the same in every run.
            server.insert(&statement, &format!("{INSERT}&insert_deduplication_token=block-{run}-{number}"), block)?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..streams).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a thread ended badly"))?)
    })?;
    let (wall, cpu) = (begun.elapsed(), bench.server.cpu()?.saturating_sub(before));
    let count = bench.server.number(&format!("SELECT count() FROM {}.events", bench.server.database()))?;
    ensure!(count == ready.events, "{count} rows are there, {} were inserted", ready.events);
    empty(bench)?;
    Ok(Ceiling { events: ready.events, wall, cpu, bytes: ready.blocks.iter().map(|block| block.len() as u64).sum() })
}
