//! `cargo xtask`: the one door for habits. Each subcommand is a file; this one only opens the door.

mod alerts;
mod bench;
mod chart;
mod child;
mod compose;
mod demo;
mod faults;
mod fuzz;
mod go_tools;
mod instructions;
mod others;
mod progress;
mod report;
mod sim;
mod sim_scaling;
mod stack;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The habits of the auditstream repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure on real servers, and compare with what the figures should be.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Everything in one go, on real servers: real and generated events, five questions, the figures, the proof.
    Demo(demo::Args),
    /// Make the faults that the system survives, on real servers, and show what became of the events.
    Faults(faults::Args),
    /// Feed the decoders with what a fuzzer makes of records and schemas.
    Fuzz(fuzz::Args),
    /// Simulate the consumer's core: every order of records, answers, failures, rebalances and crashes, from seeds.
    Sim(sim::Args),
    /// Simulate how the number of workers follows a burst, with the chart's way of scaling; a table and plots.
    SimScaling(sim_scaling::Args),
    /// Start, look at and stop a local Kafka and ClickHouse, and a schema registry if you like, without containers.
    Stack(stack::Args),
    /// Build everything and run all tests, on a real Kafka and ClickHouse where they need one.
    Test(test::Args),
    /// Check alerts, dashboards and the queries that scale: by promtool, and by a real Prometheus that scrapes real workers.
    TestAlerts(alerts::Args),
    /// Check the Helm chart: lint, unit tests, a matrix of values against the schemas of Kubernetes, values that must be refused.
    TestChart(chart::Args),
    /// Check docker-compose.yml with compose's own parser, and that what it names is there.
    TestCompose(compose::Args),
    /// Count the instructions of the hot path with callgrind, and refuse more than are written down in bench/instructions.json.
    TestInstructions(instructions::Args),
    /// Check format, lints, licences, file length and that nothing of this machine stands in the repository.
    Tidy,
}

fn main() -> ExitCode {
    auditstream_stack::hook();
    let cli = Cli::parse();
    let result = child::end_with_us().and_then(|()| match cli.command {
        Command::Bench(bench) => bench::run(&bench),
        Command::Demo(args) => demo::run(&args),
        Command::Faults(args) => faults::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::SimScaling(args) => sim_scaling::run(&args),
        Command::Stack(args) => stack::run(args),
        Command::Test(args) => test::run(&args),
        Command::TestAlerts(args) => alerts::run(&args),
        Command::TestCompose(args) => compose::run(&args),
        Command::TestChart(args) => chart::run(&args),
        Command::TestInstructions(args) => instructions::run(&args),
        Command::Tidy => tidy::run(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
