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
fn decoded(from: u64, n: u64, months: u64) -> Vec<Decoded> {
    let mut d = BatchDecoder::new(Arc::new(Schemas::builtin().unwrap()));
    for i in from..from + n {
        let mut b = AuditEvent::builder(format!("t{}", i % 7), "svc", "order.update", "order", format!("e{i}")).occurred_at(Timestamp::from_micros(1_600_000_000_000_000 + ((i % months) * 2_700_000_000_000 + i) as i64));
        if i % 3 == 0 { b = b.ip("1.2.3.4").error_message("boom").outcome(Outcome::Failure).operation(Operation::Delete); }
        let e = b.build().unwrap();
        let mut v = vec![]; encode(&e, Framing::SingleObject, &mut v); d.push(&v, Position { partition: 1, offset: i as i64, timestamp_ms: i as i64 }).unwrap(); }
    d.finish().unwrap()
}
#[tokio::main]
async fn main() {
    let s = Store::new(&Config { url: std::env::var("URL").unwrap(), database: "blocks".into(), user: "audit_admin".into(), password: "adm".into(), insert_timeout: Duration::from_secs(60), query_timeout: Duration::from_secs(5) }).unwrap();
    sql("DROP DATABASE IF EXISTS blocks");
    s.migrate(&MigrateOptions { roles: false, ..Default::default() }).await.unwrap();
    sql("SYSTEM STOP MERGES blocks.events");
    let parts = || sql("select count(), sum(rows), uniqExact(partition) from system.parts where active and database='blocks' and table='events'");
    let b = event_body(&decoded(0, 500_000, 1), "t").unwrap();
    println!("500k: {:?} size {} chunks {} parts {}", s.insert_events(&b, "a").await, b.size(), b.chunks().len(), parts());
    sql("TRUNCATE TABLE blocks.events");
    let b = event_body(&decoded(0, 500_000, 300), "t").unwrap();
    println!("500k over 300 months: {:?} parts {}", s.insert_events(&b, "b").await, parts());
    println!("again: {:?} parts {}", s.insert_events(&b, "b").await, parts());
    println!("other token: {:?} parts {}", s.insert_events(&b, "b2").await, parts());
    sql("TRUNCATE TABLE blocks.events");
    let mut many = vec![]; for i in 0..50u64 { many.extend(decoded(i * 10_000, 10_000, 2)); }
    let b = event_body(&many, "t").unwrap();
    println!("50 batches of 10k: {:?} parts {}", s.insert_events(&b, "c").await, parts());
    println!("again: {:?} parts {}", s.insert_events(&b, "c").await, parts());
    println!("check: {}", sql("select countIf(ip='1.2.3.4'), countIf(error_message='boom'), countIf(outcome='FAILURE'), countIf(operation='DELETE'), countIf(outcome='SUCCESS'), count(), groupUniqArray(operation), groupUniqArray(actor_kind), groupUniqArray(http_method), uniq(tenant_id) from blocks.events"));
    println!("null map: {}", sql("select groupUniqArray(on_behalf_of), groupUniqArray(ip), sum(_offset) from blocks.events"));
    // cut a batch: slices through the wire
    println!("empty: {:?}", s.insert_events(&event_body(&[], "t").unwrap(), "e").await);
    sql("TRUNCATE TABLE blocks.events"); sql("ALTER TABLE blocks.events ADD CONSTRAINT c CHECK entity_id NOT IN ('e17', 'e123456', 'e399999')");
    let b = event_body(&decoded(0, 200_000, 2).into_iter().chain(decoded(200_000, 200_000, 2)).collect::<Vec<_>>(), "t").unwrap();
    let t = std::time::Instant::now();
    println!("refused whole: {:?}", s.insert_events(&b, "bis").await.map_err(|e| (e.class, e.message)));
    println!("bisect: {:?} {:?} {}", s.insert_all_but_refused(&b, "bis").await, t.elapsed(), sql("select count(), uniqExact(_offset), sum(_offset) from blocks.events"));
    println!("again: {:?} {}", s.insert_all_but_refused(&b, "bis").await.map(|r| r.len()), sql("select count(), uniqExact(_offset), sum(_offset) from blocks.events"));
}
