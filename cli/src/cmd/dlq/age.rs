//! Whether a record that is sent again may keep its timestamp.
//!
//! Kafka deletes by the records' own timestamps: a record that is as old as the topic's retention is deleted soon after it was written, perhaps before a
//! worker that is away or paused has read it. Such a record is sent with the present time, and a header says which timestamp it had.

use std::collections::BTreeMap;

use auditstream_store::DeadLetter;

use crate::admin::{Admin, Record};
use crate::output;

/// Header of a record that was sent again with the time of that: the timestamp that it had at first, milliseconds since 1970.
pub(super) const FIRST_TIMESTAMP: &str = "auditstream.retry.timestamp";

/// How old a record of each topic may be to keep its timestamp, in milliseconds.
pub(super) struct Ages(BTreeMap<String, i64>);

impl Ages {
    /// Asks the brokers for each topic that `letters` come from. Where they don't say, no record keeps its timestamp.
    pub(super) async fn of(letters: &[DeadLetter], admin: &Admin) -> Ages {
        let mut ages = BTreeMap::new();
        for letter in letters {
            if ages.contains_key(&letter.topic) {
                continue;
            }
            let oldest = match admin.topic_settings(&letter.topic).await {
                Ok(settings) => oldest(&settings),
                Err(error) => {
                    output::complain(&format!(
                        "how long topic {} keeps records is not known, so they get the present time as their timestamp: {error:#}",
                        letter.topic
                    ));
                    0
                }
            };
            ages.insert(letter.topic.clone(), oldest);
        }
        Ages(ages)
    }

    /// Gives a record for `topic` the time `now_ms` when it is too old to keep its own; answers whether it was.
    pub(super) fn renew(&self, record: &mut Record, topic: &str, now_ms: i64) -> bool {
        let oldest = self.0.get(topic).copied().unwrap_or(0);
        if now_ms.saturating_sub(record.timestamp_ms) <= oldest {
            return false;
        }
        // What was sent again before has the header already.
        if record.header(FIRST_TIMESTAMP).is_none() {
            let first = record.timestamp_ms.to_string().into_bytes();
            record.headers.push((FIRST_TIMESTAMP.to_owned(), Some(first)));
        }
        record.timestamp_ms = now_ms;
        true
    }
}

/// How old a record may be for a topic with these settings: half of what the topic keeps leaves workers time to read it.
fn oldest(settings: &BTreeMap<String, String>) -> i64 {
    let text = |name| settings.get(name).map_or("", String::as_str);
    let millis = |name| text(name).parse::<i64>().ok().filter(|ms| *ms >= 0).unwrap_or(i64::MAX);
    // The broker writes its own time anyway.
    if text("message.timestamp.type") == "LogAppendTime" {
        return i64::MAX;
    }
    let kept = if text("cleanup.policy").contains("delete") { millis("retention.ms") } else { i64::MAX };
    // Older than that the broker would refuse it.
    (kept / 2).min(millis("message.timestamp.before.max.ms"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn half_of_the_retention_counts_where_time_deletes() {
        let of = |settings: &[(&str, &str)]| {
            let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            oldest(&settings.collect())
        };
        let (delete, week) = (("cleanup.policy", "delete"), ("retention.ms", "604800000"));
        assert_eq!(of(&[delete, week]), 302_400_000);
        assert_eq!(of(&[delete, week, ("message.timestamp.before.max.ms", "3600000")]), 3_600_000);
        assert_eq!(of(&[("cleanup.policy", "compact,delete"), week]), 302_400_000);
        for for_ever in [
            &[delete, ("retention.ms", "-1")][..],
            &[("cleanup.policy", "compact"), week],
            &[delete, week, ("message.timestamp.type", "LogAppendTime")],
        ] {
            assert!(of(for_ever) > 1 << 60, "{for_ever:?}");
        }
    }

    #[test]
    fn an_old_record_gets_the_present_time_and_keeps_its_first_one_in_a_header() {
        let record = |timestamp_ms| Record {
            partition: 0,
            offset: 0,
            timestamp_ms,
            key: None,
            value: None,
            headers: vec![("own".to_owned(), None)],
        };
        let ages = Ages([("t".to_owned(), 100)].into());
        let mut young = record(900);
        assert!(!ages.renew(&mut young, "t", 1_000));
        assert_eq!((young.timestamp_ms, young.headers.len()), (900, 1));
        let mut old = record(899);
        assert!(ages.renew(&mut old, "t", 1_000));
        assert_eq!((old.timestamp_ms, old.header(FIRST_TIMESTAMP)), (1_000, Some("899")));
        assert!(ages.renew(&mut old, "t", 2_000));
        assert_eq!((old.timestamp_ms, old.header(FIRST_TIMESTAMP)), (2_000, Some("899")), "the first one stays");
        assert!(ages.renew(&mut record(999), "unknown", 1_000));
    }
}
