//! Results as one page of Markdown, as GitHub renders it.

use std::fmt::Write as _;

use crate::results::{Results, Section};

/// In front of everything.
const HEAD: &str = "<!-- Written by `cargo xtask bench report`. Edit nothing here: a test holds this page to bench/results. -->

# Results

Every figure and plot on this page comes from a file in `bench/results/`, which a benchmark wrote; none is by hand. Each part names the command that
measures it again; `cargo xtask bench report` then writes this page and `bench/plots/` anew. Where a benchmark ran, and when, stands in its part: figures
of different machines can't be compared.
";

/// The page.
pub(super) fn page(results: &[Results]) -> String {
    let mut out = HEAD.to_owned();
    if results.is_empty() {
        out.push_str("\nThere are no results yet.\n");
        return out;
    }
    goals(&mut out, results);
    for one in results {
        part(&mut out, one);
    }
    out
}

/// Every figure that has a target.
fn goals(out: &mut String, results: &[Results]) {
    let all: Vec<_> = results.iter().flat_map(|one| one.goals.iter().map(move |goal| (one, goal))).collect();
    if all.is_empty() {
        return;
    }
    let reached = all.iter().filter(|(_, goal)| goal.reached).count();
    // Writing to a String can't fail.
    let _ = writeln!(out, "\n## Goals\n\n{reached} of {} are reached.\n", all.len());
    let columns = ["benchmark", "what", "wanted", "got", "", "bound by"].map(str::to_owned);
    let rows = all.into_iter().map(|(one, goal)| {
        let verdict = if goal.reached { "reached" } else { "NOT REACHED" };
        [one.name.as_str(), &goal.what, &goal.wanted, &goal.got, verdict, &goal.bound_by].map(str::to_owned).to_vec()
    });
    table(out, &columns, &rows.collect::<Vec<_>>());
}

/// One benchmark.
fn part(out: &mut String, one: &Results) {
    let _ = writeln!(out, "\n## {}\n", text(&one.title));
    let machine = &one.machine;
    let _ = writeln!(out, "- measured by {} on {}", code(&one.command), text(&one.taken_on));
    let _ = writeln!(
        out,
        "- machine: {}, {} logical processors, {} MiB of memory, Linux {}",
        text(&machine.processor),
        machine.cores,
        machine.memory_mib,
        text(&machine.kernel)
    );
    if !one.versions.is_empty() {
        let versions = one.versions.iter().map(|(who, version)| format!("{} {}", text(who), text(version)));
        let _ = writeln!(out, "- versions: {}", versions.collect::<Vec<_>>().join(", "));
    }
    for (name, value) in &one.settings {
        let _ = writeln!(out, "- {}: {}", text(name), text(value));
    }
    for section in &one.sections {
        show(out, section);
    }
}

fn show(out: &mut String, section: &Section) {
    if !section.title.is_empty() {
        let _ = writeln!(out, "\n### {}", text(&section.title));
    }
    for paragraph in &section.text {
        let _ = writeln!(out, "\n{}", text(paragraph));
    }
    if !section.columns.is_empty() {
        out.push('\n');
        table(out, &section.columns, &section.rows);
    }
    for plot in &section.plots {
        let _ = writeln!(out, "\n![{}](plots/{}.svg)", text(&plot.title), plot.file);
    }
}

/// Columns of numbers stand to the right.
fn table(out: &mut String, columns: &[String], rows: &[Vec<String>]) {
    let line = |cells: &[String]| format!("| {} |\n", cells.iter().map(|c| cell(c)).collect::<Vec<_>>().join(" | "));
    out.push_str(&line(columns));
    let rules = (0..columns.len()).map(|column| {
        let mut cells = rows.iter().filter_map(|row| row.get(column)).filter(|cell| !cell.is_empty()).peekable();
        if cells.peek().is_some() && cells.all(|cell| is_number(cell)) { "---:" } else { "---" }
    });
    let _ = writeln!(out, "|{}|", rules.collect::<Vec<_>>().join("|"));
    for row in rows {
        out.push_str(&line(row));
    }
}

/// Whether it begins like a number: `1,234`, `0.93`, `12 ms`, `1.2 (1.1 to 1.3)`, `-`.
fn is_number(cell: &str) -> bool {
    let digits = cell.trim_start_matches(['-', '+', '~', '<', '>', ' ']);
    digits.is_empty() || digits.starts_with(|letter: char| letter.is_ascii_digit())
}

fn cell(value: &str) -> String {
    // Also inside of code: the table is parted before anything else is read.
    text(value).replace('|', "\\|")
}

