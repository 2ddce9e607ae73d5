//! `auditstream publish`: events from NDJSON to Kafka.
//!
//! ```text
//! reader thread --chunks of lines--> this task: parse, record --> producer --> fates (ids file, failures)
//! ```
//!
//! Promise: each line is read, and either acknowledged by Kafka, or on disk in the spill if there is one, or named on standard error with its number or its
//! event's id and the reason. A full producer queue makes reading wait; memory stays bounded.

mod fates;
mod lines;
mod progress;

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use auditstream_producer::{Fate, Producer, RejectReason};
use auditstream_schemas::AuditEvent;
use tokio::sync::mpsc;

use crate::config::Settings;
use crate::signals::Signals;
use crate::{exit, log, output};
use fates::Fates;
use lines::{Chunk, Line, Lines};
use progress::Progress;

/// How long a full queue is left alone before the next try.
const FULL_WAIT: Duration = Duration::from_millis(2);
/// What the acknowledgement of the last events may take beyond the delivery timeout.
const GRACE: Duration = Duration::from_secs(5);
/// How long Kafka is waited for when there is a spill.
const SPILLED: Duration = Duration::from_secs(10);

/// Publish events from NDJSON: one event in its JSON form on each line.
///
/// A line that is no event is reported on standard error with its number and the reason, and the rest goes on; the exit
/// code is then 1. SIGINT or SIGTERM stops reading, waits for what was read, and reports.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Required in an event: tenant_id, service, action, entity_type, entity_id.

Examples:
  auditstream publish events.ndjson
  generate-events | auditstream publish - --json
  auditstream publish --dry-run events.ndjson
  echo '{\"tenant_id\":\"acme\",\"service\":\"shop\",\"action\":\"order.create\",
    \"entity_type\":\"order\",\"entity_id\":\"42\"}' | tr -d '\\n' | auditstream publish -")]
pub(crate) struct Args {
    /// File to read; - is standard input.
    #[arg(value_name = "FILE|-")]
    file: PathBuf,

    /// Check the lines only; nothing is sent, and no configuration is needed.
    #[arg(long)]
    dry_run: bool,

    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,

    /// Append the id of each acknowledged event to this file, one a line; on disk when the command ends.
    ///
    /// With a spill (producer.spill_folder) an id is appended when the event is on disk there, and once more when Kafka has it.
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
}

impl Args {
    pub(crate) fn dry_run(&self) -> bool {
        self.dry_run
    }

    /// What to read, and its length when known.
    fn open(&self) -> anyhow::Result<(Lines, Option<u64>)> {
        if self.file.as_os_str() == "-" {
            return Ok((Lines::new(Box::new(io::stdin())), None));
        }
        let file = File::open(&self.file).with_context(|| format!("can't read {}", self.file.display()))?;
        let meta = file.metadata().with_context(|| format!("can't read {}", self.file.display()))?;
        let input: Box<dyn Read + Send> = Box::new(file);
        Ok((Lines::new(input), meta.is_file().then_some(meta.len())))
    }
}

/// Counted on the way.
#[derive(Debug, Default)]
struct Tally {
    /// Lines that are not blank.
    read: u64,
    /// Lines that are no event that can be sent.
    rejected: u64,
}

/// The event on a line; `None` for a blank one.
fn parse(line: &Line) -> Option<Result<AuditEvent, String>> {
    match &line.text {
        None => Some(Err("longer than 8 MiB".to_owned())),
        Some(text) if text.iter().all(u8::is_ascii_whitespace) => None,
        Some(text) => Some(AuditEvent::from_json(text).map_err(|error| error.to_string())),
    }
}

/// Checks each line and sends nothing.
pub(crate) fn dry_run(args: &Args) -> anyhow::Result<u8> {
    let begun = Instant::now();
    let (mut lines, length) = args.open()?;
    let progress = Progress::new(length);
    let mut tally = Tally::default();
    while let Some(chunk) = lines.next_chunk().context("can't read on")? {
        for line in &chunk.lines {
            let Some(parsed) = parse(line) else { continue };
            tally.read += 1;
            if let Err(reason) = parsed {
                tally.rejected += 1;
                progress.complain(&format!("line {}: {reason}", line.number));
            }
        }
        progress.advance(chunk.bytes, || format!("{} lines", output::grouped(tally.read)));
    }
    progress.finish();
    let Tally { read, rejected } = tally;
    let valid = read - rejected;
    if args.json {
        let seconds = begun.elapsed().as_secs_f64();
        let summary = serde_json::json!({ "dry_run": true, "read": read, "valid": valid, "rejected": rejected, "seconds": seconds });
        output::line(&summary.to_string())?;
    } else {
        let [read, valid, rejected] = [read, valid, rejected].map(output::grouped);
        output::line(&format!("{read} lines: {valid} valid, {rejected} rejected; nothing was sent (dry run)"))?;
    }
    Ok(if rejected == 0 { exit::OK } else { exit::FAILURE })
}

