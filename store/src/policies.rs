//! Which rows an analyst sees: those of the tenants given to them, in every table that holds rows of tenants, and no row by default.
//!
//! ClickHouse joins the policies that apply to a user by OR. For each guarded table there are three kinds:
//!
//! - `audit_nothing`: no row, for all but the service roles. It makes "no policy of one's own" mean "no row", whatever
//!   `users_without_row_policies_can_read_rows` says on the server, and for hand-made users with a right to read, too.
//! - `audit_everything`: every row, for the service roles and for [`ALL_TENANTS`].
//! - `audit_tenant_T`: the rows of tenant T, for the role of that name.
//!
//! The functions of [`KEY_READERS`] would show every tenant's sorting keys; they are guarded like tables.
//!
//! In a users file a user has one filter for each table. There nothing stands for users that have none: set `users_without_row_policies_can_read_rows` to
//! false in the server's configuration (the embedded server of the local stack knows no such setting).

use crate::client::quoted;
use crate::target::Target;

/// The role that sees every tenant's rows, for those who answer for all of them.
pub const ALL_TENANTS: &str = "audit_all_tenants";

/// The role that every analyst has.
const ANALYST: &str = "audit_analyst";

/// Whose rows a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantOf {
    /// The tenant is in this column.
    Column(&'static str),
    /// The tenant opens this column, which is a record's key, `tenant/type/id`: of what can't be decoded nothing else is known. A key that was not
    /// written so belongs to no tenant.
    Key(&'static str),
    /// The rows are of no tenant or of all of them at once, such as a batch's: for those who see all tenants.
    Nobody,
}

/// A table that analysts may ask, whose rows are not everybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// Its name.
    pub table: &'static str,
    /// Whose its rows are.
    pub tenant: TenantOf,
}

/// Every table with rows of tenants that analysts may ask. Views need none of it: they read with the rights and the policies of whoever asks.
pub const GUARDED: &[Guarded] = &[
    Guarded { table: "events", tenant: TenantOf::Column("tenant_id") },
    Guarded { table: "dead_letters", tenant: TenantOf::Key("key") },
    Guarded { table: "ledger", tenant: TenantOf::Nobody },
    // It names records by their positions: whose they are stands in `dead_letters`.
    Guarded { table: "dead_letter_actions", tenant: TenantOf::Nobody },
];

/// Functions that show a table's sorting keys, marks and projections to whoever may read the table, and heed none of its policies. Their own policies
/// are named after them, in the database of all table functions.
pub const KEY_READERS: &[&str] = &[
    "mergeTreeAnalyzeIndexes",
    "mergeTreeAnalyzeIndexesUUID",
    "mergeTreeIndex",
    "mergeTreeParts",
    "mergeTreeProjection",
    "mergeTreeTextIndex",
];

/// The database that ClickHouse says table functions are of.
pub(crate) const TABLE_FUNCTIONS: &str = "_table_function";

/// Whose rows somebody sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenants {
    /// Every tenant's.
    All,
    /// These tenants'.
    Only(Vec<String>),
}

impl TenantOf {
    /// The condition for rows of these tenants; `None` when no row is any single tenant's.
    pub(crate) fn filter(self, tenants: &[String]) -> Option<String> {
        let any = |one: &dyn Fn(&String) -> String| tenants.iter().map(one).collect::<Vec<_>>().join(" OR ");
        match self {
            Self::Column(column) => Some(any(&|tenant| format!("{column} = {}", quoted(tenant)))),
            // As producers write it: see `AuditEvent::push_key`.
            Self::Key(column) => Some(any(&|tenant| {
                let escaped = tenant.replace('%', "%25").replace('/', "%2F");
                format!("startsWith({column}, {})", quoted(&format!("{escaped}/")))
            })),
            Self::Nobody => None,
        }
    }
}

impl Tenants {
    /// The one condition on a table in a users file.
    pub(crate) fn filter(&self, guarded: &Guarded) -> String {
        match self {
            Self::All => "1".to_owned(),
            Self::Only(tenants) => {
                guarded.tenant.filter(tenants).filter(|filter| !filter.is_empty()).unwrap_or_else(|| "0".to_owned())
            }
        }
    }
}

