//! Rows to Kafka: the stored bytes as they are, with the producer's own settings, in order, each with exactly one outcome.
//!
//! Messages never time out in librdkafka here: while Kafka is away they wait in it, and so in the outbox, and none can overtake another.

use std::collections::VecDeque;
use std::error::Error;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use tokio::sync::mpsc;

use super::faults::crash_unheard;
use super::rows::Row;
use crate::config::Config;
use crate::delivery::is_refusal;
use crate::error::ProducerError;
use crate::headers::{CloudEvent, headers};
use crate::oauth::{self, TokenFile};

/// What became of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every in-sync replica has it.
    Sent,
    /// Refused for itself: the next time is no better, unless somebody changes a setting.
    Refused(String),
    /// Kafka's or the configuration's fault; says nothing about the row.
    NotNow(RDKafkaErrorCode),
}

impl Outcome {
    fn of(error: &KafkaError) -> Self {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        if is_refusal(error) { Self::Refused(format!("Kafka: {code}")) } else { Self::NotNow(code) }
    }
}

struct Context {
    outcomes: mpsc::UnboundedSender<(usize, Outcome)>,
    tokens: Option<TokenFile>,
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let outcome = match result {
            Ok(_) => Outcome::Sent,
            Err((error, _)) => Outcome::of(error),
        };
        // Nobody listens any more after a renewal; the rows are in the outbox.
        let _ = self.outcomes.send((index, outcome));
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        oauth::answer(self.tokens.as_ref())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => tracing::debug!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "librdkafka: {message}"),
            _ => tracing::warn!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // librdkafka's own back-off keeps this to about one line a second while the brokers are away.
        tracing::warn!("kafka client: {error}: {reason}");
    }
}

/// Sends rows.
pub(crate) struct Sender {
    client: ThreadedProducer<Context>,
    outcomes: mpsc::UnboundedReceiver<(usize, Outcome)>,
    client_config: ClientConfig,
    tokens: Option<TokenFile>,
    topic: String,
    cloud_events: bool,
}

impl Sender {
    pub(crate) fn new(config: &Config) -> Result<Self, ProducerError> {
        config.validate()?;
        let mut client_config = config.to_client_config();
        client_config.set("delivery.timeout.ms", "0");
        let tokens = config.oauth_token_file.clone().map(TokenFile::new);
        let (client, outcomes) = Self::client(&client_config, tokens.clone())?;
        let (topic, cloud_events) = (config.topic.clone(), config.cloud_events);
        Ok(Self { client, outcomes, client_config, tokens, topic, cloud_events })
    }

    #[expect(clippy::type_complexity, reason = "a client and the end of its channel")]
    fn client(
        config: &ClientConfig,
        tokens: Option<TokenFile>,
    ) -> Result<(ThreadedProducer<Context>, mpsc::UnboundedReceiver<(usize, Outcome)>), ProducerError> {
        // Bounded by the rows of one round.
        let (sender, receiver) = mpsc::unbounded_channel();
        let client = ThreadedProducer::from_config_and_context(config, Context { outcomes: sender, tokens }).map_err(
            |error| ProducerError::Setting { name: "properties".to_owned(), problem: without_values(&error) },
        )?;
        Ok((client, receiver))
    }

    /// Sends `rows` in their order and waits for the outcome of each. Those that were tried before, and those that were refused, go (again) alone:
    /// a broker refuses a whole batch for one of its messages.
    ///
    /// May be dropped half way: then [`Self::renew`] comes next.
    pub(crate) async fn send(&mut self, rows: &[Row]) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; rows.len()];
        let mut under_way = 0;
        let mut alone = VecDeque::new();
        for (index, row) in rows.iter().enumerate() {
            if row.attempts > 0 {
                alone.push_back(index);
            } else {
                match self.produce(index, row) {
                    None => under_way += 1,
                    Some(outcome) => outcomes[index] = Some(outcome),
                }
            }
        }
        crash_unheard().await;
        while under_way > 0 {
            let Some((index, outcome)) = self.outcomes.recv().await else { break };
            under_way -= 1;
            if matches!(outcome, Outcome::Refused(_)) {
                alone.push_back(index);
            } else {
                outcomes[index] = Some(outcome);
            }
        }
        // Outcomes of different partitions come in any order.
        alone.make_contiguous().sort_unstable();
        for index in alone {
            outcomes[index] = match self.produce(index, &rows[index]) {
                Some(outcome) => Some(outcome),
                None => self.outcomes.recv().await.map(|(_, outcome)| outcome),
            };
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::NotNow(RDKafkaErrorCode::Fail))).collect()
    }

    /// Hands one row to librdkafka; answers when it is decided already.
    fn produce(&mut self, index: usize, row: &Row) -> Option<Outcome> {
        if let Err(poison) = auditstream_schemas::split(&row.payload) {
            return Some(Outcome::Refused(format!("the payload is no framed event: {poison}")));
        }
        let cloud_event = CloudEvent { id: &row.id, source: &row.source, time: &row.time };
        let headers = headers(self.cloud_events.then_some(&cloud_event), row.traceparent.as_deref());
        let mut record =
            BaseRecord::with_opaque_to(&self.topic, index).key(row.key.as_str()).payload(row.payload.as_slice());
        if let Some(headers) = headers {
            record = record.headers(headers);
        }
        self.client.send(record).err().map(|(error, _)| Outcome::of(&error))
    }

    /// A new client, after a fatal error of the old one or a round that was given up. What the old one still held is in the outbox; some of it may reach
    /// Kafka all the same, as a prefix of the order, so that repeating it keeps the order.
    pub(crate) fn renew(&mut self) -> Result<(), ProducerError> {
        self.client.purge(PurgeConfig::default().queue().inflight());
        let (client, outcomes) = Self::client(&self.client_config, self.tokens.clone())?;
        self.client = client;
        self.outcomes = outcomes;
        Ok(())
    }
}

/// librdkafka's complaint, without the value, which may be a secret.
fn without_values(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, name, _) => format!("librdkafka refuses `{name}`"),
        other => other.to_string(),
    }
}
