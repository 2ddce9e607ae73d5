//! `dlq retry` and `dlq discard`.
//!
//! Promise: a retry counts when every in-sync replica has the record on its source topic, with the key, value, headers and timestamp that it had there
//! (the timestamp unless it is so old that retention would delete it: see `age`); only then is the dead letter no longer open. What ends in between is
//! sent once more by the next retry, and stays one row: a row's identity is the event's. A record that fails again is a dead letter of its own, at its new
//! offset, which says how often it was sent.

use std::cell::Cell;

use anyhow::Context;
use auditstream_consumer::headers;
use auditstream_store::{Action, DeadLetter, RETRIES_HEADER, Store};
use serde_json::json;

use super::age::Ages;
use super::{Place, Which, find, find_one};
use crate::admin::{Admin, Record, Records};
use crate::audit::{Auditor, Deed, INSTALLATION};
use crate::cmd::stats::now_ms;
use crate::config::Settings;
use crate::confirm::Consent;
use crate::{exit, output};

/// Header of a record that was sent again: where it was first, as `TOPIC/PARTITION/OFFSET`.
const RETRY_OF: &str = "auditstream.retry.of";

/// Send records to their topic again, as they were; workers then try to store them once more.
///
/// For when the cause is mended: a schema registered, a worker upgraded, a constraint dropped. A record that fails again becomes
/// a dead letter again, of its new offset. One that is older than half of its topic's retention is sent with the present time, or
/// Kafka might delete it before it is read: its event is then received_at the time of the retry, and the header
/// auditstream.retry.timestamp says which timestamp it had. Each is audited as audit.dlq_retry.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream dlq retry 3/1042
  auditstream dlq retry --all --code unknown-schema --dry-run
  auditstream dlq retry --all --code unknown-schema --yes")]
pub(super) struct RetryArgs {
    #[command(flatten)]
    chosen: Chosen,
}

/// Mark dead letters as decided: nobody will send them again.
///
/// They stay on the dead-letter topic, and in `dlq list --all`. Each is audited as audit.dlq_discard.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream dlq discard 3/1042
  auditstream dlq discard --all --code wrong-magic --since 7d --dry-run")]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    chosen: Chosen,
}

#[derive(Debug, clap::Args)]
struct Chosen {
    /// Partitions and offsets of the source records, with the topic if it is not kafka.topic.
    #[arg(value_name = "[TOPIC/]PARTITION/OFFSET", required_unless_present = "all", conflicts_with = "all")]
    places: Vec<Place>,

    /// Every open one that the filters let through.
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    consent: Consent,
}

impl Chosen {
    /// The dead letters, oldest first, so that one entity's records keep their order; a place that has none is an error, and then nothing is done.
    async fn letters(&self, store: &Store, settings: &Settings) -> anyhow::Result<Vec<DeadLetter>> {
        let Which { code, topic, since, .. } = &self.which;
        if !self.all && (code.is_some() || topic.is_some() || since.is_some()) {
            anyhow::bail!("nothing was done: --code, --topic and --since choose among --all, not among places");
        }
        let mut letters = Vec::new();
        if self.all {
            letters = find(store, &self.which.filter(true)).await?;
            // Newest first: doing those before older ones would turn the order of an entity's records round.
            if letters.len() as u64 >= u64::from(self.which.limit) {
                anyhow::bail!(
                    "nothing was done: there are {} dead letters or more; give a larger --limit, or fewer by --code, --topic or --since",
                    self.which.limit
                );
            }
        }
        for place in &self.places {
            let letter = find_one(store, place, settings).await?;
            if letter.is_open() {
                letters.push(letter);
            } else {
                output::complain(&format!(
                    "{} is left alone: {} did a {} before",
                    letter.place(),
                    letter.actor,
                    letter.action
                ));
            }
        }
        letters.sort_by(|a, b| (&a.topic, a.partition, a.offset).cmp(&(&b.topic, b.partition, b.offset)));
        letters.dedup_by(|a, b| a.place() == b.place());
        Ok(letters)
    }

    /// Whether to go on with `letters`.
    fn agreed(&self, letters: &[DeadLetter], what: &str) -> anyhow::Result<bool> {
        if self.consent.dry_run {
            for letter in letters {
                output::line(&format!("{} {}", letter.place(), letter.error_code))?;
            }
            output::line(&format!("{} would be {what}; nothing was done (dry run)", counted(letters.len())))?;
            return Ok(false);
        }
        if letters.is_empty() {
            output::line("nothing to do: no open dead letter was chosen")?;
            return Ok(false);
        }
        self.consent.given(&format!("{} will be {what}. Go on?", counted(letters.len())))
    }
}

fn counted(letters: usize) -> String {
    if letters == 1 { "1 dead letter".to_owned() } else { format!("{} dead letters", output::grouped(letters as u64)) }
}

