//! TLS, passwords and tokens, to Kafka and to ClickHouse: what is right lands, what is wrong is refused with a reason, and no secret is in a log.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use auditstream_integration_tests::tls::{
    Authority, MUTUAL, SCRAM, SCRAM_USER, STRANGER, TOKENS, TlsProxy, unsigned_token,
};
use auditstream_integration_tests::{CliOutput, Fixture, Options, Worker, wait_until};
use auditstream_schemas::AuditEvent;

/// Much longer than anything here takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Settings of a process by environment variable.
pub(crate) type Settings = Vec<(&'static str, String)>;

/// The way to a listener of the shared Kafka, with the right authority.
pub(crate) fn kafka(fixture: &Fixture, listener: &str, protocol: &str) -> Settings {
    let port = fixture.stack().kafka_listener_port(listener).expect("a listener");
    let ca = fixture.folder().join("ca.pem");
    std::fs::write(&ca, Authority::shared().certificate()).unwrap();
    vec![
        // Brokers are connected to under the names that they advertise: 127.0.0.1 is in the certificate too.
        ("AUDITSTREAM_KAFKA__BOOTSTRAP_SERVERS", format!("localhost:{port}")),
        ("AUDITSTREAM_KAFKA__SECURITY_PROTOCOL", protocol.to_owned()),
        ("AUDITSTREAM_KAFKA__SSL_CA_LOCATION", ca.display().to_string()),
    ]
}

fn scram(fixture: &Fixture, password: &str) -> Settings {
    let file = fixture.folder().join("kafka-password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    let mut settings = kafka(fixture, SCRAM, "sasl_ssl");
    settings.extend([
        ("AUDITSTREAM_KAFKA__SASL_MECHANISM", "SCRAM-SHA-512".to_owned()),
        ("AUDITSTREAM_KAFKA__SASL_USERNAME", SCRAM_USER.0.to_owned()),
        ("AUDITSTREAM_KAFKA__SASL_PASSWORD_FILE", file.display().to_string()),
    ]);
    settings
}

fn tokens(fixture: &Fixture, file: &Path) -> Settings {
    let mut settings = kafka(fixture, TOKENS, "sasl_ssl");
    settings.extend([
        ("AUDITSTREAM_KAFKA__SASL_MECHANISM", "OAUTHBEARER".to_owned()),
        ("AUDITSTREAM_KAFKA__SASL_OAUTH_TOKEN_FILE", file.display().to_string()),
    ]);
    settings
}

/// The way to ClickHouse through `proxy`, trusting `authority`.
pub(crate) fn clickhouse(fixture: &Fixture, proxy: &TlsProxy, host: &str, authority: &Authority) -> Settings {
    let ca = fixture.folder().join("clickhouse-ca.pem");
    std::fs::write(&ca, authority.certificate()).unwrap();
    vec![
        ("AUDITSTREAM_CLICKHOUSE__URL", proxy.url(host)),
        ("AUDITSTREAM_CLICKHOUSE__CA_LOCATION", ca.display().to_string()),
    ]
}

fn proxy(fixture: &Fixture, names: &[&str]) -> TlsProxy {
    TlsProxy::start(upstream(fixture), &Authority::shared().issue(names), None)
}

pub(crate) fn upstream(fixture: &Fixture) -> &str {
    fixture.stack().clickhouse_url().trim_start_matches("http://")
}

fn with(mut command: Command, settings: &[(&'static str, String)]) -> Command {
    command.envs(settings.iter().map(|(key, value)| (*key, value)));
    command
}

pub(crate) fn worker(fixture: &Fixture, settings: &[(&'static str, String)]) -> Worker {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    fixture.worker_with(&settings)
}

/// Events that came in by the plaintext listener and by `publish` with `settings`, poison too, land; nothing secret is in the log.
fn lands(fixture: &Fixture, settings: &[(&'static str, String)], secrets: &[&str]) {
    const EVENTS: u64 = 400;
    // The record of a row that ClickHouse refuses is read again, by a client of its own.
    fixture.admin().run("ALTER TABLE events ADD CONSTRAINT no_such_name CHECK entity_name != 'refuse me'");
    fixture.send(EVENTS - 1);
    let recorder = fixture.recorder(fixture.producer_config("refused"));
    recorder.record(AuditEvent { entity_name: Some("refuse me".to_owned()), ..fixture.next_event() });
    recorder.finish();
    let (lines, ids) = (fixture.folder().join("events.ndjson"), fixture.folder().join("ids"));
    let text: String = (0..EVENTS).map(|_| fixture.next_event().to_json() + "\n").collect();
    std::fs::write(&lines, text).unwrap();
    let publish = fixture.command(&["publish", lines.to_str().unwrap(), "--ids", ids.to_str().unwrap()]);
    let published = fixture.run(with(publish, settings), b"").success();
    for id in std::fs::read_to_string(&ids).unwrap().lines() {
        fixture.acknowledged().add(id.parse().unwrap());
    }
    // The dead-letter producer and the admin client connect in the same way.
    fixture.poison().send(Some(b"k"), Some(b"not an event"), &[]);
    let worker = worker(fixture, settings);
    fixture.wait_landed(PATIENCE);
    let stats = fixture.run(with(fixture.admin_command(&["stats", "--json"]), settings), b"").success();
    assert!(stats.stdout.contains("\"lag\""), "{stats:?}");
    let again = fixture.run(with(fixture.command(&["topics", "create"]), settings), b"").success();
    assert!(again.stdout.contains("exists already"), "{again:?}");
    worker.terminate();
    let log = worker.log();
    assert_eq!(worker.wait(PATIENCE), Some(0), "{log}");
    fixture.verdict().assert_clean(2 * EVENTS + 1, 2);
    let checked = fixture.run(with(fixture.command(&["config", "check"]), settings), b"").success();
    for secret in secrets {
        for text in [&log, &published.stderr, &stats.stderr, &again.stderr, &checked.stdout] {
            assert!(!text.contains(secret), "a secret is in {text}");
        }
    }
}

/// The worker ends with exit code 3 and says all of `words`, and nothing of `secrets`.
#[track_caller]
fn halts(fixture: &Fixture, settings: &[(&'static str, String)], words: &[&str], secrets: &[&str]) {
    let output = fixture.run(with(fixture.command(&["consume"]), settings), b"");
    said(&output, 3, words, secrets);
}

#[track_caller]
fn said(output: &CliOutput, code: i32, words: &[&str], secrets: &[&str]) {
    assert_eq!(output.code(), Some(code), "{output:?}");
    let last = output.stderr.lines().skip_while(|line| !line.starts_with("error: ")).collect::<Vec<_>>().join("\n");
    for word in words {
        assert!(last.contains(word), "it must say {word:?}: {output:?}");
    }
    for secret in secrets {
        assert!(!output.stderr.contains(secret) && !output.stdout.contains(secret), "a secret is in {output:?}");
    }
}

#[test]
fn scram_and_https_land() {
    let fixture = Fixture::new(Options::light("scram"));
    let proxy = proxy(&fixture, &["localhost", "127.0.0.1"]);
    let mut settings = scram(&fixture, SCRAM_USER.1);
    settings.extend(clickhouse(&fixture, &proxy, "localhost", Authority::shared()));
    lands(&fixture, &settings, &[SCRAM_USER.1]);
}

#[test]
fn certificates_of_our_own_land() {
    let fixture = Fixture::new(Options::light("mutual"));
    let ours = Authority::shared().issue(&["worker.audit.example"]);
    let (certificate, key) = ours.write(fixture.folder(), "worker");
    let proxy = TlsProxy::start(upstream(&fixture), &Authority::shared().issue_ours(), Some(Authority::shared()));
    let mut settings = kafka(&fixture, MUTUAL, "ssl");
    settings.extend(clickhouse(&fixture, &proxy, "127.0.0.1", Authority::shared()));
    // Without them both servers refuse.
    let https = clickhouse(&fixture, &proxy, "127.0.0.1", Authority::shared());
    halts(&fixture, &https, &["refuses our certificate, or wants one", &proxy.url("127.0.0.1")], &[]);
    let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
    settings.extend([
        ("AUDITSTREAM_KAFKA__SSL_CERTIFICATE_LOCATION", certificate.clone()),
        ("AUDITSTREAM_KAFKA__SSL_KEY_LOCATION", key.clone()),
        ("AUDITSTREAM_CLICKHOUSE__CERTIFICATE_LOCATION", certificate),
        ("AUDITSTREAM_CLICKHOUSE__KEY_LOCATION", key),
    ]);
    lands(&fixture, &settings, &[&ours.key]);
    halts(
        &fixture,
        &kafka(&fixture, MUTUAL, "ssl"),
        &["no trusted connection to kafka", "kafka.ssl_certificate_location"],
        &[],
    );
}

#[test]
fn a_token_lands_and_is_read_again_when_it_ages() {
    let fixture = Fixture::new(Options::light("tokens"));
    let file = fixture.folder().join("token");
    let token = unsigned_token("audit-worker", 600);
    std::fs::write(&file, &token).unwrap();
    lands(&fixture, &tokens(&fixture, &file), &[&token]);

    // A short-lived one is read again when four fifths of its life are over, and one that is gone by then does not end the worker.
    std::fs::write(&file, unsigned_token("audit-worker", 8)).unwrap();
    let worker = worker(&fixture, &tokens(&fixture, &file));
    worker.wait_ready();
    std::fs::remove_file(&file).unwrap();
    let missed = || worker.log().matches("can't read the token file").count();
    wait_until("the worker to miss its token", PATIENCE, || if missed() > 0 { Ok(()) } else { Err(worker.log()) });
    std::fs::write(&file, &token).unwrap();
    fixture.send(100);
    fixture.wait_landed(PATIENCE);
    worker.terminate();
    assert_eq!(worker.wait(PATIENCE), Some(0));
    fixture.verdict().assert_clean(901, 2);
}

#[test]
fn wrong_certificates_of_kafka_are_refused() {
    let fixture = Fixture::new(Options::light("kafka-certificates"));
    let stranger = kafka(&fixture, STRANGER, "ssl");
    halts(&fixture, &stranger, &["no trusted connection to kafka", "certificate verify failed", "localhost:"], &[]);
    let mut unknown = scram(&fixture, SCRAM_USER.1);
    let other = fixture.folder().join("other-ca.pem");
    std::fs::write(&other, Authority::new("somebody else").certificate()).unwrap();
    unknown.push(("AUDITSTREAM_KAFKA__SSL_CA_LOCATION", other.display().to_string()));
    let words = ["no trusted connection to kafka", "certificate verify failed", "kafka.ssl_ca_location"];
    halts(&fixture, &unknown, &words, &[SCRAM_USER.1]);
}

#[test]
fn wrong_certificates_of_clickhouse_are_refused() {
    let fixture = Fixture::new(Options::light("clickhouse-certificates"));
    let stranger = proxy(&fixture, &["clickhouse.example"]);
    let settings = clickhouse(&fixture, &stranger, "localhost", Authority::shared());
    halts(
        &fixture,
        &settings,
        &[&stranger.url("localhost"), "not valid for name \"localhost\"", "clickhouse.example"],
        &[],
    );
    let ours = proxy(&fixture, &["localhost"]);
    let settings = clickhouse(&fixture, &ours, "localhost", &Authority::new("somebody else"));
    halts(
        &fixture,
        &settings,
        &[&ours.url("localhost"), "no trusted authority has signed it", "clickhouse.ca_location"],
        &[],
    );
    // The same by any other command.
    let output = fixture.run(with(fixture.admin_command(&["migrate"]), &settings), b"");
    said(&output, 1, &["no trusted authority has signed it"], &[]);
}

#[test]
fn wrong_passwords_are_refused() {
    const WRONG: &str = "not-the-password-at-all";
    let fixture = Fixture::new(Options::light("wrong-passwords"));
    fixture.send(10);
    let words = ["kafka refuses this worker", "SCRAM-SHA-512", "Authentication failed"];
    halts(&fixture, &scram(&fixture, WRONG), &words, &[WRONG]);
    let proxy = proxy(&fixture, &["localhost"]);
    let mut settings = clickhouse(&fixture, &proxy, "localhost", Authority::shared());
    settings.push(("AUDITSTREAM_CLICKHOUSE__PASSWORD", WRONG.to_owned()));
    halts(&fixture, &settings, &["Authentication failed", "audit_ingest"], &[WRONG]);
    assert_eq!(fixture.kafka().lag(fixture.topic()), 10, "something was committed");
}

#[test]
fn tokens_that_are_gone_or_expired_are_refused() {
    let fixture = Fixture::new(Options::light("wrong-tokens"));
    let file = fixture.folder().join("token");
    let settings = tokens(&fixture, &file);
    halts(
        &fixture,
        &settings,
        &["kafka refuses this worker", "can't read the token file", file.to_str().unwrap()],
        &[],
    );
    let expired = unsigned_token("audit-worker", -90);
    std::fs::write(&file, &expired).unwrap();
    halts(&fixture, &settings, &["kafka refuses this worker", "expired ", " s ago"], &[&expired]);
    let output = fixture.run(with(fixture.command(&["topics", "create"]), &settings), b"");
    said(&output, 1, &["expired ", " s ago"], &[&expired]);
    // The broker has the last word: this one is for nobody it knows how to read.
    let odd = unsigned_token("audit-worker", 600).replacen("eyJhbGciOiJub25lIn0", "eyJhbGciOiJIUzI1NiJ9", 1);
    std::fs::write(&file, &odd).unwrap();
    halts(&fixture, &settings, &["kafka refuses this worker", "invalid_token"], &[&odd]);
}
