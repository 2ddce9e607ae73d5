//! `cargo xtask stack`: a local Kafka and ClickHouse, and a schema registry if asked for, that stay until `down`.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use auditstream_stack::{Options, Role, ServerKind, Stack, StackError, State};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

/// The name when none is given.
const NAME: &str = "local";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install everything the project needs to build, run and test: system packages, Kafka, ClickHouse.
    ///
    /// Every other subcommand does this by itself where it has to.
    Install,
    /// Start a stack and leave it running; prints how to connect.
    ///
    /// The first time, Kafka and ClickHouse are downloaded (about 250 MB) into a cache outside the checkout. Afterwards
    /// no network is needed. Ports are free ones, passwords random, data in a folder of its own: several stacks may be up.
    Up {
        /// Its name: 1 to 64 letters, digits, `-`, `_` or `.`.
        #[arg(long, default_value = NAME)]
        name: String,
        /// For benchmarks: Kafka with the full just-in-time compiler and more memory; starts a little slower.
        #[arg(long)]
        throughput: bool,
        /// With a schema registry that speaks Confluent's API: Apicurio, in memory, so that a restart forgets what was registered.
        ///
        /// It takes 5 s more to start and 290 MB of memory; the first time, it is downloaded too (160 MB, and 35 MB for a newer Java
        /// where the machine's is older than 21).
        #[arg(long)]
        registry: bool,
    },
    /// List the stacks that are up, and whether each server answers.
    Status {
        /// As a JSON list, without passwords.
        #[arg(long)]
        json: bool,
    },
    /// Print the servers' logs.
    Logs {
        /// Only this server's.
        server: Option<Which>,
        /// The stack.
        #[arg(long, default_value = NAME)]
        name: String,
        /// Go on printing what is added, until Ctrl-C or the stack goes down.
        #[arg(short, long)]
        follow: bool,
    },
    /// Stop a stack and remove its data: no process and no file is left.
    Down {
        /// The stack.
        #[arg(long, default_value = NAME, conflicts_with = "all")]
        name: String,
        /// Every stack started by `up`; those of running tests are left alone.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    Kafka,
    Clickhouse,
    /// The schema registry.
    Registry,
}

pub(crate) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Install => install(),
        Command::Up { name, throughput, registry } => up(Options { throughput, registry, ..Options::named(name) }),
        Command::Status { json } => status(json),
        Command::Logs { server, name, follow } => logs(server, &name, follow),
        Command::Down { name, all } => down(&name, all),
    }
}

fn install() -> Result<()> {
    let installed = auditstream_stack::ensure_installed(crate::progress::shown().as_ref())?;
    print(&format!("everything is installed; the servers lie in {}\n", installed.cache.display()))
}

fn up(options: Options) -> Result<()> {
    let Options { name, registry, .. } = options.clone();
    if let Some(state) = auditstream_stack::find(&name)? {
        if registry && state.registry_url.is_none() {
            bail!(
                "the stack `{name}` is up without a schema registry; take it down first (`cargo xtask stack down --name {name}`), or \
                 start another one (`--name OTHER`)"
            );
        }
        return print(&format!("the stack `{name}` is already up\n{}", how_to_connect(&state)));
    }
    let progress = crate::progress::shown();
    auditstream_stack::ensure_servers(progress.as_ref())?;
    if registry {
        auditstream_stack::ensure_registry(progress.as_ref())?;
    }
    let begun = Instant::now();
    let stack = match Stack::start_shown(options, progress.as_ref()) {
        // Another `up` was quicker.
        Err(StackError::InUse(_)) => return print(&format!("the stack `{name}` is already up or just starting\n")),
        other => other?,
    };
    let seconds = begun.elapsed().as_secs_f64();
    let state = stack.detach()?;
    print(&format!("the stack `{name}` is up after {seconds:.1} s\n{}", how_to_connect(&state)))
}

/// What a person needs to try the stack by hand.
pub(crate) fn how_to_connect(state: &State) -> String {
    let password = |role| state.credentials(role).map_or("", |user| user.password.as_str());
    let users: String =
        Role::ALL.iter().map(|role| format!("              {:<14} {}\n", role.user(), password(*role))).collect();
    format!(
        "
  Kafka       {bootstrap}
  ClickHouse  {url}  (native protocol: 127.0.0.1:{tcp}), database audit
{users}{registry}  Folder      {dir}
              auditstream.toml (worker), auditstream-admin.toml (migrate), stack.json, logs

  kcat -b {bootstrap} -L
  curl -u {analyst}:{analyst_password} {url} -d 'SELECT version()'
{subjects}  auditstream --config {dir}/auditstream-admin.toml migrate
  cargo xtask stack down --name {name}
",
        bootstrap = state.kafka_bootstrap,
        registry = state.registry_url.as_ref().map_or_else(String::new, |url| format!("  Registry    {url}\n")),
        subjects = state.registry_url.as_ref().map_or_else(String::new, |url| format!("  curl {url}/subjects\n")),
        url = state.clickhouse_url,
        tcp = state.clickhouse_tcp_port,
        dir = state.dir.display(),
        analyst = Role::Analyst.user(),
        analyst_password = password(Role::Analyst),
        name = state.name,
    )
}

