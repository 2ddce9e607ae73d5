//! `[archive]`: the S3-compatible storage that archives may go to.
//!
//! What is not set is taken from the variables that the tools for S3 share (`AWS_ACCESS_KEY_ID` and so on); the credentials as a whole from one of the
//! two, never a name from here with a secret from there.

use std::path::PathBuf;
use std::time::Duration;

use auditstream_store::{Secret, Tls};

use super::ConfigError;
use super::raw::{Origin, Problem};
use super::settings::{Checker, Settings};

/// Where a request goes, and who asks, when nothing says another region.
const REGION: &str = "us-east-1";

/// `[archive]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archive {
    endpoint: Option<String>,
    /// The variable that says the endpoint, when no key does.
    endpoint_origin: Origin,
    plain_http: bool,
    region: String,
    credentials: Option<Credentials>,
    ca_location: Option<PathBuf>,
    timeout: Duration,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret,
    /// With temporary credentials only.
    pub(crate) session_token: Option<Secret>,
}

/// What a client of the storage needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct S3 {
    /// `None`: AWS's own for the region.
    pub(crate) endpoint: Option<String>,
    pub(crate) region: String,
    pub(crate) credentials: Credentials,
    pub(crate) ca_location: Option<PathBuf>,
    /// Longest wait for a sign of life, and how long a request is tried again.
    pub(crate) timeout: Duration,
}

impl S3 {
    /// Whether the endpoint is asked without TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }
}

pub(super) fn settings(check: &mut Checker<'_>) -> Archive {
    let variable = |check: &Checker<'_>, name: &str| check.raw.s3.get(name).cloned();
    let plain_http = check.text("archive.s3_plain_http") == "on";
    let said = check.optional("archive.s3_endpoint");
    if let Some(message) = said.as_ref().and_then(|endpoint| wrong(endpoint, plain_http)) {
        check.problem("archive.s3_endpoint", message);
    }
    let endpoint_origin = match &said {
        Some(_) => Origin::File,
        None => Origin::Environment("AWS_ENDPOINT_URL".to_owned()),
    };
    let endpoint = said.or_else(|| variable(check, "AWS_ENDPOINT_URL"));
    let ca_location = check.path("archive.s3_ca_location");
    if ca_location.is_some()
        && let Err(message) = auditstream_store::connector(
            &Tls { ca_location: ca_location.clone(), ..Tls::default() },
            false,
            Duration::ZERO,
        )
    {
        check.problem("archive.s3_ca_location", message.trim_start_matches("ca_location: ").to_owned());
    }
    let region = check.optional("archive.s3_region").or_else(|| variable(check, "AWS_REGION"));
    Archive {
        endpoint,
        endpoint_origin,
        plain_http,
        region: region.unwrap_or_else(|| REGION.to_owned()),
        credentials: credentials(check),
        ca_location,
        timeout: check.millis("archive.s3_timeout_ms"),
    }
}

fn credentials(check: &mut Checker<'_>) -> Option<Credentials> {
    let access_key_id = check.optional("archive.s3_access_key_id");
    let secret_access_key = check.secret("archive.s3_secret_access_key");
    let session_token = check.secret("archive.s3_session_token");
    match (access_key_id, secret_access_key, session_token) {
        (Some(access_key_id), Some(secret_access_key), session_token) => {
            Some(Credentials { access_key_id, secret_access_key, session_token })
        }
        (None, None, None) => {
            let variable = |name: &str| check.raw.s3.get(name);
            Some(Credentials {
                access_key_id: variable("AWS_ACCESS_KEY_ID")?.clone(),
                secret_access_key: Secret::new(variable("AWS_SECRET_ACCESS_KEY")?),
                session_token: variable("AWS_SESSION_TOKEN").map(Secret::new),
            })
        }
        (Some(_), None, _) => {
            let message = "must be set together with archive.s3_access_key_id";
            check.problem("archive.s3_secret_access_key", message.to_owned());
            None
        }
        (None, ..) => {
            let message = "must be set together with archive.s3_secret_access_key";
            check.problem("archive.s3_access_key_id", message.to_owned());
            None
        }
    }
}

