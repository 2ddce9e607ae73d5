//! `auditstream dlq`: dead letters, looked at and decided.
//!
//! ClickHouse says which there are and what was done about each; the record itself is read whole from the dead-letter topic, which is the truth.

mod age;
mod decide;
mod list;
mod place;

use anyhow::Context;
use auditstream_store::{DeadLetter, DeadLetterFilter, Store};
use clap::Subcommand;

use crate::config::Settings;
use place::{Place, Since};

/// Dead letters: records that could not be stored, kept whole with the reason.
///
/// Reads ClickHouse's tables of dead letters, so it needs a user that may: audit_admin; for list and show an analyst of all
/// tenants will do. One of a single tenant sees that tenant's letters, but not what was done about them: all look open.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::ListArgs),
    Show(list::ShowArgs),
    Retry(decide::RetryArgs),
    Discard(decide::DiscardArgs),
}

/// Which dead letters, of several.
#[derive(Debug, Default, clap::Args)]
struct Which {
    /// Only with this error code, such as wrong-magic or clickhouse-469.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,

    /// Only of this source topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,

    /// Only those that failed since then: a time such as 2026-01-31T09:30:00Z, or how long ago, such as 90s, 30m, 12h, 7d.
    #[arg(long, value_name = "TIME|AGO")]
    since: Option<Since>,

    /// Most dead letters, the newest.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

impl Which {
    fn filter(&self, is_open: bool) -> DeadLetterFilter {
        DeadLetterFilter {
            topic: self.topic.clone(),
            code: self.code.clone(),
            since_ms: self.since.map(Since::millis),
            place: None,
            is_open,
            limit: self.limit,
        }
    }
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let store = Store::new(&settings.store())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &args.command {
            Command::List(args) => list::list(args, &store).await,
            Command::Show(args) => list::show(args, &store, settings).await,
            Command::Retry(args) => decide::retry(args, &store, settings).await,
            Command::Discard(args) => decide::discard(args, &store, settings).await,
        }
    })
}

/// What `filter` finds, with what to do when this user may not look.
async fn find(store: &Store, filter: &DeadLetterFilter) -> anyhow::Result<Vec<DeadLetter>> {
    let found = store.dead_letters(filter).await;
    found.map_err(|error| {
        let hint = match error.code {
            Some(497) => "this user may not read the dead letters; set AUDITSTREAM_CLICKHOUSE__USER to one with the role audit_analyst or audit_admin",
            Some(60 | 81) => "a table is missing; run `auditstream migrate`",
            _ => "clickhouse",
        };
        anyhow::Error::from(error).context(hint)
    })
}

/// The dead letter at a place.
async fn find_one(store: &Store, place: &Place, settings: &Settings) -> anyhow::Result<DeadLetter> {
    let topic = place.topic.clone().unwrap_or_else(|| settings.kafka.topic.clone());
    let filter = DeadLetterFilter {
        topic: Some(topic.clone()),
        place: Some((place.partition, place.offset)),
        limit: 1,
        ..DeadLetterFilter::default()
    };
    find(store, &filter).await?.pop().with_context(|| {
        format!("no dead letter {topic}/{}/{}; `auditstream dlq list --all` shows all", place.partition, place.offset)
    })
}
