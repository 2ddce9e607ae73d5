//! `/livez`, `/readyz` and `/metrics` for Kubernetes and Prometheus.
//!
//! Alive means that the loop makes progress, not that ClickHouse is up: a worker that waits for ClickHouse is doing its work, and a restart
//! would not help. Ready means that the worker owns partitions or stands by as a member of the group. A worker whose group an operator has paused
//! is both, and says so: it does what it was told, and an unready one would hold up every rolling update.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// A loop that has not come round for this long hangs: each of its steps is bounded by far less.
const STALL: Duration = Duration::from_secs(60);

/// What the loop tells the probes.
#[derive(Debug)]
pub(crate) struct Health {
    started: Instant,
    last_turn_ms: AtomicU64,
    member: AtomicBool,
    stopping: AtomicBool,
    suspended: AtomicBool,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            last_turn_ms: AtomicU64::new(0),
            member: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The loop has come round.
    pub(crate) fn turn(&self) {
        self.last_turn_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The group has answered with an assignment, empty or not.
    pub(crate) fn is_member(&self) {
        self.member.store(true, Ordering::Relaxed);
    }

    /// An operator has paused the group, or has ended that.
    pub(crate) fn is_suspended(&self, suspended: bool) {
        self.suspended.store(suspended, Ordering::Relaxed);
    }

    /// The worker no longer takes work.
    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn alive(&self) -> Result<(), String> {
        let idle = Duration::from_millis(self.now_ms().saturating_sub(self.last_turn_ms.load(Ordering::Relaxed)));
        if idle <= STALL { Ok(()) } else { Err(format!("the loop has not come round for {} s", idle.as_secs())) }
    }

    fn ready(&self) -> Result<&'static str, &'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            Err("stopping")
        } else if self.member.load(Ordering::Relaxed) {
            Ok(if self.suspended.load(Ordering::Relaxed) { "paused by an operator" } else { "ok" })
        } else {
            Err("the group has not assigned partitions yet")
        }
    }
}

struct Served {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// Binds `address`; the server runs until its task is dropped with the runtime.
pub(crate) async fn serve(
    address: SocketAddr,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(Arc::new(Served { health, metrics }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the probe server ended");
        }
    });
    Ok(bound)
}

async fn livez(State(served): State<Arc<Served>>) -> Response {
    match served.health.alive() {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn readyz(State(served): State<Arc<Served>>) -> Response {
    match served.health.ready() {
        Ok(how) => format!("{how}\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn render(State(served): State<Arc<Served>>) -> Response {
    match served.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
