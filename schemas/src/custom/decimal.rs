//! Decimals between Avro's bytes (two's complement, big-endian) and text, whatever their size.

/// Digits, at the most: a schema may say any number, and as many are held in memory.
pub(super) const MAX_PRECISION: usize = 10_000;
/// Room for them.
const MAX_BYTES: usize = 4_200;

/// `12.30` for the unscaled 1230 at scale 2. `None` when it has more digits than `precision`.
pub(super) fn to_text(bytes: &[u8], precision: usize, scale: usize) -> Option<String> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut magnitude = bytes.to_vec();
    if negative {
        negate(&mut magnitude);
    }
    let mut digits = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut rest = 0_u16;
        for byte in &mut magnitude {
            let value = rest << 8 | u16::from(*byte);
            *byte = u8::try_from(value / 10).ok()?;
            rest = value % 10;
        }
        digits.push(b'0' + u8::try_from(rest).ok()?);
    }
    if digits.len() > precision {
        return None;
    }
    while digits.len() <= scale {
        digits.push(b'0');
    }
    digits.reverse();
    let mut text = String::from_utf8(digits).ok()?;
    if scale > 0 {
        text.insert(text.len() - scale, '.');
    }
    if negative {
        text.insert(0, '-');
    }
    Some(text)
}

/// The unscaled value of a text such as `-12.3`. `None` when it is no decimal, or has more digits than there is room for.
pub(super) fn from_text(text: &str, precision: usize, scale: usize) -> Option<Vec<u8>> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = unsigned.split_once('.').map_or((unsigned, None), |(whole, part)| (whole, Some(part)));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || fraction.is_some_and(|part| !all_digits(part) || part.len() > scale) {
        return None;
    }
    let fraction = fraction.unwrap_or("");
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    digits.resize(digits.len() + scale - fraction.len(), b'0');
    if digits.iter().skip_while(|digit| **digit == b'0').count() > precision || digits.len() > 2 * MAX_PRECISION {
        return None;
    }
    let mut magnitude: Vec<u8> = vec![0];
    for digit in digits {
        let mut carry = u16::from(digit - b'0');
        for byte in magnitude.iter_mut().rev() {
            let value = u16::from(*byte) * 10 + carry;
            *byte = u8::try_from(value & 0xff).ok()?;
            carry = value >> 8;
        }
        if carry > 0 {
            magnitude.insert(0, u8::try_from(carry).ok()?);
        }
    }
    if magnitude.first().is_some_and(|byte| byte & 0x80 != 0) {
        magnitude.insert(0, 0);
    }
    if negative {
        negate(&mut magnitude);
    }
    Some(magnitude)
}

/// The two's complement.
fn negate(bytes: &mut [u8]) {
    let mut carry = true;
    for byte in bytes.iter_mut().rev() {
        let (value, more) = (!*byte).overflowing_add(u8::from(carry));
        *byte = value;
        carry = more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        for (bytes, scale, text) in [
            (&[0x04, 0xce][..], 2, "12.30"),
            (&[0xfb, 0x32], 2, "-12.30"),
            (&[0x00], 2, "0.00"),
            (&[0xff], 2, "-0.01"),
            (&[0x80], 0, "-128"),
            (&[0x00, 0x80], 0, "128"),
            (&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 4, "922337203685477.5807"),
            (&[0x00, 0xde, 0x0b, 0x6b, 0x3a, 0x76, 0x40, 0x00, 0x00, 0x00], 0, "4096000000000000000000"),
        ] {
            assert_eq!(to_text(bytes, 30, scale).as_deref(), Some(text), "{bytes:02x?}");
            let back = from_text(text, 30, scale).and_then(|bytes| to_text(&bytes, 30, scale));
            assert_eq!(back.as_deref(), Some(text), "{text}");
        }
        assert_eq!(from_text("12.3", 18, 2), Some(vec![0x04, 0xce]));
        assert_eq!(from_text("-1", 18, 2), Some(vec![0x9c]));
    }

    #[test]
    fn what_is_no_decimal_or_too_long_is_refused() {
        for text in ["", "-", ".5", "5.", "1.234", "1e3", "+1", "1,0", " 1", "1234.00", "--1"] {
            assert_eq!(from_text(text, 5, 2), None, "{text}");
        }
        assert_eq!(to_text(&[0x7f, 0xff], 4, 0), None);
        assert!(from_text("000000999.99", 5, 2).is_some(), "leading zeros are no digits");
    }
}
