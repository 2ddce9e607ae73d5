//! `auditstream schema check` against a registry, and what `schema new-version` writes on a real table.

use std::fs;
use std::path::Path;
use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options, RegistryAnswer, ScriptedRegistry};
use auditstream_schemas::AUDIT_EVENT_V1;

#[test]
fn the_gate_compares_with_every_registered_version() {
    let fixture = Fixture::new(Options::light("schema-gate").bare());
    let registry = ScriptedRegistry::answering(RegistryAnswer::Missing);
    let run = |args: &[&str]| {
        let mut command = fixture.command(&[&["schema", "check"], args].concat());
        command.env("AUDITSTREAM_SCHEMA__REGISTRY_URL", registry.url());
        command.env("AUDITSTREAM_SCHEMA__REGISTRY_TIMEOUT_MS", "2000");
        fixture.run(command, b"")
    };
    // Nothing registered yet: said, and fine.
    let early = run(&[]).success();
    assert!(early.stdout.contains("note: subject schema-gate-value is not registered yet"), "{early:?}");

    registry.has("schema-gate-value", &[AUDIT_EVENT_V1]);
    let fine = run(&["--registry"]).success();
    assert!(fine.stdout.contains("backward: it reads schema-gate-value version 1"), "{fine:?}");
    assert!(fine.stdout.contains("forward: schema-gate-value version 1 reads it"), "{fine:?}");

    // The first version is the one that forbids it; the newest alone would not.
    let order =
        |kind: &str| format!(r#"{{"type":"record","name":"Order","fields":[{{"name":"amount","type":{kind}}}]}}"#);
    registry.has("orders", &[&order(r#"["string","long"]"#), &order(r#""long""#)]);
    let file = fixture.folder().join("order.avsc");
    std::fs::write(&file, order(r#""long""#)).unwrap();
    let refused = run(&[file.to_str().unwrap(), "--subject", "orders"]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    for line in [
        "backward: it can't read all of orders version 1",
        "/fields/amount TYPE_MISMATCH: the writer has string, the reader long",
        "backward: it reads orders version 2",
        "forward: orders version 2 reads it",
    ] {
        assert!(refused.stdout.contains(line), "{line}: {refused:?}");
    }

    // Avro would read one as the other; the JSON that custom fields travel as is another.
    registry.has("parcels", &[&order(r#""bytes""#)]);
    std::fs::write(&file, order(r#""string""#)).unwrap();
    let refused = run(&[file.to_str().unwrap(), "--subject", "parcels"]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    let line = "/fields/amount JSON_FORM_MISMATCH: the writer's JSON is base64, the reader's text";
    assert!(refused.stdout.contains(line), "{refused:?}");

    // A registry that is away is no verdict.
    let mut command = fixture.command(&["schema", "check"]);
    let closed = ScriptedRegistry::closed();
    command.env("AUDITSTREAM_SCHEMA__REGISTRY_URL", closed.url());
    let away = fixture.run(command, b"");
    assert_eq!((away.code(), away.stdout.as_str()), (Some(1), ""), "{away:?}");
    assert!(away.stderr.contains("subject schema-gate-value can't be compared with"), "{away:?}");
}

/// What `new-version` looks at, in a folder of its own.
fn checkout(at: &Path) {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for folder in ["schemas/avro", "store/migrations"] {
        fs::create_dir_all(at.join(folder)).unwrap();
        for entry in fs::read_dir(ours.join(folder)).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, at.join(folder).join(from.file_name().unwrap())).unwrap();
        }
    }
}

/// An event that was written without the field has its default for whoever reads it with the new schema; so must its row.
#[test]
fn rows_from_before_a_new_version_have_its_default() {
    let fixture = Fixture::new(Options::light("new-version"));
    let worker = fixture.worker();
    worker.wait_ready();
    fixture.send(20);
    fixture.wait_landed(Duration::from_secs(60));
    let root = fixture.folder().join("checkout");
    checkout(&root);
    for (number, (kind, default, expected)) in [
        ("string", "it's \\ \"eu\"", "it's \\ \"eu\""),
        ("boolean", "true", "true"),
        ("int", "-5", "-5"),
        ("long", "5000000000", "5000000000"),
        ("double", "0.5", "0.5"),
        ("timestamp-micros", "1700000000123456", "2023-11-14 22:13:20.123456"),
        ("timestamp-millis", "-1", "1969-12-31 23:59:59.999"),
        ("date", "20000", "2024-10-04"),
        (r#"{"type":"enum","name":"Risk","symbols":["LOW","HIGH"],"default":"LOW"}"#, "HIGH", "HIGH"),
        (r#"{"type":"array","items":"string"}"#, r#"["a","it's"]"#, r"['a','it\'s']"),
        (r#"["null","string"]"#, "null", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let field = format!("added_{number}");
        let root = root.to_str().unwrap();
        let args = ["schema", "new-version", "--root", root, "--field", &field, "--type", kind, "--default", default];
        fixture.cli(&args).success();
        let migrations =
            fs::read_dir(Path::new(root).join("store/migrations")).unwrap().map(|entry| entry.unwrap().path());
        let ending = format!("_event_{field}.sql");
        let sql = migrations.into_iter().find(|path| path.to_str().unwrap().ends_with(&ending)).unwrap();
        let sql = fs::read_to_string(sql).unwrap().replace("{database}", fixture.database());
        fixture.admin().run(&sql);
        let found = fixture.admin().text(&format!("SELECT DISTINCT toString({field}) FROM events FORMAT RawBLOB"));
        assert_eq!(found, expected, "{kind}: {sql}");
    }
}
