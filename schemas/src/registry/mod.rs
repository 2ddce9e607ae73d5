//! The client of a schema registry: Confluent's REST API, which Apicurio, Karapace and Redpanda speak too
//! (<https://docs.confluent.io/platform/current/schema-registry/develop/api.html>).
//!
//! An answer is one of three things, and they are never mixed up:
//! - a schema, which is kept: what an id or a version stands for never changes;
//! - a *confirmed* absence: status 404 **and** the registry's own error code. A proxy's 404, or that of a wrong base path, confirms nothing. Kept for a
//!   short time only, because the schema may be registered any moment;
//! - anything else, such as a 500, a timeout or a page of HTML: asked again after a back-off, at the next URL first, and never kept.
//!
//! Callers that miss the same schema at once share one request.

mod cache;
mod config;
mod http;
mod references;
mod subject;

use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value as Json, json};

pub use config::{RegistryAuth, RegistryConfig, RegistryConfigError};

use cache::Cache;
use http::{Answer, Http};

/// Longest wait before the second attempt.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Longest wait between two attempts.
const BACKOFF_CAP: Duration = Duration::from_secs(3);
/// Schemas that one schema may refer to, through others too.
const MAX_REFERENCES: usize = 64;
/// The registry's codes for what it does not have: subject, version, schema.
const SUBJECT_NOT_FOUND: u64 = 40401;
const VERSION_NOT_FOUND: u64 = 40402;
const SCHEMA_NOT_FOUND: u64 = 40403;

/// Why a registry gave no answer to work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry itself says that it does not have it.
    #[error("the schema registry has no {what} (error code {code})")]
    NotFound {
        /// What was asked for.
        what: String,
        /// The registry's error code.
        code: u64,
    },
    /// No URL gave an answer that counts; it may later.
    #[error("the schema registry can't be asked: {reason}")]
    Unavailable {
        /// What each URL said at last.
        reason: String,
    },
    /// The registry understood and refuses: credentials, rights, an incompatible or invalid schema.
    #[error("the schema registry refuses with status {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The registry's words, shortened.
        message: String,
    },
    /// The registry has it, but it is no Avro schema that can be used here.
    #[error("{what} can't be used: {reason}")]
    Unusable {
        /// What was asked for.
        what: String,
        /// Why.
        reason: String,
    },
    /// [`Registry::register`] was called, and [`RegistryConfig::may_register`] is off.
    #[error("registering schemas is switched off")]
    RegisteringIsOff,
}

impl RegistryError {
    /// Whether asking again later may help although nobody changes the schema or the request: everything but a confirmed absence, an unusable schema
    /// and a refused registration.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            // Somebody mends the credentials or the rights.
            Self::Refused { status, .. } => matches!(status, 401 | 403),
            _ => false,
        }
    }
}

/// A version of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// The newest one.
    Latest,
    /// This one, counted from 1.
    Number(u32),
}

/// A schema as the registry has it, complete: schemas it refers to are part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The schema's id; what stands in a record's frame.
    pub id: u32,
    /// Its version under the subject; `None` when it was asked for by id.
    pub version: Option<u32>,
    /// The schema, Avro's JSON.
    pub schema: String,
}

/// A schema that another one refers to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Reference {
    /// The full name by which the referring schema calls it.
    pub name: String,
    /// Where it is registered.
    pub subject: String,
    /// And as which version.
    pub version: u32,
}

/// What the registry says of a schema against the versions of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compatibility {
    /// Whether it may be registered.
    pub is_compatible: bool,
    /// The rules it breaks, in the registry's words; some registries give none.
    pub messages: Vec<String>,
}

/// A schema registry. Clones share connections and cache.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    http: Http,
    attempts: u32,
    may_register: bool,
    /// The URL that answered last; where the next request begins.
    preferred: AtomicUsize,
    ids: Cache<u32, Arc<Registered>>,
    versions: Cache<(String, u32), Arc<Registered>>,
}

/// What `GET /schemas/ids/{id}` and `GET /subjects/{subject}/versions/{version}` answer with.
#[derive(Deserialize)]
struct Found {
    schema: String,
    id: Option<u32>,
    version: Option<u32>,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Option<Vec<Reference>>,
}

