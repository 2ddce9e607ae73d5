//! `cargo xtask sim`: the simulation of the consumer's core, for as many seeds as wanted, or one seed step by step.

use anyhow::Result;

use crate::child::{cargo, succeed};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many seeds, from 0 on; 10,000 take a few seconds.
    #[arg(long, default_value_t = 10_000, conflicts_with = "seed")]
    seeds: u64,
    /// One seed, and everything that happens in it.
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut test = cargo(&["test", "--release", "--workspace", "--lib", "--quiet", "--", "--nocapture"])?;
    match args.seed {
        Some(seed) => test.arg("core::sim::one_seed").env("AUDITSTREAM_SIM_SEED", seed.to_string()),
        None => test.arg("core::sim::promises").env("AUDITSTREAM_SIM_SEEDS", args.seeds.to_string()),
    };
    succeed("the simulation", &mut test)
}
