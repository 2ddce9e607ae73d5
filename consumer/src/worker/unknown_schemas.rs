//! Records whose schema is not known yet, when there is a schema registry to ask.
//!
//! A partition that comes to such a record waits there: neither it nor what follows is given to the core, so that nothing behind it can be committed.
//! The other partitions go on. One task asks for each schema until it has an answer that counts; then the partition is read again from the record that
//! waited. Only what the registry confirms not to have, or has and nobody here can read, becomes a dead letter.
//!
//! Correctness rests on offsets alone: a partition that waits takes nothing but the very record that it waits for, whatever librdkafka's pause, seek or
//! the core's own pausing do in between. Pausing only saves fetching what would be dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use auditstream_schemas::registry::{Registry, RegistryError};
use auditstream_schemas::{BatchDecoder, Poison, PoisonCode, WriterId, split};
use tokio::task::AbortHandle;

use super::Loop;
use crate::WorkerError;
use crate::core::{Backoff, Now};
use crate::metrics::OutcomeLabel;
use crate::sink::Completion;

/// A look-up takes some milliseconds as a rule; until then what follows is looked at for further unknown schemas, which are asked for at the same time.
const PAUSE_AFTER: Duration = Duration::from_millis(200);
/// Schemas asked for at once because records that are passed over name them. Those that a partition waits for come on top.
const LOOK_AHEAD: usize = 16;
/// A partition that the core may have resumed since is paused again after this.
const PAUSE_AGAIN: Duration = Duration::from_secs(2);
/// A record that has not come so long after the seek is sought again, and then after twice as long: behind a full queue of other partitions' records it
/// takes its time, and a seek loses its place there.
const SEEK_AGAIN: Duration = Duration::from_secs(10);
const SEEK_AGAIN_CAP: Duration = Duration::from_secs(300);
/// A seek that failed, because the partition is just being given or taken, is tried again after this.
const SEEK_RETRY: Duration = Duration::from_millis(250);
/// So many seeks that bring later records only, and the one that waited is gone from the topic.
const SEEKS_IN_VAIN: u32 = 3;
/// How long the registry's word that it does not have a schema is believed.
const MISSING_FOR: Duration = Duration::from_secs(30);
/// Schemas known to be missing or unusable. Bounded, for ids in records are whatever somebody wrote there.
const MAX_REFUSED: usize = 10_000;
/// Waits between two look-ups that failed.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(3);

/// What a look-up came to.
#[derive(Debug)]
pub(crate) enum LookedUp {
    /// The schema's text.
    Found(String),
    /// The registry confirms that it has none.
    Missing,
    /// The registry has it, but not as a schema that could be used.
    Unusable(String),
    /// It could not be asked; the task goes on trying.
    Failed(String),
}

/// A partition that waits.
#[derive(Debug)]
struct Waiting {
    offset: i64,
    id: u32,
    pause_at: Now,
    /// Once there is an answer: when to seek (again).
    seek_at: Option<Now>,
    /// Sought, and no record has come yet.
    sought: bool,
    /// How long the next seek is given.
    patience: Duration,
    in_vain: u32,
}

/// A schema whose records are dead letters.
#[derive(Debug)]
struct Refused {
    poison: Poison,
    until: Option<Now>,
}

/// All that waits.
#[derive(Debug)]
pub(crate) struct UnknownSchemas {
    /// Without one, records of unknown schemas are dead letters at once.
    registry: Option<Registry>,
    waiting: BTreeMap<i32, Waiting>,
    /// Look-ups under way.
    asked: HashMap<u32, AbortHandle>,
    to_ask: BTreeSet<u32>,
    refused: HashMap<u32, Refused>,
}

impl UnknownSchemas {
    pub(crate) fn new(registry: Option<Registry>) -> Self {
        Self {
            registry,
            waiting: BTreeMap::new(),
            asked: HashMap::new(),
            to_ask: BTreeSet::new(),
            refused: HashMap::new(),
        }
    }

    /// Whether a record is passed over, because its partition waits for an earlier one.
    pub(super) fn passes_over(&self, partition: i32, offset: i64) -> bool {
        // The hot path: nothing waits.
        !self.waiting.is_empty() && self.waiting.get(&partition).is_some_and(|waiting| offset != waiting.offset)
    }

