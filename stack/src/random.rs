//! Random values from the kernel: passwords, cluster ids, port candidates.

use std::fs::File;
use std::io::{self, Read};

fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut buffer = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut buffer)?;
    Ok(buffer)
}

/// Any 16-bit number.
pub(crate) fn number() -> io::Result<u16> {
    Ok(u16::from_ne_bytes(bytes()?))
}

/// 128 random bits as 32 hexadecimal digits: a password that needs no quoting anywhere.
pub(crate) fn password() -> io::Result<String> {
    Ok(bytes::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A Kafka UUID: 16 random bytes in URL-safe base64 without padding, 22 characters, never with a leading dash
/// (Kafka's own tools avoid it, because command lines take it for an option).
pub(crate) fn kafka_uuid() -> io::Result<String> {
    loop {
        let id = base64url(&bytes::<16>()?);
        if !id.starts_with('-') {
            return Ok(id);
        }
    }
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = 0u32;
        for (i, byte) in chunk.iter().enumerate() {
            word |= u32::from(*byte) << (16 - 8 * i);
        }
        for i in 0..=chunk.len() {
            let index = (word >> (18 - 6 * i)) & 63;
            out.push(char::from(ALPHABET[index as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn base64url_as_in_rfc_4648() {
        assert_eq!(base64url(b"foobar"), "Zm9vYmFy");
        assert_eq!(base64url(b"foob"), "Zm9vYg");
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn shapes() {
        assert_eq!(kafka_uuid().unwrap().len(), 22);
        assert_eq!(password().unwrap().len(), 32);
        assert_ne!(password().unwrap(), password().unwrap());
    }
}
