//! What people type: the place of a record, and a time.

use std::str::FromStr;

use auditstream_schemas::Timestamp;

/// `PARTITION/OFFSET`, with the topic before it where it is not the configured one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) topic: Option<String>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let wrong = || "is no place such as 3/1042 or audit.events/3/1042: partition and offset, perhaps after a topic";
        let mut parts = text.rsplit('/');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let (offset, partition) = (number(), number());
        let offset = offset.and_then(|offset| i64::try_from(offset).ok()).ok_or_else(wrong)?;
        let partition = partition.and_then(|partition| i32::try_from(partition).ok()).ok_or_else(wrong)?;
        let topic = parts.next();
        if parts.next().is_some() || topic == Some("") {
            return Err(wrong().to_owned());
        }
        Ok(Place { topic: topic.map(str::to_owned), partition, offset })
    }
}

/// A point in time: RFC 3339, or so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Since(i64);

impl Since {
    /// Milliseconds since 1970.
    pub(crate) fn millis(self) -> i64 {
        self.0
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Since, String> {
        parse(text, Timestamp::now()).map(Since)
    }
}

fn parse(text: &str, now: Timestamp) -> Result<i64, String> {
    let wrong = || "is no time such as 2026-01-31T09:30:00Z, and no span such as 90s, 30m, 12h or 7d".to_owned();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_micros().div_euclid(1_000));
    }
    let unit = match text.chars().last() {
        Some('s') => 1_000,
        Some('m') => 60_000,
        Some('h') => 3_600_000,
        Some('d') => 86_400_000,
        _ => return Err(wrong()),
    };
    let count: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    Ok(now.as_micros().div_euclid(1_000) - i64::from(count) * unit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places() {
        let place = |topic: Option<&str>| Place { topic: topic.map(str::to_owned), partition: 3, offset: 1042 };
        assert_eq!("3/1042".parse(), Ok(place(None)));
        assert_eq!("audit.events/3/1042".parse(), Ok(place(Some("audit.events"))));
        for wrong in ["", "3", "3/", "/3/4", "-3/4", "a/b", "x/y/3/4", "3/99999999999999999999"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        let now = Timestamp::from_micros(1_000_000_000_000);
        assert_eq!(parse("1970-01-01T00:00:01.5Z", now), Ok(1_500));
        assert_eq!(parse("2h", now), Ok(1_000_000_000 - 7_200_000));
        for wrong in ["", "h", "2", "-2h", "2w", "é", "yesterday"] {
            assert!(parse(wrong, now).is_err(), "{wrong}");
        }
    }
}
