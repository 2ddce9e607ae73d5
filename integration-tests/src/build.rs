//! The executables under test: built before the first test, so that no test ever runs an old one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of this build: `target/release`, or `target/debug`.
pub(crate) fn profile_dir() -> PathBuf {
    let own = std::env::current_exe().expect("this process has an executable");
    // target/PROFILE/deps/TEST-HASH
    own.ancestors().nth(2).expect("test executables are in target/PROFILE/deps").to_owned()
}

/// `target/test-logs`.
pub(crate) fn logs_dir() -> PathBuf {
    profile_dir().parent().expect("PROFILE is in target").join("test-logs")
}

/// The `auditstream` executable: `AUDITSTREAM_BIN`, or built now from this workspace, with the supervisor of the stack beside it.
pub(crate) fn auditstream() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(given) = std::env::var_os("AUDITSTREAM_BIN").filter(|given| !given.is_empty()) {
            return PathBuf::from(given);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--bins", "--package", "auditstream", "--package", "auditstream-stack"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo can be started");
        assert!(status.success(), "cargo could not build the executables under test");
        profile_dir().join("auditstream")
    })
}

/// `auditstream` with crash points: `AUDITSTREAM_FAULTS_BIN`, or built now.
pub(crate) fn with_faults() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(given) = std::env::var_os("AUDITSTREAM_FAULTS_BIN").filter(|given| !given.is_empty()) {
            return PathBuf::from(given);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        // The whole workspace: with another selection of packages cargo would build librdkafka once more.
        command.args(["build", "--quiet", "--workspace", "--features", "auditstream/faults"]);
        command.args(["--bin", "auditstream-faults"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo can be started");
        assert!(status.success(), "cargo could not build the executable with crash points");
        profile_dir().join("auditstream-faults")
    })
}

/// The benchmarks' program, `auditstream-demo`: the one beside the `auditstream` under test, or built now.
///
/// # Panics
/// It can't be built.
#[must_use]
pub fn bench_program() -> PathBuf {
    const NAME: &str = "auditstream-demo";
    let beside = auditstream().with_file_name(NAME);
    if std::env::var_os("AUDITSTREAM_BIN").is_some_and(|given| !given.is_empty()) && beside.is_file() {
        return beside;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // The whole workspace: with another selection of packages cargo would build librdkafka once more.
    command.args(["build", "--quiet", "--workspace", "--bin", NAME]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo can be started");
    assert!(status.success(), "cargo could not build {NAME}");
    profile_dir().join(NAME)
}
