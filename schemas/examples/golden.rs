//! Writes `schemas/golden`: `cargo run --release -p auditstream-schemas --example golden`.
//!
//! The files are committed and never change for a schema version; the tests compare. Run this only to add an event.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::fs;
use std::path::Path;

use auditstream_schemas::{content_hash_of, encode};

#[path = "../tests/common/mod.rs"]
mod common;

fn main() -> std::io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    fs::create_dir_all(&dir)?;
    let mut hashes = String::new();
    for (name, event) in common::golden() {
        event.validate().unwrap();
        fs::write(dir.join(format!("{name}.json")), event.to_json() + "\n")?;
        for (ending, framing) in common::GOLDEN_FRAMINGS {
            let mut record = Vec::new();
            encode(&event, framing, &mut record);
            fs::write(dir.join(format!("{name}.{ending}")), record)?;
        }
        let hash = content_hash_of(&event).map(|byte| format!("{byte:02x}")).concat();
        hashes.push_str(&format!("{hash} {name}\n"));
    }
    fs::write(dir.join("content_hashes.txt"), &hashes)?;
    print!("{hashes}");
    Ok(())
}
