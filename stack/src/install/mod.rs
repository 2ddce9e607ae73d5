//! Installs what the stack and the project need, from package managers: apt for programs, npm for ClickHouse, Maven for
//! Kafka and the schema registry. What is there already is never fetched again, and then no network command runs at all.
//!
//! Promises: downloads lie in one cache folder outside the checkout, in folders named by version; a folder of that name is
//! complete, because it is filled under another name and renamed; of two installations at once, one waits for the other;
//! an installation that dies leaves nothing that a later one would trust, and its half-filled folder is removed.

mod clickhouse;
mod kafka;
mod packages;
mod registry;
mod run;

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub(crate) use kafka::JVM_FLAGS as KAFKA_JVM_FLAGS;
pub use kafka::VERSION as KAFKA_VERSION;
pub use registry::{Registry, ensure_registry};

use crate::error::InstallError;
use crate::hook;
use crate::progress::{Life, Progress};
use run::{Staging, io_error};

/// Where the servers' programs lie.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Servers {
    /// The Java launcher.
    pub java: PathBuf,
    /// Kafka's jars, in a fixed order, colon-separated.
    pub kafka_class_path: String,
    /// A freshly formatted data folder's files.
    pub kafka_template: PathBuf,
    /// The class data archive that makes Kafka start quickly.
    pub kafka_cds: PathBuf,
    /// ClickHouse as a C library.
    pub clickhouse_library: PathBuf,
}

/// What [`ensure_installed`] has made sure of.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The servers.
    pub servers: Servers,
    /// The cache folder.
    pub cache: PathBuf,
}

/// The cache folder: `AUDITSTREAM_CACHE`, else `auditstream` in `XDG_CACHE_HOME` or `~/.cache`.
///
/// # Errors
/// None of the variables is set.
pub fn cache_dir() -> Result<PathBuf, InstallError> {
    let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = var("AUDITSTREAM_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("auditstream")))
        .or_else(|| var("HOME").map(|dir| dir.join(".cache/auditstream")))
        .ok_or_else(|| InstallError::Program("HOME (the variable is not set, so there is no cache folder)".into()))?;
    if dir.is_absolute() {
        return Ok(dir);
    }
    env::current_dir().map(|here| here.join(dir)).map_err(|e| io_error("find the working folder", Path::new("."), e))
}

/// Installs everything the project needs to build, run and test: system packages, ClickHouse, Kafka.
///
/// # Errors
/// See [`InstallError`]; the message holds the command to run where a person's rights are needed.
pub fn ensure_installed(progress: &dyn Progress) -> Result<Installed, InstallError> {
    let cache = cache_dir()?;
    packages::ensure(&[packages::PROJECT, to_download(&cache)], progress)?;
    let servers = ensure_servers(progress)?;
    Ok(Installed { servers, cache })
}

/// Installs only what the two servers need.
///
/// # Errors
/// See [`InstallError`].
pub fn ensure_servers(progress: &dyn Progress) -> Result<Servers, InstallError> {
    let cache = cache_dir()?;
    packages::ensure(&[packages::RUN, to_download(&cache)], progress)?;
    if let Some(servers) = found(&cache)? {
        return Ok(servers);
    }
    let _turn = turn(&cache, progress)?;
    if let Some(servers) = found(&cache)? {
        return Ok(servers);
    }
    progress.step(&format!("installing Kafka and ClickHouse into {} (once)", cache.display()));
    sweep(&cache);
    let staging = Staging::begin(&cache)?;
    if !clickhouse::library(&cache).is_file() {
        clickhouse::install(&cache, &staging, progress)?;
    }
    let java = kafka::java()?;
    if !kafka::installed(&cache) {
        kafka::install(&cache, &staging, &java, progress)?;
    }
    if !kafka::cds(&cache, &java).is_file() {
        kafka::archive_classes(&cache, &staging, &java, progress)?;
    }
    staging.end();
    let servers = found(&cache)?;
    servers.ok_or_else(|| InstallError::Program("Kafka or ClickHouse (vanished from the cache)".into()))
}

/// Installs the database servers that only tests need.
///
/// # Errors
/// See [`InstallError`].
pub fn ensure_databases(progress: &dyn Progress) -> Result<(), InstallError> {
    for which in [DatabasePackage::Postgres, DatabasePackage::Mariadb] {
        ensure_database(which, progress)?;
    }
    Ok(())
}

/// Installs the Java compiler, which only tests with other people's producers need.
///
/// # Errors
/// See [`InstallError`].
pub fn ensure_java_compiler(progress: &dyn Progress) -> Result<(), InstallError> {
    packages::ensure(&[packages::JAVA_COMPILER], progress)
}

/// Installs Maven.
///
/// # Errors
/// See [`InstallError`].
pub fn ensure_maven(progress: &dyn Progress) -> Result<(), InstallError> {
    packages::ensure(&[packages::MAVEN], progress)
}

/// Installs valgrind, which counts instructions.
///
/// # Errors
/// See [`InstallError`].
pub fn ensure_valgrind(progress: &dyn Progress) -> Result<(), InstallError> {
    packages::ensure(&[packages::VALGRIND], progress)
}

/// A database server that only some tests need.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DatabasePackage {
    Postgres,
    Mariadb,
}

