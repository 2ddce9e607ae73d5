//! Who may do what: one definition, written as SQL for a real cluster and as a users file for the local stack.
//!
//! | role | may | may not |
//! |---|---|---|
//! | `audit_ingest` | insert into the three tables; read the ledger, positions, pauses, and what the figures need | read what events and dead letters hold, change or drop anything, reach out |
//! | `audit_analyst` | read the three tables, FINAL without asking, within bounds of time, memory and rows | write, change a setting, reach out (url, file, s3, remote, executable, …) |
//! | `audit_admin` | everything in the database, and these roles | other databases |

use std::fmt::Write as _;

use crate::client::Store;
use crate::errors::CallError;
use crate::ingest::INSERT_SETTINGS;

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
        grants: &[
            "SELECT ON {database}.events",
            "SELECT ON {database}.ledger",
            "SELECT ON {database}.dead_letters",
            "SELECT ON {database}.events_once",
            "SELECT ON {database}.field_history",
            "SELECT ON {database}.entity_at",
            "SELECT ON {database}.actor_activity",
            "SELECT ON {database}.failures",
            "SELECT ON {database}.conflicts",
            "SELECT ON {database}.hourly",
            "SELECT ON {database}.freshness",
            "SELECT ON {database}.dead_letter_actions",
            "SELECT ON {database}.consumer_pauses",
            PARTS,
        ],
        local_grants: &[],
        settings: &[
            ("readonly", "1"),
            ("allow_ddl", "0"),
            // Every event once, without thinking of it; the sorting key holds the partition key, so partitions need not be compared with each other.
            ("final", "1"),
            ("do_not_merge_across_partitions_select_final", "1"),
            // Copies of an event have one content, so an index that leaves one of them out leaves out all.
            ("use_skip_indexes_if_final", "1"),
            ("use_skip_indexes_if_final_exact_mode", "0"),
            ("max_execution_time", "60"),
            ("max_memory_usage", "4000000000"),
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
pub(crate) async fn apply(store: &Store) -> Result<RolesOutcome, CallError> {
    for statement in roles_sql(store.database()) {
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

/// The roles as SQL statements, for a database whose name needs no quotes. Safe to run again.
#[must_use]
pub fn roles_sql(database: &str) -> Vec<String> {
    let mut statements = Vec::new();
    for role in ROLES {
        let name = role.name;
        statements.push(format!("CREATE ROLE IF NOT EXISTS {name}"));
        if !role.settings.is_empty() {
            let settings: Vec<_> =
                role.settings.iter().map(|(setting, value)| format!("{setting} = {value}")).collect();
            statements.push(format!("CREATE SETTINGS PROFILE OR REPLACE {name} SETTINGS {}", settings.join(", ")));
            statements.push(format!("ALTER ROLE {name} SETTINGS PROFILE '{name}'"));
        }
        // One statement that replaces all: at no moment has a running worker fewer rights than it needs.
        let grants: Vec<_> = role.grants.iter().map(|grant| grant.replace("{database}", database)).collect();
        statements.push(format!("GRANT {} TO {name} WITH REPLACE OPTION", grants.join(", ")));
    }
    statements
}

/// The roles as a users file for a server that reads its users from a file: one user a role, passwords as placeholders.
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
        let _ = write!(
            users,
            "        <{name}>\n            <password>{}</password>\n            <profile>{name}</profile>\n            <quota>default</quota>\n            \
             <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>\n            <grants>\n",
            role.password_placeholder
        );
        let grants = if role.local_grants.is_empty() { role.grants } else { role.local_grants };
        for grant in grants {
            let _ = writeln!(users, "                <query>GRANT {}</query>", grant.replace("{database}", database));
        }
        let _ = writeln!(users, "            </grants>\n        </{name}>");
    }
    format!(
        "<!-- Written from store/src/roles.rs; a test keeps it equal. -->\n<clickhouse>\n    <profiles>\n        <default/>\n{profiles}    </profiles>\n    \
         <quotas><default/></quotas>\n    <users>\n{users}    </users>\n</clickhouse>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_users_file_is_the_definition() {
        let expected = local_users_xml("audit");
        let found = include_str!("../roles/local-users.xml");
        assert_eq!(found, expected, "write the expected text to store/roles/local-users.xml");
    }

    #[test]
    fn roles_are_replaced_in_one_statement_each() {
        let sql = roles_sql("audit");
        assert_eq!(sql.iter().filter(|statement| statement.starts_with("GRANT ")).count(), ROLES.len());
        assert!(sql.iter().all(|statement| !statement.contains("REVOKE") && !statement.contains("{database}")));
    }
}
