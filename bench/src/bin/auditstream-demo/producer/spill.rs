//! The spill: how fast events go to disk while Kafka is away, and from there to Kafka when it is back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use auditstream_bench::table::thousands;
use auditstream_producer::spill::SpillConfig;
use auditstream_producer::{Config, Producer};

use super::path::hand_in_all;
use super::{Bench, Figure, Report, Unit, clock};

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:9";
/// One half of a run takes this long at most.
const PATIENCE: Duration = Duration::from_secs(120);

struct Run {
    /// Events a second, and CPU-seconds of the process per million, without the making of events.
    in_per_second: f64,
    in_cpu: f64,
    out_per_second: f64,
    out_cpu: f64,
}

pub(super) fn in_and_out(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    bench
        .screen
        .say(&format!("\nThe spill, {} events a run: to disk, and from there to Kafka", thousands(bench.args.events)));
    let runs = bench.repeat("run", || {
        let run = once(bench)?;
        let line = format!(
            "{} events a second in ({:.2} CPU-s per million), {} out ({:.2})",
            thousands(run.in_per_second as u64),
            run.in_cpu,
            thousands(run.out_per_second as u64),
            run.out_cpu
        );
        Ok((run, line))
    })?;
    let all = |pick: fn(&Run) -> f64| runs.iter().map(pick).collect::<Vec<f64>>();
    report.add(Figure::at_least("spill_in_per_s", Unit::Whole, 100_000.0, all(|run| run.in_per_second)));
    report.add(Figure::at_least("spill_out_per_s", Unit::Whole, 100_000.0, all(|run| run.out_per_second)));
    report.add(Figure::plain("spill_in_cpu_s_per_million", Unit::Hundredths, all(|run| run.in_cpu)));
    report.add(Figure::plain("spill_out_cpu_s_per_million", Unit::Hundredths, all(|run| run.out_cpu)));
    Ok(())
}

fn once(bench: &Bench<'_>) -> Result<Run> {
    let events = bench.args.events;
    // On the disk of the stack's own data, not in memory.
    let folder = bench.target.state().dir.join("bench-spill");
    let spill = SpillConfig { max_bytes: 1 << 40, after: Duration::from_millis(10), ..SpillConfig::new(&folder) };
    let config = Config { spill: Some(spill), drop_deadline: Duration::ZERO, ..bench.config()? };
    let per_million = |cpu: Duration| cpu.as_secs_f64() * 1e6 / events as f64;

    let away = Producer::new(Config { bootstrap_servers: NOWHERE.to_owned(), ..config.clone() })?;
    let (cpu, begun) = (clock::process_cpu()?, Instant::now());
    let making = hand_in_all(&bench.events, &away, events, bench.args.offered)?;
    wait(&away, "to disk", |producer| producer.stats().spilled == events)?;
    let (took_in, in_cpu) = (begun.elapsed(), (clock::process_cpu()? - cpu).saturating_sub(making));
    drop(away);

    let (cpu, begun) = (clock::process_cpu()?, Instant::now());
    let back = Producer::new(config)?;
    wait(&back, "to Kafka", |producer| producer.stats().spill_events == 0)?;
    let (took_out, out_cpu) = (begun.elapsed(), clock::process_cpu()? - cpu);
    ensure!(back.stats().drained == events, "{} of {events} events were sent", back.stats().drained);
    drop(back);
    std::fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
    Ok(Run {
        in_per_second: events as f64 / took_in.as_secs_f64(),
        in_cpu: per_million(in_cpu),
        out_per_second: events as f64 / took_out.as_secs_f64(),
        out_cpu: per_million(out_cpu),
    })
}

fn wait(producer: &Producer, what: &str, done: impl Fn(&Producer) -> bool) -> Result<()> {
    let begun = Instant::now();
    while !done(producer) {
        ensure!(begun.elapsed() < PATIENCE, "the events did not get {what} in {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}
