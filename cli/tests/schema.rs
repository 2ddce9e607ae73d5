//! `auditstream schema` as people and CI use it: no server needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::fs;
use std::path::Path;
use std::process::Command;

use auditstream_schemas::golden::GOLDEN_FILES;
use auditstream_schemas::{Schemas, WriterId, decode, split};
use serde_json::{Value as Json, json};

const V1: &str = include_str!("../../schemas/avro/audit_event.v1.avsc");

fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_auditstream"));
    let output = command.env_clear().current_dir(folder).arg("schema").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// v1 after a change.
fn changed(change: impl FnOnce(&mut Json)) -> String {
    let mut schema: Json = serde_json::from_str(V1).unwrap();
    change(&mut schema);
    schema.to_string()
}

#[test]
fn the_schemas_of_this_repository_may_be_released() {
    for args in [&["check", "--offline"][..], &["check", "--offline", "schemas/avro"]] {
        let (code, stdout, stderr) = run(checkout(), args);
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        assert!(stdout.contains("audit_event.v1.avsc: may be released"), "{stdout}");
    }
}

#[test]
fn an_incompatible_change_fails_with_path_and_rule() {
    let folder = tempfile::tempdir().unwrap();
    let new = changed(|schema| {
        schema["fields"][10]["type"]["fields"][0]["type"]["symbols"] = json!(["USER", "SERVICE", "API_KEY", "SYSTEM"]);
        schema["fields"].as_array_mut().unwrap().push(json!({"name": "zone", "type": "string"}));
    });
    fs::write(folder.path().join("audit_event.v2.avsc"), new).unwrap();
    let (code, stdout, _) = run(folder.path(), &["check", "--offline", "."]);
    assert_eq!(code, 1, "{stdout}");
    for line in [
        "audit_event.v2.avsc: must not be released",
        "  backward: it can't read all of audit_event.v1.avsc",
        "    /fields/actor/kind MISSING_ENUM_SYMBOLS: the reader's enum has neither ANONYMOUS nor a default",
        "    /fields/zone READER_FIELD_MISSING_DEFAULT_VALUE: ",
        "  forward: audit_event.v1.avsc reads it",
        "  fault: golden file minimal: the new schema can't read it",
    ] {
        assert!(stdout.contains(line), "{line} is missing in {stdout}");
    }
    let (code, stdout, _) = run(folder.path(), &["check", "--offline", "--json", "audit_event.v2.avsc"]);
    assert_eq!(code, 1);
    let json: Json = serde_json::from_str(&stdout).unwrap();
    let problem = &json["schemas"][0]["comparisons"][0]["problems"][0];
    assert_eq!((&json["compatible"], &problem["path"]), (&json!(false), &json!("/fields/actor/kind")), "{json}");
    assert_eq!(problem["rule"], "MISSING_ENUM_SYMBOLS", "{json}");
}

#[test]
fn a_released_version_must_stay_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit_event.v1.avsc");
    // Compatible in both directions, and still another schema under a name that is taken.
    fs::write(&file, changed(|schema| schema["fields"][4]["default"] = json!("production"))).unwrap();
    let (code, stdout, _) = run(folder.path(), &["check", "--offline", "."]);
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("fault: audit_event.v1.avsc was released with other fields"), "{stdout}");
    // Words may be mended.
    fs::write(&file, changed(|schema| schema["doc"] = json!("other words"))).unwrap();
    let (code, stdout, _) = run(folder.path(), &["check", "--offline", "."]);
    assert_eq!(code, 0, "{stdout}");
}

#[test]
fn the_event_under_another_name_is_compared_with_all_released_versions() {
    let folder = tempfile::tempdir().unwrap();
    let new = changed(|schema| {
        schema["fields"].as_array_mut().unwrap().push(json!({"name": "zone", "type": "string"}));
    });
    for name in ["event.v1.avsc", "audit_event.v0.avsc", "event.avsc"] {
        fs::write(folder.path().join(name), &new).unwrap();
        let (code, stdout, _) = run(folder.path(), &["check", "--offline", name]);
        assert_eq!(code, 1, "{name}: {stdout}");
        assert!(stdout.contains("  backward: it can't read all of audit_event.v1.avsc"), "{name}: {stdout}");
    }
}

