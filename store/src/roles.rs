//! Who may do what: one definition, written as SQL for a real cluster and as a users file for the local stack.
//!
//! | role | may | may not |
//! |---|---|---|
//! | `audit_ingest` | insert into the three tables; read the ledger, positions, pauses, and what the figures need | read what events and dead letters hold, change or drop anything, reach out |
//! | `audit_analyst` | read the tables and views of [`ANALYST_OBJECTS`], FINAL without asking, within bounds of time, memory and rows | write, change a setting, reach out (url, file, s3, remote, executable, …), see a row that no policy gives them (`policies.rs`) |
//! | `audit_admin` | everything in the database, these roles, analysts and policies | other databases |

use std::fmt::Write as _;

use crate::client::{Store, quoted};
use crate::errors::CallError;
use crate::ingest::INSERT_SETTINGS;
use crate::objects::ANALYST_OBJECTS;
use crate::policies::{self, GUARDED, KEY_READERS, TABLE_FUNCTIONS, Tenants};
use crate::target::Target;

/// A role: its grants and its settings profile, which has the role's name.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Name of the role, of its settings profile, and of the user in the local users file.
    pub name: &'static str,
    /// Privileges as in `GRANT … TO`; `{database}` stands for the database.
    grants: &'static [&'static str],
    /// What the local stack's user has beyond them, for tests and measurements.
    local_grants: &'static [&'static str],
    settings: &'static [(&'static str, &'static str)],
    /// Where the users file has the password.
    password_placeholder: &'static str,
}

/// Sizes of the tables, for the figures.
const PARTS: &str = "SELECT(database, table, partition_id, active, rows, bytes_on_disk) ON system.parts";

/// All roles.
pub const ROLES: &[Role] = &[
    Role {
        name: "audit_admin",
        grants: &[
            "ALL ON {database}.*",
            "SELECT ON system.*",
            "CREATE ROLE ON *.*",
            "ALTER ROLE ON *.*",
            "ROLE ADMIN ON *.*",
            "CREATE SETTINGS PROFILE ON *.*",
            "ALTER SETTINGS PROFILE ON *.*",
            // Analysts: their users, and the policies that say which rows they see.
            "CREATE USER ON *.*",
            "DROP USER ON *.*",
            "CREATE ROW POLICY ON {database}.*",
            "ALTER ROW POLICY ON {database}.*",
            "CREATE ROW POLICY ON _table_function.*",
            "ALTER ROW POLICY ON _table_function.*",
            // Distributed tables, and what other servers of a cluster hold.
            "REMOTE ON *.*",
            "CLUSTER ON *.*",
        ],
        local_grants: &["ALL ON *.* WITH GRANT OPTION"],
        settings: &[],
        password_placeholder: "{{ADMIN_PASSWORD}}",
    },
    Role {
        name: "audit_ingest",
        grants: &[
            "INSERT ON {database}.events",
            "INSERT ON {database}.ledger",
            "INSERT ON {database}.dead_letters",
            "SELECT ON {database}.ledger",
            "SELECT ON {database}.consumer_pauses",
            "SELECT(event_id, content_hash, received_at, _topic, _partition, _offset) ON {database}.events",
            "SELECT(topic, partition, offset, timestamp, error_class, error_code) ON {database}.dead_letters",
            PARTS,
        ],
        local_grants: &[],
        settings: INSERT_SETTINGS,
        password_placeholder: "{{INGEST_PASSWORD}}",
    },
    Role {
        name: "audit_analyst",
        // Those of ANALYST_OBJECTS. Not the sizes of tables: they tell of all tenants at once.
        grants: &[],
        local_grants: &[],
        settings: &[
            ("readonly", "1"),
            ("allow_ddl", "0"),
            // Every event once, without thinking of it; the sorting key holds the partition key, so partitions need not be compared with each other.
            ("final", "1"),
            ("do_not_merge_across_partitions_select_final", "1"),
            // Conditions on the sorting key, which all copies of an event share, choose rows before copies are taken out; ClickHouse moves no other there.
            ("optimize_move_to_prewhere_if_final", "1"),
            // Copies of an event have one content, so an index that leaves one of them out leaves out all.
            ("use_skip_indexes_if_final", "1"),
            ("use_skip_indexes_if_final_exact_mode", "0"),
            ("max_execution_time", "60"),
            ("max_memory_usage", "4000000000"),
            ("max_memory_usage_for_user", "8000000000"),
            // Ten times a count over a year of a thousand events a second.
            ("max_rows_to_read", "300000000000"),
            ("max_bytes_to_read", "1000000000000"),
            ("max_result_rows", "1000000"),
            ("max_result_bytes", "1000000000"),
            ("max_concurrent_queries_for_user", "20"),
        ],
        password_placeholder: "{{ANALYST_PASSWORD}}",
    },
];

