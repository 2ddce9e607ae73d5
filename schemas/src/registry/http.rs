//! One request to one URL, and what its answer means.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value as Json;

use super::config::{RegistryAuth, RegistryConfig, RegistryConfigError};

/// A schema that is larger is no schema of an event.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// So much of somebody else's words is repeated in an error.
const MAX_WORDS: usize = 300;
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");
const ACCEPTED: HeaderValue =
    HeaderValue::from_static("application/vnd.schemaregistry.v1+json, application/json;q=0.9");

/// What an answer means.
#[derive(Debug)]
pub(super) enum Answer {
    /// 2xx with JSON.
    Json(Json),
    /// 404 with the registry's own error code.
    NotFound(u64),
    /// 4xx that asking again does not change.
    Refused { status: u16, message: String },
    /// No answer, or one that a registry in order does not give.
    Failed(String),
}

pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Without a slash at the end.
    urls: Vec<String>,
    auth: RegistryAuth,
    timeout: Duration,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("urls", &self.urls).field("auth", &self.auth).finish_non_exhaustive()
    }
}

impl Http {
    pub(super) fn new(config: &RegistryConfig) -> Result<Self, RegistryConfigError> {
        let wrong = |problem: String| RegistryConfigError { problems: vec![problem] };
        let needs_tls = config.urls.iter().any(|url| url.starts_with("https"));
        let roots = match &config.ca_file {
            Some(file) => authorities(file).map_err(wrong)?,
            None if needs_tls => system_authorities().map_err(wrong)?,
            None => RootCertStore::empty(),
        };
        let provider = rustls::crypto::ring::default_provider().into();
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(format!("tls: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(config.timeout));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(2)
            .build(connector.wrap_connector(tcp));
        let urls = config.urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self { client, urls, auth: config.auth.clone(), timeout: config.timeout })
    }

    pub(super) fn len(&self) -> usize {
        self.urls.len()
    }

    pub(super) fn url(&self, index: usize) -> &str {
        &self.urls[index]
    }

    /// Asks the URL of that number. An empty body is none.
    pub(super) async fn exchange(&self, index: usize, method: &Method, path: &str, body: &str) -> Answer {
        let request = match self.request(index, method, path, body).await {
            Ok(request) => request,
            Err(reason) => return Answer::Failed(reason),
        };
        let answer = async {
            let response = self.client.request(request).await.map_err(|error| chain(&error))?;
            let status = response.status();
            let body =
                Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| chain(&*error))?;
            Ok((status, body.to_bytes()))
        };
        match tokio::time::timeout(self.timeout, answer).await {
            Err(_) => Answer::Failed(format!("no answer within {:?}", self.timeout)),
            Ok(Err(reason)) => Answer::Failed(reason),
            Ok(Ok((status, body))) => meaning(status, &body),
        }
    }

    async fn request(
        &self,
        index: usize,
        method: &Method,
        path: &str,
        body: &str,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.urls[index]))
            .header(ACCEPT, ACCEPTED)
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|error| error.to_string())?;
        if !body.is_empty() {
            request.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
        }
        if let Some(value) = self.authorization().await? {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        let text = match &self.auth {
            RegistryAuth::None => return Ok(None),
            RegistryAuth::Basic { username, password } => {
                format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
            }
            RegistryAuth::BearerFile(file) => {
                let token = tokio::fs::read_to_string(file).await;
                let token = token.map_err(|error| format!("the token in {} can't be read: {error}", file.display()))?;
                format!("Bearer {}", token.trim())
            }
        };
        let mut value =
            HeaderValue::from_str(&text).map_err(|_| "the token or password can't stand in a header".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn meaning(status: StatusCode, body: &[u8]) -> Answer {
    let json: Option<Json> =
        serde_json::from_slice(body).ok().filter(|json: &Json| json.is_object() || json.is_array());
    let code = json.as_ref().and_then(|json| json["error_code"].as_u64());
    match (status, json) {
        (status, Some(json)) if status.is_success() => Answer::Json(json),
        (status, None) if status.is_success() => {
            Answer::Failed(format!("status {} with a body that is no JSON object or list", status.as_u16()))
        }
        // A plain 404 in JSON is how registries answer a wrong path: only their own five-digit codes confirm anything.
        (StatusCode::NOT_FOUND, _) => match code {
            Some(code @ 40400..=40499) => Answer::NotFound(code),
            _ => Answer::Failed(
                "status 404 without a schema registry's error code: is the base path right, and no proxy in the way?"
                    .to_owned(),
            ),
        },
        (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS, _) => {
            Answer::Failed(format!("status {}", status.as_u16()))
        }
        (status, json) if status.is_client_error() => {
            let words = json.as_ref().and_then(|json| json["message"].as_str()).unwrap_or("without a reason");
            Answer::Refused { status: status.as_u16(), message: shortened(words) }
        }
        (status, _) => Answer::Failed(match code {
            Some(code) => format!("status {}, error code {code}", status.as_u16()),
            None => format!("status {}", status.as_u16()),
        }),
    }
}

/// Somebody else's words, in a length and in characters that fit a log line.
pub(super) fn shortened(words: &str) -> String {
    words.chars().take(MAX_WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let wrong = |reason: String| format!("ca_file: can't use {}: {reason}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("it holds no certificate".to_owned())) } else { Ok(roots) }
}

fn system_authorities() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // Some systems carry certificates that rustls can't read; the others serve.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("ca_file: must be set, for this system has no authorities to trust".to_owned());
    }
    Ok(roots)
}
