//! `auditstream-demo decode-results`: the figures of decoding, which an example of the schemas crate measures, for the report.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use auditstream_bench::results::{Goal, Results, Section};
use auditstream_bench::table::thousands;
use serde_json::Value;

use crate::screen::Screen;

/// Turns the figures of `cargo xtask bench decode --json` into a file for the report.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the measurement wrote.
    #[arg(long, value_name = "FILE")]
    figures: PathBuf,
    /// Write the report's form here.
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
}

/// Figures that have a target: key, words, decimals.
const FIGURES: [(&str, &str, usize); 4] = [
    ("decode_events_per_second", "decode to Arrow columns, events a second of one core", 0),
    ("mixed_to_v1", "the worst mix of schema versions, to v1 alone", 2),
    ("newer_reader_to_v1", "v1 read as v2, to v1 alone", 2),
    ("poison_batches", "one poison record, in decodes of its batch", 2),
];

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<()> {
    let shown = args.figures.display();
    let text = std::fs::read_to_string(&args.figures).with_context(|| format!("{shown} can't be read"))?;
    let figures: Value = serde_json::from_str(&text).with_context(|| format!("{shown} holds no JSON"))?;
    let results = of(&figures).with_context(|| format!("{shown} holds no figures of decoding"))?;
    results.write(&args.results)?;
    screen.say(&format!("  written to {}", args.results.display()));
    Ok(())
}

fn of(figures: &Value) -> Option<Results> {
    let mut results = Results::new("decode", "Decoding records to columns", "cargo xtask bench decode --results");
    results.versions.insert("auditstream".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    results.settings.insert("bytes of a v1 record".to_owned(), figures["event_bytes"].as_u64()?.to_string());
    for (key, what, decimals) in FIGURES {
        let figure = &figures[key];
        let text = |value: f64| match decimals {
            0 => thousands(value.round() as u64),
            _ => format!("{value:.decimals$}"),
        };
        let sign = if figure["at_least"].as_bool()? { "at least" } else { "at most" };
        results.goals.push(Goal {
            what: what.to_owned(),
            wanted: format!("{sign} {}", text(figure["target"].as_f64()?)),
            got: text(figure["value"].as_f64()?),
            reached: figure["reached"].as_bool()?,
            bound_by: String::new(),
        });
    }
    let nanos = figures["nanoseconds_per_event"].as_object()?;
    let alone = nanos.get("v1")?.as_f64()?;
    let mut rows = Vec::new();
    for (what, nanos) in nanos {
        let nanos = nanos.as_f64()?;
        rows.push(vec![
            what.clone(),
            format!("{nanos:.0}"),
            format!("{:.2}", 1e3 / nanos),
            format!("{:.2}", nanos / alone),
        ]);
    }
    results.sections.push(Section {
        title: "By what the writers' schemas are".to_owned(),
        text: vec![
            "CPU time of one thread, content hash included; medians of rounds in turns. What each version changes stands in \
             `schemas/examples/decode_figures.rs`."
                .to_owned(),
        ],
        columns: ["records", "ns an event", "M events a second", "times v1"].map(str::to_owned).to_vec(),
        rows,
        ..Section::default()
    });
    Some(results)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::of;

    #[test]
    fn figures_become_goals_and_a_table() {
        let figure = |value: f64, target: f64, at_least: bool, reached: bool| json!({"value": value, "target": target, "at_least": at_least, "reached": reached});
        let figures = json!({
            "decode_events_per_second": figure(1_612_345.6, 1.5e6, true, true),
            "mixed_to_v1": figure(1.3, 1.2, false, false),
            "newer_reader_to_v1": figure(1.0, 1.2, false, true),
            "poison_batches": figure(0.5, 1.0, false, true),
            "nanoseconds_per_event": {"v1": 500.0, "v2": 600.0},
            "event_bytes": 309,
        });
        let results = of(&figures).unwrap();
        assert_eq!(
            (results.goals[0].wanted.as_str(), results.goals[0].got.as_str()),
            ("at least 1,500,000", "1,612,346")
        );
        assert!(!results.goals[1].reached && results.goals[1].wanted == "at most 1.20");
        assert_eq!(results.sections[0].rows[1], ["v2", "600", "1.67", "1.20"]);
        assert!(of(&json!({"event_bytes": 309})).is_none());
    }
}
