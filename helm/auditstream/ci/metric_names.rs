// For the tests of the crates that export metrics: which of theirs the alerts, the dashboards and the scaling ask for that they do not have.

use std::collections::BTreeSet;

/// What asks for metrics.
const ASKING: [(&str, &str); 4] = [
    ("files/rules.yaml", include_str!("../files/rules.yaml")),
    ("dashboards/pipeline.json", include_str!("../dashboards/pipeline.json")),
    ("dashboards/producers.json", include_str!("../dashboards/producers.json")),
    ("templates/autoscaling.yaml", include_str!("../templates/autoscaling.yaml")),
];

/// Names that start with `prefix` and that `exposition`, the text that Prometheus scrapes, has no type for; each with its file. Fails when nothing asks
/// for any: then it would be looking at the wrong files.
pub(crate) fn missing(prefix: &str, exposition: &str) -> Vec<String> {
    let mut exported = BTreeSet::new();
    for line in exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let Some((name, kind)) = line.split_once(' ') else { continue };
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        exported.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    let mut asked = 0;
    let mut missing = Vec::new();
    for (file, text) in ASKING {
        for name in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|name| name.starts_with(prefix))
        {
            asked += 1;
            if !exported.contains(name) {
                missing.push(format!("{file}: {name}"));
            }
        }
    }
    assert!(asked > 0, "nothing asks for {prefix}");
    missing
}
