//! scratch
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, clippy::large_futures)]
use auditstream_schemas::*;
use auditstream_store::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

fn event(r: &mut Rng, i: u64) -> AuditEvent {
    let tenants = 200;
    let tenant = r.below(tenants);
    let (et, act) = [
        ("order", "order.update"),
        ("invoice", "invoice.create"),
        ("customer", "customer.update"),
        ("user", "login"),
        ("shipment", "shipment.update"),
    ][r.below(5) as usize];
    let user = r.below(5000);
    let t = 1_790_000_000_000_000i64 + (i as i64) * 50;
    let mut b = AuditEvent::builder(
        format!("tenant-{tenant}"),
        "order-service",
        act,
        et,
        format!("{}", 10_000_000 + r.below(100_000)),
    );
    b = b
        .occurred_at(Timestamp::from_micros(t))
        .environment("production")
        .operation(Operation::Update)
        .actor(Actor {
            kind: ActorKind::User,
            id: Some(format!("u-{user}")),
            name: None,
            email: Some(format!("user{user}@example.com")),
            session_id: None,
        })
        .change("/status", Some("\"open\""), Some("\"paid\""))
        .ip(format!("10.{}.{}.{}", r.below(4), r.below(256), r.below(256)))
        .request_id(format!("{:016x}", r.next()))
        .trace_id(format!("{:016x}{:016x}", r.next(), r.next()))
        .http_method("PUT")
        .http_path(format!("/api/v1/{et}s/{}", r.below(100_000)))
        .details(format!("{{\"amount\":{},\"currency\":\"EUR\"}}", r.below(100_000)))
        .producer(ProducerStamp { id: format!("order-service-{}", r.below(4)), epoch: 1_790_000_000, seq: i as i64 });
    b.build().unwrap()
}

fn bodies(n: usize, rows: usize) -> Vec<EventBody> {
    let mut r = Rng(0x1234_5678_9abc_def1);
    let schemas = Arc::new(Schemas::builtin().unwrap());
    let mut d = BatchDecoder::new(schemas);
    let (mut wire, mut dec, mut fin, mut enc) = (0usize, Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut out = vec![];
    let mut i = 0u64;
    for _ in 0..n {
        let recs: Vec<Vec<u8>> = (0..rows)
            .map(|_| {
                i += 1;
                let mut v = vec![];
                encode(&event(&mut r, i), Framing::SingleObject, &mut v);
                v
            })
            .collect();
        wire += recs.iter().map(Vec::len).sum::<usize>();
        let t = Instant::now();
        for (k, v) in recs.iter().enumerate() {
            let off = (i as i64) - rows as i64 + k as i64;
            d.push(
                v,
                Position { partition: (off % 6) as i32, offset: off / 6, timestamp_ms: 1_790_000_000_000 + off / 20 },
            )
            .unwrap();
        }
        dec += t.elapsed();
        let t = Instant::now();
        let decoded = d.finish().unwrap();
        fin += t.elapsed();
        let t = Instant::now();
        if std::env::var("HASH").is_ok() {
            for d in &decoded {
                std::hint::black_box(content_hash(&d.batch).unwrap());
            }
            println!("hash {:.3} s/M", t.elapsed().as_secs_f64() * 1e6 / rows as f64);
        }
        let t = Instant::now();
        let b = event_body(&decoded, "audit.events").unwrap();
        enc += t.elapsed();
        out.push(b);
    }
    let m = (n * rows) as f64 / 1e6;
    let bytes: usize = out.iter().map(|b| b.size()).sum();
    println!(
        "wire {:.1} B/event, arrow {:.1} B/event; push {:.3} s/M finish {:.3} s/M body {:.3} s/M",
        wire as f64 / m / 1e6,
        bytes as f64 / m / 1e6,
        dec.as_secs_f64() / m,
        fin.as_secs_f64() / m,
        enc.as_secs_f64() / m
    );
    out
}

fn cpu(pid: u32) -> f64 {
    let s = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let f: Vec<&str> = s.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::main]
async fn main() {
    let n: usize = std::env::var("N").map_or(10, |v| v.parse().unwrap());
    let rows: usize = std::env::var("ROWS").map_or(100_000, |v| v.parse().unwrap());
    let par: usize = std::env::var("PAR").map_or(1, |v| v.parse().unwrap());
    let pid: u32 = std::env::var("CHPID").unwrap().parse().unwrap();
    let store = Store::new(&Config {
        url: std::env::var("URL").unwrap(),
        database: std::env::var("DB").unwrap(),
        user: "audit_admin".into(),
        password: "adm".into(),
        insert_timeout: Duration::from_secs(60),
        query_timeout: Duration::from_secs(10),
    })
    .unwrap();
    if std::env::var("CHECK").is_ok() {
        println!("check: {:?}", store.check_tables().await.map_err(|e| e.to_string()));
    }
    let run = std::process::id();
    let bodies = bodies(n, rows);
    if let Ok(f) = std::env::var("DUMP") {
        std::fs::write(f, bodies[0].chunks().concat()).unwrap();
        return;
    }
    let c0 = cpu(pid);
    let me0 = cpu(std::process::id());
    let t = Instant::now();
    let mut tasks = vec![];
    let bodies = Arc::new(bodies);
    for p in 0..par {
        let (store, bodies) = (store.clone(), bodies.clone());
        tasks.push(tokio::spawn(async move {
            for (i, b) in bodies.iter().enumerate().filter(|(i, _)| i % par == p) {
                if let Err(e) = store.insert_events(b, &format!("{run}-{i}")).await {
                    println!("{e:?}");
                }
            }
        }));
    }
    for t in tasks {
        t.await.unwrap();
    }
    let el = t.elapsed().as_secs_f64();
    let m = (n * rows) as f64 / 1e6;
    println!(
        "insert: {:.0} rows/s, server {:.3} CPU-s/M (inserts only; merges may run), client {:.3} CPU-s/M",
        m * 1e6 / el,
        (cpu(pid) - c0) / m,
        (cpu(std::process::id()) - me0) / m
    );
}
