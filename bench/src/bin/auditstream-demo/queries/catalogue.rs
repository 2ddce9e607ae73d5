//! The questions of docs/queries.md, asked of the benchmark's events, and the page's table of their times.

use anyhow::{Context as _, Result, bail};

use crate::server::Server;

/// The page.
pub(super) const PAGE: &str = include_str!("../../../../../docs/queries.md");
/// Between these lines the page has the table that the benchmark writes.
const BEGIN: &str = "<!-- times: begin";
const END: &str = "<!-- times: end -->";

/// One question of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) number: usize,
    pub(super) title: String,
    pub(super) sql: String,
}

/// All questions of the page: a heading `### 7. What …?`, and below it a block of SQL.
pub(super) fn questions() -> Result<Vec<Question>> {
    let mut questions = Vec::new();
    for section in PAGE.split("\n### ").skip(1) {
        let heading = section.lines().next().unwrap_or_default();
        let Some((number, title)) = heading.split_once(". ") else { continue };
        let number = number.parse().with_context(|| format!("a question has a number: {heading}"))?;
        let sql = section.split_once("```sql\n").and_then(|(_, rest)| rest.split_once("\n```"));
        let (sql, _) = sql.with_context(|| format!("question {number} has no SQL"))?;
        questions.push(Question { number, title: title.to_owned(), sql: sql.to_owned() });
    }
    Ok(questions)
}

/// What the page's examples are called among the benchmark's events: texts of the page with what stands for them.
pub(super) struct Names(Vec<(String, String)>);

impl Names {
    /// Chooses a tenant of middle size, and of its events an entity with some history, a person, an id and so on.
    pub(super) fn choose(server: &Server) -> Result<Self> {
        // The server's texts come without the tabs at their end, so a line may be short.
        let some = |columns: usize, sql: &str| -> Result<Vec<String>> {
            let line = server.text(sql)?;
            let found: Vec<_> = line.split('\t').map(str::to_owned).collect();
            if found.len() != columns || found.iter().any(String::is_empty) {
                bail!("no event is like those of the page: {sql}");
            }
            Ok(found)
        };
        let tenant = some(
            1,
            "SELECT tenant_id FROM (SELECT tenant_id, count() AS events FROM events GROUP BY tenant_id ORDER BY events DESC) LIMIT 3, 1",
        )?;
        let tenant = &tenant[0];
        let entity = some(
            1,
            &format!(
                "SELECT entity_id FROM (SELECT entity_id, count() AS events FROM events WHERE tenant_id = '{tenant}' AND entity_type = 'order' GROUP BY entity_id) \
             ORDER BY if(events BETWEEN 30 AND 60, 0, abs(toInt64(events) - 45)), entity_id LIMIT 1"
            ),
        )?;
        let actors = some(
            2,
            &format!(
                "SELECT ids[least(101, length(ids) - 2)], ids[least(103, length(ids))] FROM (SELECT groupArray(actor_id) AS ids FROM (SELECT actor_id FROM events \
             WHERE tenant_id = '{tenant}' AND actor_kind = 'USER' GROUP BY actor_id ORDER BY count() DESC, actor_id))"
            ),
        )?;
        let event = some(
            6,
            &format!(
                "SELECT argMin(event_id, occurred_at), argMin(request_id, occurred_at), argMinIf(correlation_id, occurred_at, correlation_id != ''), \
             argMinIf(trace_id, occurred_at, trace_id != ''), argMinIf(ip, occurred_at, ip != ''), \
             argMinIf(splitByChar(' ', JSONExtractString(details, 'note'))[1], occurred_at, position(details, 'note') > 0) FROM events \
             WHERE tenant_id = '{tenant}' AND occurred_at >= '2026-05-06' AND occurred_at < '2026-05-11'"
            ),
        )?;
        let pairs = [
            ("'acme'", tenant.as_str()),
            ("'o-42'", &entity[0]),
            ("'o-43'", &entity[0]),
            ("'u-7'", &actors[0]),
            ("'u-8'", &actors[1]),
            ("'019df237-3e80-7000-8000-000000000001'", &event[0]),
            ("'req-5'", &event[1]),
            ("'cart-9'", &event[2]),
            ("'00000000000000000000000000000003'", &event[3]),
            ("'198.51.100.66'", &event[4]),
            ("'refund'", &event[5]),
        ];
        Ok(Self::of(&pairs))
    }

    /// A text of the page, in its quotes, and what stands for it.
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(from, to)| ((*from).to_owned(), format!("'{to}'"))).collect())
    }

    /// The page's SQL for the benchmark's events.
    pub(super) fn apply(&self, sql: &str) -> String {
        self.0.iter().fold(sql.to_owned(), |sql, (from, to)| sql.replace(from, to))
    }
}

/// The page with `table` between its marks.
pub(super) fn page_with(table: &str) -> Result<String> {
    let begin = PAGE.find(BEGIN).context("docs/queries.md has a line that begins the table of times")?;
    let first_line = PAGE[begin..].find('\n').context("a line ends")? + begin + 1;
    let end = PAGE.find(END).context("docs/queries.md has a line that ends the table of times")?;
    Ok(format!("{}{}{}", &PAGE[..first_line], table, &PAGE[end..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_page_has_its_questions_and_a_place_for_their_times() {
        let questions = questions().unwrap();
        assert!(questions.len() >= 25);
        assert!(questions.iter().enumerate().all(|(index, question)| question.number == index + 1));
        let page = page_with("| a |\n").unwrap();
        assert!(page.contains("\n| a |\n<!-- times: end -->\n"));
    }
}
