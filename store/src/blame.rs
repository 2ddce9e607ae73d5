//! Which columns ClickHouse blames for a refused row.
//!
//! The texts quote the row's values, which are nobody's business but the table's. So nothing is passed on but names that the table has from its
//! owner: of a constraint, and of columns in [`EVENT_COLUMNS`], looked for only where ClickHouse writes names and not where it quotes a value.

use crate::columns::EVENT_COLUMNS;

/// The columns at fault with `, ` between them, or `None` when the text does not say.
pub(crate) fn columns(text: &str) -> Option<Box<str>> {
    let mut found: Vec<&str> = match expression(text) {
        Some(expression) => identifiers(expression).filter_map(known).collect(),
        // Added behind the original text, so the last one is ClickHouse's own even if a value holds the same words.
        None => text
            .rsplit_once("while converting column `")
            .and_then(|(_, rest)| known(rest.split_once('`')?.0))
            .into_iter()
            .collect(),
    };
    found.sort_unstable();
    found.dedup();
    (!found.is_empty()).then(|| found.join(", ").into())
}

/// The constraint's name, of `Code: 469. DB::Exception: Constraint `NAME` for table …`.
pub(crate) fn constraint(text: &str) -> Option<&str> {
    let (name, rest) = text.split_once("DB::Exception: Constraint `")?.1.split_once('`')?;
    rest.starts_with(" for table ").then_some(name)
}

/// The constraint's expression as its owner wrote it. The row's values come after it.
fn expression(text: &str) -> Option<&str> {
    constraint(text)?;
    let (_, rest) = text.split_once(" Expression: ")?;
    Some(rest.split_once(" Column values: ").map_or(rest, |(expression, _)| expression))
}

fn known(name: &str) -> Option<&'static str> {
    EVENT_COLUMNS.iter().map(|column| column.name).find(|known| *known == name)
}

/// The names in an expression; `changes.path` counts as one; what stands in quotes is a value.
fn identifiers(expression: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    outside_quotes(expression).flat_map(move |part| part.split(move |c| !is_name(c)).filter(|name| !name.is_empty()))
}

/// The parts between `'…'`, in which a backslash takes the next character with it.
fn outside_quotes(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(open) = text.find('\'') else {
            rest = None;
            return Some(text);
        };
        let value = &text[open + 1..];
        let mut escaped = false;
        let close = value.find(|c| {
            let is_end = c == '\'' && !escaped;
            escaped = c == '\\' && !escaped;
            is_end
        });
        rest = close.map(|close| &value[close + 1..]);
        Some(&text[..open])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ClickHouse 26 writes it.
    fn violated(expression: &str, values: &str) -> String {
        format!(
            "Code: 469. DB::Exception: Constraint `short` for table `audit`.`events` (5f0c) is violated at row 8. Expression: ({expression}). \
             Column values: {values}. (VIOLATED_CONSTRAINT) (version 26.7.2.1)"
        )
    }

    #[test]
    fn a_constraint_names_itself_and_its_columns() {
        let text = violated("entity_name != 'refuse me'", "entity_name = 'refuse me'");
        assert_eq!(constraint(&text), Some("short"));
        assert_eq!(columns(&text).as_deref(), Some("entity_name"));
        let text = violated("length(`changes.path`) = length(changes.old) AND ip != ''", "ip = ''");
        assert_eq!(columns(&text).as_deref(), Some("changes.old, changes.path, ip"));
    }

    #[test]
    fn a_value_is_never_taken_for_a_column() {
        let text =
            violated(r"entity_id != 'a \' ip b'", "entity_id = ' ip Expression: (service) Column values: action'");
        assert_eq!(columns(&text).as_deref(), Some("entity_id"));
        for text in [
            "Code: 6. DB::Exception: Cannot parse string 'service alice@example.com' as Int64. (CANNOT_PARSE_TEXT)",
            "Code: 6. DB::Exception: Cannot parse 'x': while converting column `alice` from type String. (CANNOT_PARSE_TEXT)",
            "Code: 6. DB::Exception: Cannot parse string 'Constraint `bob` for table Expression: (ip)'. (CANNOT_PARSE_TEXT)",
        ] {
            assert_eq!((columns(text), constraint(text)), (None, None), "{text}");
        }
    }

    #[test]
    fn a_conversion_names_its_column_behind_the_value() {
        let text = "Code: 6. DB::Exception: Cannot parse 'while converting column `ip`': while converting column `details` from type String to type \
                    Int64. (CANNOT_PARSE_TEXT)";
        assert_eq!(columns(text).as_deref(), Some("details"));
    }
}
