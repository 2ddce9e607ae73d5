//! From the first call to the last acknowledgement, one producer beside the other.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use auditstream_bench::process::usage;
use auditstream_bench::table::thousands;
use auditstream_producer::{Compression, Config, Producer};

use super::super::{clock, path, wait_acknowledged};
use super::tools::{self, Files};
use super::{Codec, Peers};

/// Who publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Ours,
    OursWithoutHeaders,
    Kcat,
    Java,
}

impl Who {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "auditstream",
            Self::OursWithoutHeaders => "auditstream without CloudEvents headers",
            Self::Kcat => "kcat",
            Self::Java => "Kafka's ProducerPerformance (Java)",
        }
    }
}

/// What one run measured: events a second, CPU-seconds per million of the producer's process and of the broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) per_second: f64,
    pub(super) process: f64,
    pub(super) kafka: f64,
}

/// One producer with one compression.
pub(super) struct Measured {
    pub(super) who: Who,
    pub(super) codec: Codec,
    pub(super) runs: Vec<Run>,
}

/// All in turns.
pub(super) fn compare(peers: &Peers<'_>, files: &Files) -> Result<Vec<Measured>> {
    peers
        .screen
        .say(&format!("\nPublishing {} events a run, until all are acknowledged", thousands(peers.args.events)));
    let mut all = Vec::new();
    for codec in [Codec::Zstd, Codec::Lz4] {
        for who in [Who::Ours, Who::OursWithoutHeaders, Who::Kcat, Who::Java] {
            if who != Who::Java || peers.args.java.is_some() {
                all.push(Measured { who, codec, runs: Vec::new() });
            }
        }
    }
    for round in 1..=peers.args.rounds {
        for measured in &mut all {
            let run = once(peers, files, (measured.who, measured.codec))?;
            peers.screen.say(&format!(
                "  {round} {}, {}: {} events a second; CPU-s per million: process {:.2}, Kafka {:.2}",
                measured.who.name(),
                measured.codec.name(),
                thousands(run.per_second as u64),
                run.process,
                run.kafka
            ));
            measured.runs.push(run);
        }
    }
    Ok(all)
}

fn once(peers: &Peers<'_>, files: &Files, (who, codec): (Who, Codec)) -> Result<Run> {
    let kafka = peers.target.state().kafka_pid.context("Kafka is not running")?;
    let kafka_cpu = || usage(kafka).map(|usage| usage.cpu).context("Kafka is gone");
    let events = peers.args.events;
    let producer = match who {
        Who::Ours | Who::OursWithoutHeaders => {
            let cloud_events = who == Who::Ours;
            Some(peers.producer(Config { compression: codec.of_library(), cloud_events, ..peers.config() })?)
        }
        Who::Kcat | Who::Java => None,
    };
    let (records, kafka_before) = (peers.records()?, kafka_cpu()?);
    let (took, cpu) = match (producer, who) {
        (Some(producer), _) => ours(peers, &producer)?,
        (None, Who::Kcat) => tools::kcat(peers, files, codec)?,
        (None, _) => tools::java(peers, files, codec)?,
    };
    let kafka = kafka_cpu()?.saturating_sub(kafka_before);
    let there = peers.records()? - records;
    ensure!(there == events, "{}: {there} of {events} records are on the topic", who.name());
    let per_million = |cpu: Duration| cpu.as_secs_f64() * 1e6 / events as f64;
    Ok(Run { per_second: events as f64 / took.as_secs_f64(), process: per_million(cpu), kafka: per_million(kafka) })
}

/// Wall time, and CPU time without the making of events.
fn ours(peers: &Peers<'_>, producer: &Producer) -> Result<(Duration, Duration)> {
    let (cpu, begun) = (clock::process_cpu()?, Instant::now());
    let making = path::hand_in_all(&peers.events, producer, peers.args.events, None)?;
    wait_acknowledged(producer)?;
    Ok((begun.elapsed(), (clock::process_cpu()? - cpu).saturating_sub(making)))
}

impl Codec {
    fn of_library(self) -> Compression {
        match self {
            Self::Zstd => Compression::Zstd,
            Self::Lz4 => Compression::Lz4,
        }
    }
}
