//! Every query of the dashboards, the alerts and the scaling, asked of a real Prometheus that scrapes a worker, a relay and a service. Run by
//! `cargo xtask test-alerts`, which builds Prometheus; left out where there is none.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use auditstream_integration_tests::{Fixture, Options, http, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);
const RULES: &str = include_str!("../../../helm/auditstream/files/rules.yaml");
const DASHBOARDS: [&str; 2] = [
    include_str!("../../../helm/auditstream/dashboards/pipeline.json"),
    include_str!("../../../helm/auditstream/dashboards/producers.json"),
];
/// What has nothing to say while all is well: dead letters and refusals come first.
const SILENT: [&str; 8] = [
    "Failed attempts",
    "Further attempts",
    "Partitions that wait for a schema",
    "Certificates end in",
    "Spill, part of its bound",
    "Decisions about batches",
    "Success",
    "Dead letters",
];

/// A program that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(mut command: Command, log: &Path) -> Running {
    let out = File::create(log).unwrap();
    let err = out.try_clone().unwrap();
    Running(command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap())
}

/// A port that was free just now.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// What Prometheus answers; an error of the query is an `Err`.
fn ask(address: &str, query: &str) -> Result<Vec<Value>, String> {
    let answer =
        http::get(address, &format!("/api/v1/query?query={}", encoded(query))).map_err(|error| error.to_string())?;
    let told: Value = serde_json::from_str(&answer.text()).map_err(|_| answer.text())?;
    match told["status"].as_str() {
        Some("success") => Ok(told["data"]["result"].as_array().cloned().unwrap_or_default()),
        _ => Err(told["error"].to_string()),
    }
}

fn configuration(folder: &Path, targets: [(&str, &str, &str); 3]) -> PathBuf {
    fs::write(folder.join("rules.yaml"), RULES.replace("interval: 30s", "interval: 1s")).unwrap();
    let jobs: String = targets
        .iter()
        .map(|(job, pod, address)| {
            format!("- job_name: {job}\n  static_configs: [{{targets: [\"{address}\"], labels: {{namespace: audit, pod: {pod}}}}}]\n")
        })
        .collect();
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yaml]\nscrape_configs:\n{jobs}"
    );
    let file = folder.join("prometheus.yml");
    fs::write(&file, text).unwrap();
    file
}

/// Whether an alert is there, waiting for its time or firing.
fn has_alert(rules: &Value, name: &str) -> bool {
    rules.to_string().contains(&format!("\"alertname\":\"{name}\""))
}