    /// A record that [`Self::passes_over`]: its schema may be asked for meanwhile.
    #[cold]
    pub(super) fn passed_over(&mut self, partition: i32, value: Option<&[u8]>, decoder: &BatchDecoder, now: Now) {
        if let Some(waiting) = self.waiting.get_mut(&partition)
            && std::mem::take(&mut waiting.sought)
        {
            waiting.in_vain += 1;
            waiting.seek_at = Some(now + SEEK_RETRY);
        }
        if let Some(Ok((writer @ WriterId::Confluent(id), _))) = value.map(split)
            && self.asked.len() + self.to_ask.len() < LOOK_AHEAD
            && !decoder.knows(writer)
            && !self.is_refused(id, now)
        {
            self.to_ask.insert(id);
        }
    }

    /// The record that a partition waited for is decoded: the partition waits no more.
    #[inline]
    pub(super) fn decoded(&mut self, partition: i32) {
        if !self.waiting.is_empty() {
            self.waiting.remove(&partition);
        }
    }

    /// What becomes of a record that can't be decoded: `None` lets its partition wait, otherwise it is a dead letter for the reason given back.
    #[cold]
    pub(super) fn judge(&mut self, at: (i32, i64), value: Option<&[u8]>, poison: Poison, now: Now) -> Option<Poison> {
        let (partition, offset) = at;
        let id = match value.map(split) {
            Some(Ok((WriterId::Confluent(id), _)))
                if self.registry.is_some() && poison.code == PoisonCode::UnknownSchema =>
            {
                id
            }
            _ => {
                self.decoded(partition);
                return Some(poison);
            }
        };
        if self.is_refused(id, now) {
            self.decoded(partition);
            return self.refused.get(&id).map(|refused| refused.poison.clone());
        }
        if !self.asked.contains_key(&id) {
            self.to_ask.insert(id);
        }
        // It may have waited before, and its answer have been forgotten since.
        let fresh = Waiting {
            offset,
            id,
            pause_at: now + PAUSE_AFTER,
            seek_at: None,
            sought: false,
            patience: SEEK_AGAIN,
            in_vain: 0,
        };
        self.waiting.insert(partition, fresh);
        None
    }

    fn is_refused(&self, id: u32, now: Now) -> bool {
        self.refused.get(&id).is_some_and(|refused| refused.until.is_none_or(|until| now < until))
    }

    fn refuse(&mut self, id: u32, poison: Poison, until: Option<Now>, now: Now) {
        if self.refused.len() >= MAX_REFUSED {
            self.refused.retain(|_, refused| refused.until.is_none_or(|until| now < until));
        }
        if self.refused.len() >= MAX_REFUSED {
            // What is forgotten is asked for again.
            self.refused.clear();
        }
        self.refused.insert(id, Refused { poison, until });
    }

    /// There is an answer for a schema: who waits for it is read again.
    fn answered(&mut self, id: u32, now: Now) {
        self.asked.remove(&id);
        self.waiting.values_mut().filter(|waiting| waiting.id == id).for_each(|waiting| waiting.seek_at = Some(now));
    }

    /// A look-up failed. It goes on unless nobody waits for anything: it was made ahead, and may be made again.
    fn failed(&mut self, id: u32) {
        if self.waiting.is_empty()
            && let Some(task) = self.asked.remove(&id)
        {
            task.abort();
        }
    }

    /// Partitions that are no longer ours.
    pub(super) fn released(&mut self, partitions: &[i32]) {
        self.waiting.retain(|partition, _| !partitions.contains(partition));
        if self.waiting.is_empty() {
            self.to_ask.clear();
            self.asked.drain().for_each(|(_, task)| task.abort());
        }
    }

    /// Partitions whose records are dropped for longer than a look-up should take; each is named again only after a while, for the core may have
    /// resumed it.
    fn due_pauses(&mut self, now: Now) -> Vec<i32> {
        let late = self.waiting.iter_mut().filter(|(_, waiting)| waiting.seek_at.is_none() && waiting.pause_at <= now);
        late.map(|(&partition, waiting)| {
            waiting.pause_at = now + PAUSE_AGAIN;
            partition
        })
        .collect()
    }