pub(super) async fn retry(args: &RetryArgs, store: &Store, settings: &Settings) -> anyhow::Result<u8> {
    let letters = args.chosen.letters(store, settings).await?;
    if !args.chosen.agreed(&letters, "sent again")? {
        return Ok(answer(&args.chosen, &letters));
    }
    let admin = Admin::connect(settings)?;
    let (records, ages) = (admin.records()?, Ages::of(&letters, &admin).await);
    let renewed = Cell::new(0);
    let code = each(&letters, settings, "audit.dlq_retry", "sent again", async |letter, actor| {
        let (action, is_renewed) = send_again(&records, &ages, letter).await?;
        renewed.set(renewed.get() + usize::from(is_renewed));
        let recorded = store.record_action(letter, action, actor).await;
        recorded.context("the record was sent again, but ClickHouse does not know it; another retry would send it once more, which makes no second row")
    })
    .await?;
    if renewed.get() > 0 {
        output::line(&format!(
            "{} with the present time, because retention would delete what is so old",
            counted(renewed.get())
        ))?;
    }
    Ok(code)
}

pub(super) async fn discard(args: &DiscardArgs, store: &Store, settings: &Settings) -> anyhow::Result<u8> {
    let letters = args.chosen.letters(store, settings).await?;
    if !args.chosen.agreed(&letters, "discarded")? {
        return Ok(answer(&args.chosen, &letters));
    }
    each(&letters, settings, "audit.dlq_discard", "discarded", async |letter, actor| {
        Ok(store.record_action(letter, Action::Discard, actor).await?)
    })
    .await
}

/// Who did not agree gets another code than who asked what it would be, or had nothing to agree to.
fn answer(chosen: &Chosen, letters: &[DeadLetter]) -> u8 {
    if letters.is_empty() || chosen.consent.dry_run { exit::OK } else { exit::FAILURE }
}

/// Does `work` for each letter, audited; one that fails is said, and the others go on.
async fn each(
    letters: &[DeadLetter],
    settings: &Settings,
    action: &'static str,
    done: &str,
    work: impl AsyncFn(&DeadLetter, &str) -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let auditor = Auditor::new(settings).await?;
    let mut failed = 0;
    for letter in letters {
        let deed = Deed {
            action,
            tenant: INSTALLATION.to_owned(),
            entity_type: "dead_letter",
            entity_id: letter.place(),
            details: json!({
                "code": letter.error_code, "retries": letter.retries,
                "dead_letter": format!("{}/{}/{}", letter.dlq_topic, letter.dlq_partition, letter.dlq_offset),
            }),
        };
        let result = auditor.audited(deed, async || work(letter, auditor.actor()).await).await;
        if let Err(error) = result {
            failed += 1;
            exit::chain(&error.context(letter.place()));
        }
    }
    auditor.close().await;
    output::line(&format!("{} {done}", counted(letters.len() - failed)))?;
    Ok(if failed == 0 { exit::OK } else { exit::FAILURE })
}

/// Answers what was done, and whether the record got another timestamp for it.
async fn send_again(records: &Records, ages: &Ages, letter: &DeadLetter) -> anyhow::Result<(Action, bool)> {
    let dead = records.read(&letter.dlq_topic, letter.dlq_partition, letter.dlq_offset)?;
    let (mut record, retries) = source(dead, letter)?;
    let is_renewed = ages.renew(&mut record, &letter.topic, now_ms());
    let (partition, offset) = records.send(&letter.topic, &record).await?;
    Ok((Action::Retry { retries, partition, offset }, is_renewed))
}

/// The source record of a dead letter, with headers that say that it is sent again and how often.
fn source(mut dead: Record, letter: &DeadLetter) -> anyhow::Result<(Record, u32)> {
    let said = |name| dead.header(name).unwrap_or_default();
    let is_ours = said(headers::TOPIC) == letter.topic
        && said(headers::PARTITION) == letter.partition.to_string()
        && said(headers::OFFSET) == letter.offset.to_string()
        // Topics that were made again count their offsets from 0 again.
        && said(headers::TIMESTAMP) == letter.timestamp_ms.to_string();
    // The dead-letter topic may have been made again since: then another dead letter lies there.
    anyhow::ensure!(
        is_ours,
        "what lies at {}/{}/{} is another dead letter's, perhaps because the topic was made again",
        letter.dlq_topic,
        letter.dlq_partition,
        letter.dlq_offset
    );
    // The worker puts its own headers behind the record's; a record may have had headers of these names before.
    let first = dead.headers.iter().rposition(|(name, _)| name == headers::TOPIC).context("no header of a worker")?;
    dead.headers.truncate(first);
    let before = dead.header(RETRIES_HEADER).and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
    let retries = before.saturating_add(1);
    dead.headers.retain(|(name, _)| name != RETRIES_HEADER && name != RETRY_OF);
    dead.headers.push((RETRIES_HEADER.to_owned(), Some(retries.to_string().into_bytes())));
    dead.headers.push((RETRY_OF.to_owned(), Some(letter.place().into_bytes())));
    Ok((dead, retries))
}
