//! A real schema registry: the client, producer and worker against it, and fault 20 with it killed and silent.

use std::time::{Duration, Instant};

use auditstream_integration_tests::{FaultReport, Fixture, Options, Proxy, Value, Worker, block_on, wait_until};
use auditstream_schemas::registry::{Reference, Registry, RegistryConfig, RegistryError, Version};
use auditstream_schemas::{AUDIT_EVENT_V1, AuditEvent, Framing};
use serde_json::{Value as Json, json};

use crate::interop::{assert_rows, decoded, framing};
use crate::registry::{as_v2, assert_waits, events, send, siblings, wait_metric};

const PATIENCE: Duration = Duration::from_secs(90);
/// A URL where nothing listens: port 1 of loopback belongs to nobody who is not root.
const DEAD: &str = "http://127.0.0.1:1/apis/ccompat/v7";

/// A client that may register.
fn client(urls: &[&str]) -> Registry {
    let urls = urls.iter().map(|url| (*url).to_owned()).collect();
    let config = RegistryConfig { urls, may_register: true, missing_for: Duration::ZERO, ..RegistryConfig::default() };
    Registry::new(&config).unwrap()
}

fn worker(fixture: &Fixture, url: &str) -> Worker {
    fixture.worker_with(&[("AUDITSTREAM_SCHEMA__REGISTRY_URL", url)])
}

/// The event's schema with one more field at the end.
fn v2(default: &str) -> String {
    let mut schema: Json = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
    let region = json!({ "name": "region", "type": "string", "default": default });
    schema["fields"].as_array_mut().unwrap().push(region);
    schema.to_string()
}

