//! HTTP/1.1 over one connection that stays: as much of it as the order service needs, and nothing that could take time unseen.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest answer.
const ANSWER_BYTES: usize = 4 << 20;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    sent: Vec<u8>,
    received: Vec<u8>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method and path.
    pub line: String,
    /// The session, if there is one.
    pub session: Option<String>,
    /// The request's id, which the service's events have too.
    pub id: String,
    /// JSON, or nothing.
    pub body: String,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn open(at: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&at, PATIENCE).with_context(|| format!("no connection to {at}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, sent: Vec::new(), received: Vec::new() })
    }

    /// Asks, and reads the whole answer: its status and its body.
    ///
    /// # Errors
    /// The connection broke, or the answer is none that this client reads.
    pub fn ask(&mut self, request: &Request) -> Result<(u16, &[u8])> {
        let Request { line, session, id, body } = request;
        self.sent.clear();
        write!(self.sent, "{line} HTTP/1.1\r\nhost: shop\r\nuser-agent: order-load\r\nx-request-id: {id}\r\n")?;
        if let Some(session) = session {
            write!(self.sent, "authorization: Bearer {session}\r\n")?;
        }
        write!(self.sent, "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
        self.stream.write_all(&self.sent).context("the service takes no request")?;
        self.received.clear();
        let mut chunk = [0; 16 * 1024];
        loop {
            let read = self.stream.read(&mut chunk).context("the service does not answer")?;
            if read == 0 {
                bail!("the service closed the connection in the middle of an answer");
            }
            self.received.extend_from_slice(&chunk[..read]);
            if self.received.len() > ANSWER_BYTES {
                bail!("the answer is longer than {ANSWER_BYTES} bytes");
            }
            if let Some((status, begin, end)) = parse(&self.received)?
                && self.received.len() >= end
            {
                return Ok((status, &self.received[begin..end]));
            }
        }
    }
}

/// Status, and where the body begins and ends, once the head is there.
fn parse(received: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&received[..end]).context("the answer's head is no text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.context("the answer is no HTTP/1.1")?;
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.context("the answer does not say how long it is")?;
    Ok(Some((status, end + 4, end + 4 + length.min(ANSWER_BYTES))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_is_read_when_its_head_is_there() {
        let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\nx: y\r\n\r\nno...";
        assert_eq!(parse(&answer[..30]).unwrap(), None);
        let (status, begin, end) = parse(answer).unwrap().unwrap();
        assert_eq!((status, &answer[begin..end]), (401, &b"no..."[..]));
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(parse(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}
