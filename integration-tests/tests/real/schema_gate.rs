//! `auditstream schema check` against a registry.

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

    // A registry that is away is no verdict.
    let mut command = fixture.command(&["schema", "check"]);
    let closed = ScriptedRegistry::closed();
    command.env("AUDITSTREAM_SCHEMA__REGISTRY_URL", closed.url());
    let away = fixture.run(command, b"");
    assert_eq!((away.code(), away.stdout.as_str()), (Some(1), ""), "{away:?}");
    assert!(away.stderr.contains("subject schema-gate-value can't be compared with"), "{away:?}");
}