/// The registry's rule for a subject; the client does not change rules.
fn set_compatibility(fixture: &Fixture, subject: &str, level: &str) {
    let (address, path) = fixture.registry_url().trim_start_matches("http://").split_once('/').unwrap();
    let body = json!({ "compatibility": level }).to_string();
    let headers = [("Content-Type", "application/vnd.schemaregistry.v1+json")];
    let put = auditstream_integration_tests::http::put(
        address,
        &format!("/{path}/config/{subject}"),
        &headers,
        body.as_bytes(),
        PATIENCE,
    );
    let answer = put.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_client_asks_a_real_registry() {
    const SUBJECT: &str = "client/a b-value";
    let fixture = Fixture::new(Options::light("live-client"));
    let url = fixture.registry_url();
    assert!(url.ends_with("/apis/ccompat/v7"), "a base URL with a path: {url}");
    // The first URL is dead, the last is alive but somebody else's path.
    let foreign = url.replace("/apis/ccompat/v7", "/nothing/here");
    for urls in [vec![url], vec![DEAD, url], vec![&foreign, url]] {
        let registry = client(&urls);
        let missing = block_on(registry.by_id(900_000)).unwrap_err();
        assert!(
            matches!(missing, RegistryError::NotFound { code: 40403, .. }) || urls.contains(&&*foreign),
            "{missing}"
        );
        let missing = block_on(registry.lookup("nobody-value", AUDIT_EVENT_V1, &[])).unwrap_err();
        assert!(matches!(missing, RegistryError::NotFound { code: 40401, .. }), "{urls:?}: {missing}");

        let id = block_on(registry.register(SUBJECT, AUDIT_EVENT_V1, &[])).unwrap();
        assert_eq!(block_on(registry.register(SUBJECT, AUDIT_EVENT_V1, &[])).unwrap(), id, "registered twice");
        assert_eq!(block_on(registry.lookup(SUBJECT, AUDIT_EVENT_V1, &[])).unwrap(), id);
        let by_id = block_on(registry.by_id(id)).unwrap();
        let by_version = block_on(registry.by_version(SUBJECT, Version::Number(1))).unwrap();
        assert_eq!((by_id.id, by_version.id, by_version.version), (id, id, Some(1)));
        assert_eq!(json(&by_id.schema), json(AUDIT_EVENT_V1));
        assert_eq!(json(&by_version.schema), json(AUDIT_EVENT_V1));
    }
    let registry = client(&[url]);
    let first = block_on(registry.by_version(SUBJECT, Version::Latest)).unwrap();
    let second = block_on(registry.register(SUBJECT, &v2(""), &[])).unwrap();
    let latest = block_on(registry.by_version(SUBJECT, Version::Latest)).unwrap();
    assert_eq!((first.version, latest.version, latest.id), (Some(1), Some(2), second));
    assert_eq!(json(&latest.schema), json(&v2("")));
    let missing = block_on(registry.by_version(SUBJECT, Version::Number(9))).unwrap_err();
    assert!(matches!(missing, RegistryError::NotFound { code: 40402, .. }), "{missing}");
    let unparsable = block_on(registry.register(SUBJECT, "{", &[])).unwrap_err();
    assert!(matches!(unparsable, RegistryError::Refused { status: 422, .. }), "{unparsable}");
    let off = RegistryConfig { urls: vec![url.to_owned()], ..RegistryConfig::default() };
    let refused = block_on(Registry::new(&off).unwrap().register(SUBJECT, &v2("x"), &[])).unwrap_err();
    assert_eq!(refused, RegistryError::RegisteringIsOff);
}

#[test]
fn a_real_registry_judges_compatibility() {
    const SUBJECT: &str = "live-compatibility-value";
    let fixture = Fixture::new(Options::light("live-compatibility"));
    let registry = client(&[fixture.registry_url()]);
    let check = |schema: &str, version| block_on(registry.check_compatibility(SUBJECT, version, schema, &[]));
    // Anything may follow nothing: Apicurio does not say that there is no such subject.
    assert!(check(AUDIT_EVENT_V1, Version::Latest).unwrap().is_compatible);
    block_on(registry.register(SUBJECT, AUDIT_EVENT_V1, &[])).unwrap();
    set_compatibility(&fixture, SUBJECT, "BACKWARD");

    let mut retyped = json(AUDIT_EVENT_V1);
    retyped["fields"][2]["type"] = json!("long");
    let mut required = json(AUDIT_EVENT_V1);
    required["fields"].as_array_mut().unwrap().push(json!({ "name": "region", "type": "string" }));
    for (what, schema, path) in
        [("tenant_id is a long", retyped, "/fields/2/type"), ("a field without a default", required, "/fields/")]
    {
        let schema = schema.to_string();
        for version in [Version::Latest, Version::Number(1)] {
            let judged = check(&schema, version).unwrap();
            assert!(!judged.is_compatible, "{what}: {judged:?}");
        }
        // Apicurio gives no messages with its judgement, but says why it does not register.
        let refused = block_on(registry.register(SUBJECT, &schema, &[])).unwrap_err();
        let RegistryError::Refused { status: 409, message } = refused else { panic!("{what}: {refused}") };
        assert!(message.contains(path), "{what}: {message}");
    }
    assert!(check(&v2(""), Version::Latest).unwrap().is_compatible);
    block_on(registry.register(SUBJECT, &v2(""), &[])).unwrap();
    assert_eq!(block_on(registry.by_version(SUBJECT, Version::Latest)).unwrap().version, Some(2));
}

#[test]
fn a_real_registry_keeps_references() {
    let fixture = Fixture::new(Options::light("live-references"));
    let registry = client(&[fixture.registry_url()]);
    let money = r#"{"type":"record","name":"Money","namespace":"shop","fields":[{"name":"cents","type":"long"}]}"#;
    let order = r#"{"type":"record","name":"Order","namespace":"sales","fields":[{"name":"total","type":"shop.Money"},{"name":"paid","type":["null","shop.Money"],"default":null}]}"#;
    block_on(registry.register("live-references-money", money, &[])).unwrap();
    let reference =
        Reference { name: "shop.Money".to_owned(), subject: "live-references-money".to_owned(), version: 1 };
    let references = [reference];
    let unknown = block_on(registry.register("live-references-order", order, &[]));
    let id = block_on(registry.register("live-references-order", order, &references)).unwrap();
    assert_ne!(unknown.ok(), Some(id), "without its reference it is not the same schema");
    assert_eq!(block_on(registry.lookup("live-references-order", order, &references)).unwrap(), id);
    let mut complete = json(order);
    complete["fields"][0]["type"] = json(money);
    assert_eq!(json(&block_on(registry.by_id(id)).unwrap().schema), complete);
    let latest = block_on(registry.by_version("live-references-order", Version::Latest)).unwrap();
    assert_eq!((latest.id, json(&latest.schema)), (id, complete));
}

#[test]
fn a_publisher_registers_with_a_real_registry_and_its_events_land() {
    let fixture = Fixture::new(Options::light("live-publish"));
    let url = fixture.registry_url();
    let subject = format!("{}-value", fixture.topic());
    let mut sent = Vec::new();
    let mut publish = |register: &str, urls: &str| {
        let mut command = fixture.command(&["publish", "-"]);
        command.env("AUDITSTREAM_SCHEMA__REGISTRY_URL", urls).env("AUDITSTREAM_SCHEMA__REGISTER", register);
        command.env("AUDITSTREAM_SCHEMA__FRAMING", "confluent");
        let event = fixture.next_event();
        let ran = fixture.run(command, (event.to_json() + "\n").as_bytes());
        sent.push(event);
        ran
    };
    let refused = publish("off", url);
    assert_eq!(refused.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains(&subject) && refused.stderr.contains("has no"), "{}", refused.stderr);
    assert!(fixture.kafka().ends(fixture.topic()).iter().all(|(_, end)| *end == 0), "nothing was sent");
    publish("on", &format!("{DEAD},{url}")).success();
    publish("off", url).success();
    drop(sent.remove(0));
    let registered = block_on(client(&[url]).by_version(&subject, Version::Latest)).unwrap();
    assert_eq!((registered.version, json(&registered.schema)), (Some(1), json(AUDIT_EVENT_V1)));
    for record in fixture.kafka().read(fixture.topic()) {
        let framed = [&[0][..], &registered.id.to_be_bytes()].concat();
        assert_eq!(record.value.unwrap()[..5], framed, "the frame of {}", record.offset);
    }
    // The worker knows the schema, but not under this id.
    let worker = worker(&fixture, &format!("{DEAD},{url}"));
    sent.iter().for_each(|event| fixture.acknowledged().add(event.event_id));
    fixture.wait_landed(PATIENCE);
    assert!(worker.metric("auditstream_consumer_schema_lookups_total").unwrap() >= 1.0, "the id was learned");
    fixture.verdict().assert_clean(2, 0);
    // `publish` stamps what it sends, so the rows are compared with the topic's own bytes.
    let stamped: Vec<AuditEvent> = decoded(&fixture, &[(registered.id, AUDIT_EVENT_V1)]);
    for (sent, stamped) in sent.iter().zip(in_order(&sent, &stamped)) {
        let same = AuditEvent { producer: sent.producer.clone(), ..stamped.clone() };
        assert_eq!(&same, sent);
    }
    assert_rows(&fixture, &stamped);
}

fn in_order<'a>(sent: &[AuditEvent], found: &'a [AuditEvent]) -> Vec<&'a AuditEvent> {
    sent.iter().map(|sent| found.iter().find(|found| found.event_id == sent.event_id).unwrap()).collect()
}

