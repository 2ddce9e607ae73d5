//! `SASL/OAUTHBEARER` with a token out of a file, such as the service-account token that Kubernetes projects into a pod.
//!
//! librdkafka asks for a token when it has none and again when four fifths of its lifetime are over. Each time the file is
//! read anew, so whoever renews it need not tell us.
//!
//! The question comes as an event on the client's main queue. A producer's thread and a consumer's `poll` answer it; a consumer
//! that looks something up must poll first, or the look-up waits for a token in vain. Nobody reads the queue of rdkafka's
//! `AdminClient`: [`give_token`] hands it one directly.
//!
//! Promise: neither the token nor a part of it is in any error, log line or `Debug`.

use std::error::Error;
use std::ffi::{CString, c_char};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::bindings;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::consumer::ConsumerContext;
use serde_json::Value;

/// Larger than any token that a broker would take in its first request.
const LONGEST_TOKEN: u64 = 64 * 1024;

/// A file that holds a JSON Web Token (RFC 7519) and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    path: PathBuf,
}

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file can't be read.
    #[error("can't read the token file {}: {source}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the file holds is no token that can be used.
    #[error("the token file {} {problem}", .file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
    /// It was valid once.
    #[error("the token in {} expired {seconds} s ago; whoever writes the file must renew it", .file.display())]
    Expired {
        /// The file.
        file: PathBuf,
        /// Since when.
        seconds: u64,
    },
    /// librdkafka does not take it.
    #[error("the kafka client does not take the token in {}", .file.display())]
    Refused {
        /// The file.
        file: PathBuf,
    },
}

impl TokenFile {
    /// The file at `path`. It is read when a token is needed, not here.
    pub fn new(path: impl Into<PathBuf>) -> TokenFile {
        TokenFile { path: path.into() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token that is in the file now, with its subject (`sub`) and the end of its life (`exp`). Its signature is not
    /// looked at: that is the broker's business.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn read(&self) -> Result<OAuthToken, TokenError> {
        self.read_at(SystemTime::now())
    }

    fn read_at(&self, now: SystemTime) -> Result<OAuthToken, TokenError> {
        let file = || self.path.clone();
        let unreadable = |source| TokenError::Unreadable { file: file(), source };
        let mut text = String::new();
        File::open(&self.path)
            .and_then(|open| open.take(LONGEST_TOKEN).read_to_string(&mut text))
            .map_err(unreadable)?;
        let token = text.trim();
        let (sub, expires_ms) = claims(token).map_err(|problem| TokenError::Unusable { file: file(), problem })?;
        let now_ms = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        if expires_ms <= now_ms {
            return Err(TokenError::Expired { file: file(), seconds: now_ms.abs_diff(expires_ms) / 1000 });
        }
        Ok(OAuthToken { token: token.to_owned(), principal_name: sub, lifetime_ms: expires_ms })
    }
}

/// Subject and end of life (milliseconds since 1970) of a token.
fn claims(token: &str) -> Result<(String, i64), &'static str> {
    const NO_JWT: &str = "holds no JSON Web Token: three parts of base64url with dots between them";
    let parts: Vec<&str> = token.split('.').collect();
    // Checked here to the last character: librdkafka would write a token that it finds odd into its error message.
    if parts.len() != 3 || !token.bytes().all(|byte| byte == b'.' || sextet(byte).is_some()) {
        return Err(NO_JWT);
    }
    let payload: Value = base64url(parts[1]).and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or(NO_JWT)?;
    let sub = payload.get("sub").and_then(Value::as_str).filter(|sub| !sub.is_empty() && !sub.contains('\0'));
    let sub = sub.ok_or("holds a token without a subject: its claim `sub` must be text")?;
    let exp = payload.get("exp").and_then(Value::as_f64).filter(|exp| (0.0..1e12).contains(exp));
    let exp = exp.ok_or("holds a token without an end: its claim `exp` must be seconds since 1970")?;
    Ok((sub.to_owned(), (exp * 1000.0) as i64))
}

/// The six bits of a character of base64url (RFC 4648, section 5).
fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for &byte in chunk {
            bits = bits << 6 | u32::from(sextet(byte)?);
        }
        let filled = bits << (6 * (4 - chunk.len()));
        let whole = match chunk.len() {
            1 => return None,
            length => length - 1,
        };
        bytes.extend_from_slice(&filled.to_be_bytes()[1..=whole]);
    }
    Some(bytes)
}

/// The context of a client that wants nothing but a token: for look-ups and other short errands.
#[derive(Debug, Clone, Default)]
pub struct TokenContext {
    tokens: Option<TokenFile>,
}

impl TokenContext {
    /// With the file for `sasl.mechanism=OAUTHBEARER`, none for every other mechanism.
    pub fn new(tokens: Option<TokenFile>) -> TokenContext {
        TokenContext { tokens }
    }
}

impl ClientContext for TokenContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        answer(self.tokens.as_ref())
    }
}

impl ConsumerContext for TokenContext {}