    /// Partitions to read again, and from where.
    fn due_seeks(&self, now: Now) -> Vec<(i32, i64)> {
        let due = self.waiting.iter().filter(|(_, waiting)| waiting.seek_at.is_some_and(|due| due <= now));
        due.map(|(&partition, waiting)| (partition, waiting.offset)).collect()
    }

    fn sought(&mut self, partition: i32, done: bool, now: Now) {
        if let Some(waiting) = self.waiting.get_mut(&partition) {
            waiting.sought = done;
            waiting.seek_at = Some(now + if done { waiting.patience } else { SEEK_RETRY });
            if done {
                waiting.patience = (waiting.patience * 2).min(SEEK_AGAIN_CAP);
            }
        }
    }

    /// A record that waited and is not in the topic any more.
    fn gone(&self) -> Option<(i32, i64)> {
        let gone = self.waiting.iter().find(|(_, waiting)| waiting.in_vain >= SEEKS_IN_VAIN);
        gone.map(|(&partition, waiting)| (partition, waiting.offset))
    }
}

/// Asks until there is an answer that counts.
async fn look_up(registry: Registry, id: u32, completions: Sender<Completion>) {
    let backoff = Backoff { base: BACKOFF_BASE, cap: BACKOFF_CAP, seed: std::process::id().into() };
    let mut attempt = 0u32;
    loop {
        let outcome = match registry.by_id(id).await {
            Ok(found) => LookedUp::Found(found.schema.clone()),
            Err(RegistryError::NotFound { .. }) => LookedUp::Missing,
            Err(error @ RegistryError::Unusable { .. }) => LookedUp::Unusable(error.to_string()),
            // Whatever else it says is no reason to give a record up.
            Err(error) => LookedUp::Failed(error.to_string()),
        };
        let goes_on = matches!(outcome, LookedUp::Failed(_));
        // The loop is gone only when the process ends.
        let heard = completions.send(Completion::SchemaLookedUp { id, outcome });
        if !goes_on || heard.is_err() {
            return;
        }
        tokio::time::sleep(backoff.delay(id.into(), attempt)).await;
        attempt = attempt.saturating_add(1);
    }
}

impl Loop {
    /// A look-up has ended, or failed once more.
    pub(super) fn schema_looked_up(&mut self, id: u32, outcome: LookedUp) {
        let now = self.now();
        let writer = WriterId::Confluent(id);
        let (label, refusal) = match outcome {
            LookedUp::Failed(reason) => {
                self.metrics.schema_lookups.get_or_create(&OutcomeLabel { outcome: "failed" }).inc();
                if let Some(left_out) = self.state.quiet.allows(("schema", "retry"), Instant::now()) {
                    tracing::warn!(id, reason, left_out, "a schema could not be looked up; it is tried again");
                }
                self.unknown.failed(id);
                return;
            }
            LookedUp::Found(schema) => match self.decoder.learn(writer, &schema) {
                Ok(()) => ("found", None),
                Err(error) => ("unusable", Some(Poison::unusable_schema(writer, &reason(&error)))),
            },
            LookedUp::Unusable(reason) => ("unusable", Some(Poison::unusable_schema(writer, &reason))),
            LookedUp::Missing => ("missing", Some(Poison::unregistered_schema(writer))),
        };
        self.metrics.schema_lookups.get_or_create(&OutcomeLabel { outcome: label }).inc();
        match refusal {
            None => tracing::info!(id, "a new writer schema is known"),
            Some(poison) => {
                if let Some(left_out) = self.state.quiet.allows(("schema", label), Instant::now()) {
                    tracing::warn!(id, reason = poison.message, left_out, "records of this schema are dead letters");
                }
                let until = (label == "missing").then(|| now + MISSING_FOR);
                self.unknown.refuse(id, poison, until, now);
            }
        }
        self.unknown.answered(id, now);
    }

