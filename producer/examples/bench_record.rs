//! How long `record` takes on the caller's thread, and how many events a second reach Kafka's acknowledgement.
//!
//! `cargo run --release -p auditstream-producer --example bench_record -- [BOOTSTRAP|mock] [EVENTS] [THREADS]`
//!
//! The topic `audit.events` must exist. 0 events measure only the calls. Without arguments: librdkafka's mock cluster, 1,000,000 events, 1 thread. The
//! mock cluster lives in this process and takes CPU time of its own.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool")]

use std::time::{Duration, Instant};

use auditstream_producer::{Config, Producer};
use auditstream_schemas::{Actor, AuditEvent};
use rdkafka::mocking::MockCluster;

fn main() {
    let mut args = std::env::args().skip(1);
    let target = args.next().unwrap_or_else(|| "mock".to_owned());
    let events: usize = args.next().map_or(1_000_000, |n| n.parse().unwrap());
    let threads: usize = args.next().map_or(1, |n| n.parse().unwrap());
    let (_mock, bootstrap) = if target == "mock" {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("audit.events", 6, 1).unwrap();
        let bootstrap = mock.bootstrap_servers();
        (Some(mock), bootstrap)
    } else {
        (None, target)
    };

    let producer = Producer::new(Config { bootstrap_servers: bootstrap, ..Config::default() }).unwrap();
    println!("event in memory: {} bytes and its text", size_of::<AuditEvent>());
    call_times(&producer);
    throughput(&producer, events, threads);
    let report = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let report = report.block_on(producer.shutdown(Duration::from_secs(10)));
    assert!(report.all_acked(), "{report:?}");
}

fn event(index: usize) -> AuditEvent {
    AuditEvent::builder("acme", "order-service", "order.update", "order", format!("order-{}", index % 10_000))
        .actor(Actor::user(format!("user-{}", index % 997)))
        .change("/status", Some("\"open\""), Some("\"paid\""))
        .change("/total", Some("1250"), Some("1375"))
        .ip("192.0.2.17")
        .request_id("0b5c7e2e-54b1-4a8e-8f2b-0d6f9f6f2a11")
        .details("{\"channel\":\"web\",\"items\":3,\"currency\":\"EUR\"}")
        .build()
        .unwrap()
}

/// 100,000 calls a second, each timed.
fn call_times(producer: &Producer) {
    const EVENTS: usize = 100_000;
    let mut nanos = Vec::with_capacity(EVENTS);
    let mut full = 0;
    let begun = Instant::now();
    for index in 0..EVENTS {
        let event = event(index);
        while begun.elapsed() < Duration::from_micros(10 * index as u64) {
            std::hint::spin_loop();
        }
        let call = Instant::now();
        let taken = producer.record(event);
        nanos.push(call.elapsed().as_nanos());
        full += usize::from(taken.is_err());
    }
    nanos.sort_unstable();
    let at = |share: f64| nanos[((nanos.len() - 1) as f64 * share) as usize];
    println!(
        "record at 100,000/s: p50 {} ns, p99 {} ns, p99.9 {} ns, max {} us, {full} times full",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0) / 1000
    );
    let until = Instant::now();
    while producer.stats().queue_events > 0 && until.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn throughput(producer: &Producer, events: usize, threads: usize) {
    let templates: Vec<AuditEvent> = (0..1000).map(event).collect();
    let before = producer.stats();
    let begun = Instant::now();
    let cpu = cpu_seconds();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (producer, templates) = (producer.clone(), &templates);
            scope.spawn(move || {
                for index in (thread..events).step_by(threads) {
                    let mut next = Some(templates[index % templates.len()].clone());
                    while let Some(event) = next.take() {
                        if let Err(rejected) = producer.record(event) {
                            next = Some(*rejected.event);
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                }
            });
        }
    });
    while producer.stats().queue_events > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let stats = producer.stats();
    let acked = stats.acked - before.acked;
    let cpu = cpu_seconds() - cpu;
    println!(
        "{acked} events from {threads} thread(s) acknowledged in {seconds:.2} s: {:.0}/s, {:.2} CPU-s per million in this \
         process, {} times full, {} failed, resident {} MiB",
        acked as f64 / seconds,
        cpu / acked as f64 * 1e6,
        stats.rejected.queue_full - before.rejected.queue_full,
        stats.failed.total(),
        resident_mib(),
    );
}

/// User and system time of this process, from /proc/self/stat (in hundredths of a second).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