impl Registry {
    /// A client that has not asked for anything yet.
    ///
    /// # Errors
    /// The configuration is wrong, or the file with authorities can't be used: all problems at once.
    pub fn new(config: &RegistryConfig) -> Result<Self, RegistryConfigError> {
        config.validate()?;
        Ok(Self {
            shared: Arc::new(Shared {
                http: Http::new(config)?,
                attempts: config.attempts.max(1),
                may_register: config.may_register,
                preferred: AtomicUsize::new(0),
                ids: Cache::new(config.cache_schemas, config.missing_for),
                versions: Cache::new(config.cache_schemas, config.missing_for),
            }),
        })
    }

    /// The schema of an id, from the cache if it is there.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn by_id(&self, id: u32) -> Result<Arc<Registered>, RegistryError> {
        let what = format!("schema with id {id}");
        if i32::try_from(id).is_err() {
            // An id is a Java int. Registries answer others as they would a wrong path, which confirms nothing, so that nobody would ever know.
            return Err(RegistryError::NotFound { what, code: SCHEMA_NOT_FOUND });
        }
        let ask = async {
            let found = self.get(&format!("/schemas/ids/{id}"), &what, &[SCHEMA_NOT_FOUND]).await?;
            let schema = self.complete(found, &what).await?;
            Ok(Arc::new(Registered { id, version: None, schema }))
        };
        self.shared.ids.get(id, ask).await
    }

    /// A version of a subject; a numbered one from the cache if it is there.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn by_version(&self, subject: &str, version: Version) -> Result<Arc<Registered>, RegistryError> {
        match version {
            Version::Latest => self.ask_version(subject, "latest").await,
            Version::Number(number) => {
                let key = (subject.to_owned(), number);
                self.shared.versions.get(key, self.ask_version(subject, &number.to_string())).await
            }
        }
    }

    async fn ask_version(&self, subject: &str, version: &str) -> Result<Arc<Registered>, RegistryError> {
        let what = format!("version {version} of subject {subject}");
        let path = format!("/subjects/{}/versions/{version}", segment(subject));
        let found = self.get(&path, &what, &[SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, SCHEMA_NOT_FOUND]).await?;
        let (id, number) = (found.id, found.version);
        let id = id.ok_or_else(|| unexpected(&what, "it has no id"))?;
        Ok(Arc::new(Registered { id, version: number, schema: self.complete(found, &what).await? }))
    }

    /// The id under which a subject has this very schema.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when it does not have it; see [`RegistryError`].
    pub async fn lookup(&self, subject: &str, schema: &str, references: &[Reference]) -> Result<u32, RegistryError> {
        let what = format!("such schema under subject {subject}");
        let body = request(schema, references);
        let missing = [SUBJECT_NOT_FOUND, SCHEMA_NOT_FOUND];
        let path = format!("/subjects/{}", segment(subject));
        id_of(&self.ask(Method::POST, &path, Some(&body), &missing, &what).await?, &what)
    }

    /// Makes a schema the newest version of a subject, or finds the version that it is already; returns its id.
    ///
    /// # Errors
    /// [`RegistryError::RegisteringIsOff`] unless [`RegistryConfig::may_register`]; [`RegistryError::Refused`] with status 409 when it is incompatible with
    /// earlier versions; see [`RegistryError`].
    pub async fn register(&self, subject: &str, schema: &str, references: &[Reference]) -> Result<u32, RegistryError> {
        if !self.shared.may_register {
            return Err(RegistryError::RegisteringIsOff);
        }
        let what = format!("subject {subject}");
        let path = format!("/subjects/{}/versions", segment(subject));
        id_of(&self.ask(Method::POST, &path, Some(&request(schema, references)), &[], &what).await?, &what)
    }

    /// Whether a schema may follow a version of a subject by the subject's own rule.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when there is no such version; see [`RegistryError`].
    pub async fn check_compatibility(
        &self,
        subject: &str,
        version: Version,
        schema: &str,
        references: &[Reference],
    ) -> Result<Compatibility, RegistryError> {
        let what = format!("version of subject {subject} to compare with");
        let version = match version {
            Version::Latest => "latest".to_owned(),
            Version::Number(number) => number.to_string(),
        };
        let path = format!("/compatibility/subjects/{}/versions/{version}?verbose=true", segment(subject));
        let missing = [SUBJECT_NOT_FOUND, VERSION_NOT_FOUND];
        let answer = self.ask(Method::POST, &path, Some(&request(schema, references)), &missing, &what).await?;
        let is_compatible =
            answer["is_compatible"].as_bool().ok_or_else(|| unexpected(&what, "it does not say is_compatible"))?;
        let messages = answer["messages"].as_array().into_iter().flatten();
        let messages = messages.map(|message| message.as_str().map_or_else(|| message.to_string(), str::to_owned));
        Ok(Compatibility { is_compatible, messages: messages.collect() })
    }

    /// The schema with those that it refers to written into it.
    async fn complete(&self, found: Found, what: &str) -> Result<String, RegistryError> {
        let unusable = |reason: String| RegistryError::Unusable { what: what.to_owned(), reason };
        if let Some(other) = found.schema_type.filter(|kind| !kind.eq_ignore_ascii_case("AVRO")) {
            return Err(unusable(format!("it is of type {}, not AVRO", http::shortened(&other))));
        }
        let mut open = found.references.unwrap_or_default();
        if open.is_empty() {
            return Ok(found.schema);
        }
        let mut seen: Vec<Reference> = Vec::new();
        let mut definitions = Vec::new();
        while let Some(reference) = open.pop() {
            if seen.contains(&reference) {
                continue;
            }
            if seen.len() == MAX_REFERENCES {
                return Err(unusable(format!("it refers to more than {MAX_REFERENCES} schemas")));
            }
            let Reference { subject, version, .. } = &reference;
            let part = format!("version {version} of subject {subject}, which {what} refers to,");
            let path = format!("/subjects/{}/versions/{version}", segment(subject));
            let next = self.get(&path, &part, &[]).await?;
            definitions.push(next.schema);
            open.extend(next.references.unwrap_or_default());
            seen.push(reference);
        }
        references::inline(&found.schema, &definitions).map_err(unusable)
    }

    async fn get(&self, path: &str, what: &str, missing: &[u64]) -> Result<Found, RegistryError> {
        let answer = self.ask(Method::GET, path, None, missing, what).await?;
        Found::deserialize(answer).map_err(|error| unexpected(what, &error.to_string()))
    }

    /// Asks until an answer counts, at most so often as is configured; each attempt goes to every URL that is needed.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Json>,
        missing: &[u64],
        what: &str,
    ) -> Result<Json, RegistryError> {
        let body = body.map(Json::to_string).unwrap_or_default();
        let mut attempt = 0;
        loop {
            let error = match self.round(&method, path, &body, missing, what).await {
                Err(error @ RegistryError::Unavailable { .. }) => error,
                decided => return decided,
            };
            attempt += 1;
            if attempt >= self.shared.attempts {
                return Err(error);
            }
            tokio::time::sleep(backoff(attempt - 1)).await;
        }
    }

    /// One attempt: from the URL that answered last through all others. What one registry confirms to be missing its peers are asked for too: a follower
    /// may lag behind.
    async fn round(
        &self,
        method: &Method,
        path: &str,
        body: &str,
        missing: &[u64],
        what: &str,
    ) -> Result<Json, RegistryError> {
        let Shared { http, preferred, .. } = &*self.shared;
        let first = preferred.load(Ordering::Relaxed);
        let (mut absent, mut refused, mut reasons) = (None, None, String::new());
        for turn in 0..http.len() {
            let index = (first + turn) % http.len();
            match http.exchange(index, method, path, body).await {
                // Only the numbers of a subject's versions are a list.
                Answer::Json(Json::Array(_)) if !(method == Method::GET && path.ends_with("/versions")) => {
                    note(&mut reasons, http.url(index), "a success with a list where an object belongs");
                }
                Answer::Json(json) => {
                    preferred.store(index, Ordering::Relaxed);
                    return Ok(json);
                }
                Answer::NotFound(code) if missing.contains(&code) => absent = absent.or(Some(code)),
                Answer::NotFound(code) => note(&mut reasons, http.url(index), &format!("error code {code}")),
                Answer::Refused { status, message } => {
                    let error = RegistryError::Refused { status, message };
                    if !error.is_passing() {
                        return Err(error);
                    }
                    refused = refused.or(Some(error));
                }
                Answer::Failed(reason) => note(&mut reasons, http.url(index), &reason),
            }
        }
        match (absent, refused) {
            (Some(code), _) => Err(RegistryError::NotFound { what: what.to_owned(), code }),
            (None, Some(refused)) => Err(refused),
            (None, None) => Err(RegistryError::Unavailable { reason: reasons }),
        }
    }
}

