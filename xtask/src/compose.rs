//! `cargo xtask test-compose`: docker-compose.yml by compose's own parser, and that what it names is there. No engine is needed, so nothing is started.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::chart::schemas::Schemas;
use crate::child::workspace;
use crate::go_tools::COMPOSE;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do nothing, and say so, when the parser is not in the cache yet: building it takes about three minutes.
    #[arg(long)]
    if_installed: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let progress = crate::progress::shown();
    let cache = auditstream_stack::cache_dir()?;
    if args.if_installed && !(COMPOSE.is_installed(&cache) && Schemas::are_there(&cache)) {
        eprintln!("left out: `cargo xtask test-compose` builds compose's parser first");
        return Ok(());
    }
    auditstream_stack::ensure_installed(progress.as_ref())?;
    let compose = COMPOSE.ensure(&cache, progress.as_ref())?;
    let schemas = Schemas::ensure(&cache, progress.as_ref())?;
    let mut config = Command::new(compose);
    config.args(["-f", "docker-compose.yml", "config", "--format", "json"]).current_dir(workspace());
    let read = config.output().context("run docker-compose config")?;
    if !read.status.success() {
        bail!("docker-compose config: {}", String::from_utf8_lossy(&read.stderr).trim());
    }
    let project: Value = serde_json::from_slice(&read.stdout).context("read compose's JSON")?;
    let dockerfile = fs::read_to_string(workspace().join("Dockerfile")).context("read Dockerfile")?;
    let mut problems = look_at(&project, &dockerfile);
    for file in mounted(&project).iter().filter(|file| file.ends_with(".yaml") || file.ends_with(".yml")) {
        let text = fs::read(file).with_context(|| format!("read {file}"))?;
        if schemas.documents(&text).is_err() {
            problems.push(format!("{file} is no YAML"));
        }
    }
    if !problems.is_empty() {
        bail!("docker-compose.yml: {}", problems.join("; "));
    }
    let services = project["services"].as_object().map_or(0, serde_json::Map::len);
    eprintln!("{services} services: what they mount, build and wait for is there");
    Ok(())
}

/// Files and folders of this machine that services see.
fn mounted(project: &Value) -> BTreeSet<String> {
    let services = project["services"].as_object().into_iter().flatten();
    let volumes = services.flat_map(|(_, service)| service["volumes"].as_array().into_iter().flatten());
    let bound = volumes.filter(|volume| volume["type"] == "bind");
    bound.filter_map(|volume| volume["source"].as_str().map(str::to_owned)).collect()
}

fn look_at(project: &Value, dockerfile: &str) -> Vec<String> {
    let stages: BTreeSet<&str> = dockerfile
        .lines()
        .filter(|line| line.starts_with("FROM "))
        .filter_map(|line| line.split(" AS ").nth(1))
        .collect();
    let mut problems: Vec<String> = mounted(project)
        .iter()
        .filter(|file| fs::metadata(file).is_err())
        .map(|file| format!("{file} is not there"))
        .collect();
    for (name, service) in project["services"].as_object().into_iter().flatten() {
        let mut wrong = |what: String| problems.push(format!("{name}: {what}"));
        let image = service["image"].as_str().unwrap_or_default();
        if image.split_once('/').is_some_and(|(host, _)| host.contains(['.', ':'])) {
            wrong(format!("the image {image} names a registry's host"));
        }
        if !image.contains(':') || image.ends_with(":latest") {
            wrong(format!("the image {image} has no version"));
        }
        if let Some(stage) = service["build"]["target"].as_str().filter(|stage| !stages.contains(stage)) {
            wrong(format!("the Dockerfile has no stage {stage}"));
        }
        for port in service["ports"].as_array().into_iter().flatten().filter(|port| port["host_ip"] != "127.0.0.1") {
            wrong(format!("port {} is open to the network", port["published"]));
        }
        for (other, wait) in service["depends_on"].as_object().into_iter().flatten() {
            let other_service = &project["services"][other];
            if wait["condition"] == "service_healthy" && other_service["healthcheck"].is_null() {
                wrong(format!("waits until {other} is healthy, which has no check"));
            }
            if wait["condition"] == "service_completed_successfully" && !other_service["restart"].is_null() {
                wrong(format!("waits until {other} has ended, which is started again"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::look_at;

    #[test]
    fn what_is_not_there_is_found() {
        let project = serde_json::json!({ "services": {
            "a": { "image": "images.example.org/a:1", "ports": [{ "published": "80" }], "depends_on": { "b": { "condition": "service_healthy" } } },
            "b": { "image": "b:latest", "build": { "target": "other" }, "volumes": [{ "type": "bind", "source": "/nowhere/at/all" }] },
            "c": { "image": "c/c:1", "healthcheck": {}, "ports": [{ "published": "80", "host_ip": "127.0.0.1" }] },
        } });
        let problems = look_at(&project, "FROM x AS build\nFROM y AS final\n");
        assert_eq!(
            problems,
            [
                "/nowhere/at/all is not there",
                "a: the image images.example.org/a:1 names a registry's host",
                "a: port \"80\" is open to the network",
                "a: waits until b is healthy, which has no check",
                "b: the image b:latest has no version",
                "b: the Dockerfile has no stage other",
            ]
        );
    }
}
