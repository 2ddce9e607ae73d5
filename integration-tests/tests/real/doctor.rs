//! `auditstream doctor`: says what is wrong and what mends it, on one server and on every replica of a cluster.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use auditstream_integration_tests::{ClickHouse, Fixture, Options, RegistryAnswer, ScriptedRegistry};
use auditstream_schemas::AUDIT_EVENT_V1;
use auditstream_stack::{Role, Stack};
use serde_json::Value as Json;

/// Check, what was found, what to do, statements.
type Found = (String, String, String, Vec<String>);

/// The exit code, and the findings that are not fine.
fn findings(fixture: &Fixture, mut command: Command) -> (Option<i32>, Vec<Found>) {
    command.arg("--json");
    let output = fixture.run(command, b"");
    let json: Json = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let bad = json["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] != "ok");
    let found = bad.map(|finding| {
        let ddl = finding["ddl"].as_array().unwrap().iter().map(text).collect();
        (text(&finding["check"]), text(&finding["found"]), text(&finding["remedy"]), ddl)
    });
    (output.code(), found.collect())
}

/// The URL of a ClickHouse that refuses every query but `SELECT 1`. It ends with the process.
fn answering_pings_only() -> String {
    const REFUSAL: &str = "Code: 241. DB::Exception: no memory (MEMORY_LIMIT_EXCEEDED)";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let (mut request, mut buffer) = (String::new(), [0; 4096]);
            // Each query of ours ends in its own body, chunked or of a given length.
            let ended = |request: &str| {
                let (head, body) = request.split_once("\r\n\r\n")?;
                let length =
                    head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                (length.map_or(body.ends_with("0\r\n\r\n"), |length: usize| body.len() >= length))
                    .then(|| body.contains("SELECT 1"))
            };
            let is_ping = loop {
                match socket.read(&mut buffer) {
                    Ok(read) if read > 0 => request.push_str(&String::from_utf8_lossy(&buffer[..read])),
                    _ => break None,
                }
                if let Some(is_ping) = ended(&request) {
                    break Some(is_ping);
                }
            };
            let answer = match is_ping {
                Some(true) => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
                _ => format!(
                    "HTTP/1.1 500 Internal Server Error\r\nX-ClickHouse-Exception-Code: 241\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{REFUSAL}",
                    REFUSAL.len()
                ),
            };
            let _ = socket.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn each_thing_that_is_wrong_is_told_with_what_mends_it() {
    let fixture = Fixture::new(Options::light("doctor").bare());
    let doctor = || fixture.admin_command(&["doctor"]);
    // Nothing is there yet.
    let (code, found) = findings(&fixture, doctor());
    assert_eq!(code, Some(1));
    let remedy = |check: &str| {
        found.iter().find(|finding| finding.0 == check).unwrap_or_else(|| panic!("{check}: {found:?}")).2.clone()
    };
    assert_eq!(
        [remedy("migrations"), remedy("tables"), remedy("kafka")],
        ["auditstream migrate", "auditstream migrate", "auditstream topics create"]
    );
    fixture.run(fixture.admin_command(&["migrate"]), b"").success();
    fixture.cli(&["topics", "create", "--partitions", "3"]).success();
    let well = fixture.run(doctor(), b"").success();
    assert!(well.stdout.contains("ok    kafka: topic doctor: 3 partitions, 1 replicas"), "{well:?}");
    assert!(well.stdout.ends_with("nothing is wrong\n"), "{well:?}");

    // Columns: two tables, one missing and one retyped, seen by the workers' user too. The statements, as they stand, mend them.
    fixture.admin().run("ALTER TABLE events DROP COLUMN user_agent");
    fixture.admin().run("ALTER TABLE dead_letters MODIFY COLUMN attempts UInt8");
    let (code, found) = findings(&fixture, fixture.command(&["doctor"]));
    assert_eq!(code, Some(1));
    let wrong: Vec<_> = found.iter().filter(|finding| finding.0 == "tables").collect();
    assert_eq!(wrong.len(), 2, "{found:?}");
    assert!(wrong[0].1.contains("column user_agent is missing"), "{found:?}");
    assert!(wrong[1].1.contains("column attempts is UInt8, expected UInt32"), "{found:?}");
    wrong.iter().flat_map(|finding| &finding.3).for_each(|statement| fixture.admin().run(statement));
    fixture.run(doctor(), b"").success();

    // What can't be asked is said, and the rest is looked at all the same.
    let registry = ScriptedRegistry::answering(RegistryAnswer::Missing);
    let with_registry = |url: &str| {
        let mut command = doctor();
        command.env("AUDITSTREAM_SCHEMA__REGISTRY_URL", url).env("AUDITSTREAM_SCHEMA__REGISTRY_TIMEOUT_MS", "1000");
        command
    };
    let (code, found) = findings(&fixture, with_registry(&registry.url()));
    assert_eq!((code, found.len()), (Some(0), 1), "{found:?}");
    assert!(found[0].1.contains("has not got the event's schema under subject doctor-value"), "{found:?}");
    registry.has("doctor-value", &[AUDIT_EVENT_V1]);
    assert_eq!(findings(&fixture, with_registry(&registry.url())), (Some(0), vec![]));
    let mut away = with_registry(&ScriptedRegistry::closed().url());
    away.env("AUDITSTREAM_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9")
        .env("AUDITSTREAM_CLICKHOUSE__URL", "http://127.0.0.1:9");
    let (code, found) = findings(&fixture, away);
    let checks: Vec<_> = found.iter().map(|finding| &*finding.0).collect();
    assert_eq!((code, checks), (Some(1), vec!["clickhouse", "kafka", "registry"]), "{found:?}");
    for ((_, _, remedy, _), key) in
        found.iter().zip(["clickhouse.url", "kafka.bootstrap_servers", "schema.registry_url"])
    {
        assert!(remedy.contains(key), "{remedy}");
    }
    // ClickHouse answers, and not what is asked: that is no reason to say that the tables are well.
    let mut no_memory = doctor();
    no_memory.env("AUDITSTREAM_CLICKHOUSE__URL", answering_pings_only());
    let (code, found) = findings(&fixture, no_memory);
    let checks: Vec<_> = found.iter().map(|finding| &*finding.0).collect();
    assert_eq!((code, checks), (Some(1), vec!["migrations", "tables", "replicas", "pause"]), "{found:?}");
    assert!(found.iter().all(|finding| finding.1.contains("MEMORY_LIMIT_EXCEEDED")), "{found:?}");
    let mut wrong_password = doctor();
    wrong_password.env("AUDITSTREAM_CLICKHOUSE__PASSWORD", "hunter2");
    let (_, found) = findings(&fixture, wrong_password);
    assert!(
        found[0].1.contains("Authentication failed") && found[0].2.contains("clickhouse.password_file"),
        "{found:?}"
    );
}

/// A cluster of two servers, one replica each, in the configuration of the first, which is named twice: that counts once.
fn cluster(first: &Stack, second: &Stack) -> String {
    let shard = |stack: &Stack, port: u16| {
        let (user, password) = stack.credentials(Role::Admin);
        format!(
            "<shard><replica><host>127.0.0.1</host><port>{port}</port><user>{user}</user><password>{password}</password></replica></shard>"
        )
    };
    format!(
        "<remote_servers><pair>{one}{one}{}</pair></remote_servers><macros><facade>pair</facade></macros></clickhouse>",
        shard(second, second.clickhouse_tcp_port()),
        one = shard(first, first.clickhouse_tcp_port())
    )
}

#[test]
fn a_replica_that_lacks_a_column_is_named_with_the_statement() {
    let fixture = Fixture::new(Options::own_servers("doctor-cluster"));
    let second =
        Stack::start(auditstream_stack::Options::named(format!("test-doctor-second-{}", std::process::id()))).unwrap();
    let file = fixture.stack().dir().join("clickhouse.xml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace("</clickhouse>", &cluster(fixture.stack(), &second))).unwrap();
    fixture.stack().clickhouse().stop().unwrap();
    fixture.stack().clickhouse().start().unwrap();
    let (user, password) = second.credentials(Role::Admin);
    let other = ClickHouse::new(second.clickhouse_url(), fixture.database(), user, password);
    let address = format!("127.0.0.1:{}", second.clickhouse_tcp_port());
    let doctor = || fixture.admin_command(&["doctor", "--cluster", "pair"]);

    let (code, found) = findings(&fixture, doctor());
    assert_eq!(code, Some(1));
    assert!(
        found.iter().any(|(check, what, ..)| check == "replicas" && what.starts_with(&format!("on {address}: table"))),
        "{found:?}"
    );
    // The same program makes the tables there.
    let mut migrate = fixture.command(&["migrate"]);
    migrate.env("AUDITSTREAM_CLICKHOUSE__URL", second.clickhouse_url());
    migrate.env("AUDITSTREAM_CLICKHOUSE__USER", user).env("AUDITSTREAM_CLICKHOUSE__PASSWORD", password);
    fixture.run(migrate, b"").success();
    assert_eq!(findings(&fixture, doctor()), (Some(0), vec![]));

    other.run("ALTER TABLE events DROP COLUMN http_path");
    let (code, found) = findings(&fixture, doctor());
    assert_eq!((code, found.len()), (Some(1), 1), "{found:?}");
    let (check, what, remedy, ddl) = &found[0];
    assert_eq!(check, "replicas");
    assert!(what.contains(&address) && what.contains("column http_path is missing"), "{what}");
    assert!(remedy.contains(&address), "{remedy}");
    ddl.iter().for_each(|statement| other.run(statement));
    // A Distributed table says by itself which cluster to look at, by a macro too, and which table has the rows. The other server has no such table
    // yet: its `events` is not what counts.
    fixture.admin().run("RENAME TABLE events TO events_local");
    fixture
        .admin()
        .run("CREATE TABLE events AS events_local ENGINE = Distributed('{facade}', currentDatabase(), 'events_local')");
    let (code, found) = findings(&fixture, fixture.admin_command(&["doctor"]));
    assert_eq!((code, found.len()), (Some(1), 1), "{found:?}");
    let local = format!("{}.events_local", fixture.database());
    assert!(found[0].1.starts_with(&format!("on {address}: table {local} does not exist")), "{found:?}");
    assert!(found[0].2.contains(&format!("SHOW CREATE TABLE {local}")), "{found:?}");
    other.run("RENAME TABLE events TO events_local");
    other.run("CREATE TABLE events AS events_local ENGINE = Memory");
    let known = fixture.run(fixture.admin_command(&["doctor"]), b"").success();
    assert!(
        known.stdout.contains(&format!("ok    replicas: {address} of cluster pair holds every column")),
        "{known:?}"
    );
    other.run("ALTER TABLE events_local DROP COLUMN http_path");
    let (code, found) = findings(&fixture, fixture.admin_command(&["doctor"]));
    assert_eq!((code, found.len()), (Some(1), 1), "{found:?}");
    let (check, what, remedy, ddl) = &found[0];
    assert_eq!(check, "replicas");
    assert!(what.contains(&local) && what.contains("column http_path is missing"), "{what}");
    assert!(remedy.contains(&address), "{remedy}");
    ddl.iter().for_each(|statement| other.run(statement));
    assert_eq!(findings(&fixture, fixture.admin_command(&["doctor"])), (Some(0), vec![]));

    second.clickhouse().kill().unwrap();
    let (code, found) = findings(&fixture, doctor());
    assert_eq!(code, Some(1));
    assert!(
        found.iter().any(|(_, what, ..)| what.starts_with(&format!("{address} of cluster pair can't be reached"))),
        "{found:?}"
    );
    let (code, found) = findings(&fixture, fixture.admin_command(&["doctor", "--cluster", "nowhere"]));
    assert_eq!(code, Some(1));
    assert!(found.iter().any(|(_, what, ..)| what == "ClickHouse knows no cluster nowhere"), "{found:?}");
}
