//! ClickHouse over HTTP/1.0, a connection a request: questions and statements as text, blocks of rows as bytes, with what ClickHouse says of the work.
//!
//! A connection of its own for each, and no client in between, so that a benchmark measures ClickHouse.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use auditstream_bench::process;
use auditstream_bench::target::Target;
use auditstream_stack::Role;
use serde::Deserialize;

/// Longest time between two bytes of an answer: a forced merge of a month says nothing for minutes.
const PATIENCE: Duration = Duration::from_secs(900);
const TEXT: &str = "TabSeparated";

/// One user's way to the tables.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    address: String,
    database: String,
    user: String,
    password: String,
    pid: u32,
}

/// An answer and what it took.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) took: Duration,
    pub(crate) read_rows: u64,
    pub(crate) read_bytes: u64,
}

/// `X-ClickHouse-Summary`.
#[derive(Default, Deserialize)]
struct Summary {
    #[serde(default)]
    read_rows: String,
    #[serde(default)]
    read_bytes: String,
}

impl Server {
    pub(crate) fn new(target: &Target, role: Role) -> Result<Self> {
        let (user, password) = target.credentials(role);
        let address = target.clickhouse_url().trim_start_matches("http://").trim_end_matches('/').to_owned();
        let pid = target.state().clickhouse_pid.context("ClickHouse does not run")?;
        Ok(Self { address, database: target.database().to_owned(), user: user.into(), password: password.into(), pid })
    }

    /// The database of the tables.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU time of the whole server so far, merges included.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(process::usage(self.pid).context("ClickHouse's process is not there")?.cpu)
    }

    /// Runs `sql` with `settings` in the URL (`name=value`, joined by `&`).
    pub(crate) fn ask(&self, sql: &str, settings: &str) -> Result<Answer> {
        let begun = Instant::now();
        let (head, body) = self.post(settings, sql.as_bytes(), TEXT).with_context(|| sql.to_owned())?;
        let took = begun.elapsed();
        let summary = head.lines().filter_map(|line| line.strip_prefix("X-ClickHouse-Summary: ")).next_back();
        let summary: Summary = summary.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let number = |text: &str| text.parse().unwrap_or(0);
        Ok(Answer {
            text: String::from_utf8_lossy(&body).trim_end().to_owned(),
            took,
            read_rows: number(&summary.read_rows),
            read_bytes: number(&summary.read_bytes),
        })
    }

    /// What `sql` answers, as text.
    pub(crate) fn text(&self, sql: &str) -> Result<String> {
        Ok(self.ask(sql, "")?.text)
    }

    /// The one whole number that `sql` answers.
    pub(crate) fn number(&self, sql: &str) -> Result<u64> {
        let text = self.text(sql)?;
        text.parse().with_context(|| format!("ClickHouse answered `{text}`, no whole number, to: {sql}"))
    }

    /// The one number that `sql` answers.
    pub(crate) fn real(&self, sql: &str) -> Result<f64> {
        let text = self.text(sql)?;
        text.parse().with_context(|| format!("ClickHouse answered `{text}`, no number, to: {sql}"))
    }

    /// What a SELECT answers, in a format. `settings`: `name=value`, joined by `&`.
    pub(crate) fn rows(&self, sql: &str, format: &str, settings: &str) -> Result<Vec<u8>> {
        Ok(self.post(settings, sql.as_bytes(), format)?.1)
    }

    /// Inserts `rows`, which are in the format that `sql` names.
    pub(crate) fn insert(&self, sql: &str, settings: &str, rows: &[u8]) -> Result<()> {
        self.post(&format!("query={}&{settings}", in_url(sql)), rows, TEXT).map(drop)
    }

    /// What `sql` answers, as it comes. An error on the way stands at the end of it, so who reads it counts.
    pub(crate) fn stream(&self, sql: &str) -> Result<impl Read + use<>> {
        let mut stream = self.connect()?;
        stream.write_all(&[self.head("", sql.len(), TEXT).as_bytes(), sql.as_bytes()].concat())?;
        let mut answer = BufReader::with_capacity(1 << 20, stream);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        let is_well = is_well(line.as_bytes());
        while !line.trim_end().is_empty() {
            line.clear();
            answer.read_line(&mut line)?;
        }
        if !is_well {
            let mut text = String::new();
            answer.read_to_string(&mut text)?;
            bail!("ClickHouse refused: {}\n{sql}", text.trim_end());
        }
        Ok(answer)
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.address).context("ClickHouse can't be reached")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn head(&self, settings: &str, length: usize, format: &str) -> String {
        let Self { address, database, user, password, .. } = self;
        format!(
            "POST /?database={database}&{settings} HTTP/1.0\r\nHost: {address}\r\nX-ClickHouse-User: {user}\r\n\
             X-ClickHouse-Key: {password}\r\nX-ClickHouse-Format: {format}\r\nContent-Length: {length}\r\n\r\n"
        )
    }

    /// Head and body of the whole answer.
    fn post(&self, settings: &str, body: &[u8], format: &str) -> Result<(String, Vec<u8>)> {
        let mut stream = self.connect()?;
        let head = self.head(&format!("wait_end_of_query=1&{settings}"), body.len(), format);
        // A refusal may come before all is sent; then the answer says more than the broken pipe.
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            sent.and(read.map(drop)).context("ClickHouse did not answer")?;
            bail!("ClickHouse's answer is no HTTP");
        };
        let is_well = is_well(&answer);
        let rest = answer.split_off(end + 4);
        if !is_well {
            bail!("ClickHouse refused: {}", String::from_utf8_lossy(&rest).trim_end());
        }
        sent.context("ClickHouse did not take all")?;
        read.context("ClickHouse's answer broke off")?;
        Ok((String::from_utf8_lossy(&answer).into_owned(), rest))
    }
}

/// Whether an answer that begins so is no error.
fn is_well(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200")
}

fn in_url(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_fits_into_a_url() {
        assert_eq!(
            in_url("INSERT INTO `a`.b (c) FORMAT Native"),
            "INSERT%20INTO%20%60a%60.b%20%28c%29%20FORMAT%20Native"
        );
        assert_eq!(in_url("é&="), "%C3%A9%26%3D");
    }

    #[test]
    fn an_answer_is_well_by_its_status() {
        assert!(is_well(b"HTTP/1.1 200 OK\r\n") && !is_well(b"HTTP/1.1 403 Forbidden\r\n") && !is_well(b""));
    }
}
