//! Events of a wanted size, or with a wanted number of field changes.
//!
//! What is added looks like what services add: changed fields of an order's lines, and a context object in `details`. About half of it are words and
//! names that repeat, the rest numbers and ids that don't, so that compression finds something, but not everything.

use std::fmt::Write as _;

use auditstream_schemas::{AuditEvent, Change, encoded_len};

use super::generator::Options;
use super::random::Random;

/// Bytes that frame and stamp add to an event as the generator makes it: the Confluent frame of 5, a producer's id of 4, an epoch of 8, a number of 3, less
/// the three bytes of an empty stamp.
pub(super) const FRAME_AND_STAMP: usize = 5 + 5 + 8 + 3 - 3;
/// Below this an addition to `details` would cost more than it brings.
const SMALLEST: usize = 24;
/// Above this a part goes to `changes`, below it all to `details`.
const BOTH: usize = 400;
/// Keeps these numbers apart from those that make the event.
const STREAM: u64 = 0x5EED_F111;

/// Applies the options that say how large an event is. Without any, the event stays as it is.
pub(super) fn fit(event: &mut AuditEvent, options: &Options, index: u64) {
    let mut random = Random::new(options.seed ^ STREAM, index);
    if let Some(count) = options.changes {
        event.changes = (0..count).map(|number| change(u64::from(number), &mut random)).collect();
    }
    let Some(mean) = options.bytes else { return };
    // Large ones differ by a fifth. Small ones can't: what no event may lack takes 130 to 170 bytes.
    let percent = if mean as usize > BOTH { 80 + random.below(41) as usize } else { 100 };
    let wanted = (mean as usize * percent / 100).saturating_sub(FRAME_AND_STAMP);
    let mut len = encoded_len(event);
    if len > wanted {
        shrink(event, wanted);
        len = encoded_len(event);
    }
    if options.changes.is_none() && wanted > len + BOTH {
        let until = len + (wanted - len) / 2;
        while len < until {
            let added = change(event.changes.len() as u64, &mut random);
            // A byte for each length and for each branch of a union, with which the sizes below fit.
            len += added.path.len()
                + added.old.as_ref().map_or(0, String::len)
                + added.new.as_ref().map_or(0, String::len)
                + 5;
            event.changes.push(added);
        }
    }
    len = encoded_len(event);
    if len + SMALLEST < wanted {
        extend(&mut event.details, wanted - len, &mut random);
    }
}

/// Leaves out what an event may lack, the least telling first, until it is no longer than `wanted`.
fn shrink(event: &mut AuditEvent, wanted: usize) {
    const STEPS: [fn(&mut AuditEvent); 14] = [
        |event| event.trace_id = None,
        |event| event.user_agent = None,
        |event| event.correlation_id = None,
        |event| event.http_path = None,
        |event| event.request_id = None,
        |event| event.changes.clear(),
        |event| event.actor.session_id = None,
        |event| event.actor.email = None,
        |event| event.details = "{}".to_owned(),
        |event| event.actor.name = None,
        |event| event.entity_name = None,
        |event| event.error_message = None,
        |event| event.ip = None,
        |event| event.http_method = None,
    ];
    for step in STEPS {
        if encoded_len(event) <= wanted {
            return;
        }
        step(event);
    }
}

const WORDS: &[&str] = &[
    "linen", "shirt", "blue", "cotton", "drawer", "oak", "lamp", "steel", "kettle", "green", "paper", "garden",
    "chair", "copper", "window", "north", "bottle", "glass", "winter", "jacket", "travel", "pocket", "summer",
    "kitchen", "silver", "mirror", "small", "large", "spare", "order", "packed", "by", "hand", "after", "the",
    "second", "call", "customer", "asked", "for", "another", "colour", "refund", "partly", "shipped", "from",
    "Leipzig", "Porto", "Gdańsk", "returned", "unopened", "checked", "at", "gate", "seven", "with", "label", "missing",
];
const FIELDS: &[&str] = &["price", "quantity", "status", "warehouse", "note", "discount", "tax_code", "batch"];

fn word(random: &mut Random) -> &'static str {
    let word: &&'static str = random.pick(WORDS);
    word
}

fn words(count: u64, random: &mut Random) -> String {
    let mut text = String::new();
    for number in 0..count {
        if number > 0 {
            text.push(' ');
        }
        text.push_str(word(random));
    }
    text
}

