//! Programs from the Go module proxy that check what is written for Kubernetes and Prometheus: helm, kubeconform, helm-unittest, promtool and Prometheus,
//! the parser of docker compose. Built once, in the cache; afterwards nothing touches the network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use auditstream_stack::Progress;

use crate::child::{command, succeed};
use crate::others::made;

/// How a program is built.
#[derive(Clone, Copy)]
enum Build {
    /// `go install`.
    Install,
    /// From a copy of its module, which has replacements that `go install` does not take.
    Copy,
    /// As a tool of an empty module: its own module can't be installed from.
    Tool,
}

/// One program.
#[derive(Clone, Copy)]
pub(crate) struct GoTool {
    name: &'static str,
    version: &'static str,
    module: &'static str,
    /// Below the module.
    package: &'static str,
    build: Build,
    /// What a first build takes on two cores.
    takes: &'static str,
}

const fn tool(
    name: &'static str,
    version: &'static str,
    module: &'static str,
    package: &'static str,
    build: Build,
    takes: &'static str,
) -> GoTool {
    GoTool { name, version, module, package, build, takes }
}

pub(crate) const HELM: GoTool =
    tool("helm", "v3.22.0", "helm.sh/helm/v3", "/cmd/helm", Build::Install, "about two minutes");
pub(crate) const KUBECONFORM: GoTool =
    tool("kubeconform", "v0.8.0", "github.com/yannh/kubeconform", "/cmd/kubeconform", Build::Install, "some seconds");
pub(crate) const HELM_UNITTEST: GoTool = tool(
    "helm-unittest",
    "v1.1.2",
    "github.com/helm-unittest/helm-unittest",
    "/cmd/helm-unittest",
    Build::Copy,
    "about a minute",
);
const PROMETHEUS_VERSION: &str = "v0.315.0";
const PROMETHEUS_MODULE: &str = "github.com/prometheus/prometheus";
pub(crate) const PROMTOOL: GoTool =
    tool("promtool", PROMETHEUS_VERSION, PROMETHEUS_MODULE, "/cmd/promtool", Build::Tool, "about seven minutes");
pub(crate) const PROMETHEUS: GoTool =
    tool("prometheus", PROMETHEUS_VERSION, PROMETHEUS_MODULE, "/cmd/prometheus", Build::Tool, "about a minute more");
pub(crate) const COMPOSE: GoTool = tool(
    "docker-compose",
    "v2.40.3",
    "github.com/docker/compose/v2",
    "/cmd",
    Build::Tool,
    "about two and a half minutes",
);

impl GoTool {
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version.trim_start_matches('v'))
    }

    /// Whether it is in the cache.
    pub(crate) fn is_installed(&self, cache: &Path) -> bool {
        cache.join(self.folder()).join("complete").is_file()
    }

    /// The program, built when it is not there.
    pub(crate) fn ensure(&self, cache: &Path, progress: &dyn Progress) -> Result<PathBuf> {
        let folder = made(cache, &self.folder(), |folder| {
            need_go()?;
            progress.step(&format!("build {} {} (once, {})", self.name, self.version, self.takes));
            self.make(folder)
        })?;
        Ok(folder.join(self.name))
    }

    fn make(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let (Self { name, version, module, package, .. }, output) = (self, folder.join(self.name));
        let package = format!("{module}{package}");
        match self.build {
            Build::Install => {
                succeed(
                    "go install",
                    command("go")?.args(["install", &format!("{package}@{version}")]).env("GOBIN", folder),
                )?;
                if !output.is_file() {
                    bail!("go install made no {name}");
                }
                Ok(())
            }
            Build::Copy => {
                let (source, copy) = (module_folder(module, version)?, folder.join("source"));
                succeed(
                    "cp",
                    command("cp")?.args(["-r", "--no-preserve=mode"]).args([source.as_os_str(), copy.as_os_str()]),
                )?;
                succeed(
                    "go build",
                    command("go")?.args(["build", "-o"]).arg(&output).arg(&package).current_dir(&copy),
                )?;
                fs::remove_dir_all(&copy).with_context(|| format!("remove {}", copy.display()))
            }
            Build::Tool => {
                let own = folder.join("module");
                fs::create_dir_all(&own).with_context(|| format!("create {}", own.display()))?;
                let go = |args: &[&str]| -> Result<Command> {
                    let mut go = command("go")?;
                    go.args(args).current_dir(&own);
                    Ok(go)
                };
                succeed("go mod init", &mut go(&["mod", "init", "tools"])?)?;
                succeed("go get", &mut go(&["get", "-tool", &format!("{package}@{version}")])?)?;
                succeed("go build", go(&["build", "-o"])?.arg(&output).arg(&package))
            }
        }
    }
}

/// Go, in a version that the tools are written for; it fetches a newer one by itself.
pub(crate) fn need_go() -> Result<()> {
    let told = Command::new("go").arg("version").stdin(Stdio::null()).output().ok();
    let told = told.filter(|told| told.status.success()).map(|told| String::from_utf8_lossy(&told.stdout).into_owned());
    match told.as_deref().and_then(minor_version) {
        // The first that fetches a newer one by itself.
        Some(21..) => Ok(()),
        Some(minor) => {
            bail!("go is 1.{minor}: 1.21 or later is needed to build the tools that check the chart and the alerts")
        }
        None => {
            bail!("go is not installed: 1.21 or later is needed to build the tools that check the chart and the alerts")
        }
    }
}

/// 26 of `go version go1.26.1 linux/amd64`.
fn minor_version(told: &str) -> Option<u32> {
    let number = told.split_whitespace().nth(2)?.strip_prefix("go1.")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Where Go keeps the files of a module, fetched when they are not there.
pub(crate) fn module_folder(module: &str, version: &str) -> Result<PathBuf> {
    need_go()?;
    let mut go = Command::new("go");
    // Outside of any module, so that nothing else decides about the version.
    go.args(["mod", "download", "-json", &format!("{module}@{version}")]).current_dir(std::env::temp_dir());
    let answer = go.output().context("run go mod download")?;
    let told: serde_json::Value = serde_json::from_slice(&answer.stdout)
        .with_context(|| format!("go mod download {module}: {}", String::from_utf8_lossy(&answer.stderr).trim()))?;
    match told["Dir"].as_str() {
        Some(folder) => Ok(folder.into()),
        None => bail!("go mod download {module}@{version}: {}", told["Error"].as_str().unwrap_or("no folder")),
    }
}

#[cfg(test)]
mod tests {
    use super::minor_version;

    #[test]
    fn versions_of_go_are_understood() {
        let told =
            ["go version go1.26.1 linux/amd64", "go version go1.19.8 linux/amd64", "go version go1.22rc1 x", "sh"];
        assert_eq!(told.map(minor_version), [Some(26), Some(19), Some(22), None]);
    }
}