#[test]
fn a_services_own_record_is_compared_with_its_earlier_versions() {
    let folder = tempfile::tempdir().unwrap();
    let order =
        |kind: &str| format!(r#"{{"type":"record","name":"Order","fields":[{{"name":"amount","type":{kind}}}]}}"#);
    for (name, kind) in [
        ("order.v1.avsc", r#""int""#),
        ("order.v2.avsc", r#""long""#),
        ("old.avsc", r#""int""#),
        ("order.avsc", r#""string""#),
    ] {
        fs::write(folder.path().join(name), order(kind)).unwrap();
    }
    // A wider number reads what was written; a worker of v1 can't read the wider one.
    let (code, stdout, _) = run(folder.path(), &["check", "--offline", "order.v1.avsc", "order.v2.avsc"]);
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("  backward: it reads order.v1.avsc"), "{stdout}");
    assert!(stdout.contains("    /fields/amount TYPE_MISMATCH: the writer has long, the reader int"), "{stdout}");
    assert_eq!(run(folder.path(), &["check", "--offline", "--backward-only", "order.v1.avsc", "order.v2.avsc"]).0, 0);
    let (code, stdout, _) = run(folder.path(), &["check", "--offline", "order.avsc", "--against", "old.avsc"]);
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("/fields/amount TYPE_MISMATCH"), "{stdout}");
    assert_eq!(run(folder.path(), &["check", "--offline", "old.avsc", "--against", "order.v1.avsc"]).0, 0);
}

#[test]
fn what_can_not_be_checked_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(folder.path(), &["check", "--registry"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("schema.registry_url is not set"), "{stderr}");
    assert_eq!(run(folder.path(), &["check", "--offline", "--registry"]).0, 2);
    let order = r#"{"type":"record","name":"Order","fields":[]}"#;
    fs::write(folder.path().join("order.avsc"), order).unwrap();
    let (code, stdout, stderr) = run(folder.path(), &["check", "order.avsc", "--subject", "order-details"]);
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert!(stderr.contains("--subject order-details asks for a schema registry"), "{stderr}");
    assert_eq!(run(folder.path(), &["check", "order.avsc"]).0, 0);
    let (code, _, stderr) = run(folder.path(), &["check", "--offline", "nowhere.avsc"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("can't read nowhere.avsc"), "{stderr}");
    fs::write(folder.path().join("broken.avsc"), "{\"type\":\"record\"").unwrap();
    let (code, stdout, _) = run(folder.path(), &["check", "--offline", "broken.avsc"]);
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("fault: not a valid Avro schema: "), "{stdout}");
    assert_eq!(run(folder.path(), &["custom-view", "orders"]).0, 2);
    let (_, help, _) = run(folder.path(), &["check", "--help"]);
    assert!(help.contains("travel as JSON text"), "{help}");
    // A view would replace the table.
    for (view, says) in [("ledger", "ledger is a table of auditstream"), ("events_local", "events_local is a table")] {
        let args = ["custom-view", "orders", "--file", "order.avsc", "--view", view];
        let (code, stdout, stderr) = run(folder.path(), &args);
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[test]
fn custom_fields_are_checked_as_the_json_they_travel_as() {
    let folder = tempfile::tempdir().unwrap();
    let order = |name: &str, field: Json| {
        let schema = json!({"type": "record", "name": "Order", "namespace": "shop", "fields": [field]});
        fs::write(folder.path().join(name), schema.to_string()).unwrap();
    };
    order("order.v1.avsc", json!({"name": "raw", "type": "bytes", "default": ""}));
    order("order.v2.avsc", json!({"name": "raw", "type": "string", "default": ""}));
    let (code, stdout, _) = run(folder.path(), &["check", "--offline", "."]);
    assert_eq!(code, 1, "{stdout}");
    let line = "    /fields/raw JSON_FORM_MISMATCH: the writer's JSON is base64, the reader's text";
    assert!(stdout.contains("order.v1.avsc: may be released") && stdout.contains(line), "{stdout}");
    order("order.v2.avsc", json!({"name": "text", "type": "bytes", "default": "", "aliases": ["raw"]}));
    let (code, stdout, _) = run(folder.path(), &["check", "--offline", "--backward-only", "."]);
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("    /fields/text JSON_KEY_MISMATCH: the writer's JSON has the key raw"), "{stdout}");
    order("order.v2.avsc", json!({"name": "raw", "type": ["null", "bytes"], "default": null}));
    let (code, stdout, _) = run(folder.path(), &["check", "--offline", "--backward-only", "."]);
    assert_eq!(code, 0, "{stdout}");
    // The event itself travels as Avro's bytes.
    fs::remove_file(folder.path().join("order.v2.avsc")).unwrap();
    let bytes = changed(|schema| schema["fields"][23]["type"] = json!("bytes"));
    let bytes = bytes.replace("\"default\":\"{}\"", "\"default\":\"\"");
    fs::write(folder.path().join("audit_event.v2.avsc"), bytes).unwrap();
    let (_, stdout, _) = run(folder.path(), &["check", "--offline", "audit_event.v2.avsc"]);
    assert!(!stdout.contains("JSON_"), "{stdout}");
}

/// A copy of what `new-version` looks at.
fn copy() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for folder in ["schemas/avro", "store/migrations"] {
        fs::create_dir_all(copy.path().join(folder)).unwrap();
        for entry in fs::read_dir(checkout().join(folder)).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, copy.path().join(folder).join(from.file_name().unwrap())).unwrap();
        }
    }
    copy
}

const ZONE: [&str; 9] =
    ["new-version", "--field", "zone", "--type", "string", "--default", "it's \"eu\"", "--doc", "The customer's zone."];

#[test]
fn a_new_version_is_one_line_more_and_its_column() {
    let copy = copy();
    let listed = |folder: &str| fs::read_dir(copy.path().join(folder)).unwrap().count();
    let before = (listed("schemas/avro"), listed("store/migrations"));
    let (code, stdout, stderr) = run(copy.path(), &[&ZONE[..], &["--dry-run"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("would write schemas/avro/audit_event.v2.avsc"), "{stdout}");
    assert_eq!((listed("schemas/avro"), listed("store/migrations")), before, "a dry run writes nothing");
    let golden = copy.path().join("schemas/golden/v2");
    let said = |stdout: &str, word: &str| {
        let files = stdout.lines().filter(|line| line.starts_with(word) && line.contains("schemas/golden/v2/")).count();
        assert_eq!(files, 3 * 7, "six events and one with the field, in three files each: {stdout}");
    };
    said(&stdout, "would write ");
    assert!(!golden.exists());

    let (code, stdout, stderr) = run(copy.path(), &ZONE);
    assert_eq!(code, 0, "{stderr}");
    let v2 = fs::read_to_string(copy.path().join("schemas/avro/audit_event.v2.avsc")).unwrap();
    let line = r#"    {"name": "zone", "type": "string", "default": "it's \"eu\"", "doc": "The customer's zone."}"#;
    let rest: Vec<_> = v2.lines().filter(|text| *text != line).collect();
    let old: Vec<_> = V1.lines().collect();
    assert_eq!(rest.len(), old.len(), "one line more: {v2}");
    assert_eq!(rest.iter().zip(&old).filter(|(new, old)| new != old).count(), 1, "one line changed, by a comma");
    let migrations: Vec<_> = fs::read_dir(copy.path().join("store/migrations")).unwrap().collect();
    let name = migrations.into_iter().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = name.into_iter().find(|name| name.ends_with("_event_zone.sql")).unwrap();
    let sql = fs::read_to_string(copy.path().join("store/migrations").join(&name)).unwrap();
    assert_eq!(
        sql.lines().skip(1).collect::<Vec<_>>(),
        [
            "ALTER TABLE {database}.events",
            r#"    ADD COLUMN IF NOT EXISTS zone String DEFAULT 'it\'s "eu"' COMMENT 'The customer\'s zone' CODEC(ZSTD(1));"#,
        ]
    );
    for step in [
        "store/src/columns.rs",
        "schemas/src/event.rs",
        "schemas/tests/golden.rs",
        "auditstream migrate, then the workers",
        &name,
    ] {
        assert!(stdout.contains(step), "{step} is missing in {stdout}");
    }
    said(&stdout, "wrote ");
    assert_eq!(fs::read_dir(&golden).unwrap().count(), 21);
    golden_files_are_read(&golden, &v2, |name| match name {
        "with_zone" => json!("golden \u{e9} \"text\""),
        _ => json!("it's \"eu\""),
    });
    // What was made passes the gate, and a second field goes on top of it.
    let (code, stdout, _) = run(copy.path(), &["check", "--offline", "schemas/avro"]);
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("audit_event.v2.avsc: may be released"), "{stdout}");
    let (code, _, stderr) = run(copy.path(), &["new-version", "--field", "note", "--type", r#"["null","string"]"#]);
    assert_eq!(code, 0, "{stderr}");
    let v3 = fs::read_to_string(copy.path().join("schemas/avro/audit_event.v3.avsc")).unwrap();
    assert!(
        v3.contains("\"zone\"") && v3.contains(r#"{"name": "note", "type": ["null","string"], "default": null}"#),
        "{v3}"
    );
    assert_eq!(run(copy.path(), &["check", "--offline", "schemas/avro"]).0, 0);
}

/// They are the events of v1, with the field behind the others.
fn golden_files_are_read(folder: &Path, schema: &str, zone: impl Fn(&str) -> Json) {
    let mut schemas = Schemas::builtin().unwrap();
    for id in [split(&fs::read(folder.join("minimal.single.bin")).unwrap()).unwrap().0, WriterId::Confluent(258)] {
        schemas.add(id, schema).unwrap();
    }
    for golden in GOLDEN_FILES.iter().map(|golden| (golden.name, golden)).chain([("with_zone", &GOLDEN_FILES[0])]) {
        let (name, of_v1) = golden;
        let event = decode(&schemas, of_v1.single).unwrap();
        for ending in ["single.bin", "confluent.bin"] {
            let bytes = fs::read(folder.join(format!("{name}.{ending}"))).unwrap();
            assert_eq!(decode(&schemas, &bytes).unwrap(), event, "{name}.{ending}");
            let (_, body) = split(&bytes).unwrap();
            let (_, body_of_v1) = split(of_v1.single).unwrap();
            assert!(body.starts_with(body_of_v1) && body.len() > body_of_v1.len(), "the field is behind: {name}");
            let text = zone(name);
            let text = text.as_str().unwrap();
            assert_eq!(&body[body_of_v1.len()..], [&[text.len() as u8 * 2], text.as_bytes()].concat(), "{name}");
        }
        let mut json: Json = serde_json::from_slice(&fs::read(folder.join(format!("{name}.json"))).unwrap()).unwrap();
        assert_eq!(json.as_object_mut().unwrap().remove("zone"), Some(zone(name)), "{name}");
        assert_eq!(json, serde_json::from_str::<Json>(of_v1.json).unwrap(), "{name}");
    }
}

#[test]
fn each_type_has_its_column() {
    let copy = copy();
    for (kind, default, column) in [
        ("boolean", "true", "Bool DEFAULT true COMMENT 'x';"),
        ("int", "-1", "Int32 DEFAULT -1 COMMENT 'x' CODEC(T64, LZ4);"),
        ("long", "0", "Int64 COMMENT 'x' CODEC(T64, LZ4);"),
        ("double", "0.5", "Float64 DEFAULT 0.5 COMMENT 'x';"),
        ("timestamp-micros", "0", "DateTime64(6, 'UTC') COMMENT 'x' CODEC(T64, LZ4);"),
        ("date", "0", "Date32 COMMENT 'x' CODEC(T64, LZ4);"),
        (
            r#"{"type":"enum","name":"Risk","symbols":["LOW","HIGH"],"default":"LOW"}"#,
            "LOW",
            "LowCardinality(String) DEFAULT 'LOW' COMMENT 'x';",
        ),
        (r#"{"type":"array","items":"string"}"#, "[]", "Array(String) COMMENT 'x' CODEC(ZSTD(1));"),
        (
            r#"{"type":"array","items":"string"}"#,
            r#"["a","it's"]"#,
            r"Array(String) DEFAULT ['a', 'it\'s'] COMMENT 'x' CODEC(ZSTD(1));",
        ),
        // A bare number would be taken for seconds.
        (
            "timestamp-micros",
            "1700000000123456",
            "DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(toInt64(1700000000123456), 'UTC') COMMENT 'x' CODEC(T64, LZ4);",
        ),
        (
            "timestamp-millis",
            "-1",
            "DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(toInt64(-1), 'UTC') COMMENT 'x' CODEC(T64, LZ4);",
        ),
        ("date", "19000", "Date32 DEFAULT 19000 COMMENT 'x' CODEC(T64, LZ4);"),
    ] {
        let args = ["new-version", "--field", "x", "--type", kind, "--default", default, "--dry-run"];
        let (code, stdout, stderr) = run(copy.path(), &args);
        assert_eq!(code, 0, "{kind}: {stderr}");
        assert!(stdout.contains(&format!("ADD COLUMN IF NOT EXISTS x {column}")), "{kind}: {stdout}");
    }
}

#[test]
fn what_would_be_incompatible_is_refused() {
    let copy = copy();
    let field = |name, kind, default: Option<&'static str>| (name, kind, default);
    for ((name, kind, default), says) in [
        (field("zone", "string", None), "--default is missing: a reader of the new version must know"),
        (field("ip", "string", Some("")), "--field ip: the schema has a field of that name or alias"),
        (field("content_hash", "string", Some("")), "--field content_hash: the table events has a column of that name"),
        (field("Zone", "string", Some("")), "--field Zone: a name is of lower case letters"),
        (field("a-b", "string", Some("")), "--field a-b: a name is of lower case letters"),
        (field("_x", "string", Some("")), "--field _x: a name is of lower case letters"),
        (field("zone", "text", Some("")), "--type text: expected string, boolean"),
        (field("zone", "[\"null\"", Some("")), "it begins as JSON and is none"),
        (field("zone", "date", Some("120530")), "--default 120530: column zone of type Date32 holds"),
        (
            field("zone", "timestamp-millis", Some("-2208988800001")),
            "--default -2208988800001: column zone of type DateTime64(3, 'UTC') holds",
        ),
        (
            field("zone", "timestamp-micros", Some("10413792000000000")),
            "--default 10413792000000000: column zone of type DateTime64(6, 'UTC') holds",
        ),
        (field("zone", "int", Some("many")), "--default: the text is no value of type \"int\""),
        (field("zone", "int", Some("3000000000")), "--default: the text is no value of type \"int\""),
        (
            field("zone", r#"["null","string"]"#, Some("eu")),
            "--default: the text is no value of type \"null\" (the first branch)",
        ),
        (field("zone", r#"["null","long"]"#, None), "there is no column type for it"),
        (field("zone", "bytes", Some("")), "there is no column type for it"),
        (field("zone", r#"{"type":"enum","name":"Outcome","symbols":["A"]}"#, Some("A")), "error: "),
    ] {
        let mut args = vec!["new-version", "--field", name, "--type", kind];
        args.extend(default.iter().flat_map(|default| ["--default", default]));
        let (code, stdout, stderr) = run(copy.path(), &args);
        assert_eq!((code, stdout.as_str()), (1, ""), "{args:?}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
    assert_eq!(fs::read_dir(copy.path().join("schemas/avro")).unwrap().count(), 1, "nothing was written");
    let (code, _, stderr) = run(Path::new("/"), &["new-version", "--field", "x", "--type", "int", "--default", "0"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("is no checkout of auditstream"), "{stderr}");
}
