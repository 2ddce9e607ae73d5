//! `auditstream-faults`: the same program with crash points and with guards that can be switched off. Only the fault tests build and run it.

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
    auditstream_store::faults::arm();
    exit::report(cmd::run(cmd::Cli::parse()))
}
