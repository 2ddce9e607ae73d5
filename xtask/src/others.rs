//! Other people's programs, which share no code with ours: clients that tests exchange events with, and the storage that archives go to. Made once, in the
//! cache; afterwards nothing touches the network.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use auditstream_stack::Progress;

use crate::child::{cargo, command, succeed};

/// An Avro implementation that reads our golden files.
const FASTAVRO: &str = "fastavro==1.13.1";

/// Confluent's own client with its serializers, and what they import. `certifi` (MPL) is left out: nothing speaks TLS here. What is not listed is not
/// installed.
const CONFLUENT: &[&str] = &[
    "confluent-kafka==2.13.0",
    FASTAVRO,
    "httpx==0.28.1",
    "httpcore==1.0.9",
    "h11==0.16.0",
    "anyio==4.16.0",
    "idna==3.20",
    "typing_extensions==4.16.0",
    "attrs==26.1.0",
    "cachetools==8.0.1",
    "Authlib==1.9.9",
    "joserfc==1.8.0",
    "cryptography==50.0.2",
    "cffi==2.1.1",
    "pycparser==3.12",
];

/// ClickHouse's own client for Python, as analysts use it. Without `certifi` too.
const CLICKHOUSE_CONNECT: &[&str] =
    &["clickhouse-connect==1.12.0", "urllib3==2.8.0", "lz4==4.4.5", "backports.zstd==1.8.0"];

/// An S3-compatible server that checks signatures and keeps objects as plain files. Built with the versions of its own lock file. (moto, in Python, would
/// need certifi, and forgets everything when it is killed.)
const S3_SERVER: &str = "s3s-fs";
const S3_SERVER_VERSION: &str = "0.12.0";

/// Apicurio's serializer for Kafka's Java client, the newest on Maven Central, with Avro's own library.
const JAVA_SERDE: &str = "2.6.13.Final";
const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1";

/// Where they are.
pub(crate) struct Others {
    fastavro: PathBuf,
    confluent: PathBuf,
    clickhouse: PathBuf,
    java_class_path: String,
    s3_server: PathBuf,
}

impl Others {
    /// Installs what is missing.
    pub(crate) fn ensure(progress: &dyn Progress) -> Result<Self> {
        let installed = auditstream_stack::ensure_installed(progress)?;
        auditstream_stack::ensure_java_compiler(progress)?;
        let cache = &installed.cache;
        progress.step("Python with fastavro, with Confluent's client, and with ClickHouse's");
        let fastavro = made(cache, &format!("python-{}", FASTAVRO.replace("==", "-")), |dir| venv(dir, &[FASTAVRO]))?;
        let confluent =
            made(cache, &format!("python-{}", CONFLUENT[0].replace("==", "-")), |dir| venv(dir, CONFLUENT))?;
        let name = format!("python-{}", CLICKHOUSE_CONNECT[0].replace("==", "-"));
        let clickhouse = made(cache, &name, |dir| venv(dir, CLICKHOUSE_CONNECT))?;
        progress.step("an S3-compatible server (the first time two minutes on two cores)");
        let s3_server = made(cache, &format!("{S3_SERVER}-{S3_SERVER_VERSION}"), s3_server)?;
        progress.step("Java's Avro and Apicurio's serializer");
        let serde = made(cache, &format!("java-serde-{JAVA_SERDE}"), |dir| {
            auditstream_stack::ensure_maven(progress)?;
            let serde = format!(
                "<groupId>io.apicurio</groupId><artifactId>apicurio-registry-serdes-avro-serde</artifactId><version>{JAVA_SERDE}</version>"
            );
            jars(dir, &serde, "-DexcludeArtifactIds=kafka-clients,slf4j-api")
        })?;
        // In front of Kafka's jars, so that the serializer gets the JSON library that it was built with.
        let java_class_path = format!("{}/*:{}", serde.join("libs").display(), installed.servers.kafka_class_path);
        let python = |dir: PathBuf| dir.join("bin/python3");
        Ok(Self {
            fastavro: python(fastavro),
            confluent: python(confluent),
            clickhouse: python(clickhouse),
            java_class_path,
            s3_server: s3_server.join("bin").join(S3_SERVER),
        })
    }

    /// Tells a test run where they are.
    pub(crate) fn hand_to(&self, test: &mut Command) {
        test.env("AUDITSTREAM_PYTHON", &self.fastavro);
        test.env("AUDITSTREAM_CONFLUENT_PYTHON", &self.confluent);
        test.env("AUDITSTREAM_CLICKHOUSE_PYTHON", &self.clickhouse);
        test.env("AUDITSTREAM_JAVA_CLASS_PATH", &self.java_class_path);
        test.env("AUDITSTREAM_S3_SERVER", &self.s3_server);
    }
}

fn s3_server(folder: &Path) -> Result<()> {
    // Neither optimized nor with debugging information: tests wait for the build, not for the server.
    let mut install = cargo(&["install", "--quiet", "--locked", "--debug", "--features", "binary", "--root"])?;
    install.arg(folder).args([S3_SERVER, "--version", S3_SERVER_VERSION]).env("CARGO_PROFILE_DEV_DEBUG", "0");
    succeed("cargo install s3s-fs", &mut install)
}

/// A folder of the cache, filled by `make` unless it is there. Complete when the marker is there.
pub(crate) fn made(cache: &Path, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = cache.join(name);
    let marker = folder.join("complete");
    if marker.is_file() {
        return Ok(folder);
    }
    // Two at once: the second waits and then finds it done.
    let turn = File::create(cache.join("python.lock")).context("create the lock file of the tests' tools")?;
    turn.lock().context("lock the tests' tools")?;
    if marker.is_file() {
        return Ok(folder);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    make(&folder)?;
    File::create(&marker).with_context(|| format!("create {}", marker.display()))?;
    Ok(folder)
}

/// A virtual environment with exactly these packages.
pub(crate) fn venv(folder: &Path, packages: &[&str]) -> Result<()> {
    succeed("python3 -m venv", command("python3")?.args(["-m", "venv"]).arg(folder))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"];
    succeed("pip install", command(folder.join("bin/python3"))?.args(pip).args(packages))
}

/// A Maven artifact and what it needs, but for what `without` leaves out because the stack has it.
pub(crate) fn jars(folder: &Path, artifact: &str, without: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let (pom, repository) = (folder.join("pom.xml"), folder.join("maven"));
    let project = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">
  <modelVersion>4.0.0</modelVersion>
  <groupId>auditstream</groupId><artifactId>tests</artifactId><version>1</version>
  <dependencies>
    <dependency>{artifact}</dependency>
  </dependencies>
</project>
"
    );
    fs::write(&pom, project).with_context(|| format!("write {}", pom.display()))?;
    let mut maven = command("mvn")?;
    maven.args(["--batch-mode", "--quiet", "-Dstyle.color=never", "--strict-checksums", "-f"]).arg(&pom);
    maven.arg(format!("-Dmaven.repo.local={}", repository.display()));
    maven.arg(format!("{DEPENDENCY_PLUGIN}:copy-dependencies")).args(["-DincludeScope=runtime"]);
    maven.arg(without);
    maven.arg(format!("-DoutputDirectory={}", folder.join("libs").display()));
    succeed("mvn dependency:copy-dependencies", &mut maven)?;
    fs::remove_dir_all(&repository).with_context(|| format!("remove {}", repository.display()))
}
