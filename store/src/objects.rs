//! What analysts may read: the tables, and the views over them that `migrations/0005_views.sql` makes.

/// A table or view that is made for analysts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnalystObject {
    /// Its name in the database.
    pub name: &'static str,
    /// Whether it holds rows; a view reads with the rights, and under the row policies, of who asks.
    pub is_table: bool,
    /// Whether it has a column `tenant_id`, for a row policy or a filter.
    pub has_tenant: bool,
}

const fn table(name: &'static str, has_tenant: bool) -> AnalystObject {
    AnalystObject { name, is_table: true, has_tenant }
}

const fn view(name: &'static str) -> AnalystObject {
    AnalystObject { name, is_table: false, has_tenant: true }
}

/// All of them, tables first. Row policies belong on the tables; an analyst needs SELECT on all.
pub const ANALYST_OBJECTS: &[AnalystObject] = &[
    table("events", true),
    table("ledger", false),
    table("dead_letters", false),
    table("dead_letter_actions", false),
    view("events_once"),
    view("field_history"),
    view("entity_at"),
    view("actor_activity"),
    view("failures"),
    view("conflicts"),
    view("hourly"),
    view("freshness"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::MIGRATIONS;

    #[test]
    fn every_object_is_made_with_a_comment() {
        let statements: Vec<String> = MIGRATIONS.iter().flat_map(|migration| migration.statements("audit")).collect();
        for object in ANALYST_OBJECTS {
            let kind = if object.is_table { "TABLE" } else { "VIEW" };
            let head = format!("CREATE {kind} IF NOT EXISTS audit.{}\n", object.name);
            let made = statements.iter().find(|sql| sql.starts_with(&head));
            let comment = made.and_then(|sql| sql.lines().last()).unwrap_or_default();
            assert!(comment.starts_with("COMMENT '") && comment.len() > 20, "{}: {comment}", object.name);
            if !object.is_table {
                assert!(made.is_some_and(|sql| sql.contains("\nSQL SECURITY INVOKER\n")), "{}", object.name);
            }
        }
        let views = statements.iter().filter(|sql| sql.starts_with("CREATE VIEW")).count();
        assert_eq!(views, ANALYST_OBJECTS.iter().filter(|object| !object.is_table).count());
    }
}
