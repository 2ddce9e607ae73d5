//! The Helm chart and the program know the same settings, and what the chart's alerts speak of exists.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

const EXAMPLE: &str = include_str!("../auditstream.example.toml");
const SCHEMA: &str = include_str!("../../helm/auditstream/values.schema.json");
const RULES: &str = include_str!("../../helm/auditstream/files/rules.yaml");
const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// Keys that hold a secret: a ConfigMap must not have them.
const SECRET: [&str; 7] = [
    "kafka.sasl_password",
    "kafka.ssl_key_password",
    "clickhouse.password",
    "schema.registry_password",
    "outbox.url",
    "archive.s3_secret_access_key",
    "archive.s3_session_token",
];

/// `section.key` of each key in the example, which a test of the program holds to be all there are.
fn keys() -> BTreeSet<String> {
    let mut section = "";
    let mut keys = BTreeSet::new();
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((name, _)) = line.trim_start_matches("# ").split_once(" = ")
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            keys.insert(format!("{section}.{name}"));
        }
    }
    keys
}

#[test]
fn the_chart_takes_every_key_but_secrets() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let sections = schema["properties"]["config"]["properties"].as_object().unwrap();
    let mut taken = BTreeSet::new();
    for (section, keys) in sections {
        assert_eq!(keys["additionalProperties"], false, "{section}");
        taken.extend(keys["properties"].as_object().unwrap().keys().map(|key| format!("{section}.{key}")));
    }
    assert!(taken.remove("kafka.properties"));
    let expected: BTreeSet<String> = keys().into_iter().filter(|key| !SECRET.contains(&key.as_str())).collect();
    let missing: Vec<_> = expected.difference(&taken).collect();
    let unknown: Vec<_> = taken.difference(&expected).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "not in the schema: {missing:?}; not in the program: {unknown:?}"
    );
}

#[test]
fn every_alert_leads_to_its_chapter() {
    // As Markdown's readers make anchors of headings.
    let anchors: BTreeSet<String> = OPERATIONS
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            heading
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect();
    let alerts = RULES.matches("- alert: ").count();
    let links: Vec<_> =
        RULES.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: docs/operations.md#")).collect();
    assert_eq!(links.len(), alerts, "each alert has a link");
    for link in links {
        assert!(anchors.contains(link), "docs/operations.md has no chapter {link}");
    }
}

/// The last chapter names tests by file and function.
#[test]
fn procedures_are_carried_out_by_tests_that_are_there() {
    let (_, table) = OPERATIONS.split_once("## What carries this out").expect("the page has the chapter");
    let names: Vec<&str> = table.split('`').skip(1).step_by(2).filter(|code| code.contains("::")).collect();
    assert!(names.len() > 20, "{names:?}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration-tests/tests/real");
    for name in names {
        let (file, function) = name.rsplit_once("::").unwrap();
        let file = folder.join(file.replace("::", "/")).with_extension("rs");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {}: {error}", file.display()));
        assert!(text.contains(&format!("#[test]\nfn {function}()")), "{name} is no test");
    }
}

#[test]
fn alerts_ask_for_metrics_of_programs_that_are_there() {
    let known = ["auditstream_consumer_", "auditstream_producer_", "auditstream_relay_"];
    for name in
        RULES.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|name| name.starts_with("auditstream_"))
    {
        assert!(known.iter().any(|prefix| name.starts_with(prefix)), "{name}: whose is it?");
    }
}
