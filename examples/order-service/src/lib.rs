//! A small shop service whose every request leaves an audit event: what it takes to add auditstream to an axum service with sqlx.
//!
//! ```text
//! order-service --listen 127.0.0.1:8080 --database sqlite:orders.db --audit stream --kafka 127.0.0.1:9092
//!
//! curl -s 127.0.0.1:8080/login -d '{"user":"ann","password":"demo"}' -H 'content-type: application/json'
//! S='authorization: Bearer SESSION-OF-THE-ANSWER'; J='content-type: application/json'
//! curl -s 127.0.0.1:8080/orders -H "$S" -H "$J" \
//!     -d '{"customer":"Bob","email":"bob@example.org","items":[{"sku":"tea","quantity":2,"price_cents":450}]}'
//! curl -s 127.0.0.1:8080/orders/ID -H "$S"
//! curl -s -X PATCH 127.0.0.1:8080/orders/ID -H "$S" -H "$J" -d '{"status":"paid"}'
//! curl -s -X POST 127.0.0.1:8080/orders/ID/cancel -H "$S"
//! curl -s 127.0.0.1:8080/orders/import -H "$S" -H "$J" -d '[{"customer":"Cy","email":"cy@example.org","items":[]}]'
//! ```
//!
//! `--database` is a file of SQLite's by default, `postgres://user:password@host/database` a server.
//!
//! `--audit` says what becomes of the events, so that the three can be measured side by side: `none`, nothing; `sync`, a row in
//! an audit table of the service's own database before the answer goes out; `stream`, auditstream. There everything that
//! changes orders goes to the outbox, in the transaction of the change, and a relay moves it on: inside of this process, or
//! with `--no-relay` by `auditstream relay` beside it. Reads and logins go to Kafka directly.
//!
//! Where to look: [`audit`] is the one place that knows of the three; `handlers` is what a service looks like with it; the
//! derive at [`orders::Order`] says what the trail shows of an order.

pub mod audit;
pub mod database;
mod handlers;
pub mod orders;
mod sessions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use auditstream_producer::context::AuditContextLayer;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::{get, post};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use audit::Audit;
use database::Database;
use sessions::Sessions;

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct App {
    database: Database,
    audit: Audit,
    sessions: Sessions,
    password: std::sync::Arc<str>,
}

/// What a service needs to be told.
#[derive(Clone)]
pub struct Settings {
    /// Such as `sqlite:orders.db`, made if it is not there, or `postgres://user:password@host/database`.
    pub database: String,
    /// The password of every user: this is an example.
    pub password: String,
    /// Ranges of proxies that are believed about the client's address.
    pub trusted_proxies: Vec<String>,
}

/// Serves until `shutdown` is done, answers the requests that are under way, and drains the audit trail.
///
/// # Errors
/// A database that can't be opened, a range that is none, or audit events that were not acknowledged in time.
pub async fn run(
    listener: TcpListener,
    settings: Settings,
    audit: Audit,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let database = Database::open(&settings.database).await?;
    database.make(&[orders::TABLE.to_owned()]).await.context("making the table of orders")?;
    audit.make_tables(&database).await?;
    let relay = audit.start_relay(&settings.database);
    let sessions = Sessions::default();
    let mut routes = routes();
    // Without an audit trail nobody asks for the request's context.
    if audit.is_on() {
        routes = routes.layer(context_layer(&settings, sessions.clone())?);
    }
    // Behind the layer: nobody audits the scrapes.
    let routes = routes.merge(metrics(audit.metrics()));
    let app = App { database: database.clone(), audit: audit.clone(), sessions, password: settings.password.into() };
    let service = routes.with_state(app).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await.context("serving failed")?;
    let drained = audit.shutdown(Duration::from_secs(10)).await;
    let settled = match relay {
        Some(relay) => relay.stop().await,
        None => Ok(()),
    };
    database.close().await;
    drained.and(settled)
}

/// Who is calling is known from the session before any handler runs.
fn context_layer(settings: &Settings, sessions: Sessions) -> anyhow::Result<AuditContextLayer> {
    let ranges = settings.trusted_proxies.iter().map(String::as_str);
    let layer = AuditContextLayer::new().trust_proxies(ranges).context("trusted proxies")?;
    Ok(layer.actor(move |parts| sessions.user(&parts.headers).map(|user| audit::actor(&user))))
}

/// `/metrics` for Prometheus.
fn metrics(registry: Registry) -> Router<App> {
    let registry = Arc::new(registry);
    let render = move || {
        let mut text = String::new();
        // Writing to a String can't fail.
        let rendered = prometheus_client::encoding::text::encode(&mut text, &registry);
        async move {
            let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
            rendered.map(|()| (kind, text)).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
        }
    };
    Router::new().route("/metrics", get(render))
}

/// The layer goes behind these, so that it sees which one was taken.
fn routes() -> Router<App> {
    Router::new()
        .route("/login", post(handlers::login))
        .route("/orders", post(handlers::create))
        .route("/orders/import", post(handlers::import))
        .route("/orders/{id}", get(handlers::read).patch(handlers::update))
        .route("/orders/{id}/cancel", post(handlers::cancel))
}
