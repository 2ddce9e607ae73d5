//! Two shards answer as one server does. `ON CLUSTER` and replication need Keeper, which the embedded server has not: each server gets its statements by
//! hand, with plain tables in place of replicated ones. What those are, the golden file of the migrations for a cluster says.

use std::time::Duration;

use auditstream_integration_tests::{ClickHouse, Fixture, Options, wait_until};
use auditstream_stack::{Role, Stack};
use auditstream_store::{MIGRATIONS, Target, statements_for};

const PATIENCE: Duration = Duration::from_secs(90);
const EVENTS: u64 = 3_000;
/// A database of the pool that no other test comes to, on both servers.
const SHARDED: &str = "audit_t190";

/// Asked of one server and of two: the same answer.
const QUESTIONS: &[&str] = &[
    "SELECT count() FROM events FINAL",
    "SELECT count(), uniqExact(event_id), sum(sipHash64(*)) FROM events FINAL",
    "SELECT tenant_id, action, outcome, count() FROM events FINAL GROUP BY ALL ORDER BY ALL",
    "SELECT toStartOfHour(occurred_at) AS hour, count() FROM events FINAL GROUP BY hour ORDER BY hour",
    "SELECT * FROM events FINAL ORDER BY tenant_id, entity_type, entity_id, occurred_at, event_id LIMIT 50",
    "SELECT entity_type, entity_id, count() AS n FROM events FINAL GROUP BY ALL ORDER BY n DESC, entity_type, entity_id LIMIT 20",
    "SELECT actor_id, count() AS n, max(occurred_at) FROM events FINAL GROUP BY actor_id ORDER BY n DESC, actor_id LIMIT 20",
    "SELECT event_id, uniqExact(content_hash) AS n FROM events FINAL GROUP BY event_id HAVING n > 1 ORDER BY event_id",
    "SELECT path, count() FROM events FINAL ARRAY JOIN `changes.path` AS path GROUP BY path ORDER BY path",
    "SELECT count() FROM events AS x FINAL WHERE event_id GLOBAL IN (SELECT event_id FROM events FINAL WHERE outcome != 'SUCCESS')",
    "SELECT topic, partition, min(first_offset), max(last_offset) FROM ledger FINAL GROUP BY ALL ORDER BY ALL",
    "SELECT topic, partition, offset, error_code FROM dead_letters FINAL ORDER BY ALL",
];

