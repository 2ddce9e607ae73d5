//! ClickHouse as one of its users, asked directly and not through the store that is under test.

use std::time::Duration;

use crate::http;

const PATIENCE: Duration = Duration::from_secs(60);

/// One user's way to one database.
#[derive(Clone, Debug)]
pub struct ClickHouse {
    address: String,
    database: String,
    user: String,
    password: String,
}

impl ClickHouse {
    /// For `url` (`http://HOST:PORT`), with `database` as the default one.
    #[must_use]
    pub fn new(url: &str, database: &str, user: &str, password: &str) -> Self {
        let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Self { address, database: database.to_owned(), user: user.to_owned(), password: password.to_owned() }
    }

    /// Runs `sql` and returns what it answers.
    ///
    /// # Errors
    /// ClickHouse's own text, or why it can't be reached.
    pub fn try_bytes(&self, sql: &str) -> Result<Vec<u8>, String> {
        let path = format!("/?database={}&wait_end_of_query=1", self.database);
        let headers = [
            ("X-ClickHouse-User", &*self.user),
            ("X-ClickHouse-Key", &*self.password),
            ("X-ClickHouse-Format", "TabSeparated"),
        ];
        let answer =
            http::post(&self.address, &path, &headers, sql.as_bytes(), PATIENCE).map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer.body) } else { Err(answer.text()) }
    }

    /// [`Self::try_bytes`] as text without the last line's end.
    ///
    /// # Errors
    /// As [`Self::try_bytes`].
    pub fn try_text(&self, sql: &str) -> Result<String, String> {
        let bytes = self.try_bytes(sql)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// What `sql` answers; fails the test when ClickHouse refuses.
    #[track_caller]
    #[must_use]
    pub fn text(&self, sql: &str) -> String {
        self.try_text(sql).unwrap_or_else(|refusal| panic!("ClickHouse refused to {} `{sql}`: {refusal}", self.user))
    }

    /// Runs a statement without an answer.
    #[track_caller]
    pub fn run(&self, sql: &str) {
        let answer = self.text(sql);
        assert!(answer.is_empty(), "`{sql}` answered {answer}");
    }

    /// The one number that `sql` answers.
    #[track_caller]
    #[must_use]
    pub fn number(&self, sql: &str) -> u64 {
        let text = self.text(sql);
        text.parse().unwrap_or_else(|_| panic!("`{sql}` answered `{text}`, no number"))
    }

    /// Whether ClickHouse answers at all.
    #[must_use]
    pub fn answers(&self) -> bool {
        http::get(&self.address, "/ping").is_ok_and(|answer| answer.status == 200)
    }
}
