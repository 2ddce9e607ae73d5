//! Fault 20: records whose schema must be asked for, and a registry that is down, broken, slow, or does not have it.

use std::time::{Duration, Instant};

use auditstream_consumer::headers;
use auditstream_integration_tests::{
    FaultReport, Fixture, Options, RegistryAnswer, ScriptedRegistry, Value, Worker, http, wait_until,
};
use auditstream_producer::Config as ProducerConfig;
use auditstream_schemas::{AUDIT_EVENT_V1, AuditEvent, Framing, encode};

const PATIENCE: Duration = Duration::from_secs(90);
/// The id that workers know from their configuration.
const KNOWN: u32 = 77;
const KNOWN_ID: &str = "framing = \"confluent\"\nconfluent_schema_id = 77";

fn worker(fixture: &Fixture, registry: &ScriptedRegistry) -> Worker {
    fixture.worker_with(&[
        ("AUDITSTREAM_SCHEMA__REGISTRY_URL", &registry.url()),
        ("AUDITSTREAM_SCHEMA__REGISTRY_TIMEOUT_MS", "300"),
    ])
}

/// Sends events framed with a registry's id, and waits until they are acknowledged.
pub(super) fn send(fixture: &Fixture, schema_id: u32, events: impl IntoIterator<Item = AuditEvent>) {
    let config = ProducerConfig { framing: Framing::Confluent { schema_id }, ..fixture.producer_config("confluent") };
    let recorder = fixture.recorder(config);
    events.into_iter().for_each(|event| recorder.record(event));
    recorder.finish();
}

pub(super) fn events(fixture: &Fixture, count: usize) -> Vec<AuditEvent> {
    (0..count).map(|_| fixture.next_event()).collect()
}

/// As many events on the partition of `like` as asked for.
pub(super) fn siblings(fixture: &Fixture, like: &AuditEvent, count: usize) -> Vec<AuditEvent> {
    let of = |mut event: AuditEvent| {
        event.tenant_id.clone_from(&like.tenant_id);
        event.entity_type.clone_from(&like.entity_type);
        event.entity_id.clone_from(&like.entity_id);
        event
    };
    (0..count).map(|_| of(fixture.next_event())).collect()
}

fn wait_rows(fixture: &Fixture, rows: u64) {
    wait_until(&format!("{rows} rows"), PATIENCE, || match fixture.raw_rows() {
        seen if seen == rows => Ok(()),
        seen => Err(format!("{seen} rows")),
    });
}

pub(super) fn wait_metric(worker: &Worker, name: &str, at_least: f64) {
    let name = format!("auditstream_consumer_{name}");
    wait_until(&format!("{name} of {at_least}"), PATIENCE, || match worker.metric(&name)? {
        value if value >= at_least => Ok(()),
        value => Err(format!("{value}")),
    });
}

/// Nothing of the partition that waits is stored or committed beyond what is known, nothing is a dead letter, and the worker is alive.
pub(super) fn assert_waits(fixture: &Fixture, worker: &mut Worker, what: &str, partition: i32, offset: i64) {
    assert!(worker.runs(), "{what}: the worker ended");
    let live = http::get(&worker.address().unwrap(), "/livez").unwrap();
    assert_eq!(live.status, 200, "{what}: {}", live.text());
    let sql = format!("SELECT count() FROM events WHERE _partition = {partition} AND _offset >= {offset}");
    assert_eq!(fixture.admin().number(&sql), 0, "{what}: rows of the partition that waits");
    let committed = fixture.kafka().committed(fixture.topic()).get(&partition).copied().unwrap_or(0);
    assert!(committed <= offset, "{what}: {committed} is committed, {offset} waits");
    assert_eq!(fixture.kafka().read(&fixture.dead_letter_topic()).len(), 0, "{what}: dead letters");
}