#[test]
fn fault_20_a_real_registry_is_silent_killed_and_started_again() {
    const EACH: usize = 300;
    let mut report =
        FaultReport::new("20 a real registry silent, killed, started again: known ids flow, the partition waits");
    let fixture = Fixture::new(Options::own_servers("live-down"));
    let url = fixture.registry_url().to_owned();
    let (host, path) = url.split_at(url.find("/apis").unwrap());
    let subject = format!("{}-value", fixture.topic());
    let registry = client(&[&url]);
    // Always in this order, so that a registry that has forgotten them gives the same ids again.
    let register = || {
        [AUDIT_EVENT_V1, &v2(""), &v2("-")].map(|schema| block_on(registry.register(&subject, schema, &[])).unwrap())
    };
    let [known, second, third] = register();
    // Between the worker and the registry, so that no answer is given while the registry has not been told again.
    let proxy = Proxy::start(host);
    let mut worker = fixture.worker_with(&[
        ("AUDITSTREAM_SCHEMA__REGISTRY_URL", &format!("{}{path}", proxy.url())),
        ("AUDITSTREAM_SCHEMA__REGISTRY_TIMEOUT_MS", "1000"),
    ]);
    worker.wait_ready();
    assert_eq!(framing(&registry, &fixture), Framing::Confluent { schema_id: known });
    send(&fixture, known, events(&fixture, EACH));
    fixture.wait_landed(PATIENCE);

    // One record of an unknown schema, more of the known one behind it and on other partitions: only its partition waits.
    let strand = |worker: &mut Worker, what: &str, schema_id: u32| {
        let event = fixture.next_event();
        let sender = fixture.kafka().raw_sender(fixture.topic());
        sender.send(Some(event.key().as_bytes()), Some(&as_v2(&event, schema_id)), &[]);
        let (partition, offset) = sender.positions()[0];
        fixture.acknowledged().add(event.event_id);
        send(&fixture, known, siblings(&fixture, &event, EACH));
        send(&fixture, known, events(&fixture, EACH));
        let records = fixture.kafka().read(fixture.topic());
        let flowing = records.iter().filter(|record| record.partition != partition || record.offset < offset).count();
        wait_until(&format!("{what}: the other partitions to flow"), PATIENCE, || match fixture.raw_rows() {
            rows if rows == flowing as u64 => Ok(()),
            rows => Err(format!("{rows} of {flowing} rows")),
        });
        wait_metric(worker, "schema_waiting_partitions", 1.0);
        assert_waits(&fixture, worker, what, partition, offset);
        event
    };

    report.run();
    fixture.stack().registry().pause().unwrap();
    let silent = strand(&mut worker, "silent", second);
    fixture.stack().registry().resume().unwrap();
    fixture.wait_landed(PATIENCE);

    report.run();
    fixture.stack().registry().kill().unwrap();
    let killed = strand(&mut worker, "killed", third);
    proxy.strike("GET ", u64::MAX, auditstream_integration_tests::Fault::BlackHole);
    fixture.stack().registry().start().unwrap();
    let forgotten = block_on(registry.by_version(&subject, Version::Latest)).unwrap_err();
    assert!(matches!(forgotten, RegistryError::NotFound { .. }), "it kept what was registered: {forgotten}");
    assert_eq!(register(), [known, second, third], "the same ids for the same schemas");
    let answered = Instant::now();
    proxy.heal();
    proxy.cut();
    fixture.wait_landed(PATIENCE);
    report.recovered(answered.elapsed());

    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(5 * EACH as u64 + 2, 0);
    assert_eq!(verdict.raw_rows, verdict.rows, "nothing was inserted twice: {verdict}");
    for event in [silent, killed] {
        let sql = format!(
            "SELECT tenant_id, entity_id, service FROM events FINAL WHERE event_id = '{}' FORMAT RowBinaryWithNamesAndTypes",
            event.event_id
        );
        let table = auditstream_integration_tests::Table::read(&fixture.admin().try_bytes(&sql).unwrap());
        let expected = [&event.tenant_id, &event.entity_id, &event.service].map(|text| Value::text(text));
        assert_eq!(table.rows, [expected]);
    }
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(40)), Some(0));
    report.passed();
}

