//! The request context on a real axum server on loopback: what reaches Kafka, and what does not leak.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use auditstream_producer::context::{AuditContextLayer, RequestContext};
use auditstream_producer::redaction::{Action, HmacKey, Redaction};
use auditstream_producer::{Config, Producer};
use auditstream_schemas::{Actor, AuditEvent, Schemas, decode};
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use common::{config, event};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::{Offset, TopicPartitionList};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;

const TOPIC: &str = "audit.events";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What the handlers share.
#[derive(Clone)]
struct App {
    audit: Producer,
    /// Two requests meet in the middle of their handlers.
    meeting: Arc<Barrier>,
}

impl App {
    /// Deep in the call: nobody passed the request along.
    fn note(&self, entity: &str) {
        self.audit.record(event(entity)).unwrap();
    }
}

async fn order(State(app): State<App>, Path(id): Path<String>) -> &'static str {
    app.note(&format!("{id}-handler"));
    tokio::task::yield_now().await;
    let context = RequestContext::current().unwrap();
    let (inside, outside, blocking) = (app.clone(), app.clone(), app.clone());
    let ids = [id.clone(), id.clone(), id.clone()];
    let [first, second, third] = ids;
    let scoped = tokio::spawn(context.scope(async move {
        tokio::task::yield_now().await;
        inside.note(&format!("{first}-scoped"));
    }));
    let bare = tokio::spawn(async move { outside.note(&format!("{second}-bare")) });
    let call = tokio::task::spawn_blocking(move || context.sync_scope(|| blocking.note(&format!("{third}-blocking"))));
    scoped.await.unwrap();
    bare.await.unwrap();
    call.await.unwrap();
    let set = AuditEvent::builder("acme", "shop", "order.update", "order", format!("{id}-set"))
        .ip("192.0.2.77")
        .actor(Actor::user("explicit"));
    app.audit.record_acked(set.build().unwrap()).await.unwrap();
    "done"
}

async fn meet(State(app): State<App>, Path(id): Path<String>) -> &'static str {
    app.note(&format!("{id}-before"));
    app.meeting.wait().await;
    // The other request's future has run on this thread by now.
    app.note(&format!("{id}-after"));
    app.meeting.wait().await;
    "done"
}

async fn login(State(app): State<App>) -> &'static str {
    let context = RequestContext::current().unwrap();
    assert!(context.set_actor(Actor::user("known-later")));
    app.note("login");
    "done"
}

