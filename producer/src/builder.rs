//! [`Producer::builder`]: the settings one by one, each with its type.

use std::path::PathBuf;
use std::time::Duration;

use auditstream_schemas::Framing;
use uuid::Uuid;

use crate::budget::Lanes;
use crate::config::{Compression, Config, Critical};
use crate::delivery::{Fate, Observer};
use crate::error::ProducerError;
use crate::producer::Producer;

/// Makes a [`Producer`]. What is not set is as in [`Config::default`].
#[must_use = "a builder makes nothing until `build` is called"]
pub struct Builder {
    config: Config,
    observer: Option<Box<Observer>>,
}

/// A method for each setting; what it means stands at the field of [`Config`], once.
macro_rules! settings {
    ($($(#[$attribute:meta])* $name:ident: $type:ty,)*) => {
        $(
            #[allow(clippy::useless_conversion, reason = "some settings are converted")]
            #[doc = concat!("See [`Config::", stringify!($name), "`].")]
            $(#[$attribute])*
            pub fn $name(mut self, $name: $type) -> Self {
                self.config.$name = $name.into();
                self
            }
        )*
    };
}

impl Builder {
    pub(crate) fn new(bootstrap_servers: String) -> Self {
        Self { config: Config { bootstrap_servers, ..Config::default() }, observer: None }
    }

    settings! {
        topic: impl Into<String>,
        framing: Framing,
        queue_events: usize,
        queue_bytes: usize,
        lanes: Lanes,
        #[cfg(feature = "spill")]
        spill: crate::spill::SpillConfig,
        critical: Critical,
        critical_deadline: Duration,
        idempotency_window: Duration,
        idempotency_keys: usize,
        loss_tenant: Option<String>,
        compression: Compression,
        cloud_events: bool,
        linger: Duration,
        delivery_timeout: Duration,
        message_max_bytes: usize,
        client_id: impl Into<String>,
        drop_deadline: Duration,
    }

    /// See [`Config::producer_id`].
    pub fn producer_id(mut self, producer_id: impl Into<String>) -> Self {
        self.config.producer_id = Some(producer_id.into());
        self
    }

    /// See [`Config::oauth_token_file`].
    pub fn oauth_token_file(mut self, oauth_token_file: impl Into<PathBuf>) -> Self {
        self.config.oauth_token_file = Some(oauth_token_file.into());
        self
    }

    /// See [`Config::redaction`].
    #[cfg(feature = "redaction")]
    pub fn redaction(mut self, redaction: impl Into<std::sync::Arc<crate::redaction::Redaction>>) -> Self {
        self.config.redaction = Some(redaction.into());
        self
    }

    /// One more librdkafka property: see [`Config::properties`].
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.properties.insert(name.into(), value.into());
        self
    }

    /// Hears the fate of each event that was taken, with its id: see [`Observer`].
    pub fn observer(mut self, observer: impl Fn(Uuid, Fate<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// The settings so far.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Makes the producer. Does not connect yet: an unreachable broker shows in the deliveries.
    ///
    /// # Errors
    /// The first setting that can't be used, by its name; no thread to be had.
    pub fn build(self) -> Result<Producer, ProducerError> {
        match self.observer {
            Some(observer) => Producer::with_observer(self.config, observer),
            None => Producer::new(self.config),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn what_is_set_is_set_and_the_rest_is_the_default() {
        let built = Producer::builder("127.0.0.1:9")
            .topic("other.events")
            .queue_events(7)
            .linger(Duration::from_millis(3))
            .loss_tenant(None)
            .producer_id("shop-1")
            .property("socket.timeout.ms", "1000");
        let set = Config {
            bootstrap_servers: "127.0.0.1:9".to_owned(),
            topic: "other.events".to_owned(),
            queue_events: 7,
            linger: Duration::from_millis(3),
            loss_tenant: None,
            producer_id: Some("shop-1".to_owned()),
            properties: [("socket.timeout.ms".to_owned(), "1000".to_owned())].into(),
            ..Config::default()
        };
        assert_eq!(format!("{:?}", built.config()), format!("{set:?}"));
        built.build().unwrap();
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let error = Producer::builder("127.0.0.1:9").queue_events(0).build().unwrap_err().to_string();
        assert!(error.starts_with("setting `queue_events`"), "{error}");
        let error = Producer::builder("").build().unwrap_err().to_string();
        assert!(error.starts_with("setting `bootstrap_servers`"), "{error}");
    }
}
