//! Rows of text in columns, never wider than the terminal.

use std::fmt::Write as _;

/// Widest line of a rendered table, in characters.
pub const WIDTH: usize = 100;

/// Column names and rows of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The columns.
    pub names: Vec<String>,
    /// As many texts a row as there are names.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Lines of at most [`WIDTH`] characters, `indent` spaces in front of each. The widest columns give way and end in `…`; columns of numbers stand
    /// to the right and keep their width.
    #[must_use]
    pub fn render(&self, indent: usize) -> String {
        let cells: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
        let columns = self.names.len();
        let numeric: Vec<bool> = (0..columns)
            .map(|column| {
                !cells.is_empty()
                    && cells.iter().all(|row| row.get(column).is_some_and(|cell| cell.parse::<f64>().is_ok()))
            })
            .collect();
        let mut widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
                cells.chain([self.names[column].chars().count()]).max().unwrap_or(0)
            })
            .collect();
        let available = WIDTH.saturating_sub(indent + 2 * columns.saturating_sub(1));
        while widths.iter().sum::<usize>() > available {
            let widest = (0..columns).filter(|column| !numeric[*column]).max_by_key(|column| widths[*column]);
            match widest {
                Some(column) if widths[column] > 4 => widths[column] -= 1,
                _ => break,
            }
        }
        let mut text = String::new();
        let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        for row in [&self.names, &rule].into_iter().chain(&cells) {
            let mut line = " ".repeat(indent);
            for (column, cell) in row.iter().enumerate().take(columns) {
                let cell = fit(cell, widths[column]);
                let space = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                let gap = if column > 0 { "  " } else { "" };
                // Writing to a String can't fail.
                let _ = if numeric[column] {
                    write!(line, "{gap}{space}{cell}")
                } else {
                    write!(line, "{gap}{cell}{space}")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        if cells.is_empty() {
            let _ = writeln!(text, "{}(no rows)", " ".repeat(indent));
        }
        text
    }
}

/// Control characters would move the cursor or colour the screen: events hold what strangers wrote.
fn plain(cell: &str) -> String {
    cell.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') { '·' } else { c })
        .collect()
}

fn fit(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&str], rows: &[&[&str]]) -> Table {
        let row = |row: &[&str]| row.iter().map(|cell| (*cell).to_owned()).collect();
        Table { names: row(names), rows: rows.iter().map(|r| row(r)).collect() }
    }

    #[test]
    fn numbers_stand_to_the_right() {
        let text = table(&["action", "n"], &[&["order.update", "7"], &["x", "1234"]]).render(2);
        assert_eq!(text, "  action           n\n  ────────────  ────\n  order.update     7\n  x             1234\n");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let long = "ä".repeat(300);
        let text = table(&["a", "b", "n"], &[&[&long, &long, "1000000"], &["s", "t", "2"]]).render(4);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains('…') && text.contains("1000000"));
    }

    #[test]
    fn strangers_can_not_colour_the_screen() {
        let text = table(&["a"], &[&["x\u{1b}[31m\n\u{202e}y"]]).render(0);
        assert!(text.contains("x·[31m··y"), "{text}");
    }

    #[test]
    fn an_empty_answer_says_so() {
        assert!(table(&["a"], &[]).render(0).contains("(no rows)"));
    }

    #[test]
    fn thousands_are_parted() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }
}
