//! What a benchmark leaves behind: one JSON file in `bench/results/`, from which `cargo xtask bench report` writes `bench/RESULTS.md` and its plots.
//!
//! A benchmark decides what its tables say; the report only sets them. So a figure of the report comes from a file that a command wrote, or it is not there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// One run of one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The benchmark's name, and the file's: `ingest` for `bench/results/ingest.json`.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// The command that measures it again.
    pub command: String,
    /// The day, `2026-11-22`.
    pub taken_on: String,
    /// Where it ran.
    pub machine: Machine,
    /// Whoever took part, and in which version.
    pub versions: BTreeMap<String, String>,
    /// What else decides the figures: rows, rounds, settings of the peers.
    pub settings: BTreeMap<String, String>,
    /// What it should reach.
    pub goals: Vec<Goal>,
    /// What was measured, in the order of reading.
    pub sections: Vec<Section>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, as the kernel gives it.
    pub processor: String,
    /// Logical processors that this process may use.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
}

/// A figure with a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// What is measured, with its unit.
    pub what: String,
    /// What it should be: `at least 6`.
    pub wanted: String,
    /// What it is.
    pub got: String,
    /// Whether that is enough.
    pub reached: bool,
    /// What bounds it, when it is not; empty otherwise.
    pub bound_by: String,
}

/// A part of the report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// Paragraphs before the table: what was done, what the words in the table mean.
    pub text: Vec<String>,
    /// Names of the table's columns; none for no table.
    pub columns: Vec<String>,
    /// The table's rows, as long as `columns`.
    pub rows: Vec<Vec<String>>,
    /// Its plots.
    pub plots: Vec<Plot>,
}

/// A picture: lines through points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    /// The file in `bench/plots/`, without `.svg`.
    pub file: String,
    /// What it shows.
    pub title: String,
    /// The axis to the right.
    pub x: Axis,
    /// The axis upwards; it begins at 0 unless it is logarithmic.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
}

/// An axis of a plot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// What it measures, with the unit.
    pub label: String,
    /// Whether each step is a multiple instead of a sum; all values are above 0 then.
    pub logarithmic: bool,
}

/// One line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it stands for.
    pub name: String,
    /// Points from left to right.
    pub points: Vec<(f64, f64)>,
}

impl Results {
    /// Nothing measured yet, on this machine, today.
    #[must_use]
    pub fn new(name: &str, title: &str, command: &str) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            command: command.to_owned(),
            taken_on: jiff::Zoned::now().date().to_string(),
            machine: Machine::this(),
            versions: BTreeMap::new(),
            settings: BTreeMap::new(),
            goals: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// Writes one JSON object.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// The file can't be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no results of a benchmark", path.display()))
    }
}

impl Machine {
    /// This one, from /proc; what can't be read is `unknown` or 0.
    #[must_use]
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))
                .map(|value| value.trim().to_owned())
        };
        let unknown = || "unknown".to_owned();
        let memory = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok());
        let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_mib: memory.unwrap_or(0) / 1024,
            kernel: if kernel.is_empty() { unknown() } else { kernel },
        }
    }
}

/// The value in the middle; of an even number the mean of the two there. Not a number when there are none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = std::env::temp_dir().join(format!("auditstream-results-{}", std::process::id()));
        let mut results = Results::new("x", "X", "cargo xtask bench x");
        results.versions.insert("Kafka".to_owned(), "4.1.0".to_owned());
        results.sections.push(Section {
            columns: vec!["a".to_owned()],
            rows: vec![vec!["1".to_owned()]],
            ..Section::default()
        });
        let path = folder.join("x.json");
        results.write(&path).unwrap();
        assert_eq!(Results::read(&path).unwrap(), results);
        fs::write(&path, "{}").unwrap();
        assert!(Results::read(&path).unwrap_err().to_string().contains("holds no results"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn this_machine_has_a_name_and_memory() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory_mib > 100 && machine.kernel != "unknown", "{machine:?}");
    }

    #[test]
    fn the_middle_of_two_is_between() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[1.0, 4.0])), (2.0, 2.5));
        assert!(median(&[]).is_nan());
    }
}
