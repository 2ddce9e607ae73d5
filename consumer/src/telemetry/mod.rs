//! Traces over OTLP: a span for each sampled batch, linked to the spans of the producers whose events it made queryable.
//!
//! What it promises: it never slows or stops the worker. Spans wait in a bounded queue (`OTEL_BSP_MAX_QUEUE_SIZE`, 2,048 by default) for a thread that
//! sends them; when the queue is full they are dropped, and a collector that does not answer costs a log line every ten seconds. Whether a batch is sampled is
//! decided before its first record, so that headers are parsed in sampled batches only; without an endpoint there is nothing of this but an empty `Option`.

mod batch;
mod client;
pub(crate) mod traceparent;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::Uri;
use opentelemetry::trace::{SpanContext, SpanKind, TracerProvider as _};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

pub(crate) use self::batch::{BatchTrace, Step};
use self::client::Client;
use crate::metrics::Metrics;

/// Producers' spans that one batch is linked to, at most; the first ones.
pub(crate) const MAX_LINKS: usize = 128;
/// Records of a batch whose headers are looked at, at most; the first ones. Looking at those of every record takes a quarter more CPU time than the worker
/// takes without traces.
const MAX_LOOKED_AT: usize = 10_000;
/// Longest time for one request to the collector.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// What is left in the queue is sent within this time when the worker ends, or dropped.
const FLUSH_BOUND: Duration = Duration::from_secs(2);
/// All of a [`Traces::ratio`].
const WHOLE: u32 = 1_000_000;

/// Where traces go, and how many.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// Base URL of an OTLP collector over HTTP with protobuf, such as `http://127.0.0.1:4318`; `/v1/traces` is added unless it is there.
    pub otlp_endpoint: String,
    /// Part of the batches that are traced, 0 to 1.
    pub sample_ratio: f64,
}

impl Telemetry {
    /// Checks the endpoint without connecting.
    ///
    /// # Errors
    /// What is wrong with it, to stand behind its name.
    pub fn validate(&self) -> Result<(), &'static str> {
        let uri: Option<Uri> = self.otlp_endpoint.parse().ok();
        let uri = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
        match uri.and_then(|uri| uri.authority().cloned()) {
            None => Err("is no URL such as \"http://127.0.0.1:4318\", the collector's OTLP over HTTP"),
            Some(authority) if authority.as_str().contains('@') => Err(
                "holds a user name or password, which would be shown in logs: give them as OTEL_EXPORTER_OTLP_HEADERS=authorization=...",
            ),
            Some(_) => Ok(()),
        }
    }
}

/// Why traces can't be exported. A collector that is away is no error.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The system has no certificate authorities, so no collector over https can be believed.
    #[error("the system's certificate authorities can't be read, which https needs")]
    Authorities(#[source] std::io::Error),
    /// The endpoint or one of the `OTEL_…` variables.
    #[error("the otlp exporter refused its settings")]
    Exporter(#[source] ExporterBuildError),
}

/// What the spans say of this worker.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) topic: Arc<str>,
    pub(crate) group: String,
    pub(crate) worker_id: Arc<str>,
}

/// The tracer, and which batches it traces.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    identity: Arc<Identity>,
    /// Millionths of the batches.
    ratio: u32,
    /// Grows by `ratio` a batch; a whole is a sampled one.
    due: u32,
    /// The last traced batch that was stored and not yet committed.
    stored: Option<SpanContext>,
    committing: Option<(SpanContext, SystemTime)>,
}

