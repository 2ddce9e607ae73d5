//! Apache Kafka from Maven Central, formatted once, with a class data archive that cuts its start from 3.7 s to 0.6 s.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::run::{Staging, Step, io_error};
use crate::answers::kafka_answers;
use crate::error::InstallError;
use crate::hook::{bound_command, executable};
use crate::progress::{Life, Progress};
use crate::server::tail_of;
use crate::{config, ports, random};

/// Of the broker and the client jars.
pub const VERSION: &str = "4.1.0";
const SLF4J: &str = "1.7.36";
pub(super) const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1";
/// Size of Maven's download for the progress display only: jars and the plugin's own.
const DOWNLOADED: u64 = 68_000_000;
/// Kafka 4 runs on this or later.
const OLDEST_JAVA: u32 = 17;

/// Flags that every start shares with the run that made the class data archive.
pub(crate) const JVM_FLAGS: &[&str] = &[
    "-Xss256k",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
];

fn folder(cache: &Path) -> PathBuf {
    cache.join(format!("kafka-{VERSION}"))
}

pub(crate) fn template(cache: &Path) -> PathBuf {
    folder(cache).join("template")
}

/// True when the jars and the template are there.
pub(crate) fn installed(cache: &Path) -> bool {
    template(cache).join("bootstrap.checkpoint").is_file()
}

/// All jars in a fixed order: the class data archive is bound to it.
pub(crate) fn class_path(cache: &Path) -> Option<String> {
    class_path_of(&folder(cache).join("libs"))
}

pub(super) fn class_path_of(libs: &Path) -> Option<String> {
    let mut jars: Vec<String> = fs::read_dir(libs)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jar"))
        .map(|path| path.display().to_string())
        .collect();
    jars.sort();
    (!jars.is_empty()).then(|| jars.join(":"))
}

/// The class data archive for this Java: another one would be ignored by the JVM, and Kafka would start slowly.
pub(crate) fn cds(cache: &Path, java: &Path) -> PathBuf {
    let home = java.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let key = format!("{}-{}", home.display(), release(home, "JAVA_RUNTIME_VERSION").unwrap_or_default());
    let key: String = key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    cache.join(format!("kafka-{VERSION}-cds")).join(format!("{}.jsa", key.trim_matches('-')))
}

/// A value of a Java installation's `release` file.
fn release(home: &Path, key: &str) -> Option<String> {
    let text = fs::read_to_string(home.join("release")).ok()?;
    release_value(&text, key)
}

fn release_value(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(line.trim_matches('"').to_owned())
}

/// Java's launcher, symbolic links resolved: `AUDITSTREAM_JAVA`, else `java` on PATH.
pub(crate) fn java() -> Result<PathBuf, InstallError> {
    let given = std::env::var_os("AUDITSTREAM_JAVA").map(PathBuf::from);
    let path = given.or_else(|| super::packages::which("java")).ok_or_else(|| InstallError::Program("java".into()))?;
    let path = path.canonicalize().map_err(|e| io_error("find", &path, e))?;
    let home = path.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    if java_major(&path).is_some_and(|major| major < OLDEST_JAVA) {
        return Err(InstallError::Mismatch {
            what: format!("{} (set AUDITSTREAM_JAVA to another)", path.display()),
            expected: format!("Java {OLDEST_JAVA} or later"),
            found: release(home, "JAVA_VERSION").unwrap_or_default(),
        });
    }
    Ok(path)
}

/// The version of a launcher whose symbolic links are resolved, if its installation says one.
pub(super) fn java_major(java: &Path) -> Option<u32> {
    let version = release(java.parent()?.parent()?, "JAVA_VERSION")?;
    version.split('.').next()?.parse().ok()
}

