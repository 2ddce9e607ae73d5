//! Custom fields from a service's struct to an analyst's query: docs/custom-fields.md, each statement run.

use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options, RegistryAnswer, ScriptedRegistry, block_on};
use auditstream_producer::custom::{CustomFields, CustomFieldsError};
use auditstream_schemas::AuditEvent;
use auditstream_schemas::registry::{Registry, RegistryConfig, RegistryError};
use auditstream_stack::Role;
use serde::Serialize;

const PAGE: &str = include_str!("../../../docs/custom-fields.md");
const SUBJECT: &str = "order-details";

const SCHEMA: &str = r#"{"type":"record","name":"OrderDetails","namespace":"shop","fields":[
    {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":2}},
    {"name":"size","type":"long"},
    {"name":"paid_at","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"default":null},
    {"name":"due","type":{"type":"int","logicalType":"date"}},
    {"name":"state","type":{"type":"enum","name":"State","symbols":["OPEN","PAID"]}},
    {"name":"customer","type":{"type":"record","name":"Customer","fields":[
        {"name":"id","type":{"type":"string","logicalType":"uuid"}}]}},
    {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
        {"name":"sku","type":"string"},{"name":"count","type":"int"}]}}},
    {"name":"weight","type":["null","double"],"default":null},
    {"name":"fragile","type":"boolean"},
    {"name":"label","type":"bytes"},
    {"name":"tags","type":{"type":"map","values":"string"}},
    {"name":"method","type":["null","string","long"],"default":null}]}"#;

#[derive(Serialize)]
struct Order {
    amount: &'static str,
    size: i64,
    paid_at: Option<&'static str>,
    due: &'static str,
    state: &'static str,
    customer: Customer,
    lines: Vec<Line>,
    weight: Option<f64>,
    fragile: bool,
    label: Vec<u8>,
    tags: std::collections::BTreeMap<String, String>,
    method: Option<&'static str>,
}

#[derive(Serialize)]
struct Customer {
    id: uuid::Uuid,
}

#[derive(Serialize)]
struct Line {
    sku: &'static str,
    count: i32,
}

fn orders() -> [Order; 3] {
    let order = |number: u128, amount, state| Order {
        amount,
        size: 0,
        paid_at: None,
        due: "2026-12-24",
        state,
        customer: Customer { id: uuid::Uuid::from_u128(number) },
        lines: Vec::new(),
        weight: None,
        fragile: false,
        label: Vec::new(),
        tags: std::collections::BTreeMap::new(),
        method: None,
    };
    let lines = vec![Line { sku: "a", count: 2 }, Line { sku: "b", count: 3 }];
    [
        Order {
            size: 9_007_199_254_740_993,
            paid_at: Some("2026-11-21T21:35:48.123456+01:00"),
            lines,
            weight: Some(f64::NAN),
            fragile: true,
            label: vec![0, 255, b'x'],
            tags: [("colour".to_owned(), "red".to_owned())].into(),
            method: Some("card"),
            ..order(1, "12.30", "PAID")
        },
        Order { paid_at: Some("2026-11-20T00:00:00Z"), weight: Some(0.1), ..order(2, "1234567890123456.78", "PAID") },
        order(3, "-0.01", "OPEN"),
    ]
}

fn connect(registry: &ScriptedRegistry, may_register: bool, schema: &str) -> Result<CustomFields, CustomFieldsError> {
    let config = RegistryConfig {
        urls: vec![registry.url()],
        may_register,
        missing_for: Duration::ZERO,
        ..RegistryConfig::default()
    };
    block_on(CustomFields::connect(&Registry::new(&config).unwrap(), SUBJECT, schema))
}

/// Statements of the page with what they answer.
fn examples() -> Vec<(&'static str, &'static str)> {
    let blocks = PAGE.split("```sql\n").skip(1);
    let examples = blocks.map(|block| {
        let (sql, rest) = block.split_once("\n```\n```text\n").expect("an answer stands below each statement");
        (sql, rest.split_once("\n```").expect("a block ends").0)
    });
    examples.collect()
}

