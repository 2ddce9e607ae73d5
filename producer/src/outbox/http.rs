//! `/livez`, `/readyz` and `/metrics` of a relay.
//!
//! Alive means that the loop comes round, not that Kafka or the database is up: a relay that waits for one of them does its work. Ready means that the
//! database answers and the leases are looked after.

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

use super::metrics::Metrics;

/// A loop that has not come round for this long hangs: it looks after its leases far more often.
const STALL: Duration = Duration::from_secs(120);

/// What the loop tells the probes.
#[derive(Debug)]
pub(crate) struct Health {
    started: Instant,
    last_turn_ms: AtomicU64,
    database: AtomicBool,
    stopping: AtomicBool,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            last_turn_ms: AtomicU64::new(0),
            database: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The loop has come round.
    pub(crate) fn turn(&self) {
        self.last_turn_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    pub(crate) fn database(&self, answers: bool) {
        self.database.store(answers, Ordering::Relaxed);
    }

    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn alive(&self) -> Result<(), &'static str> {
        let idle = self.now_ms().saturating_sub(self.last_turn_ms.load(Ordering::Relaxed));
        if Duration::from_millis(idle) <= STALL { Ok(()) } else { Err("the loop has not come round for two minutes") }
    }

    fn ready(&self) -> Result<(), &'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            Err("stopping")
        } else if self.database.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err("the database does not answer")
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
        .route("/livez", get(|State(served): State<Arc<Served>>| async move { answer(served.health.alive()) }))
        .route("/readyz", get(|State(served): State<Arc<Served>>| async move { answer(served.health.ready()) }))
        .route("/metrics", get(|State(served): State<Arc<Served>>| async move { figures(&served.metrics) }))
        .with_state(Arc::new(Served { health, metrics }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the probe server ended");
        }
    });
    Ok(bound)
}

fn answer(state: Result<(), &'static str>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

fn figures(metrics: &Metrics) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