impl Traces {
    /// Starts the exporter's thread; requests run on `runtime`.
    pub(crate) fn start(
        config: &Telemetry,
        identity: Identity,
        runtime: Handle,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TelemetryError> {
        let url = traces_url(&config.otlp_endpoint);
        let client = Client::new(&url, runtime, metrics).map_err(TelemetryError::Authorities)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(url)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(TelemetryError::Exporter)?;
        let resource = Resource::builder()
            .with_attributes([
                KeyValue::new("service.name", "auditstream-consumer"),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", Arc::clone(&identity.worker_id)),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            // Whoever is not sampled has no span.
            .with_sampler(Sampler::AlwaysOn)
            .with_max_links_per_span(MAX_LINKS as u32)
            .with_resource(resource)
            .build();
        let scope = InstrumentationScope::builder("auditstream-consumer").with_version(env!("CARGO_PKG_VERSION"));
        Ok(Self::new(provider.tracer_with_scope(scope.build()), provider, identity, config.sample_ratio))
    }

    fn new(tracer: SdkTracer, provider: SdkTracerProvider, identity: Identity, sample_ratio: f64) -> Self {
        let ratio = (sample_ratio.clamp(0.0, 1.0) * f64::from(WHOLE)).round() as u32;
        // The first batch is one of the sampled ones.
        let due = if ratio > 0 { WHOLE - ratio } else { 0 };
        Self { provider, tracer, identity: Arc::new(identity), ratio, due, stored: None, committing: None }
    }

    /// The trace of the next batch to be filled, if it is sampled: evenly spread, so that the ratio holds for few batches too.
    pub(crate) fn next_batch(&mut self) -> Option<Box<BatchTrace>> {
        self.due += self.ratio;
        let is_sampled = self.due >= WHOLE;
        if is_sampled {
            self.due -= WHOLE;
        }
        is_sampled.then(|| Box::new(BatchTrace::new(self.tracer.clone(), Arc::clone(&self.identity))))
    }

    /// A traced batch is stored; the next commit belongs to its trace.
    pub(crate) fn batch_stored(&mut self, batch: SpanContext) {
        self.stored = Some(batch);
    }

    /// A commit begins.
    pub(crate) fn commit_began(&mut self) {
        self.committing = self.stored.take().map(|batch| (batch, SystemTime::now()));
    }

    /// The broker has answered it, or refused it with `error`.
    pub(crate) fn commit_ended(&mut self, error: Option<String>) {
        let Some((batch, began)) = self.committing.take() else { return };
        let attributes = vec![
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.name", "commit"),
            KeyValue::new("messaging.operation.type", "settle"),
            KeyValue::new("messaging.destination.name", Arc::clone(&self.identity.topic)),
            KeyValue::new("messaging.consumer.group.name", self.identity.group.clone()),
        ];
        let span = batch::Child { name: "audit.commit", kind: SpanKind::Client, began, attributes, error };
        span.export(&self.tracer, &batch);
    }

    /// Sends what is left, on a thread of its own; [`Flush::wait`] waits for it.
    pub(crate) fn flush(self) -> Flush {
        let (done, ended) = std::sync::mpsc::channel();
        let spawned = std::thread::Builder::new().name("otlp-flush".into()).spawn(move || {
            // A failed request has said so.
            let _ = self.provider.shutdown_with_timeout(FLUSH_BOUND);
            // The receiver may be gone.
            let _ = done.send(());
        });
        Flush { began: std::time::Instant::now(), ended: spawned.is_ok().then_some(ended) }
    }
}

/// Traces on their way out.
pub(crate) struct Flush {
    began: std::time::Instant,
    ended: Option<std::sync::mpsc::Receiver<()>>,
}

impl Flush {
    /// Waits until the traces are sent, at most until two seconds after [`Traces::flush`].
    pub(crate) fn wait(self) {
        let left = FLUSH_BOUND.saturating_sub(self.began.elapsed());
        if self.ended.is_some_and(|ended| ended.recv_timeout(left).is_err()) {
            tracing::warn!("the last traces could not be sent in time");
        }
    }
}

/// The endpoint's path for traces; the standard's variable names the base.
fn traces_url(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(sample_ratio: f64) -> Traces {
        let provider = SdkTracerProvider::builder().build();
        let identity = Identity { topic: "t".into(), group: "g".into(), worker_id: "w".into() };
        Traces::new(provider.tracer("test"), provider, identity, sample_ratio)
    }

    #[test]
    fn the_ratio_holds_from_the_first_batch_on() {
        for (ratio, batches, sampled) in [
            (0.0, 1_000, 0),
            (1.0, 1_000, 1_000),
            (0.1, 1, 1),
            (0.1, 10, 1),
            (0.1, 11, 2),
            (0.25, 1_000, 250),
            (0.001, 1_000, 1),
        ] {
            let mut traces = traces(ratio);
            let found = (0..batches).filter(|_| traces.next_batch().is_some()).count();
            assert_eq!(found, sampled, "{ratio} of {batches}");
        }
    }

    #[test]
    fn the_path_is_added_once() {
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(traces_url(endpoint), "http://c:4318/v1/traces");
        }
        assert_eq!(traces_url("https://c/otlp"), "https://c/otlp/v1/traces");
    }
}
