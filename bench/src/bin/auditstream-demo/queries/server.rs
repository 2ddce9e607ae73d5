//! ClickHouse over HTTP/1.0, a connection a request, with what it says of the work: rows and bytes read.

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

/// One user's way to the tables.
#[derive(Clone)]
pub(super) struct Server {
    address: String,
    database: String,
    user: String,
    password: String,
    pid: u32,
}

/// An answer and what it took.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) took: Duration,
    pub(super) read_rows: u64,
    pub(super) read_bytes: u64,
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
    pub(super) fn new(target: &Target, role: Role) -> Result<Self> {
        let (user, password) = target.credentials(role);
        let address = target.clickhouse_url().trim_start_matches("http://").trim_end_matches('/').to_owned();
        let pid = target.state().clickhouse_pid.context("ClickHouse does not run")?;
        Ok(Self { address, database: target.database().to_owned(), user: user.into(), password: password.into(), pid })
    }

    /// Sends `sql` with `settings` in the URL (`name=value`, joined by `&`).
    fn send(&self, sql: &str, settings: &str) -> Result<TcpStream> {
        let Self { address, database, user, password, .. } = self;
        let mut stream = TcpStream::connect(address).context("ClickHouse can't be reached")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!(
            "POST /?database={database}&{settings} HTTP/1.0\r\nHost: {address}\r\nX-ClickHouse-User: {user}\r\n\
             X-ClickHouse-Key: {password}\r\nX-ClickHouse-Format: TabSeparated\r\nContent-Length: {}\r\n\r\n",
            sql.len()
        );
        stream.write_all(&[head.as_bytes(), sql.as_bytes()].concat())?;
        Ok(stream)
    }

    /// What `sql` answers, as it comes. An error on the way stands at the end of it, so who reads it counts.
    pub(super) fn stream(&self, sql: &str) -> Result<impl Read> {
        let mut answer = BufReader::with_capacity(1 << 20, self.send(sql, "")?);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        let is_well = line.split(' ').nth(1) == Some("200");
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

    /// Runs `sql` with `settings` in the URL (`name=value`, joined by `&`).
    pub(super) fn ask(&self, sql: &str, settings: &str) -> Result<Answer> {
        let begun = Instant::now();
        let mut stream = self.send(sql, &format!("wait_end_of_query=1&{settings}"))?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("ClickHouse did not answer")?;
        let took = begun.elapsed();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("the answer is no HTTP")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let text = String::from_utf8_lossy(&answer[end + 4..]).trim_end().to_owned();
        if head.split(' ').nth(1) != Some("200") {
            bail!("ClickHouse refused: {text}\n{sql}");
        }
        let summary = head.lines().filter_map(|line| line.strip_prefix("X-ClickHouse-Summary: ")).next_back();
        let summary: Summary = summary.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let number = |text: &str| text.parse().unwrap_or(0);
        Ok(Answer { text, took, read_rows: number(&summary.read_rows), read_bytes: number(&summary.read_bytes) })
    }

    /// What `sql` answers, as text.
    pub(super) fn text(&self, sql: &str) -> Result<String> {
        Ok(self.ask(sql, "")?.text)
    }

    /// The one number that `sql` answers.
    pub(super) fn number(&self, sql: &str) -> Result<f64> {
        let text = self.text(sql)?;
        text.parse().with_context(|| format!("ClickHouse answered `{text}`, no number, to: {sql}"))
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU time of the whole server so far, merges included.
    pub(super) fn cpu(&self) -> Result<Duration> {
        Ok(process::usage(self.pid).context("ClickHouse's process is not there")?.cpu)
    }
}
