//! The committed golden files, read by us and by an independent implementation (Python's fastavro), and the other way round.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm};
use auditstream_schemas::*;

mod common;
use common::{AT, GOLDEN_FRAMINGS, event_at, golden};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn known() -> Arc<Schemas> {
    let mut schemas = common::schemas();
    schemas.add(WriterId::Confluent(258), AUDIT_EVENT_V1).unwrap();
    Arc::new(schemas)
}

fn json(name: &str) -> AuditEvent {
    AuditEvent::from_json(&fs::read(folder().join(format!("{name}.json"))).unwrap()).unwrap()
}

#[test]
fn golden_files_are_read_and_written_to_the_byte() {
    let schemas = known();
    let mut decoder = BatchDecoder::new(schemas.clone());
    let mut files = BTreeSet::from(["content_hashes.txt".to_owned()]);
    // A change of these would make every stored event a stranger to its own retry.
    let hashes = fs::read_to_string(folder().join("content_hashes.txt")).unwrap();
    for (name, event) in golden() {
        files.insert(format!("{name}.json"));
        let mut expected = json(name);
        assert_eq!(
            expected.to_json() + "\n",
            fs::read_to_string(folder().join(format!("{name}.json"))).unwrap(),
            "{name}"
        );
        // A line break in details is space in JSON.
        assert_eq!(expected.details, event.details.replace('\n', " "));
        expected.details.clone_from(&event.details);
        assert_eq!(expected, event, "{name}");
        let hash = content_hash_of(&event).map(|byte| format!("{byte:02x}")).concat();
        assert!(hashes.lines().any(|line| line == format!("{hash} {name}")), "{name}");
        for (ending, framing) in GOLDEN_FRAMINGS {
            files.insert(format!("{name}.{ending}"));
            let bytes = fs::read(folder().join(format!("{name}.{ending}"))).unwrap();
            let mut ours = Vec::new();
            encode(&expected, framing, &mut ours);
            assert_eq!(ours, bytes, "{name}.{ending}");
            assert_eq!(decode(&schemas, &bytes).unwrap(), expected, "{name}.{ending}");
            decoder.push(&bytes, AT).unwrap();
        }
    }
    for Decoded { batch, .. } in decoder.finish().unwrap() {
        // In the order in which they were pushed, with both framings.
        assert_eq!(batch.num_rows(), golden().len() * GOLDEN_FRAMINGS.len());
        for (number, (name, event)) in golden().into_iter().enumerate() {
            for framing in 0..GOLDEN_FRAMINGS.len() {
                assert_eq!(event_at(&batch, number * GOLDEN_FRAMINGS.len() + framing), event, "{name}");
            }
        }
    }
    let there = fs::read_dir(folder()).unwrap().map(|f| f.unwrap()).filter(|f| f.file_type().unwrap().is_file());
    let there: BTreeSet<_> = there.map(|f| f.file_name().into_string().unwrap()).collect();
    assert_eq!(there, files);
}

/// Of later versions, as `auditstream schema new-version` has made them in `vN`: whoever reads as v1 reads the events of v1.
fn later_versions(golden: &Path, avro: &Path) -> usize {
    let mut records = 0;
    for folder in fs::read_dir(golden).unwrap().map(|f| f.unwrap()).filter(|f| f.file_type().unwrap().is_dir()) {
        let version = folder.file_name().into_string().unwrap();
        let schema = fs::read_to_string(avro.join(format!("audit_event.{version}.avsc"))).unwrap();
        for file in fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().path()) {
            let name = file.file_name().unwrap().to_str().unwrap();
            let Some((stem, _)) = name.split_once('.').filter(|_| name.ends_with(".bin")) else { continue };
            let bytes = fs::read(&file).unwrap();
            let mut schemas = common::schemas();
            schemas.add(split(&bytes).unwrap().0, &schema).unwrap();
            // With each value's text as it stands.
            let json = fs::read_to_string(folder.path().join(format!("{stem}.json"))).unwrap();
            let mut json: BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_str(&json).unwrap();
            let v1: serde_json::Value = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
            let is_ours = |name: &String| v1["fields"].as_array().unwrap().iter().any(|f| f["name"] == **name);
            json.retain(|name, _| is_ours(name));
            let mut expected = AuditEvent::from_json(serde_json::to_string(&json).unwrap().as_bytes()).unwrap();
            let event = decode(&schemas, &bytes).unwrap();
            // A line break in details is space in JSON.
            assert_eq!(expected.details, event.details.replace('\n', " "), "{version}/{name}");
            expected.details.clone_from(&event.details);
            assert_eq!(event, expected, "{version}/{name}");
            let mut decoder = BatchDecoder::new(Arc::new(schemas));
            decoder.push(&bytes, AT).unwrap();
            assert_eq!(event_at(&decoder.finish().unwrap()[0].batch, 0), expected, "{version}/{name}");
            records += 1;
        }
    }
    records
}

