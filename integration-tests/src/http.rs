//! HTTP/1.0 over one connection a request: all that the tests ask of ClickHouse and of the probes, without a client that retries behind their back.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body as sent.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends `body` with `headers` to `path` at `address` (`HOST:PORT`) and reads the whole answer, each read within `patience`.
///
/// # Errors
/// No connection, no answer in time, or no HTTP.
pub fn post(
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    patience: Duration,
) -> io::Result<Answer> {
    exchange("POST", address, path, headers, body, patience)
}

/// [`post`] with the method PUT.
///
/// # Errors
/// As [`post`].
pub fn put(address: &str, path: &str, headers: &[(&str, &str)], body: &[u8], patience: Duration) -> io::Result<Answer> {
    exchange("PUT", address, path, headers, body, patience)
}

/// Asks for `path` at `address` (`HOST:PORT`).
///
/// # Errors
/// As [`post`].
pub fn get(address: &str, path: &str) -> io::Result<Answer> {
    exchange("GET", address, path, &[], &[], Duration::from_secs(5))
}

fn exchange(
    method: &str,
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    patience: Duration,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let no_http = || io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(no_http)?;
    let status = std::str::from_utf8(&answer[..end])
        .ok()
        .and_then(|head| head.split(' ').nth(1)?.parse().ok())
        .ok_or_else(no_http)?;
    answer.drain(..end + 4);
    Ok(Answer { status, body: answer })
}
