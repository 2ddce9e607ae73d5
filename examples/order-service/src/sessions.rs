//! Who is logged in, in memory: enough for an example.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use uuid::Uuid;

use crate::App;
use crate::handlers::Problem;

/// So many people at once; then everybody logs in again.
const MAX_SESSIONS: usize = 10_000;

#[derive(Clone, Default)]
pub(crate) struct Sessions(Arc<RwLock<HashMap<Uuid, Arc<str>>>>);

impl Sessions {
    /// The secret that the user shows from now on.
    pub(crate) fn begin(&self, user: &str) -> Result<Uuid, getrandom::Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let session = uuid::Builder::from_random_bytes(random).into_uuid();
        let mut sessions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MAX_SESSIONS {
            sessions.clear();
        }
        sessions.insert(session, user.into());
        Ok(session)
    }

    /// Who shows a session that was begun.
    pub(crate) fn user(&self, headers: &HeaderMap) -> Option<Arc<str>> {
        let session = bearer(headers)?;
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&session).cloned()
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

fn bearer(headers: &HeaderMap) -> Option<Uuid> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.parse().ok()
}

/// Whoever asks is logged in; a handler that takes this is reached by nobody else. It has nothing to do with the audit trail, which may be off.
pub(crate) struct LoggedIn;

impl FromRequestParts<App> for LoggedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<LoggedIn, Problem> {
        app.sessions.user(&parts.headers).map(|_| LoggedIn).ok_or(Problem::NotLoggedIn)
    }
}
