//! The oracle: what the brokers acknowledged is stored or dead-lettered, all of it, each once.
//!
//! It reads ClickHouse and Kafka directly and trusts nothing that the consumer says of itself. A control test shows that it fails when it should.

use std::collections::{HashMap, HashSet};
use std::fmt;

use auditstream_bench::oracle::compare;
use auditstream_consumer::headers;
use uuid::Uuid;

use crate::clickhouse::ClickHouse;
use crate::kafka::Kafka;
use crate::row_binary::Table;

/// At most so many ids or positions are named for each fault.
const EXAMPLES: usize = 5;

/// What was acknowledged, and where it must be now.
#[derive(Debug)]
pub struct Case<'a> {
    /// The database, read by a user whose profile adds nothing.
    pub clickhouse: &'a ClickHouse,
    /// The brokers.
    pub kafka: &'a Kafka,
    /// The source topic.
    pub topic: &'a str,
    /// The dead-letter topic.
    pub dead_letter_topic: &'a str,
    /// Id of each acknowledged event.
    pub events: &'a [Uuid],
    /// Position of each acknowledged record that can't be decoded.
    pub poison: &'a [(i32, i64)],
}

/// The verdict. Clean is: nothing lost, double or unknown, and no gap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged records: events and poison.
    pub events: u64,
    /// Rows under FINAL.
    pub rows: u64,
    /// Rows without FINAL: what was inserted again and is not merged yet counts here.
    pub raw_rows: u64,
    /// Positions in the dead-letter topic.
    pub dead_letters: u64,
    /// Dead letters that are in their topic more than once: a crash between the acknowledgement and the commit repeats them, as Kafka has no FINAL.
    pub repeated_dead_letters: u64,
    /// Acknowledged, but neither a row nor a dead letter.
    pub lost: u64,
    /// Rows under FINAL, or dead letters, beyond the first of an acknowledged record.
    pub double: u64,
    /// Rows or dead letters of nothing that was acknowledged.
    pub unknown: u64,
    /// Offsets that no span of the ledger covers.
    pub gaps: u64,
    /// Some ids and positions of each fault.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.double == 0 && self.unknown == 0 && self.gaps == 0
    }

    /// Fails the test unless the verdict is clean and about `events` acknowledged records, `dead_letters` of them poison.
    #[track_caller]
    pub fn assert_clean(&self, events: u64, dead_letters: u64) {
        assert!(self.is_clean(), "{self}");
        assert_eq!(
            (self.events, self.dead_letters),
            (events, dead_letters),
            "acknowledged records and dead letters: {self}"
        );
        assert_eq!(self.rows, events - dead_letters, "rows under FINAL: {self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, rows, raw_rows, dead_letters, repeated_dead_letters, lost, double, unknown, gaps, examples } =
            self;
        write!(
            f,
            "{events} acknowledged, {rows} rows ({raw_rows} without FINAL), {dead_letters} dead letters ({repeated_dead_letters} repeated): \
             {lost} lost, {double} double, {unknown} unknown, {gaps} offsets without a span"
        )?;
        examples.iter().try_for_each(|example| write!(f, "\n  {example}"))
    }
}

/// Judges.
#[must_use]
pub fn judge(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict { events: (case.events.len() + case.poison.len()) as u64, ..Verdict::default() };
    let letters = dead_letters(case, &mut verdict);
    events(case, &letters, &mut verdict);
    poison(case, &letters, &mut verdict);
    verdict.gaps = gaps(case, &mut verdict.examples);
    verdict.raw_rows = case.clickhouse.number("SELECT count() FROM events");
    verdict
}

/// Source positions in the dead-letter topic: how often each is there, and the id of the event where it was a good one.
type Letters = HashMap<(i32, i64), (u64, Option<Uuid>)>;

