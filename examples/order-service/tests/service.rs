//! The service on a loopback port of its own: what the answers are, and what the trail says, in each of the three ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use auditstream_order_service::audit::{Audit, Mode, Options};
use auditstream_order_service::database::Database;
use auditstream_order_service::{Settings, run};
use auditstream_producer::Config;
use auditstream_producer::outbox::{self, RelayConfig};
use auditstream_schemas::{AuditEvent, Outcome, Schemas, decode};
use auditstream_stack::DatabaseServer;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
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
/// What goes to Kafka directly.
const DIRECT: [&str; 2] = ["order.read", "user.login"];

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

    async fn log_in(&self) -> String {
        let (status, answer) = self.ask("POST /login", None, Some(&json!({"user": "ann", "password": "demo"}))).await;
        assert_eq!(status, 200, "{answer}");
        answer["session"].as_str().unwrap().to_owned()
    }

    /// Stops it, and waits until its trail is drained.
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }

    /// Each request once, and some that are refused; the id of an order.
    async fn use_it(&self) -> String {
        let wrong = json!({"user": "ann", "password": "guess"});
        assert_eq!(self.ask("POST /login", None, Some(&wrong)).await.0, 401);
        let session = self.log_in().await;
        let session = Some(session.as_str());
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

/// The text of one column, from whichever database it is.
async fn texts(database: &str, sql: &str) -> Vec<String> {
    let rows: Vec<(String,)> = match Database::open(database).await.unwrap() {
        Database::Postgres(pool) => sqlx::query_as(sql).fetch_all(&pool).await.unwrap(),
        Database::Sqlite { read, .. } => sqlx::query_as(sql).fetch_all(&read).await.unwrap(),
    };
    rows.into_iter().map(|(text,)| text).collect()
}

async fn execute(database: &str, sql: &str) {
    Database::open(database).await.unwrap().make(&[sql.to_owned()]).await.unwrap();
}

/// What `sync` has written.
async fn audit_table(database: &str) -> Vec<AuditEvent> {
    let rows = texts(database, "SELECT event FROM audit").await;
    rows.iter().map(|event| AuditEvent::from_json(event.as_bytes()).unwrap()).collect()
}

/// A broker inside of this process, with the topic.
struct Kafka(MockCluster<'static, rdkafka::producer::DefaultProducerContext>);

impl Kafka {
    fn new() -> Kafka {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 1, 1).unwrap();
        Kafka(cluster)
    }

    fn config(&self) -> Config {
        Config { bootstrap_servers: self.0.bootstrap_servers(), ..Config::default() }
    }

    /// The first events of the topic: `count`, or as many as come within half a minute. Then a moment more, for those that should not be there.
    async fn events(&self, count: usize) -> Vec<AuditEvent> {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.0.bootstrap_servers());
        client.set("group.id", "test").set("enable.auto.commit", "false");
        let read = move || {
            let consumer: BaseConsumer = client.create().unwrap();
            let mut assignment = TopicPartitionList::new();
            assignment.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
            consumer.assign(&assignment).unwrap();
            let schemas = Schemas::builtin().unwrap();
            let mut give_up = Instant::now() + Duration::from_secs(30);
            let mut found = Vec::new();
            while Instant::now() < give_up {
                if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                    found.push(decode(&schemas, message.unwrap().payload().unwrap()).unwrap());
                    if found.len() == count {
                        give_up = Instant::now() + Duration::from_millis(500);
                    }
                }
            }
            found
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }
}

const KEY: &str = "an example's key, 16 bytes or more";

fn audit(mode: Mode, kafka: Config, relay: bool) -> Audit {
    Audit::new(Options { mode, kafka, relay, key: Some(KEY.to_owned()) }).unwrap()
}

