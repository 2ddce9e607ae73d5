//! What the trail costs a real service: the order service with no audit, with an INSERT into its own database, and with auditstream, side by side.

mod results;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use auditstream_bench::clickhouse::Asker;
use auditstream_bench::orders::Mode;
use auditstream_bench::orders::clerk::{Expected, Kind};
use auditstream_bench::orders::compare::{self, Compared, Database, Options, Times, percentiles};
use auditstream_bench::orders::service::Service;
use auditstream_bench::orders::trail::{self, Found};
use auditstream_bench::table::{Table, thousands};
use auditstream_bench::versions;
use auditstream_schemas::Timestamp;
use auditstream_stack::{DatabaseServer, Role};
use serde::Serialize;
use serde_json::{Value, json};

use crate::Common;
use crate::run::Demo;
use crate::screen::Screen;
use crate::setup;

/// How long the last event may take to be queryable.
const PATIENCE: Duration = Duration::from_secs(60);

/// Compares at length.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Rounds that count.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Requests a second.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    per_second: u32,
    /// Length of each service's turn in a round, in milliseconds.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    slice_ms: u64,
    /// Connections to each service.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,
    /// On a PostgreSQL server made for this, instead of SQLite.
    #[arg(long)]
    postgres: bool,
    /// Where SQLite's files go; default: the stack's folder.
    #[arg(long, value_name = "FOLDER", conflicts_with = "postgres")]
    folder: Option<PathBuf>,
    /// Write the figures here, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the figures here for the report.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// The figures. Times are medians over the rounds; each ratio is the median of the rounds' ratios to `none`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    /// `sqlite` or `postgres`.
    order_database: &'static str,
    order_rounds: u32,
    order_requests_per_second: u32,
    /// Of each way, in all rounds that count.
    order_requests: u64,
    order_none_p50_ms: f64,
    order_none_p99_ms: f64,
    order_sync_p50_ms: f64,
    order_sync_p99_ms: f64,
    order_stream_p50_ms: f64,
    order_stream_p99_ms: f64,
    order_sync_p50_ratio: f64,
    order_sync_p99_ratio: f64,
    order_stream_p50_ratio: f64,
    order_stream_p99_ratio: f64,
    /// What the service with auditstream was asked must have left so many events, and nothing else any.
    order_events: u64,
    order_lost: u64,
    order_double: u64,
    /// Events of requests to the services without auditstream.
    order_unknown: u64,
}

impl Figures {
    /// Rows of the trail.
    pub(crate) fn events(&self) -> u64 {
        self.order_events
    }

    /// Lost, and double or unknown.
    pub(crate) fn faults(&self) -> (u64, u64) {
        (self.order_lost, self.order_double + self.order_unknown)
    }
}

/// The services after their load, while their trail is on its way.
pub(crate) struct Loaded {
    options: Options,
    compared: Compared,
    /// The relay is in one of them.
    services: Vec<Service>,
    _server: Option<Server>,
}

/// A PostgreSQL server that goes with this value.
struct Server(#[expect(dead_code, reason = "held for its drop")] DatabaseServer);

/// For the demo: a few short rounds on SQLite.
pub(crate) async fn in_demo(demo: &Demo<'_>, program: PathBuf) -> Result<Loaded> {
    let database = Database::Sqlite(demo.target.state().dir.clone());
    let options =
        Options { rounds: 3, slice: Duration::from_millis(1_200), ..options(demo, program, database, 150, 8) };
    load(demo, options, None).await
}

fn options(demo: &Demo<'_>, program: PathBuf, database: Database, per_second: u32, connections: u32) -> Options {
    Options {
        program,
        database,
        rounds: 1,
        per_second,
        slice: Duration::from_secs(1),
        pause: Duration::from_millis(300),
        connections,
        seed: demo.seed,
        run: format!("{:x}-", Timestamp::now().as_micros()),
    }
}

/// Starts the three services and gives them their load.
async fn load(demo: &Demo<'_>, options: Options, server: Option<Server>) -> Result<Loaded> {
    /// Stops the threads when the work is dropped.
    struct Stop(Arc<AtomicBool>);
    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let mut services = Vec::new();
    // One by one: on PostgreSQL two that make a table at once would be in each other's way.
    for mode in Mode::ALL {
        let mut service = Service::start(&options.program, &demo.target, mode, &options.database.url(mode))?;
        service.ready().await?;
        services.push(service);
    }
    demo.screen.say(&format!(
        "  $ order-service --audit none | sync | stream    (one of each, on {}; each asked {} requests a second in turns)",
        options.database.name(),
        options.per_second
    ));
    let slices = 3.0 * (f64::from(options.rounds) + 0.5);
    let total = (slices * options.slice.as_secs_f64() * f64::from(options.per_second)) as u64;
    let bar = demo.screen.bar("requests", total);
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Stop(Arc::default()));
    let work = {
        let (options, done, stop) = (options.clone(), Arc::clone(&done), Arc::clone(&stop.0));
        tokio::task::spawn_blocking(move || (compare::run(&services, &options, &done, &stop), services))
    };
    let (compared, services) =
        bar.during(|| done.load(Ordering::Relaxed).min(total), work).await.context("a thread ended badly")?;
    drop(bar);
    Ok(Loaded { options, compared: compared?, services, _server: server })
}

