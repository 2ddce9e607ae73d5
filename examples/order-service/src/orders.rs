//! Orders and the table they are in.

use auditstream_producer::audited::Audited;
use serde::{Deserialize, Serialize};
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::database::{Database, Tx, reading, within};

/// The table of orders.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY, customer TEXT NOT NULL, email TEXT NOT NULL, status TEXT NOT NULL, items TEXT NOT NULL
)";
const FIND: &str = "SELECT id, customer, email, status, items FROM orders WHERE id = $1";

/// In the order of the table's columns.
type Columns = (String, String, String, String, String);

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
    pub async fn find(database: &Database, id: &str) -> sqlx::Result<Option<Order>> {
        let row: Option<Columns> = reading!(database, by => sqlx::query_as(FIND).bind(id).fetch_optional(by).await?);
        row.map(Order::of).transpose()
    }

    /// The same, and nobody else changes it until the transaction ends.
    ///
    /// # Errors
    /// The database's.
    pub async fn lock(tx: &mut Tx, id: &str) -> sqlx::Result<Option<Order>> {
        let sql = [FIND, tx.for_update()].concat();
        let row: Option<Columns> = within!(tx, by => sqlx::query_as(&sql).bind(id).fetch_optional(by).await?);
        row.map(Order::of).transpose()
    }

    fn of((id, customer, email, status, items): Columns) -> sqlx::Result<Order> {
        let items = serde_json::from_str(&items).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(Order { id, customer, email, status, items })
    }

    fn columns(&self) -> sqlx::Result<Columns> {
        let items = serde_json::to_string(&self.items).map_err(|error| sqlx::Error::Encode(error.into()))?;
        Ok((self.id.clone(), self.customer.clone(), self.email.clone(), self.status.clone(), items))
    }

    /// Stores new orders, all with one statement.
    ///
    /// # Errors
    /// The database's.
    pub async fn insert(tx: &mut Tx, orders: &[Order]) -> sqlx::Result<()> {
        if orders.is_empty() {
            return Ok(());
        }
        let rows = orders.iter().map(Order::columns).collect::<sqlx::Result<Vec<Columns>>>()?;
        let single = rows.len() == 1;
        within!(tx, by => {
            let mut statement = QueryBuilder::new("INSERT INTO orders (id, customer, email, status, items) ");
            statement.push_values(rows, |mut row, (id, customer, email, status, items)| {
                row.push_bind(id).push_bind(customer).push_bind(email).push_bind(status).push_bind(items);
            });
            // A text of its own for each number of rows is not worth keeping.
            statement.build().persistent(single).execute(by).await.map(|_| ())
        })
    }

    /// Stores what was changed of an order.
    ///
    /// # Errors
    /// The database's.
    pub async fn update(&self, tx: &mut Tx) -> sqlx::Result<()> {
        let (id, _, email, status, items) = self.columns()?;
        within!(tx, by => {
            let statement = sqlx::query("UPDATE orders SET email = $2, status = $3, items = $4 WHERE id = $1");
            statement.bind(id).bind(email).bind(status).bind(items).execute(by).await.map(|_| ())
        })
    }
}
