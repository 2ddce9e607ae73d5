//! `cargo xtask test-alerts`: whether alerts, dashboards and the scaling queries are right, by promtool and by a real Prometheus that scrapes real workers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::chart::{KEDA, schemas::Schemas};
use crate::child::{cargo, command, succeed, workspace};
use crate::go_tools::{HELM, PROMETHEUS, PROMTOOL};
use crate::test::Programs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do nothing, and say so, when promtool and Prometheus are not in the cache yet: building them takes about eight minutes.
    #[arg(long)]
    if_installed: bool,
    /// Only promtool: no servers.
    #[arg(long)]
    no_servers: bool,
}

/// A folder of this run, gone with it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is a few kilobytes in the target folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether nothing would have to be fetched or built first.
fn is_installed(cache: &Path) -> bool {
    [PROMTOOL, PROMETHEUS, HELM].iter().all(|tool| tool.is_installed(cache)) && Schemas::are_there(cache)
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let progress = crate::progress::shown();
    let cache = auditstream_stack::cache_dir()?;
    if args.if_installed && !is_installed(&cache) {
        eprintln!("left out: `cargo xtask test-alerts` builds promtool and Prometheus first");
        return Ok(());
    }
    auditstream_stack::ensure_installed(progress.as_ref())?;
    let promtool = PROMTOOL.ensure(&cache, progress.as_ref())?;
    let prometheus = PROMETHEUS.ensure(&cache, progress.as_ref())?;
    let helm = HELM.ensure(&cache, progress.as_ref())?;
    let schemas = Schemas::ensure(&cache, progress.as_ref())?;
    let chart = workspace().join("helm/auditstream");
    let scratch = Scratch(crate::test::target()?.join(format!("alerts-{}", std::process::id())));
    fs::create_dir_all(&scratch.0).with_context(|| format!("create {}", scratch.0.display()))?;

    progress.step("promtool: rules, their tests, the configuration for compose");
    let rules = chart.join("files/rules.yaml");
    succeed("promtool check rules", command(&promtool)?.args(["check", "rules"]).arg(&rules))?;
    succeed(
        "promtool test rules",
        command(&promtool)?.args(["test", "rules"]).arg(chart.join("ci/rules/rules_test.yaml")),
    )?;
    let copy = |from: PathBuf, name: &str| {
        fs::copy(&from, scratch.0.join(name)).with_context(|| format!("copy {}", from.display()))
    };
    copy(rules, "rules.yaml")?;
    copy(workspace().join("docker/prometheus.yml"), "prometheus.yml")?;
    succeed(
        "promtool check config",
        command(&promtool)?.args(["check", "config"]).arg(scratch.0.join("prometheus.yml")),
    )?;

    progress.step("promtool: the queries that scale");
    let queries = scaling_queries(&helm, &chart, &schemas)?;
    let recorded: Vec<_> =
        queries.iter().map(|(name, query)| json!({ "record": format!("scaling:{name}"), "expr": query })).collect();
    // JSON is YAML, too.
    let file = json!({ "groups": [{ "name": "scaling", "rules": recorded }] });
    let write = |name: &str, text: String| {
        let file = scratch.0.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display())).map(|()| file)
    };
    write("scaling.yaml", file.to_string())?;
    copy(chart.join("ci/rules/scaling_test.yaml"), "scaling_test.yaml")?;
    succeed(
        "promtool test rules",
        command(&promtool)?.args(["test", "rules"]).arg(scratch.0.join("scaling_test.yaml")),
    )?;
    if args.no_servers {
        return Ok(());
    }

    let asked = write("scaling.json", json!(queries).to_string())?;
    let programs = Programs::build(progress.as_ref())?;
    progress.step("every query, by a real Prometheus that scrapes a worker, a relay and a producer");
    let mut test = cargo(&["test", "--release", "--workspace", "--test", "real", "prometheus::"])?;
    programs.hand_to(&mut test);
    test.env("AUDITSTREAM_PROMETHEUS", prometheus).env("AUDITSTREAM_SCALING_QUERIES", asked);
    succeed("cargo test", &mut test)
}

/// Name and text of each query that the chart gives KEDA.
fn scaling_queries(helm: &Path, chart: &Path, schemas: &Schemas) -> Result<Vec<(String, String)>> {
    let rendered = Command::new(helm)
        .args(["template", "trail", "--namespace", "audit", "--kube-version", "1.33.0", "--api-versions", KEDA])
        .args(["--set", "components.worker.autoscaling.type=keda"])
        .args(["--set", "components.worker.autoscaling.prometheus.serverAddress=http://prometheus"])
        .arg(chart)
        .output()
        .context("run helm template")?;
    ensure!(rendered.status.success(), "helm template: {}", String::from_utf8_lossy(&rendered.stderr));
    let documents = schemas.documents(&rendered.stdout)?;
    let scaled = documents.iter().find(|document| document["kind"] == "ScaledObject").context("no ScaledObject")?;
    let triggers = scaled["spec"]["triggers"].as_array().context("no triggers")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let queries: Vec<_> = triggers
        .iter()
        .filter_map(|trigger| Some((text(&trigger["name"])?, text(&trigger["metadata"]["query"])?)))
        .collect();
    ensure!(queries.len() == 2, "expected two queries, found {}", queries.len());
    Ok(queries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::chart::schemas;

    #[test]
    fn where_anything_is_missing_it_is_left_out() {
        let cache = Scratch(std::env::temp_dir().join(format!("auditstream-alerts-{}", std::process::id())));
        let tools = [PROMTOOL, PROMETHEUS, HELM].map(|tool| tool.folder());
        for folder in tools.iter().map(String::as_str).chain([schemas::FOLDER]) {
            assert!(!is_installed(&cache.0), "without {folder}");
            let folder = cache.0.join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("complete"), "").unwrap();
        }
        assert!(is_installed(&cache.0));
    }
}
