//! One person's account for asking: by SQL where the server keeps users made by SQL, as an element of a users file where it does not.
//!
//! Promises: the password itself is in no statement and in no file, only its SHA-256, salted where ClickHouse can take a salt; an account sees the rows
//! of the tenants named and no others, and nothing when something failed half-way.

use clickhouse::Row;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::client::{Store, quoted};
use crate::config::Secret;
use crate::errors::CallError;
use crate::policies::{ALL_TENANTS, TENANT_ROLE, Tenants, identifier, tenant_role, tenant_sql};
use crate::roles::{FileUser, ROLES, analyst_grants};
use crate::target::Target;

/// Shorter passwords are refused, in characters.
const SHORTEST_PASSWORD: usize = 12;
/// More tenants than this in one account are refused: such a person sees all of them.
const MOST_TENANTS: usize = 100;

/// An account to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analyst {
    name: String,
    tenants: Tenants,
}

/// An account that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analysts {
    /// Its name.
    pub name: String,
    /// Whose rows it sees; of no tenant when that list is empty.
    pub tenants: Tenants,
}

/// What a password leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordHash {
    hash: String,
    salt: Option<String>,
}

/// Why there is no account.
#[derive(Debug, thiserror::Error)]
pub enum AnalystError {
    /// The name can't be a user's.
    #[error(
        "the name {0:?} can't be an analyst's: a letter, then at most 63 letters, digits, `_` or `-`, and no name of a role"
    )]
    Name(String),
    /// A tenant's name can't be right.
    #[error("the tenant {0:?} can't be one: it must be 1 to 200 characters, none of them a control character")]
    Tenant(String),
    /// No tenant, or too many.
    #[error("{0} tenants: name 1 to {MOST_TENANTS} of them, or give all")]
    Tenants(usize),
    /// The password is too short, or holds what can't be typed.
    #[error(
        "the password must have at least {SHORTEST_PASSWORD} characters, all printable ASCII: it travels in an HTTP header"
    )]
    Password,
    /// There is such a user.
    #[error("there is a user {0} already; `--existing` gives it further tenants and leaves its password")]
    Exists(String),
    /// There is no such user, or it was not made as an analyst.
    #[error("{0} is no analyst that was made by SQL; nothing was done")]
    NoAnalyst(String),
    /// Users come from a file.
    #[error("this server takes its users from a file: see `--users-file`")]
    FileUsers,
    /// ClickHouse refused or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl PasswordHash {
    /// For SQL: SHA-256 over the password and the salt behind it.
    ///
    /// # Errors
    /// The password is too short, or holds what no HTTP header can carry.
    pub fn salted(password: &Secret, salt: [u8; 16]) -> Result<Self, AnalystError> {
        let salt = hex(&salt);
        let hash = hashed(password, &salt)?;
        Ok(Self { hash, salt: Some(salt) })
    }

    /// For a users file, which has no place for a salt.
    ///
    /// # Errors
    /// As [`Self::salted`].
    pub fn plain(password: &Secret) -> Result<Self, AnalystError> {
        Ok(Self { hash: hashed(password, "")?, salt: None })
    }
}