#[test]
fn a_worker_learns_an_unknown_writer_schema_from_a_real_registry() {
    const EACH: usize = 300;
    let fixture = Fixture::new(Options::light("live-v2"));
    let url = fixture.registry_url();
    let registry = client(&[url]);
    let subject = format!("{}-value", fixture.topic());
    let [v1_id, v2_id] =
        [AUDIT_EVENT_V1, &v2("")].map(|schema| block_on(registry.register(&subject, schema, &[])).unwrap());
    assert_ne!(v1_id, v2_id);
    let worker = worker(&fixture, url);
    let sender = fixture.kafka().raw_sender(fixture.topic());
    let (old, new) = (events(&fixture, EACH), events(&fixture, EACH));
    for event in &new {
        sender.send(Some(event.key().as_bytes()), Some(&as_v2(event, v2_id)), &[]);
        fixture.acknowledged().add(event.event_id);
    }
    let _ = sender.positions();
    send(&fixture, v1_id, old);
    fixture.wait_landed(PATIENCE);
    fixture.verdict().assert_clean(2 * EACH as u64, 0);
    assert!(worker.metric("auditstream_consumer_schema_lookups_total").unwrap() >= 2.0, "both ids were learned");
    let all = decoded(&fixture, &[(v1_id, AUDIT_EVENT_V1), (v2_id, &v2(""))]);
    for event in &new {
        assert!(all.contains(event), "what was sent is what lies in the topic");
    }
    assert_rows(&fixture, &all);
}
