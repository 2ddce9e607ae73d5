//! Does a server answer? Asked in the server's own protocol, since an open port alone proves nothing.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Patience for one question.
const TIMEOUT: Duration = Duration::from_millis(500);
/// A longer Kafka answer than this is none (a metadata answer without topics has about 50 bytes).
const MAX_ANSWER: usize = 64 * 1024;

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// True once Kafka's metadata names a live broker on that port (a fenced broker is not listed).
#[must_use]
pub fn kafka_answers(port: u16) -> bool {
    kafka_metadata(port).is_ok_and(|ports| ports.contains(&i32::from(port)))
}

/// Asks for metadata of no topic and returns the brokers' ports.
fn kafka_metadata(port: u16) -> io::Result<Vec<i32>> {
    let mut stream = connect(port)?;
    stream.write_all(&metadata_request())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_ANSWER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "answer too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    broker_ports(&body).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no metadata answer"))
}

const CORRELATION: i32 = 0x0061_7564;

/// Metadata request version 1 (<https://kafka.apache.org/protocol>): header v1, then an empty list of topics.
fn metadata_request() -> Vec<u8> {
    let client = b"auditstream-stack";
    let mut body = Vec::with_capacity(64);
    body.extend_from_slice(&3i16.to_be_bytes()); // api key: metadata
    body.extend_from_slice(&1i16.to_be_bytes()); // version
    body.extend_from_slice(&CORRELATION.to_be_bytes());
    body.extend_from_slice(&[0, 17]); // the client id's length
    body.extend_from_slice(client);
    body.extend_from_slice(&0i32.to_be_bytes()); // no topics (null would mean all)
    let mut frame = vec![0, 0, 0, u8::try_from(body.len()).unwrap_or(u8::MAX)];
    frame.extend_from_slice(&body);
    frame
}

/// The brokers' ports of a metadata answer version 1; `None` when it is cut off or answers something else.
fn broker_ports(mut body: &[u8]) -> Option<Vec<i32>> {
    fn take<'a>(body: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
        let (head, rest) = body.split_at_checked(n)?;
        *body = rest;
        Some(head)
    }
    fn int(body: &mut &[u8]) -> Option<i32> {
        Some(i32::from_be_bytes(take(body, 4)?.try_into().ok()?))
    }
    fn skip_string(body: &mut &[u8]) -> Option<()> {
        let length = i16::from_be_bytes(take(body, 2)?.try_into().ok()?);
        // -1 is null.
        take(body, usize::try_from(length).unwrap_or(0)).map(|_| ())
    }
    if int(&mut body)? != CORRELATION {
        return None;
    }
    let mut ports = Vec::new();
    for _ in 0..int(&mut body)? {
        int(&mut body)?; // node id
        skip_string(&mut body)?; // host
        ports.push(int(&mut body)?);
        skip_string(&mut body)?; // rack
    }
    Some(ports)
}

/// True once ClickHouse answers `/ping`.
#[must_use]
pub fn clickhouse_answers(port: u16) -> bool {
    http(port, "GET /ping HTTP/1.0\r\nHost: localhost\r\n\r\n", TIMEOUT).is_ok_and(|answer| answer.ends_with("Ok.\n"))
}

/// True once the schema registry answers a question that its storage must be asked for.
#[must_use]
pub fn registry_answers(port: u16) -> bool {
    // The first answer after a start takes longer than the others.
    let request = format!("GET {}/subjects HTTP/1.0\r\nHost: localhost\r\n\r\n", crate::registry::PATH);
    let answer = http(port, &request, Duration::from_secs(2));
    answer.is_ok_and(|answer| answer.split_whitespace().nth(1) == Some("200"))
}

/// Runs one statement without a result.
pub(crate) fn clickhouse_execute(port: u16, user: &str, password: &str, sql: &str) -> io::Result<()> {
    let request = format!(
        "POST / HTTP/1.0\r\nHost: localhost\r\nX-ClickHouse-User: {user}\r\nX-ClickHouse-Key: {password}\r\n\
         Content-Length: {}\r\n\r\n{sql}",
        sql.len()
    );
    let answer = http(port, &request, Duration::from_secs(10))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split_whitespace().nth(1) == Some("200") && body.is_empty() {
        Ok(())
    } else {
        Err(io::Error::other(format!("ClickHouse refused `{sql}`: {}", body.trim())))
    }
}

fn http(port: u16, request: &str, patience: Duration) -> io::Result<String> {
    let mut stream = connect(port)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answer() -> Vec<u8> {
        let mut body = CORRELATION.to_be_bytes().to_vec();
        body.extend_from_slice(&2i32.to_be_bytes());
        for port in [9092i32, 9093] {
            body.extend_from_slice(&1i32.to_be_bytes());
            body.extend_from_slice(&[0, 9]);
            body.extend_from_slice(b"127.0.0.1");
            body.extend_from_slice(&port.to_be_bytes());
            body.extend_from_slice(&(-1i16).to_be_bytes());
        }
        body.extend_from_slice(&1i32.to_be_bytes()); // controller
        body.extend_from_slice(&0i32.to_be_bytes()); // topics
        body
    }

    #[test]
    fn brokers_are_read() {
        assert_eq!(broker_ports(&answer()), Some(vec![9092, 9093]));
    }

    #[test]
    fn a_cut_off_or_foreign_answer_is_none() {
        let whole = answer();
        for end in 0..whole.len() - 8 {
            assert_eq!(broker_ports(&whole[..end]), None, "cut at {end}");
        }
        assert_eq!(broker_ports(b"HTTP/1.1 400 Bad Request"), None);
    }

    #[test]
    fn the_request_is_framed() {
        let frame = metadata_request();
        assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        assert_eq!(frame.len(), 4 + 2 + 2 + 4 + 2 + 17 + 4);
    }

    #[test]
    fn a_closed_port_does_not_answer() {
        let [port] = crate::ports::pick::<1>().unwrap();
        assert!(!kafka_answers(port));
        assert!(!clickhouse_answers(port));
        assert!(!registry_answers(port));
    }
}
