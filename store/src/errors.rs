//! What a failed call means for the caller: try again, look for the bad rows, or stop and call somebody.
//!
//! | class | ClickHouse codes | why |
//! |---|---|---|
//! | [`ErrorClass::Halt`] | 16 8 10 20 47 60 81 (table, column or database missing), 44 50 53 73 (another shape), 62 115 (another ClickHouse), 164 192 193 194 195 291 452 497 511 516 (not allowed) | the same call fails until a human changes something, and no row is at fault |
//! | [`ErrorClass::Bisect`] | 6 25 26 27 38 41 69 70 72 117 128 131 190 321 349 376 407 469 | some row can't be stored in the table as it is; the others can |
//! | [`ErrorClass::Retry`] | 159 202 203 209 210 241 242 243 252 285 319 425 999, every other code, no answer at all | passes by itself, or nobody knows: then nothing may be dropped |
//!
//! 33 (`CANNOT_READ_ALL_DATA`) is how ClickHouse sees a body that was cut on the way, so it is tried again.
//! Codes: `src/Common/ErrorCodes.cpp` of ClickHouse. Before a [`ErrorClass::Bisect`] is believed, [`crate::Store::insert_events`] checks the
//! table: a column that was given another type fails like bad data, and halts.

use std::fmt;
use std::time::Duration;

use clickhouse::error::Error;

use crate::blame;

/// What to do about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Send the same again, later. The call may also have succeeded unseen.
    Retry,
    /// Some row is refused for itself: send halves until it is found.
    Bisect,
    /// A human has to change something first. No row is at fault.
    Halt,
}

