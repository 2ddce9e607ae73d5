//! `[kafka.properties]`: what is passed through to librdkafka, and what is not the user's to set there.

use auditstream_producer::security;

/// Properties that have a key of their own.
const OWN_KEY: &[(&str, &str)] = &[
    ("bootstrap.servers", "kafka.bootstrap_servers"),
    ("metadata.broker.list", "kafka.bootstrap_servers"),
    ("security.protocol", "kafka.security_protocol"),
    ("sasl.mechanism", "kafka.sasl_mechanism"),
    ("sasl.mechanisms", "kafka.sasl_mechanism"),
    ("sasl.username", "kafka.sasl_username"),
    ("sasl.password", "kafka.sasl_password"),
    ("ssl.ca.location", "kafka.ssl_ca_location"),
    ("ssl.certificate.location", "kafka.ssl_certificate_location"),
    ("ssl.key.location", "kafka.ssl_key_location"),
    ("ssl.key.password", "kafka.ssl_key_password"),
    ("sasl.oauthbearer.method", "kafka.sasl_oauth_token_file"),
    ("sasl.oauthbearer.config", "kafka.sasl_oauth_token_file"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "kafka.sasl_oauth_token_file"),
    ("group.instance.id", "consumer.group_instance_id"),
    ("group.protocol", "consumer.group_protocol"),
    ("group.remote.assignor", "consumer.group_protocol"),
    ("group.id", "consumer.group_id"),
    ("compression.codec", "producer.compression"),
    ("compression.type", "producer.compression"),
    ("linger.ms", "producer.linger_ms"),
    ("queue.buffering.max.ms", "producer.linger_ms"),
    ("delivery.timeout.ms", "producer.delivery_timeout_ms"),
    ("message.timeout.ms", "producer.delivery_timeout_ms"),
    ("queue.buffering.max.messages", "producer.queue_events"),
    ("queue.buffering.max.kbytes", "producer.queue_bytes"),
];

/// Properties that the promise "nothing lost, nothing double" rests on.
const PROMISE: &[&str] = &[
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "partitioner",
    "delivery.report.only.error",
    "transactional.id",
    "retries",
    "message.send.max.retries",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "allow.auto.create.topics",
    "enable.partition.eof",
    "client.id",
];

/// Why `name` may not stand in `[kafka.properties]`.
pub(crate) fn refusal(name: &str) -> Option<String> {
    if let Some((_, key)) = OWN_KEY.iter().find(|(property, _)| *property == name) {
        return Some(format!("has its own key, {key}"));
    }
    if security::FIXED.contains(&name) {
        return Some("can't be changed: who speaks TLS checks the broker's certificate and its host name".to_owned());
    }
    PROMISE.contains(&name).then(|| "is set by auditstream and can't be changed: delivery rests on it".to_owned())
}

/// Whether the value of `name` must not be shown.
pub(crate) fn is_secret(name: &str) -> bool {
    ["password", "secret", "token", "jaas", "key.pem", "private", "sasl.oauthbearer.config"]
        .iter()
        .any(|part| name.contains(part))
}
