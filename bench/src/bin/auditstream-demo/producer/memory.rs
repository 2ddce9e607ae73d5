//! Memory with a full queue while Kafka is away: it must not grow, however long the service goes on recording.

use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use auditstream_bench::process::resident;
use auditstream_producer::{Producer, RejectReason};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Bench, Figure, Report, Unit, wait_acknowledged};

/// Between two bursts of a service that goes on recording, and the events of each: 10,000 a second.
const TICK: (Duration, u64) = (Duration::from_millis(10), 100);
/// Resident memory is looked at so often.
const LOOK: Duration = Duration::from_secs(1);

/// The process that is stopped now, or 0.
static STOPPED: AtomicI32 = AtomicI32::new(0);

/// Lets a Kafka go on that this program has stopped. For whoever ends the program early.
pub(crate) fn resume_kafka() {
    let pid = STOPPED.swap(0, Ordering::AcqRel);
    if pid > 0 {
        // It fails only when the process is gone.
        let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
    }
}

/// Kafka is stopped as long as this lives.
struct Stopped;

impl Stopped {
    fn new(pid: u32) -> Result<Self> {
        let pid = i32::try_from(pid)?;
        STOPPED.store(pid, Ordering::Release);
        kill(Pid::from_raw(pid), Signal::SIGSTOP).context("Kafka can't be stopped")?;
        Ok(Self)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        resume_kafka();
    }
}

pub(super) fn kafka_away(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let away = Duration::from_secs(bench.args.away);
    bench.screen.say(&format!(
        "\nKafka stopped (SIGSTOP) for {} s, the queue full, 10,000 events a second go on being handed in",
        bench.args.away
    ));
    let config = bench.config()?;
    // What is in the queue must wait for Kafka, not fail.
    let producer =
        bench.producer(auditstream_producer::Config { delivery_timeout: config.delivery_timeout + away, ..config })?;
    let kafka = Stopped::new(bench.target.state().kafka_pid.context("Kafka is not running")?)?;
    let mut number = 0;
    while offer(bench, &producer, &mut number)? {}
    let full = resident(std::process::id())?;
    let (mut highest, mut refused, begun, mut looked) = (full, 0_u64, Instant::now(), Instant::now());
    while begun.elapsed() < away {
        for _ in 0..TICK.1 {
            refused += u64::from(!offer(bench, &producer, &mut number)?);
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            highest = highest.max(resident(std::process::id())?);
        }
        thread::sleep(TICK.0);
    }
    highest = highest.max(resident(std::process::id())?);
    let stats = producer.stats();
    ensure!(stats.failed.total() == 0, "{} events failed meanwhile", stats.failed.total());
    drop(kafka);
    wait_acknowledged(&producer)?;
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let growth = mib(highest) - mib(full);
    bench.screen.say(&format!(
        "  {} events of {:.1} MiB wait; {refused} given back; resident {:.1} MiB when full, {:.1} MiB at most; all acknowledged after Kafka came back",
        stats.queue_events,
        mib(stats.queue_bytes as u64),
        mib(full),
        mib(highest)
    ));
    report.add(Figure::plain("rss_full_mib", Unit::Tenths, vec![mib(full)]));
    report.add(Figure::at_most("rss_growth_mib", Unit::Tenths, 5.0, vec![growth]));
    Ok(())
}

/// Whether the next event was taken.
fn offer(bench: &Bench<'_>, producer: &Producer, number: &mut u64) -> Result<bool> {
    *number += 1;
    match producer.record(bench.events.at(*number)) {
        Ok(()) => Ok(true),
        Err(rejected) if matches!(rejected.reason, RejectReason::QueueFull { .. }) => Ok(false),
        Err(rejected) => Err(rejected.into()),
    }
}