impl ErrorClass {
    /// `retry`, `bisect` or `halt`: for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Bisect => "bisect",
            Self::Halt => "halt",
        }
    }

    /// The class of a ClickHouse error code.
    #[must_use]
    pub fn of_code(code: u32) -> Self {
        match code {
            8
            | 10
            | 16
            | 20
            | 44
            | 47
            | 50
            | 53
            | 60
            | 62
            | 73
            | 81
            | 115
            | 164
            | 192..=195
            | 291
            | 452
            | 497
            | 511
            | 516 => Self::Halt,
            6 | 25..=27 | 38 | 41 | 69 | 70 | 72 | 117 | 128 | 131 | 190 | 321 | 349 | 376 | 407 | 469 => Self::Bisect,
            _ => Self::Retry,
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed call to ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// What to do about it.
    pub class: ErrorClass,
    /// ClickHouse's error code, when ClickHouse itself answered.
    pub code: Option<u32>,
    /// For people. Holds no row's values.
    pub message: String,
    /// The columns of `events` that ClickHouse blames, where it names some, with `, ` between them.
    pub column: Option<Box<str>>,
}

/// A failed insert.
pub type InsertError = CallError;

impl CallError {
    /// The call had no answer within `limit`.
    pub(crate) fn timed_out(limit: Duration) -> Self {
        Self {
            class: ErrorClass::Retry,
            code: None,
            message: format!("clickhouse did not answer within {} s", limit.as_secs_f32()),
            column: None,
        }
    }

    /// A failure that needs a human and has no code of ClickHouse.
    pub(crate) fn halt(message: String) -> Self {
        Self { class: ErrorClass::Halt, code: None, message, column: None }
    }

    /// What `error`, met while waiting at most `limit`, means.
    pub(crate) fn new(error: &Error, limit: Duration) -> Self {
        match error {
            Error::TimedOut => Self::timed_out(limit),
            Error::BadResponse(text) => Self::of_response(text),
            // The request was never sent, or a row of ours can't be read back: the same call fails again.
            Error::InvalidParams(_)
            | Error::Unsupported(_)
            | Error::SchemaMismatch(_)
            | Error::InvalidColumnsHeader(_)
            | Error::NotEnoughData
            | Error::RowNotFound
            | Error::InvalidUtf8Encoding(_)
            | Error::InvalidTagEncoding(_) => Self::halt(format!("clickhouse client: {}", chain(error))),
            _ => Self {
                class: ErrorClass::Retry,
                code: None,
                message: format!("clickhouse: {}", chain(error)),
                column: None,
            },
        }
    }

    /// From the text of an error response: ClickHouse's own, or a proxy's.
    fn of_response(text: &str) -> Self {
        let Some(code) = code_of(text) else {
            return Self {
                class: ErrorClass::Retry,
                code: None,
                message: format!("no clickhouse error, perhaps a proxy: {}", first_line(text)),
                column: None,
            };
        };
        let class = ErrorClass::of_code(code);
        let message = match class {
            // These texts quote the value that is refused, and values are nobody's business but the table's.
            ErrorClass::Bisect => match blame::constraint(text) {
                Some(constraint) => format!("clickhouse code {code} {}, constraint {constraint}", name_of(text)),
                None => format!("clickhouse code {code} {}", name_of(text)),
            },
            ErrorClass::Retry | ErrorClass::Halt => format!("clickhouse {}", first_line(text)),
        };
        let column = if class == ErrorClass::Bisect { blame::columns(text) } else { None };
        Self { class, code: Some(code), message, column }
    }
}

/// The number in `Code: 60. DB::Exception: …`, or in `Code: 60` alone, which the client writes when it has only the header.
fn code_of(text: &str) -> Option<u32> {
    let rest = text.split_once("Code: ")?.1;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// `(UNKNOWN_TABLE)` at the end of the text, or nothing.
fn name_of(text: &str) -> &str {
    let is_name = |word: &&str| {
        word.len() > 2
            && word[1..word.len() - 1].bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    text.rsplit(' ').filter(|word| word.starts_with('(') && word.ends_with(')')).find(is_name).unwrap_or_default()
}

/// At most 500 characters of the first line, without the server's version.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.split(" (version ").next().unwrap_or_default();
    line.chars().take(500).collect()
}

/// The error and what caused it, down to the operating system's words.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3);

    fn response(text: &str) -> CallError {
        CallError::new(&Error::BadResponse(text.into()), LIMIT)
    }

    #[test]
    fn every_code_of_the_design_is_retried() {
        for code in [159, 202, 203, 209, 210, 241, 242, 243, 252, 285, 319, 425, 999, 33, 12345] {
            assert_eq!(ErrorClass::of_code(code), ErrorClass::Retry, "{code}");
        }
    }

    #[test]
    fn the_code_decides_the_class() {
        let error =
            response("Code: 60. DB::Exception: Table audit.events does not exist. (UNKNOWN_TABLE) (version 26.7.2.1)");
        assert_eq!(error.class, ErrorClass::Halt);
        assert_eq!(error.code, Some(60));
        assert_eq!(
            error.message,
            "clickhouse Code: 60. DB::Exception: Table audit.events does not exist. (UNKNOWN_TABLE)"
        );
        assert_eq!(response("Code: 252. DB::Exception: Too many parts").class, ErrorClass::Retry);
        assert_eq!(response("Code: 241").code, Some(241));
    }

    #[test]
    fn a_refused_value_is_not_repeated() {
        let error = response(
            "Code: 6. DB::Exception: Cannot parse string 'alice@example.com (SECRET)' as Int64. (CANNOT_PARSE_TEXT) (version 26.7.2.1)",
        );
        assert_eq!(error.class, ErrorClass::Bisect);
        assert_eq!(error.message, "clickhouse code 6 (CANNOT_PARSE_TEXT)");
    }

    #[test]
    fn what_is_not_clickhouse_is_retried() {
        for text in ["502 Bad Gateway", "<html>upstream</html>", ""] {
            let error = response(text);
            assert_eq!((error.class, error.code), (ErrorClass::Retry, None));
        }
        assert_eq!(CallError::new(&Error::TimedOut, LIMIT).message, "clickhouse did not answer within 3 s");
        assert_eq!(CallError::new(&Error::Network("reset".into()), LIMIT).class, ErrorClass::Retry);
    }
}
