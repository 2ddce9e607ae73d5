//! The name that a person probably meant.

/// An unknown field's name for a message: cut when it is absurdly long.
pub(crate) fn shown(name: &str) -> String {
    if name.chars().count() <= 64 { name.to_owned() } else { name.chars().take(64).chain(['…']).collect() }
}

/// The known name that a person probably meant: the same letters in another style, or at most two slips away.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.len() > 64 {
        return None;
    }
    let plain =
        |s: &str| s.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect::<Vec<_>>();
    let name = plain(name);
    let distance = |k: &str| {
        let k = plain(k);
        let allowed = if k.len() < 5 { 1 } else { 2 };
        Some(slips(&name, &k)).filter(|d| *d <= allowed)
    };
    known.iter().filter_map(|k| Some((distance(k)?, *k))).min().map(|(_, k)| k)
}

/// Letters to insert, remove or replace (Levenshtein's distance).
fn slips(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_styles() {
        let known = ["entity_id", "entity_type", "ip", "id", "actor"];
        assert_eq!(nearest("entityId", &known), Some("entity_id"));
        assert_eq!(nearest("entity-typ", &known), Some("entity_type"));
        assert_eq!(nearest("acter", &known), Some("actor"));
        assert_eq!(nearest("customer", &known), None);
        assert_eq!(nearest(&"x".repeat(10_000), &known), None);
        assert_eq!(shown(&"é".repeat(100)).chars().count(), 65);
    }
}
