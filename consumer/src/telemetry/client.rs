//! The exporter's HTTP client: requests run on the worker's runtime, and failures are said once in ten seconds.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

use super::REQUEST_TIMEOUT;
use crate::metrics::Metrics;
use crate::quiet::Quiet;

/// Sends for the exporter's thread, which is none of the runtime's.
pub(super) struct Client {
    inner: Arc<dyn HttpClient>,
    runtime: Handle,
    metrics: Arc<Metrics>,
    quiet: Mutex<Quiet<()>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// For `url`, whose scheme says whether TLS is used. Fails when TLS is used and the system has no certificate authorities.
    pub(super) fn new(url: &str, runtime: Handle, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let inner: Arc<dyn HttpClient> = if url.starts_with("https:") {
            let connector =
                hyper_rustls::HttpsConnectorBuilder::new().with_native_roots()?.https_only().enable_http1().build();
            Arc::new(HyperClient::new(connector, REQUEST_TIMEOUT, None))
        } else {
            Arc::new(HyperClient::with_default_connector(REQUEST_TIMEOUT, None))
        };
        Ok(Self { inner, runtime, metrics, quiet: Mutex::default() })
    }

    fn failed(&self, reason: &str) {
        self.metrics.trace_export_failures.inc();
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left_out) = quiet.allows((), Instant::now()) {
            tracing::warn!(reason, left_out, "traces could not be sent to the collector; the worker goes on");
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let inner = Arc::clone(&self.inner);
        let answer = self.runtime.spawn(async move { inner.send_bytes(request).await }).await;
        let answer = answer.unwrap_or_else(|_| Err("the runtime has ended".into()));
        match &answer {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => self.failed(&format!("it answered with status {}", response.status().as_u16())),
            Err(error) => self.failed(&chain(error.as_ref())),
        }
        answer
    }
}

/// The error and its causes: hyper's own words are only that it could not connect.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