impl Loaded {
    /// What is expected of the trail.
    pub(crate) fn expected(&self) -> &[Expected] {
        &self.compared.expected
    }

    /// The order that most was done with: what an analyst may ask about.
    pub(crate) fn order(&self) -> Option<[String; 3]> {
        let mut deeds = std::collections::HashMap::<&str, Vec<&str>>::new();
        for expected in self.expected().iter().filter(|expected| expected.action != "order.read") {
            deeds.entry(expected.order.as_deref().unwrap_or_default()).or_default().push(expected.action);
        }
        deeds.remove("");
        // One that was made and cancelled under our eyes says more than one with another update.
        let told = |actions: &[&str]| {
            (actions.contains(&"order.cancel"), actions.contains(&"order.create"), actions.len().min(7))
        };
        let (order, _) = deeds.into_iter().max_by_key(|(order, actions)| (told(actions), *order))?;
        Some(["acme", "order", order].map(str::to_owned))
    }

    /// Waits for the trail, which workers are storing, ends the services, and compares request by request.
    pub(crate) async fn prove(self, demo: &Demo<'_>) -> Result<(Figures, Compared)> {
        let Loaded { options, compared, services, _server } = self;
        let bar = demo.screen.bar("the trail arrives", 0);
        // The analyst's profile bounds how many rows an answer may have; this is no analyst's question.
        let asker = Asker::new(&demo.target, Role::Admin);
        let arrived = trail::wait(&asker, &options.run, &compared.expected, PATIENCE);
        bar.during(|| 0, arrived).await?;
        drop(bar);
        let stop = tokio::task::spawn_blocking(move || services.into_iter().try_for_each(Service::stop));
        stop.await.context("a thread ended badly")??;
        let found = trail::judge(&asker, &options.run, &compared.expected).await?;
        for example in &found.examples {
            demo.screen.say(&format!("  {example}"));
        }
        demo.screen.say(&format!(
            "  {} audited requests held against {} events by request id: {} lost, {} double, {} of the others",
            thousands(distinct(&compared.expected)),
            thousands(found.events),
            found.lost,
            found.double,
            found.unknown
        ));
        Ok((figures(&options, &compared, &found), compared))
    }
}

fn distinct(expected: &[Expected]) -> u64 {
    let ids: std::collections::HashSet<&str> = expected.iter().map(|expected| expected.request_id.as_str()).collect();
    ids.len() as u64
}

fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn figures(options: &Options, compared: &Compared, found: &Found) -> Figures {
    let [none, sync, stream] = compared.times(None);
    Figures {
        order_database: options.database.name(),
        order_rounds: options.rounds,
        order_requests_per_second: options.per_second,
        order_requests: compared.requests(),
        order_none_p50_ms: round(none.p50_ms),
        order_none_p99_ms: round(none.p99_ms),
        order_sync_p50_ms: round(sync.p50_ms),
        order_sync_p99_ms: round(sync.p99_ms),
        order_stream_p50_ms: round(stream.p50_ms),
        order_stream_p99_ms: round(stream.p99_ms),
        order_sync_p50_ratio: round(sync.p50_ratio),
        order_sync_p99_ratio: round(sync.p99_ratio),
        order_stream_p50_ratio: round(stream.p50_ratio),
        order_stream_p99_ratio: round(stream.p99_ratio),
        order_events: found.events,
        order_lost: found.lost,
        order_double: found.double,
        order_unknown: found.unknown,
    }
}