#[test]
fn golden_files_of_later_versions_are_read() {
    later_versions(&folder(), &folder().join("../avro"));
    // Whatever versions there are: one that is made here.
    let made = tempfile::tempdir().unwrap();
    let mut schema: serde_json::Value = serde_json::from_str(AUDIT_EVENT_V1).unwrap();
    let added = serde_json::json!({"name": "seen_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "default": 0});
    schema["fields"].as_array_mut().unwrap().push(added);
    fs::write(made.path().join("audit_event.v2.avsc"), schema.to_string()).unwrap();
    fs::create_dir_all(made.path().join("golden/v2")).unwrap();
    let files = auditstream_schemas::golden::of_version(&schema.to_string(), "seen_at").unwrap();
    for file in &files {
        fs::write(made.path().join("golden/v2").join(&file.name), &file.bytes).unwrap();
    }
    assert_eq!(later_versions(&made.path().join("golden"), made.path()), 2 * (golden().len() + 1));
    // As arrow-avro makes fingerprints: of v1 everybody's.
    let fingerprint = |json: &str| AvroSchema::new(json.to_owned()).fingerprint(FingerprintAlgorithm::Rabin).unwrap();
    assert_eq!(fingerprint(AUDIT_EVENT_V1), Fingerprint::Rabin(V1_FINGERPRINT));
    for file in files.iter().filter(|file| file.name.ends_with(".single.bin")) {
        let named = u64::from_le_bytes(file.bytes[2..10].try_into().unwrap());
        assert_eq!(Fingerprint::Rabin(named), fingerprint(&schema.to_string()), "{}", file.name);
    }
    let with = files.iter().find(|file| file.name == "with_seen_at.json").unwrap();
    assert!(String::from_utf8_lossy(&with.bytes).ends_with(",\"seen_at\":1700000000123456}\n"));
    assert!(auditstream_schemas::golden::of_version(&schema.to_string(), "nothing").is_err());
}

/// A Python with fastavro: `AUDITSTREAM_PYTHON`, or python3 when it has it.
fn python() -> Option<String> {
    let usable = |python: &String| {
        let probe = Command::new(python).args(["-c", "import fastavro"]).output();
        probe.is_ok_and(|o| o.status.success())
    };
    std::env::var("AUDITSTREAM_PYTHON").ok().or_else(|| Some("python3".to_owned()).filter(usable))
}

fn fastavro(out: &Path) -> Output {
    let Some(python) = python() else {
        panic!(
            "no Python with fastavro was found: run `cargo xtask test`, which installs one, or set AUDITSTREAM_PYTHON to a \
             Python that has it (`python3 -m venv DIR && DIR/bin/pip install fastavro`)"
        );
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Command::new(python)
        .arg(here.join("tests/golden.py"))
        .args([here.join("avro/audit_event.v1.avsc"), folder(), out.to_owned()])
        .output()
        .unwrap()
}

#[test]
fn fastavro_reads_our_bytes_and_we_read_its() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fastavro");
    drop(fs::remove_dir_all(&out));
    fs::create_dir_all(&out).unwrap();
    let run = fastavro(&out);
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "fastavro does not agree:\n{said}");
    assert!(said.contains(&format!("{} golden files agree", golden().len() * GOLDEN_FRAMINGS.len())), "{said}");
    let schemas = known();
    for (name, event) in golden() {
        for (ending, _) in GOLDEN_FRAMINGS {
            let bytes = fs::read(out.join(format!("{name}.{ending}"))).unwrap();
            assert_eq!(decode(&schemas, &bytes).unwrap(), event, "{name}.{ending}");
            let mut decoder = BatchDecoder::new(schemas.clone());
            decoder.push(&bytes, AT).unwrap();
            assert_eq!(event_at(&decoder.finish().unwrap()[0].batch, 0), event, "{name}.{ending}");
        }
    }
}
