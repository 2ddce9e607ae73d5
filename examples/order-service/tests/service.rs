//! The service on a loopback port of its own: what the answers are, and what the trail says, in each of the three ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use auditstream_order_service::audit::{Audit, Mode};
use auditstream_order_service::{Settings, run};
use auditstream_schemas::{AuditEvent, Outcome, Schemas, decode};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use sqlx::SqlitePool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const TOPIC: &str = "audit.events";
/// What the requests of `use_it` leave behind, in no order: action and outcome.
const TRAIL: [&str; 9] = [
    "order.bulk_create",
    "order.cancel",
    "order.create",
    "order.create",
    "order.create",
    "order.read",
    "order.update",
    "user.login",
    "user.login DENIED",
];

struct Service {
    at: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    async fn start(database: &str, audit: Audit) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let settings = Settings {
            database: database.to_owned(),
            password: "demo".to_owned(),
            trusted_proxies: vec!["127.0.0.1".to_owned()],
        };
        let shutdown = async move {
            let _ = stopped.await;
        };
        Service { at, stop, running: tokio::spawn(run(listener, settings, audit, shutdown)) }
    }

    async fn ask(&self, head: &str, session: Option<&str>, body: Option<&Value>) -> (u16, Value) {
        let body = body.map_or_else(String::new, Value::to_string);
        let session = session.map_or_else(String::new, |session| format!("authorization: Bearer {session}\r\n"));
        let request = format!(
            "{head} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\nuser-agent: test\r\nx-forwarded-for: 203.0.113.9\r\n\
             content-type: application/json\r\n{session}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// Stops it, and waits until its trail is drained.
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }

    /// Each request once, and some that are refused; the id of an order.
    async fn use_it(&self) -> String {
        let credentials = |password: &str| json!({"user": "ann", "password": password});
        assert_eq!(self.ask("POST /login", None, Some(&credentials("guess"))).await.0, 401);
        let (status, answer) = self.ask("POST /login", None, Some(&credentials("demo"))).await;
        assert_eq!(status, 200);
        let session = answer["session"].as_str();
        let new = |name: &str| {
            let items = json!([{"sku": "tea", "quantity": 2, "price_cents": 450}, {"sku": "cup", "quantity": 1, "price_cents": 900}]);
            json!({"customer": name, "email": "bob@example.org", "items": items})
        };
        assert_eq!(self.ask("POST /orders", None, Some(&new("Bob"))).await.0, 401);
        let (status, order) = self.ask("POST /orders", session, Some(&new("Bob"))).await;
        assert_eq!(status, 200);
        let id = order["id"].as_str().unwrap().to_owned();
        let (_, read) = self.ask(&format!("GET /orders/{id}"), session, None).await;
        assert_eq!(read, order);
        assert_eq!(self.ask("GET /orders/none", session, None).await.0, 404);
        let items = json!([{"sku": "tea", "quantity": 3, "price_cents": 450}]);
        let patch = json!({"status": "paid", "items": items});
        let (status, patched) = self.ask(&format!("PATCH /orders/{id}"), session, Some(&patch)).await;
        assert_eq!((status, &patched["status"], &patched["items"]), (200, &json!("paid"), &items));
        let (_, cancelled) = self.ask(&format!("POST /orders/{id}/cancel"), session, None).await;
        assert_eq!(cancelled["status"], "cancelled");
        let (status, imported) = self.ask("POST /orders/import", session, Some(&json!([new("Cy"), new("Di")]))).await;
        assert_eq!((status, imported["ids"].as_array().unwrap().len()), (200, 2));
        id
    }
}

fn check(events: &[AuditEvent], order: &str) {
    let mut found: Vec<String> =
        events.iter().map(|e| e.action.clone() + if e.outcome == Outcome::Denied { " DENIED" } else { "" }).collect();
    found.sort();
    assert_eq!(found, TRAIL);
    for event in events {
        let actor = if event.outcome == Outcome::Denied { None } else { Some("ann") };
        assert_eq!(event.actor.id.as_deref(), actor, "{}", event.action);
        assert_eq!((event.ip.as_deref(), event.user_agent.as_deref()), (Some("203.0.113.9"), Some("test")));
        assert!(event.request_id.is_some());
        assert!(!format!("{event:?}").contains("bob@"), "{}", event.action);
    }
    let one = |action: &str| events.iter().find(|e| e.action == action && e.entity_id == order).unwrap();
    assert_eq!(one("order.update").http_path.as_deref(), Some("/orders/{id}"));
    let changes: Vec<_> = one("order.update")
        .changes
        .iter()
        .map(|c| (c.path.as_str(), c.old.as_deref().unwrap(), c.new.as_deref()))
        .collect();
    let cup = "{\"sku\":\"cup\",\"quantity\":1,\"price_cents\":900}";
    let expected =
        [("/items/0/quantity", "2", Some("3")), ("/items/1", cup, None), ("/status", "\"open\"", Some("\"paid\""))];
    assert_eq!(changes, expected);
    let created = one("order.create").changes.iter().find(|change| change.path == "/email").unwrap();
    assert!(created.new.as_ref().unwrap().starts_with("\"hmac:"));
}

/// What `sync` has written.
async fn audit_table(database: &str) -> Vec<AuditEvent> {
    let pool = SqlitePool::connect(database).await.unwrap();
    let rows: Vec<(String,)> = sqlx::query_as("SELECT event FROM audit").fetch_all(&pool).await.unwrap();
    pool.close().await;
    rows.iter().map(|(event,)| AuditEvent::from_json(event.as_bytes()).unwrap()).collect()
}

fn topic(bootstrap: &str, count: usize) -> Vec<AuditEvent> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bootstrap).set("group.id", "test").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let schemas = Schemas::builtin().unwrap();
    let give_up = Instant::now() + Duration::from_secs(30);
    let mut found = Vec::new();
    while found.len() < count && Instant::now() < give_up {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            found.push(decode(&schemas, message.unwrap().payload().unwrap()).unwrap());
        }
    }
    found
}

const KEY: Option<&str> = Some("an example's key, 16 bytes or more");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_auditing_gives_the_same_answers_and_its_own_trail() {
    let directory = tempfile::tempdir().unwrap();
    let database = |name: &str| format!("sqlite:{}", directory.path().join(name).display());

    let none = database("none.db");
    let service = Service::start(&none, Audit::new(Mode::None, "", KEY).unwrap()).await;
    service.use_it().await;
    service.stop().await;
    assert!(audit_table(&none).await.is_empty());

    let sync = database("sync.db");
    let service = Service::start(&sync, Audit::new(Mode::Sync, "", KEY).unwrap()).await;
    let order = service.use_it().await;
    service.stop().await;
    check(&audit_table(&sync).await, &order);

    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    let bootstrap = cluster.bootstrap_servers();
    let stream = database("stream.db");
    let audit = Audit::new(Mode::Stream, &bootstrap, KEY).unwrap();
    let service = Service::start(&stream, audit.clone()).await;
    let order = service.use_it().await;
    service.stop().await;
    assert_eq!(audit.stats().unwrap().acked, TRAIL.len() as u64);
    let events = tokio::task::spawn_blocking(move || topic(&bootstrap, TRAIL.len())).await.unwrap();
    check(&events, &order);
    assert!(audit_table(&stream).await.is_empty());
}
