//! The figures with their targets: as a table, and as one JSON object.

use std::path::Path;

use anyhow::{Context, Result};
use auditstream_bench::results::median;
use auditstream_bench::table::{Table, thousands};
use serde_json::{Map, Value, json};

/// How a figure is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Whole,
    Tenths,
    Hundredths,
}

impl Unit {
    fn text(self, value: f64) -> String {
        match self {
            Self::Whole => thousands(value.round() as u64),
            Self::Tenths => format!("{value:.1}"),
            Self::Hundredths => format!("{value:.2}"),
        }
    }
}

/// What it should be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    /// Nothing; it explains another one.
    Anything,
}

/// One figure: what each run has measured. Its name ends in its unit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    name: &'static str,
    unit: Unit,
    wanted: Wanted,
    runs: Vec<f64>,
}

impl Figure {
    pub(super) fn at_least(name: &'static str, unit: Unit, target: f64, runs: Vec<f64>) -> Self {
        Self { name, unit, wanted: Wanted::AtLeast(target), runs }
    }

    pub(super) fn at_most(name: &'static str, unit: Unit, target: f64, runs: Vec<f64>) -> Self {
        Self { name, unit, wanted: Wanted::AtMost(target), runs }
    }

    pub(super) fn plain(name: &'static str, unit: Unit, runs: Vec<f64>) -> Self {
        Self { name, unit, wanted: Wanted::Anything, runs }
    }

    /// What it is called.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Its median, as text.
    pub(super) fn median_text(&self) -> String {
        self.unit.text(median(&self.runs))
    }

    /// The least and the most of the runs.
    pub(super) fn range(&self) -> String {
        let least = self.runs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{} to {}", self.unit.text(least), self.unit.text(most))
    }

    /// What it should be; `None` when it has no target.
    pub(super) fn target(&self) -> Option<String> {
        match self.wanted {
            Wanted::AtLeast(target) => Some(format!("at least {}", self.unit.text(target))),
            Wanted::AtMost(target) => Some(format!("at most {}", self.unit.text(target))),
            Wanted::Anything => None,
        }
    }

    pub(super) fn reached(&self) -> Option<bool> {
        match self.wanted {
            Wanted::AtLeast(target) => Some(median(&self.runs) >= target),
            Wanted::AtMost(target) => Some(median(&self.runs) <= target),
            Wanted::Anything => None,
        }
    }

    fn row(&self) -> Vec<String> {
        let verdict = match self.reached() {
            Some(true) => "reached",
            Some(false) => "NOT REACHED",
            None => "",
        };
        let target = self.target().unwrap_or_default();
        vec![self.name.to_owned(), self.median_text(), target, verdict.to_owned(), self.range()]
    }

    fn json(&self) -> Value {
        let (at_least, at_most) = match self.wanted {
            Wanted::AtLeast(target) => (Some(target), None),
            Wanted::AtMost(target) => (None, Some(target)),
            Wanted::Anything => (None, None),
        };
        json!({ "value": median(&self.runs), "at_least": at_least, "at_most": at_most, "reached": self.reached(), "runs": self.runs })
    }
}

/// All figures.
#[derive(Debug)]
pub(super) struct Report {
    runs: u32,
    figures: Vec<Figure>,
}

impl Report {
    pub(super) fn new(runs: u32) -> Self {
        Self { runs, figures: Vec::new() }
    }

    pub(super) fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    pub(super) fn figures(&self) -> &[Figure] {
        &self.figures
    }

    pub(super) fn table(&self) -> Table {
        Table {
            names: ["figure", "median", "what it should be", "", "runs"].map(str::to_owned).to_vec(),
            rows: self.figures.iter().map(Figure::row).collect(),
        }
    }

    fn json(&self) -> Value {
        let figures: Map<String, Value> =
            self.figures.iter().map(|figure| (figure.name.to_owned(), figure.json())).collect();
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        json!({ "bench": "producer", "runs": self.runs, "cores": cores, "allocator": "jemalloc", "figures": figures })
    }

    /// Writes one JSON object.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.json())? + "\n";
        std::fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_decides() {
        let mut report = Report::new(3);
        report.add(Figure::at_most("call_ns", Unit::Whole, 250.0, vec![240.0, 900.0, 250.0]));
        report.add(Figure::at_least("rate_per_s", Unit::Whole, 300_000.0, vec![299_000.0, 300_000.0]));
        report.add(Figure::plain("cpu_s", Unit::Hundredths, vec![1.234]));
        assert_eq!(
            report.table().rows,
            [
                ["call_ns", "250", "at most 250", "reached", "240 to 900"],
                ["rate_per_s", "299,500", "at least 300,000", "NOT REACHED", "299,000 to 300,000"],
                ["cpu_s", "1.23", "", "", "1.23 to 1.23"],
            ]
        );
        let json = report.json();
        assert_eq!(json["figures"]["call_ns"]["value"], 250.0);
        assert_eq!(json["figures"]["call_ns"]["reached"], true);
        assert_eq!(json["figures"]["rate_per_s"]["at_least"], 300_000.0);
        assert_eq!(json["figures"]["cpu_s"]["reached"], Value::Null);
    }
}