pub(crate) fn install(
    cache: &Path,
    staging: &Staging,
    java: &Path,
    progress: &dyn Progress,
) -> Result<(), InstallError> {
    let executable = executable()?;
    let target = staging.folder("kafka")?;
    let libs = staging.folder("kafka/libs")?;
    let repository = staging.folder("maven")?;
    let pom = staging.dir.join("pom.xml");
    fs::write(&pom, project()).map_err(|e| io_error("write", &pom, e))?;
    Step {
        what: "download Kafka (Maven)",
        grows: Some(&repository),
        total: Some(DOWNLOADED),
        log: &staging.dir.join("maven.log"),
    }
    .run(
        bound_command(&executable, Path::new("mvn"))
            .args(["--batch-mode", "--strict-checksums", "-f"])
            .arg(&pom)
            .arg(format!("-Dmaven.repo.local={}", repository.display()))
            .arg(format!("{DEPENDENCY_PLUGIN}:copy-dependencies"))
            .arg("-DincludeScope=runtime")
            .arg(format!("-DoutputDirectory={}", libs.display())),
        progress,
    )?;
    let class_path = class_path_of(&libs).ok_or_else(|| InstallError::Program("Kafka's jars".into()))?;
    let data = staging.folder("kafka/template")?;
    let properties = staging.dir.join("format.properties");
    fs::write(&properties, config::server_properties(&data, 9092, 9093))
        .map_err(|e| io_error("write", &properties, e))?;
    let id = random::kafka_uuid().map_err(|e| io_error("make an id for", &target, e))?;
    Step { what: "format Kafka's storage", grows: None, total: None, log: &staging.dir.join("format.log") }.run(
        bound_command(&executable, java)
            .args(JVM_FLAGS)
            .arg("-cp")
            .arg(&class_path)
            .args(["kafka.tools.StorageTool", "format", "-t", &id, "-c"])
            .arg(&properties),
        progress,
    )?;
    staging.publish("kafka", &folder(cache))
}

/// Runs Kafka once and lets the JVM write down the classes it loaded.
pub(crate) fn archive_classes(
    cache: &Path,
    staging: &Staging,
    java: &Path,
    progress: &dyn Progress,
) -> Result<(), InstallError> {
    let what = "prepare Kafka's quick start";
    progress.step(what);
    let data = staging.folder("cds/data")?;
    for name in ["bootstrap.checkpoint", "meta.properties"] {
        let from = template(cache).join(name);
        fs::copy(&from, data.join(name)).map_err(|e| io_error("copy", &from, e))?;
    }
    let [port, controller] = ports::pick::<2>().map_err(|e| io_error("find free ports for", &data, e))?;
    let properties = staging.dir.join("cds/server.properties");
    fs::write(&properties, config::server_properties(&data, port, controller))
        .map_err(|e| io_error("write", &properties, e))?;
    let log_path = staging.dir.join("cds/kafka.log");
    let log = fs::File::create(&log_path).map_err(|e| io_error("create", &log_path, e))?;
    let errors = log.try_clone().map_err(|e| io_error("open", &log_path, e))?;
    let mut child = bound_command(&executable()?, java)
        .args(["-Xmx256m", "-XX:TieredStopAtLevel=1"])
        .args(JVM_FLAGS)
        .arg(format!("-XX:ArchiveClassesAtExit={}", staging.dir.join("cds/kafka.jsa").display()))
        .arg("-cp")
        .arg(class_path(cache).unwrap_or_default())
        .arg("kafka.Kafka")
        .arg(&properties)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|e| io_error("start", java, e))?;
    let begun = Instant::now();
    let mut asked_to_end = false;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| io_error("wait for", java, e))? {
            break status.to_string();
        }
        if begun.elapsed() > Duration::from_secs(120) {
            let _ = child.kill();
            let _ = child.wait();
            break "no end within two minutes".into();
        }
        if !asked_to_end && kafka_answers(port) {
            asked_to_end = true;
            // A pid that does not fit or has ended: the loop sees its end.
            let _ = i32::try_from(child.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        }
        progress.alive(&Life { what, elapsed: begun.elapsed(), bytes: None, total: None, last_line: "" });
        thread::sleep(Duration::from_millis(50));
    };
    progress.ended();
    let archive = cds(cache, java);
    if !staging.dir.join("cds/kafka.jsa").is_file() {
        return Err(InstallError::Command { what: what.into(), status, output: tail_of(&log_path, 25) });
    }
    if let Some(parent) = archive.parent() {
        fs::create_dir_all(parent).map_err(|e| io_error("create", parent, e))?;
    }
    staging.publish("cds/kafka.jsa", &archive)
}

/// A Maven project whose only purpose is its dependencies.
fn project() -> String {
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">
  <modelVersion>4.0.0</modelVersion>
  <groupId>auditstream</groupId><artifactId>stack</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{SLF4J}</version></dependency>
  </dependencies>
</project>
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_file_is_read() {
        let text = "JAVA_RUNTIME_VERSION=\"17.0.15+6-Debian\"\nJAVA_VERSION=\"17.0.15\"\n";
        assert_eq!(release_value(text, "JAVA_VERSION").as_deref(), Some("17.0.15"));
        assert_eq!(release_value(text, "JAVA_RUNTIME_VERSION").as_deref(), Some("17.0.15+6-Debian"));
        assert_eq!(release_value(text, "VENDOR"), None);
    }
}
