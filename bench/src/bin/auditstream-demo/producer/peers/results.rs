//! Both comparisons for the report.

use auditstream_bench::results::{Results, Section, median};
use auditstream_bench::table::thousands;
use auditstream_bench::versions;

use super::tools::Files;
use super::{Peers, call, publish};

/// The middle of the rounds, and in brackets the least and the most.
fn spread(values: impl Iterator<Item = f64>, text: impl Fn(f64) -> String) -> String {
    let values: Vec<f64> = values.collect();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{} ({} to {})", text(median(&values)), text(least), text(most))
}

fn whole(value: f64) -> String {
    thousands(value.round() as u64)
}

fn hundredths(value: f64) -> String {
    format!("{value:.2}")
}

fn texts<const N: usize>(all: [&str; N]) -> Vec<String> {
    all.map(str::to_owned).to_vec()
}

/// For `bench/results/producer-peers.json`.
pub(super) fn of(
    peers: &Peers<'_>,
    calls: Option<&[call::Measured]>,
    published: Option<(&[publish::Measured], &Files)>,
) -> Results {
    let title = "Producer, side by side with what people use instead";
    let super::Args { rounds, events, calls: each, .. } = peers.args;
    let command =
        format!("cargo xtask bench producer-peers --results --rounds {rounds} --events {events} -- --calls {each}");
    let mut results = Results::new("producer-peers", title, &command);
    results.versions = versions::with_kafka();
    for (name, version) in &peers.versions {
        results.versions.insert(name.clone(), version.clone());
    }
    for (name, value) in [
        ("rounds, in turns", peers.args.rounds.to_string()),
        ("calls of each way and round", thousands(peers.args.calls)),
        ("events published in each run", thousands(peers.args.events)),
        ("partitions", "6".to_owned()),
    ] {
        results.settings.insert(name.to_owned(), value);
    }
    results.sections.extend(calls.map(of_calls));
    results.sections.extend(published.map(|(all, files)| of_published(peers, all, files)));
    results
}

fn of_calls(all: &[call::Measured]) -> Section {
    let row = |way: &call::Measured| {
        let over = |pick: fn(&call::Round) -> f64, text: fn(f64) -> String| spread(way.rounds.iter().map(pick), text);
        let server: Vec<f64> = way.rounds.iter().filter_map(|round| round.server).collect();
        vec![
            way.name.to_owned(),
            over(|round| round.p50, hundredths),
            over(|round| round.p99, hundredths),
            over(|round| round.p999, hundredths),
            over(|round| round.refused, hundredths),
            over(|round| round.per_second, whole),
            over(|round| round.process, hundredths),
            if server.is_empty() { "-".to_owned() } else { spread(server.into_iter(), hundredths) },
        ]
    };
    Section {
        title: "What the caller waits, and what it costs".to_owned(),
        text: texts([
            "A built event of about 300 bytes (Avro) is moved into the call. Time of the call: at 100,000 calls a second from one thread, each timed by the \
             monotonic clock, whose cost is in the figure; who finds no room sleeps 2 ms and calls again, untimed; the INSERT one after the other, a twentieth as many. Then as many calls as fast as they go, from one \
             thread, until all is where it should be: calls a second, and CPU time of the process without the making of events. Medians of the rounds, in \
             brackets the least and the most.",
            "The bare channels, of 65,536 places, only move the event to a thread that drops it: what no hand-over can go below. `FutureProducer` has the \
             library's settings, writes the event as JSON on the caller's thread, and nobody waits for its futures. PostgreSQL listens on loopback and does not \
             sync to disk (`fsync` and `synchronous_commit` off), so a real one takes longer; the table has four indexes. The server is the broker, or \
             PostgreSQL's process for the connection. Every record was counted on the topic.",
        ]),
        columns: texts([
            "",
            "call µs, p50",
            "p99",
            "p99.9",
            "no room, of 1,000",
            "calls a second",
            "CPU-s per million, process",
            "server",
        ]),
        rows: all.iter().map(row).collect(),
        ..Section::default()
    }
}

fn of_published(peers: &Peers<'_>, all: &[publish::Measured], files: &Files) -> Section {
    let row = |one: &publish::Measured| {
        // Of the same compression and round: whatever else the machine did met both.
        let ours = all.iter().find(|other| other.who == publish::Who::Ours && other.codec == one.codec);
        let ratios = ours.into_iter().flat_map(|ours| one.runs.iter().zip(&ours.runs));
        let ratios = ratios.map(|(run, ours)| ours.per_second / run.per_second);
        vec![
            one.who.name().to_owned(),
            one.codec.name().to_owned(),
            spread(one.runs.iter().map(|run| run.per_second), whole),
            spread(ratios, hundredths),
            spread(one.runs.iter().map(|run| run.process), hundredths),
            spread(one.runs.iter().map(|run| run.kafka), hundredths),
        ]
    };
    let mut text = texts([
        "From the first call to the last acknowledgement: `acks=all`, idempotence, linger 5 ms, compression at level 1. auditstream is handed built events by two \
         threads, checks, stamps and encodes them; its CPU time is without the making of events, its wall time with it. The tools send payloads that lie ready \
         in a file; of both a run with one record is taken off, the start of the process. All records were counted on the topic. Medians of the rounds, in \
         brackets the least and the most; the ratio is that of the rounds' rates, auditstream's with the same compression divided by the one in the row.",
    ]);
    text.push(format!(
        "kcat has the same keys and the same binary Avro payloads, {:.0} bytes on average, between delimiters that no record holds, no headers, and librdkafka's \
         default queue. ProducerPerformance reads UTF-8 only: it has payloads of the same lengths with the top bit of each byte cleared ({:.1} % of the bytes \
         had it), sends one of 65,536 by chance each time, without keys or headers, with `batch.size` as librdkafka's and `buffer.memory` of 64 MiB; its JVM \
         compiles while it runs.",
        files.mean_bytes,
        files.changed * 100.0
    ));
    if peers.args.java.is_none() {
        text.push("ProducerPerformance was left out of this run.".to_owned());
    }
    Section {
        title: "Publishing, until all is acknowledged".to_owned(),
        text,
        columns: texts([
            "",
            "compression",
            "events a second",
            "auditstream to it",
            "CPU-s per million, process",
            "broker",
        ]),
        rows: all.iter().map(row).collect(),
        ..Section::default()
    }
}