fn dead_letters(case: &Case<'_>, verdict: &mut Verdict) -> Letters {
    let mut letters = Letters::new();
    for record in case.kafka.read(case.dead_letter_topic) {
        assert_eq!(record.header(headers::TOPIC), case.topic, "a dead letter of another topic");
        let partition = record.header(headers::PARTITION).parse().expect("a partition");
        let offset = record.header(headers::OFFSET).parse().expect("an offset");
        // The producer's header, which a dead letter keeps; raw records of the tests have none.
        let id = record
            .headers
            .iter()
            .find(|(name, _)| name == "ce_id")
            .and_then(|(_, id)| Uuid::try_parse_ascii(id.as_deref()?).ok());
        letters.entry((partition, offset)).or_insert((0, id)).0 += 1;
    }
    verdict.dead_letters = letters.len() as u64;
    verdict.repeated_dead_letters = letters.values().map(|(copies, _)| copies - 1).sum();
    letters
}

/// Every acknowledged event is one row, or one dead letter.
fn events(case: &Case<'_>, letters: &Letters, verdict: &mut Verdict) {
    let bytes = case.clickhouse.try_bytes("SELECT event_id FROM events FINAL FORMAT RowBinaryWithNamesAndTypes");
    let table = Table::read(&bytes.expect("events can be read"));
    verdict.rows = table.rows.len() as u64;
    let stored = table.rows.iter().map(|row| row[0].uuid()).collect();
    let dead = letters.values().filter_map(|(_, id)| *id).collect();
    let found = compare(case.events.to_vec(), stored, dead);
    verdict.lost += found.lost.len() as u64;
    verdict.double += found.double.len() as u64;
    verdict.unknown += found.unheard;
    verdict.name("lost", found.lost.iter().map(Uuid::to_string).collect());
    verdict.name("double", found.double.iter().map(Uuid::to_string).collect());
}

/// Every record that can't be decoded is a dead letter, and no other record without an id is.
fn poison(case: &Case<'_>, letters: &Letters, verdict: &mut Verdict) {
    let place = |(partition, offset): &(i32, i64)| format!("{partition}/{offset}");
    let known: HashSet<(i32, i64)> = case.poison.iter().copied().collect();
    let lost: Vec<String> = known.iter().filter(|at| !letters.contains_key(at)).map(place).collect();
    let unknown = letters.iter().filter(|(at, (_, id))| id.is_none() && !known.contains(at));
    let unknown: Vec<String> = unknown.map(|(at, _)| place(at)).collect();
    verdict.lost += lost.len() as u64;
    verdict.unknown += unknown.len() as u64;
    verdict.name("lost poison", lost);
    verdict.name("unknown dead letter", unknown);
}

/// Offsets of the source topic that no span covers.
fn gaps(case: &Case<'_>, examples: &mut Vec<String>) -> u64 {
    let sql = format!(
        "SELECT partition, first_offset, last_offset FROM ledger FINAL WHERE topic = '{}' ORDER BY partition, first_offset \
         FORMAT RowBinaryWithNamesAndTypes",
        case.topic
    );
    let table = Table::read(&case.clickhouse.try_bytes(&sql).expect("the ledger can be read"));
    let mut gaps = 0;
    let committed = case.kafka.committed(case.topic);
    for (partition, end) in case.kafka.ends(case.topic) {
        // Spans may overlap: what a crashed worker had stored without committing is read again in other batches.
        let mut covered = 0;
        let mut miss = |from: i64, to: i64| {
            if from < to {
                gaps += (to - from).cast_unsigned();
                let committed = committed.get(&partition);
                examples.push(format!("no span: {partition}/{from}-{}, committed {committed:?} of {end}", to - 1));
            }
        };
        for row in table.rows.iter().filter(|row| row[0].int() == i64::from(partition)) {
            let (first, last) = (row[1].int(), row[2].int());
            miss(covered, first.min(end));
            covered = covered.max(last + 1);
        }
        miss(covered, end);
    }
    gaps
}

impl Verdict {
    fn name(&mut self, fault: &str, found: Vec<String>) {
        self.examples.extend(found.iter().take(EXAMPLES).map(|what| format!("{fault}: {what}")));
        if found.len() > EXAMPLES {
            self.examples.push(format!("{fault}: {} more", found.len() - EXAMPLES));
        }
    }
}