    /// Asks for schemas, pauses partitions that wait for long, and reads those again that have their answer.
    pub(super) fn tend_unknown_schemas(&mut self) -> Result<(), WorkerError> {
        let waiting = i64::try_from(self.unknown.waiting.len()).unwrap_or(i64::MAX);
        self.metrics.schema_waiting_partitions.set(waiting);
        if waiting == 0 {
            return Ok(());
        }
        let now = self.now();
        if let Some((partition, offset)) = self.unknown.gone() {
            return Err(WorkerError::Halted(format!(
                "record {partition}/{offset}, which waited for its schema, is not in topic {} any more; \
                 started again, the worker goes on behind it",
                self.sink.topic
            )));
        }
        if let Some(registry) = &self.unknown.registry {
            for id in std::mem::take(&mut self.unknown.to_ask) {
                let task = look_up(registry.clone(), id, self.sink.completions.clone());
                self.unknown.asked.entry(id).or_insert_with(|| self.runtime.spawn(task).abort_handle());
            }
        }
        let late = self.unknown.due_pauses(now);
        if !late.is_empty() {
            if let Some(left_out) = self.state.quiet.allows(("schema", "wait"), Instant::now()) {
                tracing::info!(partitions = ?late, left_out, "partitions wait for a schema");
            }
            self.reader.pause(&late).map_err(WorkerError::Kafka)?;
        }
        // While as much is held as may be, the core has paused everything and resumes it later.
        if self.core.wants_records() && !self.core.is_paused() {
            for (partition, offset) in self.unknown.due_seeks(now) {
                self.fetched.forget(&[partition]);
                let sought = self.reader.seek(partition, offset).and_then(|()| self.reader.resume(&[partition]));
                if let Err(error) = &sought {
                    tracing::debug!(partition, offset, %error, "a partition could not be sought");
                }
                self.unknown.sought(partition, sought.is_ok(), now);
            }
        }
        Ok(())
    }
}