fn status(as_json: bool) -> Result<()> {
    let all = auditstream_stack::status()?;
    if as_json {
        let list: Vec<_> = all
            .iter()
            .map(|one| {
                json!({
                    "name": one.state.name,
                    "dir": one.state.dir,
                    "detached": one.state.detached,
                    "throughput": one.state.throughput,
                    "supervisor_pid": one.state.supervisor_pid,
                    "kafka": {
                        "bootstrap": one.state.kafka_bootstrap,
                        "pid": one.state.kafka_pid,
                        "answers": one.kafka_answers,
                    },
                    "clickhouse": {
                        "url": one.state.clickhouse_url,
                        "tcp_port": one.state.clickhouse_tcp_port,
                        "pid": one.state.clickhouse_pid,
                        "answers": one.clickhouse_answers,
                    },
                    "registry": one.registry_answers.map(|answers| json!({
                        "url": one.state.registry_url,
                        "pid": one.state.registry_pid,
                        "answers": answers,
                    })),
                })
            })
            .collect();
        return print(&format!("{}\n", serde_json::to_string_pretty(&list)?));
    }
    if all.is_empty() {
        return print("no stack is up\n");
    }
    let answer = |answers: bool, pid: Option<u32>| match (answers, pid) {
        (true, _) => "answers",
        (false, Some(_)) => "does not answer",
        (false, None) => "stopped",
    };
    let mut text = String::new();
    for one in all {
        let state = &one.state;
        let owner = if state.detached { "until `down`" } else { "with its owner" };
        let registry = one.registry_answers.zip(state.registry_url.as_ref());
        let registry =
            registry.map(|(answers, url)| format!("  Registry    {url}  {}\n", answer(answers, state.registry_pid)));
        text.push_str(&format!(
            "{}  ({owner}, supervisor {})\n  Kafka       {}  {}\n  ClickHouse  {}  {}\n{}  Folder      {}\n",
            state.name,
            state.supervisor_pid,
            state.kafka_bootstrap,
            answer(one.kafka_answers, state.kafka_pid),
            state.clickhouse_url,
            answer(one.clickhouse_answers, state.clickhouse_pid),
            registry.unwrap_or_default(),
            state.dir.display(),
        ));
    }
    print(&text)
}

fn logs(server: Option<Which>, name: &str, follow: bool) -> Result<()> {
    let state = auditstream_stack::find(name)?.ok_or_else(|| StackError::NotUp(name.to_owned()))?;
    let kinds: &[ServerKind] = match server {
        Some(Which::Kafka) => &[ServerKind::Kafka],
        Some(Which::Clickhouse) => &[ServerKind::Clickhouse],
        Some(Which::Registry) => &[ServerKind::Registry],
        None => &ServerKind::ALL,
    };
    let files = kinds.iter().flat_map(|kind| kind.log_names()).map(|name| (state.dir.join(name), 0));
    let mut files: Vec<(PathBuf, u64)> = files.collect();
    let mut last = None;
    loop {
        for (index, (path, read)) in files.iter_mut().enumerate() {
            let text = added(path, read)?;
            if text.is_empty() {
                continue;
            }
            if last != Some(index) && kinds.len() > 1 {
                print(&format!("==> {} <==\n", path.display()))?;
            }
            last = Some(index);
            print(&text)?;
        }
        if !follow || !state.dir.exists() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// What a log file holds beyond what was read. A file that is not there yet, or was rotated, begins at its start.
fn added(path: &PathBuf, read: &mut u64) -> Result<String> {
    let Ok(mut file) = File::open(path) else { return Ok(String::new()) };
    if file.metadata().map_or(0, |meta| meta.len()) < *read {
        *read = 0;
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(*read))
        .and_then(|_| file.read_to_end(&mut bytes))
        .with_context(|| format!("read {}", path.display()))?;
    *read += u64::try_from(bytes.len()).unwrap_or(0);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn down(name: &str, all: bool) -> Result<()> {
    if !all {
        return match auditstream_stack::down(name) {
            Ok(()) => print(&format!("the stack `{name}` is down; nothing of it is left\n")),
            Err(StackError::NotUp(_)) => print(&format!("no stack named `{name}` is up\n")),
            Err(error) => Err(error.into()),
        };
    }
    let detached: Vec<State> = auditstream_stack::list()?.into_iter().filter(|state| state.detached).collect();
    if detached.is_empty() {
        return print("no stack is up\n");
    }
    let mut failed = 0;
    for state in detached {
        match auditstream_stack::down(&state.name) {
            Ok(()) | Err(StackError::NotUp(_)) => print(&format!("the stack `{}` is down\n", state.name))?,
            Err(error) => {
                failed += 1;
                eprintln!("the stack `{}`: {error}", state.name);
            }
        }
    }
    if failed > 0 {
        bail!("{failed} stacks are not down");
    }
    Ok(())
}

/// To stdout; a reader that went away is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.context("write to stdout"),
    }
}