#[test]
fn fault_20_registry_down_broken_and_slow_known_ids_flow_and_the_partition_waits() {
    const NEW: u32 = 41;
    const EACH: usize = 500;
    let mut report = FaultReport::new("20 registry down, 500, slow: known ids flow, the partition waits");
    let fixture = Fixture::new(Options::light("registry-down").schema(KNOWN_ID));
    let registry = ScriptedRegistry::closed();
    report.run();
    let first = fixture.next_event();
    // Known ones in front of it and behind it, on its own partition.
    send(&fixture, KNOWN, siblings(&fixture, &first, 3));
    send(&fixture, NEW, [first.clone()]);
    let (partition, offset) = {
        let records = fixture.kafka().read(fixture.topic());
        let waits = records.iter().find(|r| r.value.as_ref().is_some_and(|v| v.starts_with(&[0, 0, 0, 0, 41])));
        waits.map(|record| (record.partition, record.offset)).unwrap()
    };
    send(&fixture, KNOWN, siblings(&fixture, &first, EACH));
    // Started now, it fetches all of them at once: no pause keeps those behind from it.
    let mut worker = worker(&fixture, &registry);
    worker.wait_ready();
    let mut elsewhere = 0;
    let mut flow = |what: &str, worker: &mut Worker| {
        send(&fixture, KNOWN, events(&fixture, EACH));
        let records = fixture.kafka().read(fixture.topic());
        let seen = records.iter().filter(|record| record.partition != partition).count() as u64;
        assert!(seen > elsewhere + EACH as u64 / 2, "{what}: most partitions are others");
        elsewhere = seen;
        wait_rows(&fixture, seen + 3);
        assert_waits(&fixture, worker, what, partition, offset);
    };
    flow("connections refused", &mut worker);
    wait_metric(&worker, "schema_waiting_partitions", 1.0);
    wait_metric(&worker, "schema_lookups_total", 3.0);
    let answered = Instant::now();
    registry.answer_all(RegistryAnswer::Status(500));
    registry.open();
    let broken = [
        ("status 500", RegistryAnswer::Status(500)),
        ("status 503", RegistryAnswer::Status(503)),
        ("status 401", RegistryAnswer::Status(401)),
        ("silence", RegistryAnswer::Silence),
        ("a proxy's 404", RegistryAnswer::ProxyMissing),
        ("garbage", RegistryAnswer::Garbage),
    ];
    for (what, answer) in broken {
        registry.answer_all(answer);
        let before = registry.asked(NEW);
        wait_until(&format!("{what} twice"), PATIENCE, || match registry.asked(NEW) - before {
            2.. => Ok(()),
            asked => Err(format!("asked {asked} times")),
        });
        flow(what, &mut worker);
    }
    let log = worker.log();
    let warnings = log.lines().filter(|line| line.contains("a schema could not be looked up")).count();
    assert!((1..=20).contains(&warnings), "{warnings} log lines about failed look-ups");

    registry.answer_all(RegistryAnswer::Schema(AUDIT_EVENT_V1.to_owned()));
    fixture.wait_landed(PATIENCE);
    report.recovered(answered.elapsed());
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(fixture.acknowledged().len() as u64, 0);
    assert_eq!(verdict.raw_rows, verdict.rows, "nothing was inserted twice: {verdict}");
    wait_until("no partition to wait", PATIENCE, || {
        match worker.metric("auditstream_consumer_schema_waiting_partitions")? {
            0.0 => Ok(()),
            value => Err(format!("{value} wait")),
        }
    });
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(40)), Some(0));
    report.passed();
}

#[test]
fn fault_20_only_a_confirmed_404_or_an_unusable_schema_is_a_dead_letter() {
    const EACH: u32 = 25;
    const UNUSABLE: u32 = 600;
    let mut report = FaultReport::new("20 registry 404: a dead letter only when it is confirmed");
    let fixture = Fixture::new(Options::light("registry-404").schema(KNOWN_ID));
    let registry = ScriptedRegistry::answering(RegistryAnswer::Missing);
    report.run();
    registry.answer(UNUSABLE, RegistryAnswer::Schema("\"int\"".to_owned()));
    registry.answer(UNUSABLE + 1, RegistryAnswer::Schema("no schema".to_owned()));
    let worker = worker(&fixture, &registry);
    let mut expected = Vec::new();
    for number in 0..EACH {
        send(&fixture, KNOWN, events(&fixture, 100));
        let event = fixture.next_event();
        // The last is no id that a registry could have given.
        for (schema_id, code) in
            [(500 + number, "unknown-schema"), (UNUSABLE + number % 2, "unusable-schema"), (1 << 31, "unknown-schema")]
        {
            let mut value = Vec::new();
            encode(&event, Framing::Confluent { schema_id }, &mut value);
            fixture.poison().send(Some(event.key().as_bytes()), Some(&value), &[]);
            expected.push((schema_id, code));
        }
        let _ = fixture.poison().positions();
    }
    fixture.wait_landed(PATIENCE);
    let bad = expected.len() as u64;
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(u64::from(EACH) * 100 + bad, bad);
    let positions = fixture.poison().positions();
    let letters = fixture.kafka().read(&fixture.dead_letter_topic());
    for (at, (id, code)) in positions.into_iter().zip(expected) {
        let letter = letters
            .iter()
            .find(|letter| {
                letter.header(headers::PARTITION) == at.0.to_string()
                    && letter.header(headers::OFFSET) == at.1.to_string()
            })
            .unwrap();
        let message = letter.header(headers::ERROR_MESSAGE);
        assert_eq!(letter.header(headers::ERROR_CODE), code, "{id}: {message}");
        assert!(message.contains(&format!("confluent:{id}")), "{message}");
        let reason = if code == "unknown-schema" { "the schema registry has no schema" } else { "schema" };
        assert!(message.contains(reason), "{message}");
        assert_eq!(letter.header(headers::SCHEMA), format!("confluent:{id}"));
    }
    for id in [500, 500 + EACH - 1, UNUSABLE, UNUSABLE + 1] {
        assert_eq!(registry.asked(id), 1, "requests for schema {id}");
    }
    assert_eq!(registry.asked(1 << 31), 0);
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(40)), Some(0));
    report.passed();
}

