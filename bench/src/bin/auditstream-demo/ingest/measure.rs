//! Runs the scenarios: all sides of one in turns, round after round.

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use auditstream_bench::table::thousands;

use super::Bench;
use super::ceilings::{self, Blocks, Ceiling};
use super::drain::{Drained, Fingerprint, drain, drain_and, insert_rows};
use super::scenario::{Factor, Load, Scenario, Side, Wish, around, base};
use super::sql::EngineSettings;
use super::topic::Topic;

/// Of two million events of the base, so many are tried settings on, and warm the servers up.
const SMALL: u64 = 4;
/// Fewer events leave no merges worth waiting for.
const WORTH_A_REST: u64 = 100_000;
/// Rows of a ready-made block when no worker has said how many it inserts.
const BLOCK_ROWS: u64 = 100_000;

/// A scenario with its figures.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) scenario: Scenario,
    /// Each side's drains.
    pub(super) drains: BTreeMap<Side, Vec<Drained>>,
    pub(super) fetches: Vec<Ceiling>,
    /// Inserts of ready-made blocks on one connection and on two.
    pub(super) inserts: [Vec<Ceiling>; 2],
    /// Rows of a ready-made block.
    pub(super) block_rows: u64,
    /// Bytes of an event on the broker's disk, with key and headers, compressed as they are.
    pub(super) stored_bytes: f64,
}

impl Measured {
    /// Avro bytes of an event in the mean, with its frame.
    pub(super) fn mean_bytes(&self) -> f64 {
        self.fetches.first().map_or(f64::NAN, Ceiling::mean_bytes)
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, Default)]
pub(super) struct All {
    pub(super) base: Option<Measured>,
    pub(super) others: Vec<Measured>,
    /// Settings of the engine that were tried, on how many events, and what they gave.
    pub(super) tried: Vec<(EngineSettings, Drained)>,
}

pub(super) fn all(bench: &Bench<'_>, wish: &Wish) -> Result<All> {
    let mut all = All::default();
    settings(bench, wish, &mut all)?;
    if wish.only.contains(&Factor::Base) {
        all.base = Some(scenario(bench, &base(wish))?);
    }
    for one in around(wish) {
        all.others.push(scenario(bench, &one)?);
    }
    Ok(all)
}

/// A smaller load that warms the servers up, and on which the engine's settings are tried.
fn settings(bench: &Bench<'_>, wish: &Wish, all: &mut All) -> Result<()> {
    let events = (wish.events / SMALL).max(1_000);
    bench.screen.say(&format!("\nwarm-up on {} events; it does not count", thousands(events)));
    let topic = Topic::loaded(bench, &Load::base(events))?;
    for side in [Side::Ours(2), Side::Engine] {
        say(bench, side, &drain(bench, &topic, side, false)?.0);
    }
    if wish.only.contains(&Factor::Settings) {
        bench.screen.say("\nsettings of ClickHouse's Kafka engine; the fastest are taken from here on");
        for settings in EngineSettings::TRIED {
            bench.engine.set(settings);
            let (drained, _) = drain(bench, &topic, Side::Engine, false)?;
            bench.screen.say(&format!("  {}", settings.text()));
            say(bench, Side::Engine, &drained);
            all.tried.push((settings, drained));
        }
        let best = all.tried.iter().max_by(|one, other| one.1.per_second().total_cmp(&other.1.per_second()));
        bench.engine.set(best.context("no settings were tried")?.0);
    }
    topic.remove(bench)
}

/// Loads a topic and lets every side drain it in every round. Whatever side and round: the rows are the same.
pub(super) fn scenario(bench: &Bench<'_>, scenario: &Scenario) -> Result<Measured> {
    let load = &scenario.load;
    bench.screen.say(&format!(
        "\n{}: {} events, {}, {} partitions",
        scenario.name,
        thousands(load.events),
        load.compression.as_str(),
        load.partitions
    ));
    let topic = Topic::loaded(bench, load)?;
    let mut measured = Measured {
        scenario: scenario.clone(),
        drains: BTreeMap::new(),
        fetches: Vec::new(),
        inserts: [Vec::new(), Vec::new()],
        block_rows: 0,
        stored_bytes: topic.stored(bench) as f64 / load.events as f64,
    };
    let is_base = scenario.factor == Factor::Base;
    // Where there is a goal to be reached, what bounds it is measured too.
    let with_blocks = scenario.sides.contains(&Side::Engine);
    let blocks = RefCell::new(None);
    let mut expected: Option<Fingerprint> = None;
    for round in 0..scenario.rounds {
        for side in &scenario.sides {
            // The full table is where ready-made blocks come from.
            let look = || {
                if with_blocks && blocks.borrow().is_none() {
                    blocks.replace(Some(cut(bench, &topic)?));
                }
                Ok(())
            };
            let (drained, fingerprint) = drain_and(bench, &topic, *side, is_base && load.events >= WORTH_A_REST, look)?;
            let first = expected.get_or_insert(fingerprint);
            ensure!(
                *first == fingerprint,
                "{} has stored other rows than the side before it: {fingerprint} instead of {first}",
                side.name()
            );
            say(bench, *side, &drained);
            measured.drains.entry(*side).or_default().push(drained);
        }
        if is_base || round == 0 {
            measured.fetches.push(ceilings::fetch(bench, &topic)?);
        }
        if let Some(ready) = &*blocks.borrow() {
            measured.block_rows = ready.rows;
            for (streams, inserts) in measured.inserts.iter_mut().enumerate() {
                inserts.push(ceilings::insert(bench, ready, streams + 1)?);
            }
        }
        say_ceilings(bench, &measured);
    }
    topic.remove(bench)?;
    Ok(measured)
}

/// Blocks of the size that the worker inserts, where a worker has filled the table.
fn cut(bench: &Bench<'_>, topic: &Topic) -> Result<Blocks> {
    let rows = match insert_rows(bench)? {
        0 => BLOCK_ROWS,
        rows => rows,
    };
    ceilings::blocks(bench, topic, rows, ceilings::Form::Native)
}

pub(super) fn say(bench: &Bench<'_>, side: Side, drained: &Drained) {
    let rest = drained.clickhouse_at_rest.map(|cpu| format!(", {:.2} at rest", drained.per_million(cpu)));
    bench.screen.say(&format!(
        "    {:26} {:>9} events/s; CPU-seconds per million: {:.2} itself, {:.2} ClickHouse{}, {:.2} Kafka; {} MiB",
        side.name(),
        thousands(drained.per_second() as u64),
        drained.per_million(drained.sink),
        drained.per_million(drained.clickhouse),
        rest.unwrap_or_default(),
        drained.per_million(drained.kafka),
        drained.peak_rss >> 20
    ));
}

fn say_ceilings(bench: &Bench<'_>, measured: &Measured) {
    let line = |what: &str, ceiling: Option<&Ceiling>| {
        if let Some(ceiling) = ceiling {
            bench.screen.say(&format!(
                "    {what:26} {:>9} events/s; {:.2} CPU-seconds per million",
                thousands(ceiling.per_second() as u64),
                ceiling.per_million()
            ));
        }
    };
    line("fetch alone", measured.fetches.last());
    line("ready blocks, 1 stream", measured.inserts[0].last());
    line("ready blocks, 2 streams", measured.inserts[1].last());
}
