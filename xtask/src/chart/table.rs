//! The table of values in the chart's README, made from the comments in `values.yaml`: a line `# -- text` says what the key below it means.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const BEGIN: &str = "<!-- values: written by `cargo xtask test-chart --write-table` -->\n";
const END: &str = "<!-- end of values -->\n";

/// Compares the README's table with the values, or writes it.
pub(crate) fn check(chart: &Path, write: bool) -> Result<()> {
    let read = |name: &str| {
        let file = chart.join(name);
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    };
    let (values, readme) = (read("values.yaml")?, read("README.md")?);
    let (head, rest) = readme.split_once(BEGIN).context("README.md of the chart has no place for the values")?;
    let (found, tail) = rest.split_once(END).context("README.md of the chart has no end of the values")?;
    let expected = table(&values);
    if write {
        let file = chart.join("README.md");
        return fs::write(&file, format!("{head}{BEGIN}{expected}{END}{tail}"))
            .with_context(|| format!("write {}", file.display()));
    }
    if found != expected {
        bail!("the chart's README.md has another table than values.yaml: run `cargo xtask test-chart --write-table`");
    }
    Ok(())
}

fn table(values: &str) -> String {
    let mut out = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    // Names of the keys around this line, each with its indentation.
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut meaning: Option<String> = None;
    let mut lines = values.lines().peekable();
    while let Some(line) = lines.next() {
        let indentation = line.len() - line.trim_start().len();
        let text = line.trim_start();
        if let Some(comment) = text.strip_prefix("# -- ") {
            meaning = Some(comment.to_owned());
            continue;
        }
        let Some((name, value)) = text.split_once(':').filter(|_| !text.starts_with(['#', '-'])) else { continue };
        while path.last().is_some_and(|(outer, _)| *outer >= indentation) {
            path.pop();
        }
        path.push((indentation, name));
        let Some(meaning) = meaning.take() else { continue };
        let full = path.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(".");
        let deeper = lines.peek().is_some_and(|next| next.len() - next.trim_start().len() > indentation);
        let value = match value.trim() {
            "" if deeper => "see values.yaml".to_owned(),
            value => format!("`{value}`"),
        };
        out.push_str(&format!("| `{full}` | {value} | {} |\n", meaning.replace('|', "\\|")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn keys_have_their_paths_and_defaults() {
        let found = table(
            "# -- First.\na: 1\nb:\n  # -- Second, a | b.\n  c: \"\"\n  d: 3\n  # -- Third.\n  e:\n    f: 1\n# plain\ng: 1\n",
        );
        let rows: Vec<&str> = found.lines().skip(2).collect();
        assert_eq!(
            rows,
            ["| `a` | `1` | First. |", "| `b.c` | `\"\"` | Second, a \\| b. |", "| `b.e` | see values.yaml | Third. |"]
        );
    }
}