/// What became of the roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolesOutcome {
    /// They are there, as defined.
    Applied,
    /// This server keeps no roles made by SQL, or this user may not make them. The tables work without.
    NotPossible {
        /// Why, in a few words.
        reason: String,
    },
}

/// `ACCESS_STORAGE_FOR_INSERTION_NOT_FOUND`: users come from a file.
const NO_SQL_USERS: u32 = 514;
/// `ACCESS_DENIED`.
const ACCESS_DENIED: u32 = 497;

/// Makes the roles by SQL; running it again changes them to the definition.
pub(crate) async fn apply(store: &Store, target: &Target<'_>) -> Result<RolesOutcome, CallError> {
    // Who migrates goes on seeing everything, and so does whoever migrated before: a materialized view may read with their rights.
    let exempt: Vec<String> = store
        .fetch("SELECT DISTINCT arrayJoin(apply_to_except) FROM system.row_policies WHERE short_name = 'audit_nothing'")
        .await
        .unwrap_or_default();
    let service = service(exempt.into_iter().chain([store.inner.user.clone()]));
    for statement in roles_sql(target, &service) {
        match store.execute(&statement).await {
            Ok(()) => {}
            Err(error) if error.code == Some(NO_SQL_USERS) => {
                let reason = "this server takes its users and roles from a file".to_owned();
                return Ok(RolesOutcome::NotPossible { reason });
            }
            Err(error) if error.code == Some(ACCESS_DENIED) => {
                return Ok(RolesOutcome::NotPossible { reason: error.message });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(RolesOutcome::Applied)
}

/// Who reads everything: the roles that work for the installation, and `users` besides, each once.
#[must_use]
pub fn service(users: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut all = vec!["audit_admin".to_owned(), "audit_ingest".to_owned()];
    for user in users {
        if !all.contains(&user) {
            all.push(user);
        }
    }
    all
}

impl Role {
    /// Its privileges, `{database}` filled in; on a cluster each server's own tables too.
    fn grants(&self, target: &Target<'_>) -> Vec<String> {
        let mut all = Vec::new();
        for grant in self.grants {
            match grant.split_once(" ON {database}.") {
                Some((privilege, table)) if table != "*" => {
                    all.extend(target.tables(table).iter().map(|table| format!("{privilege} ON {table}")));
                }
                _ => all.push(grant.replace("{database}", target.database)),
            }
        }
        if self.name == "audit_analyst" {
            let tables = ANALYST_OBJECTS.iter().flat_map(|object| match object.is_table {
                true => target.tables(object.name),
                false => vec![format!("{}.{}", target.database, object.name)],
            });
            all.extend(tables.map(|table| format!("SELECT ON {table}")));
        }
        all
    }

    /// The role itself, its profile and its rights.
    fn sql(&self, target: &Target<'_>) -> Vec<String> {
        let (name, on_cluster) = (self.name, target.on_cluster());
        let mut statements = vec![format!("CREATE ROLE IF NOT EXISTS {name}{on_cluster}")];
        if !self.settings.is_empty() {
            let settings: Vec<_> =
                self.settings.iter().map(|(setting, value)| format!("{setting} = {value}")).collect();
            statements.push(format!(
                "CREATE SETTINGS PROFILE OR REPLACE {name}{on_cluster} SETTINGS {}",
                settings.join(", ")
            ));
            statements.push(format!("ALTER ROLE {name}{on_cluster} SETTINGS PROFILE {}", quoted(name)));
        }
        // One statement that replaces all: at no moment has a running worker fewer rights than it needs.
        let grants = self.grants(target).join(", ");
        statements.push(format!("GRANT{on_cluster} {grants} TO {name} WITH REPLACE OPTION"));
        statements
    }
}

/// The roles and the policies that hold for everybody, as SQL statements, for a database whose name needs no quotes. Safe to run again. `service` is who
/// reads everything: see [`service`].
#[must_use]
pub fn roles_sql(target: &Target<'_>, service: &[String]) -> Vec<String> {
    let [admin, ingest, analyst] = [0, 1, 2].map(|at| ROLES.get(at).map_or_else(Vec::new, |role| role.sql(target)));
    // The policies name the roles of the installation; and before anybody may read, they say that nobody sees anything.
    [admin, ingest, policies::base_sql(target, service), analyst].concat()
}

/// One user in a users file: `password` is the element that holds it.
pub(crate) struct FileUser<'a> {
    pub(crate) name: &'a str,
    pub(crate) password: String,
    pub(crate) profile: &'a str,
    /// The elements of addresses; empty for any.
    pub(crate) networks: &'a str,
    pub(crate) tenants: &'a Tenants,
    pub(crate) grants: Vec<String>,
}

impl FileUser<'_> {
    /// The element, indented for its place.
    pub(crate) fn xml(&self, database: &str) -> String {
        let Self { name, password, profile, networks, tenants, grants } = self;
        let filters: String = GUARDED
            .iter()
            .map(|guarded| {
                let table = guarded.table;
                format!("<{table}><filter>{}</filter></{table}>", xml(&tenants.filter(guarded)))
            })
            .collect();
        let mut databases = format!("                <{database}>{filters}</{database}>\n");
        if **tenants != Tenants::All {
            let none: String =
                KEY_READERS.iter().map(|function| format!("<{function}><filter>0</filter></{function}>")).collect();
            let _ = writeln!(databases, "                <{TABLE_FUNCTIONS}>{none}</{TABLE_FUNCTIONS}>");
        }
        let mut text = format!(
            "        <{name}>\n            {password}\n            <profile>{profile}</profile>\n            <quota>default</quota>\n            \
             <networks>{networks}</networks>\n            <databases>\n{databases}            </databases>\n            <grants>\n"
        );
        for grant in grants {
            // Writing to a String can't fail.
            let _ = writeln!(text, "                <query>GRANT {}</query>", xml(grant));
        }
        let _ = writeln!(text, "            </grants>\n        </{name}>");
        text
    }
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What an analyst in a users file may read.
pub(crate) fn analyst_grants(database: &str) -> Vec<String> {
    ROLES
        .iter()
        .find(|role| role.name == "audit_analyst")
        .map_or_else(Vec::new, |role| role.grants(&Target::server(database)))
}

/// The roles as a users file for a server that reads its users from a file: one user a role, passwords as placeholders, who see the rows of all tenants.
#[must_use]
pub fn local_users_xml(database: &str) -> String {
    let mut profiles = String::new();
    let mut users = String::new();
    for role in ROLES {
        let name = role.name;
        // Writing to a String can't fail.
        let _ = writeln!(profiles, "        <{name}>");
        for (setting, value) in role.settings {
            let _ = writeln!(profiles, "            <{setting}>{value}</{setting}>");
        }
        let _ = writeln!(profiles, "        </{name}>");
        let grants = if role.local_grants.is_empty() {
            role.grants(&Target::server(database))
        } else {
            role.local_grants.iter().map(|grant| (*grant).to_owned()).collect()
        };
        let user = FileUser {
            name,
            password: format!("<password>{}</password>", role.password_placeholder),
            profile: name,
            networks: "<ip>127.0.0.1</ip><ip>::1</ip>",
            tenants: &Tenants::All,
            grants,
        };
        users.push_str(&user.xml(database));
    }
    format!(
        "<!-- Written from store/src/roles.rs; a test keeps it equal. -->\n<clickhouse>\n    <profiles>\n        <default/>\n{profiles}    </profiles>\n    \
         <quotas><default/></quotas>\n    <users>\n{users}    </users>\n</clickhouse>\n"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]
    use super::*;

    #[test]
    fn the_checked_in_users_file_is_the_definition() {
        golden("local-users.xml", include_str!("../roles/local-users.xml"), &local_users_xml("audit"));
    }

    /// To write a file anew: `AUDITSTREAM_WRITE_GOLDEN=1 cargo test`.
    fn golden(file: &str, found: &str, expected: &str) {
        if std::env::var_os("AUDITSTREAM_WRITE_GOLDEN").is_some() {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("roles").join(file);
            std::fs::write(path, expected).expect("the file can be written");
        }
        assert_eq!(found, expected, "store/roles/{file} is not what the definition says");
    }

    #[test]
    fn the_checked_in_sql_is_the_definition() {
        let users = || service(["deployer".to_owned()]);
        for (file, found, target) in [
            ("roles.sql", include_str!("../roles/roles.sql"), Target::server("audit")),
            ("roles-cluster.sql", include_str!("../roles/roles-cluster.sql"), Target::cluster("audit", "main")),
        ] {
            let mut text = String::from("-- Written from store/src/roles.rs; a test keeps it equal.\n");
            for statement in roles_sql(&target, &users()) {
                text.push_str(&statement);
                text.push_str(";\n");
            }
            golden(file, found, &text);
        }
    }

    #[test]
    fn roles_are_replaced_in_one_statement_each() {
        let sql = roles_sql(&Target::server("audit"), &service([]));
        assert_eq!(sql.iter().filter(|statement| statement.starts_with("GRANT ")).count(), ROLES.len());
        assert!(sql.iter().all(|statement| !statement.contains("REVOKE") && !statement.contains("{database}")));
    }
}
