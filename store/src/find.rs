//! One event, by what it is about and its id.

use uuid::Uuid;

use crate::client::{Store, quoted};
use crate::errors::CallError;

impl Store {
    /// Whether `events` has this event. Takes the way of the primary key, so it is quick however many there are.
    ///
    /// # Errors
    /// When ClickHouse refuses or does not answer within the query timeout.
    pub async fn has_event(
        &self,
        tenant_id: &str,
        entity_type: &str,
        entity_id: &str,
        event_id: Uuid,
    ) -> Result<bool, CallError> {
        let sql = format!(
            "SELECT count() FROM `{}`.events WHERE tenant_id = {} AND entity_type = {} AND entity_id = {} AND event_id = '{event_id}'",
            self.database(),
            quoted(tenant_id),
            quoted(entity_type),
            quoted(entity_id)
        );
        Ok(self.fetch_one::<u64>(&sql).await? > 0)
    }
}