/// Text that means itself, but for `code` between back-ticks.
fn text(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut parts = value.split('`').peekable();
    let mut is_code = false;
    while let Some(part) = parts.next() {
        if is_code && parts.peek().is_some() {
            let _ = write!(out, "`{}`", one_line(part));
        } else {
            if is_code {
                // It has no end.
                out.push_str("\\`");
            }
            out.push_str(&plain(&one_line(part)));
        }
        is_code = !is_code;
    }
    out
}

/// A whole text as code.
fn code(value: &str) -> String {
    format!("`{}`", one_line(value).replace('`', "'"))
}

fn one_line(value: &str) -> String {
    value.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn plain(value: &str) -> String {
    let letters: Vec<char> = value.chars().collect();
    let mut out = String::with_capacity(value.len());
    for (place, letter) in letters.iter().enumerate() {
        let is_within_word =
            |place: Option<usize>| place.and_then(|p| letters.get(p)).is_some_and(|c| c.is_alphanumeric());
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '*' | '[' | ']' | '~' => out.extend(['\\', *letter]),
            // Between letters it means itself.
            '_' if !(is_within_word(place.checked_sub(1)) && is_within_word(Some(place + 1))) => out.push_str("\\_"),
            letter => out.push(*letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::results::{Goal, Machine, Plot};

    fn results() -> Results {
        Results {
            name: "x".to_owned(),
            title: "X".to_owned(),
            command: "cargo xtask bench x --results".to_owned(),
            taken_on: "2026-11-22".to_owned(),
            machine: Machine {
                processor: "A processor".to_owned(),
                cores: 2,
                memory_mib: 1_024,
                kernel: "6.1".to_owned(),
            },
            versions: BTreeMap::from([("Kafka".to_owned(), "4.1.0".to_owned())]),
            settings: BTreeMap::from([("rows".to_owned(), "2,000,000".to_owned())]),
            goals: vec![
                Goal {
                    what: "a".to_owned(),
                    wanted: "at least 6".to_owned(),
                    got: "7".to_owned(),
                    reached: true,
                    bound_by: String::new(),
                },
                Goal {
                    what: "b".to_owned(),
                    wanted: "at most 1".to_owned(),
                    got: "2".to_owned(),
                    reached: false,
                    bound_by: "CPU".to_owned(),
                },
            ],
            sections: vec![Section {
                title: "S".to_owned(),
                text: vec!["One `paragraph_`.".to_owned()],
                columns: ["who", "events/s"].map(str::to_owned).to_vec(),
                rows: vec![["a|b", "1,000"].map(str::to_owned).to_vec()],
                plots: vec![Plot {
                    file: "x-rows".to_owned(),
                    title: "T".to_owned(),
                    x: Default::default(),
                    y: Default::default(),
                    series: Vec::new(),
                }],
            }],
        }
    }

    #[test]
    fn the_page_is_this() {
        let page = page(&[results()]);
        let rest = page.strip_prefix(HEAD);
        assert_eq!(
            rest,
            Some(
                "
## Goals

1 of 2 are reached.

| benchmark | what | wanted | got |  | bound by |
|---|---|---|---:|---|---|
| x | a | at least 6 | 7 | reached |  |
| x | b | at most 1 | 2 | NOT REACHED | CPU |

## X

- measured by `cargo xtask bench x --results` on 2026-11-22
- machine: A processor, 2 logical processors, 1024 MiB of memory, Linux 6.1
- versions: Kafka 4.1.0
- rows: 2,000,000

### S

One `paragraph_`.

| who | events/s |
|---|---:|
| a\\|b | 1,000 |

![T](plots/x-rows.svg)
"
            )
        );
        assert!(super::page(&[]).ends_with("no results yet.\n"));
    }

    #[test]
    fn text_means_itself() {
        for (given, wanted) in [
            ("a_b _c_ d", "a_b \\_c\\_ d"),
            ("2 * 3 < 7 & x", "2 \\* 3 &lt; 7 &amp; x"),
            ("`a_*b` and `", "`a_*b` and \\`"),
            ("<script>\n[x](y)", "&lt;script&gt; \\[x\\](y)"),
        ] {
            assert_eq!(text(given), wanted);
        }
        assert_eq!(cell("`a|b`"), "`a\\|b`");
    }

    #[test]
    fn numbers_are_told_from_words() {
        for (cell, is) in [("1,234", true), ("-", true), ("0.9 (0.8 to 1)", true), ("Kafka 4", false), ("no", false)] {
            assert_eq!(is_number(cell), is, "{cell}");
        }
    }
}
