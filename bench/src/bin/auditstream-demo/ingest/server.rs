//! ClickHouse over HTTP/1.0, a connection a request: questions and statements as text, blocks of rows as bytes.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use auditstream_bench::process;
use auditstream_bench::target::Target;
use auditstream_stack::Role;

/// Longest time between two bytes of an answer.
const PATIENCE: Duration = Duration::from_secs(300);

/// The administrator's way to the tables.
#[derive(Debug, Clone)]
pub(super) struct Server {
    address: String,
    database: String,
    user: String,
    password: String,
    pid: u32,
}

impl Server {
    pub(super) fn new(target: &Target) -> Result<Self> {
        let (user, password) = target.credentials(Role::Admin);
        let address = target.clickhouse_url().trim_start_matches("http://").trim_end_matches('/').to_owned();
        let pid = target.state().clickhouse_pid.context("ClickHouse does not run")?;
        Ok(Self { address, database: target.database().to_owned(), user: user.into(), password: password.into(), pid })
    }

    /// The database of the tables.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// Runs a statement; answers what it says, as text.
    pub(super) fn text(&self, sql: &str) -> Result<String> {
        let answer = self.post("", sql.as_bytes(), "TabSeparated").with_context(|| sql.to_owned())?;
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    }

    /// The one number that `sql` answers.
    pub(super) fn number(&self, sql: &str) -> Result<u64> {
        let text = self.text(sql)?;
        text.parse().with_context(|| format!("ClickHouse answered `{text}`, no number, to: {sql}"))
    }

    /// What a SELECT answers, in a format. `settings`: `name=value`, joined by `&`.
    pub(super) fn rows(&self, sql: &str, format: &str, settings: &str) -> Result<Vec<u8>> {
        self.post(settings, sql.as_bytes(), format)
    }

    /// Inserts `rows`, which are in the format that `sql` names.
    pub(super) fn insert(&self, sql: &str, settings: &str, rows: &[u8]) -> Result<()> {
        self.post(&format!("query={}&{settings}", in_url(sql)), rows, "TabSeparated").map(drop)
    }

    fn post(&self, settings: &str, body: &[u8], format: &str) -> Result<Vec<u8>> {
        let Self { address, database, user, password, .. } = self;
        let mut stream = TcpStream::connect(address).context("ClickHouse can't be reached")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!(
            "POST /?database={database}&wait_end_of_query=1&{settings} HTTP/1.0\r\nHost: {address}\r\nX-ClickHouse-User: {user}\r\n\
             X-ClickHouse-Key: {password}\r\nX-ClickHouse-Format: {format}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        // A refusal may come before all is sent; then the answer says more than the broken pipe.
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            sent.and(read.map(drop)).context("ClickHouse did not answer")?;
            bail!("ClickHouse's answer is no HTTP");
        };
        let is_good = answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200");
        let rest = answer.split_off(end + 4);
        if !is_good {
            bail!("ClickHouse refused: {}", String::from_utf8_lossy(&rest).trim_end());
        }
        sent.context("ClickHouse did not take all")?;
        read.context("ClickHouse's answer broke off")?;
        Ok(rest)
    }

    /// CPU time of the whole server so far, merges included.
    pub(super) fn cpu(&self) -> Result<Duration> {
        Ok(process::usage(self.pid).context("ClickHouse's process is not there")?.cpu)
    }
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
}
