//! Somebody who works with the order service: what is asked next, and what each answer must have left in the trail.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::client::{Connection, Request};
use crate::load::Random;

/// Orders a clerk works on; of older ones nothing more is asked.
const ORDERS: usize = 32;
/// Orders of one import.
const IMPORT: u64 = 20;
/// The service's example password.
const PASSWORD: &str = "demo";

/// Sorts of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One order.
    Read,
    /// Its status, its items or its address.
    Update,
    /// A new one.
    Create,
    /// The end of one.
    Cancel,
    /// A login, now and then with a wrong password.
    Login,
    /// Twenty new orders at once.
    Import,
}

impl Kind {
    /// All of them, the most frequent first.
    pub const ALL: [Kind; 6] = [Kind::Read, Kind::Update, Kind::Create, Kind::Cancel, Kind::Login, Kind::Import];

    /// For tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Update => "update",
            Kind::Create => "create",
            Kind::Cancel => "cancel",
            Kind::Login => "login",
            Kind::Import => "import",
        }
    }

    /// Of 1,000 requests.
    fn weight(self) -> u64 {
        match self {
            Kind::Read => 600,
            Kind::Update => 190,
            Kind::Create => 120,
            Kind::Cancel => 50,
            Kind::Login => 35,
            Kind::Import => 5,
        }
    }

    fn drawn(random: &mut Random) -> Kind {
        let mut number = random.below(1_000);
        for kind in Kind::ALL {
            if number < kind.weight() {
                return kind;
            }
            number -= kind.weight();
        }
        Kind::Read
    }
}

/// Events that one request must have left, with its id: so many of this action.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expected {
    /// The request's id.
    pub request_id: String,
    /// The action.
    pub action: &'static str,
    /// How many events.
    pub events: u64,
    /// The order, where there is one.
    pub order: Option<String>,
}

/// A clerk with a connection.
#[derive(Debug)]
pub struct Clerk {
    connection: Connection,
    user: String,
    session: String,
    orders: Vec<String>,
    random: Random,
    /// Stands in front of the number in a request's id.
    prefix: String,
    number: u64,
    expected: Vec<Expected>,
}

/// A request that is ready to be sent.
#[derive(Debug)]
pub struct Prepared {
    /// Which sort.
    pub kind: Kind,
    request: Request,
    order: Option<String>,
    status: u16,
}

impl Clerk {
    /// Logs in and makes a few orders.
    ///
    /// # Errors
    /// The service does not answer as it should.
    pub fn begin(at: SocketAddr, user: &str, prefix: &str) -> Result<Self> {
        let mut clerk = Self {
            connection: Connection::open(at)?,
            user: user.to_owned(),
            session: String::new(),
            orders: Vec::new(),
            random: Random::new(0, 0),
            prefix: prefix.to_owned(),
            number: 0,
            expected: Vec::new(),
        };
        let login = clerk.prepared(Kind::Login, PASSWORD);
        clerk.ask(login)?;
        for _ in 0..4 {
            let create = clerk.prepared(Kind::Create, PASSWORD);
            clerk.ask(create)?;
        }
        Ok(clerk)
    }

    /// The same requests come again under the same seed.
    pub fn reseed(&mut self, seed: u64, index: u64) {
        self.random = Random::new(seed, index);
    }

    /// The random numbers, also for the times of the requests.
    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// What all answered requests so far must have left in the trail; empty from then on.
    pub fn take_expected(&mut self) -> Vec<Expected> {
        std::mem::take(&mut self.expected)
    }

    /// The next request.
    pub fn prepare(&mut self) -> Prepared {
        let kind = Kind::drawn(&mut self.random);
        let password = if self.random.percent(10) { "guess" } else { PASSWORD };
        // The last order stays, so that there is one to read.
        let kind = if kind == Kind::Cancel && self.orders.len() < 2 { Kind::Create } else { kind };
        self.prepared(kind, password)
    }

    fn prepared(&mut self, kind: Kind, password: &str) -> Prepared {
        self.number += 1;
        let one = self.random.below(self.orders.len().max(1) as u64) as usize;
        let order = match kind {
            Kind::Read | Kind::Update => self.orders.get(one).cloned(),
            Kind::Cancel => Some(self.orders.swap_remove(one)),
            Kind::Create | Kind::Login | Kind::Import => None,
        };
        let path = order.as_deref().unwrap_or_default();
        let (line, body) = match kind {
            Kind::Read => (format!("GET /orders/{path}"), None),
            Kind::Update => (format!("PATCH /orders/{path}"), Some(self.patch())),
            Kind::Create => ("POST /orders".to_owned(), Some(self.new_order())),
            Kind::Cancel => (format!("POST /orders/{path}/cancel"), None),
            Kind::Login => ("POST /login".to_owned(), Some(json!({ "user": self.user, "password": password }))),
            Kind::Import => {
                ("POST /orders/import".to_owned(), Some((0..IMPORT).map(|_| self.new_order()).collect::<Value>()))
            }
        };
        let status = if kind == Kind::Login && password != PASSWORD { 401 } else { 200 };
        let session = (kind != Kind::Login).then(|| self.session.clone());
        let id = format!("{}{}", self.prefix, self.number);
        let body = body.map_or_else(String::new, |body| body.to_string());
        Prepared { kind, request: Request { line, session, id, body }, order, status }
    }

