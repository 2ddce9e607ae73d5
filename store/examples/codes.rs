//! scratch
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, clippy::large_futures)]
use auditstream_schemas::*;
use auditstream_store::*;
use std::sync::Arc;
use std::time::Duration;

fn sql(q: &str) -> String {
    let o = std::process::Command::new("curl").args(["-sS", &format!("{}/?user=audit_admin&password=adm", std::env::var("URL").unwrap()), "--data-binary", q]).output().unwrap();
    String::from_utf8_lossy(&o.stdout).trim().to_owned()
}
fn ev(i: u64, micros: i64) -> AuditEvent {
    AuditEvent::builder("t", "svc", "order.update", "order", format!("e{i}")).occurred_at(Timestamp::from_micros(micros)).change("/a", None, Some("1")).change("/b", Some("2"), None).build().unwrap()
}
fn body(evs: &[AuditEvent], ts: i64) -> EventBody {
    let mut d = BatchDecoder::new(Arc::new(Schemas::builtin().unwrap()));
    for (i, e) in evs.iter().enumerate() { let mut v = vec![]; encode(e, Framing::SingleObject, &mut v); d.push(&v, Position { partition: 1, offset: i as i64, timestamp_ms: ts }).unwrap(); }
    event_body(&d.finish().unwrap(), "audit.events").unwrap()
}
fn store(user: &str, pw: &str, secs: u64) -> Store { Store::new(&Config { url: std::env::var("URL").unwrap(), database: "codes".into(), user: user.into(), password: pw.into(), insert_timeout: Duration::from_secs(secs), query_timeout: Duration::from_secs(5) }).unwrap() }

#[tokio::main]
async fn main() {
    sql("DROP DATABASE IF EXISTS codes");
    let s = store("audit_admin", "adm", 10);
    s.migrate(&MigrateOptions { roles: false, ..Default::default() }).await.unwrap();
    let evs: Vec<_> = (0..3).map(|i| ev(i, 1_790_000_000_000_000 + i as i64)).collect();
    let b = body(&evs, 1_790_000_000_000);
    println!("ok: {:?}", s.insert_events(&b, "t1").await);
    println!("again same token: {:?} rows {}", s.insert_events(&b, "t1").await, sql("select count() from codes.events"));
    println!("other token: {:?} rows {} final {}", s.insert_events(&b, "t2").await, sql("select count() from codes.events"), sql("select count() from codes.events final"));
    println!("uuid {} = {}", evs[0].event_id, sql("select event_id, hex(content_hash) from codes.events where entity_id='e0' limit 1"));
    println!("hash {:02x?}", content_hash_of(&evs[0]));
    println!("changes {}", sql("select `changes.path`, `changes.old`, `changes.new`, changes from codes.events limit 1"));
    // times
    for us in [-2_208_988_800_000_000i64, -1, 0, 4_102_444_800_000_000, 10_413_791_999_999_999] {
        let b = body(&[ev(9, us)], 0);
        println!("time {us}: {:?} {}", s.insert_events(&b, &format!("time{us}")).await, sql("select occurred_at, toUnixTimestamp64Micro(occurred_at), toYYYYMM(occurred_at), _partition_id from codes.events where entity_id='e9'"));
        sql("TRUNCATE TABLE codes.events");
    }
    for ts in [-1i64, i64::MAX, i64::MIN, 253_402_300_799_999, 10_413_791_999_999, 10_413_792_000_000, -2_208_988_800_001] {
        let b = body(&[ev(9, 0)], ts);
        println!("ts {ts}: {:?} {}", s.insert_events(&b, &format!("ts{ts}")).await, sql("select received_at, toUnixTimestamp64Milli(received_at), version from codes.events where entity_id='e9'"));
        sql("TRUNCATE TABLE codes.events");
    }
    println!("--- shape");
    for (what, ddl) in [
        ("drop column", "ALTER TABLE codes.events DROP COLUMN ip"),
        ("retype to number", "ALTER TABLE codes.events MODIFY COLUMN service UInt64"),
        ("retype to fixed", "ALTER TABLE codes.events MODIFY COLUMN details FixedString(1)"),
        ("retype to date", "ALTER TABLE codes.events MODIFY COLUMN ip DateTime"),
        ("retype int8", "ALTER TABLE codes.events MODIFY COLUMN _offset UUID"),
        ("array to string", "ALTER TABLE codes.events MODIFY COLUMN `changes.path` Array(Int64)"),
        ("constraint", "ALTER TABLE codes.events ADD CONSTRAINT c CHECK length(entity_id) > 10"),
        ("extra column", "ALTER TABLE codes.events ADD COLUMN zzz String DEFAULT 'x'"),
        ("rename table", "RENAME TABLE codes.events TO codes.events2"),
        ("drop db", "DROP DATABASE codes"),
    ] {
        sql("DROP DATABASE IF EXISTS codes"); s.migrate(&MigrateOptions { roles: false, ..Default::default() }).await.unwrap();
        println!("{what}: ddl {:?} -> {:?}", sql(ddl), s.insert_events(&b, "x").await.map_err(|e| (e.class, e.code, e.message)));
    }
    sql("DROP DATABASE IF EXISTS codes"); s.migrate(&MigrateOptions { roles: false, ..Default::default() }).await.unwrap();
    println!("--- users");
    println!("bad pw: {:?}", store("audit_admin", "x", 5).insert_events(&b, "x").await);
    println!("no user: {:?}", store("nobody", "x", 5).ping().await);
    println!("no grant: {:?}", store("audit_ingest", "ing", 5).insert_events(&b, "x").await);
    println!("analyst: {:?}", store("audit_analyst", "ana", 5).insert_events(&b, "x").await);
    println!("check as analyst: {:?}", store("audit_analyst", "ana", 5).check_tables().await.map_err(|e| e.to_string()));
    println!("--- parts/memory");
    sql("ALTER TABLE codes.events MODIFY SETTING parts_to_throw_insert=1, parts_to_delay_insert=1, max_delay_to_insert=1"); sql("SYSTEM STOP MERGES codes.events");
    s.insert_events(&b, "p1").await.ok(); s.insert_events(&b, "p2").await.ok();
    println!("too many parts: {:?}", s.insert_events(&b, "p3").await);
    println!("--- ledger, dead letters");
    let l = LedgerRow { topic: "audit.events".into(), partition: 1, first_offset: 0, last_offset: 2, rows: 3, dead_letters: 0, hash: b.hash, token: "t1".into(), worker: "w".into(), inserted_at_ms: 1_790_000_000_123 };
    println!("{:?} {:?}", s.insert_ledger(std::slice::from_ref(&l), "lt").await, s.insert_ledger(&[l], "lt").await);
    println!("{}", sql("select *, hex(hash) from codes.ledger format Vertical"));
    let d = DeadLetterRow { topic: "audit.events".into(), partition: 1, offset: 7, timestamp_ms: 5, key: vec![0, 255, b'k'], value: vec![0xC3, 0x28, 0], headers: vec![("a".into(), vec![0xff]), ("a".into(), vec![])], error_class: "decode".into(), error_code: "truncated".into(), error_message: "m".into(), schema: String::new(), worker: "w".into(), dlq_topic: "dlq".into(), dlq_partition: 0, dlq_offset: 3 };
    println!("{:?}", s.insert_dead_letters(&[d.clone(), DeadLetterRow { offset: 8, timestamp_ms: i64::MAX, ..d }], "dt").await);
    println!("{}", sql("select *, hex(key), hex(value), arrayMap(h -> (h.1, hex(h.2)), headers) from codes.dead_letters format Vertical"));
}
