//! The registry client against a server that answers as it is told: what counts as an answer, what is kept, and who is asked.
#![cfg(feature = "registry")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use auditstream_schemas::registry::*;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

const SCHEMA: &str = r#"{"schema":"\"string\""}"#;
const MISSING: &str = r#"{"error_code":40403,"message":"Schema not found"}"#;

/// What the server saw of a request.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    authorization: String,
    body: String,
}

type Script = dyn Fn(usize, &Seen) -> (u16, String) + Send + Sync;

/// A server that answers its `n`th request, from 0, with what `script` says; status 0 is no answer at all.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn start(script: impl Fn(usize, &Seen) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let kept = Arc::clone(&seen);
        let router = Router::new().fallback(move |request: Request| answer(request, script.clone(), kept.clone()));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }
}

async fn answer(request: Request, script: Arc<Script>, kept: Arc<Mutex<Vec<Seen>>>) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let authorization = request.headers().get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
    let body = String::from_utf8(to_bytes(request.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap();
    let seen = Seen { line, authorization, body };
    let number = {
        let mut kept = kept.lock().unwrap();
        kept.push(seen.clone());
        kept.len() - 1
    };
    match script(number, &seen) {
        (0, _) => std::future::pending().await,
        (status, body) => (StatusCode::from_u16(status).unwrap(), Body::from(body)).into_response(),
    }
}

fn config(urls: &[&str]) -> RegistryConfig {
    RegistryConfig {
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        timeout: Duration::from_millis(300),
        ..RegistryConfig::default()
    }
}

fn client(urls: &[&str]) -> Registry {
    Registry::new(&config(urls)).unwrap()
}

/// A URL where nobody listens.
async fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn said(status: u16, body: &str) -> (u16, String) {
    (status, body.to_owned())
}

#[tokio::test]
async fn a_schema_is_asked_for_once_below_the_base_path() {
    let server = Server::start(|_, _| said(200, SCHEMA)).await;
    let registry = client(&[&format!("{}/apis/ccompat/v7/", server.url)]);
    for _ in 0..3 {
        let found = registry.by_id(7).await.unwrap();
        assert_eq!((found.id, found.schema.as_str()), (7, "\"string\""));
    }
    assert_eq!(server.lines(), ["GET /apis/ccompat/v7/schemas/ids/7"]);
}

#[tokio::test]
async fn what_passes_is_retried_and_never_kept() {
    for passing in [
        said(500, MISSING),
        said(503, ""),
        said(429, "{}"),
        said(200, "<html>"),
        said(200, "[]"),
        said(302, ""),
        said(0, ""),
    ] {
        let failing = passing.clone();
        let server = Server::start(move |n, _| if n < 5 { failing.clone() } else { said(200, SCHEMA) }).await;
        let registry = client(&[&server.url]);
        let error = registry.by_id(7).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unavailable { .. }) && error.is_passing(), "{passing:?}: {error}");
        assert!(error.to_string().contains(&server.url), "{error}");
        assert_eq!(server.seen().len(), 3, "{passing:?}: three attempts");
        registry.by_id(7).await.unwrap();
        assert_eq!(server.seen().len(), 6, "{passing:?}: asked again, twice in vain");
    }
}

#[tokio::test]
async fn only_the_registrys_own_404_confirms_an_absence() {
    let others = [
        "<html>not found</html>",
        "",
        "{}",
        r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#,
        r#"{"error_code":40401}"#,
        r#"{"error_code":"40403"}"#,
    ];
    for other in others {
        let server = Server::start(move |_, _| said(404, other)).await;
        let error = client(&[&server.url]).by_id(7).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unavailable { .. }), "{other}: {error}");
        assert_eq!(server.seen().len(), 3, "{other}: three attempts");
    }
    let server = Server::start(|_, _| said(404, MISSING)).await;
    let error = client(&[&server.url]).by_id(7).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { code: 40403, .. }) && !error.is_passing(), "{error}");
    assert_eq!(server.seen().len(), 1, "a confirmed absence is not asked for again");
}