/// An error with its causes, in a length that fits a header.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.chars().take(1000).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;

    use auditstream_schemas::Schemas;
    use auditstream_schemas::registry::RegistryConfig;

    const SECOND: Now = Duration::from_secs(1);

    fn unknown() -> (UnknownSchemas, BatchDecoder) {
        let config = RegistryConfig { urls: vec!["http://127.0.0.1:1".to_owned()], ..RegistryConfig::default() };
        let decoder = BatchDecoder::new(Arc::new(Schemas::builtin().unwrap()));
        (UnknownSchemas::new(Some(Registry::new(&config).unwrap())), decoder)
    }

    fn record(id: u32) -> Vec<u8> {
        [&[0][..], &id.to_be_bytes(), b"body"].concat()
    }

    fn poison(id: u32, decoder: &mut BatchDecoder) -> Poison {
        let at = auditstream_schemas::Position { partition: 0, offset: 0, timestamp_ms: 0 };
        decoder.push(&record(id), at).unwrap_err()
    }

    #[test]
    fn a_partition_waits_for_the_very_record_whatever_comes_first() {
        let (mut unknown, mut decoder) = unknown();
        let poison = poison(7, &mut decoder);
        assert_eq!(unknown.judge((1, 10), Some(&record(7)), poison.clone(), SECOND), None);
        for offset in [9, 11, 12, 500] {
            assert!(unknown.passes_over(1, offset));
            assert!(!unknown.passes_over(2, offset), "the others go on");
            unknown.passed_over(1, Some(&record(8)), &decoder, SECOND);
        }
        assert!(!unknown.passes_over(1, 10));
        assert_eq!(unknown.to_ask, [7, 8].into());
        assert_eq!(unknown.due_pauses(SECOND), [0; 0]);
        assert_eq!((unknown.due_pauses(2 * SECOND), unknown.due_pauses(2 * SECOND)), (vec![1], vec![]));
        assert_eq!(unknown.due_pauses(2 * SECOND + PAUSE_AGAIN), [1], "the core may have resumed it");
        assert_eq!(unknown.due_seeks(9 * SECOND), []);

        unknown.answered(8, 9 * SECOND);
        assert_eq!(unknown.due_seeks(9 * SECOND), [], "it waits for another one");
        unknown.answered(7, 9 * SECOND);
        assert_eq!(unknown.due_seeks(9 * SECOND), [(1, 10)]);
        unknown.sought(1, false, 9 * SECOND);
        assert_eq!((unknown.due_seeks(9 * SECOND), unknown.due_seeks(10 * SECOND)), (vec![], vec![(1, 10)]));
        unknown.sought(1, true, 10 * SECOND);
        assert!(unknown.passes_over(1, 11), "a seek alone proves nothing");
        assert_eq!(unknown.due_seeks(19 * SECOND), []);
        assert_eq!(unknown.due_seeks(20 * SECOND), [(1, 10)], "nothing came");
        unknown.sought(1, true, 20 * SECOND);
        assert_eq!(unknown.due_seeks(39 * SECOND), [], "a longer patience");
        unknown.decoded(1);
        assert!(!unknown.passes_over(1, 11) && unknown.waiting.is_empty());
    }

    #[test]
    fn a_record_that_is_gone_is_noticed_and_not_skipped() {
        let (mut unknown, mut decoder) = unknown();
        let poison = poison(7, &mut decoder);
        assert_eq!(unknown.judge((1, 10), Some(&record(7)), poison, SECOND), None);
        unknown.answered(7, SECOND);
        for round in 1..=SEEKS_IN_VAIN {
            assert_eq!(unknown.gone(), None);
            let now = (1 + round) * SECOND;
            assert_eq!(unknown.due_seeks(now), [(1, 10)]);
            unknown.sought(1, true, now);
            // However many come, they are of one fetch.
            for offset in 11..20 {
                assert!(unknown.passes_over(1, offset));
                unknown.passed_over(1, None, &decoder, now);
            }
        }
        assert_eq!(unknown.gone(), Some((1, 10)));
    }

    #[test]
    fn only_answers_that_count_make_dead_letters_and_an_absence_is_believed_for_a_while() {
        let (mut unknown, mut decoder) = unknown();
        let first = poison(7, &mut decoder);
        assert_eq!(unknown.judge((1, 10), Some(&record(7)), first.clone(), SECOND), None);
        let missing = Poison::unregistered_schema(WriterId::Confluent(7));
        unknown.refuse(7, missing.clone(), Some(SECOND + MISSING_FOR), SECOND);
        unknown.answered(7, SECOND);
        assert_eq!(unknown.judge((1, 10), Some(&record(7)), first.clone(), SECOND), Some(missing));
        assert!(!unknown.passes_over(1, 11), "it goes on");
        assert_eq!(unknown.judge((1, 11), Some(&record(7)), first.clone(), SECOND + MISSING_FOR), None, "asked again");
        assert_eq!(unknown.to_ask, [7].into());
        // What no registry can help with, on a partition that waits too: the record came, so nothing waits any more.
        let bad = Poison::null_value();
        assert_eq!(unknown.judge((1, 11), None, bad.clone(), 2 * SECOND), Some(bad));
        assert!(unknown.waiting.is_empty());
        let mut none = UnknownSchemas::new(None);
        assert_eq!(none.judge((1, 10), Some(&record(7)), first.clone(), SECOND), Some(first));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut unknown, mut decoder) = unknown();
        let first = poison(7, &mut decoder);
        assert_eq!(unknown.judge((1, 10), Some(&record(7)), first, SECOND), None);
        for id in 0..100 {
            unknown.passed_over(1, Some(&record(id)), &decoder, SECOND);
        }
        assert_eq!(unknown.to_ask.len(), LOOK_AHEAD);
        for id in 0..=MAX_REFUSED as u32 {
            unknown.refuse(id, Poison::null_value(), None, SECOND);
        }
        assert!(unknown.refused.len() <= MAX_REFUSED && unknown.is_refused(MAX_REFUSED as u32, SECOND));
    }

    #[tokio::test]
    async fn partitions_that_go_take_their_waiting_along() {
        let (mut unknown, mut decoder) = unknown();
        let first = poison(7, &mut decoder);
        for partition in [1, 2] {
            assert_eq!(unknown.judge((partition, 10), Some(&record(7)), first.clone(), SECOND), None);
        }
        let task = tokio::spawn(std::future::pending::<()>());
        unknown.asked.insert(7, task.abort_handle());
        unknown.released(&[0, 1]);
        assert!(!unknown.passes_over(1, 11) && unknown.passes_over(2, 11));
        assert_eq!(unknown.asked.len(), 1);
        unknown.released(&[2]);
        assert!(task.await.unwrap_err().is_cancelled() && unknown.asked.is_empty() && unknown.to_ask.is_empty());
    }
}