/// The event as a writer of a later schema version would write it: one more field at the end.
pub(super) fn as_v2(event: &AuditEvent, schema_id: u32) -> Vec<u8> {
    let mut value = Vec::new();
    encode(event, Framing::Confluent { schema_id }, &mut value);
    // Avro's string: zigzag length, then the bytes.
    value.extend_from_slice(b"\x0eeu-west");
    value
}

#[test]
fn fault_20_a_newer_writer_schema_is_learned_while_it_runs() {
    const V2: u32 = 42;
    const EACH: usize = 300;
    let mut report = FaultReport::new("20 registry has a newer schema: learned while the worker runs");
    let mut v2: serde_json::Value = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
    let region = serde_json::json!({ "name": "region", "type": "string", "default": "" });
    v2["fields"].as_array_mut().unwrap().push(region);
    let fixture = Fixture::new(Options::light("registry-v2").schema(KNOWN_ID));
    let registry = ScriptedRegistry::answering(RegistryAnswer::Missing);
    report.run();
    registry.answer(V2, RegistryAnswer::Schema(v2.to_string()));
    let workers = [worker(&fixture, &registry), worker(&fixture, &registry)];
    workers.iter().for_each(Worker::wait_ready);
    let sender = fixture.kafka().raw_sender(fixture.topic());
    let mut names = Vec::new();
    let recorder = fixture.recorder(fixture.producer_config("v1"));
    for number in 0..EACH {
        let mut event = fixture.next_event();
        event.entity_name = Some(format!("v2 {number:05}"));
        names.push((format!("v2 {number:05}"), event.service.clone()));
        sender.send(Some(event.key().as_bytes()), Some(&as_v2(&event, V2)), &[]);
        fixture.acknowledged().add(event.event_id);
        recorder.record(fixture.next_event());
    }
    recorder.finish();
    let _ = sender.positions();
    fixture.wait_landed(PATIENCE);
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(2 * EACH as u64, 0);
    assert!(registry.asked(V2) <= workers.len(), "asked {} times", registry.asked(V2));
    let sql = "SELECT entity_name, service FROM events FINAL WHERE entity_name LIKE 'v2 %' ORDER BY entity_name FORMAT RowBinaryWithNamesAndTypes";
    let table = auditstream_integration_tests::Table::read(&fixture.admin().try_bytes(sql).unwrap());
    names.sort();
    let expected: Vec<Vec<Value>> =
        names.iter().map(|(name, service)| vec![Value::text(name), Value::text(service)]).collect();
    assert_eq!(table.rows, expected);
    report.passed();
}

#[test]
fn fault_20_partitions_that_wait_move_between_workers() {
    const NEW: u32 = 43;
    const EACH: usize = 400;
    let mut report = FaultReport::new("20 registry 500 while partitions move");
    let fixture = Fixture::new(Options::light("registry-moves").schema(KNOWN_ID));
    let registry = ScriptedRegistry::answering(RegistryAnswer::Status(500));
    report.run();
    let first = worker(&fixture, &registry);
    first.wait_ready();
    // Each partition gets records of the new schema somewhere.
    for _ in 0..3 {
        send(&fixture, KNOWN, events(&fixture, EACH));
        send(&fixture, NEW, events(&fixture, EACH));
    }
    wait_metric(&first, "schema_waiting_partitions", 6.0);
    let second = worker(&fixture, &registry);
    wait_metric(&second, "schema_waiting_partitions", 3.0);
    wait_until("the first worker to wait for its half only", PATIENCE, || {
        match first.metric("auditstream_consumer_schema_waiting_partitions")? {
            3.0 => Ok(()),
            value => Err(format!("{value} partitions wait")),
        }
    });
    // What moved away comes back, while librdkafka may remember that it was paused.
    second.terminate();
    assert_eq!(second.wait(Duration::from_secs(40)), Some(0), "nothing holds up its end");
    wait_metric(&first, "schema_waiting_partitions", 6.0);
    let answered = Instant::now();
    registry.answer_all(RegistryAnswer::Schema(AUDIT_EVENT_V1.to_owned()));
    fixture.wait_landed(PATIENCE);
    report.recovered(answered.elapsed());
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(6 * EACH as u64, 0);
    assert_eq!(verdict.raw_rows, verdict.rows, "nothing was inserted twice: {verdict}");
    report.passed();
}

