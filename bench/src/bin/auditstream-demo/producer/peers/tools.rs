//! kcat and Kafka's own performance tool as child processes: what they took, wall and CPU.
//!
//! Of each the time and the CPU of a run with one record is taken off: its start, a JVM's above all, is not what is compared.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use auditstream_schemas::{Framing, encode};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use super::{Codec, Peers};

/// Behind each record, and between its key and its payload, in the tools' files. Both take them literally; no record holds them.
const END: &str = "~#auditstream-end#~";
const KEY_END: &str = "~#auditstream-key#~";
/// Payloads in the performance tool's file; it sends one of them by chance, again and again.
const PAYLOADS: u64 = 65_536;
/// What librdkafka fills a batch to at most, for the tool that has another default.
const BATCH_BYTES: u64 = 1_000_000;

/// The tools' input.
pub(super) struct Files {
    kcat: PathBuf,
    java: PathBuf,
    /// Payload bytes of a record, on average.
    pub(super) mean_bytes: f64,
    /// Of these bytes, the share that the performance tool can't read and gets without their top bit.
    pub(super) changed: f64,
}

impl Files {
    /// Writes `events` records with their keys for kcat, and payloads for the performance tool.
    pub(super) fn write(peers: &Peers<'_>, folder: &Path) -> Result<Self> {
        let mut files = Self {
            kcat: folder.join("payloads-kcat"),
            java: folder.join("payloads-java"),
            mean_bytes: 0.0,
            changed: 0.0,
        };
        let create = |path: &Path| {
            let file = File::create(path).with_context(|| format!("{} can't be made", path.display()))?;
            anyhow::Ok(BufWriter::new(file))
        };
        let (mut kcat, mut java) = (create(&files.kcat)?, create(&files.java)?);
        let (mut bytes, mut changed, mut of_java) = (0_u64, 0_u64, 0_u64);
        let mut payload = Vec::new();
        for number in 0..peers.args.events {
            let mut event = peers.events.at(number);
            // As long as the stamp that the library writes.
            event.producer.id = "a-host".to_owned();
            event.producer.epoch = event.occurred_at.as_micros();
            event.producer.seq = number as i64;
            payload.clear();
            encode(&event, Framing::SingleObject, &mut payload);
            let key = event.key();
            ensure!(is_clear(key.as_bytes()) && is_clear(&payload), "a generated event holds a delimiter");
            bytes += payload.len() as u64;
            for part in [key.as_bytes(), KEY_END.as_bytes(), &payload, END.as_bytes()] {
                kcat.write_all(part)?;
            }
            if number < PAYLOADS {
                of_java += payload.len() as u64;
                changed += payload.iter().filter(|byte| !byte.is_ascii()).count() as u64;
                payload.iter_mut().for_each(|byte| *byte &= 0x7f);
                ensure!(is_clear(&payload), "a generated event holds a delimiter");
                if number > 0 {
                    java.write_all(END.as_bytes())?;
                }
                java.write_all(&payload)?;
            }
        }
        kcat.flush()?;
        java.flush()?;
        files.mean_bytes = bytes as f64 / peers.args.events as f64;
        files.changed = changed as f64 / of_java.max(1) as f64;
        Ok(files)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // The stack's folder, which they lie in, goes too.
        for path in [&self.kcat, &self.java] {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn is_clear(bytes: &[u8]) -> bool {
    [END, KEY_END].into_iter().all(|delimiter| !bytes.windows(delimiter.len()).any(|part| part == delimiter.as_bytes()))
}

/// `kcat -P`: binary payloads and keys from the file; wall and CPU time of the records alone.
pub(super) fn kcat(peers: &Peers<'_>, files: &Files, codec: Codec) -> Result<(Duration, Duration)> {
    let run = |records: u64| {
        let mut kcat = auditstream_stack::bound(Path::new("kcat"))?;
        kcat.args(["-P", "-q", "-b", peers.target.bootstrap(), "-t", peers.target.topic()]);
        kcat.args(["-D", END, "-K", KEY_END, "-c", &records.to_string()]);
        for property in properties(codec) {
            kcat.args(["-X", &property]);
        }
        kcat.args(["-X", "partitioner=murmur2_random", "-X", "compression.level=1", "-l"]).arg(&files.kcat);
        ended(kcat, "kcat")
    };
    without_start(run, peers.args.events)
}

/// Kafka's `ProducerPerformance`: payloads without keys.
pub(super) fn java(peers: &Peers<'_>, files: &Files, codec: Codec) -> Result<(Duration, Duration)> {
    let (Some(java), Some(class_path)) = (&peers.args.java, &peers.args.class_path) else {
        bail!("--java and --class-path name Kafka's performance tool");
    };
    let run = |records: u64| {
        let mut tool = auditstream_stack::bound(java)?;
        tool.args(["-Xmx512m", "-cp", class_path, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
        tool.args(["org.apache.kafka.tools.ProducerPerformance", "--topic", peers.target.topic()]);
        tool.args(["--num-records", &records.to_string(), "--throughput", "-1", "--payload-delimiter", END]);
        tool.arg("--payload-file").arg(&files.java).arg("--producer-props");
        tool.args(properties(codec)).arg(format!("bootstrap.servers={}", peers.target.bootstrap()));
        tool.arg(format!("compression.{}.level=1", codec.name()));
        tool.args([format!("batch.size={BATCH_BYTES}"), format!("buffer.memory={}", 64 << 20)]);
        ended(tool, "Kafka's performance tool")
    };
    without_start(run, peers.args.events)
}

/// What both call the same, and what the library sets.
fn properties(codec: Codec) -> [String; 4] {
    ["acks=all", "enable.idempotence=true", "linger.ms=5", &format!("compression.type={}", codec.name())]
        .map(str::to_owned)
}

fn without_start(run: impl Fn(u64) -> Result<(Duration, Duration)>, records: u64) -> Result<(Duration, Duration)> {
    let one = run(1)?;
    // The one is among them.
    let all = run(records - 1)?;
    // Otherwise chance decides about the difference.
    ensure!(
        all.0 > 2 * one.0,
        "{records} events take a tool {:.1} s, one takes {:.1} s: that tells nothing of the events; give more (--events)",
        all.0.as_secs_f64(),
        one.0.as_secs_f64()
    );
    Ok((all.0.saturating_sub(one.0), all.1.saturating_sub(one.1)))
}

/// Runs it to its end: wall and CPU time.
fn ended(mut command: Command, what: &str) -> Result<(Duration, Duration)> {
    let (before, begun) = (children_cpu()?, Instant::now());
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{what} can't be started"))?;
    let (took, cpu) = (begun.elapsed(), children_cpu()?.saturating_sub(before));
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what} ended with {}:\n{}", output.status, said.trim_end());
    Ok((took, cpu))
}

/// CPU time of all children that have ended, and theirs (getrusage(2)).
fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("no CPU time of children")?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}
