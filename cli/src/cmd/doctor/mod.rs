//! `auditstream doctor`: looks at everything a worker needs before it needs it.
//!
//! A list of checks. Each looks at one thing, changes nothing, and answers findings: what is, and what to do when it is wrong. A check that can't look
//! says so as a finding of its own; the others go on.

mod clickhouse;
mod host;
mod kafka;
mod registry;
mod server;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;

use auditstream_store::Store;
use serde_json::{Value as Json, json};

use crate::admin::Admin;
use crate::config::Settings;
use crate::{exit, output};

/// Look at ClickHouse, Kafka and the schema registry as a worker would, and say what is wrong and what mends it.
///
/// Changes nothing, but for a file that it writes into the spill's folder and removes. Compares the tables with what this version writes, on every replica when the tables are on a cluster,
/// and prints the statements that are missing. Looks with the user of the configuration: what that user may not see is said.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream doctor
  auditstream doctor --cluster audit
  auditstream doctor --json

Exit codes: 0 nothing is wrong, 1 something is, 2 the command line or the configuration is
wrong.")]
pub(crate) struct Args {
    /// ClickHouse cluster whose replicas are all looked at; default: that of the table events, if it is Distributed.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What a check looks with.
struct Context<'a> {
    settings: &'a Settings,
    store: Store,
    cluster: Option<&'a str>,
    admin: anyhow::Result<Admin>,
    /// Topics that the first look at Kafka has found; empty when no broker answers.
    topics: RefCell<Vec<kafka::Found>>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Fine,
    /// Works, but somebody should know.
    Note,
    /// A worker or a producer fails, or will.
    Wrong,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Note => "note",
            Self::Wrong => "wrong",
        }
    }
}

/// What a check found.
#[derive(Debug)]
struct Finding {
    level: Level,
    /// What is.
    found: String,
    /// What to do; empty when there is nothing.
    remedy: String,
    /// Statements that mend it, each complete.
    ddl: Vec<String>,
}

impl Finding {
    fn fine(found: impl Into<String>) -> Self {
        Self { level: Level::Fine, found: found.into(), remedy: String::new(), ddl: Vec::new() }
    }

    fn note(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Note, found: found.into(), remedy: remedy.into(), ddl: Vec::new() }
    }

    fn wrong(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Wrong, found: found.into(), remedy: remedy.into(), ddl: Vec::new() }
    }
}

type Look<'a> = Pin<Box<dyn Future<Output = Vec<Finding>> + 'a>>;

/// One check: its name, stable for scripts, and how it looks.
struct Check {
    name: &'static str,
    look: for<'a> fn(&'a Context<'a>) -> Look<'a>,
}

/// All checks, in the order in which they are told.
const CHECKS: &[Check] = &[
    Check { name: "clickhouse", look: |context| Box::pin(clickhouse::answers(context)) },
    Check { name: "migrations", look: |context| Box::pin(clickhouse::migrations(context)) },
    Check { name: "tables", look: |context| Box::pin(clickhouse::tables(context)) },
    Check { name: "replicas", look: |context| Box::pin(clickhouse::replicas(context)) },
    Check { name: "server", look: |context| Box::pin(server::state(context)) },
    Check { name: "settings", look: |context| Box::pin(server::settings(context)) },
    Check { name: "engines", look: |context| Box::pin(server::engines(context)) },
    Check { name: "ledger", look: |context| Box::pin(server::ledger(context)) },
    Check { name: "kafka", look: |context| Box::pin(kafka::topics(context)) },
    Check { name: "topics", look: |context| Box::pin(kafka::settings(context)) },
    Check { name: "group", look: |context| Box::pin(kafka::group(context)) },
    Check { name: "pause", look: |context| Box::pin(clickhouse::pause(context)) },
    Check { name: "registry", look: |context| Box::pin(registry::answers(context)) },
    Check { name: "config", look: |context| Box::pin(host::config(context)) },
    Check { name: "spill", look: |context| Box::pin(host::spill(context)) },
    Check { name: "outbox", look: |context| Box::pin(host::outbox(context)) },
];

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let context = Context {
        settings,
        store: Store::new(&settings.store())?,
        cluster: args.cluster.as_deref(),
        admin: Admin::connect(settings),
        topics: RefCell::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut findings: Vec<(&str, Finding)> = Vec::new();
    for check in CHECKS {
        let found = runtime.block_on((check.look)(&context));
        findings.extend(found.into_iter().map(|finding| (check.name, finding)));
    }
    let wrong = findings.iter().filter(|(_, finding)| finding.level == Level::Wrong).count();
    if args.json {
        output::line(&to_json(&findings, wrong).to_string())?;
    } else {
        print(&findings, wrong)?;
    }
    Ok(if wrong == 0 { exit::OK } else { exit::FAILURE })
}

/// The level, five wide, in its colour where there are colours.
fn shown(level: Level, has_colour: bool) -> String {
    let text = format!("{:<5}", level.as_str());
    match (has_colour, level) {
        (false, _) => text,
        (true, Level::Fine) => format!("\x1b[32m{text}\x1b[0m"),
        (true, Level::Note) => format!("\x1b[33m{text}\x1b[0m"),
        (true, Level::Wrong) => format!("\x1b[31m{text}\x1b[0m"),
    }
}

fn to_json(findings: &[(&str, Finding)], wrong: usize) -> Json {
    let one = |(check, finding): &(&str, Finding)| {
        let Finding { level, found, remedy, ddl } = finding;
        json!({ "check": check, "level": level.as_str(), "found": found, "remedy": remedy, "ddl": ddl })
    };
    json!({ "wrong": wrong, "findings": findings.iter().map(one).collect::<Vec<_>>() })
}

fn print(findings: &[(&str, Finding)], wrong: usize) -> anyhow::Result<()> {
    for (check, Finding { level, found, remedy, ddl }) in findings {
        output::line(&format!("{} {check}: {found}", shown(*level, output::has_colour())))?;
        if !remedy.is_empty() {
            output::line(&format!("      to do: {remedy}"))?;
        }
        for statement in ddl {
            output::line(&format!("      {statement}"))?;
        }
    }
    output::line(&match wrong {
        0 => "nothing is wrong".to_owned(),
        1 => "1 thing is wrong".to_owned(),
        more => format!("{more} things are wrong"),
    })
}