fn note(reasons: &mut String, url: &str, reason: &str) {
    let separator = if reasons.is_empty() { "" } else { "; " };
    // Writing to a String can't fail.
    let _ = write!(reasons, "{separator}{url}: {reason}");
}

/// An answer with status 200 that is not what a registry sends: somebody else answers there, so that it may pass.
fn unexpected(what: &str, reason: &str) -> RegistryError {
    RegistryError::Unavailable { reason: format!("the answer for {what} is not what a registry sends: {reason}") }
}

fn id_of(answer: &Json, what: &str) -> Result<u32, RegistryError> {
    let id = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| unexpected(what, "it has no id"))
}

fn request(schema: &str, references: &[Reference]) -> Json {
    let schema = sheltered(schema);
    let references: Vec<Json> = references
        .iter()
        .map(|Reference { name, subject, version }| json!({ "name": name, "subject": subject, "version": version }))
        .collect();
    if references.is_empty() {
        json!({ "schema": schema })
    } else {
        json!({ "schema": schema, "references": references })
    }
}

/// The same JSON, with a line's end in front of each value `"{}"`: Apicurio takes the quotes off where only blanks stand between it and the colon,
/// and then finds that the default of a string is no string (apicurio-registry#1760; #3014 mended it for version 2, 3.3.3 does it again).
fn sheltered(schema: &str) -> String {
    let mut out = String::with_capacity(schema.len() + 8);
    let mut rest = schema;
    while let Some(at) = rest.find(r#""{}""#) {
        let (before, value) = rest.split_at(at);
        out.push_str(before);
        if before.trim_end_matches(' ').ends_with(':') {
            out.push('\n');
        }
        // Its quote only: what follows is looked at again.
        out.push('"');
        rest = &value[1..];
    }
    out + rest
}

