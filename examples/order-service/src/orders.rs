//! Orders and the table they are in.

use auditstream_producer::audited::Audited;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Executor, Row, Sqlite};
use uuid::Uuid;

/// The table of orders.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY, customer TEXT NOT NULL, email TEXT NOT NULL, status TEXT NOT NULL, items TEXT NOT NULL
) STRICT";

/// An order, as it is stored, answered and audited.
#[derive(Debug, Clone, Serialize, Audited)]
#[audit(entity = "order", id = "id")]
pub struct Order {
    /// Made by the service.
    pub id: String,
    /// Who ordered.
    pub customer: String,
    /// Equal addresses stay searchable in the trail, and nobody reads them there.
    #[audit(redact = "hmac")]
    pub email: String,
    /// `open`, `paid` or `cancelled`.
    pub status: String,
    /// What was ordered.
    pub items: Vec<Item>,
}

/// One line of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Item {
    /// Which article.
    pub sku: String,
    /// How many.
    pub quantity: u32,
    /// The price of one, in cents.
    pub price_cents: u64,
}

/// What a new order is made of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    customer: String,
    email: String,
    items: Vec<Item>,
}

impl From<NewOrder> for Order {
    fn from(new: NewOrder) -> Order {
        let NewOrder { customer, email, items } = new;
        Order { id: Uuid::now_v7().to_string(), customer, email, status: "open".to_owned(), items }
    }
}

/// What may be changed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    email: Option<String>,
    status: Option<String>,
    items: Option<Vec<Item>>,
}

impl Order {
    /// The order after a change.
    pub fn patched(&self, patch: Patch) -> Order {
        let old = self.clone();
        Order {
            email: patch.email.unwrap_or(old.email),
            status: patch.status.unwrap_or(old.status),
            items: patch.items.unwrap_or(old.items),
            ..old
        }
    }

    /// The order with this id.
    ///
    /// # Errors
    /// The database's.
    pub async fn find<'c>(by: impl Executor<'c, Database = Sqlite>, id: &str) -> sqlx::Result<Option<Order>> {
        let query = sqlx::query("SELECT id, customer, email, status, items FROM orders WHERE id = $1").bind(id);
        query.fetch_optional(by).await?.map(Order::from_row).transpose()
    }

    fn from_row(row: SqliteRow) -> sqlx::Result<Order> {
        let items: String = row.try_get("items")?;
        Ok(Order {
            id: row.try_get("id")?,
            customer: row.try_get("customer")?,
            email: row.try_get("email")?,
            status: row.try_get("status")?,
            items: serde_json::from_str(&items).map_err(|error| sqlx::Error::Decode(error.into()))?,
        })
    }

    /// Stores the order, new or changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn store<'c>(&self, by: impl Executor<'c, Database = Sqlite>) -> sqlx::Result<()> {
        let items = serde_json::to_string(&self.items).map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query(
            "INSERT INTO orders (id, customer, email, status, items) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (id) DO UPDATE SET email = excluded.email, status = excluded.status, items = excluded.items",
        )
        .bind(&self.id)
        .bind(&self.customer)
        .bind(&self.email)
        .bind(&self.status)
        .bind(items)
        .execute(by)
        .await?;
        Ok(())
    }
}
