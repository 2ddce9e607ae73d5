//! scratch
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, clippy::large_futures)]
use auditstream_store::*;
use std::time::Duration;
#[tokio::main]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    if a[1] == "xml" { print!("{}", local_users_xml("audit")); return; }
    if a[1] == "sql" { for s in roles_sql("audit") { println!("{s}"); } return; }
    let store = Store::new(&Config { url: std::env::var("URL").unwrap(), database: std::env::var("DB").unwrap(), user: std::env::var("U").unwrap_or("audit_admin".into()), password: std::env::var("P").unwrap_or("adm".into()).into(), insert_timeout: Duration::from_secs(10), query_timeout: Duration::from_secs(10) }).unwrap();
    match &*a[1] {
        "migrate" => { let t = std::time::Instant::now(); match store.migrate(&MigrateOptions { lock_wait: Duration::from_secs(5), ..Default::default() }).await { Ok(r) => println!("{r:?}"), Err(e) => println!("ERR {e}") } println!("{:?}", t.elapsed()); }
        "check" => println!("{:?}", store.check_tables().await.map_err(|e| (e.is_passing(), e.to_string()))),
        "stats" => println!("{:?}\n{:?}\n{:?}", store.stats().await, store.ledger_gaps(Some("t")).await, store.ledger_totals(None).await),
        "ping" => println!("{:?}", store.ping().await),
        _ => {}
    }
}