/// What a context answers to `generate_oauth_token`.
///
/// # Errors
/// There is no file, or it gives no token.
pub fn answer(tokens: Option<&TokenFile>) -> Result<OAuthToken, Box<dyn Error>> {
    Ok(tokens.ok_or(NoFile)?.read()?)
}

/// The mechanism is OAUTHBEARER and nobody said where the token is.
#[derive(Debug)]
struct NoFile;

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no token file is configured")
    }
}

impl Error for NoFile {}

/// Hands a client the token that is in the file now. It is not renewed: for clients that are gone within the token's life.
///
/// # Errors
/// The file gives no token, or the client's mechanism is another one.
#[expect(unsafe_code, reason = "rdkafka has no safe way to give an admin client a token")]
pub fn give_token<C: ClientContext>(client: &Client<C>, tokens: &TokenFile) -> Result<(), TokenError> {
    let OAuthToken { token, principal_name, lifetime_ms } = tokens.read()?;
    let refused = || TokenError::Refused { file: tokens.path.clone() };
    let (Ok(token), Ok(principal)) = (CString::new(token), CString::new(principal_name)) else {
        return Err(refused());
    };
    let mut words = [0 as c_char; 256];
    // SAFETY: the client outlives the call; the strings and the buffer do too, librdkafka copies what it keeps; the list of
    // extensions is empty.
    let code = unsafe {
        bindings::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.as_ptr(),
            lifetime_ms,
            principal.as_ptr(),
            std::ptr::null_mut(),
            0,
            words.as_mut_ptr(),
            words.len(),
        )
    };
    // The words are not passed on: they may quote the token.
    if code == rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::time::Duration;

    use super::*;

    fn encoded(text: &str) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut out = String::new();
        for chunk in text.as_bytes().chunks(3) {
            let mut group = [0; 4];
            group[1..=chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes(group);
            (0..=chunk.len()).for_each(|at| out.push(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize] as char));
        }
        out
    }

    fn read(content: &str) -> Result<OAuthToken, TokenError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, content).unwrap();
        TokenFile::new(path).read_at(UNIX_EPOCH + Duration::from_secs(1_000))
    }

    fn jwt(payload: &str) -> String {
        format!("{}.{}.c2lnbmF0dXJl", encoded(r#"{"alg":"RS256"}"#), encoded(payload))
    }

    #[test]
    fn subject_and_end_come_from_the_token() {
        for payload in [
            r#"{"sub":"ns:audit","exp":1001}"#,
            r#"{"exp":1001.0,"sub":"ns:audit","é":1}"#,
            "{\"sub\":\"ns:audit\",\"exp\":1001 }",
        ] {
            let token = read(&format!("{}\n", jwt(payload))).unwrap();
            assert_eq!((token.principal_name.as_str(), token.lifetime_ms), ("ns:audit", 1_001_000));
            assert_eq!(token.token, jwt(payload));
        }
        // Unsigned, as tests of brokers use them.
        let unsigned = format!("{}.{}.", encoded(r#"{"alg":"none"}"#), encoded(r#"{"sub":"a","exp":2000}"#));
        assert_eq!(read(&unsigned).unwrap().principal_name, "a");
    }

    #[test]
    fn base64url_of_every_length() {
        for text in ["", "f", "fo", "foo", "foob", "fooba", "foobar", "??>>~~"] {
            assert_eq!(base64url(&encoded(text)).unwrap(), text.as_bytes());
        }
        assert_eq!(base64url("A"), None);
        assert_eq!(base64url("A+=="), None);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_token() {
        let secret = "c2VjcmV0";
        let cases = [
            (String::new(), "holds no JSON Web Token"),
            (secret.to_owned(), "holds no JSON Web Token"),
            (format!("{secret}.{secret}.{secret}"), "holds no JSON Web Token"),
            (format!("{}\u{7f}", jwt(r#"{"sub":"a","exp":2000}"#)), "holds no JSON Web Token"),
            (jwt(r#"{"exp":2000}"#), "claim `sub`"),
            (jwt(r#"{"sub":"","exp":2000}"#), "claim `sub`"),
            (jwt(r#"{"sub":"a\u0000b","exp":2000}"#), "claim `sub`"),
            (jwt(r#"{"sub":"a"}"#), "claim `exp`"),
            (jwt(r#"{"sub":"a","exp":"2000"}"#), "claim `exp`"),
            (jwt(r#"{"sub":"a","exp":940}"#), "expired 60 s ago"),
            (jwt(r#"{"sub":"a","exp":1000}"#), "expired 0 s ago"),
        ];
        for (content, expected) in cases {
            let error = read(&content).err().unwrap();
            let said = format!("{error} {error:?}");
            assert!(said.contains(expected), "{content}: {said}");
            assert!(!said.contains(secret), "{said}");
        }
        let error = TokenFile::new("/nowhere/token").read().err().unwrap().to_string();
        assert!(error.starts_with("can't read the token file /nowhere/token: "), "{error}");
    }
}
