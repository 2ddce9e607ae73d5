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
//! `--audit` says what becomes of the events, so that the three can be measured side by side: `none`, nothing; `sync`, a row in
//! an audit table of the service's own database before the answer goes out; `stream`, auditstream.
//!
//! Where to look: [`audit`] is the one place that knows of the three; `handlers` is what a service looks like with it; the
//! derive at [`orders::Order`] says what the trail shows of an order.

pub mod audit;
mod handlers;
pub mod orders;
mod sessions;

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use auditstream_producer::context::AuditContextLayer;
use auditstream_schemas::Actor;
use axum::Router;
use axum::routing::{get, post};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::net::TcpListener;

use audit::Audit;
use sessions::Sessions;

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct App {
    database: SqlitePool,
    audit: Audit,
    sessions: Sessions,
    password: std::sync::Arc<str>,
}

/// What a service needs to be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Such as `sqlite:orders.db`; made if it is not there.
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
    let database = open(&settings.database).await?;
    let sessions = Sessions::default();
    let layer = context_layer(&settings, sessions.clone())?;
    let app = App { database: database.clone(), audit: audit.clone(), sessions, password: settings.password.into() };
    let service = router(app, layer).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await.context("serving failed")?;
    let drained = audit.shutdown(Duration::from_secs(10)).await;
    database.close().await;
    drained
}

/// Who is calling is known from the session before any handler runs.
fn context_layer(settings: &Settings, sessions: Sessions) -> anyhow::Result<AuditContextLayer> {
    let ranges = settings.trusted_proxies.iter().map(String::as_str);
    let layer = AuditContextLayer::new().trust_proxies(ranges).context("trusted proxies")?;
    Ok(layer.actor(move |parts| {
        let session = sessions::bearer(&parts.headers)?;
        let user = sessions.user(session)?;
        // The trail tells sessions apart; who has the trail must not have the session.
        Some(Actor { name: Some(user.to_string()), ..Actor::user(user.to_string()) })
    }))
}

/// The layer stands behind the routes, so that it sees which one was taken.
fn router(app: App, layer: AuditContextLayer) -> Router {
    Router::new()
        .route("/login", post(handlers::login))
        .route("/orders", post(handlers::create))
        .route("/orders/import", post(handlers::import))
        .route("/orders/{id}", get(handlers::read).patch(handlers::update))
        .route("/orders/{id}/cancel", post(handlers::cancel))
        .layer(layer)
        .with_state(app)
}

async fn open(url: &str) -> anyhow::Result<SqlitePool> {
    let options = SqliteConnectOptions::from_str(url)
        .context("the database's URL, such as sqlite:orders.db")?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(10));
    let pool =
        SqlitePoolOptions::new().max_connections(4).connect_with(options).await.context("opening the database")?;
    for table in [orders::TABLE, audit::TABLE] {
        sqlx::query(table).execute(&pool).await.context("making the tables")?;
    }
    Ok(pool)
}
