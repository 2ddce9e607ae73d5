//! When certificates end, out of their files: for the metrics, so that an alert comes before the refusal.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Whose certificate a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateKind {
    /// Authorities that are trusted. While an old and a new one are there, the later end counts.
    Authorities,
    /// Our own, with its chain behind it. The first one counts.
    Own,
}

/// When what is in a PEM file ends, in seconds since 1970.
///
/// # Errors
/// The file can't be read, or holds no certificate.
pub fn certificate_expiry(file: &Path, kind: CertificateKind) -> Result<i64, String> {
    let unusable = |why: &dyn std::fmt::Display| format!("can't use {}: {why}", file.display());
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| unusable(&error))?;
    let mut ends = Vec::new();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        ends.push(not_after(&certificate).ok_or_else(|| unusable(&"a certificate of it has no end"))?);
    }
    let end = match kind {
        CertificateKind::Authorities => ends.iter().max(),
        CertificateKind::Own => ends.first(),
    };
    end.copied().ok_or_else(|| unusable(&"it holds no certificate"))
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The field `notAfter` of a certificate (RFC 5280, 4.1).
fn not_after(der: &[u8]) -> Option<i64> {
    let inside = |input, tag| element(input).filter(|(found, _, _)| *found == tag).map(|(_, content, _)| content);
    let mut fields = inside(inside(der, SEQUENCE)?, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, signature's algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, _, after_not_before) = element(inside(fields, SEQUENCE)?)?;
    let (tag, text, _) = element(after_not_before)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let year: i64 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let two = |from: usize| -> Option<i64> { rest.get(from..from + 2)?.parse().ok() };
    let (month, day) = (two(0)?, two(2)?);
    ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some(())?;
    Some(days_since_1970(year, month, day) * 86_400 + two(4)? * 3_600 + two(6)? * 60 + two(8)?)
}

/// Tag, content and what comes behind of the first element of DER.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let bytes = usize::from(first & 0x7f);
        if bytes == 0 || bytes > 4 || bytes > rest.len() {
            return None;
        }
        length = rest[..bytes].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        rest = &rest[bytes..];
    }
    (length <= rest.len()).then(|| (tag, &rest[..length], &rest[length..]))
}

/// Of the Gregorian calendar, counted from March so that the leap day is a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
        - 719_469
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_has_them() {
        for ((year, month, day), days) in [
            ((1970, 1, 1), 0),
            ((1970, 3, 1), 59),
            ((2000, 2, 29), 11_016),
            ((2026, 11, 22), 20_779),
            ((2100, 3, 1), 47_541),
        ] {
            assert_eq!(days_since_1970(year, month, day), days, "{year}-{month}-{day}");
        }
    }

    #[test]
    fn both_notations_of_time_are_read_and_nonsense_is_not() {
        let certificate = |tag: u8, time: &str| {
            let wrap = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
            let validity = wrap(SEQUENCE, &[wrap(UTC_TIME, b"260101000000Z"), wrap(tag, time.as_bytes())].concat());
            let fields =
                [wrap(VERSION, &[2, 1, 2]), wrap(2, &[1]), wrap(SEQUENCE, &[]), wrap(SEQUENCE, &[]), validity].concat();
            wrap(SEQUENCE, &wrap(SEQUENCE, &fields))
        };
        assert_eq!(not_after(&certificate(UTC_TIME, "261122013000Z")), Some(20_779 * 86_400 + 5_400));
        assert_eq!(not_after(&certificate(UTC_TIME, "991231235959Z")), Some(946_684_799));
        assert_eq!(not_after(&certificate(GENERALIZED_TIME, "21000301000000Z")), Some(47_541 * 86_400));
        for (tag, time) in [(UTC_TIME, "261322013000Z"), (UTC_TIME, "2611"), (4, "261122013000Z")] {
            assert_eq!(not_after(&certificate(tag, time)), None, "{time}");
        }
        let whole = certificate(UTC_TIME, "261122013000Z");
        assert!((0..whole.len()).all(|end| not_after(&whole[..end]).is_none()), "cut anywhere");
    }

    #[test]
    fn of_authorities_the_last_counts_and_of_a_chain_the_first() {
        let folder = std::env::temp_dir().join(format!("auditstream-expiry-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let pem = |years: [i32; 2]| {
            years.map(|year| {
                let key = rcgen::KeyPair::generate().unwrap();
                let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
                params.not_after = rcgen::date_time_ymd(year, 3, 1);
                params.self_signed(&key).unwrap().pem()
            })
        };
        let file = folder.join("two.pem");
        std::fs::write(&file, pem([2030, 2040]).concat()).unwrap();
        let of = |kind| certificate_expiry(&file, kind);
        assert_eq!(of(CertificateKind::Own), Ok(days_since_1970(2030, 3, 1) * 86_400));
        assert_eq!(of(CertificateKind::Authorities), Ok(days_since_1970(2040, 3, 1) * 86_400));
        std::fs::write(&file, "nothing").unwrap();
        assert!(of(CertificateKind::Own).unwrap_err().contains("it holds no certificate"));
        assert!(certificate_expiry(&folder.join("none.pem"), CertificateKind::Own).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