#[test]
fn every_query_is_answered() {
    let Some(prometheus) = std::env::var_os("AUDITSTREAM_PROMETHEUS") else {
        eprintln!("left out: no AUDITSTREAM_PROMETHEUS; `cargo xtask test-alerts` runs it");
        return;
    };
    let fixture = Fixture::new(Options::light("prometheus"));
    let folder = fixture.folder();
    let worker = fixture.worker();
    worker.wait_ready();

    // A service whose changes go through an outbox, and a relay beside it.
    let program =
        PathBuf::from(std::env::var_os("AUDITSTREAM_BIN").expect("xtask says where")).with_file_name("order-service");
    let shop_at = free_address();
    let database = format!("sqlite:{}", folder.join("orders.db").display());
    let mut shop = auditstream_stack::bound(&program).unwrap();
    shop.args(["--listen", &shop_at, "--database", &database, "--audit", "stream", "--no-relay"]);
    shop.args(["--kafka", fixture.stack().kafka_bootstrap(), "--topic", fixture.topic()]);
    let _shop = start(shop, &folder.join("shop.log"));
    wait_until("the shop", PATIENCE, || http::get(&shop_at, "/metrics").map_err(|error| error.to_string()));
    let relay = fixture.relay(&[("AUDITSTREAM_OUTBOX__URL", &database)]);
    let relay_at = wait_until("the relay", PATIENCE, || relay.address());

    let worker_at = worker.address().unwrap();
    let targets = [
        ("auditstream", "trail-auditstream-worker-0", &*worker_at),
        ("relay", "trail-auditstream-relay-0", &relay_at),
        ("shop", "shop-0", &shop_at),
    ];
    let address = free_address();
    let mut command = auditstream_stack::bound(Path::new(&prometheus)).unwrap();
    command.arg(format!("--config.file={}", configuration(folder, targets).display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()));
    command.args([&format!("--web.listen-address={address}"), "--log.level=warn"]);
    let _prometheus = start(command, &folder.join("prometheus.log"));
    wait_until("Prometheus to see all three", PATIENCE, || match ask(&address, "sum(up)")?.first() {
        Some(sample) if sample["value"][1] == "3" => Ok(()),
        other => Err(format!("{other:?}")),
    });

    // What rates are made of, after the first scrape.
    fixture.send(2_000);
    fixture.poison().send(Some(b"k"), Some(b"no event"), &[]);
    let json = [("content-type", "application/json")];
    let login = http::post(&shop_at, "/login", &json, br#"{"user":"ann","password":"demo"}"#, PATIENCE).unwrap();
    let session: Value = serde_json::from_str(&login.text()).unwrap();
    let bearer = format!("Bearer {}", session["session"].as_str().unwrap_or_default());
    let headers = [json[0], ("authorization", bearer.as_str())];
    let order = br#"{"customer":"Bob","email":"bob@example.org","items":[]}"#;
    let made = http::post(&shop_at, "/orders", &headers, order, PATIENCE).unwrap();
    assert!((200..300).contains(&made.status), "{}", made.text());
    for query in
        ["sum(rate(auditstream_consumer_rows_total[1m])) > 0", "sum(rate(auditstream_relay_rows_sent_total[1m])) > 0"]
    {
        wait_until(query, PATIENCE, || match ask(&address, query)?.is_empty() {
            true => Err("nothing yet".to_owned()),
            false => Ok(()),
        });
    }

    let mut asked = 0;
    for dashboard in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(dashboard).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().unwrap();
                let query = query.replace("$__rate_interval", "1m").replace("$namespace", ".*");
                let title = panel["title"].as_str().unwrap();
                let answer = ask(&address, &query).unwrap_or_else(|error| panic!("{title}: {query}: {error}"));
                asked += 1;
                // A rate needs two samples of a series that may have begun just now.
                if answer.is_empty() && !SILENT.contains(&title) {
                    wait_until(&format!("{title}: {query}"), PATIENCE, || match ask(&address, &query)?.is_empty() {
                        true => Err("no answer".to_owned()),
                        false => Ok(()),
                    });
                }
            }
        }
    }
    assert!(asked > 60, "{asked} queries");

    let known: Value = wait_until("every rule to be evaluated", PATIENCE, || {
        let told = http::get(&address, "/api/v1/rules").map_err(|error| error.to_string())?.text();
        let told: Value = serde_json::from_str(&told).map_err(|error| error.to_string())?;
        let rules = || {
            told["data"]["groups"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        };
        match rules().find(|rule| rule["health"] != "ok") {
            Some(rule) => Err(rule.to_string()),
            None if rules().count() == 0 => Err("no rules".to_owned()),
            // It looks for a series that was not there before, which takes a scrape or two.
            None if !has_alert(&told, "AuditstreamDeadLetters") => Err("no alert for the dead letter".to_owned()),
            None => Ok(told.clone()),
        }
    });
    // What this test has done is told, and nothing else.
    for quiet in
        ["AuditstreamEventsLost", "AuditstreamWorkerHalted", "AuditstreamOutboxRowsFailed", "AuditstreamNoWorkers"]
    {
        assert!(!has_alert(&known, quiet), "{quiet}: {known}");
    }

    if let Some(file) = std::env::var_os("AUDITSTREAM_SCALING_QUERIES") {
        let queries: Vec<(String, String)> = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        for (name, query) in queries {
            let answer = ask(&address, &query).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(answer.len(), 1, "{name}: {query}: KEDA takes one number, found {answer:?}");
        }
    }
    for (program, what) in [(relay, "relay"), (worker, "worker")] {
        program.terminate();
        assert_eq!(program.wait(PATIENCE), Some(0), "{what}");
    }
}
