//! `auditstream-demo ingest`, `growth` and `profile`: the way from the topic to the table, on a stack that is up with a schema registry.
//!
//! All sides drain the same topic, each with a consumer group of its own, into the same empty table, in turns. What arrived is compared by hashes over
//! every column. `scenario.rs` says what is measured, `drain.rs` how, `report.rs` what the results say.

mod ceilings;
mod drain;
mod engine;
mod growth;
mod measure;
mod profile;
mod report;
mod scenario;
mod sql;
mod stats;
mod topic;
mod versions;

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use auditstream_bench::target::Target;
use auditstream_schemas::Framing;
use auditstream_schemas::registry::{Registry, RegistryConfig};
use auditstream_stack::Role;
use tokio::runtime::Handle;

use crate::screen::Screen;
use crate::server::Server;
use crate::{Common, setup};
use scenario::{Factor, Wish};
use sql::EngineSettings;

pub(crate) use growth::{Args as GrowthArgs, run as growth};
pub(crate) use profile::{Args as ProfileArgs, run as profile};

/// Measures how fast and how dearly events come from the topic into the table: workers, ClickHouse's Kafka engine, and what bounds them.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Events of the base; the other scenarios follow in proportion.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    events: u64,
    /// Rounds of the base, in each of which every side drains the topic once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only these scenarios.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Factor::ALL)]
    only: Vec<Factor>,
    /// Leave out scenarios of more rows than this; there is one of 50 million.
    #[arg(long, default_value_t = 10_000_000)]
    rows_up_to: u64,
    /// The base only, a million events, two rounds.
    #[arg(long)]
    quick: bool,
    /// The command to name in the results.
    #[arg(long, default_value = "auditstream-demo ingest", hide = true)]
    command: String,
    /// Write the results here, for the report.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

impl Args {
    fn wish(&self) -> Wish {
        let Self { only, events, rounds, rows_up_to, .. } = self.clone();
        if self.quick {
            return Wish { only: vec![Factor::Base], events: events.min(1_000_000), rounds: rounds.min(2), rows_up_to };
        }
        Wish { only, events, rounds, rows_up_to }
    }
}

/// What everything here shares.
struct Bench<'a> {
    screen: &'a Screen,
    target: Target,
    program: PathBuf,
    runtime: Handle,
    server: Server,
    /// The event's schema in the registry: every event of every topic is framed with it.
    schema_id: u32,
    seed: u64,
    /// Settings of the peer from now on.
    engine: Cell<EngineSettings>,
    numbers: Cell<u64>,
}

impl<'a> Bench<'a> {
    /// Makes the tables and registers the schema. Blocks.
    fn new(common: &Common, screen: &'a Screen) -> Result<Self> {
        let (target, program, runtime) = (common.target()?, common.program()?, Handle::current());
        runtime.block_on(setup::auditstream_with(screen, &target, &program, &["migrate"], &[]))?;
        let url = target.state().registry_url.clone().context(
            "the stack has no schema registry, which ClickHouse's Kafka engine needs: cargo xtask stack up --throughput --registry",
        )?;
        let registry =
            Registry::new(&RegistryConfig { urls: vec![url], may_register: true, ..RegistryConfig::default() })?;
        let framing = runtime.block_on(auditstream_producer::registry::framing(&registry, "bench"))?;
        let Framing::Confluent { schema_id } = framing else {
            anyhow::bail!("the registry gave no schema id");
        };
        let server = Server::new(&target, Role::Admin)?;
        let rows = server.number(&format!("SELECT count() FROM {}.events", server.database()))?;
        ensure!(rows == 0, "the table has {rows} events, which would be removed: this needs a stack of its own");
        Ok(Self {
            screen,
            program,
            runtime,
            server,
            schema_id,
            seed: common.seed,
            engine: Cell::new(EngineSettings::USUAL),
            numbers: Cell::new(0),
            target,
        })
    }

    /// A number that was not there before.
    fn next(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    fn kafka_cpu(&self) -> Result<Duration> {
        drain::cpu(self.target.state().kafka_pid)
    }
}

/// Measures, prints the tables, writes the file. Blocks.
pub(crate) fn run(args: &Args) -> Result<()> {
    let screen = Screen::new();
    let bench = Bench::new(&args.common, &screen)?;
    let wish = args.wish();
    let measured = measure::all(&bench, &wish)?;
    let results = report::results(&bench, &measured, &args.command)?;
    report::show(&screen, &results);
    if let Some(path) = &args.results {
        results.write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    Ok(())
}