#[tokio::test]
async fn an_absence_is_kept_for_its_time_only() {
    let server = Server::start(|n, _| if n == 0 { said(404, MISSING) } else { said(200, SCHEMA) }).await;
    let registry = client(&[&server.url]);
    for _ in 0..3 {
        registry.by_id(7).await.unwrap_err();
    }
    assert_eq!(server.seen().len(), 1);
    let brief = Registry::new(&RegistryConfig { missing_for: Duration::ZERO, ..config(&[&server.url]) }).unwrap();
    brief.by_id(7).await.unwrap();
    let server = Server::start(|n, _| if n == 0 { said(404, MISSING) } else { said(200, SCHEMA) }).await;
    let brief = Registry::new(&RegistryConfig { missing_for: Duration::ZERO, ..config(&[&server.url]) }).unwrap();
    brief.by_id(7).await.unwrap_err();
    brief.by_id(7).await.unwrap();
}

#[tokio::test]
async fn ids_that_no_registry_can_have_are_not_asked_for() {
    let server = Server::start(|_, _| said(404, "<html>")).await;
    let error = client(&[&server.url]).by_id(1 << 31).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn concurrent_misses_make_one_request_and_share_its_answer() {
    for (status, body) in [(200, SCHEMA), (404, MISSING), (500, "")] {
        let server = Server::start(move |_, _| said(status, body)).await;
        let registry = Registry::new(&RegistryConfig { attempts: 1, ..config(&[&server.url]) }).unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (registry, gate) = (registry.clone(), gate.clone());
                tokio::spawn(async move {
                    let _pass = gate.acquire().await.unwrap();
                    registry.by_id(7).await
                })
            })
            .collect();
        gate.add_permits(50);
        for task in tasks {
            assert_eq!(task.await.unwrap().is_ok(), status == 200);
        }
        assert_eq!(server.seen().len(), 1, "status {status}");
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_the_request_to_the_next() {
    let server = Server::start(|n, _| if n == 0 { said(0, "") } else { said(200, SCHEMA) }).await;
    let registry =
        Registry::new(&RegistryConfig { timeout: Duration::from_secs(60), ..config(&[&server.url]) }).unwrap();
    let get = || {
        let registry = registry.clone();
        tokio::spawn(async move { registry.by_id(7).await })
    };
    let impatient = get();
    while server.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    let patient = get();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.seen().len(), 1, "both wait for one answer");
    impatient.abort();
    patient.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_next_url_is_asked_when_one_fails_and_the_good_one_first_afterwards() {
    let good = Server::start(|_, _| said(200, SCHEMA)).await;
    let bad = Server::start(|_, _| said(500, "")).await;
    let registry = client(&[&closed().await, &bad.url, &good.url]);
    let begun = Instant::now();
    for id in 1..=5 {
        registry.by_id(id).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!((bad.seen().len(), good.seen().len()), (1, 5));
}

#[tokio::test]
async fn an_absence_is_believed_only_when_no_peer_has_the_schema() {
    let lagging = Server::start(|_, _| said(404, MISSING)).await;
    let good = Server::start(|_, _| said(200, SCHEMA)).await;
    client(&[&lagging.url, &good.url]).by_id(7).await.unwrap();
    let error = client(&[&lagging.url, &closed().await]).by_id(7).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "a peer that is down contradicts nobody: {error}");
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let server = Server::start(|_, seen| {
        if seen.authorization.is_empty() { said(401, r#"{"message":"who?"}"#) } else { said(200, SCHEMA) }
    })
    .await;
    let error = client(&[&server.url]).by_id(1).await.unwrap_err();
    assert_eq!(error, RegistryError::Refused { status: 401, message: "who?".to_owned() });
    assert!(error.is_passing(), "somebody may mend it");

    let auth = RegistryAuth::Basic { username: "Aladdin".to_owned(), password: "open sesame".to_owned() };
    let basic = RegistryConfig { auth, ..config(&[&server.url]) };
    let registry = Registry::new(&basic).unwrap();
    assert!(!format!("{basic:?}{registry:?}").contains("sesame"));
    registry.by_id(1).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "one\n").unwrap();
    let bearer = RegistryConfig { auth: RegistryAuth::BearerFile(file.clone()), ..config(&[&server.url]) };
    let registry = Registry::new(&bearer).unwrap();
    registry.by_id(1).await.unwrap();
    std::fs::write(&file, "two\n").unwrap();
    registry.by_id(2).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = registry.by_id(3).await.unwrap_err();
    assert!(error.is_passing() && error.to_string().contains("token"), "{error}");
    let sent: Vec<_> = server.seen().into_iter().map(|seen| seen.authorization).collect();
    // RFC 7617's own example.
    assert_eq!(sent, ["", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Bearer one", "Bearer two"]);
}

#[tokio::test]
async fn referenced_schemas_become_part_of_the_text() {
    let server = Server::start(|_, seen| match seen.line.as_str() {
        "GET /schemas/ids/1" => said(200, r#"{"schema":"{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"a\",\"type\":\"n.A\"}]}","references":[{"name":"n.A","subject":"a b/c","version":2}]}"#),
        "GET /subjects/a%20b%2Fc/versions/2" => said(200, r#"{"id":5,"version":2,"schema":"{\"type\":\"record\",\"name\":\"n.A\",\"fields\":[{\"name\":\"b\",\"type\":\"B\"}]}","references":[{"name":"n.B","subject":"b","version":1}]}"#),
        "GET /subjects/b/versions/1" => said(200, r#"{"id":4,"version":1,"schema":"{\"type\":\"enum\",\"name\":\"n.B\",\"symbols\":[\"X\"]}"}"#),
        other => panic!("{other}"),
    })
    .await;
    let found = client(&[&server.url]).by_id(1).await.unwrap();
    let schema = apache_avro::Schema::parse_str(&found.schema).unwrap();
    assert!(schema.canonical_form().contains(r#""name":"n.B","type":"enum""#), "{}", schema.canonical_form());

    let endless = Server::start(|n, _| {
        said(
            200,
            &format!(r#"{{"id":1,"schema":"\"int\"","references":[{{"name":"x","subject":"s{n}","version":1}}]}}"#),
        )
    })
    .await;
    let error = client(&[&endless.url]).by_id(1).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unusable { .. }), "{error}");
    assert_eq!(endless.seen().len(), 65);
    let protobuf = Server::start(|_, _| said(200, r#"{"schemaType":"PROTOBUF","schema":"syntax"}"#)).await;
    let error = client(&[&protobuf.url]).by_id(1).await.unwrap_err();
    assert!(error.to_string().contains("PROTOBUF") && !error.is_passing(), "{error}");
}

#[tokio::test]
async fn subjects_versions_and_compatibility() {
    let server = Server::start(|_, seen| match seen.line.as_str() {
        "GET /subjects/s/versions/3" | "GET /subjects/s/versions/latest" => {
            said(200, r#"{"subject":"s","id":9,"version":3,"schema":"\"int\""}"#)
        }
        "GET /subjects/s/versions/4" => said(404, r#"{"error_code":40402}"#),
        "POST /subjects/s" => said(200, r#"{"subject":"s","id":9,"version":3,"schema":"\"int\""}"#),
        "POST /subjects/none" => said(404, r#"{"error_code":40401}"#),
        "POST /subjects/s/versions" if seen.body.contains("long") => said(200, r#"{"id":10}"#),
        "POST /subjects/s/versions" => said(409, r#"{"error_code":409,"message":"incompatible"}"#),
        "POST /compatibility/subjects/s/versions/latest?verbose=true" => {
            said(200, r#"{"is_compatible":false,"messages":["a rule"]}"#)
        }
        other => panic!("{other}"),
    })
    .await;
    let registry = client(&[&server.url]);
    let third = registry.by_version("s", Version::Number(3)).await.unwrap();
    assert_eq!((third.id, third.version, third.schema.as_str()), (9, Some(3), "\"int\""));
    registry.by_version("s", Version::Number(3)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(registry.by_version("s", Version::Latest).await.unwrap().id, 9);
    }
    assert_eq!(server.seen().len(), 3, "a number is kept, the latest is asked for each time");
    let error = registry.by_version("s", Version::Number(4)).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { code: 40402, .. }), "{error}");
    assert_eq!(registry.lookup("s", "\"int\"", &[]).await, Ok(9));
    assert!(matches!(registry.lookup("none", "\"int\"", &[]).await, Err(RegistryError::NotFound { .. })));
    let compatibility = registry.check_compatibility("s", Version::Latest, "\"long\"", &[]).await.unwrap();
    assert_eq!(compatibility, Compatibility { is_compatible: false, messages: vec!["a rule".to_owned()] });

    let before = server.seen().len();
    assert_eq!(registry.register("s", "\"long\"", &[]).await, Err(RegistryError::RegisteringIsOff));
    assert_eq!(server.seen().len(), before, "nothing was sent");
    let may = Registry::new(&RegistryConfig { may_register: true, ..config(&[&server.url]) }).unwrap();
    let reference = Reference { name: "n".to_owned(), subject: "t".to_owned(), version: 1 };
    assert_eq!(may.register("s", "\"long\"", &[reference]).await, Ok(10));
    assert_eq!(
        server.seen().last().unwrap().body,
        r#"{"references":[{"name":"n","subject":"t","version":1}],"schema":"\"long\""}"#
    );
    let error = may.register("s", "\"string\"", &[]).await.unwrap_err();
    assert_eq!(error, RegistryError::Refused { status: 409, message: "incompatible".to_owned() });
    assert!(!error.is_passing());
}

/// A server with a certificate of its own authority; answers every connection once.
async fn tls_server(ca: &std::path::Path) -> (String, Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(ca, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let tls = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = Arc::new(AtomicUsize::new(0));
    let counted = served.clone();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        while let Ok((stream, _)) = listener.accept().await {
            // A client that trusts nobody ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{SCHEMA}", SCHEMA.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    (format!("localhost:{port}"), served)
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let (address, served) = tls_server(&ca).await;
    let https = |host: &str, ca: &std::path::Path| RegistryConfig {
        ca_file: Some(ca.to_owned()),
        attempts: 1,
        timeout: Duration::from_secs(5),
        ..config(&[&format!("https://{host}")])
    };
    Registry::new(&https(&address, &ca)).unwrap().by_id(1).await.unwrap();

    let other = folder.path().join("other.pem");
    std::fs::write(&other, rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()).unwrap();
    let error = Registry::new(&https(&address, &other)).unwrap().by_id(1).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let by_number = address.replace("localhost", "127.0.0.1");
    let error = Registry::new(&https(&by_number, &ca)).unwrap().by_id(1).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "another name: {error}");
    assert_eq!(served.load(Ordering::Relaxed), 1);

    std::fs::write(&other, "no certificate").unwrap();
    let error = Registry::new(&https(&address, &other)).unwrap_err();
    assert!(error.problems[0].starts_with("ca_file: can't use"), "{error}");
}

#[test]
fn a_wrong_configuration_is_refused_with_all_that_is_wrong() {
    let auth = RegistryAuth::Basic { username: "a:b".to_owned(), password: "hunter2".to_owned() };
    let wrong = RegistryConfig {
        auth,
        timeout: Duration::ZERO,
        cache_schemas: 0,
        ..config(&["ftp://x", "http://u:hunter3@x", "http://x/?a=b", "http://x/a", "x y", "/only/a/path"])
    };
    let error = Registry::new(&wrong).unwrap_err();
    let fields: Vec<_> = error.problems.iter().map(|problem| problem.split_once(' ').unwrap().0).collect();
    assert_eq!(fields, ["urls:", "urls:", "urls:", "urls:", "urls:", "timeout:", "cache_schemas:", "auth:"], "{error}");
    assert!(!error.to_string().contains("hunter"), "{error}");
    assert!(Registry::new(&config(&[])).is_err());
}
