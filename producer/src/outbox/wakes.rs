//! What wakes an idle relay before its next look.

use super::config::RelayConfig;
#[cfg(feature = "outbox-postgres")]
use super::database::{Dialect, chain};

/// What wakes an idle relay before its next look: PostgreSQL's NOTIFY, where the service sends it.
pub(crate) struct Wakes {
    #[cfg(feature = "outbox-postgres")]
    listener: Option<sqlx::postgres::PgListener>,
}

impl Wakes {
    #[cfg(feature = "outbox-postgres")]
    pub(crate) async fn listen(config: &RelayConfig) -> Self {
        if !matches!(Dialect::of_url(&config.url), Ok(Dialect::Postgres)) {
            return Self { listener: None };
        }
        let listening = async {
            let mut listener = sqlx::postgres::PgListener::connect(&config.url).await?;
            listener.listen(config.table.base()).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match listening.await {
            Ok(listener) => Self { listener: Some(listener) },
            Err(error) => {
                tracing::warn!(error = chain(&error), "no notifications; the relay looks by itself");
                Self { listener: None }
            }
        }
    }

    #[cfg(not(feature = "outbox-postgres"))]
    pub(crate) async fn listen(_config: &RelayConfig) -> Self {
        Self {}
    }

    /// Ready when there may be something new.
    pub(crate) async fn next(&mut self) {
        #[cfg(feature = "outbox-postgres")]
        if let Some(listener) = &mut self.listener {
            match listener.recv().await {
                Ok(_) => {
                    // Those that came during a round speak of rows that it may have taken; one look serves them all.
                    while listener.next_buffered().is_some() {}
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "no notifications any more; the relay looks by itself");
                    self.listener = None;
                }
            }
        }
        std::future::pending::<()>().await;
    }
}
