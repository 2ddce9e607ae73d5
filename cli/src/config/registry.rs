//! `[schema] registry_*`: who is asked for schemas that are not known.

use std::time::Duration;

use anyhow::Context as _;

use auditstream_producer::registry::framing;
use auditstream_schemas::Framing;
use auditstream_schemas::registry::{Registry, RegistryAuth, RegistryConfig};

use super::settings::{Checker, Settings};

/// The client's field of a problem and the key that it stems from.
const FIELDS: [(&str, &str); 4] = [
    ("urls", "schema.registry_url"),
    ("ca_file", "schema.registry_ca_location"),
    ("timeout", "schema.registry_timeout_ms"),
    ("auth", "schema.registry_username"),
];

/// `None` without a URL.
pub(super) fn settings(check: &mut Checker<'_>) -> Option<RegistryConfig> {
    let username = check.optional("schema.registry_username");
    let password = check.secret("schema.registry_password");
    let token_file = check.optional("schema.registry_token_file");
    let ca_file = check.optional("schema.registry_ca_location");
    let urls = check.optional("schema.registry_url").unwrap_or_default();
    let urls: Vec<String> = urls.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect();
    if urls.is_empty() {
        let set = [
            ("schema.registry_username", username.is_some()),
            ("schema.registry_password", password.is_some()),
            ("schema.registry_token_file", token_file.is_some()),
            ("schema.registry_ca_location", ca_file.is_some()),
        ];
        for (path, _) in set.into_iter().filter(|(_, set)| *set) {
            check.problem(path, "has no use without schema.registry_url".to_owned());
        }
        return None;
    }
    let auth = match (username, password, token_file) {
        (None, None, None) => RegistryAuth::None,
        (Some(_), _, Some(_)) => {
            let message = "is set together with schema.registry_username; keep one of them";
            check.problem("schema.registry_token_file", message.to_owned());
            return None;
        }
        (_, None, Some(file)) => {
            // Read again for each request; here only so that a wrong name shows at once.
            if let Err(error) = std::fs::read_to_string(&file) {
                check.problem("schema.registry_token_file", format!("can't read {file}: {error}"));
            }
            RegistryAuth::BearerFile(file.into())
        }
        (Some(username), Some(password), None) => {
            RegistryAuth::Basic { username, password: password.expose().to_owned() }
        }
        (Some(_), None, None) => {
            let message = "must be set together with schema.registry_username";
            check.problem("schema.registry_password", message.to_owned());
            return None;
        }
        (None, Some(_), _) => {
            let message = "has no use without schema.registry_username";
            check.problem("schema.registry_password", message.to_owned());
            return None;
        }
    };
    let config = RegistryConfig {
        urls,
        auth,
        ca_file: ca_file.map(Into::into),
        timeout: check.millis("schema.registry_timeout_ms"),
        // The worker itself asks again and again, and keeps absences.
        attempts: 1,
        missing_for: Duration::ZERO,
        may_register: check.text("schema.register") == "on",
        ..RegistryConfig::default()
    };
    if let Err(error) = Registry::new(&config) {
        for problem in error.problems {
            let (field, message) = problem.split_once(": ").unwrap_or(("urls", &problem));
            let path = FIELDS.iter().find(|(name, _)| *name == field).map_or("schema.registry_url", |(_, path)| path);
            check.problem(path, message.to_owned());
        }
    }
    Some(config)
}

impl Settings {
    /// How events are framed; asks the registry for the schema's id if that is not configured.
    ///
    /// # Errors
    /// The registry does not know the schema, or can't be reached.
    pub(crate) async fn framing(&self) -> anyhow::Result<Framing> {
        let (true, Some(config)) = (self.asks_for_id, &self.registry) else { return Ok(self.framing) };
        let registry = Registry::new(&RegistryConfig { attempts: 3, ..config.clone() })?;
        let asked = framing(&registry, &self.kafka.topic).await;
        asked.with_context(|| format!("the registry did not tell the id of the schema of {}", self.kafka.topic))
    }
}