/// What is wrong with an endpoint.
fn wrong(endpoint: &str, plain_http: bool) -> Option<String> {
    let (plain, rest) = match (endpoint.strip_prefix("http://"), endpoint.strip_prefix("https://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        (None, None) => return Some("must start with https:// or http://".to_owned()),
    };
    if rest.contains('@') {
        return Some("holds a user name or a password; archive.s3_access_key_id names who asks".to_owned());
    }
    if rest.is_empty() || rest.starts_with('/') || rest.contains(['?', '#', ' ']) {
        return Some("is no URL such as https://s3.example.com".to_owned());
    }
    (plain && !plain_http).then(|| {
        "is not encrypted: whoever is on the way could read and change archives; archive.s3_plain_http = \"on\" allows it".to_owned()
    })
}

impl Settings {
    /// For archives in S3-compatible storage.
    ///
    /// # Errors
    /// Nothing says who asks, or the variable `AWS_ENDPOINT_URL` can't be used.
    pub(crate) fn s3(&self) -> Result<S3, ConfigError> {
        let archive = &self.archive;
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: String, origin: Origin| {
            problems.push(Problem { path: path.to_owned(), message, origin });
        };
        if let Some(message) = archive.endpoint.as_ref().and_then(|endpoint| wrong(endpoint, archive.plain_http)) {
            problem("archive.s3_endpoint", message, archive.endpoint_origin.clone());
        }
        if archive.credentials.is_none() {
            let message = "must be set for s3://, with archive.s3_secret_access_key_file, or AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY";
            problem("archive.s3_access_key_id", message.to_owned(), Origin::Default);
        }
        match (&archive.credentials, problems.is_empty()) {
            (Some(credentials), true) => Ok(S3 {
                endpoint: archive.endpoint.as_ref().map(|endpoint| endpoint.trim_end_matches('/').to_owned()),
                region: archive.region.clone(),
                credentials: credentials.clone(),
                ca_location: archive.ca_location.clone(),
                timeout: archive.timeout,
            }),
            _ => Err(ConfigError::Wrong { file: None, problems }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::config::raw::Raw;

    fn settings(file: &str, environment: &[(&str, &str)]) -> Settings {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::from_raw(&Raw::read(Some(file), environment)).unwrap()
    }

    const OURS: &str = "[archive]\ns3_access_key_id = \"ours\"\ns3_secret_access_key = \"hunter2\"\n";
    const THEIRS: [(&str, &str); 3] =
        [("AWS_ACCESS_KEY_ID", "theirs"), ("AWS_SECRET_ACCESS_KEY", "hunter3"), ("AWS_SESSION_TOKEN", "hunter4")];

    #[test]
    fn credentials_come_whole_from_one_place() {
        let s3 = settings(OURS, &THEIRS).s3().unwrap();
        assert_eq!((&*s3.credentials.access_key_id, s3.credentials.secret_access_key.expose()), ("ours", "hunter2"));
        assert_eq!(s3.credentials.session_token, None);
        let s3 = settings("", &THEIRS).s3().unwrap();
        assert_eq!((&*s3.credentials.access_key_id, s3.credentials.secret_access_key.expose()), ("theirs", "hunter3"));
        assert_eq!(s3.credentials.session_token.as_ref().map(Secret::expose), Some("hunter4"));
        assert!(!format!("{s3:?}").contains("hunter"));
        let half = settings("", &THEIRS[..1]).s3().unwrap_err().to_string();
        assert!(half.contains("archive.s3_access_key_id: must be set for s3://"), "{half}");
    }

    #[test]
    fn the_environment_fills_in_what_is_not_set() {
        let environment = [THEIRS[0], THEIRS[1], ("AWS_REGION", "eu-west-1"), ("AWS_ENDPOINT_URL", "https://theirs/")];
        let s3 = settings("", &environment).s3().unwrap();
        assert_eq!((&*s3.region, s3.endpoint.as_deref()), ("eu-west-1", Some("https://theirs")));
        let s3 = settings("[archive]\ns3_region = \"a\"\ns3_endpoint = \"https://ours\"\n", &environment).s3().unwrap();
        assert_eq!((&*s3.region, s3.endpoint.as_deref()), ("a", Some("https://ours")));
        let s3 = settings("", &THEIRS).s3().unwrap();
        assert_eq!((&*s3.region, s3.endpoint), (REGION, None));
    }

    #[test]
    fn a_variable_of_other_programs_is_wrong_only_for_archives() {
        let settings = settings(OURS, &[("AWS_ENDPOINT_URL", "http://localhost:4566")]);
        let refused = settings.s3().unwrap_err().to_string();
        assert!(refused.contains("archive.s3_endpoint (AWS_ENDPOINT_URL): is not encrypted"), "{refused}");
    }

    #[test]
    fn endpoints_are_urls_and_plain_ones_are_asked_for() {
        for (endpoint, plain_http, is_right) in [
            ("https://s3.example.com", false, true),
            ("https://s3.example.com:9000/path", false, true),
            ("http://127.0.0.1:9000", false, false),
            ("http://127.0.0.1:9000", true, true),
            ("s3.example.com", true, false),
            ("https://", true, false),
            ("https://user:hunter2@s3.example.com", true, false),
            ("https://s3.example.com?x", true, false),
        ] {
            let message = wrong(endpoint, plain_http);
            assert_eq!(message.is_none(), is_right, "{endpoint}: {message:?}");
            assert!(!message.unwrap_or_default().contains("hunter2"));
        }
    }
}
