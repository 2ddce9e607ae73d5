//! The requests. None of them passes the request's context along, and none knows what becomes of its event.

use auditstream_producer::context::RequestContext;
use auditstream_producer::outbox::RecordError;
use auditstream_schemas::{Outcome, Priority};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::App;
use crate::audit::{Trail, actor};
use crate::orders::{NewOrder, Order, Patch};
use crate::sessions::LoggedIn;

/// Orders of one import.
const MAX_IMPORT: usize = 1_000;

/// Why a request is refused or failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("log in first")]
    NotLoggedIn,
    #[error("wrong user or password")]
    WrongPassword,
    #[error("no such order")]
    NotFound,
    #[error("at most {MAX_IMPORT} orders at once")]
    TooMany,
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("no random numbers")]
    Random(#[from] getrandom::Error),
    #[error("the audit event could not be made")]
    Audit(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the audit event could not be written")]
    Outbox(#[from] RecordError),
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match &self {
            Problem::NotLoggedIn | Problem::WrongPassword => StatusCode::UNAUTHORIZED,
            Problem::NotFound => StatusCode::NOT_FOUND,
            Problem::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::Database(error) => {
                tracing::error!(%error, "the database failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Problem::Random(error) => {
                tracing::error!(%error, "no random numbers");
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Problem::Audit(error) => {
                tracing::error!(%error, "the audit event could not be made");
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Problem::Outbox(error) => {
                tracing::error!(%error, "the audit event could not be written");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        (status, self.to_string()).into_response()
    }
}

type Answer<T> = Result<Json<T>, Problem>;

#[derive(Deserialize)]
pub(crate) struct Credentials {
    user: String,
    password: String,
}

#[derive(Serialize)]
pub(crate) struct Session {
    session: String,
}

pub(crate) async fn login(State(app): State<App>, Json(given): Json<Credentials>) -> Answer<Session> {
    // A name that nobody can have is not worth an event's key.
    if given.user.is_empty() || given.user.len() > 64 {
        return Err(Problem::WrongPassword);
    }
    let good = given.password == *app.password;
    if good && let Some(context) = RequestContext::current() {
        context.set_actor(actor(&given.user));
    }
    let outcome = if good { Outcome::Success } else { Outcome::Denied };
    let event = |trail: &Trail| {
        Ok(trail.event("user.login", "user", &given.user).outcome(outcome).priority(Priority::Critical))
    };
    app.audit.note(&app.database, event).await?;
    if !good {
        return Err(Problem::WrongPassword);
    }
    Ok(Json(Session { session: app.sessions.begin(&given.user)?.to_string() }))
}

pub(crate) async fn create(_: LoggedIn, State(app): State<App>, Json(new): Json<NewOrder>) -> Answer<Order> {
    let order = Order::from(new);
    let mut unit = app.audit.begin(&app.database).await?;
    Order::insert(&mut unit.tx, std::slice::from_ref(&order)).await?;
    unit.audit(|trail| trail.create(&order)).await?;
    unit.commit().await?;
    Ok(Json(order))
}

pub(crate) async fn read(_: LoggedIn, State(app): State<App>, Path(id): Path<String>) -> Answer<Order> {
    let order = Order::find(&app.database, &id).await?.ok_or(Problem::NotFound)?;
    app.audit.note(&app.database, |trail| Ok(trail.read(&order))).await?;
    Ok(Json(order))
}

pub(crate) async fn update(
    _: LoggedIn,
    State(app): State<App>,
    Path(id): Path<String>,
    Json(patch): Json<Patch>,
) -> Answer<Order> {
    let mut unit = app.audit.begin(&app.database).await?;
    let before = Order::lock(&mut unit.tx, &id).await?.ok_or(Problem::NotFound)?;
    let after = before.patched(patch);
    after.update(&mut unit.tx).await?;
    unit.audit(|trail| trail.update(&before, &after)).await?;
    unit.commit().await?;
    Ok(Json(after))
}

pub(crate) async fn cancel(_: LoggedIn, State(app): State<App>, Path(id): Path<String>) -> Answer<Order> {
    let mut unit = app.audit.begin(&app.database).await?;
    let before = Order::lock(&mut unit.tx, &id).await?.ok_or(Problem::NotFound)?;
    let after = Order { status: "cancelled".to_owned(), ..before.clone() };
    after.update(&mut unit.tx).await?;
    // The same difference under the name of what was done.
    unit.audit(|trail| Ok(trail.update(&before, &after)?.with(|event| event.action = "order.cancel".to_owned())))
        .await?;
    unit.commit().await?;
    Ok(Json(after))
}

#[derive(Serialize)]
pub(crate) struct Imported {
    ids: Vec<String>,
}

pub(crate) async fn import(_: LoggedIn, State(app): State<App>, Json(new): Json<Vec<NewOrder>>) -> Answer<Imported> {
    if new.len() > MAX_IMPORT {
        return Err(Problem::TooMany);
    }
    let orders: Vec<Order> = new.into_iter().map(Order::from).collect();
    let mut unit = app.audit.begin(&app.database).await?;
    Order::insert(&mut unit.tx, &orders).await?;
    unit.audit_all(|trail| {
        let mut events = orders.iter().map(|order| trail.create(order)).collect::<Result<Vec<_>, _>>()?;
        let details = format!("{{\"orders\":{}}}", orders.len());
        events.push(trail.event("order.bulk_create", "import", Uuid::now_v7().to_string()).details(details));
        Ok(events)
    })
    .await?;
    unit.commit().await?;
    Ok(Json(Imported { ids: orders.into_iter().map(|order| order.id).collect() }))
}
