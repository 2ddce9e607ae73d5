//! Times between the numbers that Avro stores and text (ISO 8601, RFC 3339). `None` when there is no exact counterpart.

use apache_avro::Schema;
use jiff::civil::{Date, Time, date};
use jiff::{Span, Timestamp};

const DAY_SECONDS: i64 = 86_400;
const EPOCH: Date = date(1970, 1, 1);

/// Units a second, and whether it is a local time; `None` for what is no timestamp.
pub(super) fn unit(schema: &Schema) -> Option<(i64, bool)> {
    Some(match schema {
        Schema::TimestampMillis => (1_000, false),
        Schema::TimestampMicros => (1_000_000, false),
        Schema::TimestampNanos => (1_000_000_000, false),
        Schema::LocalTimestampMillis => (1_000, true),
        Schema::LocalTimestampMicros => (1_000_000, true),
        Schema::LocalTimestampNanos => (1_000_000_000, true),
        _ => return None,
    })
}

/// `2026-11-21T20:35:48.123Z`, or without `Z` for a local time.
pub(super) fn timestamp_text(units: i64, per_second: i64, local: bool) -> Option<String> {
    let day = DAY_SECONDS * per_second;
    let date = date_text(i32::try_from(units.div_euclid(day)).ok()?)?;
    let clock = clock_text(units.rem_euclid(day), per_second)?;
    Some(format!("{date}T{clock}{}", if local { "" } else { "Z" }))
}

/// And back; of a time that is not local any offset is taken.
pub(super) fn timestamp_units(text: &str, per_second: i64, local: bool) -> Option<i64> {
    let civil = if local { Some(text) } else { text.strip_suffix('Z') };
    if let Some((date, clock)) = civil.and_then(|text| text.split_once('T')) {
        // The first day that 64 bits of nanoseconds reach begins before they do.
        let day = i128::from(date_days(date)?) * i128::from(DAY_SECONDS * per_second);
        return i64::try_from(day + i128::from(clock_units(clock, per_second)?)).ok();
    }
    if leap_second(text) {
        return None;
    }
    let time: Timestamp = if local { return None } else { text.parse().ok()? };
    let step = i128::from(1_000_000_000 / per_second);
    let nanos = time.as_nanosecond();
    let units = (nanos % step == 0).then(|| i64::try_from(nanos / step).ok())??;
    // Years before 1 have no text.
    timestamp_text(units, per_second, false).map(|_| units)
}

/// jiff takes a leap second as the second before it.
fn leap_second(text: &str) -> bool {
    let clock = text.split_once(['T', 't', ' ']).map_or("", |(_, clock)| clock);
    let digits = clock.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b':').filter(|byte| *byte != b':');
    digits.skip(4).take(2).eq(*b"60")
}

/// `2026-11-21` for the days since 1970.
pub(super) fn date_text(days: i32) -> Option<String> {
    let date = EPOCH.checked_add(Span::new().try_days(days).ok()?).ok()?;
    (date.year() >= 1).then(|| date.to_string())
}

/// And back.
pub(super) fn date_days(text: &str) -> Option<i32> {
    let date = text.parse::<Date>().ok().filter(|date| date.year() >= 1 && date.to_string() == text)?;
    Some(EPOCH.until(date).ok()?.get_days())
}

/// `20:35:48.123` for the units since midnight.
pub(super) fn clock_text(units: i64, per_second: i64) -> Option<String> {
    let seconds = units.div_euclid(per_second);
    if !(0..DAY_SECONDS).contains(&seconds) {
        return None;
    }
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let digits = per_second.ilog10() as usize;
    Some(format!("{hours:02}:{minutes:02}:{seconds:02}.{:0digits$}", units.rem_euclid(per_second)))
}

/// And back.
pub(super) fn clock_units(text: &str, per_second: i64) -> Option<i64> {
    // jiff would take offsets, and leap seconds.
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b":.".contains(&byte)) && !text.contains(":60");
    let time: Time = if plain { text.parse().ok()? } else { return None };
    let step = 1_000_000_000 / per_second;
    let nanos = i64::from(time.subsec_nanosecond());
    let seconds = i64::from(time.hour()) * 3_600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    (nanos % step == 0).then(|| seconds * per_second + nanos / step)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_64_bits_come_back() {
        for local in [false, true] {
            for nanos in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
                let text = timestamp_text(nanos, 1_000_000_000, local).unwrap();
                assert_eq!(timestamp_units(&text, 1_000_000_000, local), Some(nanos), "{text}");
            }
        }
        // One beyond them, at both ends.
        for text in ["1677-09-21T00:12:43.145224191", "2262-04-11T23:47:16.854775808", "9999-12-31T23:59:59"] {
            assert_eq!(timestamp_units(text, 1_000_000_000, true), None, "{text}");
        }
    }

    #[test]
    fn a_leap_second_is_refused_however_it_is_written() {
        for text in [
            "2016-12-31T23:59:60Z",
            "2016-12-31T23:59:60+00:00",
            "2016-12-31t23:59:60.5z",
            "2017-01-01 00:59:60+01",
            "20161231T235960+0000",
        ] {
            assert_eq!(timestamp_units(text, 1_000, false), None, "{text}");
            let before = text.replacen("60", "59", 1);
            assert!(timestamp_units(&before, 1_000, false).is_some(), "{before}");
        }
        assert_eq!(timestamp_units("1970-01-01T01:00:59+01:00", 1_000, false), Some(59_000));
        assert_eq!(timestamp_units("2016-12-31T23:59:60", 1_000, true), None);
    }
}
