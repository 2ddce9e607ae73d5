//! The committed golden files, read by us and by an independent implementation (Python's fastavro), and the other way round.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

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
        for (row, (name, event)) in golden().into_iter().enumerate() {
            assert_eq!(event_at(&batch, row), event, "{name}");
        }
    }
    let there: BTreeSet<_> =
        fs::read_dir(folder()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, files);
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