/// Each of the three ways, on a database of its own.
async fn all_ways(none: &str, sync: &str, stream: &str) {
    let service = Service::start(none, audit(Mode::None, Config::default(), true)).await;
    service.use_it().await;
    service.stop().await;

    let service = Service::start(sync, audit(Mode::Sync, Config::default(), true)).await;
    let order = service.use_it().await;
    service.stop().await;
    let events = audit_table(sync).await;
    check(&events, &order);
    assert!(events.iter().filter_map(|event| event.actor.email.as_deref()).all(|email| email == "ann@shop.example"));

    // The relay inside of the service.
    let kafka = Kafka::new();
    let audit = audit(Mode::Stream, kafka.config(), true);
    let service = Service::start(stream, audit.clone()).await;
    let order = service.use_it().await;
    let events = kafka.events(TRAIL.len()).await;
    service.stop().await;
    check(&events, &order);
    // Reads and logins went directly, all that changed orders by way of the outbox.
    assert_eq!(audit.stats().unwrap().acked, 3);
    assert!(
        events.iter().all(|event| event.producer.id.is_empty() != DIRECT.contains(&event.action.as_str())),
        "{events:?}"
    );
    // One rule for both ways out of the process, and equal values have equal tokens.
    let emails: HashSet<_> = events.iter().filter_map(|event| event.actor.email.as_deref()).collect();
    assert!(emails.len() == 1 && emails.iter().all(|email| email.starts_with("hmac:")), "{emails:?}");
    assert!(texts(stream, "SELECT type FROM audit_outbox").await.is_empty(), "the outbox keeps what was sent");
}

/// The relay beside the service, and a service whose outbox does not work.
async fn relay_beside(database: &str) {
    let kafka = Kafka::new();
    let service = Service::start(database, audit(Mode::Stream, kafka.config(), false)).await;
    let order = service.use_it().await;
    assert_eq!(kafka.events(3).await.len(), 3, "reads and logins alone");
    assert_eq!(texts(database, "SELECT type FROM audit_outbox").await.len(), TRAIL.len() - 3);
    let relay = RelayConfig { poll_interval: Duration::from_millis(20), ..RelayConfig::new(database, kafka.config()) };
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = tokio::spawn(outbox::run(relay, async {
        let _ = stopped.await;
    }));
    check(&kafka.events(TRAIL.len()).await, &order);
    stop.send(()).unwrap();
    assert_eq!(relay.await.unwrap().unwrap().sent, TRAIL.len() as u64 - 3);

    // What can't be audited is not done.
    let session = service.log_in().await;
    let orders = texts(database, "SELECT id FROM orders ORDER BY id").await;
    execute(database, "ALTER TABLE audit_outbox RENAME TO elsewhere").await;
    let new = json!({"customer": "Eve", "email": "eve@example.org", "items": []});
    assert_eq!(service.ask("POST /orders", Some(&session), Some(&new)).await.0, 500);
    assert_eq!(service.ask("POST /orders/import", Some(&session), Some(&json!([new]))).await.0, 500);
    let patch = json!({"status": "stolen"});
    assert_eq!(service.ask(&format!("PATCH /orders/{order}"), Some(&session), Some(&patch)).await.0, 500);
    assert_eq!(texts(database, "SELECT id FROM orders ORDER BY id").await, orders);
    let (_, read) = service.ask(&format!("GET /orders/{order}"), Some(&session), None).await;
    assert_eq!(read["status"], "cancelled");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_auditing_gives_the_same_answers_and_its_own_trail_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let database = |name: &str| format!("sqlite:{}", directory.path().join(name).display());
    all_ways(&database("none.db"), &database("sync.db"), &database("stream.db")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_outbox_does_not_take_is_not_done_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    relay_beside(&format!("sqlite:{}", directory.path().join("orders.db").display())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_it_is_the_same() {
    let server = tokio::task::spawn_blocking(|| DatabaseServer::postgres().unwrap()).await.unwrap();
    // The same tables: orders of several services stand beside each other.
    all_ways(server.url(), server.url(), server.url()).await;
    relay_beside(server.url()).await;
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

#[test]
fn a_short_key_and_an_unknown_database_are_said() {
    let options = Options { mode: Mode::None, kafka: Config::default(), relay: true, key: Some("hunter2".to_owned()) };
    let said = Audit::new(options).unwrap_err().to_string();
    assert!(said.contains("found 7 bytes, expected 16 or more"), "{said}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let said = runtime.block_on(Database::open("mysql://u:hunter2@host/db")).unwrap_err().to_string();
    assert!(said.contains("expected sqlite: and a file, or postgres://") && !said.contains("hunter2"), "{said}");
}