#[test]
fn a_services_own_fields_reach_the_analyst_with_their_types() {
    let fixture = Fixture::new(Options::heavy("custom-fields"));
    let registry = ScriptedRegistry::answering(RegistryAnswer::Missing);
    registry.registers_from(40);

    // At the start: what is not registered is refused, unless it may be registered; what the registry refuses is refused.
    let missing = connect(&registry, false, SCHEMA).unwrap_err();
    assert!(
        matches!(&missing, CustomFieldsError::Registry { source: RegistryError::NotFound { .. }, .. }),
        "{missing:?}"
    );
    assert!(matches!(connect(&registry, true, "\"int\""), Err(CustomFieldsError::Schema { .. })));
    let fields = connect(&registry, true, SCHEMA).unwrap();
    assert_eq!(fields.mark(), "order-details:1");
    assert_eq!(connect(&registry, false, SCHEMA).unwrap().mark(), "order-details:1", "found again");
    registry.refuse_versions();
    let other = SCHEMA.replace("\"size\"", "\"height\"");
    let refused = connect(&registry, true, &other).unwrap_err();
    assert!(
        matches!(&refused, CustomFieldsError::Registry { source: RegistryError::Refused { status: 409, .. }, .. }),
        "{refused:?}"
    );

    let recorder = fixture.recorder(fixture.producer_config("shop"));
    let mut sent = Vec::new();
    for (number, order) in orders().iter().enumerate() {
        let details = fields.details(order).unwrap();
        let event = AuditEvent::builder("acme", "shop", "order.create", "order", format!("o-{}", number + 1));
        recorder.record(event.details(details.clone()).build().unwrap());
        sent.push(details);
    }
    // An event of another service, which must not show.
    recorder.record(
        AuditEvent::builder("acme", "hr", "user.login", "user", "u").details(r#"{"amount":"7.00"}"#).build().unwrap(),
    );
    recorder.finish();
    let _worker = fixture.worker();
    fixture.wait_landed(Duration::from_secs(90));
    fixture.verdict().assert_clean(4, 0);
    // To the byte, and readable as what it was.
    let stored = fixture
        .admin()
        .text("SELECT entity_id, base64Encode(details) FROM events FINAL WHERE service = 'shop' ORDER BY entity_id");
    for (line, details) in stored.lines().zip(&sent) {
        let encoded = line.split_once('\t').unwrap().1;
        assert_eq!(fixture.admin().text(&format!("SELECT base64Decode('{encoded}') FORMAT RawBLOB")), *details);
        assert_eq!(
            fields.schema().details_of(fields.mark(), &fields.schema().read(details).unwrap()).unwrap(),
            *details
        );
    }

    let view = |args: &[&str]| {
        let mut command = fixture.admin_command(&[&["schema", "custom-view", SUBJECT], args].concat());
        command.env("AUDITSTREAM_SCHEMA__REGISTRY_URL", registry.url());
        fixture.run(command, b"").success().stdout
    };
    assert!(view(&[]).contains("CREATE OR REPLACE VIEW"));
    assert!(view(&["--create"]).contains("events_order_details is in place"));
    view(&["--create"]);
    // Nothing is lost: neither a table, with its rows, nor the view of another subject whose record has the same name.
    let refused = |args: &[&str]| {
        let args = [&["schema", "custom-view"], args, &["--create"]].concat();
        let mut command = fixture.admin_command(&args);
        command.env("AUDITSTREAM_SCHEMA__REGISTRY_URL", registry.url());
        let output = fixture.run(command, b"");
        assert_eq!(output.code(), Some(1), "{output:?}");
        output.stderr
    };
    assert!(refused(&[SUBJECT, "--view", "ledger"]).contains("ledger is a table of auditstream"));
    fixture.admin().run("CREATE TABLE kept (x Int32) ENGINE = Memory");
    fixture.admin().run("INSERT INTO kept VALUES (7)");
    assert!(refused(&[SUBJECT, "--view", "kept"]).contains("kept is there and is a table (engine Memory)"));
    assert_eq!(fixture.admin().text("SELECT x FROM kept"), "7");
    let file = std::env::temp_dir().join(format!("auditstream-order-{}.avsc", std::process::id()));
    std::fs::write(&file, SCHEMA.replace("\"shop\"", "\"b2b\"")).unwrap();
    let b2b = refused(&["b2b-details", "--file", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert!(
        b2b.contains("events_order_details is there and is another view, not a view of subject b2b-details"),
        "{b2b}"
    );
    let users = fixture.users();
    let grant = format!("<query>GRANT SELECT ON {}.events</query>", fixture.database());
    let more = format!("{grant}<query>GRANT SELECT ON {}.events_order_details</query>", fixture.database());
    users.set(|text| text.replace(&grant, &more));
    let analyst = fixture.clickhouse(Role::Analyst);
    let examples = examples();
    assert!(examples.len() >= 6, "the page has examples");
    for (sql, answer) in examples {
        let sql = sql.replace("audit.", &format!("{}.", fixture.database()));
        assert_eq!(analyst.text(&sql), answer, "{sql}");
    }
    // The types that the page has no example of.
    let rest = "SELECT `details.due`, `details.weight`, `details.fragile`, hex(`details.label`), `details.tags`['colour'], `details.method` \
                FROM events_order_details ORDER BY entity_id";
    let expected = "2026-12-24\tnan\ttrue\t00FF78\tred\t{\"string\":\"card\"}\n2026-12-24\t0.1\tfalse\t\t\t\\N\n2026-12-24\t\\N\tfalse\t\t\t\\N";
    assert_eq!(analyst.text(rest), expected);
    // A subject that only begins like this one, and bytes that are no base64.
    let copy = |entity: &str, details: &str| {
        fixture.admin().run(&format!(
            "INSERT INTO events SELECT * REPLACE ('{entity}' AS entity_id, '{details}' AS details) FROM events WHERE service = 'hr' LIMIT 1"
        ));
    };
    copy("eu", r#"{"$schema":"order-details:eu:1","amount":"7.00"}"#);
    copy("label", r#"{"$schema":"order-details:1","label":"?"}"#);
    let labels = "SELECT entity_id, length(`details.label`) FROM events_order_details WHERE entity_id NOT LIKE 'o-%'";
    assert_eq!(analyst.text(labels), "label\t0");
    assert!(analyst.try_text("INSERT INTO events_order_details (entity_id) VALUES ('x')").is_err());
}
