//! What the store makes of a server's or a proxy's answers, also of those that a healthy ClickHouse never gives. The server here is a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use auditstream_store::{Config, ErrorClass, InsertError, Store, event_body};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

fn store(address: SocketAddr) -> Store {
    let config = Config {
        url: format!("http://{address}"),
        tls: auditstream_store::Tls::default(),
        database: "audit".into(),
        user: "u".into(),
        password: "p".into(),
        insert_timeout: Duration::from_secs(1),
        query_timeout: Duration::from_secs(1),
    };
    Store::new(&config).unwrap()
}

/// Reads a chunked request to its end and returns its head.
async fn request(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.ends_with(b"0\r\n\r\n") {
        let read = socket.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the request ended early");
        bytes.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&bytes).split("\r\n\r\n").next().unwrap().to_owned()
}

/// Answers one insert with `answer` and closes; gives what the insert ended with and the request's head.
async fn insert_answered(answer: &'static str) -> (Result<(), InsertError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = store(listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let head = request(&mut socket).await;
        socket.write_all(answer.as_bytes()).await.unwrap();
        head
    });
    let result = store.insert_events(&event_body(&[], "t").unwrap(), "the-token").await;
    (result, server.await.unwrap())
}

#[tokio::test]
async fn a_plain_200_is_success_and_the_request_asks_for_what_is_promised() {
    let (result, head) = insert_answered("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    result.unwrap();
    for parameter in [
        "insert_deduplication_token=the-token",
        "insert_deduplicate=1",
        "async_insert=0",
        "wait_end_of_query=1",
        "optimize_on_insert=0",
        "max_partitions_per_insert_block=0",
    ] {
        assert!(head.contains(parameter), "{parameter} is missing in {head}");
    }
}

#[tokio::test]
async fn a_200_with_an_exception_header_is_an_error() {
    let (result, _) = insert_answered(
        "HTTP/1.1 200 OK\r\nX-ClickHouse-Exception-Code: 241\r\nContent-Length: 55\r\n\r\nCode: 241. DB::Exception: x (MEMORY_LIMIT_EXCEEDED) end",
    )
    .await;
    let error = result.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::Retry, Some(241)));
}

#[tokio::test]
async fn a_200_with_an_exception_in_the_body_is_an_error() {
    let old = "HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\nCode: 60. DB::Exception: no (UNKNOWN_TABLE) (version 24.1 (official))\n";
    let new = "HTTP/1.1 200 OK\r\nX-ClickHouse-Exception-Tag: rnywyenlaeqynhmu\r\nContent-Length: 120\r\n\r\n\r\n__exception__\r\nrnywyenlaeqynhmu\r\n\
               Code: 60. DB::Exception: no. (UNKNOWN_TABLE)\n45 rnywyenlaeqynhmu\r\n__exception__\r\n";
    for answer in [old, new] {
        let (result, _) = insert_answered(answer).await;
        let error = result.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Halt, Some(60)), "{answer}: {error}");
    }
}

#[tokio::test]
async fn a_proxy_s_answer_and_a_cut_connection_are_retried() {
    for answer in [
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 17\r\n\r\n<html>bad</html>\n",
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut",
        "HTTP/1.1 20",
        "garbage\r\n\r\n",
        "",
    ] {
        let (result, _) = insert_answered(answer).await;
        let error = result.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Retry, None), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn nobody_there_is_retried() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = store(address).insert_events(&event_body(&[], "t").unwrap(), "x").await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Retry);
    assert!(error.message.contains("refused"), "it says why: {error}");
    assert!(store(address).check_tables().await.unwrap_err().is_passing());
}

#[tokio::test]
async fn silence_ends_at_the_limit_and_closes_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = store(listener.local_addr().unwrap());
    let (closed, is_closed) = oneshot::channel();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = request(&mut socket).await;
        // Nothing is answered; the client's close is what this read waits for.
        let read = socket.read(&mut [0; 16]).await;
        closed.send(read).unwrap();
    });
    let started = Instant::now();
    let error = store.insert_events(&event_body(&[], "t").unwrap(), "x").await.unwrap_err();
    assert_eq!(error.message, "clickhouse did not answer within 1 s");
    assert_eq!(error.class, ErrorClass::Retry);
    assert!(started.elapsed() < Duration::from_millis(1900), "{:?}", started.elapsed());
    let read =
        tokio::time::timeout(Duration::from_secs(5), is_closed).await.expect("the connection is left open").unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_left_at_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = store(listener.local_addr().unwrap());
    let error = store.ping().await.unwrap_err();
    assert_eq!((error.class, error.message.as_str()), (ErrorClass::Retry, "clickhouse did not answer within 1 s"));
    drop(listener);
}
