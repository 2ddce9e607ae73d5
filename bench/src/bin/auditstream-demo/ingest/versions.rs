//! Who took part, in which version, as they say it themselves.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::Result;

use super::Bench;

/// By name. What doesn't say its version is left out.
pub(super) fn versions(bench: &Bench<'_>) -> Result<BTreeMap<String, String>> {
    let state = bench.target.state();
    let mut versions = BTreeMap::new();
    let mut add = |name: &str, version: Option<String>| {
        if let Some(version) = version {
            versions.insert(name.to_owned(), version);
        }
    };
    add("ClickHouse", Some(bench.server.text("SELECT version()")?));
    add("Apache Kafka", in_command_line(state.kafka_pid, "kafka-clients-", ".jar"));
    add("Apicurio Registry", in_command_line(state.registry_pid, "/apicurio-", "/"));
    add("librdkafka", Some(rdkafka::util::get_rdkafka_version().1));
    let mut own = auditstream_stack::bound(&bench.program)?;
    let output = own.arg("--version").stdin(Stdio::null()).output()?;
    add("auditstream", String::from_utf8_lossy(&output.stdout).split_whitespace().last().map(str::to_owned));
    Ok(versions)
}

/// What stands between two texts in a process's command line: servers in Java name their jars there.
fn in_command_line(pid: Option<u32>, before: &str, behind: &str) -> Option<String> {
    let line = std::fs::read(format!("/proc/{}/cmdline", pid?)).ok()?;
    between(&String::from_utf8_lossy(&line), before, behind).map(str::to_owned)
}

fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    let rest = text.split_once(before)?.1;
    Some(rest.split_once(behind)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jar_names_its_version() {
        let line =
            "java\0-cp\0/c/libs/jackson-core-2.19.0.jar:/c/libs/kafka-clients-4.1.0.jar:/c/libs/x.jar\0kafka.Kafka";
        assert_eq!(between(line, "kafka-clients-", ".jar"), Some("4.1.0"));
        assert_eq!(between(line, "/apicurio-", "/"), None);
    }
}
