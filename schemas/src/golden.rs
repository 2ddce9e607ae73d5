//! The golden files, compiled in: what events looked like on the wire when a schema version was released. Whatever comes later must read them.

/// One event, as it was encoded once and for ever.
#[derive(Clone, Copy, Debug)]
pub struct GoldenFile {
    /// Its name in `schemas/golden`.
    pub name: &'static str,
    /// The record, framed as a single object.
    pub single: &'static [u8],
    /// The event it stands for, in JSON.
    pub json: &'static str,
}

macro_rules! golden {
    ($($name:literal),+ $(,)?) => {
        &[$(GoldenFile {
            name: $name,
            single: include_bytes!(concat!("../golden/", $name, ".single.bin")),
            json: include_str!(concat!("../golden/", $name, ".json")),
        }),+]
    };
}

/// Every golden file.
pub const GOLDEN_FILES: &[GoldenFile] = golden!["minimal", "full", "unicode", "earliest", "latest", "many_changes"];