    /// Sends it and hears the answer; how long that takes is what is measured. What the answer means comes after ([`Heard::note`]).
    ///
    /// # Errors
    /// The service does not answer.
    pub fn send(&mut self, prepared: &Prepared) -> Result<Heard> {
        let (status, body) = self.connection.ask(&prepared.request)?;
        Ok(Heard { status, body: body.to_vec() })
    }

    /// Both at once.
    fn ask(&mut self, prepared: Prepared) -> Result<()> {
        let heard = self.send(&prepared)?;
        self.note(prepared, &heard)
    }

    /// Keeps what the next requests need, and what the trail must have.
    ///
    /// # Errors
    /// The answer is not what it should be.
    pub fn note(&mut self, prepared: Prepared, heard: &Heard) -> Result<()> {
        let Prepared { kind, request, order, status } = prepared;
        let text = String::from_utf8_lossy(&heard.body);
        ensure!(heard.status == status, "{} was answered with {}: {text}", request.line, heard.status);
        let body: Value = if status == 200 { serde_json::from_slice(&heard.body)? } else { Value::Null };
        let texts = |value: &Value| value.as_str().map(str::to_owned).context("the answer lacks an id");
        let mut expect = |action, events, order| {
            self.expected.push(Expected { request_id: request.id.clone(), action, events, order });
        };
        match kind {
            Kind::Read => expect("order.read", 1, order),
            Kind::Update => expect("order.update", 1, order),
            Kind::Cancel => expect("order.cancel", 1, order),
            Kind::Login => {
                expect("user.login", 1, None);
                if status == 200 {
                    self.session = texts(&body["session"])?;
                }
            }
            Kind::Create => {
                let id = texts(&body["id"])?;
                expect("order.create", 1, Some(id.clone()));
                self.orders.push(id);
            }
            Kind::Import => {
                expect("order.create", IMPORT, None);
                expect("order.bulk_create", 1, None);
                let Some(ids) = body["ids"].as_array() else { bail!("an import was answered without ids") };
                ensure!(ids.len() as u64 == IMPORT, "an import of {IMPORT} orders made {}", ids.len());
                let first = ids.first().map(texts).transpose()?;
                self.orders.extend(first);
            }
        }
        if self.orders.len() > ORDERS {
            self.orders.remove(0);
        }
        Ok(())
    }

    fn items(&mut self) -> Value {
        let skus = ["tea-green", "tea-black", "cup", "pot", "filter", "honey", "spoon", "tray"];
        (0..=self.random.below(4))
            .map(|_| {
                let (sku, quantity) = (*self.random.pick(&skus), self.random.below(9) + 1);
                json!({ "sku": sku, "quantity": quantity, "price_cents": (self.random.below(80) + 1) * 25 })
            })
            .collect()
    }

    fn new_order(&mut self) -> Value {
        let number = self.random.below(10_000);
        let customer = format!("Customer {number}");
        json!({ "customer": customer, "email": format!("c{number}@example.org"), "items": self.items() })
    }

    fn patch(&mut self) -> Value {
        match self.random.below(4) {
            0 => json!({ "items": self.items() }),
            1 => json!({ "email": format!("c{}@example.org", self.random.below(10_000)) }),
            _ => json!({ "status": *self.random.pick(&["paid", "packed", "shipped", "open"]) }),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Heard {
    status: u16,
    body: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_as_it_says() {
        assert_eq!(Kind::ALL.map(Kind::weight).iter().sum::<u64>(), 1_000);
        let mut random = Random::new(1, 1);
        let mut counts = [0_u64; 6];
        for _ in 0..100_000 {
            let kind = Kind::drawn(&mut random);
            counts[Kind::ALL.iter().position(|other| *other == kind).unwrap_or_default()] += 1;
        }
        for (kind, count) in Kind::ALL.iter().zip(counts) {
            let expected = kind.weight() * 100;
            assert!(count.abs_diff(expected) < expected / 5 + 10, "{kind:?}: {count}");
        }
    }
}
