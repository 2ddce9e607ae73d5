//! What the fuzzer's targets hold, for schemas and records from a random source instead of a fuzzer: with each run of the tests others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)]

use proptest::prelude::*;

mod common;
#[allow(clippy::duplicate_mod, reason = "the fuzzer's code has the rows' module for itself, in a workspace of its own")]
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

proptest! {
    #![proptest_config(common::cases(4096))]

    /// Straight to columns, by the guard and arrow-avro, and by apache-avro: one row, one hash, one refusal.
    #[test]
    fn ways_agree_on_records_of_made_schemas(data in prop::collection::vec(any::<u8>(), 0..160)) {
        fuzz::resolution(&data);
    }
}
