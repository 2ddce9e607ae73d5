//! Real input: dpkg's log by way of `auditstream publish`, a git history by way of the producer library.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use auditstream_bench::sources::{Reading, TENANT, dpkg, git};
use auditstream_bench::table::thousands;
use auditstream_producer::{Producer, RejectReason};
use auditstream_schemas::AuditEvent;
use auditstream_stack::Role;
use jiff::tz::TimeZone;
use tokio::io::AsyncWriteExt as _;

use crate::run::Demo;

/// Where Debian's dpkg writes its log.
const LOGS: &str = "/var/log";
/// Most events of one history.
const LIMIT: usize = 200_000;
/// How long the rows may take to be seen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The package history, as NDJSON through `auditstream publish -`.
pub(crate) async fn packages(demo: &Demo<'_>) -> Result<()> {
    let reading = match read_packages() {
        Ok(reading) if !reading.events.is_empty() => reading,
        Ok(_) => {
            demo.screen.say("  packages: dpkg's log tells of none; left out");
            return Ok(());
        }
        Err(problem) => {
            demo.screen.say(&format!("  packages: left out ({problem})"));
            return Ok(());
        }
    };
    let lines: String = reading.events.iter().map(|event| event.to_json() + "\n").collect();
    demo.screen
        .say(&format!("  {} decisions in {LOGS}/dpkg.log; one of them:", thousands(reading.events.len() as u64)));
    if let Some(first) = reading.events.first() {
        demo.screen.say(&shorten(&first.to_json(), "    "));
    }
    demo.screen.say("  $ auditstream publish - --ids acknowledged.txt < packages.ndjson");
    let list = demo.target.state().dir.join("acknowledged-packages.txt");
    let mut publish = auditstream_stack::bound(&demo.program)?;
    publish.args(["publish", "-", "--config"]).arg(demo.target.config(Role::Ingest)).arg("--ids").arg(&list);
    publish.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut publish = tokio::process::Command::from(publish)
        .kill_on_drop(true)
        .spawn()
        .context("auditstream publish can't be started")?;
    let mut input = publish.stdin.take().context("auditstream publish has no input")?;
    let work = async {
        // A program that ended early is told by its exit code and its words.
        let write = async {
            let _ = input.write_all(lines.as_bytes()).await;
            drop(input);
        };
        tokio::join!(write, publish.wait_with_output()).1
    };
    let output =
        demo.screen.bar("publishing", 0).during(|| 0, work).await.context("auditstream publish can't be waited for")?;
    if !output.status.success() {
        bail!(
            "auditstream publish ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        demo.screen.say(&format!("    {line}"));
    }
    let ids = std::fs::read_to_string(&list).with_context(|| format!("{} can't be read", list.display()))?;
    for id in ids.lines() {
        demo.acknowledged.add(id.parse().context("auditstream publish wrote an id that is none")?);
    }
    say_left_out(demo, &reading);
    Ok(())
}

fn read_packages() -> std::io::Result<Reading> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut reader = dpkg::Reader::new(TimeZone::system(), host.trim());
    for file in dpkg::files(Path::new(LOGS))? {
        dpkg::text(&file)?.lines().for_each(|line| reader.line(line));
    }
    let mut reading = reader.finish();
    if reading.events.len() > LIMIT {
        reading.cut = true;
        reading.events.drain(..reading.events.len() - LIMIT);
    }
    Ok(reading)
}

/// A git history, through the library that a service would link.
pub(crate) async fn commits(demo: &Demo<'_>, path: &Path) -> Result<()> {
    let found = Arc::new(AtomicU64::new(0));
    let bar = demo.screen.bar("reading the git history", 0);
    let work = {
        let (path, found) = (path.to_owned(), Arc::clone(&found));
        tokio::task::spawn_blocking(move || {
            git::read(&path, LIMIT, &mut |count| found.store(count as u64, Ordering::Relaxed))
        })
    };
    let reading = bar.during(|| found.load(Ordering::Relaxed), work).await.context("a thread ended badly")?;
    drop(bar);
    let reading = match reading {
        Ok(reading) if !reading.events.is_empty() => reading,
        Ok(_) => {
            demo.screen.say("  git: the history touches no file; left out");
            return Ok(());
        }
        Err(problem) => {
            demo.screen.say(&format!("  git: left out ({problem}); --git PATH names another repository"));
            return Ok(());
        }
    };
    let count = reading.events.len() as u64;
    demo.screen.say(&format!(
        "  {} changed files in the git history, recorded by the producer library; one of them:",
        thousands(count)
    ));
    if let Some(last) = reading.events.last() {
        demo.screen.say(&shorten(&last.to_json(), "    "));
    }
    say_left_out(demo, &reading);
    let producer = Producer::with_observer(demo.target.producer(), demo.acknowledged.observer())?;
    let bar = demo.screen.bar("recording", count);
    let sent = AtomicU64::new(0);
    let report = bar.during(|| sent.load(Ordering::Relaxed), record_all(&producer, reading.events, &sent)).await?;
    drop(bar);
    demo.screen.say(&format!(
        "    {} recorded, {} acknowledged by Kafka",
        thousands(report.submitted),
        thousands(report.acked)
    ));
    if !report.all_acked() {
        bail!("not every event of the git history was acknowledged: {report:?}");
    }
    Ok(())
}

async fn record_all(
    producer: &Producer,
    events: Vec<AuditEvent>,
    sent: &AtomicU64,
) -> Result<auditstream_producer::Report> {
    for event in events {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            if let Err(rejected) = producer.record(event) {
                if !matches!(rejected.reason, RejectReason::QueueFull { .. }) {
                    bail!("an event of the git history was refused: {}", rejected.reason);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
                next = Some(*rejected.event);
            }
        }
        if sent.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            tokio::task::yield_now().await;
        }
    }
    Ok(producer.shutdown(Duration::from_secs(60)).await)
}

/// Waits until an analyst sees everything that was acknowledged so far.
pub(crate) async fn wait(demo: &Demo<'_>) -> Result<()> {
    let wanted = demo.acknowledged.len() as u64;
    let begun = Instant::now();
    let bar = demo.screen.bar("on the way to ClickHouse", wanted);
    loop {
        let seen = demo.analyst.number("SELECT count() FROM events").await?;
        bar.set(seen);
        if seen >= wanted {
            drop(bar);
            let ms = begun.elapsed().as_millis();
            demo.screen.say(&format!(
                "  {} events are queryable (tenant `{TENANT}`), {ms} ms after the last acknowledgement",
                thousands(seen)
            ));
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!(
                "only {seen} of {wanted} events can be seen after {} s; logs: {}",
                PATIENCE.as_secs(),
                demo.target.state().dir.display()
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn say_left_out(demo: &Demo<'_>, reading: &Reading) {
    if reading.cut {
        demo.screen.say(&format!("    only the newest {}", thousands(LIMIT as u64)));
    }
    if reading.unreadable > 0 {
        demo.screen.say(&format!("    {} entries can't be events and were left out", thousands(reading.unreadable)));
    }
}

/// The start of a long line, for people.
fn shorten(text: &str, indent: &str) -> String {
    const WIDTH: usize = 94;
    let mut lines = String::new();
    let mut rest: Vec<char> = text.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
    for line in 0..3 {
        let tail = rest.split_off(rest.len().min(WIDTH));
        lines.push_str(indent);
        lines.extend(&rest);
        if tail.is_empty() {
            break;
        }
        lines.push_str(if line == 2 { "…" } else { "\n" });
        rest = tail;
    }
    lines
}