/// A subject as one segment of a path (RFC 3986, 2.3).
fn segment(subject: &str) -> String {
    let mut out = String::with_capacity(subject.len());
    for byte in subject.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The wait after the failure of `attempt` (0 is the first): between a half and the whole of what doubles each time, so that workers spread.
fn backoff(attempt: u32) -> Duration {
    let longest = BACKOFF_BASE.saturating_mul(1 << attempt.min(10)).min(BACKOFF_CAP);
    // A hasher with new keys is the random source that the standard library has.
    let random = RandomState::new().build_hasher().finish();
    longest / 2 + (longest / 2).mul_f64((random % 1001) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_blanks_in_front_of_empty_braces_change() {
        for (schema, expected) in [
            (r#"{"default":"{}"}"#, "{\"default\":\n\"{}\"}"),
            (r#"{"default":  "{}","x":"{}"}"#, "{\"default\":  \n\"{}\",\"x\":\n\"{}\"}"),
            (r#"["{}",{"{}":{}}]"#, r#"["{}",{"{}":{}}]"#),
            ("{\"default\":\n \"{}\"}", "{\"default\":\n \"{}\"}"),
            (r#""int""#, r#""int""#),
        ] {
            assert_eq!(sheltered(schema), expected);
            assert_eq!(serde_json::from_str::<Json>(expected).ok(), serde_json::from_str(schema).ok());
        }
    }
}