fn hashed(password: &Secret, salt: &str) -> Result<String, AnalystError> {
    let password = password.expose();
    if password.len() < SHORTEST_PASSWORD || !password.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(AnalystError::Password);
    }
    Ok(hex(&Sha256::new().chain_update(password).chain_update(salt).finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Analyst {
    /// An account for these tenants.
    ///
    /// # Errors
    /// The name, a tenant's name, or their number can't be right.
    pub fn new(name: &str, tenants: Tenants) -> Result<Self, AnalystError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let is_name = name.len() <= 64
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name.bytes().all(legal)
            && name != "default"
            && name != ALL_TENANTS
            && !name.starts_with(TENANT_ROLE)
            && ROLES.iter().all(|role| role.name != name);
        if !is_name {
            return Err(AnalystError::Name(name.to_owned()));
        }
        if let Tenants::Only(tenants) = &tenants {
            if tenants.is_empty() || tenants.len() > MOST_TENANTS {
                return Err(AnalystError::Tenants(tenants.len()));
            }
            let is_wrong = |tenant: &&String| {
                tenant.is_empty() || tenant.chars().count() > 200 || tenant.chars().any(char::is_control)
            };
            if let Some(wrong) = tenants.iter().find(is_wrong) {
                return Err(AnalystError::Tenant(wrong.clone()));
            }
        }
        Ok(Self { name: name.to_owned(), tenants })
    }

    /// The statements that make the account: first what it may see, then the account. `None` for the password: it is there already.
    #[must_use]
    pub fn sql(&self, target: &Target<'_>, password: Option<&PasswordHash>) -> Vec<String> {
        let (name, on_cluster) = (identifier(&self.name), target.on_cluster());
        let (mut statements, roles) = match &self.tenants {
            Tenants::All => (Vec::new(), vec![ALL_TENANTS.to_owned()]),
            Tenants::Only(tenants) => (
                tenants.iter().flat_map(|tenant| tenant_sql(target, tenant)).collect(),
                tenants.iter().map(|tenant| tenant_role(tenant)).collect(),
            ),
        };
        if let Some(PasswordHash { hash, salt }) = password {
            let salt = salt.as_ref().map(|salt| format!(" SALT {}", quoted(salt))).unwrap_or_default();
            statements
                .push(format!("CREATE USER {name}{on_cluster} IDENTIFIED WITH sha256_hash BY {}{salt}", quoted(hash)));
        }
        statements.push(format!("GRANT{on_cluster} audit_analyst, {} TO {name}", roles.join(", ")));
        statements
    }

    /// A file for the folder `users.d` beside the server's users file, which must have the profile `audit_analyst`.
    #[must_use]
    pub fn users_file(&self, database: &str, password: &PasswordHash) -> String {
        let user = FileUser {
            name: &self.name,
            password: format!("<password_sha256_hex>{}</password_sha256_hex>", password.hash),
            profile: "audit_analyst",
            networks: "<ip>::/0</ip>",
            tenants: &self.tenants,
            grants: analyst_grants(database),
        };
        format!("<clickhouse>\n    <users>\n{}    </users>\n</clickhouse>\n", user.xml(database))
    }
}

#[derive(Row, Deserialize)]
struct Granted {
    name: String,
    roles: Vec<String>,
}

/// `ACCESS_STORAGE_FOR_INSERTION_NOT_FOUND`, `ACCESS_ENTITY_ALREADY_EXISTS`, `UNKNOWN_USER`.
const NO_SQL_USERS: Option<u32> = Some(514);
const EXISTS: Option<u32> = Some(493);

impl Store {
    /// Analysts that were made by SQL, by name.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn analysts(&self) -> Result<Vec<Analysts>, CallError> {
        let granted: Vec<Granted> = self
            .fetch(
                "SELECT assumeNotNull(user_name) AS name, groupArray(granted_role_name) AS roles FROM system.role_grants \
                 WHERE user_name IN (SELECT user_name FROM system.role_grants WHERE granted_role_name = 'audit_analyst') \
                 GROUP BY name ORDER BY name",
            )
            .await?;
        Ok(granted.into_iter().map(|Granted { name, roles }| Analysts { name, tenants: tenants_of(&roles) }).collect())
    }

    /// Makes an account, or gives an existing one further tenants when there is no password.
    ///
    /// # Errors
    /// See [`AnalystError`]; what was done by then gives nobody anything.
    pub async fn add_analyst(
        &self,
        analyst: &Analyst,
        target: &Target<'_>,
        password: Option<&PasswordHash>,
    ) -> Result<(), AnalystError> {
        if password.is_none() && !self.analysts().await?.iter().any(|there| there.name == analyst.name) {
            return Err(AnalystError::NoAnalyst(analyst.name.clone()));
        }
        for statement in analyst.sql(target, password) {
            self.execute(&statement).await.map_err(|error| named(error, &analyst.name))?;
        }
        Ok(())
    }

    /// Removes an analyst's account. The roles and policies of its tenants stay for others.
    ///
    /// # Errors
    /// See [`AnalystError`]; a user that is no analyst is left alone.
    pub async fn remove_analyst(&self, name: &str, target: &Target<'_>) -> Result<(), AnalystError> {
        if !self.analysts().await?.iter().any(|there| there.name == name) {
            return Err(AnalystError::NoAnalyst(name.to_owned()));
        }
        let sql = format!("DROP USER {}{}", identifier(name), target.on_cluster());
        self.execute(&sql).await.map_err(|error| named(error, name))
    }
}

fn named(error: CallError, name: &str) -> AnalystError {
    match error.code {
        NO_SQL_USERS => AnalystError::FileUsers,
        EXISTS => AnalystError::Exists(name.to_owned()),
        _ => AnalystError::Call(error),
    }
}

