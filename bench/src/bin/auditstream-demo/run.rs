//! The demo from its first step to its verdict.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use auditstream_bench::clickhouse::Asker;
use auditstream_bench::load::Acknowledged;
use auditstream_bench::target::Target;
use auditstream_bench::worker::Worker;
use auditstream_stack::Role;

use crate::screen::Screen;
use crate::{Common, figures, freshness, history, orders, poison, questions, setup, throughput};

/// Steps of this program.
const STEPS: u32 = 8;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// How many events the generated load has.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    events: u64,
    /// The git repository whose history becomes events.
    #[arg(long, default_value = ".", value_name = "PATH")]
    git: PathBuf,
    /// Write the figures here, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Steps that were done before, for the numbers in front of the titles.
    #[arg(long, default_value_t = 0, hide = true)]
    steps_before: u32,
}

/// What the steps share.
pub(crate) struct Demo<'a> {
    pub(crate) screen: &'a Screen,
    pub(crate) target: Target,
    pub(crate) program: PathBuf,
    /// Sees every row, duplicates too.
    pub(crate) ingest: Asker,
    /// Sees what an analyst sees: `FINAL` without thinking of it.
    pub(crate) analyst: Asker,
    /// Every event that Kafka has acknowledged in this demo.
    pub(crate) acknowledged: Acknowledged,
    pub(crate) seed: u64,
}

impl<'a> Demo<'a> {
    pub(crate) fn new(common: &Common, events: u64, screen: &'a Screen) -> Result<Self> {
        let target = common.target()?;
        Ok(Self {
            screen,
            program: common.program()?,
            ingest: Asker::new(&target, Role::Ingest),
            analyst: Asker::new(&target, Role::Analyst),
            acknowledged: Acknowledged::with_capacity(usize::try_from(events)? + 250_000),
            seed: common.seed,
            target,
        })
    }

    pub(crate) fn worker(&self, name: &str) -> Result<Worker> {
        Worker::start(&self.program, &self.target, name)
    }
}

/// Runs all steps; the exit code says whether every event is there once.
pub(crate) async fn run(args: &Args, screen: &Screen) -> Result<ExitCode> {
    screen.number_from(args.steps_before, args.steps_before + STEPS);
    let demo = Demo::new(&args.common, args.events, screen)?;

    screen.step("Tables, topics, two workers");
    setup::tables_and_topics(&demo).await?;
    let workers = setup::two_workers(&demo, ["worker-1", "worker-2"]).await?;

    screen.step("Real history as audit events: this machine's packages, a git repository's commits");
    history::packages(&demo).await?;
    history::commits(&demo, &args.git).await?;
    history::wait(&demo).await?;

    screen.step("A poison record goes to the dead letters, with its reason");
    let poison = poison::send_and_find(&demo).await?;

    screen.step("Freshness at rest: from `record` to an analyst's answer");
    let freshness = freshness::measure(&demo).await?;

    screen.step("Generated load: on the topic first, then two workers drain it");
    setup::drain(&demo, workers).await?;
    throughput::warm_up(&demo).await?;
    let sent = throughput::load(&demo, demo.seed, args.events, &demo.acknowledged).await?;
    throughput::say_sent(screen, &sent);
    let (drained, workers) = throughput::drain(&demo, args.events, 2).await?;
    throughput::say_drained(screen, &drained);
    setup::drain(&demo, workers).await?;

    screen.step(
        "A service that is audited: what a request takes without audit, with an INSERT of its own, with auditstream",
    );
    let loaded = orders::in_demo(&demo, args.common.order_service()?).await?;
    let order = loaded.order();
    let workers = setup::two_workers(&demo, ["worker-3", "worker-4"]).await?;
    let (order_figures, compared) = loaded.prove(&demo).await?;
    setup::drain(&demo, workers).await?;
    orders::show(screen, &compared, false);

    screen.step("Six questions an analyst asks");
    questions::ask(&demo, order).await?;

    screen.step("The proof: every acknowledged event once, nothing lost, nothing double");
    let figures = figures::prove(&demo, &poison, &freshness, &drained, order_figures).await?;
    figures.show(screen);
    if let Some(path) = &args.json {
        figures.write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    Ok(figures.exit_code())
}
