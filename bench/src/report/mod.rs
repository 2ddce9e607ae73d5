//! The report: `bench/RESULTS.md` and `bench/plots/` from the files in `bench/results/`, by `cargo xtask bench report`.
//!
//! Pure from results to texts ([`files`]); the same results give the same bytes, so that a test can hold what is in the repository against them.

mod markdown;
mod svg;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::results::Results;

/// In this order; others behind them, by name.
const ORDER: [&str; 11] = [
    "ingest",
    "profile",
    "growth",
    "producer",
    "producer-peers",
    "freshness",
    "queries",
    "queries-postgres",
    "decode",
    "order-service",
    "order-service-postgres",
];

/// Why results can't be shown.
#[derive(Debug, PartialEq, Eq)]
struct Problem(String);

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

/// Reads every `results/*.json` below `folder`, in the order of the report. A folder that is not there holds none.
///
/// # Errors
/// A file can't be read, holds something else, or is called otherwise than what it holds.
pub fn read(folder: &Path) -> Result<Vec<Results>> {
    let mut all = Vec::new();
    for path in listed(&folder.join("results"), "json")? {
        let results = Results::read(&path)?;
        ensure!(
            path.file_stem().is_some_and(|stem| stem == results.name.as_str()),
            "{} holds the results of {}",
            path.display(),
            results.name
        );
        all.push(results);
    }
    let place = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
    all.sort_by(|a, b| (place(&a.name), &a.name).cmp(&(place(&b.name), &b.name)));
    Ok(all)
}

/// The report's files by their path below `bench/`.
///
/// # Errors
/// A row that is not as long as its table has columns, a plot with a value that its axis can't show, with a file name of other letters than `a` to
/// `z`, digits and `-`, or with another's name.
pub fn files(results: &[Results]) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::from([("RESULTS.md".to_owned(), markdown::page(results))]);
    for one in results {
        for section in &one.sections {
            for row in &section.rows {
                ensure!(
                    row.len() == section.columns.len(),
                    "{}: {}: a row of {} cells in a table of {} columns",
                    one.name,
                    section.title,
                    row.len(),
                    section.columns.len()
                );
            }
            for plot in &section.plots {
                let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                ensure!(
                    !plot.file.is_empty() && plot.file.chars().all(is_name),
                    "{}: a plot can't be called {:?}",
                    one.name,
                    plot.file
                );
                let text = svg::svg(plot).with_context(|| one.name.clone())?;
                let is_new = files.insert(format!("plots/{}.svg", plot.file), text).is_none();
                ensure!(is_new, "{}: there is another plot {}", one.name, plot.file);
            }
        }
    }
    Ok(files)
}

/// Writes the report below `folder`, removes plots that no result gives any more, and says what was written.
///
/// # Errors
/// As [`read`] and [`files`]; a file can't be written.
pub fn write(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = files(&read(folder)?)?;
    let plots = folder.join("plots");
    for old in listed(&plots, "svg")? {
        fs::remove_file(&old).with_context(|| format!("{} can't be removed", old.display()))?;
    }
    let mut written = Vec::new();
    for (name, text) in files {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("{} can't be made", parent.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("{} can't be written", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

/// Files with that extension, by name.
fn listed(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("{} can't be read", folder.display())),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("{} can't be read", folder.display()))?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::results::{Axis, Plot, Section, Series};

    const AGAIN: &str = "run `cargo xtask bench report`, and edit no figure by hand";

    #[test]
    fn the_report_is_what_the_results_give() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let wanted = files(&read(folder).unwrap()).unwrap();
        for (name, text) in &wanted {
            let found = fs::read_to_string(folder.join(name)).unwrap_or_default();
            // Not `assert_eq`: nobody reads two pages in a panic.
            let line = text.lines().zip(found.lines()).position(|(a, b)| a != b);
            let line = line.unwrap_or(text.lines().count().min(found.lines().count())) + 1;
            assert!(*text == found, "bench/{name} is not what bench/results gives, from line {line} on: {AGAIN}");
        }
        for path in listed(&folder.join("plots"), "svg").unwrap() {
            let name = format!("plots/{}", path.file_name().unwrap().to_str().unwrap());
            assert!(wanted.contains_key(&name), "no result gives bench/{name}: {AGAIN}");
        }
    }

    fn results(name: &str, plots: &[&str]) -> Results {
        let plot = |file: &&str| Plot {
            file: (*file).to_owned(),
            title: String::new(),
            x: Axis::default(),
            y: Axis::default(),
            series: vec![Series { name: String::new(), points: vec![(1.0, 1.0)] }],
        };
        let section = Section { plots: plots.iter().map(plot).collect(), ..Section::default() };
        Results { sections: vec![section], ..Results::new(name, name, "true") }
    }

    #[test]
    fn results_come_in_their_order_and_old_plots_go() {
        let folder = std::env::temp_dir().join(format!("auditstream-report-{}", std::process::id()));
        for name in ["zebra", "decode", "ape", "ingest"] {
            results(name, &[name]).write(&folder.join(format!("results/{name}.json"))).unwrap();
        }
        assert_eq!(write(&folder).unwrap().len(), 5);
        let names: Vec<String> = read(&folder).unwrap().into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["ingest", "decode", "ape", "zebra"]);
        fs::remove_file(folder.join("results/ape.json")).unwrap();
        write(&folder).unwrap();
        assert!(!folder.join("plots/ape.svg").exists() && folder.join("plots/zebra.svg").exists());
        results("decode", &[]).write(&folder.join("results/other.json")).unwrap();
        assert!(read(&folder).unwrap_err().to_string().ends_with("other.json holds the results of decode"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn results_that_can_not_be_shown_are_refused() {
        let refused = |all: &[Results]| files(all).unwrap_err().to_string();
        assert!(refused(&[results("a", &["p"]), results("b", &["p"])]).contains("another plot p"));
        assert!(refused(&[results("a", &["../p"])]).contains("can't be called"));
        let mut short = results("a", &[]);
        short.sections[0].columns = vec!["x".to_owned(), "y".to_owned()];
        short.sections[0].rows = vec![vec!["1".to_owned()]];
        assert!(refused(&[short]).contains("a row of 1 cells in a table of 2 columns"));
    }
}