/// A value as JSON.
fn value(field: &str, random: &mut Random) -> String {
    match field {
        "price" | "discount" => format!("\"{}.{:02}\"", random.skewed_below(2_000), random.below(100)),
        "quantity" => random.skewed_below(500).to_string(),
        "batch" => format!("\"{:012x}\"", random.next() >> 16),
        "note" => format!("\"{}\"", words(4, random)),
        _ => format!("\"{}-{:03}\"", word(random), random.below(1_000)),
    }
}

fn change(number: u64, random: &mut Random) -> Change {
    let field = *random.pick(FIELDS);
    let (old, new) = (value(field, random), value(field, random));
    Change { path: format!("/lines/{number}/{field}"), old: (!random.percent(10)).then_some(old), new: Some(new) }
}

/// Makes a JSON object `bytes` bytes longer, to the byte.
fn extend(details: &mut String, bytes: usize, random: &mut Random) {
    const OPEN: &str = "\"context\":[";
    const NOTE: &str = "],\"note\":\"";
    const CLOSE: &str = "\"}";
    let end = details.len() + bytes;
    details.pop();
    if details.len() > 1 {
        details.push(',');
    }
    details.push_str(OPEN);
    // One item at a time while it fits; the note takes what is left.
    let mut is_first = true;
    loop {
        let mut item = String::new();
        // Writing to a String can't fail.
        let _ = write!(
            item,
            "{}{{\"sku\":\"sku-{}\",\"name\":\"{}\",\"price\":\"{}.{:02}\",\"ref\":\"{:016x}\"}}",
            if is_first { "" } else { "," },
            random.below(200_000),
            words(3, random),
            random.skewed_below(900),
            random.below(100),
            random.next()
        );
        if details.len() + item.len() + NOTE.len() + CLOSE.len() > end {
            break;
        }
        details.push_str(&item);
        is_first = false;
    }
    details.push_str(NOTE);
    let mut left = end.saturating_sub(details.len() + CLOSE.len());
    while left > 0 {
        let word = word(random);
        if word.len() < left {
            details.push_str(word);
            details.push(' ');
            left -= word.len() + 1;
        } else {
            details.push('.');
            left -= 1;
        }
    }
    details.push_str(CLOSE);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use auditstream_schemas::{Framing, ProducerStamp, encode};

    use super::super::generator::Generator;
    use super::*;

    /// As they lie on the topic.
    fn mean(options: Options) -> f64 {
        let count = options.events;
        let generator = Generator::new(options);
        let total: usize = (0..count)
            .map(|index| {
                let mut event = generator.event(index);
                event.validate().unwrap();
                event.producer = ProducerStamp { id: "load".to_owned(), epoch: 1_769_860_800_000_000, seq: 500_000 };
                let mut bytes = Vec::new();
                encode(&event, Framing::Confluent { schema_id: 1 }, &mut bytes);
                bytes.len()
            })
            .sum();
        total as f64 / count as f64
    }

    #[test]
    fn the_mean_size_is_within_five_percent() {
        for bytes in [150, 300, 1_600, 16_000] {
            let mean = mean(Options { events: 2_000, bytes: Some(bytes), ..Options::default() });
            assert!((mean / f64::from(bytes) - 1.0).abs() < 0.05, "{mean} bytes, {bytes} wanted");
        }
    }

    #[test]
    fn without_a_size_nothing_is_touched() {
        let mean = mean(Options { events: 2_000, ..Options::default() });
        assert!((285.0..305.0).contains(&mean), "{mean}");
    }

    #[test]
    fn every_event_has_as_many_changes_as_asked_for() {
        for count in [0, 1, 100] {
            let generator = Generator::new(Options { events: 100, changes: Some(count), ..Options::default() });
            for index in 0..100 {
                let event = generator.event(index);
                event.validate().unwrap();
                assert_eq!(event.changes.len(), count as usize);
            }
        }
    }

    #[test]
    fn details_stay_json_and_differ() {
        let generator = Generator::new(Options { events: 50, bytes: Some(1_600), ..Options::default() });
        let all: std::collections::HashSet<String> = (0..50).map(|index| generator.event(index).details).collect();
        assert_eq!(all.len(), 50);
        for details in all {
            let value: serde_json::Value = serde_json::from_str(&details).unwrap();
            assert!(!value["context"].as_array().unwrap().is_empty(), "{details}");
        }
    }
}
