//! Avro's own implementation, from Maven Central: what the tests compare resolution with.

use std::fs;
use std::path::{Path, PathBuf};

use super::kafka::class_path_of;
use super::run::{Staging, Step, io_error};
use super::{cache_dir, packages, sweep, turn};
use crate::error::InstallError;
use crate::hook::{bound_command, executable};
use crate::progress::Progress;

const VERSION: &str = "1.12.0";
const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1";
/// Size of Maven's download for the progress display only: jars and the plugin's own.
const DOWNLOADED: u64 = 14_000_000;

/// Avro for Java and what it needs, as a class path; fetched once.
///
/// # Errors
/// See [`InstallError`].
pub fn ensure_avro(progress: &dyn Progress) -> Result<String, InstallError> {
    let cache = cache_dir()?;
    packages::ensure(&[packages::RUN], progress)?;
    let folder = cache.join(format!("avro-{VERSION}"));
    if let Some(found) = class_path_of(&folder) {
        return Ok(found);
    }
    packages::ensure(&[packages::DOWNLOAD], progress)?;
    let _turn = turn(&cache, progress)?;
    if class_path_of(&folder).is_none() {
        sweep(&cache);
        let staging = Staging::begin(&cache)?;
        fetch(&staging, &folder, progress)?;
        staging.end();
    }
    class_path_of(&folder).ok_or_else(|| InstallError::Program("Avro's jars".into()))
}

fn fetch(staging: &Staging, folder: &Path, progress: &dyn Progress) -> Result<(), InstallError> {
    let libs: PathBuf = staging.folder("avro")?;
    let repository = staging.folder("maven")?;
    let pom = staging.dir.join("pom.xml");
    fs::write(&pom, project()).map_err(|e| io_error("write", &pom, e))?;
    Step {
        what: "download Avro for Java (Maven)",
        grows: Some(&repository),
        total: Some(DOWNLOADED),
        log: &staging.dir.join("maven.log"),
    }
    .run(
        bound_command(&executable()?, Path::new("mvn"))
            .args(["--batch-mode", "--strict-checksums", "-f"])
            .arg(&pom)
            .arg(format!("-Dmaven.repo.local={}", repository.display()))
            .arg(format!("{DEPENDENCY_PLUGIN}:copy-dependencies"))
            .arg("-DincludeScope=runtime")
            .arg(format!("-DoutputDirectory={}", libs.display())),
        progress,
    )?;
    staging.publish("avro", folder)
}

/// A Maven project whose only purpose is its dependencies.
fn project() -> String {
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">
  <modelVersion>4.0.0</modelVersion>
  <groupId>auditstream</groupId><artifactId>avro</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.avro</groupId><artifactId>avro</artifactId><version>{VERSION}</version></dependency>
  </dependencies>
</project>
"
    )
}