/// ClickHouse is away until the worker has paused everything because it holds as much as may be, and is back.
fn fill_up(fixture: &Fixture, worker: &Worker, meanwhile: impl FnOnce()) {
    fixture.stack().clickhouse().stop().unwrap();
    send(fixture, KNOWN, events(fixture, 4_000));
    wait_metric(worker, "paused", 1.0);
    meanwhile();
    fixture.stack().clickhouse().start().unwrap();
}

#[test]
fn fault_20_waiting_outlasts_a_worker_that_is_full() {
    const NEW: u32 = 44;
    let mut report = FaultReport::new("20 registry 500 while the worker is full");
    let options = Options::own_servers("registry-full").schema(KNOWN_ID);
    let fixture = Fixture::new(options.consumer("batch_max_bytes = 65536\nin_flight_bytes = 131072"));
    let registry = ScriptedRegistry::answering(RegistryAnswer::Status(500));
    report.run();
    let mut worker = worker(&fixture, &registry);
    worker.wait_ready();
    let first = fixture.next_event();
    send(&fixture, NEW, [first.clone()]);
    send(&fixture, KNOWN, siblings(&fixture, &first, 2_000));
    let partition = fixture.kafka().read(fixture.topic())[0].partition;
    wait_metric(&worker, "schema_waiting_partitions", 1.0);
    // The core resumes all partitions, the one that waits too: what it brings then is passed over.
    fill_up(&fixture, &worker, || {});
    let records = fixture.kafka().read(fixture.topic());
    wait_rows(&fixture, records.iter().filter(|record| record.partition != partition).count() as u64);
    assert_waits(&fixture, &mut worker, "full and back", partition, 0);
    // The answer comes while everything is paused.
    fill_up(&fixture, &worker, || {
        let before = registry.asked(NEW);
        registry.answer_all(RegistryAnswer::Schema(AUDIT_EVENT_V1.to_owned()));
        wait_until("one more request", PATIENCE, || match registry.asked(NEW) - before {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        });
    });
    let answered = Instant::now();
    fixture.wait_landed(PATIENCE);
    report.recovered(answered.elapsed());
    let verdict = fixture.verdict();
    report.judged(&verdict);
    verdict.assert_clean(fixture.acknowledged().len() as u64, 0);
    assert!(worker.runs(), "the worker ended");
    report.passed();
}

#[test]
fn a_publisher_asks_for_the_id_and_registers_only_when_it_may() {
    let fixture = Fixture::new(Options::light("registry-publish"));
    let registry = ScriptedRegistry::answering(RegistryAnswer::Missing);
    registry.registers_from(901);
    registry.answer(901, RegistryAnswer::Schema(AUDIT_EVENT_V1.to_owned()));
    let subject = format!("{}-value", fixture.topic());
    let publish = |register| {
        let mut command = fixture.command(&["publish", "-"]);
        command.env("AUDITSTREAM_SCHEMA__REGISTRY_URL", registry.url()).env("AUDITSTREAM_SCHEMA__REGISTER", register);
        command.env("AUDITSTREAM_SCHEMA__FRAMING", "confluent");
        let event = fixture.next_event();
        let ran = fixture.run(command, (event.to_json() + "\n").as_bytes());
        (ran, event.event_id)
    };
    let (refused, _) = publish("off");
    assert_eq!(refused.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains(&subject) && refused.stderr.contains("has no"), "{}", refused.stderr);
    assert_eq!(registry.subject(&subject), None);
    assert!(fixture.kafka().ends(fixture.topic()).iter().all(|(_, end)| *end == 0), "nothing was sent");
    // Registered once; the second run finds it.
    for register in ["on", "off"] {
        let (ran, id) = publish(register);
        ran.success();
        fixture.acknowledged().add(id);
        assert_eq!(registry.subject(&subject), Some(901));
    }
    for record in fixture.kafka().read(fixture.topic()) {
        assert_eq!(record.value.unwrap()[..5], [0, 0, 0, 3, 133]);
    }
    let _worker = worker(&fixture, &registry);
    wait_rows(&fixture, 2);
    fixture.wait_landed(PATIENCE);
    fixture.verdict().assert_clean(2, 0);
}
