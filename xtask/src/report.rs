//! What the fault tests report: collected from a file that they append to, shown as a table, written as an array.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Where the tests of one run append a line for each fault.
pub(crate) struct Report {
    file: PathBuf,
}

impl Report {
    /// An empty one in `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let file = folder.join(format!("faults-{}.jsonl", std::process::id()));
        fs::write(&file, "").with_context(|| format!("write {}", file.display()))?;
        Ok(Self { file })
    }

    /// What the tests find in `AUDITSTREAM_FAULTS_REPORT`.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Prints the table to stderr, and writes the array to `json`. Without a record there is nothing to show; the array is written all the same.
    pub(crate) fn finish(self, json: Option<&Path>) -> Result<()> {
        let text = fs::read_to_string(&self.file).with_context(|| format!("read {}", self.file.display()))?;
        let mut records = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<Value>, _>>()
            .with_context(|| format!("read {}", self.file.display()))?;
        records.sort_by_key(order);
        if !records.is_empty() {
            eprintln!("\n{}", table(&records));
        }
        if let Some(json) = json {
            let array = serde_json::to_string_pretty(&records).context("write the report")?;
            fs::write(json, array + "\n").with_context(|| format!("write {}", json.display()))?;
        }
        // It stays when something above failed.
        fs::remove_file(&self.file).with_context(|| format!("remove {}", self.file.display()))
    }
}

/// By the row in the list of faults, then by name; what has no row comes last.
fn order(record: &Value) -> (u32, String) {
    let fault = record["fault"].as_str().unwrap_or_default();
    let digits: String = fault.chars().take_while(char::is_ascii_digit).collect();
    (digits.parse().unwrap_or(u32::MAX), fault.to_owned())
}

fn table(records: &[Value]) -> String {
    const COLUMNS: [&str; 7] = ["fault", "runs", "events", "lost", "double", "recovered_ms", "passed"];
    let cell = |record: &Value, column: &str| match &record[column] {
        Value::String(text) => text.clone(),
        Value::Bool(passed) => if *passed { "yes" } else { "NO" }.to_owned(),
        other => other.to_string(),
    };
    let widths = COLUMNS.map(|column| {
        let cells = records.iter().map(|record| cell(record, column).chars().count());
        cells.chain([column.len()]).max().unwrap_or_default()
    });
    let line = |cells: [String; 7]| {
        let mut line = format!("{:<width$}", cells[0], width = widths[0]);
        for (cell, width) in cells.iter().zip(widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        line
    };
    let mut lines = vec![line(COLUMNS.map(str::to_owned))];
    for record in records {
        lines.push(line(COLUMNS.map(|column| cell(record, column))));
        // What only this test measures.
        if let Some(figures) = record["figures"].as_object() {
            let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
            lines.push(format!("    {}", figures.join(", ")));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_the_list_and_failures_are_loud() {
        let record = |fault: &str, passed: bool| serde_json::json!({ "fault": fault, "runs": 1, "events": 20, "lost": 0, "double": 0, "recovered_ms": 7, "passed": passed });
        let mut records = vec![record("control", true), record("10 b", true), record("9 a", false)];
        records[1]["figures"] = serde_json::json!({ "age_ms": 3, "rate": 2.5 });
        records.sort_by_key(order);
        assert_eq!(
            table(&records),
            "fault    runs  events  lost  double  recovered_ms  passed\n\
             9 a         1      20     0       0             7      NO\n\
             10 b        1      20     0       0             7     yes\n    age_ms 3, rate 2.5\n\
             control     1      20     0       0             7     yes"
        );
    }
}
