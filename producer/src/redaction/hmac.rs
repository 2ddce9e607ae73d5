//! The keyed hash: HMAC-SHA-256 (RFC 2104), its first 16 bytes.

use std::fmt;
use std::fmt::Write;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The secret key of [`Action::Hmac`](super::Action::Hmac). Whoever has it can test guesses against tokens: keep it
/// where the service's other secrets are, and apart from the events.
#[derive(Clone)]
pub struct HmacKey {
    keyed: Hmac<Sha256>,
    len: usize,
}

impl HmacKey {
    /// At least 16 bytes, which [`build`](super::RedactionBuilder::build) checks; 32 random ones are good.
    pub fn new(secret: impl AsRef<[u8]>) -> HmacKey {
        let secret = secret.as_ref();
        // HMAC takes keys of every length, so the fallback, which no key fits, is never taken.
        match Hmac::new_from_slice(secret) {
            Ok(keyed) => HmacKey { keyed, len: secret.len() },
            Err(_) => HmacKey { keyed: Hmac::new(&Default::default()), len: 0 },
        }
    }

    pub(crate) fn is_long_enough(&self) -> bool {
        self.len >= 16
    }

    /// `hmac:` and 32 hexadecimal digits. Half of the hash is what RFC 2104 allows to be left out; it fits an address's field.
    pub(crate) fn token(&self, value: &[u8]) -> String {
        let mut hash = self.keyed.clone();
        hash.update(value);
        let mut token = String::with_capacity(37);
        token.push_str("hmac:");
        for byte in &hash.finalize().into_bytes()[..16] {
            // Writing to a String can't fail.
            let _ = write!(token, "{byte:02x}");
        }
        token
    }
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey(...)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_rfc_4231s() {
        // Test cases 1 and 2 of RFC 4231, cut to 16 bytes.
        assert_eq!(HmacKey::new([0x0b; 20]).token(b"Hi There"), "hmac:b0344c61d8db38535ca8afceaf0bf12b");
        let token = HmacKey::new("Jefe").token(b"what do ya want for nothing?");
        assert_eq!(token, "hmac:5bdcc146bf60754e6a042426089575c7");
        assert_eq!(format!("{:?}", HmacKey::new("Jefe")), "HmacKey(...)");
    }
}