#[test]
fn two_shards_answer_as_one_server() {
    let fixture = Fixture::new(Options::own_servers("shards"));
    let second =
        Stack::start(auditstream_stack::Options::named(format!("test-shards-second-{}", std::process::id()))).unwrap();
    join(fixture.stack(), &second);
    let (user, password) = fixture.stack().credentials(Role::Admin);
    let on = |stack: &Stack, database: &str| ClickHouse::new(stack.clickhouse_url(), database, user, password);
    let servers = [on(fixture.stack(), SHARDED), on(&second, SHARDED)];
    for server in &servers {
        let make = ClickHouse::new(
            if std::ptr::eq(server, &servers[0]) { fixture.stack() } else { &second }.clickhouse_url(),
            "system",
            user,
            password,
        );
        make.run(&format!("CREATE DATABASE {SHARDED}"));
        for migration in MIGRATIONS {
            for (_, sql) in statements_for(MIGRATIONS, migration, &Target::cluster(SHARDED, "pair")).unwrap() {
                server.run(&alone(&sql));
            }
        }
    }

    let mut forgotten = fixture.admin_command(&["migrate"]);
    forgotten.env("AUDITSTREAM_CLICKHOUSE__DATABASE", SHARDED);
    let refused = fixture.run(forgotten, b"");
    assert!(refused.stderr.contains("run the migration with `--cluster pair`"), "{refused:?}");

    // Two groups read one topic: one stores on this server, the other on both.
    let sharded = [("AUDITSTREAM_CLICKHOUSE__DATABASE", SHARDED), ("AUDITSTREAM_CONSUMER__GROUP_ID", "shards-both")];
    let _workers = [fixture.worker(), fixture.worker_with(&sharded)];
    fixture.send(EVENTS);
    fixture.poison().send(Some(b"a/b/c"), Some(b"not an event"), &[]);
    fixture.wait_landed(PATIENCE);
    let both = &servers[0];
    let stored =
        || (both.number("SELECT count() FROM events FINAL"), both.number("SELECT count() FROM dead_letters FINAL"));
    wait_until("both shards to have everything", PATIENCE, || {
        if stored() == (EVENTS, 1) { Ok(()) } else { Err(format!("{:?}", stored())) }
    });
    fixture.verdict().assert_clean(EVENTS + 1, 1);

    // Everything once more, by another server and in another order: duplicates that must meet their first copies.
    servers[1].run("SYSTEM STOP MERGES events_local");
    both.run("SYSTEM STOP MERGES events_local");
    servers[1].run("INSERT INTO events SELECT * FROM events ORDER BY event_id SETTINGS distributed_foreground_insert = 1, insert_deduplicate = 0, parallel_distributed_insert_select = 0");
    let raw: Vec<_> = servers.iter().map(|server| server.number("SELECT count() FROM events_local")).collect();
    assert_eq!(raw.iter().sum::<u64>(), 2 * EVENTS, "each row twice: {raw:?}");
    assert!(raw.iter().all(|rows| *rows > EVENTS / 4), "both shards have their part: {raw:?}");
    let apart = "SELECT count() FROM (SELECT event_id FROM events GROUP BY event_id HAVING uniqExact(_shard_num) > 1)";
    assert_eq!(both.number(apart), 0, "a row and its duplicate are on different shards");
    let one = fixture.admin();
    for sql in QUESTIONS {
        let expected = one.text(sql);
        for server in &servers {
            assert_eq!(server.text(sql), expected, "{sql}");
        }
    }

    // An analyst's policies hold on both shards: those on each server's own tables, as whoever asked.
    let tenant = one.text("SELECT tenant_id FROM events GROUP BY tenant_id ORDER BY count() DESC LIMIT 1");
    let mut args = vec!["analyst", "add", "jo", "--users-file", "--password-file", "-", "--tenant"];
    args.push(&tenant);
    let mut command = fixture.command(&args);
    command.env("AUDITSTREAM_CLICKHOUSE__DATABASE", SHARDED);
    let printed = fixture.run(command, b"correct horse battery").success().stdout;
    let account = printed.split_once("<users>\n").unwrap().1.split_once("    </users>").unwrap().0;
    let filter = format!("<events><filter>tenant_id = '{tenant}'</filter></events>");
    assert!(account.contains(&filter), "{account}");
    let grant = format!("<query>GRANT SELECT ON {SHARDED}.events</query>");
    let account = account
        .replace(&filter, &format!("{filter}{}", filter.replace("events>", "events_local>")))
        .replace(&grant, &format!("{grant}{}", grant.replace(".events", ".events_local")));
    for stack in [fixture.stack(), &second] {
        let file = stack.dir().join("users.xml");
        let users = std::fs::read_to_string(&file).unwrap();
        let end = users.rfind("</users>").unwrap();
        std::fs::write(&file, format!("{}{account}{}", &users[..end], &users[end..])).unwrap();
        restart(stack);
    }
    let own = one.number(&format!("SELECT count() FROM events FINAL WHERE tenant_id = '{tenant}'"));
    assert!(own > 0 && own < EVENTS, "{own}");
    for stack in [fixture.stack(), &second] {
        let jo = ClickHouse::new(stack.clickhouse_url(), SHARDED, "jo", "correct horse battery");
        for sql in [
            "SELECT count() FROM events",
            "SELECT sum(n) FROM (SELECT tenant_id, count() AS n FROM events GROUP BY tenant_id)",
        ] {
            assert_eq!(jo.number(sql), own, "{sql}");
        }
    }
}

/// A statement of a cluster as each of its servers runs it, without Keeper.
fn alone(sql: &str) -> String {
    sql.replace(" ON CLUSTER 'pair'", "")
        .replace("ENGINE = Replicated", "ENGINE = ")
        .replace("'/clickhouse/tables/{uuid}/{shard}', '{replica}', ", "")
        .replace("'/clickhouse/tables/{uuid}/{shard}', '{replica}'", "")
        .replace(" replicated_deduplication_window", " non_replicated_deduplication_window")
}

/// Makes the two a cluster called `pair`, whose servers trust each other's word for who asks.
fn join(first: &Stack, second: &Stack) {
    let shard = |stack: &Stack| {
        format!(
            "<shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>{}</port></replica></shard>",
            stack.clickhouse_tcp_port()
        )
    };
    let cluster = format!(
        "<remote_servers><pair><secret>between us</secret>{}{}</pair></remote_servers></clickhouse>",
        shard(first),
        shard(second)
    );
    // The same users, with the first one's passwords, and with the rights on each server's own tables that the roles of a cluster have.
    let mut users = String::new();
    for line in std::fs::read_to_string(first.dir().join("users.xml")).unwrap().lines() {
        users.push_str(line);
        users.push('\n');
        if line.contains(&format!(" ON {SHARDED}.")) {
            users.push_str(&line.replace("</query>", "_local</query>"));
            users.push('\n');
        }
    }
    for stack in [first, second] {
        std::fs::write(stack.dir().join("users.xml"), &users).unwrap();
    }
    for stack in [first, second] {
        let file = stack.dir().join("clickhouse.xml");
        let config = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, config.replace("</clickhouse>", &cluster)).unwrap();
        restart(stack);
    }
}

fn restart(stack: &Stack) {
    stack.clickhouse().stop().unwrap();
    stack.clickhouse().start().unwrap();
}
