//! Where the registry is and how to speak to it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

/// Who we are for the registry. Never printed with its secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum RegistryAuth {
    /// Nobody.
    #[default]
    None,
    /// A user with a password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// A token in a file, read again for each request, because tokens of a platform are replaced while they are in use.
    BearerFile(PathBuf),
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Basic { username, .. } => write!(f, "Basic {{ username: {username:?}, password: [redacted] }}"),
            Self::BearerFile(file) => f.debug_tuple("BearerFile").field(file).finish(),
        }
    }
}

/// Settings of a [`crate::registry::Registry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Base URLs of one registry's instances, `http` or `https`, with a path if it has one (`http://host:8080/apis/ccompat/v7`). When one fails, the next
    /// is asked.
    pub urls: Vec<String>,
    /// Who we are; all URLs are told.
    pub auth: RegistryAuth,
    /// Certificates of the authorities to trust instead of the system's (PEM).
    pub ca_file: Option<PathBuf>,
    /// How long one URL may take to answer.
    pub timeout: Duration,
    /// How often a request is tried, at least once; waits of 100 ms to 3 s lie between. Each try asks every URL until one answers.
    pub attempts: u32,
    /// Schemas kept, and absences kept, by id and by version each.
    pub cache_schemas: usize,
    /// How long a confirmed absence is kept.
    pub missing_for: Duration,
    /// Whether schemas may be registered. Off: a service that may register can change what every consumer must understand.
    pub may_register: bool,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            auth: RegistryAuth::None,
            ca_file: None,
            timeout: Duration::from_secs(5),
            attempts: 3,
            cache_schemas: 1024,
            missing_for: Duration::from_secs(30),
            may_register: false,
        }
    }
}

/// What is wrong with a [`RegistryConfig`]: every problem, each opening with the field's name. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema registry: {}", .problems.join("; "))]
pub struct RegistryConfigError {
    /// One sentence a problem.
    pub problems: Vec<String>,
}

impl RegistryConfig {
    /// Checks every field; reads no file.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), RegistryConfigError> {
        let mut problems = Vec::new();
        if self.urls.is_empty() {
            problems.push("urls: there is none".to_owned());
        }
        for (number, url) in self.urls.iter().enumerate() {
            if let Err(reason) = check_url(url) {
                problems.push(format!("urls: number {} {reason}", number + 1));
            }
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(600)).contains(&self.timeout) {
            problems.push(format!("timeout: {:?} is not between 10 ms and 10 minutes", self.timeout));
        }
        if self.cache_schemas == 0 {
            problems.push("cache_schemas: is 0; nothing could be kept".to_owned());
        }
        if let RegistryAuth::Basic { username, .. } = &self.auth
            && (username.is_empty() || username.contains(':'))
        {
            problems
                .push("auth: the user name is empty or has a colon, which basic authentication can't carry".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(RegistryConfigError { problems }) }
    }
}

/// The URL is not repeated: it may hold a password where none belongs.
fn check_url(url: &str) -> Result<(), &'static str> {
    let uri: Uri = url.parse().map_err(|_| "is no URL; expected one such as http://127.0.0.1:8081")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("has no scheme; expected http://... or https://...");
    }
    let authority = uri.authority().ok_or("names no host")?;
    if authority.as_str().contains('@') {
        return Err("holds a user name; it has a setting of its own");
    }
    if uri.query().is_some() || url.contains('#') {
        return Err("has a query or a fragment; expected scheme, host, port and path only");
    }
    Ok(())
}