/// Installs a database server's programs when they are missing, and says in which folder they lie.
pub(crate) fn ensure_database(which: DatabasePackage, progress: &dyn Progress) -> Result<PathBuf, InstallError> {
    match which {
        DatabasePackage::Mariadb => {
            packages::ensure(&[packages::MARIADB], progress)?;
            Ok(PathBuf::from("/usr/bin"))
        }
        DatabasePackage::Postgres => {
            if let Some(programs) = packages::postgres_programs() {
                return Ok(programs);
            }
            // Debian's package makes and starts a cluster of the system's own unless told not to. Who is not root can't tell it.
            let settings = Path::new("/etc/postgresql-common/createcluster.conf");
            if nix::unistd::Uid::effective().is_root() && !settings.exists() {
                let _ = fs::create_dir_all("/etc/postgresql-common");
                let _ = fs::write(settings, "create_main_cluster = false\n");
            }
            packages::ensure(&[packages::POSTGRES], progress)?;
            packages::postgres_programs().ok_or_else(|| InstallError::Program("initdb".to_owned()))
        }
    }
}

/// The packages that a download needs; none when everything is cached.
fn to_download(cache: &Path) -> &'static [packages::Package] {
    let cached = kafka::installed(cache) && clickhouse::library(cache).is_file();
    if cached { &[] } else { packages::DOWNLOAD }
}

/// The servers when the cache holds all of them.
fn found(cache: &Path) -> Result<Option<Servers>, InstallError> {
    let java = kafka::java()?;
    let servers = Servers {
        kafka_class_path: kafka::class_path(cache).unwrap_or_default(),
        kafka_template: kafka::template(cache),
        kafka_cds: kafka::cds(cache, &java),
        clickhouse_library: clickhouse::library(cache),
        java,
    };
    let complete = kafka::installed(cache) && servers.kafka_cds.is_file() && servers.clickhouse_library.is_file();
    Ok(complete.then_some(servers))
}

/// Waits until no other installation runs.
fn turn(cache: &Path, progress: &dyn Progress) -> Result<File, InstallError> {
    fs::create_dir_all(cache).map_err(|e| io_error("create", cache, e))?;
    let path = cache.join("install.lock");
    let file = File::create(&path).map_err(|e| io_error("create", &path, e))?;
    let begun = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(io_error("lock", &path, e)),
            Err(TryLockError::WouldBlock) if told => {
                let what = "waiting for another installation";
                progress.alive(&Life { what, elapsed: begun.elapsed(), bytes: None, total: None, last_line: "" });
                thread::sleep(Duration::from_millis(250));
            }
            Err(TryLockError::WouldBlock) => {
                told = true;
                progress.step("another installation is running; waiting for it");
            }
        }
    }
}

/// Removes what dead installations left. Only the holder of the lock may call it.
fn sweep(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(run::STAGING) {
            hook::remove_folder(&entry.path(), Duration::from_secs(5));
        }
    }
}
