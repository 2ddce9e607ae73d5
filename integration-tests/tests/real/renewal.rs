//! A certificate that ends is renewed as docs/operations.md says: its file is replaced and the workers are started again, under load.

use std::time::Duration;

use auditstream_integration_tests::tls::{Authority, Identity, MUTUAL, TlsProxy};
use auditstream_integration_tests::{Fixture, Options, Worker, http, wait_until};

use crate::security::{Settings, clickhouse, kafka, upstream, worker};

const PATIENCE: Duration = Duration::from_secs(90);
const NAME: &str = "worker.audit.example";
/// The first seconds of 2041 and of 2046, when the old certificate ends and the new one: later than any clock of a test.
const OLD: (i32, i64) = (2041, 2_240_611_200);
const NEW: (i32, i64) = (2046, 2_398_377_600);

/// Waits until the worker says that its certificate, to Kafka and to ClickHouse, ends then.
#[track_caller]
fn wait_expiry(worker: &Worker, end: i64) {
    wait_until("the certificates' end", PATIENCE, || {
        let text = http::get(&worker.address()?, "/metrics").map_err(|error| error.to_string())?.text();
        let of = |setting: &str| {
            let label = format!("setting=\"{setting}\"");
            let mut lines = text.lines().filter(|line| line.contains("certificate_expiry_timestamp_seconds{"));
            lines.find(|line| line.contains(&label)).and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
        };
        let ends = [of("kafka.ssl_certificate_location"), of("clickhouse.certificate_location")];
        if ends == [Some(end); 2] { Ok(()) } else { Err(format!("{ends:?}, not {end}")) }
    });
}

/// Waits until rows come by a connection that was made with this certificate.
#[track_caller]
fn wait_stored_as(fixture: &Fixture, proxy: &TlsProxy, identity: &Identity) {
    proxy.cut();
    fixture.wait_rows(1_000, PATIENCE);
    assert!(proxy.was_shown(identity), "another certificate came");
}

#[test]
fn a_renewed_certificate_counts_from_the_restart_on_and_nothing_is_lost() {
    let fixture = Fixture::new(Options::light("renewed-certificate"));
    let authority = Authority::shared();
    let [old, new] = [OLD, NEW].map(|(year, _)| authority.issue_until(&[NAME], year));
    let (certificate, key) = old.write(fixture.folder(), "worker");
    let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
    let proxy = TlsProxy::start(upstream(&fixture), &authority.issue_ours(), Some(authority));
    let mut settings: Settings = kafka(&fixture, MUTUAL, "ssl");
    settings.extend(clickhouse(&fixture, &proxy, "127.0.0.1", authority));
    settings.extend([
        ("AUDITSTREAM_KAFKA__SSL_CERTIFICATE_LOCATION", certificate.clone()),
        ("AUDITSTREAM_KAFKA__SSL_KEY_LOCATION", key.clone()),
        ("AUDITSTREAM_CLICKHOUSE__CERTIFICATE_LOCATION", certificate),
        ("AUDITSTREAM_CLICKHOUSE__KEY_LOCATION", key),
    ]);
    let first = worker(&fixture, &settings);
    first.wait_ready();
    let load = fixture.load(1_000, None);
    wait_stored_as(&fixture, &proxy, &old);
    wait_expiry(&first, OLD.1);

    // Renewed. Who runs goes on with what it has, and the metric says so.
    let _ = new.write(fixture.folder(), "worker");
    wait_stored_as(&fixture, &proxy, &old);
    wait_expiry(&first, OLD.1);

    first.terminate();
    assert_eq!(first.wait(PATIENCE), Some(0));
    let second = worker(&fixture, &settings);
    second.wait_ready();
    wait_stored_as(&fixture, &proxy, &new);
    wait_expiry(&second, NEW.1);
    load.finish();
    fixture.wait_landed(PATIENCE);
    second.terminate();
    assert_eq!(second.wait(PATIENCE), Some(0));
    fixture.verdict().assert_clean(fixture.acknowledged().len() as u64, 0);
}
