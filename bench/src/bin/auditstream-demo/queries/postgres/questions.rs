//! The questions, each in both dialects: those of docs/queries.md that have a target, and two over everything.

use anyhow::{Context as _, Result, ensure};

use super::super::catalogue::{self, Names};
use super::super::report::wanted;

/// A question of docs/queries.md as somebody would ask PostgreSQL, with the page's own names in it.
struct Translated {
    title: &'static str,
    sql: &'static str,
    /// The whole order is said: no two rows of an answer may change places.
    is_ordered: bool,
}

const TRANSLATED: &[Translated] = &[
    Translated {
        title: "What happened to one entity?",
        sql: "SELECT occurred_at, action, outcome, actor_name, changes FROM audit_events \
              WHERE tenant_id = 'acme' AND entity_type = 'order' AND entity_id = 'o-42' ORDER BY occurred_at, request_id",
        is_ordered: true,
    },
    Translated {
        title: "One event by its id",
        sql: "SELECT tenant_id, action, entity_type, entity_id, occurred_at FROM audit_events WHERE event_id = '019df237-3e80-7000-8000-000000000001'",
        is_ordered: true,
    },
    Translated {
        title: "What did somebody do in a month, the newest first?",
        sql: "SELECT occurred_at, action, entity_type, entity_id, outcome FROM audit_events \
              WHERE tenant_id = 'acme' AND actor_id = 'u-7' AND occurred_at >= '2026-05-01' AND occurred_at < '2026-06-01' \
              ORDER BY occurred_at DESC, request_id LIMIT 100",
        is_ordered: true,
    },
    Translated {
        title: "What fails, by action, on one day?",
        // A reason belongs to an action and an outcome, so whichever it takes is the same.
        sql: "SELECT action, outcome, count(*) AS events, min(error_message) AS reason FROM audit_events \
              WHERE tenant_id = 'acme' AND outcome <> 'SUCCESS' AND occurred_at >= '2026-05-04' AND occurred_at < '2026-05-05' \
              GROUP BY action, outcome ORDER BY events DESC, action",
        is_ordered: false,
    },
    Translated {
        title: "How many events were there, hour by hour?",
        sql: "SELECT date_trunc('hour', occurred_at) AS hour, count(*) AS events FROM audit_events GROUP BY hour ORDER BY events DESC, hour LIMIT 3",
        is_ordered: true,
    },
    Translated {
        title: "What belongs together across services?",
        sql: "SELECT occurred_at, service, action, entity_id FROM audit_events WHERE tenant_id = 'acme' AND correlation_id = 'cart-9' ORDER BY occurred_at",
        is_ordered: true,
    },
    Translated {
        title: "Where does a word stand in the details?",
        sql: "SELECT occurred_at, tenant_id, action, entity_id, details->>'note' AS note FROM audit_events \
              WHERE to_tsvector('simple', details) @@ to_tsquery('simple', 'refund') AND occurred_at >= '2026-05-04' AND occurred_at < '2026-05-11' \
              ORDER BY occurred_at LIMIT 100",
        is_ordered: true,
    },
];

/// A question for both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) title: String,
    pub(super) clickhouse: String,
    pub(super) postgres: String,
    pub(super) is_ordered: bool,
}

/// All of them, with `names` in them.
pub(super) fn all(names: &Names) -> Result<Vec<Question>> {
    let mut questions = Vec::new();
    for question in catalogue::questions()?.into_iter().filter(|question| wanted(&question.title).is_some()) {
        let translated = TRANSLATED.iter().find(|translated| translated.title == question.title);
        let translated = translated.with_context(|| format!("not translated for PostgreSQL: {}", question.title))?;
        questions.push(Question {
            clickhouse: names.apply(&question.sql),
            postgres: names.apply(translated.sql),
            title: question.title,
            is_ordered: translated.is_ordered,
        });
    }
    ensure!(questions.len() == TRANSLATED.len(), "docs/queries.md lacks a question that has a target");
    let everything = |title: &str, columns: [&str; 2], rest: &str| Question {
        title: title.to_owned(),
        clickhouse: format!("SELECT {} FROM audit.events {rest}", columns[0]),
        postgres: format!("SELECT {} FROM audit_events {rest}", columns[1]),
        is_ordered: true,
    };
    questions.push(everything(
        "How many events of each action, and how many failed? (over everything)",
        [
            "action, count() AS events, countIf(outcome != 'SUCCESS') AS unsuccessful",
            "action, count(*) AS events, count(*) FILTER (WHERE outcome <> 'SUCCESS') AS unsuccessful",
        ],
        "GROUP BY action ORDER BY events DESC, action",
    ));
    questions.push(everything("How many events are there?", ["count()", "count(*)"], ""));
    Ok(questions)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_are_asked_for_the_same_names() {
        let names = Names::of(&[("'acme'", "tenant-03"), ("'o-42'", "o-7"), ("'refund'", "bakelo")]);
        let questions = all(&names).unwrap();
        assert_eq!(questions.len(), TRANSLATED.len() + 2);
        for question in &questions {
            assert!(question.clickhouse.contains("audit."), "{question:?}");
            assert!(question.postgres.contains("audit_events"), "{question:?}");
            for name in ["'tenant-03'", "'o-7'", "'bakelo'", "2026-05-04", "2026-05-11", "2026-06-01"] {
                assert_eq!(
                    question.clickhouse.contains(name),
                    question.postgres.contains(name),
                    "{name}: {question:?}"
                );
            }
            assert!(!question.postgres.contains("'acme'") && !question.postgres.contains("refund"), "{question:?}");
        }
    }
}