fn tenants_of(roles: &[String]) -> Tenants {
    if roles.iter().any(|role| role == ALL_TENANTS) {
        return Tenants::All;
    }
    let mut tenants: Vec<_> =
        roles.iter().filter_map(|role| Some(role.strip_prefix(TENANT_ROLE)?.to_owned())).collect();
    tenants.sort();
    Tenants::Only(tenants)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn only(tenants: &[&str]) -> Tenants {
        Tenants::Only(tenants.iter().map(|tenant| (*tenant).to_owned()).collect())
    }

    #[test]
    fn what_they_may_see_is_there_before_they_are() {
        let jo = Analyst::new("jo", only(&["acme", "o'x/y"])).unwrap();
        let hash = PasswordHash::salted(&"correct horse".into(), [0xab; 16]).unwrap();
        assert_eq!(
            jo.sql(&Target::server("audit"), Some(&hash)),
            [
                "CREATE ROLE IF NOT EXISTS audit_tenant_acme",
                "CREATE ROW POLICY OR REPLACE audit_tenant_acme ON audit.events FOR SELECT USING tenant_id = 'acme' AS PERMISSIVE TO audit_tenant_acme",
                "CREATE ROW POLICY OR REPLACE audit_tenant_acme ON audit.dead_letters FOR SELECT USING startsWith(key, 'acme/') AS PERMISSIVE TO audit_tenant_acme",
                "CREATE ROLE IF NOT EXISTS `audit_tenant_o'x/y`",
                r"CREATE ROW POLICY OR REPLACE `audit_tenant_o'x/y` ON audit.events FOR SELECT USING tenant_id = 'o\'x/y' AS PERMISSIVE TO `audit_tenant_o'x/y`",
                r"CREATE ROW POLICY OR REPLACE `audit_tenant_o'x/y` ON audit.dead_letters FOR SELECT USING startsWith(key, 'o\'x%2Fy/') AS PERMISSIVE TO `audit_tenant_o'x/y`",
                // sha256sum of the password and the salt's 32 digits.
                &format!(
                    "CREATE USER jo IDENTIFIED WITH sha256_hash BY '{}' SALT 'abababababababababababababababab'",
                    hex(&Sha256::digest(b"correct horseabababababababababababababababab"))
                ),
                "GRANT audit_analyst, audit_tenant_acme, `audit_tenant_o'x/y` TO jo",
            ]
        );
        let all = Analyst::new("jo-2", Tenants::All).unwrap().sql(&Target::cluster("audit", "main"), None);
        assert_eq!(all, ["GRANT ON CLUSTER 'main' audit_analyst, audit_all_tenants TO `jo-2`"]);
    }

    #[test]
    fn a_users_file_holds_the_filters_and_no_password() {
        let jo = Analyst::new("jo", only(&["a<b"])).unwrap();
        let xml = jo.users_file("audit", &PasswordHash::plain(&"correct horse".into()).unwrap());
        assert!(xml.contains("<events><filter>tenant_id = 'a&lt;b'</filter></events>"), "{xml}");
        assert!(xml.contains("<ledger><filter>0</filter></ledger>"), "{xml}");
        assert!(xml.contains(&format!("<password_sha256_hex>{}<", hex(&Sha256::digest(b"correct horse")))), "{xml}");
        assert!(!xml.contains("correct"), "{xml}");
    }

    #[test]
    fn wrong_accounts_are_refused() {
        for name in ["", "1a", "a b", "a`b", "default", "audit_admin", "audit_tenant_x", "audit_all_tenants", "a.b"] {
            assert!(matches!(Analyst::new(name, Tenants::All), Err(AnalystError::Name(_))), "{name}");
        }
        assert!(matches!(Analyst::new("a", only(&[])), Err(AnalystError::Tenants(0))));
        assert!(matches!(Analyst::new("a", only(&["x", ""])), Err(AnalystError::Tenant(_))));
        assert!(matches!(Analyst::new("a", only(&["x\n"])), Err(AnalystError::Tenant(_))));
        for password in ["short", "long enough but with é"] {
            assert!(matches!(PasswordHash::plain(&password.into()), Err(AnalystError::Password)));
        }
    }

    #[test]
    fn roles_say_whose_rows_are_seen() {
        let roles = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(tenants_of(&roles(&["audit_analyst", "audit_tenant_b", "audit_tenant_a"])), only(&["a", "b"]));
        assert_eq!(tenants_of(&roles(&["audit_analyst"])), only(&[]));
        assert_eq!(tenants_of(&roles(&["audit_tenant_b", "audit_all_tenants"])), Tenants::All);
    }
}