async fn request(at: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(format!("{head}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

async fn serve(app: App) -> SocketAddr {
    let layer = AuditContextLayer::new().trust_proxies(["127.0.0.1"]).unwrap().actor(|parts| {
        let user = parts.headers.get("x-user")?.to_str().ok()?;
        Some(Actor::user(user))
    });
    let router = Router::new()
        .route("/orders/{id}", get(order))
        .route("/meet/{id}", get(meet))
        .route("/login", post(login))
        .layer(layer)
        .with_state(app);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    at
}

fn read(bootstrap: &str, count: usize) -> BTreeMap<String, (AuditEvent, OwnedMessage)> {
    let mut client = ClientConfig::new();
    let client = client.set("bootstrap.servers", bootstrap).set("group.id", "test").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let schemas = Schemas::builtin().unwrap();
    let give_up = Instant::now() + Duration::from_secs(30);
    let mut found = BTreeMap::new();
    while found.len() < count && Instant::now() < give_up {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.unwrap().detach();
            let event = decode(&schemas, message.payload().unwrap()).unwrap();
            found.insert(event.entity_id.clone(), (event, message));
        }
    }
    assert_eq!(found.len(), count);
    found
}

fn traceparent(message: &OwnedMessage) -> Option<String> {
    let headers = message.headers().unwrap();
    let found = headers.iter().find(|header| header.key == "traceparent")?;
    found.value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

async fn run(settings: impl FnOnce(Config) -> Config, requests: usize, call: impl AsyncFnOnce(SocketAddr)) -> Found {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    let bootstrap = cluster.bootstrap_servers();
    let audit = Producer::new(settings(config(&bootstrap))).unwrap();
    let at = serve(App { audit: audit.clone(), meeting: Arc::new(Barrier::new(2)) }).await;
    call(at).await;
    assert!(audit.flush(Duration::from_secs(20)).await.all_acked());
    tokio::task::spawn_blocking(move || read(&bootstrap, requests)).await.unwrap()
}

type Found = BTreeMap<String, (AuditEvent, OwnedMessage)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_context_is_known_deep_in_the_call_and_in_scoped_tasks_only() {
    let found = run(
        |config| config,
        5,
        async |at| {
            let head = format!(
                "GET /orders/7 HTTP/1.1\r\nuser-agent: curl/8\r\nx-request-id: r-1\r\ntraceparent: {TRACE}\r\n\
                 x-correlation-id: c-1\r\nx-user: u-7\r\nx-forwarded-for: 127.0.0.1, 203.0.113.9"
            );
            request(at, &head).await;
        },
    )
    .await;
    for entity in ["7-handler", "7-scoped", "7-blocking", "7-set"] {
        let (event, message) = &found[entity];
        let set = entity == "7-set";
        assert_eq!(event.ip.as_deref(), Some(if set { "192.0.2.77" } else { "203.0.113.9" }), "{entity}");
        assert_eq!(event.actor, Actor::user(if set { "explicit" } else { "u-7" }));
        assert_eq!(event.user_agent.as_deref(), Some("curl/8"));
        assert_eq!((event.request_id.as_deref(), event.correlation_id.as_deref()), (Some("r-1"), Some("c-1")));
        assert_eq!(event.trace_id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!((event.http_method.as_deref(), event.http_path.as_deref()), (Some("GET"), Some("/orders/{id}")));
        assert_eq!(traceparent(message).as_deref(), Some(TRACE));
    }
    let (bare, message) = &found["7-bare"];
    assert_eq!((&bare.ip, &bare.request_id, &bare.http_path, traceparent(message)), (&None, &None, &None, None));
    assert_eq!(bare.actor, event("bare").actor);
}

/// One thread, so that the two futures take turns on it.
#[tokio::test(flavor = "current_thread")]
async fn two_requests_at_a_time_do_not_see_each_other() {
    let found = run(
        |config| config,
        5,
        async |at| {
            let head = |n: u32| {
                format!(
                    "GET /meet/{n} HTTP/1.1\r\nx-request-id: r-{n}\r\nx-user: u-{n}\r\nx-forwarded-for: 203.0.113.{n}"
                )
            };
            let (one, two) = (head(1), head(2));
            tokio::join!(request(at, &one), request(at, &two));
            // A bad traceparent and a bad id count as none; who it is comes out in the handler.
            request(at, "POST /login HTTP/1.1\r\ntraceparent: 00-zz\r\nx-request-id: a b").await;
            assert!(RequestContext::current().is_none());
        },
    )
    .await;
    for n in [1, 2] {
        for when in ["before", "after"] {
            let (event, _) = &found[&format!("{n}-{when}")];
            assert_eq!(event.request_id, Some(format!("r-{n}")));
            assert_eq!(event.actor, Actor::user(format!("u-{n}")));
            assert_eq!(event.ip, Some(format!("203.0.113.{n}")));
        }
    }
    let (login, message) = &found["login"];
    assert_eq!((login.actor.clone(), login.ip.as_deref()), (Actor::user("known-later"), Some("127.0.0.1")));
    assert_eq!((login.request_id.as_ref().map(String::len), &login.trace_id), (Some(36), &None));
    assert_eq!(traceparent(message), None);
}

#[tokio::test(flavor = "current_thread")]
async fn what_the_context_adds_is_redacted_too() {
    let rules =
        Redaction::builder().key(HmacKey::new([7; 32])).rule("/ip", Action::Hmac).rule("/actor/id", Action::Drop);
    let redaction = Arc::new(rules.build().unwrap());
    let token = redaction.token("203.0.113.9");
    let found = run(
        |config| Config { redaction: Some(redaction), ..config },
        5,
        async |at| {
            request(at, "GET /orders/7 HTTP/1.1\r\nx-user: u-7\r\nx-forwarded-for: 203.0.113.9").await;
        },
    )
    .await;
    for entity in ["7-handler", "7-scoped", "7-blocking"] {
        let (event, message) = &found[entity];
        assert_eq!((&event.ip, &event.actor.id), (&token, &None));
        let payload = String::from_utf8_lossy(message.payload().unwrap());
        assert!(!payload.contains("203.0.113.9") && !payload.contains("u-7"));
    }
}