/// Sends each line.
pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    log::init(settings)?;
    let (lines, length) = args.open()?;
    let fates = Arc::new(Fates::new(args.ids.as_deref())?);
    let heard = Arc::clone(&fates);
    let observer = Box::new(move |id, fate: Fate<'_>| heard.hear(id, fate));
    let producer = Producer::with_observer(settings.producer(), observer)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // What the spill has is safe: nobody needs to wait for Kafka.
    let deadline = if settings.producer.spill.is_some() { SPILLED } else { settings.producer.delivery_timeout + GRACE };
    let publish = Publish { producer, fates, progress: Progress::new(length), tally: Tally::default(), stop: None };
    let code = runtime.block_on(publish.run(lines, deadline, args));
    // The reading thread may sit in a read that never ends.
    runtime.shutdown_background();
    code
}

struct Publish {
    producer: Producer,
    fates: Arc<Fates>,
    progress: Progress,
    tally: Tally,
    /// The exit code of the signal that ended reading.
    stop: Option<u8>,
}

impl Publish {
    async fn run(mut self, lines: Lines, deadline: Duration, args: &Args) -> anyhow::Result<u8> {
        let begun = Instant::now();
        let mut signals = Signals::listen().context("no signal handler")?;
        let mut chunks = read_on_thread(lines)?;
        let mut broken = None;
        while self.stop.is_none() {
            let chunk = tokio::select! {
                biased;
                code = signals.next() => {
                    self.stop = Some(code);
                    break;
                }
                chunk = chunks.recv() => chunk,
            };
            match chunk {
                None => break,
                Some(Err(error)) => {
                    broken = Some(error);
                    break;
                }
                Some(Ok(chunk)) => self.publish(chunk, &mut signals).await,
            }
        }
        if self.stop.is_some() {
            self.progress.complain("interrupted: waiting for what was read; once more ends at once");
        }
        signals.force_on_next();
        let report = self.producer.shutdown(deadline).await;
        self.progress.finish();

        let failed = report.failed.total();
        for failure in self.fates.failures() {
            output::complain(&failure);
        }
        for (reason, count) in report.failed.iter() {
            output::complain(&format!("{} events were not acknowledged: {reason}", output::grouped(count)));
        }
        let seconds = begun.elapsed().as_secs_f64();
        let Tally { read, rejected } = self.tally;
        let (published, acked, spilled) = (report.submitted, report.acked, report.spilled);
        if args.json {
            let summary = serde_json::json!({
                "read": read, "published": published, "acked": acked, "spilled": spilled, "rejected": rejected, "failed": failed,
                "interrupted": self.stop.is_some(), "seconds": seconds,
            });
            output::line(&summary.to_string())?;
        } else {
            let rate = output::grouped((acked as f64 / seconds.max(0.001)) as u64);
            let [read, published, acked, rejected] = [read, published, acked, rejected].map(output::grouped);
            output::line(&format!(
                "{read} lines: {published} published, {acked} acknowledged, {rejected} rejected, {} failed in {seconds:.1} s ({rate}/s)",
                output::grouped(failed)
            ))?;
            if spilled > 0 {
                let spilled = output::grouped(spilled);
                output::line(&format!(
                    "{spilled} wait in the spill for Kafka; the next publish sends them, or `auditstream spill drain`"
                ))?;
            }
        }
        self.fates.finish().context("can't write the list of ids")?;
        if let Some(error) = broken {
            return Err(error).context("can't read on");
        }
        // With a spill some of the acknowledged may be of an earlier run.
        let fine = rejected == 0 && failed == 0 && acked + spilled >= published;
        Ok(self.stop.unwrap_or(if fine { exit::OK } else { exit::FAILURE }))
    }

    /// Hands in a chunk; leaves off when a signal comes.
    async fn publish(&mut self, chunk: Chunk, signals: &mut Signals) {
        for line in &chunk.lines {
            let Some(parsed) = parse(line) else { continue };
            self.tally.read += 1;
            let mut next = match parsed {
                Ok(event) => Some(event),
                Err(reason) => {
                    self.reject(line.number, &reason);
                    continue;
                }
            };
            while let Some(event) = next.take() {
                let Err(rejected) = self.producer.record(event) else { break };
                if !matches!(rejected.reason, RejectReason::QueueFull { .. }) {
                    self.reject(line.number, &rejected.reason.to_string());
                    break;
                }
                next = Some(*rejected.event);
                tokio::select! {
                    code = signals.next() => {
                        // This one was not handed in; it does not count as read.
                        self.tally.read -= 1;
                        self.stop = Some(code);
                        return;
                    }
                    () = tokio::time::sleep(FULL_WAIT) => {}
                }
            }
        }
        let Publish { producer, progress, tally, .. } = self;
        progress.advance(chunk.bytes, || {
            let acked = output::grouped(producer.stats().acked);
            format!("{} events, {acked} acknowledged", output::grouped(tally.read))
        });
    }

    fn reject(&mut self, line: u64, reason: &str) {
        self.tally.rejected += 1;
        self.progress.complain(&format!("line {line}: {reason}"));
    }
}

/// A read can't be interrupted, so it has a thread of its own; a few chunks are read ahead.
fn read_on_thread(mut lines: Lines) -> anyhow::Result<mpsc::Receiver<io::Result<Chunk>>> {
    let (send, receive) = mpsc::channel(4);
    let read = move || {
        while let Some(next) = lines.next_chunk().transpose() {
            let last = next.is_err();
            if send.blocking_send(next).is_err() || last {
                break;
            }
        }
    };
    std::thread::Builder::new().name("read-lines".to_owned()).spawn(read).context("no thread to read with")?;
    Ok(receive)
}
