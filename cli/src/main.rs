//! `auditstream`: the one binary. Reads the command line and hands over to the command; see `cmd`.

mod admin;
mod audit;
mod cmd;
mod config;
mod confirm;
mod exit;
mod log;
mod notify;
mod output;
mod signals;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    exit::report(cmd::run(cmd::Cli::parse()))
}
