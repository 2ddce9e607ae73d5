//! Who is logged in, in memory: enough for an example.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, header};
use uuid::Uuid;

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

    pub(crate) fn user(&self, session: Uuid) -> Option<Arc<str>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&session).cloned()
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

pub(crate) fn bearer(headers: &HeaderMap) -> Option<Uuid> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.parse().ok()
}
