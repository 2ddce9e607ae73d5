//! S3-compatible storage: the client of one bucket, its HTTP, and what its errors mean.
//!
//! Promise: an error holds the server's code and message and nothing else of its answer. What a server says about a signature that it refuses repeats the
//! request's headers, with the session token among them.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use async_trait::async_trait;
use auditstream_store::Tls;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::aws::AmazonS3Builder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use tokio::time::{Instant, Sleep};

use crate::config::S3;

/// How often a request is tried again; with the waits between them this is more than the shortest timeout.
const RETRIES: usize = 10;

/// One bucket.
pub(super) struct Bucket {
    pub(super) name: String,
    /// Tries again what failed for no fault of ours.
    pub(super) objects: Arc<dyn ObjectStore>,
    /// Does not: who has mistyped an address should not wait to hear it.
    pub(super) once: Arc<dyn ObjectStore>,
}

impl fmt::Debug for Bucket {
    /// The clients hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Bucket {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The system has no certificate authorities, or the client refuses the settings.
    pub(super) fn new(name: &str, s3: &S3) -> anyhow::Result<Self> {
        let http = Http::new(s3)?;
        let client = |max_retries: usize| -> anyhow::Result<Arc<dyn ObjectStore>> {
            let retry = RetryConfig { max_retries, retry_timeout: s3.timeout, ..RetryConfig::default() };
            let credentials = &s3.credentials;
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(name)
                .with_region(&s3.region)
                .with_access_key_id(&credentials.access_key_id)
                .with_secret_access_key(credentials.secret_access_key.expose())
                .with_allow_http(s3.is_plain())
                .with_retry(retry)
                .with_http_connector(http.clone());
            if let Some(endpoint) = &s3.endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            if let Some(token) = &credentials.session_token {
                builder = builder.with_token(token.expose());
            }
            Ok(Arc::new(builder.build().map_err(|error| told(&error)).context("no client for S3 can be made")?))
        };
        Ok(Self { name: name.to_owned(), objects: client(RETRIES)?, once: client(0)? })
    }
}

/// What went wrong, from any error under which the storage's is.
pub(super) fn told(error: &(dyn StdError + 'static)) -> anyhow::Error {
    let chain: Vec<_> = std::iter::successors(Some(error), |&error| error.source()).collect();
    if let Some(at) = chain.iter().position(|error| error.is::<HttpError>()) {
        // Its own words are those of its source.
        let causes: Vec<_> = chain.iter().skip(at + 1).map(ToString::to_string).collect();
        return anyhow!("the storage can't be asked: {}", causes.join(": "));
    }
    let text = error.to_string();
    let between = |from: &str, to: &str| Some(text.split_once(from)?.1.split_once(to)?.0.trim().to_owned());
    if let Some(code) = between("<Code>", "</Code>") {
        return match between("<Message>", "</Message>").filter(|message| !message.is_empty()) {
            Some(message) => anyhow!("the storage answers {code}: {message}"),
            None => anyhow!("the storage answers {code}"),
        };
    }
    if let Some(status) = between("non-2xx status code: ", ":") {
        return anyhow!(
            "the storage answers {status}, without S3's words for it; does archive.s3_endpoint name S3-compatible storage?"
        );
    }
    anyhow!("the storage's answer can't be understood: {}", text.split('<').next().unwrap_or_default())
}

/// HTTP as the rest of the program speaks it.
#[derive(Debug, Clone)]
struct Http {
    client: Client<HttpsConnector<TcpConnector>, HttpRequestBody>,
    timeout: Duration,
}

impl Http {
    fn new(s3: &S3) -> anyhow::Result<Self> {
        let tls = Tls { ca_location: s3.ca_location.clone(), ..Tls::default() };
        let connector = auditstream_store::connector(&tls, s3.is_plain(), s3.timeout);
        let connector = connector.map_err(|message| anyhow!("archive.s3_{message}"))?;
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client, timeout: s3.timeout })
    }
}

impl HttpConnector for Http {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Http {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let late = |_| HttpError::new(HttpErrorKind::Timeout, no_answer(self.timeout));
        let answer = tokio::time::timeout(self.timeout, self.client.request(request)).await.map_err(late)?;
        let answer = answer.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
            HttpError::new(kind, error)
        })?;
        let patience = self.timeout;
        let patient = |body| Patient { body, patience, waiting: None };
        Ok(answer.map(|body| HttpResponseBody::new(patient(body))))
    }
}

fn no_answer(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))
}

/// An answer's body that fails when nothing of it comes for too long. Only waiting counts: whoever reads may take their time.
struct Patient {
    body: Incoming,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Body for Patient {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waiting = None;
            let broken = |error| HttpError::new(HttpErrorKind::Interrupted, error);
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        let until = Instant::now() + this.patience;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Timeout, no_answer(this.patience)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_the_server_means_and_not_what_it_repeats() {
        let answer = "Error performing GET http://127.0.0.1:1/b in 1ms - Server returned non-2xx status code: 403 Forbidden: \
                      <Error><Code>SignatureDoesNotMatch</Code><Message>Check your key.</Message>\
                      <CanonicalRequest>x-amz-security-token:hunter2</CanonicalRequest></Error>";
        let said = told(&io::Error::other(answer)).to_string();
        assert_eq!(said, "the storage answers SignatureDoesNotMatch: Check your key.");
        let silent = told(&io::Error::other("<Code>NoSuchKey</Code><Message></Message>")).to_string();
        assert_eq!(silent, "the storage answers NoSuchKey");
        let page = "Server returned non-2xx status code: 404 Not Found: <html>hunter2</html>";
        let said = told(&io::Error::other(page)).to_string();
        assert!(said.starts_with("the storage answers 404 Not Found,") && !said.contains("hunter2"), "{said}");
        let odd = told(&io::Error::other("Got invalid list response: <xml>hunter2</xml>")).to_string();
        assert!(odd.ends_with("Got invalid list response: "), "{odd}");
    }

    #[test]
    fn a_connection_that_fails_is_told_by_its_causes() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let said = told(&HttpError::new(HttpErrorKind::Connect, refused)).to_string();
        assert_eq!(said, "the storage can't be asked: connection refused");
    }
}