/// The three side by side.
pub(crate) fn show(screen: &Screen, compared: &Compared, kinds: bool) {
    let title = ["no audit", "INSERT into its own database", "auditstream"];
    let row = |what: &str, times: Times, cpu: &str| {
        let text = |value: f64| if value.is_finite() { format!("{value:.3}") } else { String::new() };
        let [p50, p99, p50_ratio, p99_ratio] = [times.p50_ms, times.p99_ms, times.p50_ratio, times.p99_ratio].map(text);
        vec![what.to_owned(), p50, p99, p50_ratio, p99_ratio, cpu.to_owned()]
    };
    let requests = compared.requests().max(1) as f64;
    let mut rows = Vec::new();
    for ((times, title), cpu) in compared.times(None).into_iter().zip(title).zip(compared.cpu) {
        rows.push(row(title, times, &format!("{:.3}", cpu.as_secs_f64() * 1e3 / requests)));
    }
    for kind in Kind::ALL.into_iter().filter(|_| kinds) {
        for (times, mode) in compared.times(Some(kind)).into_iter().zip(Mode::ALL) {
            rows.push(row(&format!("{}, {}", kind.name(), mode.name()), times, ""));
        }
    }
    let names = ["request", "p50 ms", "p99 ms", "p50 ratio", "p99 ratio", "CPU ms each"].map(str::to_owned).to_vec();
    screen.say(&format!("\n{}", Table { names, rows }.render(2)));
}

/// `auditstream-demo orders`.
pub(crate) async fn bench(args: &Args, screen: &Screen) -> Result<()> {
    let demo = Demo::new(&args.common, 0, screen)?;
    setup::tables_and_topics(&demo).await?;
    let (database, server) = if args.postgres {
        // On a thread that may block; the server has one of its own, which stays.
        let server = tokio::task::spawn_blocking(DatabaseServer::postgres).await.context("a thread ended badly")??;
        (Database::Postgres(server.url().to_owned()), Some(Server(server)))
    } else {
        (Database::Sqlite(args.folder.clone().unwrap_or_else(|| demo.target.state().dir.clone())), None)
    };
    let program = args.common.order_service()?;
    let options = Options {
        rounds: args.rounds,
        slice: Duration::from_millis(args.slice_ms),
        ..options(&demo, program, database, args.per_second, args.connections)
    };
    let loaded = load(&demo, options, server).await?;
    show(screen, &loaded.compared, true);
    // Not before: a worker would take CPU time from the service, which it never does where it runs elsewhere.
    let workers = setup::two_workers(&demo, ["worker-1", "worker-2"]).await?;
    let options = loaded.options.clone();
    let (figures, compared) = loaded.prove(&demo).await?;
    setup::drain(&demo, workers).await?;
    if let Some(path) = &args.results {
        let mut results = results::of(&options, &compared, &figures);
        results.versions = versions::with_clickhouse(&demo.analyst).await?;
        results.write(path)?;
        screen.say(&format!("  written to {}", path.display()));
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&with_details(&figures, &compared)?)? + "\n";
        std::fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))?;
        screen.say(&format!("  written to {}", path.display()));
    }
    anyhow::ensure!(figures.faults() == (0, 0), "the trail is not what it must be; see above");
    Ok(())
}

/// The figures, and by sort of request and by round what they were made of.
fn with_details(figures: &Figures, compared: &Compared) -> Result<Value> {
    let by_mode = |values: [Value; 3]| -> Value {
        Mode::ALL.into_iter().zip(values).map(|(mode, value)| (mode.name().to_owned(), value)).collect()
    };
    let kinds = Kind::ALL.into_iter().map(|kind| {
        let times = compared.times(Some(kind)).map(|times| {
            json!({ "p50_ms": round(times.p50_ms), "p99_ms": round(times.p99_ms), "p50_ratio": round(times.p50_ratio) })
        });
        (kind.name().to_owned(), by_mode(times))
    });
    let rounds = compared.rounds.iter().map(|samples| {
        by_mode(percentiles(samples, None).map(|(p50, p99)| json!({ "p50_ms": round(p50), "p99_ms": round(p99) })))
    });
    let cpu = compared.cpu.map(|cpu| json!(round(cpu.as_secs_f64() * 1e3 / compared.requests().max(1) as f64)));
    let mut value = serde_json::to_value(figures)?;
    value["requests_by_sort"] = Value::Object(kinds.collect());
    value["rounds"] = rounds.collect();
    value["cpu_ms_a_request"] = by_mode(cpu);
    Ok(value)
}