/// The policies that every installation has. `service` are the roles, and the users, who read everything: they are not bound by policies of tenants.
pub(crate) fn base_sql(target: &Target<'_>, service: &[String]) -> Vec<String> {
    let on_cluster = target.on_cluster();
    let service = service.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", ");
    let mut statements: Vec<_> =
        [ALL_TENANTS, ANALYST].iter().map(|role| format!("CREATE ROLE IF NOT EXISTS {role}{on_cluster}")).collect();
    let mut policy = |name: &str, table: &str, condition: u8, to: &str| {
        statements.push(format!(
            "CREATE ROW POLICY OR REPLACE {name}{on_cluster} ON {table} FOR SELECT USING {condition} AS PERMISSIVE TO {to}"
        ));
    };
    // Always first who sees everything: at no moment does a worker see less.
    for table in GUARDED.iter().flat_map(|guarded| target.tables(guarded.table)) {
        policy("audit_everything", &table, 1, &format!("{service}, {ALL_TENANTS}"));
        policy("audit_nothing", &table, 0, &format!("ALL EXCEPT {service}"));
    }
    // These are the server's, and other databases' users may need them: only analysts go without.
    for function in KEY_READERS.iter().map(|function| format!("{TABLE_FUNCTIONS}.{function}")) {
        policy("audit_everything", &function, 1, &format!("ALL EXCEPT {ANALYST}"));
        policy("audit_nothing", &function, 0, ANALYST);
    }
    statements
}

/// The role of a tenant's analysts, as it is written in SQL.
pub(crate) fn tenant_role(tenant: &str) -> String {
    identifier(&format!("{TENANT_ROLE}{tenant}"))
}

/// What such a role's name begins with.
pub(crate) const TENANT_ROLE: &str = "audit_tenant_";

/// The role of a tenant and its policies. Safe to run again.
pub(crate) fn tenant_sql(target: &Target<'_>, tenant: &str) -> Vec<String> {
    let (on_cluster, role) = (target.on_cluster(), tenant_role(tenant));
    let mut statements = vec![format!("CREATE ROLE IF NOT EXISTS {role}{on_cluster}")];
    for guarded in GUARDED {
        let Some(filter) = guarded.tenant.filter(&[tenant.to_owned()]) else { continue };
        statements.extend(target.tables(guarded.table).iter().map(|table| {
            format!("CREATE ROW POLICY OR REPLACE {role}{on_cluster} ON {table} FOR SELECT USING {filter} AS PERMISSIVE TO {role}")
        }));
    }
    statements
}

/// `name` as an SQL identifier.
pub(crate) fn identifier(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_plain { name.to_owned() } else { format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::MIGRATIONS;

    #[test]
    fn no_table_of_the_migrations_is_forgotten() {
        // Analysts have no right to read these.
        const HIDDEN: &[&str] = &["legal_holds", "retention_policies", "consumer_pauses"];
        for sql in MIGRATIONS.iter().flat_map(|migration| migration.statements("x")) {
            let Some(rest) = sql.strip_prefix("CREATE TABLE IF NOT EXISTS x.") else { continue };
            let table = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
            let is_known = GUARDED.iter().any(|guarded| guarded.table == table) || HIDDEN.contains(&table);
            assert!(is_known, "whose are the rows of {table}? Say it in GUARDED");
        }
    }

    #[test]
    fn a_tenants_name_can_not_leave_its_quotes() {
        let tenants = Tenants::Only(vec!["o'x\\".to_owned(), "a/b%".to_owned()]);
        assert_eq!(tenants.filter(&GUARDED[0]), r"tenant_id = 'o\'x\\' OR tenant_id = 'a/b%'");
        assert_eq!(tenants.filter(&GUARDED[1]), r"startsWith(key, 'o\'x\\/') OR startsWith(key, 'a%2Fb%25/')");
        assert_eq!(tenants.filter(&GUARDED[2]), "0");
        assert_eq!(Tenants::Only(Vec::new()).filter(&GUARDED[0]), "0");
        assert_eq!(Tenants::All.filter(&GUARDED[0]), "1");
        assert_eq!(tenant_role("a`b\\"), r"`audit_tenant_a\`b\\`");
    }
}
