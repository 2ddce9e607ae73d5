//! The program: see the library's documentation.

use std::time::Duration;

use anyhow::Context;
use auditstream_order_service::audit::{Audit, Mode, Options};
use auditstream_order_service::{Settings, run};
use auditstream_producer::{Compression, Config};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A small shop service whose every request leaves an audit event.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// The service's own database: a file, such as sqlite:orders.db, or `postgres://USER:PASSWORD@HOST/DATABASE`.
    #[arg(long, env = "ORDER_SERVICE_DATABASE", hide_env_values = true, default_value = "sqlite:orders.db")]
    database: String,
    /// What becomes of audit events.
    #[arg(long, value_enum, default_value_t = Mode::None)]
    audit: Mode,
    /// Kafka's brokers, for `--audit stream`.
    #[arg(long, default_value = "127.0.0.1:9092")]
    kafka: String,
    /// Kafka's topic of the events.
    #[arg(long, default_value = "audit.events")]
    topic: String,
    /// Leave the outbox to `auditstream relay` instead of moving it to Kafka inside of this process.
    #[arg(long)]
    no_relay: bool,
    /// The key that personal data is hashed with, 16 bytes or more. Without it they are masked.
    #[arg(long, env = "ORDER_SERVICE_AUDIT_KEY", hide_env_values = true)]
    audit_key: Option<String>,
    /// The password of every user.
    #[arg(long, env = "ORDER_SERVICE_PASSWORD", hide_env_values = true, default_value = "demo")]
    password: String,
    /// A range of proxies that are believed about the client's address, such as 10.0.0.0/8. May come several times.
    #[arg(long)]
    trust_proxy: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let args = Args::parse();
    // The least work beside the requests: a tenth of a second is soon enough for a trail, and few events compress badly whatever it costs.
    let (linger, compression) = (Duration::from_millis(100), Compression::Lz4);
    let kafka = Config { bootstrap_servers: args.kafka, topic: args.topic, linger, compression, ..Config::default() };
    let audit = Audit::new(Options { mode: args.audit, kafka, relay: !args.no_relay, key: args.audit_key })?;
    let listener = TcpListener::bind(&args.listen).await.with_context(|| format!("listening at {}", args.listen))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let settings = Settings { database: args.database, password: args.password, trusted_proxies: args.trust_proxy };
    run(listener, settings, audit, shutdown).await
}
