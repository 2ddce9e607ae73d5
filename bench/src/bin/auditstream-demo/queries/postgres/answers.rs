//! Answers of two servers in one form, so that they can be compared.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{Column as _, Row as _, TypeInfo as _, ValueRef as _};

/// One value of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// A text, a number, a time; what is absent is the empty text.
    Text(String),
    /// A list of changes: path, old value, new value.
    Changes(Vec<(String, Option<Value>, Option<Value>)>),
}

/// An answer.
pub(super) type Rows = Vec<Vec<Cell>>;

/// Lines in ClickHouse's format `JSONCompactEachRow`.
pub(super) fn of_clickhouse(text: &str) -> Result<Rows> {
    text.lines().map(|line| clickhouse_row(line).with_context(|| format!("no row of values: {line}"))).collect()
}

fn clickhouse_row(line: &str) -> Result<Vec<Cell>> {
    let mut row = Vec::new();
    // Paths, old and new values stand side by side.
    let mut lists = Vec::new();
    for value in serde_json::from_str::<Vec<Value>>(line)? {
        match value {
            Value::String(text) => row.push(Cell::Text(moment(&text))),
            Value::Null => row.push(Cell::Text(String::new())),
            Value::Array(list) => lists.push(list),
            number => row.push(Cell::Text(number.to_string())),
        }
    }
    match <[Vec<Value>; 3]>::try_from(lists) {
        Ok([paths, old, new]) => {
            let changes = paths.iter().zip(old.iter().zip(&new)).map(|(path, (old, new))| {
                let path = path.as_str().context("a path is a text")?;
                Ok((path.to_owned(), json(old)?, json(new)?))
            });
            row.push(Cell::Changes(changes.collect::<Result<_>>()?));
        }
        Err(lists) if lists.is_empty() => {}
        Err(lists) => bail!("{} lists are no changes", lists.len()),
    }
    Ok(row)
}

/// A value of a change: JSON as text, empty when there is none.
fn json(text: &Value) -> Result<Option<Value>> {
    match text.as_str().context("a value is a text")? {
        "" => Ok(None),
        text => Ok(Some(serde_json::from_str(text)?)),
    }
}

/// Rows of the simple protocol, which are texts.
pub(super) fn of_postgres(rows: &[PgRow]) -> Result<Rows> {
    let row = |row: &PgRow| {
        let cells = row.columns().iter().map(|column| {
            let value = row.try_get_raw(column.ordinal())?;
            let text = if value.is_null() {
                None
            } else {
                Some(value.as_str().map_err(|error| anyhow::anyhow!("{}: {error}", column.name()))?)
            };
            if column.type_info().name() == "JSONB" {
                changes(text)
            } else {
                Ok(Cell::Text(moment(text.unwrap_or(""))))
            }
        });
        cells.collect::<Result<Vec<_>>>()
    };
    rows.iter().map(row).collect()
}

fn changes(text: Option<&str>) -> Result<Cell> {
    let Some(text) = text else { return Ok(Cell::Changes(Vec::new())) };
    let list: Vec<serde_json::Map<String, Value>> =
        serde_json::from_str(text).context("changes are a list of objects")?;
    let changes = list.into_iter().map(|mut change| match change.remove("path") {
        Some(Value::String(path)) => Ok((path, change.remove("old"), change.remove("new"))),
        _ => bail!("a change has a path"),
    });
    Ok(Cell::Changes(changes.collect::<Result<_>>()?))
}

/// A time of day in UTC without zone and without zeros at the end of its fraction; other texts as they are.
fn moment(text: &str) -> String {
    const FORM: &[u8] = b"0000-00-00 00:00:00";
    let is_moment = text.len() >= FORM.len()
        && text.bytes().zip(FORM).all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == *form });
    if !is_moment {
        return text.to_owned();
    }
    let (second, rest) = text.split_at(FORM.len());
    let fraction = rest.strip_suffix("+00").unwrap_or(rest);
    match fraction.strip_prefix('.') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let digits = digits.trim_end_matches('0');
            if digits.is_empty() { second.to_owned() } else { format!("{second}.{digits}") }
        }
        None if fraction.is_empty() => second.to_owned(),
        _ => text.to_owned(),
    }
}

