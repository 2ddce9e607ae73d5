//! `auditstream-demo`: what `cargo xtask demo` runs once the stack is up, and its parts one by one for development.

mod decode;
mod figures;
mod fresh;
mod freshness;
mod history;
mod ingest;
mod orders;
mod poison;
mod producer;
mod queries;
mod questions;
mod report;
mod run;
mod screen;
mod server;
mod setup;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use auditstream_bench::target::Target;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use screen::Screen;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Shows auditstream at work on a stack that is up (`cargo xtask stack up --throughput`).
#[derive(Debug, Parser)]
#[command(name = "auditstream-demo", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole demo, from the tables to the figures. Exit code 1 when an event is lost or double.
    Run(run::Args),
    /// Put generated events on the topic and end: says how many a second.
    Load(throughput::LoadArgs),
    /// Load the topic, then let workers drain it, several times: events a second, memory, CPU.
    Bench(throughput::BenchArgs),
    /// The order service with no audit, with an INSERT into its own database, and with auditstream, in turns: what a request takes.
    Orders(orders::Args),
    /// Measure the way from the topic to the table, beside ClickHouse's own Kafka engine and beside what bounds both (`cargo xtask bench ingest`).
    Ingest(ingest::Args),
    /// Measure how time and memory grow with rows, partitions, workers and field changes (`cargo xtask bench growth`).
    Growth(ingest::GrowthArgs),
    /// Measure where the time goes between the topic and the table, and what other settings of the table give (`cargo xtask bench profile`).
    Profile(ingest::ProfileArgs),
    /// Measure the producer library (`cargo xtask bench producer`).
    Producer(producer::Args),
    /// Measure the producer library beside what people use instead (`cargo xtask bench producer-peers`).
    ProducerPeers(producer::peers::Args),
    /// Measure analysts' questions (`cargo xtask bench queries`).
    Queries(queries::Args),
    /// Measure freshness under load (`cargo xtask bench freshness`).
    Freshness(fresh::Args),
    /// The figures of decoding for the report (`cargo xtask bench decode --results`).
    DecodeResults(decode::Args),
    /// Write bench/RESULTS.md and its plots (`cargo xtask bench report`).
    Report(report::Args),
    /// Ask the same questions of the same events in PostgreSQL (`cargo xtask bench queries-postgres`).
    QueriesPostgres(queries::postgres::Args),
}

/// What every part needs.
#[derive(Debug, Clone, clap::Args)]
struct Common {
    /// Name of the stack.
    #[arg(long, default_value = "local")]
    stack: String,
    /// The `auditstream` program; default: the one beside this program.
    #[arg(long, value_name = "FILE")]
    auditstream: Option<PathBuf>,
    /// The `order-service` program; default: the one beside this program.
    #[arg(long, value_name = "FILE")]
    order_service: Option<PathBuf>,
    /// Another seed, other generated events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Common {
    fn target(&self) -> Result<Target> {
        Target::find(&self.stack)
    }

    fn program(&self) -> Result<PathBuf> {
        Self::found(self.auditstream.as_ref(), "auditstream")
    }

    fn order_service(&self) -> Result<PathBuf> {
        Self::found(self.order_service.as_ref(), "order-service")
    }

    fn found(given: Option<&PathBuf>, name: &str) -> Result<PathBuf> {
        let program = match given {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("this program's own path is not known")?.with_file_name(name),
        };
        anyhow::ensure!(
            program.is_file(),
            "{} is not there; build it: cargo build --release --bin {name}",
            program.display()
        );
        Ok(program)
    }
}

fn main() -> ExitCode {
    // Workers are bound to this process's life by this very program in another role.
    auditstream_stack::hook();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime ({error})");
            return ExitCode::FAILURE;
        }
    };
    // On this thread: children die with the thread that started them.
    let result = runtime.block_on(async {
        let (mut interrupt, mut terminate) = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            _ => anyhow::bail!("signals can't be heard"),
        };
        // Dropping the work ends the workers and stops the threads that send.
        tokio::select! {
            result = work(cli.command) => result,
            _ = interrupt.recv() => Ok(ExitCode::from(130)),
            _ = terminate.recv() => Ok(ExitCode::from(143)),
        }
    });
    let code = result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    });
    producer::resume_kafka();
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn work(command: Command) -> Result<ExitCode> {
    let screen = Screen::new();
    match command {
        Command::Run(args) => Box::pin(run::run(&args, &screen)).await,
        Command::Load(args) => Box::pin(throughput::only_load(&args, &screen)).await.map(|()| ExitCode::SUCCESS),
        Command::Orders(args) => Box::pin(orders::bench(&args, &screen)).await.map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => Box::pin(throughput::bench(&args, &screen)).await.map(|()| ExitCode::SUCCESS),
        Command::Freshness(args) => Box::pin(fresh::bench(&args, &screen)).await.map(|()| ExitCode::SUCCESS),
        Command::DecodeResults(args) => decode::run(&args, &screen).map(|()| ExitCode::SUCCESS),
        Command::Report(args) => report::run(&args, &screen).map(|()| ExitCode::SUCCESS),
        Command::Ingest(args) => {
            let done = tokio::task::spawn_blocking(move || ingest::run(&args)).await;
            done.context("a thread ended badly")?.map(|()| ExitCode::SUCCESS)
        }
        Command::Growth(args) => {
            let done = tokio::task::spawn_blocking(move || ingest::growth(&args)).await;
            done.context("a thread ended badly")?.map(|()| ExitCode::SUCCESS)
        }
        Command::Profile(args) => {
            let done = tokio::task::spawn_blocking(move || ingest::profile(&args)).await;
            done.context("a thread ended badly")?.map(|()| ExitCode::SUCCESS)
        }
        Command::Producer(args) => {
            let done = tokio::task::spawn_blocking(move || producer::run(&args)).await;
            done.context("a thread ended badly")?.map(|()| ExitCode::SUCCESS)
        }
        Command::ProducerPeers(args) => {
            let done = tokio::task::spawn_blocking(move || producer::peers::run(&args)).await;
            done.context("a thread ended badly")?.map(|()| ExitCode::SUCCESS)
        }
        Command::Queries(args) => {
            let done = tokio::task::spawn_blocking(move || queries::run(&args)).await;
            done.context("a thread ended badly")?.map(|()| ExitCode::SUCCESS)
        }
        Command::QueriesPostgres(args) => {
            let done = tokio::task::spawn_blocking(move || queries::postgres::run(&args)).await;
            done.context("a thread ended badly")?.map(|()| ExitCode::SUCCESS)
        }
    }
}