/// What differs, or nothing when the answers are the same. Where the question leaves the order open, it does not count.
pub(super) fn difference(clickhouse: &Rows, postgres: &Rows, is_ordered: bool) -> Option<String> {
    if clickhouse.len() != postgres.len() {
        return Some(format!("ClickHouse answers {} rows, PostgreSQL {}", clickhouse.len(), postgres.len()));
    }
    let sorted = |rows: &Rows| {
        let mut rows: Vec<_> = rows.iter().map(|row| format!("{row:?}")).collect();
        if !is_ordered {
            rows.sort();
        }
        rows
    };
    let (clickhouse, postgres) = (sorted(clickhouse), sorted(postgres));
    let place = clickhouse.iter().zip(&postgres).position(|(one, other)| one != other)?;
    Some(format!("row {}: ClickHouse {}, PostgreSQL {}", place + 1, clickhouse[place], postgres[place]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn text(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }

    #[test]
    fn times_have_one_form() {
        for (written, form) in [
            ("2026-05-04 09:00:00.120000", "2026-05-04 09:00:00.12"),
            ("2026-05-04 09:00:00.12+00", "2026-05-04 09:00:00.12"),
            ("2026-05-04 09:00:00.000000", "2026-05-04 09:00:00"),
            ("2026-05-04 09:00:00+00", "2026-05-04 09:00:00"),
            ("2026-05-04 09:00:00", "2026-05-04 09:00:00"),
            // Another zone is another time, and not every text with digits is one.
            ("2026-05-04 09:00:00+02", "2026-05-04 09:00:00+02"),
            ("2026-05-04 09:00:00.1x", "2026-05-04 09:00:00.1x"),
            ("2026-05-04", "2026-05-04"),
            ("ä026-05-04 09:00:00", "ä026-05-04 09:00:00"),
            ("", ""),
        ] {
            assert_eq!(moment(written), form);
        }
    }

    #[test]
    fn three_lists_are_the_changes_of_an_event() {
        let rows = of_clickhouse(
            "[\"2026-05-04 09:00:00.000000\",12,null,[\"/a\",\"/b\"],[\"\",\"1.50\"],[\"\\\"x\\\"\",\"\"]]\n[\"y\",[],[],[]]",
        );
        let changes =
            Cell::Changes(vec![("/a".to_owned(), None, Some(json!("x"))), ("/b".to_owned(), Some(json!(1.5)), None)]);
        let expected = vec![
            vec![text("2026-05-04 09:00:00"), text("12"), text(""), changes.clone()],
            vec![text("y"), Cell::Changes(vec![])],
        ];
        assert_eq!(rows.unwrap(), expected);
        assert_eq!(
            super::changes(Some(r#"[{"new": "x", "path": "/a"}, {"old": 1.50, "path": "/b"}]"#)).unwrap(),
            changes
        );
        assert_eq!(super::changes(None).unwrap(), Cell::Changes(vec![]));
        assert!(of_clickhouse("[[1]]").is_err() && of_clickhouse("Code: 241.").is_err());
        assert!(super::changes(Some("[{}]")).is_err());
    }

    #[test]
    fn a_null_that_is_told_is_not_a_value_that_is_missing() {
        let told = super::changes(Some(r#"[{"path": "/a", "new": null}]"#)).unwrap();
        assert_ne!(told, super::changes(Some(r#"[{"path": "/a"}]"#)).unwrap());
        assert_eq!(of_clickhouse(r#"[["/a"],[""],["null"]]"#).unwrap(), vec![vec![told]]);
    }

    #[test]
    fn every_difference_is_told() {
        let rows = |cells: &[&str]| cells.iter().map(|cell| vec![text(cell)]).collect::<Rows>();
        assert_eq!(difference(&rows(&["a", "b"]), &rows(&["a", "b"]), true), None);
        assert_eq!(difference(&rows(&["b", "a"]), &rows(&["a", "b"]), false), None);
        assert!(difference(&rows(&["b", "a"]), &rows(&["a", "b"]), true).unwrap().starts_with("row 1: "));
        assert!(difference(&rows(&["a"]), &rows(&["a", "b"]), false).unwrap().contains("1 rows, PostgreSQL 2"));
        assert!(difference(&rows(&["a", "a"]), &rows(&["a", "b"]), false).unwrap().starts_with("row 2: "));
    }
}
